"""Undelivered keys: keys that LiteLLM has created, or may have, without us getting the secret.

LiteLLM returns a key's secret once, in the answer to the request that creates the key. Where
that answer is lost, the key is useless but occupies its alias and counts for its owner. So this
module looks for the key, at once and for some minutes afterwards, and deletes it.
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

AFTERWARDS = 3.0  # seconds of the request's deadline that are reserved for the first look
# Seconds between looks that do not find the key: LiteLLM or its database may still be at work.
PAUSES = (2.0, 5.0, 15.0, 60.0, 300.0)
UNAVAILABLE_PAUSE = 5.0  # seconds until the next look while LiteLLM does not answer
GIVE_UP = 3600.0  # seconds after which a key is reported instead, while LiteLLM does not answer
LAST_LOOKS = 3.0  # seconds for all last looks when the worker ends
MOST = 1000  # keys that are looked for at a time

ASKED_AT = "created_at_iso"  # metadata that distinguishes a request from the user's next try

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


class Outcome(Enum):
    """Result of one look for a key."""

    REMOVED = auto()
    ABSENT = auto()
    DOWN = auto()  # LiteLLM does not answer
    UNABLE = auto()  # LiteLLM does not list keys, or several keys match


@dataclass(slots=True, eq=False)
class UndeliveredKey:
    """A key that was requested from LiteLLM, without an answer.

    Attributes:
        alias: The key's alias, if any.
        user_id: LiteLLM id of the owner, if any.
        metadata: The metadata that this service has added to the request.
        tag: The cache tag that deleting the key invalidates.
        since: Time of the request on the monotonic clock.
        looks: Number of looks that did not find the key.
        due: Time of the next look on the monotonic clock.
        failure: Why LiteLLM could not be asked last time.
    """

    alias: str | None
    user_id: str | None
    metadata: Json
    tag: str
    since: float = 0.0
    looks: int = 0
    due: float = 0.0
    failure: UpstreamError | None = None

    def matches(self, row: Json) -> bool:
        """Tell whether a key of LiteLLM's is this one."""
        metadata = row.get("metadata")
        return (
            isinstance(row.get("token"), str)
            and (row.get("key_alias") or None) == (self.alias or None)
            and (row.get("user_id") or None) == (self.user_id or None)
            and isinstance(metadata, dict)
            and self.metadata.items() <= metadata.items()
        )

    def audit_fields(self, token: str | None = None) -> Json:
        """Return the fields of an audit event about the key."""
        known = {"keyId": journal.key_id(token)} if token else {}
        asked_at = self.metadata.get(ASKED_AT)
        return {"userId": self.user_id, "keyAlias": self.alias, "askedAt": asked_at, **known}

    def __str__(self) -> str:
        name = "without a name" if self.alias is None else repr(self.alias)
        at = self.metadata.get(ASKED_AT, "just now")
        return f"key {name} of {self.user_id or 'nobody'}, asked for at {at}"


