"""Undelivered keys: LiteLLM has created them, or may have, and their secrets did not arrive.

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
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from litellm_plugin.accounts.users import keys_tag
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
MOST = 1000  # keys that are looked for at the same time

ASKED_AT = "created_at_iso"  # metadata that distinguishes a request from the user's next try


class Outcome(StrEnum):
    """What became of an undelivered key, as the message to its owner."""

    REMOVED = "The key was made, but its secret was lost, so it was removed again. Try again."
    ABSENT = "No new key is there. If it turns up after all, it is removed. Try again."
    LATER = (
        "The key may have been made all the same. Its secret is lost, so it is removed as soon as"
        " LiteLLM answers again. Look at your keys before you try again."
    )
    YOURS = (
        "The key may have been made all the same. Its secret is lost: look at your keys, delete"
        " it, and try again."
    )
    REPLACED = (
        "The key may have been made all the same. Its secret is lost: try again to replace it."
    )


@dataclass(slots=True, eq=False)
class UndeliveredKey:
    """A key that was requested from LiteLLM, and whose secret was not delivered.

    Attributes:
        alias: The key's alias, if any.
        user_id: LiteLLM id of the owner, if any.
        metadata: The metadata that this service has added to the request.
        since: Time of the request on the monotonic clock.
        looks: Number of looks that did not find the key.
        due: Time of the next look on the monotonic clock.
    """

    alias: str | None
    user_id: str | None
    metadata: Json
    since: float = 0.0
    looks: int = 0
    due: float = 0.0

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

    def __str__(self) -> str:
        name = "without a name" if self.alias is None else repr(self.alias)
        at = self.metadata.get(ASKED_AT, "just now")
        return f"key {name} of {self.user_id or 'nobody'}, asked for at {at}"


class UndeliveredKeys:
    """Finds and deletes undelivered keys.

    A worker that ends looks for each key once more and logs those that it does not find. If not
    ``looking``, keys are not looked for, and messages ask the owner to look.
    """

    def __init__(self, litellm: LiteLLM, cache: Cache, *, looking: bool) -> None:
        self._litellm = litellm
        self._cache = cache
        self._looking = looking
        self._changed = threading.Condition()
        self._pending: deque[UndeliveredKey] = deque()
        self._watching = False

    def find_and_remove(self, key: UndeliveredKey) -> Outcome:
        """Look for a key now and, if it is not found, later in the background."""
        log.warning("LiteLLM may have made a key whose secret was not delivered: %s", key)
        outcome = Outcome.YOURS
        if self._looking:
            try:
                outcome = self._look(key)
            except UpstreamError:
                outcome = Outcome.LATER
        if outcome is Outcome.REMOVED:
            return outcome
        if ASKED_AT not in key.metadata:  # a later look might find the key of the next try
            return Outcome.REPLACED
        return outcome if outcome is Outcome.YOURS or self._watch(key) else Outcome.YOURS

    def remove(self, token: str, key: UndeliveredKey) -> None:
        """Delete a key whose hash or secret is known; log and audit a failure."""
        try:
            self._delete(token, key)
        except UpstreamError as exc:
            self._report(key, exc, token)

    def _look(self, key: UndeliveredKey) -> Outcome:
        """Look for the key at LiteLLM, and delete a key that is found.

        Returns:
            ``YOURS`` where LiteLLM does not list keys or several keys match, which is reported.

        Raises:
            UpstreamError: LiteLLM does not answer.
        """
        try:
            rows = self._litellm.newest_keys(key.user_id, key.alias)
            tokens = [str(row["token"]) for row in rows if key.matches(row)]
            if not tokens:
                return Outcome.ABSENT
            if len(tokens) > 1:
                self._report(key, UpstreamError("several keys fit, so none was removed"))
                return Outcome.YOURS
            self._delete(tokens[0], key)
        except UpstreamError as exc:
            if exc.answered is None or exc.answered >= 500:
                raise
            self._report(key, exc)
            return Outcome.YOURS
        return Outcome.REMOVED

    def _delete(self, token: str, key: UndeliveredKey) -> None:
        with self._cache.invalidating(keys_tag(key.user_id or "")):
            self._litellm.delete_key(token)
        log.warning("removed an undelivered key: %s", key)
        _audit(key, token)

    def _report(self, key: UndeliveredKey, why: UpstreamError, token: str | None = None) -> None:
        """Log and audit that the operator has to delete the key."""
        log.error("delete it in LiteLLM, if it is there: %s (%s)", key, why)
        _audit(key, token, why)

    # -- in the background ---------------------------------------------------

    def _watch(self, key: UndeliveredKey) -> bool:
        """Queue the key for the background thread; return False if the queue is full."""
        with self._changed:
            if len(self._pending) >= MOST:
                log.error("too many keys are looked for already, so this one is not: %s", key)
                return False
            key.since = time.monotonic()
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
                early = key.due - time.monotonic()
                if early <= 0:
                    return key
                self._changed.wait(early)
            self._watching = False
            atexit.unregister(self.end)
            return None

    def _look_again(self, key: UndeliveredKey) -> bool:
        """Look for a key once more; return whether this was the last look."""
        try:
            if self._look(key) is not Outcome.ABSENT:
                return True
        except UpstreamError as exc:
            if time.monotonic() - key.since < GIVE_UP:
                key.due = time.monotonic() + UNAVAILABLE_PAUSE
                return False
            self._report(key, exc)
            return True
        key.looks += 1
        if key.looks < len(PAUSES):
            key.due = time.monotonic() + PAUSES[key.looks]
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
            try:
                self._look(key)
            except UpstreamError as exc:
                self._report(key, exc)
        deadline.end()


def _audit(key: UndeliveredKey, token: str | None, error: UpstreamError | None = None) -> None:
    audit_fields = {
        "userId": key.user_id,
        "keyAlias": key.alias,
        "askedAt": key.metadata.get(ASKED_AT),
        **({"keyId": journal.key_id(token)} if token else {}),
    }
    row = {"key_alias": key.alias, "user_id": key.user_id, "metadata": key.metadata}
    change = journal.change(journal.key_hash(token) if token else None, row, {})
    journal.record(journal.UNDELIVERED, audit_fields, error, change)
