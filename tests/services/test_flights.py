"""Calls under way are shared, and only then."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from litellm_plugin.services.flights import Flights

WAIT = 5  # seconds, at most


class Call:
    """A call that lasts until it is let go."""

    def __init__(self, result: object = "result") -> None:
        self.result = result
        self.times = 0
        self.started = threading.Event()
        self.let_go = threading.Event()

    def __call__(self) -> object:
        self.times += 1
        self.started.set()
        assert self.let_go.wait(WAIT)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(8)


def test_those_who_arrive_together_share_one_call(pool: ThreadPoolExecutor) -> None:
    flights, call = Flights(), Call()
    first = pool.submit(flights.share, "k", call)
    assert call.started.wait(WAIT)
    others = [pool.submit(flights.share, "k", call) for _ in range(5)]
    call.let_go.set()
    assert {future.result(WAIT) for future in (first, *others)} == {"result"}
    # Those submitted late enough made their own call; none ran beside another.
    assert 1 <= call.times <= 6


def test_a_joined_call_fails_for_all(pool: ThreadPoolExecutor) -> None:
    flights, call = Flights(), Call(ValueError("no"))
    first = pool.submit(flights.share, "k", call)
    assert call.started.wait(WAIT)
    joined = threading.Event()

    def join() -> object:
        joined.set()
        return flights.share("k", call)

    second = pool.submit(join)
    assert joined.wait(WAIT)
    call.let_go.set()
    for future in (first, second):
        with pytest.raises(ValueError, match="no"):
            future.result(WAIT)


def test_nothing_is_kept_after_the_call(pool: ThreadPoolExecutor) -> None:
    flights, call = Flights(), Call()
    call.let_go.set()
    for _ in range(3):
        flights.share("k", call)
    assert call.times == 3


def test_another_key_does_not_wait(pool: ThreadPoolExecutor) -> None:
    flights, slow = Flights(), Call()
    first = pool.submit(flights.share, "slow", slow)
    assert slow.started.wait(WAIT)
    assert flights.share("quick", lambda: "quick") == "quick"
    slow.let_go.set()
    assert first.result(WAIT) == "result"


def test_a_call_that_was_forgotten_is_joined_by_nobody(pool: ThreadPoolExecutor) -> None:
    flights, stale = Flights(), Call("stale")
    first = pool.submit(flights.share, "k", stale)
    assert stale.started.wait(WAIT)
    flights.forget("k")
    assert flights.share("k", lambda: "fresh") == "fresh"
    stale.let_go.set()
    assert first.result(WAIT) == "stale"
    assert flights.share("k", lambda: "fresh") == "fresh"
