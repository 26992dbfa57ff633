"""The real frontend plugin, in a real browser, with the service behind it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.live.kinds import Deploy, Told
from tests.live.rigs import LITELLM_PORT, MASTER_KEY, SHARED, BackstageRig, LiteLLMRig
from tests.live.service import Service

WALK = SHARED / "frontend" / "e2e"
LIMIT = 900.0  # seconds; the first walk on a new machine installs a browser and builds the page

pytestmark = pytest.mark.skipif(not WALK.is_file(), reason="frontend of ../shared not there")


def _walk(service: Service, out: Path, *arguments: str, **env: str) -> dict[str, Any]:
    """Walk through the page, and return the summary, screenshots left in ``out``."""
    settings = {
        "BACKSTAGE_URL": BackstageRig.url,
        "LITELLM_BASE_URL": LiteLLMRig.url,
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "LITELLM_PORT": str(LITELLM_PORT),
        "LITELLM_PLUGIN_URL": service.url,
    }
    done = subprocess.run(
        [str(WALK), "--out", str(out), *arguments],
        env={**os.environ, **settings, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    summary = out / "summary.json"
    assert summary.is_file(), f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    result: dict[str, Any] = json.loads(summary.read_text())
    return result


def _failures(summary: dict[str, Any]) -> list[str]:
    return [f"{step['step']}: {step.get('error')}" for step in summary["steps"] if not step["ok"]]


def test_every_step_of_the_frontend_works(
    deploy: Deploy, backstage: BackstageRig, tmp_path: Path, told: Told
) -> None:
    summary = _walk(deploy("walk", caching=True), tmp_path / "walk")
    assert _failures(summary) == []
    told(f"{summary['passed']} steps in the browser, screenshots in {tmp_path / 'walk'}")


def test_the_page_works_with_budgets_hidden_from_members(
    deploy: Deploy, backstage: BackstageRig, tmp_path: Path, told: Told
) -> None:
    hiding = deploy("walk-hidden", "  display: { hideTeamBudgetForMembers: true }\n", caching=True)
    summary = _walk(hiding, tmp_path / "walk", "--only", "arrange|sign in|home:|teams:")
    assert _failures(summary) == []
    told(f"{summary['passed']} steps in the browser with team budgets hidden")


def test_the_page_works_without_team_management(
    deploy: Deploy, backstage: BackstageRig, tmp_path: Path, told: Told
) -> None:
    plain = deploy("walk-no-teams", "  teamAdmin: null\n", caching=True)
    summary = _walk(plain, tmp_path / "walk", "--only", "arrange|sign in|teams:|plain user")
    assert _failures(summary) == []
    told(f"{summary['passed']} steps in the browser without team management")
