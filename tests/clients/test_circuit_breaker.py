"""When an upstream that does not answer is left alone, and when it is tried again."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from litellm_plugin.clients.circuit_breaker import FAILURES, PAUSE, QUIET, CircuitBreaker


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
def breaker(timer: Timer) -> CircuitBreaker:
    return CircuitBreaker("LiteLLM", timer=timer)


@pytest.fixture
def opened(breaker: CircuitBreaker) -> CircuitBreaker:
    for _ in range(FAILURES):
        breaker.failed()
    return breaker


def test_fewer_failures_do_not_open_it(breaker: CircuitBreaker) -> None:
    for _ in range(FAILURES - 1):
        breaker.failed()

    assert breaker.admits()
    assert not breaker.open


def test_failures_count_in_a_row_only(breaker: CircuitBreaker) -> None:
    for _ in range(3 * FAILURES):
        breaker.failed()
        breaker.succeeded()

    assert not breaker.open


def test_open_it_admits_nobody_for_a_while(opened: CircuitBreaker, timer: Timer) -> None:
    assert not opened.admits()
    timer.now += PAUSE - 0.01
    assert not opened.admits()


def test_then_one_request_after_the_other_tries(opened: CircuitBreaker, timer: Timer) -> None:
    for _ in range(3):
        timer.now += PAUSE
        assert [opened.admits() for _ in range(3)] == [True, False, False]


def test_one_that_tries_and_never_ends_keeps_nobody_from_trying(
    opened: CircuitBreaker, timer: Timer
) -> None:
    timer.now += PAUSE
    assert opened.admits()  # and is not heard of again
    timer.now += PAUSE

    assert opened.admits()


def test_failures_of_requests_from_before_do_not_put_off_the_next_try(
    opened: CircuitBreaker, timer: Timer
) -> None:
    timer.now += PAUSE / 2
    opened.failed()
    timer.now += PAUSE / 2

    assert opened.admits()


def test_one_answer_closes_it(opened: CircuitBreaker) -> None:
    opened.succeeded()

    assert [opened.admits() for _ in range(3)] == [True] * 3


def test_of_many_threads_one_tries(opened: CircuitBreaker, timer: Timer) -> None:
    timer.now += PAUSE
    together = threading.Barrier(16)

    def ask(_: int) -> bool:
        together.wait(60)
        return opened.admits()

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(ask, range(16))) == 1


def test_log_and_metrics_are_told_once_of_each_change(
    timer: Timer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told: list[bool] = []
    breaker = CircuitBreaker("LiteLLM", timer=timer, changed=told.append)
    for _ in range(3 * FAILURES):
        breaker.failed()
    breaker.succeeded()
    breaker.succeeded()

    said = [record.getMessage() for record in caplog.records]
    assert [text.split(";")[0] for text in said] == [
        "LiteLLM does not answer",
        "LiteLLM answers again",
    ]
    assert told == [True, False]


def test_the_operator_is_told_of_one_that_comes_and_goes_once_a_minute(
    timer: Timer, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = CircuitBreaker("Redis", "we go on", failures=1, timer=timer)
    for _ in range(10):
        breaker.failed(OSError("refused"))
        assert breaker.open
        breaker.succeeded()
    told, relieved = caplog.messages
    assert relieved == "Redis answers again"
    assert told.startswith("Redis does not answer (refused)")
    assert told.endswith("we go on")
    timer.now += QUIET
    breaker.failed()
    assert len(caplog.messages) == 3
