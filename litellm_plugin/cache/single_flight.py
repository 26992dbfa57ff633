"""Single flight: concurrent calls with the same key are made once.

The first caller, the leader, makes the call. Callers that come while it is under way, followers,
wait for the leader's result, each within its own request's deadline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from copy import copy
from threading import Event, Lock
from typing import Any, TypeVar

from litellm_plugin.clients import deadline

R = TypeVar("R")

# A leader that fails with less time left may have lacked the time for a retry. Its followers may
# have more time.
SHORT = 0.25  # seconds


class SingleFlight:
    """Shares calls that are under way, by key. Results are not kept."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: dict[Hashable, _Call] = {}

    def share(self, key: Hashable, call: Callable[[], R], *, repeat: bool = True) -> R:
        """Return the result of ``call``, or of the leader's call for the same key.

        A follower that reaches its deadline makes the call itself, which then fails as any call
        after the deadline. Each follower gets an exception of its own, with the class and the
        attributes of the leader's.

        Args:
            key: Identifies the call.
            call: Makes the call.
            repeat: Whether a follower makes the call again where the leader ran out of time or
                was killed; False for a write, which may have been acted on.
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
        cut_short: Whether it failed because the leader ran out of time or was killed.
    """

    def __init__(self) -> None:
        self.done = Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.cut_short = False


def _own(error: BaseException) -> BaseException:
    """Return a copy of the leader's exception, because routes set attributes on exceptions."""
    if not isinstance(error, Exception):
        return RuntimeError("the request that made the call was ended")
    kind = type(error)
    if kind.__module__ == "builtins":
        return copy(error)
    # copy() would call __init__ with ``args``; ours take other arguments.
    own = kind.__new__(kind, *error.args)
    vars(own).update(vars(error))
    own.__cause__ = error.__cause__
    return own.with_traceback(error.__traceback__)
