"""The store on SQLite: transactions, locks, migrations, and its loss."""

from __future__ import annotations

import logging
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, insert, select

from litellm_plugin.config.database import Database, DatabaseError
from litellm_plugin.store import migrate
from litellm_plugin.store.database import Store, StoreUnavailable
from litellm_plugin.store.tables import adopted, metadata

ROW = {"own_id": "a", "user_id": "b", "entity_ref": "user:default/a", "at": "2026"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.sqlite"


@pytest.fixture
def store(request: pytest.FixtureRequest, file: Path) -> Iterator[Store]:
    in_memory = getattr(request, "param", "file") == "memory"
    store = Store(Database(file=None if in_memory else file))
    yield store
    store.close()


in_file_and_memory = pytest.mark.parametrize("store", ["file", "memory"], indirect=True)


def add(connection: Connection) -> None:
    connection.execute(insert(adopted).values(ROW))


def ids(store: Store) -> list[str]:
    with store.read() as connection:
        return list(connection.scalars(select(adopted.c.own_id)))


def differences(store: Store) -> list[object]:
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def test_the_tables_are_those_that_the_migrations_make(store: Store) -> None:
    assert differences(store) == []


def test_only_this_user_can_read_the_file(store: Store, file: Path) -> None:
    with store.write() as connection:
        add(connection)
        for path in (file, *file.parent.iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_file_that_others_can_open_is_told(
    store: Store, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.prepare()
    file.chmod(0o640)
    assert caplog.messages == []
    store.prepare()
    (message,) = caplog.messages
    assert message == f"SQLite {file}: other users can open it; chmod 600 {file}*"


@in_file_and_memory
def test_a_transaction_is_written_whole_or_not_at_all(store: Store) -> None:
    with suppress(ZeroDivisionError), store.write() as connection:
        add(connection)
        raise ZeroDivisionError
    assert ids(store) == []
    with store.write() as connection:
        add(connection)
    store.prepare()
    assert ids(store) == ["a"], "also after its start"


@in_file_and_memory
def test_a_lock_is_held_once(store: Store) -> None:
    with store.lock("a") as held, store.lock("b") as other:
        assert held is not None
        assert other is not None
        held.check()
        with store.lock("a") as again:
            assert again is None
    with store.lock("a") as held:
        assert held is not None


def test_an_error_in_a_lock_is_no_error_of_the_store(store: Store) -> None:
    with pytest.raises(PermissionError), store.lock("a"):
        raise PermissionError("a file of the job's own")


def test_a_database_of_a_newer_version_is_left_alone(
    store: Store, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.migrate()
    store.close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    later = Store(Database(file=file))
    with pytest.raises(DatabaseError, match=r"newer version of this service \(9999\)"):
        later.migrate()
    later.prepare()
    assert "newer version of this service (9999)" in caplog.text
    with pytest.raises(StoreUnavailable, match="newer version"), later.read():
        pass
    later.close()


def test_a_downgrade_is_refused(store: Store) -> None:
    store.migrate()
    config = migrate._config()
    with store.write() as connection:
        config.attributes["connection"] = connection
        with pytest.raises(NotImplementedError, match="restore a backup"):
            command.downgrade(config, "base")
    assert differences(store) == []


@pytest.mark.parametrize("content", [b"no database " * 100, b""])
def test_loss_of_the_file_is_one_kind_of_error(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    if not content:  # root can read any file, but no folder as a file
        file.unlink()
        file.mkdir()
    store = Store(Database(file=file))
    with pytest.raises(StoreUnavailable, match=f"SQLite {file}: "), store.read():
        pass
    with pytest.raises(StoreUnavailable, match=f"SQLite {file}: "), store.lock("a"):
        pass


def test_a_store_that_is_away_at_the_start_is_used_later(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.write_text("a file where the folder is to be")
    store = Store(Database(file=file))
    with caplog.at_level(logging.WARNING):
        store.prepare()
        for _ in range(2):
            with pytest.raises(StoreUnavailable), store.read():
                pass
        (message,) = caplog.messages
        assert "is tried again when it is needed" in message
        file.parent.unlink()
        assert ids(store) == ids(store) == []
    assert caplog.messages == [message, "The store can be used again"]
    store.close()


def test_a_server_that_is_away_is_left_alone_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(Database(client="pg", host="127.0.0.1", port=9, user="x", database="x"))
    with pytest.raises(StoreUnavailable, match="refused"), store.read():
        pass
    tries: list[int] = []

    def migrate() -> None:
        tries.append(1)
        raise DatabaseError("tried")

    monkeypatch.setattr(store, "migrate", migrate)
    with pytest.raises(StoreUnavailable, match="refused"), store.read():
        pytest.fail("it is not tried at once, so that requests don't wait")
    assert tries == []
    monkeypatch.setattr("litellm_plugin.store.database.time.monotonic", lambda: float("inf"))
    with pytest.raises(StoreUnavailable, match="tried"), store.read():
        pass
    assert tries == [1]


def test_a_write_waits_for_another_ones(store: Store, file: Path) -> None:
    store.migrate()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits = iter([False, True])

    def pause(_: float) -> None:
        if next(waits):
            other.execute("COMMIT")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("litellm_plugin.store.sqlite.time.sleep", pause)
        with store.write() as connection:
            add(connection)
    other.close()
    assert ids(store) == ["a"]


def test_an_error_quotes_no_values(store: Store) -> None:
    with store.write() as connection:
        add(connection)
    with pytest.raises(StoreUnavailable) as raised, store.write() as connection:
        add(connection)
    assert "user:default/a" not in f"{raised.value} {raised.value.__cause__}"
