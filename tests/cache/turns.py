"""Threads that take turns: one runs at a time, and hands over only where it would wait.

So what several requests do at once is decided by the test alone, and the same each time.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

R = TypeVar("R")

LIMIT = 60.0  # seconds until a thread that does not hand over is a failure


class Turn(Generic[R]):
    """A call in a thread of its own.

    Attributes:
        parked: Whether it stands still until it is told to go on.
        over: Whether it has ended.
    """

    def __init__(self, call: Callable[[], R]) -> None:
        self.parked = False
        self.over = False
        self.until: Callable[[], bool] | None = None  # what it waits for
        self.go = threading.Semaphore(0)
        self._call = call
        self._outcome: Future[R] = Future()

    def run(self) -> None:
        try:
            self._outcome.set_result(self._call())
        except BaseException as exc:
            self._outcome.set_exception(exc)
        self.over = True

    def result(self) -> R:
        """Return what the call returned, or raise what it raised."""
        assert self.over
        return self._outcome.result()


class Turns:
    """Lets one thread run at a time."""

    def __init__(self) -> None:
        self._back = threading.Semaphore(0)
        self._mine = threading.local()
        self._waiting: list[Turn[Any]] = []

    def begin(self, call: Callable[[], R]) -> Turn[R]:
        """Run ``call`` until it ends, parks, or waits for another one."""
        turn = Turn(call)
        threading.Thread(target=self._first, args=(turn,), daemon=True).start()
        self._switch_to(turn)
        return turn

    def go_on(self, turn: Turn[Any]) -> None:
        """Let a parked call run on, and then whoever waited for what it did."""
        assert turn.parked
        turn.parked = False
        self._switch_to(turn)

    def present(self) -> Turn[Any] | None:
        """Return the turn of the calling thread; None for a thread that takes none."""
        return getattr(self._mine, "turn", None)

    def park(self) -> None:
        """Stand still until the test says :meth:`go_on`."""
        turn = self.present()
        if turn is not None:
            turn.parked = True
            self._hand_over(turn)

    def wait(self, ready: Callable[[], bool]) -> None:
        """Stand still until others have made ``ready`` true."""
        turn = self.present()
        while not ready():
            assert turn is not None, "only who takes turns may wait for others"
            turn.until = ready
            self._waiting.append(turn)
            self._hand_over(turn)

    def rule(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the cache's shared calls and locks wait by handing over."""
        turns = self

        class PatientEvent(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                turns.wait(self.is_set)
                return True

        monkeypatch.setattr("litellm_plugin.cache.single_flight.Event", PatientEvent)
        locks: dict[Path, TurnLock] = {}

        def lock(path: Path, **_: Any) -> TurnLock:
            return locks.setdefault(path, TurnLock(turns))

        monkeypatch.setattr("litellm_plugin.cache.locks.FileLock", lock)

    def _first(self, turn: Turn[Any]) -> None:
        self._mine.turn = turn
        turn.go.acquire()
        turn.run()
        self._back.release()

    def _hand_over(self, turn: Turn[Any]) -> None:
        self._back.release()
        turn.go.acquire()

    def _switch_to(self, turn: Turn[Any]) -> None:
        self._run(turn)
        while ready := [turn for turn in self._waiting if turn.until and turn.until()]:
            self._waiting.remove(ready[0])
            ready[0].until = None
            self._run(ready[0])

    def _run(self, turn: Turn[Any]) -> None:
        turn.go.release()
        assert self._back.acquire(timeout=LIMIT), "a thread neither ended nor handed over"


class TurnLock:
    """A file lock whose holder may hand over meanwhile."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held = False

    def acquire(self, **_: Any) -> None:
        self._turns.wait(lambda: not self._held)
        self._held = True

    def release(self) -> None:
        assert self._held
        self._held = False


def finish(turns: Turns, under_way: list[Turn[Any]]) -> None:
    """Let all of them run to their ends.

    Raises:
        AssertionError: They wait for each other.
    """
    for _ in itertools.count():
        left = [turn for turn in under_way if not turn.over]
        parked = [turn for turn in left if turn.parked]
        if not parked:
            assert not left, "calls wait for each other for ever"
            return
        turns.go_on(parked[0])
