"""SQLite: the engine."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from litellm_plugin.config.database import Database

BUSY = 5.0  # seconds that a write waits for the write of another process
PAUSE = 0.01  # seconds between two attempts
IN_C = 100  # milliseconds that SQLite itself waits, while no other greenlet can run


def engine(database: Database) -> Engine:
    """Return an engine; a missing file is created, readable for this user alone.

    Raises:
        OSError: The file can't be created.
    """
    options: dict[str, Any] = {
        "connect_args": {"timeout": BUSY, "check_same_thread": False},
        "hide_parameters": True,  # of statements in errors; they name people
    }
    if database.file is None:
        made = create_engine("sqlite://", poolclass=StaticPool, **options)
    else:
        _make_private(database.file)
        made = create_engine(URL.create("sqlite", database=str(database.file)), **options)

    @event.listens_for(made, "connect")
    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # sqlite3 begins transactions too late: see begin()
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA busy_timeout={IN_C}")

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        wanted = connection.get_execution_options().get("litellm_begin", "BEGIN")
        _begin(connection.connection.driver_connection, wanted)

    return made


def _begin(connection: Any, wanted: str) -> None:
    until = time.monotonic() + BUSY
    while True:
        try:
            connection.execute(wanted)
        except sqlite3.OperationalError as exc:
            busy = exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= until:
                raise
        else:
            return
        time.sleep(PAUSE)


def _make_private(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not file.exists():
        file.touch(mode=0o600)
