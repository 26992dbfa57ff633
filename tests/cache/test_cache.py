"""Reads are repeated for a while, and never past a write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from litellm_plugin.cache.cache import Cache
from litellm_plugin.errors import UpstreamError
from tests.cache.doubles import Source
from tests.identity.doubles import Clock

New = Callable[..., Cache]


@pytest.fixture
def new(clock: Clock) -> New:
    """Makes a cache: ``new(seconds=5, stale=60)``."""

    def new(seconds: float = 5, stale: float = 0, rows: int = 100) -> Cache:
        return Cache(seconds, stale, max_rows=rows, clock=clock)

    return new


def test_a_read_is_repeated_until_its_time_is_over(new: New, clock: Clock, source: Source) -> None:
    cache = new()
    for _ in range(3):
        assert cache.read(("k",), ("s",), source) == "first"
    assert source.reads == 1
    clock.now += 5
    source.value = "second"
    assert cache.read(("k",), ("s",), source) == "second"


def test_a_fresh_read_asks_in_any_case(new: New, source: Source) -> None:
    cache = new()
    cache.read(("k",), ("s",), source)
    source.value = "second"
    assert cache.read(("k",), ("s",), source, fresh=True) == "second"
    assert cache.read(("k",), ("s",), source) == "second"


def test_nothing_is_kept_where_the_time_is_zero(new: New, source: Source) -> None:
    cache = new(seconds=0)
    for _ in range(3):
        cache.read(("k",), ("s",), source)
    assert source.reads == 3


def test_a_failure_is_not_kept(new: New, source: Source) -> None:
    cache = new()
    source.fault = UpstreamError("no", answered=500)
    for _ in range(2):
        with pytest.raises(UpstreamError):
            cache.read(("k",), ("s",), source)
    assert source.reads == 2


@pytest.mark.parametrize(
    ("answered", "stands_in"), [(None, True), (503, True), (404, False), (401, False), (500, False)]
)
def test_an_old_snapshot_stands_in_only_while_the_upstream_is_down(
    new: New, clock: Clock, source: Source, answered: int | None, *, stands_in: bool
) -> None:
    cache = new(stale=60)
    cache.read(("k",), ("s",), source)
    clock.now += 30
    source.fault = UpstreamError("down", answered=answered)
    ages: list[float] = []
    if stands_in:
        assert cache.read(("k",), ("s",), source, stale=ages.append) == "first"
        assert ages == [30]
    else:
        with pytest.raises(UpstreamError):
            cache.read(("k",), ("s",), source, stale=ages.append)
    with pytest.raises(UpstreamError):
        cache.read(("k",), ("s",), source)  # who can't say that it is old gets none
    clock.now += 60
    with pytest.raises(UpstreamError):
        cache.read(("k",), ("s",), source, stale=ages.append)


def test_a_write_ends_what_stands_in(new: New, source: Source) -> None:
    cache = new(stale=60)
    cache.read(("k",), ("s",), source)
    cache.invalidate("s")
    source.fault = UpstreamError("down")
    with pytest.raises(UpstreamError):
        cache.read(("k",), ("s",), source, stale=lambda _: None)


def test_memory_is_bounded_by_rows(new: New, source: Source) -> None:
    cache = new(rows=10)
    for number in range(20):
        cache.read((str(number),), ("s",), source, weight=lambda _: 3)
    for number in range(20):
        cache.read((str(number),), ("s",), source, weight=lambda _: 3)
    assert source.reads == 40  # three fit; going round, none is met again
    cache.read(("huge",), ("s",), source, weight=lambda _: 11)
    cache.read(("huge",), ("s",), source, weight=lambda _: 11)
    assert source.reads == 42
