"""Keys that LiteLLM has made, or may have made, and whose secret nobody got.

A key's secret is told once, in the answer to the request that makes it. Where that answer is
lost the key is of no use to anybody, and takes up its name and its owner's budget. So it is
looked for, at once and for some minutes after, and deleted.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients import deadline
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.errors import UpstreamError
from litellm_plugin.observability import journal

log = logging.getLogger(__name__)

AFTERWARDS = 3.0  # seconds of a request that are kept for looking at once
# Seconds between two looks that find nothing: LiteLLM may be at it still, or its database.
PAUSES = (2.0, 5.0, 15.0, 60.0, 300.0)
UNAVAILABLE_PAUSE = 5.0  # seconds, where LiteLLM can't be asked
GIVE_UP = 3600.0  # seconds
LAST_LOOKS = 3.0  # seconds, for all when the worker ends
MOST = 1000  # keys that are looked for at a time

STAMP = "created_at_iso"  # tells one request for a key from the next one

REMOVED = "The key was made, but its secret was lost, so it was removed again. Try again."
ABSENT = "No new key is there. If it turns up after all, it is removed. Try again."
LATER = (
    "The key may have been made all the same. Its secret is lost, so it is removed as soon as"
    " LiteLLM answers again. Look at your keys before you try again."
)
YOURS = (
    "The key may have been made all the same. Its secret is lost: look at your keys, delete it,"
    " and try again."
)
REPLACED = "The key may have been made all the same. Its secret is lost: try again to replace it."


class Look(Enum):
    """What came of looking for a key."""

    REMOVED = auto()
    ABSENT = auto()
    DOWN = auto()  # LiteLLM does not answer
    UNABLE = auto()  # it has no list of keys for us, or they can't be told apart


@dataclass(slots=True, eq=False)
class Lost:
    """A key that was asked for, and not heard of.

    Attributes:
        alias: Its name, if any.
        user_id: LiteLLM id of its owner, if any.
        created_by: Metadata that this service has put there.
        scope: The tag of what depends on the key.
        since: When it was asked for, on the monotonic clock.
        looks: How often it was looked for in vain.
        due: When to look next.
        failed: Why LiteLLM could not be asked.
    """

    alias: str | None
    user_id: str | None
    created_by: Json
    scope: str
    since: float = 0.0
    looks: int = 0
    due: float = 0.0
    failed: UpstreamError | None = None

    def fits(self, row: Json) -> bool:
        """Tell whether a key of LiteLLM's is the one."""
        metadata = row.get("metadata")
        return (
            isinstance(row.get("token"), str)
            and (row.get("key_alias") or None) == (self.alias or None)
            and (row.get("user_id") or None) == (self.user_id or None)
            and isinstance(metadata, dict)
            and self.created_by.items() <= metadata.items()
        )

    def told(self, token: str | None = None) -> Json:
        """Return what the journal has of it."""
        known = {"keyId": journal.key_id(token)} if token else {}
        asked_at = self.created_by.get(STAMP)
        return {"userId": self.user_id, "keyAlias": self.alias, "askedAt": asked_at, **known}

    def __str__(self) -> str:
        name = "without a name" if self.alias is None else repr(self.alias)
        at = self.created_by.get(STAMP, "just now")
        return f"key {name} of {self.user_id or 'nobody'}, asked for at {at}"


