"""Pruning: deletes expired keys of tools, and ends rotations that no request will end.

:func:`steps_of`, a pure function, recognises such keys by the metadata that this service writes, so
no other key is touched. :class:`Pruning` reads each key again before it acts, as the owner may have
changed it since the keys were listed. A run that is killed leaves nothing half done that the next
one does not find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from litellm_plugin.accounts.caller import is_reserved
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.clock import Clock, moment
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import UpstreamError
from litellm_plugin.keys.metadata import Mark, Tool
from litellm_plugin.keys.policy import is_ending
from litellm_plugin.keys.rotation import Rotations, is_unfinished
from litellm_plugin.observability import journal
from litellm_plugin.redaction import redact
from litellm_plugin.shapes import TEAM_KEY, as_object

UNDER_WAY = timedelta(minutes=10)  # a request that makes a key takes 30 seconds by default


class Action(StrEnum):
    """What a run does with a key."""

    EXPIRED = "delete expired key of a tool"
    ROTATED = "delete rotated key after its grace"
    UNDELIVERED = "delete new key that was never handed out"
    FINISH = "complete a rotation"


@dataclass(frozen=True, slots=True)
class Step:
    """What a run does with one key.

    Attributes:
        key: LiteLLM's row of the key.
        old: That of the key before it, for ``FINISH``.
    """

    action: Action
    key: Json
    old: Json | None = None


def steps_of(rows: Iterable[Json], settings: Settings, now: datetime) -> list[Step]:
    """Decide what a run does with keys.

    Args:
        rows: LiteLLM's rows of all keys.
        settings: Those with the reserved LiteLLM ids, whose keys are left alone.
        now: The present time, in UTC.
    """
    keys = {row["token"]: row for row in rows if isinstance(row.get("token"), str)}
    steps = []
    for row in keys.values():
        user_id = row.get("user_id")
        if isinstance(user_id, str) and is_reserved(user_id, settings):
            continue  # this service makes no key for such an account
        mark = Mark.of(row)
        if _is_past(row.get("expires"), now):
            if is_ending(row):
                steps.append(Step(Action.ROTATED, row))
            elif Tool.of(row) and not _is_ahead(row.get("budget_reset_at"), now):
                # Until the budget's period ends, the tool's next key takes over the spend.
                steps.append(Step(Action.EXPIRED, row))
        elif mark.replaces and _is_past(row.get("created_at"), now - UNDER_WAY):
            old = keys.get(mark.replaces[0])
            if not mark.delivered:
                steps.append(Step(Action.UNDELIVERED, row))
            elif old is not None and _same_owner(row, old) and is_unfinished(row, old):
                steps.append(Step(Action.FINISH, row, old))
    return steps


def _is_past(time: object, now: datetime) -> bool:
    at = moment(time)
    return at is not None and at <= now


def _is_ahead(time: object, now: datetime) -> bool:
    at = moment(time)
    return at is not None and at > now


def _same_owner(one: Json, other: Json) -> bool:
    # Owners may write the metadata of their keys with a management key of LiteLLM: it must not
    # reach another owner's key.
    if one.get("user_id"):
        return bool(one["user_id"] == other.get("user_id"))
    of_teams = (as_object(row.get("metadata")).get(TEAM_KEY) is True for row in (one, other))
    same_team = bool(one.get("team_id")) and one["team_id"] == other.get("team_id")
    return same_team and not other.get("user_id") and all(of_teams)


@dataclass
class Pruning:
    """Finds and applies steps.

    Args:
        litellm: The client.
        rotations: Completes rotations.
        settings: All settings.
        pace: Called before each call to LiteLLM.
        now: Returns the present time.

    Attributes:
        counts: Numbers of what was done, by :class:`Action`, and ``failed``.
        failures: LiteLLM's refusals, by hash of the key.
    """

    litellm: LiteLLM
    rotations: Rotations
    settings: Settings
    pace: Callable[[], None]
    now: Clock
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def steps(self, rows: Iterable[Json]) -> list[Step]:
        """Return what is to be done with all keys; ``rows`` are LiteLLM's of these."""
        return steps_of(rows, self.settings, self.now())

    def apply(self, step: Step) -> None:
        """Do a step, if it is still due.

        A refusal of LiteLLM is in :attr:`failures`.

        Raises:
            UpstreamError: LiteLLM does not answer any more.
        """
        token = str(step.key["token"])
        try:
            due = self._still_due(step)
            if due is not None:
                self._do(due)
        except UpstreamError as exc:
            if exc.down:
                raise
            self.counts["failed"] += 1
            self.failures[token] = redact(exc.message)

    def _still_due(self, step: Step) -> Step | None:
        tokens = [str(row["token"]) for row in (step.key, step.old) if row is not None]
        found = []
        for token in tokens:
            self.pace()
            found.append(self.litellm.key(token))
        again = self.steps(row for row in found if row is not None)
        same = (step.action, tokens[0])
        return next((each for each in again if (each.action, each.key["token"]) == same), None)

    def _do(self, step: Step) -> None:
        new, old = step.key, step.old
        token = str(new["token"])
        if old is None:
            event, change = journal.PRUNE_DELETE, journal.change(journal.key_hash(token), new, {})
        else:
            after = {"replaced_by": journal.key_id(token)}
            change = journal.change(journal.key_hash(str(old["token"])), old, after)
            event = journal.PRUNE_FINISH
        told = {
            "userId": new.get("user_id"),
            "keyAlias": new.get("key_alias"),
            "keyId": journal.key_id(token),
            "reason": step.action.value,
        }
        self.pace()
        try:
            if old is None:
                self._delete(token)
            else:
                self.rotations.finish(new, old)
        except UpstreamError as exc:
            journal.record(event, told, exc, change)
            raise
        journal.record(event, told, change=change)
        self.counts[step.action.value] += 1

    def _delete(self, token: str) -> None:
        try:
            self.litellm.delete_key(token)
        except UpstreamError as exc:
            if exc.answered != 404:  # its owner has deleted it
                raise
