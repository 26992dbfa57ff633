"""Brings the tables of the store to this version, by Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from litellm_plugin.config.database import Database, DatabaseError

LOCK = 4_713_000_015  # of PostgreSQL, for one process that migrates


def upgrade(engine: Engine, database: Database) -> None:
    """Bring the tables to the newest version that this package knows.

    Raises:
        DatabaseError: The tables are those of a newer version.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    newest = ScriptDirectory.from_config(config).get_current_head()
    writing = engine.execution_options(litellm_begin="BEGIN IMMEDIATE")
    with writing.begin() as connection:
        if database.client == "pg":
            connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": LOCK})
        if _version(connection) != newest:
            _check_known(config, connection, database)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _check_known(config: Config, connection: Connection, database: Database) -> None:
    version = _version(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise DatabaseError(
            f"{database.name}: its tables are of a newer version of this service ({version})."
            " Run that version again, or restore a backup from before it."
        )
