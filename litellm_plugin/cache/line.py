"""Whether to ask Redis, which may be down."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds to do without after a failure
QUIET = 60.0  # seconds between two complaints in the log


class Line:
    """Knows whether to ask Redis: after a failure one request in each pause tries.

    Requests that come meanwhile do without at once, so that time-outs are not theirs.

    Args:
        meanwhile: What becomes of what Redis is for, as the log says it.
        timer: Tells the time in seconds; must never go back.
    """

    def __init__(self, meanwhile: str, timer: Callable[[], float] = time.monotonic) -> None:
        self._meanwhile = meanwhile
        self._timer = timer
        self._lock = threading.Lock()
        self._again_at: float | None = None  # None: it works
        self._quiet_until = float("-inf")
        self._complained = False

    def open(self) -> bool:
        """Tell whether to ask now."""
        with self._lock:
            now = self._timer()
            if self._again_at is None:
                return True
            if now < self._again_at:
                return False
            self._again_at = now + PAUSE
            return True

    def broke(self, exc: Exception) -> None:
        """Note a failure."""
        with self._lock:
            now = self._timer()
            self._again_at = now + PAUSE
            complain = now >= self._quiet_until
            if complain:
                self._quiet_until = now + QUIET
                self._complained = True
        if complain:
            log.warning("Redis does not answer, %s meanwhile: %s", self._meanwhile, exc)

    def held(self) -> None:
        """Note an answer."""
        if self._again_at is None:
            return
        with self._lock:
            self._again_at = None
            relieved, self._complained = self._complained, False
        if relieved:
            log.warning("Redis answers again")
