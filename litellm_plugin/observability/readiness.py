"""Whether the service can do its work, for those who decide where requests go.

Looking costs the upstreams next to nothing, however often orchestrators ask: a part is
looked at when somebody asks and the last look is ``LASTS`` seconds old, by one thread,
which nobody waits for longer than ``PATIENCE``.
"""

from __future__ import annotations

import logging
import mmap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, Lock, Thread

log = logging.getLogger(__name__)

LASTS = 5.0  # seconds
PATIENCE = 0.5  # seconds; Kubernetes gives a probe one, unless told otherwise

Look = Callable[[], bool]
"""Tells whether a part does its work now."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    Attributes:
        ready: Whether requests may be sent here.
        checks: By part: ``ok``, ``down``, or ``unknown`` before the first look has ended.
    """

    ready: bool
    checks: dict[str, str]


class Readiness:
    """Tells whether the service is ready.

    It is once every needed part has done its work, in one of the processes forked from
    this one, and remains so: an outage that all replicas share must not take the page
    away, which may have answers from before and says what is wrong. A replica that has
    never reached what it needs, such as one with a wrong address, is not.

    Args:
        needed: The parts without which nothing is of use.
        others: Parts that the service can do without.
        strict: Whether it is ready only while every needed part does its work.
        timer: Tells the time in seconds; must never go back.
    """

    def __init__(
        self,
        needed: Mapping[str, Look],
        others: Mapping[str, Look],
        *,
        strict: bool = False,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        looks = {**needed, **others}
        # Anonymous and shared: what one worker has reached, a worker made later need not.
        reached = mmap.mmap(-1, len(looks))
        self._parts = {
            name: _Part(name, look, reached, at, timer)
            for at, (name, look) in enumerate(looks.items())
        }
        self._needed = [self._parts[name] for name in needed]
        self._strict = strict

    def report(self) -> Report:
        """Return what is known, after another look where it is time for one."""
        until = time.monotonic() + PATIENCE
        for looking in [part.looked_at() for part in self._parts.values()]:
            if looking is not None:
                looking.wait(max(until - time.monotonic(), 0))
        ready = all(part.works if self._strict else part.reached for part in self._needed)
        return Report(ready, {name: part.state for name, part in self._parts.items()})


class _Part:
    def __init__(
        self, name: str, look: Look, reached: mmap.mmap, at: int, timer: Callable[[], float]
    ) -> None:
        self._name = name
        self._look = look
        self._reached, self._at = reached, at
        self._timer = timer
        self._lock = Lock()
        self._looking: Event | None = None
        self._due = float("-inf")
        self.works: bool | None = None

    @property
    def reached(self) -> bool:
        return bool(self._reached[self._at])

    @property
    def state(self) -> str:
        return {True: "ok", False: "down", None: "unknown"}[self.works]

    def looked_at(self) -> Event | None:
        """Return what is set when the look under way has ended; None where there is none."""
        with self._lock:
            if self._looking is None and self._timer() >= self._due:
                self._looking = Event()
                Thread(target=self._look_now, args=(self._looking,), daemon=True).start()
            return self._looking

    def _look_now(self, done: Event) -> None:
        works = False
        try:
            works = self._look()
        except Exception:
            log.exception("%s could not be looked at", self._name)
        finally:
            if works:
                self._reached[self._at] = 1
            with self._lock:
                self.works = works
                self._due = self._timer() + LASTS
                self._looking = None
            done.set()
