"""Compares the accounts of visitors with their roles, in a background thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from cachetools import LRUCache, TTLCache

from litellm_plugin.accounts.sync import CHANGED, REFUSED, Sync
from litellm_plugin.accounts.three_way import Difference
from litellm_plugin.clients.litellm import Account
from litellm_plugin.errors import PluginError
from litellm_plugin.store.database import StoreUnavailable

log = logging.getLogger(__name__)

MAX_WAITING = 1000  # accounts; further ones are compared on a later visit
MAX_KNOWN = 10_000  # accounts whose last comparison this process remembers


class Visits:
    """Compares each visitor's account once in ``interval`` seconds, over all processes.

    A thread compares, and ends when no account waits. Requests neither wait for it nor fail with
    it.
    """

    def __init__(self, sync: Sync, interval: float) -> None:
        self.sync = sync
        self._interval = interval
        self._guard = threading.Lock()
        # Ids of the accounts queued in the last interval, and the differences reported last.
        self._seen: TTLCache[str, bool] = TTLCache(MAX_KNOWN, interval, time.monotonic)
        self._reported: LRUCache[str, tuple[Difference, ...]] = LRUCache(MAX_KNOWN)
        self._waiting: deque[str] = deque()
        self._thread: threading.Thread | None = None

    def visited(self, account: Account) -> None:
        """Queue an account for comparison, unless this process queued it in the last interval."""
        user_id = account.user_id
        with self._guard:
            if user_id in self._seen or len(self._waiting) >= MAX_WAITING:
                return
            self._seen[user_id] = True
            self._waiting.append(user_id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Wait until no account is queued; for tests."""
        while (thread := self._thread) is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._guard:
                if not self._waiting:
                    self._thread = None
                    return
                user_id = self._waiting.popleft()
            try:
                self._compare(user_id)
            except (PluginError, StoreUnavailable) as exc:
                log.warning("%s could not be compared with its role: %s", user_id, exc)
            except Exception:
                log.exception("%s could not be compared with its role", user_id)

    def _compare(self, user_id: str) -> None:
        if not self.sync.grants.due(user_id, self._interval):
            return
        outcome = self.sync.compare_visitor(user_id)
        if outcome is None:
            return
        if outcome.status in {CHANGED, REFUSED}:
            log.info("%s: %s %s", user_id, outcome.status, "; ".join(outcome.errors))
        elif outcome.differences and self._reported.get(user_id) != outcome.differences:
            self._reported[user_id] = outcome.differences
            self.sync.note_differences(outcome)
