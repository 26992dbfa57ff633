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
MIGRATION = 60.0  # seconds that a migration waits for that of another process
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
        # SQLite itself does not wait for the process that changes the mode of a new file.
        _execute(connection, "PRAGMA journal_mode=WAL", BUSY)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA busy_timeout={IN_C}")

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        patience = MIGRATION if options.get("litellm_migrates") else BUSY
        wanted = options.get("litellm_begin", "BEGIN")
        _execute(connection.connection.driver_connection, wanted, patience)

    return made


def _execute(connection: Any, statement: str, patience: float) -> None:
    """Execute a statement, which waits up to ``patience`` seconds for other processes."""
    until = time.monotonic() + patience
    while True:
        try:
            connection.execute(statement)
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
