"""Calls under way are shared, and only then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from litellm_plugin.cache.single_flight import SingleFlight
from litellm_plugin.clients import deadline
from litellm_plugin.errors import PluginError, UpstreamError

WAIT = 60  # seconds, at most


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


def test_those_who_arrive_together_share_one_call(
    pool: ThreadPoolExecutor, joined: threading.Semaphore
) -> None:
    flights, call = SingleFlight(), Call()
    futures = [pool.submit(flights.share, "k", call) for _ in range(6)]
    for _ in range(5):
        assert joined.acquire(timeout=WAIT)
    call.let_go.set()
    assert [future.result(WAIT) for future in futures] == ["result"] * 6
    assert call.times == 1


class Refused(PluginError):
    """An error whose constructor takes other things than its message."""

    def __init__(self, *, who: str, email: str) -> None:
        super().__init__(f"{who} came with {email}")
        self.who = who


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        UpstreamError("no", answered=429, param="x"),
        Refused(who="bob", email="b@example.com"),
    ],
    ids=repr,
)
def test_each_who_shares_a_failure_has_an_error_like_the_leaders(
    pool: ThreadPoolExecutor, joined: threading.Semaphore, error: Exception
) -> None:
    flights, call = SingleFlight(), Call(error)
    futures = [pool.submit(flights.share, "k", call) for _ in range(3)]
    for _ in range(2):
        assert joined.acquire(timeout=WAIT)
    call.let_go.set()
    errors = [future.exception(WAIT) for future in futures]
    assert call.times == 1
    assert len(set(map(id, errors))) == 3
    for own in errors:
        assert type(own) is type(error)
        assert (str(own), vars(own)) == (str(error), vars(error))


def within(seconds: float, call: Callable[[], object]) -> object:
    """Make a call as a request that has so many seconds left."""
    deadline.begin(seconds)
    try:
        return call()
    finally:
        deadline.end()


def test_a_follower_whose_time_is_over_ends_for_itself_alone(pool: ThreadPoolExecutor) -> None:
    flights, call = SingleFlight(), Call()
    leader = pool.submit(flights.share, "k", call)
    assert call.started.wait(WAIT)

    def ask() -> object:
        assert deadline.left() <= 0
        raise UpstreamError("There was no time left")

    with pytest.raises(UpstreamError, match="no time left"):
        within(0.01, lambda: flights.share("k", ask))
    call.let_go.set()
    assert leader.result(WAIT) == "result"


@pytest.mark.parametrize("repeat", [True, False])
def test_a_follower_takes_over_from_a_leader_that_ran_out_of_time_unless_it_writes(
    pool: ThreadPoolExecutor, joined: threading.Semaphore, *, repeat: bool
) -> None:
    flights, call = SingleFlight(), Call(UpstreamError("did not answer in time"))
    leader = pool.submit(within, 0.0, lambda: flights.share("k", call))
    assert call.started.wait(WAIT)
    follower = pool.submit(within, 29.0, lambda: flights.share("k", lambda: "own", repeat=repeat))
    assert joined.acquire(timeout=WAIT)
    call.let_go.set()
    with pytest.raises(UpstreamError, match="in time"):
        leader.result(WAIT)
    if repeat:
        assert follower.result(WAIT) == "own"
    else:
        assert isinstance(follower.exception(WAIT), UpstreamError)


def test_of_the_followers_that_take_over_one_asks(
    pool: ThreadPoolExecutor, joined: threading.Semaphore
) -> None:
    flights, late, second = SingleFlight(), Call(UpstreamError("late")), Call()
    leader = pool.submit(within, 0.0, lambda: flights.share("k", late))
    assert late.started.wait(WAIT)
    followers = [pool.submit(flights.share, "k", second) for _ in range(5)]
    for _ in followers:
        assert joined.acquire(timeout=WAIT)
    late.let_go.set()
    for _ in range(4):
        assert joined.acquire(timeout=WAIT)
    second.let_go.set()
    assert [follower.result(WAIT) for follower in followers] == ["result"] * 5
    assert second.times == 1
    assert leader.exception(WAIT) is not None


def test_a_leader_that_is_killed_takes_nobody_with_it(
    pool: ThreadPoolExecutor, joined: threading.Semaphore
) -> None:
    class Killed(BaseException):
        pass

    flights, started, go = SingleFlight(), threading.Event(), threading.Event()

    def die() -> object:
        started.set()
        assert go.wait(WAIT)
        raise Killed

    leader = pool.submit(flights.share, "k", die)
    assert started.wait(WAIT)
    follower = pool.submit(flights.share, "k", lambda: "own")
    assert joined.acquire(timeout=WAIT)
    go.set()
    assert follower.result(WAIT) == "own"
    assert isinstance(leader.exception(WAIT), Killed)


def test_nothing_is_kept_after_the_call(pool: ThreadPoolExecutor) -> None:
    flights, call = SingleFlight(), Call()
    call.let_go.set()
    for _ in range(3):
        flights.share("k", call)
    assert call.times == 3


def test_another_key_does_not_wait(pool: ThreadPoolExecutor) -> None:
    flights, slow = SingleFlight(), Call()
    first = pool.submit(flights.share, "slow", slow)
    assert slow.started.wait(WAIT)
    assert flights.share("quick", lambda: "quick") == "quick"
    slow.let_go.set()
    assert first.result(WAIT) == "result"
