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
    """The database of the store.

    Attributes:
        client: ``pg`` or ``better-sqlite3``.
        file: The file of SQLite; None for one in memory.
        host: Host of PostgreSQL; None: libpq's default, a Unix socket. The fields from here on are
            for PostgreSQL.
        port: None: libpq's default.
        user: Name of the user that connects.
        password: The user's password.
        database: Name of the database; by default that of the user.
        options: Parameters of libpq, such as ``sslmode``.
        ca: Certificates of the CAs that may have signed the server's, in PEM.
        cert: Certificate of the client, in PEM.
        private_key: Private key of the client, in PEM.
        schema: The schema with the tables; None: the user's default.
        role: The role to take on after connecting.
        ensure_exists: Whether to create a database that is missing.
        ensure_schema: Whether to create a schema that is missing.
    """

    client: str = "better-sqlite3"
    file: Path | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    ca: str | None = None
    cert: str | None = None
    private_key: str | None = field(default=None, repr=False)
    schema: str | None = None
    role: str | None = None
    ensure_exists: bool = True
    ensure_schema: bool = True

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
