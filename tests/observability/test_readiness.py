"""Readiness by part: when it begins, that it stays, and what looking costs."""

from __future__ import annotations

import os
from threading import Event

import pytest
from prometheus_client import REGISTRY

from litellm_plugin.observability import readiness
from litellm_plugin.observability.readiness import LASTS, Readiness, Report


class Part:
    """Works or does not, and counts the looks."""

    def __init__(self, works: bool = True) -> None:
        self.works, self.looks = works, 0

    def __call__(self) -> bool:
        self.looks += 1
        return self.works


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(autouse=True)
def _all_the_time_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PATIENCE", 20.0)


def test_it_is_ready_once_all_that_is_needed_was_reached_and_stays_so(time: Time) -> None:
    litellm, backstage = Part(works=False), Part()
    ready = Readiness({"litellm": litellm, "backstage": backstage}, {}, timer=time)
    assert ready.report() == Report(False, {"litellm": "down", "backstage": "ok"})
    assert REGISTRY.get_sample_value("litellm_plugin_ready") == 0
    litellm.works = True
    backstage.works = False
    time.now += LASTS
    assert ready.report() == Report(True, {"litellm": "ok", "backstage": "down"})
    assert REGISTRY.get_sample_value("litellm_plugin_ready") == 1
    litellm.works = False
    time.now += LASTS
    assert ready.report() == Report(True, {"litellm": "down", "backstage": "down"})


def test_if_strict_it_is_ready_only_while_all_that_is_needed_works(time: Time) -> None:
    litellm, redis = Part(), Part(works=False)
    ready = Readiness({"litellm": litellm}, {"redis": redis}, strict=True, timer=time)
    assert ready.report() == Report(True, {"litellm": "ok", "redis": "down"})
    litellm.works = False
    time.now += LASTS
    assert not ready.report().ready


def test_what_was_seen_lasts(time: Time) -> None:
    litellm = Part()
    ready = Readiness({"litellm": litellm}, {}, timer=time)
    for _ in range(3):
        ready.report()
    time.now += LASTS / 2
    ready.report()
    assert litellm.looks == 1


def test_nobody_waits_for_a_part_that_hangs_and_nobody_looks_again_meanwhile(
    monkeypatch: pytest.MonkeyPatch, time: Time
) -> None:
    monkeypatch.setattr(readiness, "PATIENCE", 0.0)
    begun, go_on = Event(), Event()

    def hangs() -> bool:
        assert not begun.is_set()
        begun.set()
        return go_on.wait(60)

    ready = Readiness({"litellm": hangs}, {}, timer=time)
    assert ready.report() == Report(False, {"litellm": "unknown"})
    assert begun.wait(60)
    time.now += 10 * LASTS
    assert ready.report() == Report(False, {"litellm": "unknown"})
    monkeypatch.setattr(readiness, "PATIENCE", 20.0)
    go_on.set()
    assert ready.report() == Report(True, {"litellm": "ok"})


def test_a_look_that_breaks_is_one_that_failed(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> bool:
        raise RuntimeError("oh")

    ready = Readiness({"litellm": broken}, {}, timer=time)
    assert ready.report() == Report(False, {"litellm": "down"})
    assert "The check of litellm failed" in caplog.text


def test_a_worker_made_later_need_not_have_reached_it_itself(time: Time) -> None:
    litellm = Part()
    ready = Readiness({"litellm": litellm}, {}, timer=time)
    child = os.fork()
    if child == 0:  # the first worker reaches it
        os._exit(0 if ready.report().ready else 1)
    assert os.waitpid(child, 0)[1] == 0
    litellm.works = False
    assert ready.report() == Report(True, {"litellm": "down"})
