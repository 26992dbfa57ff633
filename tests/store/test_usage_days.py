"""The table of usage days, on SQLite and PostgreSQL, and the upgrade that creates it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from sqlalchemy import insert, inspect, select

from litellm_plugin.config.database import Database
from litellm_plugin.store import migrate
from litellm_plugin.store.database import Store
from litellm_plugin.store.postgres import create_missing
from litellm_plugin.store.tables import adopted, usage_days
from litellm_plugin.store.usage_days import UsageDays

ROW = {"own_id": "a", "user_id": "b", "entity_ref": "user:default/a", "at": "2026"}
REPORT = {"usage_by_key": {"k": {"key_alias": "Grüße \0", "total_spend": 1e-7}}, "z": 1, "a": 2}
DAY, NEXT = "2026-11-01", "2026-11-02"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.deep)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    database = Database()
    if request.param == "postgres":
        database = request.getfixturevalue("postgres").database()
    store = Store(database)
    yield store
    store.close()


def upgrade(store: Store, revision: str) -> None:
    config = migrate._config()
    if store.shared:
        create_missing(store.database)
    with store._engine().begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_an_upgrade_keeps_what_there_is(store: Store) -> None:
    upgrade(store, "0001")
    with store._engine().begin() as connection:
        assert "usage_days" not in inspect(connection).get_table_names()
        connection.execute(insert(adopted).values(ROW))
    store.migrate()
    UsageDays(store).write("user", "bob", {DAY: REPORT}, oldest=DAY)
    with store.read() as connection:
        assert list(connection.scalars(select(adopted.c.own_id))) == ["a"]


def test_days_are_read_as_they_were_written(store: Store) -> None:
    store.migrate()
    days = UsageDays(store)
    assert days.read("user", "bob", DAY, NEXT) == {}
    days.write("user", "bob", {NEXT: None, DAY: REPORT}, oldest=DAY)
    days.write("team", "bob", {DAY: None}, oldest=DAY)
    assert days.read("user", "bob", DAY, NEXT) == {DAY: REPORT, NEXT: None}
    assert days.read("user", "bob", NEXT, NEXT) == {NEXT: None}
    assert days.read("team", "bob", DAY, NEXT) == {DAY: None}
    assert days.read("user", "Bob", DAY, NEXT) == {}


def test_a_day_is_replaced_and_old_ones_are_deleted(store: Store) -> None:
    store.migrate()
    days = UsageDays(store)
    days.write("user", "eve", {DAY: REPORT}, oldest=DAY)
    days.write("user", "bob", {DAY: REPORT, NEXT: None}, oldest=DAY)
    days.write("user", "bob", {DAY: None, NEXT: REPORT}, oldest=DAY)
    assert days.read("user", "bob", DAY, NEXT) == {DAY: None, NEXT: REPORT}
    days.write("team", "t", {NEXT: None}, oldest=NEXT)
    with store.read() as connection:
        assert set(connection.scalars(select(usage_days.c.day))) == {NEXT}


@pytest.mark.deep
@pytest.mark.parametrize("store", ["postgres"], indirect=True)
def test_processes_that_write_the_same_days_do_not_fail(store: Store) -> None:
    days = UsageDays(store)
    period = [f"2026-10-{day:02}" for day in range(1, 31)]

    def write(number: int) -> None:
        order = period if number % 2 else period[::-1]
        for _ in range(5):
            days.write("user", "bob", {day: {"n": number} for day in order}, oldest=period[0])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sorted(days.read("user", "bob", period[0], period[-1])) == period
