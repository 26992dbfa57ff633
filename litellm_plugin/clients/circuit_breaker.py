"""A circuit breaker: whether something is asked at all while it does not answer.

pybreaker and its like hold a lock, or count who is inside, while a call is under
way; a call that hangs would then decide for how long nobody looks again. Here
nothing is held: while it is open, one request in ``PAUSE`` seconds is let through.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from threading import Lock

log = logging.getLogger(__name__)

FAILURES = 5  # in a row, after which it opens
PAUSE = 1.0  # seconds between two requests that try whether it may close
QUIET = 60.0  # seconds between two log messages that it has opened


class CircuitBreaker:
    """One process's view of one upstream. Safe to share between threads.

    Args:
        name: Of the upstream, for the log.
        meanwhile: What becomes of other requests while it is open, for the log.
        failures: How many failures in a row open it.
        timer: Tells the time in seconds; must never go back.
        changed: Is told True when it opens, and False when it closes.
    """

    def __init__(
        self,
        name: str,
        meanwhile: str = "all others are refused at once",
        *,
        failures: int = FAILURES,
        timer: Callable[[], float] = time.monotonic,
        changed: Callable[[bool], object] = bool,
    ) -> None:
        self._name = name
        self._meanwhile = meanwhile
        self._limit = failures
        self._timer = timer
        self._changed = changed
        self._lock = Lock()  # for a few instructions, never for a call
        self._failures = 0
        self._next = 0.0  # when the next request may try
        self._quiet_until = -math.inf
        self._told = False  # the log says that it is open

    @property
    def open(self) -> bool:
        """Whether the upstream has failed to answer too often in a row."""
        return self._failures >= self._limit

    def admits(self) -> bool:
        """Tell whether to ask now; True is for one request, which then tells how it went."""
        if not self.open:
            return True
        with self._lock:
            now = self._timer()
            if self.open and now < self._next:
                return False
            self._next = now + PAUSE
            return True

    def succeeded(self) -> None:
        """Note that the upstream has answered; whatever it said."""
        if not self._failures:
            return
        with self._lock:
            was_open, self._failures, changed = self.open, 0, self._changed
            told, self._told = self._told, False
        if was_open:
            changed(False)
        if told:
            log.warning("%s answers again", self._name)

    def failed(self, reason: object = "") -> None:
        """Note that it has not.

        Args:
            reason: Why not, for the log.
        """
        with self._lock:
            self._failures += 1
            opens, changed = self._failures == self._limit, self._changed
            if opens:
                now = self._timer()
                self._next = now + PAUSE
                tell = now >= self._quiet_until
                if tell:
                    self._told, self._quiet_until = True, now + QUIET
        if opens:
            changed(True)
            if tell:
                log.error(
                    "%s does not answer%s; until it does, one request in %g s is tried, and %s",
                    self._name,
                    f" ({reason})" if reason else "",
                    PAUSE,
                    self._meanwhile,
                )

    def retire(self) -> None:
        """Note that nobody goes by it any more: it counts as closed, whatever comes back late."""
        with self._lock:
            was_open, self._failures = self.open, 0
            changed, self._changed = self._changed, bool
        if was_open:
            changed(False)
