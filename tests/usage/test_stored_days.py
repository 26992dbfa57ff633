"""Days that are over are kept in the store, and never differ from what LiteLLM says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from litellm_plugin.cache.cache import Cache
from litellm_plugin.config.database import Database
from litellm_plugin.errors import NoSuchRoute, UpstreamError
from litellm_plugin.sandbox.activity import UsageRow, keys_of
from litellm_plugin.store.database import Store
from litellm_plugin.store.tables import usage_days
from litellm_plugin.store.usage_days import UsageDays
from litellm_plugin.usage import report as usage
from litellm_plugin.usage.periods import LATE, Reports, Subject
from litellm_plugin.usage.stored_days import MAX_AGE, StoredDays
from tests.usage.activity import Json, pages_of, used
from tests.usage.test_report import ABOUT, DAYS, END, PAGE_SIZES, ROWS, START, TOKENS, in_order
from tests.usage.test_report import assert_same as assert_same_in_order

NOW = datetime(2026, 11, 11, 12, tzinfo=UTC)  # the day after the last of DAYS
TODAY = NOW.date().isoformat()
NO_ROUTE = NoSuchRoute("Not Found", answered=404)


class World:
    """A LiteLLM, and the service in front of it, which starts anew for each read."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.time = NOW
        self.rows: list[UsageRow] = []
        self.about: dict[str, Json] = {}
        self.page_size: int | None = None
        self.fault: UpstreamError | None = None  # of LiteLLM's sums
        self.asked: list[tuple[str, ...]] = []

    def about_key(self, token: str) -> Json:
        return self.about.get(token, {})

    def ask(self, start: str, end: str) -> list[Any]:
        self.asked.append((start, end))
        about, size = self.about_key, self.page_size
        return pages_of(self.rows, start, end, page_size=size, about_key=about)

    def key_sums(self, start: str, end: str) -> list[Json]:
        self.asked.append(("sums", start, end))
        if self.fault is not None:
            raise self.fault
        own = [row for row in self.rows if start <= row.day.isoformat() <= end]
        page = keys_of(own, offset=0, limit=1000, about_key=self.about_key)
        return list(page["api_keys"])

    def read(self, start: str = START, end: str = TODAY, of: str = "bob") -> Json:
        now = lambda: self.time  # noqa: E731
        cache = Cache(10.0, 0.0, clock=self.time.timestamp)
        reports = Reports(cache, now, partial(StoredDays, UsageDays(self.store), now))
        self.asked.clear()
        return reports.read(
            ("usage", of), (), self.ask, (start, end), stale=lambda _: None,
            subject=Subject("user", of, self.key_sums),
        )  # fmt: skip

    def whole(self, start: str = START, end: str = TODAY) -> Json:
        """Return the report without a store."""
        return usage.report(pages_of(self.rows, start, end, about_key=self.about_key))

    def kept(self) -> list[str]:
        with self.store.read() as connection:
            return sorted(set(connection.scalars(select(usage_days.c.day))))


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store(Database())
    yield store
    store.close()


@pytest.fixture
def world(store: Store) -> World:
    world = World(store)
    world.rows = [used(day, spend=0.1 + number) for number, day in enumerate([*DAYS[::2], TODAY])]
    return world


def assert_same(one: Json, other: Json) -> None:
    """Check that two reports are the same, but for the order of keys and models."""
    assert_same_in_order(in_order(one), in_order(other))


SUMS = ("sums", START, END)


def test_the_second_time_litellm_is_asked_for_today_and_for_sums(world: World) -> None:
    first = world.read()
    assert world.asked == [(START, TODAY)]
    second = world.read()
    assert world.asked == [SUMS, (TODAY, TODAY)]
    for report in (first, second):
        assert_same(report, world.whole())


@pytest.mark.parametrize("end", [END, DAYS[-2]])
def test_a_period_that_is_over_costs_the_sums_only(world: World, end: str) -> None:
    world.read()
    assert_same(world.read(end=end), world.whole(end=end))
    assert world.asked == [("sums", START, end)]


@pytest.mark.parametrize("end", [END, TODAY])
def test_days_that_are_not_kept_are_read_in_one_period(world: World, end: str) -> None:
    world.read(DAYS[2], DAYS[3])
    world.read(DAYS[5], DAYS[6])
    assert_same(world.read(end=end), world.whole(end=end))
    newer = [(TODAY, TODAY)] if end == TODAY else []
    assert world.asked == [(START, END), SUMS, *newer]
    world.read(end=end)
    assert world.asked == [SUMS, *newer]


def test_the_next_day_costs_a_day(world: World) -> None:
    world.read()
    world.time += timedelta(days=1)
    tomorrow = world.time.date().isoformat()
    world.rows += [used(tomorrow), used(TODAY, token="k2")]
    assert_same(world.read(end=tomorrow), world.whole(end=tomorrow))
    assert world.asked == [(TODAY, TODAY), ("sums", START, TODAY), (tomorrow, tomorrow)]


@pytest.mark.parametrize("late", [used(DAYS[2]), used(DAYS[1], token="k9", spend=0.0)])
def test_what_litellm_adds_to_a_day_that_is_over_is_seen_at_once(
    world: World, late: UsageRow
) -> None:
    world.read()
    world.rows.append(late)
    assert_same(world.read(), world.whole())
    assert world.asked == [SUMS, (START, TODAY)]
    assert_same(world.read(), world.whole())
    assert world.asked == [SUMS, (TODAY, TODAY)]


