"""Reports are kept: days that are over for longer, and for nobody but who asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from litellm_plugin.cache.cache import Cache
from litellm_plugin.errors import UpstreamError
from litellm_plugin.usage import report as usage
from litellm_plugin.usage.periods import LATE, PAST_DAYS_TTL, Reports
from tests.usage.activity import Json, pages_of, used
from tests.usage.test_report import assert_same

SECONDS = 10.0  # cacheSeconds
STALE = 3600.0
START, YESTERDAY, TODAY, TOMORROW = "2026-11-01", "2026-11-22", "2026-11-23", "2026-11-24"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BOB = "user:bob"


class World:
    """One process, its clock, and a LiteLLM that counts what is asked of it."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.time = NOON
        self.cache = Cache(seconds, STALE, clock=self.seconds)
        self.reports = Reports(self.cache, lambda: self.time)
        self.rows = [used(day) for day in (START, YESTERDAY, TODAY)]
        self.alias = "ci"
        self.page_size: int | None = None
        self.fault: UpstreamError | None = None
        self.asked: list[tuple[str, str]] = []
        self.ages: list[float] = []

    def seconds(self) -> float:
        return self.time.timestamp()

    def wait(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def ask(self, start: str, end: str) -> list[Any]:
        self.asked.append((start, end))
        if self.fault is not None:
            raise self.fault
        return pages_of(
            self.rows,
            start,
            end,
            page_size=self.page_size,
            about_key=lambda _token: {"key_alias": self.alias},
        )

    def read(self, start: str = START, end: str = TODAY, reader: str = "bob") -> Json:
        """Read a report, which has to be complete."""
        return self.reports.read(
            ("usage", reader), (BOB,), self.ask, (start, end), stale=self.ages.append
        )

    def complete(self, start: str = START, end: str = TODAY) -> Json:
        return usage.report(pages_of(self.rows, start, end))


@pytest.fixture
def world() -> World:
    return World()


def test_a_report_is_kept_as_it_is(world: World) -> None:
    report = world.read()
    assert world.read() is report
    assert world.asked == [(START, TODAY)]


@pytest.mark.parametrize("page_size", [None, 1, 2])
@pytest.mark.parametrize("end", [TODAY, TOMORROW, "2099-12-31"])
def test_later_only_what_is_not_over_is_asked_for(
    world: World, end: str, page_size: int | None
) -> None:
    world.page_size = page_size
    world.read(end=end)
    world.rows += [used(TODAY, token="k2", model="o4-mini", spend=3.0)]
    for _ in range(2):
        world.wait(SECONDS)
        report = world.read(end=end)
    assert world.asked == [(START, end), (TODAY, end), (TODAY, end)]
    world.alias = "k1's"
    assert report["total_spend"] == pytest.approx(3.3)
    assert report["daily_usage"] == world.complete()["daily_usage"]
    assert report["daily_by_model"] == world.complete()["daily_by_model"]
    assert set(report["usage_by_key"]) == {"k1", "k2"}


def test_in_the_end_all_is_asked_for_again(world: World) -> None:
    world.read()
    world.rows += [used(YESTERDAY)]
    world.wait(PAST_DAYS_TTL)
    assert_same(world.read()["daily_usage"], world.complete()["daily_usage"])
    assert world.asked == [(START, TODAY)] * 2


def test_yesterday_goes_on_until_what_began_then_is_written_down(world: World) -> None:
    world.time = datetime(2026, 11, 23, tzinfo=UTC) + LATE - timedelta(seconds=SECONDS)
    world.read()
    world.rows += [used(YESTERDAY)]
    world.wait(SECONDS - 1)
    world.read()
    world.wait(1)
    report = world.read()  # yesterday is over by now, and was not when it was read
    assert report["api_requests"] == 4
    world.wait(SECONDS)
    world.read()
    assert world.asked == [(START, TODAY), (START, TODAY), (TODAY, TODAY)]


def test_before_yesterday_is_over_it_is_asked_for_with_today(world: World) -> None:
    world.time = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
    world.read()
    world.wait(SECONDS)
    world.read()
    assert world.asked == [(START, TODAY), (YESTERDAY, TODAY)]


@pytest.mark.parametrize("end", [START, YESTERDAY])
def test_a_period_that_is_over_is_kept_longer_as_a_whole(world: World, end: str) -> None:
    report = world.read(end=end)
    world.wait(PAST_DAYS_TTL - 1)
    assert world.read(end=end) is report
    world.wait(1)
    world.read(end=end)
    assert world.asked == [(START, end)] * 2


def test_a_period_that_is_over_is_kept_no_shorter_than_others() -> None:
    world = World(seconds=2 * PAST_DAYS_TTL)
    world.read(end=YESTERDAY)
    world.wait(2 * PAST_DAYS_TTL - 1)
    world.read(end=YESTERDAY)
    assert world.asked == [(START, YESTERDAY)]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (TODAY, TODAY),
        (TOMORROW, "2026-12-01"),
        ("2026-12-01", TODAY),
        ("2026-11-1", TODAY),
        (START, "2026-11-3"),
        (START, f"{TODAY} "),
        (START, f"{TODAY}\n"),
        ("\u0662026-11-01", TODAY),  # a digit, but of another script
        ("yesterday", "today"),
    ],
)
def test_other_periods_are_kept_as_a_whole(world: World, start: str, end: str) -> None:
    report = world.read(start, end)
    world.wait(SECONDS - 1)
    assert world.read(start, end) is report
    world.wait(1)
    world.read(start, end)
    assert world.asked == [(start, end)] * 2


