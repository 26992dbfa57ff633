"""``backend.database``: where the store of this service is, by Backstage's convention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class DatabaseError(Exception):
    """The database can't be used as configured; the message names the setting and the remedy."""


@dataclass(frozen=True, slots=True)
class Database:
    """The database of the store.

    Attributes:
        client: ``pg`` or ``better-sqlite3``.
        file: The file of SQLite; None for one in memory.
        host: Of PostgreSQL; as are the next four.
        port: By default libpq's.
        user: Name of the user that connects.
        password: The user's.
        database: Name of the database.
        options: Parameters of libpq, such as ``sslmode``.
        schema: The schema with the tables; None for the database's own.
        role: The role to take on after connecting.
        ensure_exists: Whether to create a database or schema that is missing.
    """

    client: str = "better-sqlite3"
    file: Path | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    schema: str | None = None
    role: str | None = None
    ensure_exists: bool = True

    @property
    def name(self) -> str:
        """Name of the database for messages, without user and password."""
        if self.client != "pg":
            return f"SQLite {self.file or 'in memory'}"
        return f"PostgreSQL {self.host}/{self.database}"
