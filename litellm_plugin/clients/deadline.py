"""How long the request that is being served may still take: all its calls, together.

It begins where a request arrives and goes wherever its work goes, as a context
variable. What is done for nobody's request, such as in the background, has no end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_end: ContextVar[float] = ContextVar("deadline", default=math.inf)  # on the monotonic clock


def begin(seconds: float) -> None:
    """Let what follows end within some seconds."""
    _end.set(time.monotonic() + seconds)


def end() -> None:
    """Let what follows take as long as it takes."""
    _end.set(math.inf)


def left() -> float:
    """Return the seconds that are left; negative when they are over."""
    return _end.get() - time.monotonic()


@contextmanager
def keeping(seconds: float) -> Iterator[None]:
    """Let what is done inside end sooner, so that there is time to see what came of it.

    Args:
        seconds: How much sooner; at most a sixth of what is left.
    """
    kept = max(min(seconds, left() / 6), 0.0)
    outer = _end.set(_end.get() - kept)
    try:
        yield
    finally:
        _end.reset(outer)