def test_an_answer_that_has_no_parts_is_kept_as_a_whole(world: World) -> None:
    def ask(start: str, end: str) -> list[Any]:
        (page,) = world.ask(start, end)
        page["results"].reverse()
        return [page]

    for _ in range(2):
        report = world.reports.read(("usage",), (BOB,), ask, (START, TODAY), stale=lambda _: None)
        assert report["daily_usage"] == world.complete()["daily_usage"]
        world.wait(SECONDS)
    assert world.asked == [(START, TODAY)] * 2


def test_nothing_is_kept_where_nothing_is_to_be() -> None:
    world = World(seconds=0)
    for end in (YESTERDAY, TODAY):
        for _ in range(2):
            assert world.read(end=end)["daily_usage"] == world.complete(end=end)["daily_usage"]
    assert world.asked == [(START, YESTERDAY)] * 2 + [(START, TODAY)] * 2


@pytest.mark.parametrize("end", [YESTERDAY, TODAY])
@pytest.mark.parametrize("waited", [0.0, SECONDS])
def test_a_write_is_seen_at_once(world: World, end: str, waited: float) -> None:
    world.read(end=end)
    world.wait(waited)
    world.alias = "renamed"
    world.cache.invalidate(BOB)
    assert world.read(end=end)["usage_by_key"]["k1"]["key_alias"] == "renamed"
    assert world.asked == [(START, end)] * 2


@pytest.mark.parametrize("end", [YESTERDAY, TODAY])
def test_a_write_while_litellm_is_asked_is_seen_too(world: World, end: str) -> None:
    def ask(start: str, end: str) -> list[Any]:
        pages = world.ask(start, end)
        world.alias = "renamed"
        world.cache.invalidate(BOB)
        return pages

    key, stale = ("usage", "bob"), world.ages.append
    world.reports.read(key, (BOB,), ask, (START, end), stale=stale)
    assert world.read(end=end)["usage_by_key"]["k1"]["key_alias"] == "renamed"
    world.wait(SECONDS)
    assert world.read(end=end)["usage_by_key"]["k1"]["key_alias"] == "renamed"


@pytest.mark.parametrize("end", [YESTERDAY, TODAY])
def test_nobody_reads_what_another_one_read(world: World, end: str) -> None:
    world.read(end=end)
    world.wait(SECONDS)
    world.read(end=end, reader="eve")
    assert world.asked == [(START, end)] * 2


@pytest.mark.parametrize(("end", "kept"), [(YESTERDAY, PAST_DAYS_TTL), (TODAY, SECONDS)])
def test_the_last_report_stands_in_while_litellm_is_down(
    world: World, end: str, kept: float
) -> None:
    report = world.read(end=end)
    world.fault = UpstreamError("LiteLLM did not answer")
    world.wait(kept + 5)
    assert world.read(end=end) is report
    assert world.ages == [kept + 5]


def test_where_litellm_refuses_nothing_stands_in(world: World) -> None:
    world.read()
    world.fault = UpstreamError("no", answered=400)
    world.wait(SECONDS)
    with pytest.raises(UpstreamError):
        world.read()


@pytest.mark.parametrize(
    ("fault", "start", "end"),
    [
        (UpstreamError("No usage found", answered=404), START, TODAY),
        (UpstreamError("user not found in table", answered=500), START, TODAY),
        (UpstreamError("end_date must be on or after start_date", answered=400), TODAY, START),
    ],
)
def test_no_usage_is_told_where_litellm_refuses_to_tell_of_none(
    world: World, fault: UpstreamError, start: str, end: str
) -> None:
    world.fault = fault
    assert world.read(start, end) == usage.report([])


def test_nothing_today_leaves_the_days_before(world: World) -> None:
    world.rows = [used(START), used(YESTERDAY)]
    report = world.read()
    world.wait(SECONDS)
    world.fault = UpstreamError("No usage found", answered=404)
    assert_same(world.read(), report)
    assert world.asked == [(START, TODAY), (TODAY, TODAY)]


@pytest.mark.parametrize(
    "fault",
    [
        UpstreamError("host not found", answered=502),
        UpstreamError("kaboom", answered=500),
        UpstreamError("no", answered=400),
        UpstreamError("not found"),
    ],
)
def test_other_refusals_are_not_taken_for_no_usage(world: World, fault: UpstreamError) -> None:
    world.fault = fault
    with pytest.raises(UpstreamError):
        world.read()
