"""The connection to the store's database, PostgreSQL or SQLite, and its migrations."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from hashlib import blake2b
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from litellm_plugin.config.database import Database, DatabaseError
from litellm_plugin.store.migrate import upgrade

BUSY = 5.0  # seconds that a write to SQLite waits for another process's
CONNECT = 5  # seconds until a connection to PostgreSQL is given up
POOL = 4  # connections of one process to PostgreSQL


class StoreUnavailable(Exception):
    """The database can't be used now; the message says why, without its password."""


class Store:
    """The store. Safe to share between threads, and by processes that are forked from this one.

    Args:
        database: Where it is.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._guard = threading.Lock()
        self._engines: dict[int, Engine] = {}  # by process, which can't share connections
        self._migrated = False
        self._locks: dict[str, threading.Lock] = {}
        # A database in memory has one connection, and so one transaction at a time.
        alone = database.client != "pg" and database.file is None
        self._turn = threading.RLock() if alone else nullcontext()

    @property
    def shared(self) -> bool:
        """Whether several hosts can share the database."""
        return self.database.client == "pg"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads.

        Raises:
            StoreUnavailable: The database can't be used.
        """
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that is committed at the end, and rolled back by an exception.

        Raises:
            StoreUnavailable: The database can't be used; nothing was written, unless the
                connection was lost while the transaction was committed.
        """
        # Without IMMEDIATE, SQLite refuses a write after a read that another process overtook.
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Hold a lock that all processes share, on all hosts where :attr:`shared`.

        The lock of a process that is killed is released.

        Yields:
            Whether the lock is held; not, where another process holds it.

        Raises:
            StoreUnavailable: The database can't be used.
        """
        if self.shared:
            with self._advisory_lock(name) as held:
                yield held
        elif self.database.file is None:
            with self._guard:
                lock = self._locks.setdefault(name, threading.Lock())
            held = lock.acquire(blocking=False)
            try:
                yield held
            finally:
                if held:
                    lock.release()
        else:
            file = FileLock(f"{self.database.file}.{name}.lock", timeout=0, mode=0o600)
            try:
                file.acquire()
            except Timeout:
                yield False
                return
            except OSError as exc:
                raise StoreUnavailable(f"{file.lock_file}: {exc.strerror or exc}") from exc
            try:
                yield True
            finally:
                file.release()

    def migrate(self) -> None:
        """Bring the tables to this version; only one process does so at a time.

        Raises:
            StoreUnavailable: The database can't be used.
            DatabaseError: The database is that of a newer version of this service.
        """
        with self._mapped():
            upgrade(self._engine(), self.database)
        self._migrated = True

    def close(self) -> None:
        """Close this process's connections."""
        with self._guard:
            engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        if not self._migrated:
            try:
                self.migrate()
            except DatabaseError as exc:
                raise StoreUnavailable(str(exc)) from exc
        with self._turn, self._mapped(), self._engine().connect() as connection:
            connection.execution_options(litellm_begin=begin)
            with connection.begin():
                yield connection

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as exc:
            reason = str(getattr(exc, "orig", None) or exc).strip().splitlines()[0]
            raise StoreUnavailable(f"{self.database.name}: {reason}") from exc
        except OSError as exc:
            raise StoreUnavailable(f"{self.database.name}: {exc.strerror or exc}") from exc

    @contextmanager
    def _advisory_lock(self, name: str) -> Iterator[bool]:
        number = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), signed=True)
        with self._mapped(), self._engine().connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            held = connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": number})
            try:
                yield bool(held)
            finally:
                if held:
                    connection.execute(text("SELECT pg_advisory_unlock(:n)"), {"n": number})

    def _engine(self) -> Engine:
        with self._guard:
            pid = os.getpid()
            if pid not in self._engines:
                # A parent's connections are closed by the parent alone.
                self._engines.clear()
                self._engines[pid] = _engine(self.database)
            return self._engines[pid]


def _engine(database: Database) -> Engine:
    if database.client == "pg":
        return _postgres(database)
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY, "check_same_thread": False}}
    if database.file is None:
        engine = create_engine("sqlite://", poolclass=StaticPool, **options)
    else:
        _make_private(database.file)
        engine = create_engine(URL.create("sqlite", database=str(database.file)), **options)

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # transactions begin below, as sqlite3 begins them late
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        wanted = connection.get_execution_options().get("litellm_begin", "BEGIN")
        connection.exec_driver_sql(wanted)

    return engine


def _postgres(database: Database) -> Engine:
    if importlib.util.find_spec("psycopg") is None:
        raise DatabaseError(
            "backend.database.client: pg needs the package psycopg; install"
            " litellm-plugin[postgres]"
        )
    return create_engine(
        URL.create(
            "postgresql+psycopg",
            database.user,
            database.password,
            database.host,
            database.port,
            database.database,
        ),
        connect_args={"connect_timeout": CONNECT, **database.options},
        pool_size=POOL,
        pool_pre_ping=True,
        pool_recycle=600,
    )


def _make_private(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not file.exists():
        file.touch(mode=0o600)
