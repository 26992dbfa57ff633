"""``jobs``, and the checks of ``doctor`` that look at the store."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from litellm_plugin import jobs
from litellm_plugin.cli import main
from litellm_plugin.cli.checks import Result, Status, store
from litellm_plugin.cli.terminal import MASK
from litellm_plugin.cli.world import World
from litellm_plugin.config import load_settings
from litellm_plugin.config.database import Database
from litellm_plugin.store import runs
from litellm_plugin.store.database import Store

CONFIG: dict[str, Any] = {
    "litellm": {
        "baseUrl": "http://litellm:4000",
        "masterKey": "sk-master-of-tests",
        "audit": {"store": True},
    },
    "backend": {"baseUrl": "http://backstage:7007"},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def config(tmp_path: Path, file: Path) -> Path:
    return written(tmp_path, {"client": "better-sqlite3", "connection": str(file)})


def written(folder: Path, database: Any, **backend: Any) -> Path:
    path = folder / "app-config.yaml"
    given = {**CONFIG["backend"], "database": database, **backend}
    path.write_text(json.dumps(CONFIG | {"backend": given}))
    return path


def checked(config: Path) -> Result:
    return store.works(World(load_settings([config], {}), []))


def run(config: Path, *arguments: str) -> Any:
    return CliRunner().invoke(
        main, ["jobs", "--config", str(config), *arguments], env={"COLUMNS": "200"}
    )


def test_jobs_lists_the_last_runs(config: Path, file: Path) -> None:
    assert run(config).stdout == "No run is recorded.\n"
    recorded = Store(Database(file=file))
    with jobs.run(recorded, "sync", dry_run=True) as sync:
        sync.counts["changed"] = 3
    with pytest.raises(ValueError, match="x"), jobs.run(recorded, "offboard", dry_run=False):
        raise ValueError("x")
    recorded.close()
    head, first, second = run(config).stdout.splitlines()
    assert re.split(" {2,}", head.strip()) == [
        *("job", "started (UTC)", "seconds", "status", "dry run", "counts and error")
    ]
    assert first.split()[0] == "offboard"
    assert first.split()[-2:] == ["failed", "ValueError"]
    assert second.split()[4:] == ["succeeded", "yes", "3", "changed"]
    assert "'synk' is not one of 'sync'" in run(config, "--job", "synk").stderr
    (told,) = json.loads(run(config, "--json", "--job", "sync").stdout)
    assert told.keys() == {
        *("job", "host", "started_at", "ended_at", "seconds", "status", "dry_run", "counts"),
        "error",
    }
    assert (told["job"], told["dry_run"], told["counts"]) == ("sync", True, {"changed": 3})


def test_doctor_looks_at_the_store_without_making_one(config: Path, file: Path) -> None:
    assert checked(config) == Result(
        Status.WARNING, f"SQLite {file} is not there yet.", "The service makes it when it starts."
    )
    assert not file.exists()
    file.touch(mode=0o600)
    assert checked(config).found == f"SQLite {file} has no tables yet."
    made = Store(Database(file=file))
    made.prepare()
    found = checked(config)
    assert (found.status, found.found) == (
        Status.OK,
        f"SQLite {file}: readable, writable, tables of version 0002",
    )
    assert runs.recent(made, None, 1) == []  # its row was rolled back
    file.chmod(0o640)
    found = checked(config)
    assert (found.status, found.remedy) == (Status.WARNING, f"Run chmod 600 {file}*")
    with made.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    assert "has tables of version 0000; this package has 0002" in checked(config).found
    with made.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    found = checked(config)
    assert (found.status, "newer version of this service" in found.found) == (Status.FAILED, True)
    assert found.found.endswith("from before it.")
    made.close()


def test_doctor_says_why_the_store_cannot_be_used(tmp_path: Path) -> None:
    url = "postgresql://litellm:hunter2-of-tests@127.0.0.1:9/"
    found = checked(written(tmp_path, {"client": "pg", "connection": url}))
    assert found.status is Status.FAILED
    assert found.found.startswith("PostgreSQL 127.0.0.1:9/backstage_plugin_litellm: ")
    assert "makes a missing database when it starts" in (found.remedy or "")
    assert "refused" in found.found
    assert "hunter2" not in found.found


@pytest.mark.parametrize(
    ("database", "backend", "status"),
    [
        ("a.sqlite", {}, Status.OK),
        ("a.sqlite", {"cache": {"store": "redis", "connection": "redis://r"}}, Status.WARNING),
        (None, {"cache": {"store": "redis", "connection": "redis://r"}}, Status.OK),
    ],
)
def test_doctor_warns_of_replicas_without_postgresql(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    database: str | None,
    backend: Any,
    status: Status,
) -> None:
    monkeypatch.chdir(tmp_path)
    block = {"client": "better-sqlite3", "connection": database}
    if database is None:
        block = {"client": "pg", "connection": "postgresql://db"}
    settings = load_settings([written(tmp_path, block, **backend)], {})
    assert store.replicas(World(settings, [])).status is status


def test_config_check_shows_where_the_store_is_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://litellm:hunter2-of-tests@db:5433/x?sslmode=require"
    path = written(tmp_path, {"client": "pg", "connection": url})
    arguments = ["config", "check", "--config", str(path)]
    shown = CliRunner().invoke(main, arguments, env={"COLUMNS": "300"}).stdout
    assert f"postgresql://{MASK}@db:5433/x?{MASK}" in shown
    assert "hunter2" not in shown
