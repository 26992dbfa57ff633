"""The real frontend plugin, in a real browser, with the service behind it.

The browser has the page from the rig's own server, which hands on what the page asks: below
``/api`` to the service and to Backstage, or to an nginx with a configuration of ``deploy/nginx``
in front of both.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.deploy.ingress import Ingress, needs_nginx
from tests.live.kinds import Deploy, Told
from tests.live.rigs import LITELLM_PORT, MASTER_KEY, SHARED, BackstageRig, LiteLLMRig
from tests.live.service import MOUNT, Service
from tests.live.web import Client, json_of

WALK = SHARED / "frontend" / "e2e"
LIMIT = 900.0  # seconds; the first walk on a new machine installs a browser and builds the page

pytestmark = pytest.mark.skipif(not WALK.is_file(), reason="frontend of ../shared not there")


def _walk(
    plugin_url: str, out: Path, *arguments: str, backstage_url: str = BackstageRig.url
) -> dict[str, Any]:
    """Walk through the page, and return the summary, screenshots left in ``out``."""
    settings = {
        "BACKSTAGE_URL": backstage_url,
        "LITELLM_BASE_URL": LiteLLMRig.url,
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "LITELLM_PORT": str(LITELLM_PORT),
        "LITELLM_PLUGIN_URL": plugin_url,
    }
    done = subprocess.run(
        [str(WALK), "--out", str(out), *arguments],
        env={**os.environ, **settings},
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


@contextmanager
def _behind(name: str, folder: Path, **upstreams: str) -> Iterator[Ingress]:
    """Run nginx with a configuration of ``deploy/nginx`` in front of these base URLs."""
    theirs = {"service": "127.0.0.1:5000", "backstage": "127.0.0.1:7007"}
    folder.mkdir()
    ingress = Ingress(
        folder, name, {theirs[of]: urlsplit(url).port or 0 for of, url in upstreams.items()}
    )
    try:
        yield ingress
    finally:
        ingress.stop()


@needs_nginx
def test_every_step_of_the_frontend_works_behind_nginx(
    deploy: Deploy, backstage: BackstageRig, tmp_path: Path, told: Told
) -> None:
    service = deploy("walk", caching=True)
    with _behind(
        "litellm-plugin.conf", tmp_path / "nginx", service=service.url, backstage=backstage.url
    ) as ingress:
        summary = _walk(ingress.url + MOUNT, tmp_path / "walk", backstage_url=ingress.url)
    assert _failures(summary) == []
    told(
        f"{summary['passed']} steps in the browser behind nginx, screenshots in {tmp_path / 'walk'}"
    )


@needs_nginx
def test_the_page_works_through_backstages_proxy(
    service: Service, backstage: BackstageRig, tmp_path: Path, told: Told
) -> None:
    with _behind("through-backstage.conf", tmp_path / "nginx", backstage=backstage.url) as ingress:
        summary = _walk(
            ingress.url + MOUNT,
            tmp_path / "walk",
            "--only",
            "arrange|sign in|keys: (list|generate|edit|block|unblock|revoke)$",
            backstage_url=ingress.url,
        )
    assert _failures(summary) == []
    assert "POST /api/litellm/keys/generate" in service.access_log
    told(f"{summary['passed']} steps in the browser through Backstage's proxy")


@pytest.mark.parametrize(
    ("what", "config", "steps"),
    [
        ("hidden budgets", "  display: { hideTeamBudgetForMembers: true }\n", "home:|teams:"),
        ("no team management", "  teamAdmin: null\n", "teams:|plain user"),
    ],
)
def test_the_page_works_with_other_settings(
    deploy: Deploy,
    backstage: BackstageRig,
    tmp_path: Path,
    told: Told,
    what: str,
    config: str,
    steps: str,
) -> None:
    other = deploy(f"walk-{what.replace(' ', '-')}", config, caching=True)
    summary = _walk(other.url, tmp_path / "walk", "--only", f"arrange|sign in|{steps}")
    assert _failures(summary) == []
    told(f"{summary['passed']} steps in the browser with {what}")


def test_the_audit_tab_works_on_an_open_source_litellm(
    deploy: Deploy, backstage: BackstageRig, tmp_path: Path, told: Told
) -> None:
    stored = deploy("walk-audit", "  audit:\n    store: true\n", env={"WEB_CONCURRENCY": "1"})
    steps = "arrange|sign in|keys: (generate|edit|block|unblock)$|audit:"
    summary = _walk(stored.url, tmp_path / "walk", "--only", steps)
    assert _failures(summary) == []
    log = json_of(Client(stored.url, backstage.sign_in("alice")).get("/audit", page_size="100"))
    assert {"created", "blocked", "unblocked"} <= {row["action"] for row in log["audit_logs"]}
    told(f"{summary['passed']} steps in the browser with the audit log of {log['total']} events")
