"""What ``sync``, ``offboard`` and ``notify`` have in common, as jobs."""

from __future__ import annotations

import pytest

from litellm_plugin.store.database import Store
from tests.cli.installation import Installation
from tests.fakes import connection_refused

SWITCHES = {
    "sync": "litellm.provisioning.sync",
    "offboard": "litellm.offboarding",
    "notify": "litellm.notifications",
}


@pytest.fixture(params=SWITCHES)
def job(installation: Installation, request: pytest.FixtureRequest) -> str:
    name: str = request.param
    installation.set(SWITCHES[name], {"enabled": True})
    return name


@pytest.mark.parametrize("upstream", ["backstage", "litellm"])
def test_an_upstream_that_does_not_answer_ends_the_run(
    installation: Installation, job: str, upstream: str
) -> None:
    getattr(installation, upstream).replies["*"] = connection_refused()
    result = installation.run(job, "--apply")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{job} stopped: ")
    assert result.stderr.endswith("; run litellm-plugin doctor\n")
    assert {asked.method for asked in installation.litellm.asked} <= {"GET"}


def test_only_one_process_runs_it(installation: Installation, store: Store, job: str) -> None:
    with store.lock(f"job-{job}"):
        result = installation.run(job, "--apply")
        assert (result.exit_code, result.stderr) == (75, f"Another process runs {job}.\n")
        assert installation.run(job).exit_code == 0


def test_what_is_off_changes_nothing(installation: Installation, job: str) -> None:
    installation.set(SWITCHES[job], {"enabled": False})
    result = installation.run(job, "--apply")
    assert result.exit_code == 2
    assert f"{SWITCHES[job]}.enabled is false" in result.stderr
    assert installation.litellm.asked == []
