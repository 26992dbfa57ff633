"""A PostgreSQL of the test run's own, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from litellm_plugin.config.database import Database
from tests.deployed import free_port

OWNER = "postgres"  # the server refuses to run as root
PASSWORD = "a-password-of-tests"

_programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
PROGRAMS = _programs[-1].parent if _programs else None
_numbers = count()


class Postgres:
    """A server, with the superuser ``postgres`` and the user ``litellm`` without rights."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._run("initdb", "-A", "scram-sha-256", "-U", OWNER, f"--pwfile={folder}/password",
                  "--no-sync", "-E", "UTF8", "--locale=C")  # fmt: skip
        self.start()
        self.execute(f"CREATE ROLE litellm LOGIN PASSWORD '{PASSWORD}'")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = f"{self._folder}/log"
        self._run("pg_ctl", "start", "--wait", "-l", log, "-o", options)

    def stop(self) -> None:
        """End it, and all connections."""
        self._run("pg_ctl", "stop", "--wait", "-m", "immediate")

    def execute(self, statement: str, database: str = OWNER) -> list[Any]:
        """Execute a statement as superuser; return the rows."""
        with psycopg.connect(**self._address(OWNER), dbname=database, autocommit=True) as found:
            cursor = found.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def database(self, **settings: Any) -> Database:
        """Return a database of this server, with a new name, that does not exist."""
        name = f"backstage_plugin_litellm_{next(_numbers)}"
        given = {"database": name, **self._address(OWNER), **settings}
        return Database(client="pg", **given)

    def url(self, user: str = OWNER) -> str:
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self.port}"

    def _address(self, user: str) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port, "user": user, "password": PASSWORD}

    def _run(self, program: str, *arguments: str) -> None:
        assert PROGRAMS is not None
        command = [str(PROGRAMS / program), "-D", f"{self._folder}/data", *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", OWNER, "--", *command]
        done = subprocess.run(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            # Not a pipe, which the server would keep open.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{program}: {self._log()}"

    def _log(self) -> str:
        log = self._folder / "log"
        return log.read_text() if log.exists() else "no log"


@contextmanager
def running() -> Iterator[Postgres]:
    """Start a server; skip the test where PostgreSQL is not installed."""
    if PROGRAMS is None:
        pytest.skip("PostgreSQL is not installed")
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam(OWNER)
        except KeyError:
            pytest.skip(f"there is no user {OWNER} to run PostgreSQL as")
    # Not below pytest's folders, which other users can't enter.
    folder = Path(tempfile.mkdtemp(prefix="litellm-postgres-", dir="/tmp"))
    (folder / "password").write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (folder, folder / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    try:
        server = Postgres(folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server that tests share; each asks for a new ``database()`` of it."""
    with running() as server:
        yield server