class UndeliveredKeys:
    """Finds and deletes undelivered keys.

    A worker that ends looks for each key once more and logs those that it does not find.

    Args:
        litellm: The client.
        cache: The cache.
        looking: Whether to look for keys; if not, messages ask the owner to look.
        timer: Returns a time in seconds that never goes back.
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
        self._pending: deque[UndeliveredKey] = deque()
        self._watching = False

    def find_and_remove(self, key: UndeliveredKey) -> str:
        """Look for a key now and, if it is not found, later in the background.

        Returns:
            A message for the owner: what became of the key and what to do.
        """
        log.warning("LiteLLM may have made a key whose secret was not delivered: %s", key)
        outcome = self._look(key) if self._looking else Outcome.UNABLE
        if outcome is Outcome.REMOVED:
            return REMOVED
        if ASKED_AT not in key.metadata:  # a later look might find the key of the next try
            return REPLACED
        if outcome is Outcome.UNABLE or not self._watch(key):
            return YOURS
        return LATER if outcome is Outcome.DOWN else ABSENT

    def remove(self, token: str, key: UndeliveredKey) -> None:
        """Delete a key whose hash is known; log and audit a failure."""
        try:
            self._delete(token, key)
        except UpstreamError as exc:
            self._report(key, exc, token)

    def _look(self, key: UndeliveredKey) -> Outcome:
        """Look for the key at LiteLLM, and delete a key that is found."""
        try:
            rows = self._litellm.newest_keys(key.user_id, key.alias)
            tokens = [str(row["token"]) for row in rows if key.matches(row)]
            if not tokens:
                return Outcome.ABSENT
            if len(tokens) > 1:
                self._report(key, UpstreamError("several keys fit, so none was removed"))
                return Outcome.UNABLE
            self._delete(tokens[0], key)
        except UpstreamError as exc:
            if exc.answered is None or exc.answered >= 500:
                key.failure = exc
                return Outcome.DOWN
            self._report(key, exc)
            return Outcome.UNABLE
        return Outcome.REMOVED

    def _delete(self, token: str, key: UndeliveredKey) -> None:
        with self._cache.invalidating(key.tag):
            self._litellm.delete_key(token)
        log.warning("removed an undelivered key: %s", key)
        journal.record(journal.UNDELIVERED, key.audit_fields(token))

    def _report(self, key: UndeliveredKey, why: UpstreamError, token: str | None = None) -> None:
        """Log and audit that the operator has to delete the key."""
        log.error("delete it in LiteLLM, if it is there: %s (%s)", key, why)
        journal.record(journal.UNDELIVERED, key.audit_fields(token), why)

    # -- in the background ---------------------------------------------------

    def _watch(self, key: UndeliveredKey) -> bool:
        """Queue the key for the background thread; return False if the queue is full."""
        with self._changed:
            if len(self._pending) >= MOST:
                log.error("too many keys are looked for already, so this one is not: %s", key)
                return False
            key.since = self._timer()
            key.due = key.since + PAUSES[0]
            self._pending.append(key)
            self._changed.notify()
            start, self._watching = not self._watching, True
        if start:
            atexit.register(self.end)
            threading.Thread(target=self._run, name="undelivered-keys", daemon=True).start()
        return True

    def _run(self) -> None:
        while (key := self._next()) is not None:
            try:
                done = self._look_again(key)
            except Exception:
                log.exception("could not look for the %s", key)
                done = True
            if done:
                with self._changed, suppress(ValueError):  # end() has removed it
                    self._pending.remove(key)

    def _next(self) -> UndeliveredKey | None:
        """Wait until the next look is due; None where no key is left."""
        with self._changed:
            while self._pending:
                key = min(self._pending, key=lambda each: each.due)
                early = key.due - self._timer()
                if early <= 0:
                    return key
                self._changed.wait(early)
            self._watching = False
            atexit.unregister(self.end)
            return None

    def _look_again(self, key: UndeliveredKey) -> bool:
        """Look for a key once more; return whether this was the last look."""
        outcome = self._look(key)
        now = self._timer()
        if outcome is Outcome.DOWN:
            if now - key.since < GIVE_UP:
                key.due = now + UNAVAILABLE_PAUSE
                return False
            if key.failure is not None:
                self._report(key, key.failure)
        elif outcome is Outcome.ABSENT:
            key.looks += 1
            if key.looks < len(PAUSES):
                key.due = now + PAUSES[key.looks]
                return False
            log.info("was not made: %s", key)
        return True

    def end(self) -> None:
        """Look for each pending key a last time, and report those that can't be looked for."""
        with self._changed:
            pending = list(self._pending)
            self._pending.clear()
            self._changed.notify_all()
        deadline.begin(LAST_LOOKS)
        for key in pending:
            if self._look(key) is Outcome.DOWN and key.failure is not None:
                self._report(key, key.failure)
        deadline.end()
