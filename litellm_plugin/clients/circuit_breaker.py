"""A circuit breaker: closed, all requests pass; open, one passes in ``PAUSE`` seconds as a trial.

A trial that succeeds closes it. pybreaker and similar libraries hold a lock, or count callers,
while a call is under way, so that a call that hangs delays the next trial. This breaker does not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from threading import Lock

log = logging.getLogger(__name__)

FAILURES = 5  # in a row, after which it opens
PAUSE = 1.0  # seconds between two trials while it is open
QUIET = 60.0  # seconds between two log messages that the breaker has opened


class CircuitBreaker:
    """One process's view of one upstream. Safe to share between threads.

    Args:
        name: Of the upstream, for the log.
        meanwhile: What happens to other requests while it is open, for the log.
        failures: How many failures in a row open it.
        timer: Returns a monotonic time in seconds.
        changed: Called with True when it opens, and with False when it closes.
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
        self._lock = Lock()  # never held during a call
        self._failures = 0
        self._next = 0.0  # when the next trial may begin
        self._quiet_until = -math.inf
        self._logged = False  # the last log message says that it is open

    @property
    def open(self) -> bool:
        """Whether the upstream has failed to answer too often in a row."""
        return self._failures >= self._limit

    def admits(self) -> bool:
        """Tell whether a request may be sent now.

        Each True is for one request, whose result is to be reported by ``succeeded`` or ``failed``.
        """
        if not self.open:
            return True
        with self._lock:
            now = self._timer()
            if self.open and now < self._next:
                return False
            self._next = now + PAUSE
            return True

    def succeeded(self) -> None:
        """Note that the upstream has answered, whatever the answer is."""
        if not self._failures:
            return
        with self._lock:
            was_open, self._failures, changed = self.open, 0, self._changed
            logged, self._logged = self._logged, False
        if was_open:
            changed(False)
        if logged:
            log.warning("%s answers again", self._name)

    def failed(self, reason: object = "") -> None:
        """Note that the upstream has not answered; ``reason`` is for the log."""
        with self._lock:
            self._failures += 1
            opens, changed = self._failures == self._limit, self._changed
            if opens:
                now = self._timer()
                self._next = now + PAUSE
                loud = now >= self._quiet_until
                if loud:
                    self._logged, self._quiet_until = True, now + QUIET
        if opens:
            changed(True)
            if loud:
                log.error(
                    "%s does not answer%s; until it does, one request in %g s is tried, and %s",
                    self._name,
                    f" ({reason})" if reason else "",
                    PAUSE,
                    self._meanwhile,
                )

    def retire(self) -> None:
        """Close the breaker for good; late reports do not call ``changed`` any more."""
        with self._lock:
            was_open, self._failures = self.open, 0
            changed, self._changed = self._changed, bool
        if was_open:
            changed(False)