def test_what_litellm_deletes_is_seen_at_once(world: World) -> None:
    world.read()
    world.rows = [row for row in world.rows if row.day.isoformat() == DAYS[2]]
    for asked in ([SUMS, (START, TODAY)], [SUMS, (TODAY, TODAY)]):
        assert_same(world.read(), world.whole())
        assert world.asked == asked


def test_a_period_without_usage_is_not_kept(world: World) -> None:
    world.rows.clear()
    assert_same(world.read(), world.whole())
    assert world.kept() == []


def test_names_and_teams_of_keys_are_those_of_today(world: World) -> None:
    world.about = {"k1": {"key_alias": "ci", "team_id": None}}
    world.read()
    for about in ({"key_alias": "renamed", "team_id": "t"}, {"key_alias": None, "team_id": None}):
        world.about = {"k1": about}
        assert_same(world.read(end=END), world.whole(end=END))
        assert world.asked == [SUMS]


@pytest.mark.parametrize(
    "fault", [NO_ROUTE, UpstreamError("kaboom", answered=500), UpstreamError("no answer")]
)
def test_without_sums_litellm_is_asked_for_all_days(world: World, fault: UpstreamError) -> None:
    world.read()
    world.fault = fault
    world.rows.append(used(DAYS[0]))
    assert_same(world.read(), world.whole())
    assert world.asked == [SUMS, (START, TODAY)]


def test_a_day_is_kept_when_what_began_then_is_recorded(world: World) -> None:
    midnight = datetime(2026, 11, 11, tzinfo=UTC)
    world.time = midnight + LATE - timedelta(seconds=1)
    world.read()
    assert world.kept() == DAYS[:-1]
    world.time = midnight + LATE
    world.read()
    assert world.kept() == DAYS


def test_days_of_more_than_400_days_ago_are_deleted_and_not_kept(world: World) -> None:
    world.read()
    world.time += MAX_AGE - timedelta(days=1)
    today = world.time.date().isoformat()
    world.read(TODAY, TODAY)
    assert world.kept() == [DAYS[-1], TODAY]
    assert_same(world.read(DAYS[-2], today), world.whole(DAYS[-2], today))
    assert world.asked == [(DAYS[-2], today)]
    assert world.kept() == [DAYS[-1], TODAY]


def test_of_two_users_each_has_their_own_days(world: World) -> None:
    world.read()
    rows, world.rows = world.rows, [used(START, token="k5")]
    assert_same(world.read(of="eve"), world.whole())
    assert world.asked == [(START, TODAY)]
    world.rows = rows
    assert_same(world.read(), world.whole())
    assert world.asked == [SUMS, (TODAY, TODAY)]


def test_an_answer_whose_days_are_not_in_order_is_not_kept(world: World) -> None:
    pages = world.ask

    def ask(start: str, end: str) -> list[Any]:
        found = pages(start, end)
        found[0]["results"].reverse()
        return found

    world.ask = ask  # type: ignore[method-assign]
    assert_same(world.read(), usage.report(ask(START, TODAY)))
    assert world.kept() == []


@pytest.mark.parametrize("day", ["2026-02-30", "2026-1-1", "yesterday"])
def test_what_is_no_day_goes_to_litellm_as_it_is(world: World, day: str) -> None:
    world.read(start=day)
    assert world.asked == [(day, TODAY)]


def test_loss_of_the_store_is_noticed_by_litellm_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where the folder is to be")
    world = World(Store(Database(file=tmp_path / "state" / "store.sqlite")))
    world.rows = [used(START), used(TODAY)]
    for _ in range(2):
        assert_same(world.read(), world.whole())
        assert world.asked == [(START, TODAY)]
    assert "is read from LiteLLM" in caplog.text
    assert "is not stored" in caplog.text


# LiteLLM writes a row because of a request, so none has only zeros.
USED = ROWS.map(lambda rows: [replace(row, successful_requests=9) for row in rows])
PERIODS = st.tuples(st.sampled_from(DAYS), st.sampled_from([*DAYS, TODAY, "2026-11-12"]))


@given(
    batches=st.lists(USED, min_size=1, max_size=4),
    periods=st.lists(PERIODS, min_size=4, max_size=4),
    sizes=st.lists(PAGE_SIZES, min_size=4, max_size=4),
    about=st.lists(
        st.fixed_dictionaries(dict.fromkeys(TOKENS, ABOUT)), min_size=4, max_size=4
    ),
    later=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)  # fmt: skip
def test_with_the_store_each_answer_is_the_one_without(
    batches: list[list[UsageRow]],
    periods: list[tuple[str, str]],
    sizes: list[int | None],
    about: list[dict[str, Json]],
    later: list[int],
) -> None:
    store = Store(Database())
    world = World(store)
    world.time = datetime.combine(date.fromisoformat(DAYS[4]), datetime.min.time(), tzinfo=UTC)
    for number, rows in enumerate(batches):
        # More was used meanwhile, also on days that are over and kept; keys were renamed.
        known = {(row.day, row.token, row.model) for row in world.rows}
        world.rows += [row for row in rows if (row.day, row.token, row.model) not in known]
        world.about, world.page_size = about[number], sizes[number]
        world.time += timedelta(days=later[number])
        for start, end in periods[: number + 1]:
            assert_same(world.read(start, end), world.whole(start, end))
    store.close()
