"""The database of the store, as :mod:`litellm_plugin.config.backend_database` reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "store.sqlite"  # in the state folder, where backend.database is missing


class DatabaseError(Exception):
    """The database can't be used as configured; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Database:
    """The database of the store."""

    client: str = "better-sqlite3"  # or pg
    file: Path | None = None  # of SQLite; None: in memory

    # Of PostgreSQL; the defaults are those of libpq.
    host: str | None = None  # by default a Unix socket
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None  # by default that of the user
    options: Mapping[str, Any] = field(default_factory=dict)  # of libpq, such as sslmode
    ca: str | None = None  # PEM: certificates of the CAs that may have signed the server's
    cert: str | None = None  # PEM, of the client
    private_key: str | None = field(default=None, repr=False)  # PEM, of the client
    schema: str | None = None  # with the tables; None: the user's default
    role: str | None = None  # to take on after connecting
    ensure_exists: bool = True  # whether to create a database that is missing
    ensure_schema: bool = True  # whether to create a schema that is missing

    @property
    def name(self) -> str:
        """Name of the database for messages, without user and password."""
        if self.client != "pg":
            return f"SQLite {self.file or 'in memory'}"
        port = f":{self.port}" if self.port else ""
        return f"PostgreSQL {self.host or 'localhost'}{port}/{self.database or ''}"

    def secrets(self) -> Iterator[str]:
        """Yield the secrets."""
        if self.password:
            yield self.password
        if self.private_key:
            yield self.private_key
