"""Calls that requests share while they are under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from copy import copy
from typing import Any, TypeVar

R = TypeVar("R")


class Flights:
    """Lets requests that arrive together share one call.

    Nothing is kept: a call is shared from its start to its end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, Future[Any]] = {}

    def share(self, key: Hashable, call: Callable[[], R]) -> R:
        """Return what ``call`` returns, or what the same key's running call does."""
        with self._lock:
            running = self._under_way.get(key)
            if running is None:
                mine: Future[Any] = Future()
                self._under_way[key] = mine
        if running is not None:
            try:
                joined: R = running.result()
            except Exception as exc:
                # Routes note on an error how they answer it; each on its own.
                raise copy(exc) from exc
            return joined
        try:
            result = call()
        except BaseException as exc:
            self._land(key, mine)
            mine.set_exception(exc)
            raise
        self._land(key, mine)
        mine.set_result(result)
        return result

    def _land(self, key: Hashable, flight: Future[Any]) -> None:
        with self._lock:
            if self._under_way.get(key) is flight:
                del self._under_way[key]