class LostKeys:
    """Finds keys that were made and not delivered, and removes them.

    A worker that ends looks once more, and names in the log what it has not found.

    Args:
        litellm: The client.
        cache: The cache.
        looking: Whether to look at all; else people are told to.
        timer: Tells the time in seconds; must never go back.
    """

    def __init__(
        self,
        litellm: LiteLLM,
        cache: Cache,
        *,
        looking: bool,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._litellm = litellm
        self._cache = cache
        self._looking = looking
        self._timer = timer
        self._changed = threading.Condition()
        self._pending: deque[Lost] = deque()
        self._watching = False

    def settle(self, lost: Lost) -> str:
        """Look for a key at once, and go on looking where that does not settle it.

        Returns:
            What became of it, for its owner.
        """
        log.warning("LiteLLM may have made a key that nobody got the secret of: %s", lost)
        found = self._look(lost) if self._looking else Look.UNABLE
        if found is Look.REMOVED:
            return REMOVED
        if STAMP not in lost.created_by:  # what turns up later may be the key of another try
            return REPLACED
        if found is Look.UNABLE or not self._watch(lost):
            return YOURS
        return LATER if found is Look.DOWN else ABSENT

    def remove(self, token: str, lost: Lost) -> None:
        """Delete a key whose secret could not be handed over."""
        try:
            self._delete(token, lost)
        except UpstreamError as exc:
            self._left(lost, exc, token)

    def _look(self, lost: Lost) -> Look:
        """Delete the key if it is there."""
        try:
            rows = self._litellm.newest_keys(lost.user_id, lost.alias)
            tokens = [str(row["token"]) for row in rows if lost.fits(row)]
            if not tokens:
                return Look.ABSENT
            if len(tokens) > 1:
                self._left(lost, UpstreamError("several keys fit, so none was removed"))
                return Look.UNABLE
            self._delete(tokens[0], lost)
        except UpstreamError as exc:
            if exc.answered is None or exc.answered >= 500:
                lost.failed = exc
                return Look.DOWN
            self._left(lost, exc)
            return Look.UNABLE
        return Look.REMOVED

    def _delete(self, token: str, lost: Lost) -> None:
        with self._cache.invalidating(lost.scope):
            self._litellm.delete_key(token)
        log.warning("removed, as nobody has its secret: %s", lost)
        journal.record(journal.UNDELIVERED, lost.told(token))

    def _left(self, lost: Lost, why: UpstreamError, token: str | None = None) -> None:
        log.error("delete it in LiteLLM, if it is there: %s (%s)", lost, why)
        journal.record(journal.UNDELIVERED, lost.told(token), why)

    # -- in the background ---------------------------------------------------

    def _watch(self, lost: Lost) -> bool:
        with self._changed:
            if len(self._pending) >= MOST:
                log.error("too many are looked for already, so this one is not: %s", lost)
                return False
            lost.since = self._timer()
            lost.due = lost.since + PAUSES[0]
            self._pending.append(lost)
            self._changed.notify()
            start, self._watching = not self._watching, True
        if start:
            atexit.register(self.end)
            threading.Thread(target=self._look_again, name="lost-keys", daemon=True).start()
        return True

    def _look_again(self) -> None:
        while (lost := self._next()) is not None:
            try:
                goes_on = self._goes_on(lost)
            except Exception:
                log.exception("could not look for the %s", lost)
                goes_on = False
            if not goes_on:
                with self._changed, suppress(ValueError):  # the worker ends
                    self._pending.remove(lost)

    def end(self) -> None:
        """Look once more for what is still looked for, and report the rest."""
        with self._changed:
            pending = list(self._pending)
            self._pending.clear()
            self._changed.notify_all()
        deadline.begin(LAST_LOOKS)
        for lost in pending:
            if self._look(lost) is Look.DOWN and lost.failed is not None:
                self._left(lost, lost.failed)
        deadline.end()

    def _next(self) -> Lost | None:
        """Wait until one is due; None where there is none any more."""
        with self._changed:
            while self._pending:
                lost = min(self._pending, key=lambda each: each.due)
                early = lost.due - self._timer()
                if early <= 0:
                    return lost
                self._changed.wait(early)
            self._watching = False
            atexit.unregister(self.end)
            return None

    def _goes_on(self, lost: Lost) -> bool:
        """Look again, and tell whether that was not the last time."""
        found = self._look(lost)
        now = self._timer()
        if found is Look.DOWN:
            if now - lost.since < GIVE_UP:
                lost.due = now + UNAVAILABLE_PAUSE
                return True
            if lost.failed is not None:
                self._left(lost, lost.failed)
        elif found is Look.ABSENT:
            lost.looks += 1
            if lost.looks < len(PAUSES):
                lost.due = now + PAUSES[lost.looks]
                return True
            log.info("was not made: %s", lost)
        return False
