"""The store: transactions and locks in PostgreSQL or SQLite."""

from __future__ import annotations

import importlib
import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError, StatementError

from litellm_plugin.config.database import Database, DatabaseError
from litellm_plugin.store import migrate, sqlite

log = logging.getLogger(__name__)

RETRY = 5.0  # seconds after a failed connection to PostgreSQL until the next try


class StoreUnavailable(Exception):
    """The database can't be used now; the message says why, without its password."""


class ValuesRefused(StoreUnavailable):
    """The database refuses the values of a statement; another try would end like this one."""


class Lock:
    """A lock that is held.

    Args:
        connection: The connection to PostgreSQL that holds the lock; None for another kind of lock.
        name: Name of the database, for messages.
    """

    def __init__(self, connection: Connection | None = None, name: str = "") -> None:
        self._connection = connection
        self._name = name
        self._guard = threading.Lock()
        self._lost = False  # never reset: SQLAlchemy may connect again, without the lock

    def check(self) -> None:
        """Check that the lock is still held.

        Raises:
            StoreUnavailable: The connection was lost, and the lock with it.
        """
        if self._connection is None:
            return
        with self._guard:
            if not self._lost:
                try:
                    self._connection.execute(text("SELECT 1"))
                except SQLAlchemyError:
                    self._lost = True
            if self._lost:
                raise StoreUnavailable(f"{self._name}: the lock was lost with its connection")


