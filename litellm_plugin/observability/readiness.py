"""Readiness of the service, for orchestrators that decide where to send requests.

A probe checks each part whose last check is older than ``LASTS`` seconds, in one thread for each
part, and waits ``PATIENCE`` seconds at most; so frequent probes cost the upstreams little.
"""

from __future__ import annotations

import logging
import mmap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, Lock, Thread

from litellm_plugin.observability import metrics

log = logging.getLogger(__name__)

LASTS = 5.0  # seconds
PATIENCE = 0.5  # seconds; the default time-out of a Kubernetes probe is one

STATES = {True: "ok", False: "down", None: "unknown"}

Check = Callable[[], bool]
"""Returns whether a part works now."""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a probe."""

    ready: bool  # whether requests may be sent here
    checks: dict[str, str]  # by part: ok, down, or unknown before the first check has ended


class Readiness:
    """Tells whether the service is ready.

    The service becomes ready once every needed part has worked in any process forked from this
    one, and remains ready, so that clients get error messages during an outage of a part. A
    replica that has never reached a part, as with a wrong address, is not ready. With ``strict``,
    the service is ready only while every needed part works. ``others`` are only reported.
    """

    def __init__(
        self,
        needed: Mapping[str, Check],
        others: Mapping[str, Check],
        *,
        strict: bool = False,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        checks = {**needed, **others}
        # A byte for each part, shared with forked workers: whether any worker has reached it.
        reached = mmap.mmap(-1, len(checks))
        self._parts = {
            name: _Part(name, check, reached, index, timer)
            for index, (name, check) in enumerate(checks.items())
        }
        self._needed = [self._parts[name] for name in needed]
        self._strict = strict

    def report(self) -> Report:
        """Check the parts that are due, and return the state of all parts."""
        until = time.monotonic() + PATIENCE
        for done in [part.begin_check() for part in self._parts.values()]:
            if done is not None:
                done.wait(max(until - time.monotonic(), 0))
        ready = all(part.works if self._strict else part.reached for part in self._needed)
        metrics.READY.set(ready)
        return Report(ready, {name: STATES[part.works] for name, part in self._parts.items()})


class _Part:
    def __init__(
        self, name: str, check: Check, reached: mmap.mmap, index: int, timer: Callable[[], float]
    ) -> None:
        self._name = name
        self._check = check
        self._reached, self._index = reached, index
        self._timer = timer
        self._lock = Lock()
        self._under_way: Event | None = None
        self._due = float("-inf")
        self.works: bool | None = None

    @property
    def reached(self) -> bool:
        return bool(self._reached[self._index])

    def begin_check(self) -> Event | None:
        """Begin a check if one is due; return the event of its end, None if none is under way."""
        with self._lock:
            if self._under_way is None and self._timer() >= self._due:
                self._under_way = Event()
                Thread(target=self._run, args=(self._under_way,), daemon=True).start()
            return self._under_way

    def _run(self, done: Event) -> None:
        works = False
        try:
            works = self._check()
        except Exception:
            log.exception("The check of %s failed", self._name)
        finally:
            if works:
                self._reached[self._index] = 1
            with self._lock:
                self.works = works
                self._due = self._timer() + LASTS
                self._under_way = None
            done.set()
