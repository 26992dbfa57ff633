"""Calls under way are shared, and only then."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from litellm_plugin.cache.flights import Flights
from litellm_plugin.errors import UpstreamError

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


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released whenever somebody joins a running call."""
    joiners = threading.Semaphore(0)

    class Watched(Future[object]):
        def result(self, timeout: float | None = None) -> object:
            joiners.release()
            return super().result(timeout)

    monkeypatch.setattr("litellm_plugin.cache.flights.Future", Watched)
    return joiners


def test_those_who_arrive_together_share_one_call(
    pool: ThreadPoolExecutor, joined: threading.Semaphore
) -> None:
    flights, call = Flights(), Call()
    futures = [pool.submit(flights.share, "k", call) for _ in range(6)]
    for _ in range(5):
        assert joined.acquire(timeout=WAIT)
    call.let_go.set()
    assert [future.result(WAIT) for future in futures] == ["result"] * 6
    assert call.times == 1


def test_a_joined_call_fails_for_all(pool: ThreadPoolExecutor, joined: threading.Semaphore) -> None:
    flights, call = Flights(), Call(ValueError("no"))
    futures = [pool.submit(flights.share, "k", call) for _ in range(2)]
    assert joined.acquire(timeout=WAIT)
    call.let_go.set()
    for future in futures:
        with pytest.raises(ValueError, match="no"):
            future.result(WAIT)
    assert call.times == 1


def test_those_who_share_a_failure_have_errors_of_their_own(
    pool: ThreadPoolExecutor, joined: threading.Semaphore
) -> None:
    flights, call = Flights(), Call(UpstreamError("no", answered=429, param="x"))
    futures = [pool.submit(flights.share, "k", call) for _ in range(3)]
    for _ in range(2):
        assert joined.acquire(timeout=WAIT)
    call.let_go.set()
    errors = [future.exception(WAIT) for future in futures]
    assert len(set(map(id, errors))) == 3
    for error in errors:
        assert isinstance(error, UpstreamError)
        assert (error.message, error.answered, error.param) == ("no", 429, "x")


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
