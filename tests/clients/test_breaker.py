"""When an upstream that does not answer is left alone, and when it is tried again."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from litellm_plugin.clients.breaker import FAILURES, PAUSE, Breaker


class Timer:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def breaker(timer: Timer) -> Breaker:
    return Breaker("LiteLLM", timer)


@pytest.fixture
def opened(breaker: Breaker) -> Breaker:
    for _ in range(FAILURES):
        breaker.failed()
    return breaker


def test_fewer_failures_do_not_open_it(breaker: Breaker) -> None:
    for _ in range(FAILURES - 1):
        breaker.failed()

    assert breaker.admits()
    assert not breaker.open


def test_failures_count_in_a_row_only(breaker: Breaker) -> None:
    for _ in range(3 * FAILURES):
        breaker.failed()
        breaker.answered()

    assert not breaker.open


def test_open_it_admits_nobody_for_a_while(opened: Breaker, timer: Timer) -> None:
    assert not opened.admits()
    timer.now += PAUSE - 0.01
    assert not opened.admits()


def test_then_one_request_after_the_other_tries(opened: Breaker, timer: Timer) -> None:
    for _ in range(3):
        timer.now += PAUSE
        assert [opened.admits() for _ in range(3)] == [True, False, False]


def test_one_that_tries_and_never_ends_keeps_nobody_from_trying(
    opened: Breaker, timer: Timer
) -> None:
    timer.now += PAUSE
    assert opened.admits()  # and is not heard of again
    timer.now += PAUSE

    assert opened.admits()


def test_failures_of_requests_from_before_do_not_put_off_the_next_try(
    opened: Breaker, timer: Timer
) -> None:
    timer.now += PAUSE / 2
    opened.failed()
    timer.now += PAUSE / 2

    assert opened.admits()


def test_one_answer_closes_it(opened: Breaker) -> None:
    opened.answered()

    assert [opened.admits() for _ in range(3)] == [True] * 3


def test_of_many_threads_one_tries(opened: Breaker, timer: Timer) -> None:
    timer.now += PAUSE
    together = threading.Barrier(16)

    def ask(_: int) -> bool:
        together.wait(5)
        return opened.admits()

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(ask, range(16))) == 1


def test_the_operator_is_told_once_of_each_change(
    breaker: Breaker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3 * FAILURES):
        breaker.failed()
    breaker.answered()
    breaker.answered()

    said = [record.getMessage() for record in caplog.records]
    assert [text.split(";")[0] for text in said] == [
        f"LiteLLM has not answered {FAILURES} times in a row",
        "LiteLLM answers again",
    ]


def test_whoever_counts_is_told_once_of_each_change(timer: Timer) -> None:
    told: list[bool] = []
    breaker = Breaker("LiteLLM", timer, told.append)
    for _ in range(3 * FAILURES):
        breaker.failed()
    breaker.answered()
    breaker.answered()

    assert told == [True, False]
