"""Single flight: of those who want the same at the same time, one asks for all.

The first is the leader, and makes the call. Those who come while it is under way are followers:
they wait for the leader's result, each no longer than its own request may take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from copy import copy
from threading import Event, Lock
from typing import Any, TypeVar

from litellm_plugin.clients import deadline

R = TypeVar("R")

# A leader that fails with less than this left may have failed for want of time alone: it did not
# try again where it would have had to pause. Its followers may have more time.
SHORT = 0.25  # seconds


class SingleFlight:
    """Shares calls under way by key, from their start to their end; nothing is kept."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: dict[Hashable, _Call] = {}

    def share(self, key: Hashable, call: Callable[[], R], *, repeat: bool = True) -> R:
        """Return what ``call`` returns, or what the leader's call of the same key does.

        A follower whose time is over calls ``call`` for itself alone, which then fails as any
        request without time does. Each follower gets an exception of its own, of the leader's
        class and with its attributes.

        Args:
            key: What is asked for.
            call: Asks.
            repeat: Whether a follower takes over where the leader ran out of time or was ended;
                no for a write, which may have been acted on.
        """
        while True:
            with self._lock:
                running = self._under_way.get(key)
                if running is None:
                    mine = self._under_way[key] = _Call()
            if running is None:
                return self._lead(key, mine, call)
            left = deadline.left()
            if not running.done.wait(None if math.isinf(left) else max(left, 0)):
                return call()
            if running.error is None:
                result: R = running.result
                return result
            if not (repeat and running.cut_short):
                raise _own(running.error)

    def _lead(self, key: Hashable, mine: _Call, call: Callable[[], R]) -> R:
        try:
            result = mine.result = call()
        except BaseException as exc:
            mine.error = exc
            mine.cut_short = not isinstance(exc, Exception) or deadline.left() < SHORT
            raise
        finally:
            with self._lock:
                del self._under_way[key]
            mine.done.set()
        return result


class _Call:
    """A call under way.

    Attributes:
        cut_short: Whether it failed because of the leader, not of what was asked.
    """

    def __init__(self) -> None:
        self.done = Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.cut_short = False


def _own(error: BaseException) -> BaseException:
    """Return a copy of an exception: a route notes on it how it is answered."""
    if not isinstance(error, Exception):
        return RuntimeError("the request that made the call was ended")
    kind = type(error)
    if kind.__module__ == "builtins":
        return copy(error)
    # Not by copy(), which would call __init__ with ``args``: ours take other arguments.
    own = kind.__new__(kind, *error.args)
    vars(own).update(vars(error))
    own.__cause__ = error.__cause__
    return own.with_traceback(error.__traceback__)