class Store:
    """The store. Threads, and processes that are forked from this one, can share it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._guard = threading.Lock()
        self._engines: dict[int, Engine] = {}  # by process, which can't share connections
        self._migrated: int | None = None  # the process that migrated
        self._retry_at = 0.0
        self._fault = ""  # why the store can't be used, since the last transaction that worked
        # A database in memory has one connection, for one transaction at a time.
        self._memory = threading.RLock()
        self._locks: dict[str, threading.Lock] = {}

    @property
    def shared(self) -> bool:
        """Whether several hosts can share the database."""
        return self.database.client == "pg"

    @property
    def open_to_others(self) -> bool:
        """Whether the mode of SQLite's file lets other users of this host open it."""
        file = self.database.file
        if self.shared or file is None or not file.exists():
            return False
        return bool(file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))

    @property
    def _in_memory(self) -> bool:
        return not self.shared and self.database.file is None

    def read(self) -> AbstractContextManager[Connection]:
        """Open a transaction that only reads.

        Raises:
            StoreUnavailable: The database can't be used.
        """
        return self._transaction("BEGIN")

    def write(self) -> AbstractContextManager[Connection]:
        """Open a transaction that is committed at the end, and rolled back by an exception.

        Raises:
            StoreUnavailable: The database can't be used; nothing was written, unless the
                connection was lost while the transaction was committed.
        """
        # Without IMMEDIATE, SQLite refuses to write after a read if another process has written
        # meanwhile.
        return self._transaction("BEGIN IMMEDIATE")

    def lock(self, name: str) -> AbstractContextManager[Lock | None]:
        """Hold a lock that all processes share, on all hosts where :attr:`shared`.

        The lock of a process that is killed is released.

        Returns:
            A context manager that gives the lock, or None where another process holds it.

        Raises:
            StoreUnavailable: The database can't be used.
        """
        return self._advisory_lock(name) if self.shared else self._local_lock(name)

    def migrate(self) -> None:
        """Bring the tables to this version; only one process does so at a time.

        Raises:
            StoreUnavailable: The database can't be used.
            DatabaseError: The database is that of a newer version of this service, or is missing
                and can't be created.
        """
        with self._mapped(connecting=True):
            if self.shared:
                _postgres().create_missing(self.database)
            with self._memory:
                migrate.upgrade(self._engine(), self.database)
        self._migrated = os.getpid()

    def prepare(self) -> None:
        """Migrate at the start of the service, or log why that is not possible now.

        Closes its connections, so that forked processes share none.
        """
        with suppress(StoreUnavailable):  # logged
            self._ready()
        if self.open_to_others:
            database = self.database
            log.warning("%s: other users can open it; chmod 600 %s*", database.name, database.file)
        if not self._in_memory:
            self.close()

    def versions(self) -> tuple[str | None, str]:
        """Return the version of the tables, None where there are none, and this package's.

        Changes nothing.

        Raises:
            StoreUnavailable: The database can't be used.
        """
        with self._mapped(), self._engine().begin() as connection:
            return migrate.version(connection), migrate.newest()

    def close(self) -> None:
        """Close this process's connections."""
        with self._guard:
            engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        self._ready()
        with self._memory if self._in_memory else nullcontext():
            with self._mapped(connecting=True):
                connection = self._engine().connect().execution_options(litellm_begin=begin)
            with self._mapped(), connection, connection.begin():
                yield connection
        if self._fault:
            self._retry_at, self._fault = 0.0, ""
            log.warning("The store can be used again")

    def _ready(self) -> None:
        """Migrate if this object has not done so.

        Raises:
            StoreUnavailable: The database can't be used, or could not be used just now.
        """
        if time.monotonic() < self._retry_at:
            raise StoreUnavailable(self._fault)
        migrated = self._migrated
        if migrated is None or (self._in_memory and migrated != os.getpid()):
            try:
                self.migrate()
            except DatabaseError as exc:
                raise self._failed(str(exc), connecting=True) from exc

    def _failed(self, fault: str, *, connecting: bool) -> StoreUnavailable:
        """Log the beginning of an outage; return the error to raise."""
        if not self._fault:
            log.warning("The store can't be used, and is tried again when it is needed: %s", fault)
        self._fault = fault
        if connecting and self.shared:
            # Otherwise each request would wait for a server that does not answer.
            self._retry_at = time.monotonic() + RETRY
        return StoreUnavailable(fault)

    @contextmanager
    def _mapped(self, *, connecting: bool = False) -> Iterator[None]:
        """Raise StoreUnavailable for the drivers' errors."""
        try:
            yield
        except Exception as exc:
            reason = _reason(exc, connecting=connecting)
            if reason is None:
                raise
            fault = f"{self.database.name}: {reason}"
            values = isinstance(exc, DataError | IntegrityError) or type(exc) is StatementError
            if values and not connecting:
                raise ValuesRefused(fault) from exc
            raise self._failed(fault, connecting=connecting) from exc

    @contextmanager
    def _advisory_lock(self, name: str) -> Iterator[Lock | None]:
        # Two schemas of one database are two stores.
        key, named = "hashtextextended(current_schema() || '/' || :name, 0)", {"name": name}
        self._ready()
        with self._mapped(connecting=True):
            connection = self._engine().connect().execution_options(isolation_level="AUTOCOMMIT")
        with connection:
            with self._mapped():
                held = connection.scalar(text(f"SELECT pg_try_advisory_lock({key})"), named)
            if not held:
                yield None
                return
            lock = Lock(connection, self.database.name)
            try:
                yield lock
            finally:
                try:
                    connection.execute(text(f"SELECT pg_advisory_unlock({key})"), named)
                except SQLAlchemyError:
                    connection.invalidate()  # or the pool keeps a session that holds the lock

    @contextmanager
    def _local_lock(self, name: str) -> Iterator[Lock | None]:
        """Hold a lock of this host; of this process where the database is in memory."""
        self._ready()
        file = f"{self.database.file}.{name}.lock"
        lock: FileLock | threading.Lock
        if self._in_memory:
            with self._guard:
                lock = self._locks.setdefault(name, threading.Lock())
        else:
            lock = FileLock(file, mode=0o600)
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            held = False
        except OSError as exc:
            raise StoreUnavailable(f"{file}: {exc.strerror or exc}") from exc
        if not held:
            yield None
            return
        try:
            yield Lock()
        finally:
            lock.release()

    def _engine(self) -> Engine:
        with self._guard:
            pid = os.getpid()
            if pid not in self._engines:
                # Connections of a parent process: only the parent may close them.
                for engine in self._engines.values():
                    engine.dispose(close=False)
                self._engines.clear()
                made = _postgres().engine if self.shared else sqlite.engine
                self._engines[pid] = made(self.database)
            return self._engines[pid]


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Collection[str] | None = None,
    add: bool = False,
) -> None:
    """Insert rows, or update the rows with the same primary keys.

    Updates ``columns``, by default all. With ``add``, adds the numbers to those in the table.
    """
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite_dialect
    statement = dialect.insert(table)
    keys = table.primary_key.columns.keys()
    changed = {
        name: table.c[name] + new if add else new
        for name, new in statement.excluded.items()
        if name not in keys and (columns is None or name in columns)
    }
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)


def _postgres() -> Any:
    # psycopg is an extra.
    return importlib.import_module("litellm_plugin.store.postgres")


def _reason(exc: Exception, *, connecting: bool) -> str | None:
    """Return the message of a driver's error in one line; None for another error."""
    origin = getattr(exc, "orig", None) or exc
    known = isinstance(exc, SQLAlchemyError | sqlite3.Error)
    if known or type(origin).__module__.partition(".")[0] == "psycopg":
        lines = str(origin).strip().splitlines()
        return lines[0] if lines else type(origin).__name__
    if connecting and isinstance(exc, OSError):
        return exc.strerror or str(exc)
    return None
