"""The deadline of the request that is being served, which all its calls share.

It is a context variable, so that threads which work for the request can inherit it. Work without
a request has no deadline.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_end: ContextVar[float] = ContextVar("deadline", default=math.inf)  # on the monotonic clock


def begin(seconds: float) -> None:
    """Set the deadline to some seconds from now."""
    _end.set(time.monotonic() + seconds)


def end() -> None:
    """Remove the deadline."""
    _end.set(math.inf)


def left() -> float:
    """Return the seconds until the deadline: negative after it, infinite where there is none."""
    return _end.get() - time.monotonic()


@contextmanager
def keeping(seconds: float) -> Iterator[None]:
    """Make the block's deadline earlier, so that time is left for what follows the block.

    Args:
        seconds: How much earlier; a sixth of the remaining time at most.
    """
    kept = max(min(seconds, left() / 6), 0.0)
    outer = _end.set(_end.get() - kept)
    try:
        yield
    finally:
        _end.reset(outer)
