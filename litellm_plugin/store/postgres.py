"""PostgreSQL by psycopg: the engine; creates a missing database and schema."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import DuplicateDatabase, InsufficientPrivilege, UniqueViolation
from sqlalchemy import Engine, create_engine, event

from litellm_plugin.config.database import Database, DatabaseError

CONNECT = 3  # seconds until a connection is given up
UNANSWERED = 10_000  # milliseconds until a connection counts as lost
STATEMENT = "30s"  # until a statement is given up
POOL = 4  # connections of one process that are kept
WAIT = 3.0  # seconds that a thread waits for a connection of the pool
ADMIN = "postgres"  # the database to connect to while another one is created


def engine(database: Database) -> Engine:
    """Return an engine whose connections have the schema and role of ``database``."""
    made = create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connect(database),
        pool_size=POOL,
        pool_timeout=WAIT,
        pool_pre_ping=True,
        pool_recycle=600,
        hide_parameters=True,  # of statements in errors; they name people
    )

    # With `insert`, before SQLAlchemy asks for the name of the current schema.
    @event.listens_for(made, "connect", insert=True)
    def connected(connection: Any, _: object) -> None:
        connection.autocommit = True
        connection.execute(f"SET statement_timeout = '{STATEMENT}'")
        _take_role(connection, database)
        if database.schema is not None:
            schema = sql.Identifier(database.schema)
            connection.execute(sql.SQL("SET search_path TO {}").format(schema))
        connection.autocommit = False

    return made


def create_missing(database: Database) -> None:
    """Create the database and the schema if they are missing and the settings allow it.

    Raises:
        DatabaseError: The user may not create them.
        psycopg.Error: The server can't be used.
    """
    try:
        connection = _connect(database, autocommit=True)
    except psycopg.OperationalError:
        # For a missing database libpq has no error code, only a text in the server's language.
        if not (database.ensure_exists and _create_database(database)):
            raise
        connection = _connect(database, autocommit=True)
    with connection:
        if database.schema is not None and database.ensure_schema:
            _create_schema(connection, database)


def _create_database(database: Database) -> bool:
    """Create the database if it is missing; return whether it is there now."""
    if database.database is None:
        return False
    try:
        connection = _connect(database, dbname=ADMIN, autocommit=True)
    except psycopg.OperationalError:
        return False  # the error of the first connection says more
    with connection:
        _take_role(connection, database)
        found = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", (database.database,)
        )
        if found.fetchone():
            return True  # another process has created it since the first connection
        try:
            name = sql.Identifier(database.database)
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        except (DuplicateDatabase, UniqueViolation):
            pass  # another process has created it
        except InsufficientPrivilege as exc:
            raise _forbidden(database, "database", database.database, "ensureExists") from exc
    return True


def _create_schema(connection: psycopg.Connection[Any], database: Database) -> None:
    # CREATE SCHEMA IF NOT EXISTS needs the permission to create even where the schema exists.
    found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (database.schema,))
    if found.fetchone():
        return
    name = sql.Identifier(database.schema or "")
    owner: sql.Composable = sql.SQL("")
    if database.role is not None:
        owner = sql.SQL(" AUTHORIZATION {}").format(sql.Identifier(database.role))
    try:
        create = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}{}").format(name, owner)
        connection.execute(create)
    except UniqueViolation:
        pass
    except InsufficientPrivilege as exc:
        raise _forbidden(database, "schema", database.schema or "", "ensureSchemaExists") from exc


def _forbidden(database: Database, kind: str, name: str, setting: str) -> DatabaseError:
    user = database.role or database.user or "the user"
    return DatabaseError(
        f"{database.name}: the {kind} is missing, and {user} may not create it. As an"
        f' administrator run CREATE {kind.upper()} "{name}" with {user} as its owner, or let'
        f" {user} create it (backend.database.{setting})."
    )


def _take_role(connection: psycopg.Connection[Any], database: Database) -> None:
    if database.role is not None:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(database.role)))


def _connect(database: Database, **more: Any) -> psycopg.Connection[Any]:
    given = {
        "host": database.host,
        "port": database.port,
        "user": database.user,
        "password": database.password,
        "dbname": database.database,
    }
    defaults = {
        "application_name": "litellm-plugin",
        "connect_timeout": CONNECT,
        "tcp_user_timeout": UNANSWERED,
    }
    written = {name: value for name, value in given.items() if value is not None}
    pems = {"sslrootcert": database.ca, "sslcert": database.cert, "sslkey": database.private_key}
    files = {name: str(_file(os.getpid(), pem)) for name, pem in pems.items() if pem is not None}
    return psycopg.connect(**{**defaults, **database.options, **files, **written, **more})


@cache
def _file(pid: int, pem: str) -> Path:
    """Return a private file with ``pem``, as libpq reads certificates from files only."""
    descriptor, name = tempfile.mkstemp(dir=_folder(pid), suffix=".pem")
    with os.fdopen(descriptor, "w") as file:
        file.write(pem)
    return Path(name)


@cache
def _folder(pid: int) -> Path:
    folder = tempfile.mkdtemp(prefix="litellm-plugin-tls-")

    def remove() -> None:
        if os.getpid() == pid:  # forked children also run this
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)
