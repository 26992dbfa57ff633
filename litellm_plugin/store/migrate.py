"""Brings the tables of the store to this version, by Alembic."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text

from litellm_plugin.config.database import Database, DatabaseError

LOCK = 4_713_000_015  # the number of PostgreSQL's advisory lock


def upgrade(engine: Engine, database: Database) -> None:
    """Bring the tables to the newest version that this package knows.

    Only one process does so at a time; others wait for it.

    Raises:
        DatabaseError: The tables are those of a newer version.
    """
    with engine.begin() as connection:
        if version(connection) == newest():
            return
    writing = engine.execution_options(litellm_begin="BEGIN IMMEDIATE", litellm_migrates=True)
    with writing.begin() as connection:
        if database.client == "pg":
            connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": LOCK})
        config = _config()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as exc:  # this package has no such version
            raise DatabaseError(
                f"{database.name}: its tables are of a newer version of this service"
                f" ({version(connection)}). Run that version again, or restore a backup from"
                " before it."
            ) from exc


def version(connection: Connection) -> str | None:
    """Return the version of the tables; None where there are none."""
    return MigrationContext.configure(connection).get_current_revision()


@cache
def newest() -> str:
    """Return the newest version of the tables that this package knows."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config
