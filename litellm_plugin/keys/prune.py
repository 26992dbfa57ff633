"""Pruning: deletes expired tool keys, and ends interrupted rotations.

:func:`steps_of`, a pure function, recognises these keys by the metadata that this service writes;
other keys are never touched. :class:`Pruning` reads each key again before it acts, as the owner may
have changed the key since the keys were listed. After a run that was killed, the next one finds
what is left to do.
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
from litellm_plugin.keys.metadata import RotationRecord, Tool, is_team_key
from litellm_plugin.keys.policy import is_ending
from litellm_plugin.keys.rotation import Rotations, is_unfinished
from litellm_plugin.observability import journal
from litellm_plugin.redaction import redact

# Until then the rotation's request may still be running: its deadline is 30 seconds by default.
INTERRUPTED_AFTER = timedelta(minutes=10)


class Action(StrEnum):
    """What a run does with a key."""

    EXPIRED = "delete expired tool key"
    ROTATED = "delete rotated key after its grace"
    UNDELIVERED = "delete undelivered key of a rotation"
    FINISH = "complete a rotation"


@dataclass(frozen=True, slots=True)
class Step:
    """What a run does with one key.

    Attributes:
        key: LiteLLM's row of the key.
        old: For ``FINISH``, LiteLLM's row of the rotated key, which ``key`` replaces.
    """

    action: Action
    key: Json
    old: Json | None = None


def steps_of(rows: Iterable[Json], settings: Settings, now: datetime) -> list[Step]:
    """Return the steps that are due; keys of reserved LiteLLM ids get none.

    ``rows`` are LiteLLM's rows of keys; for ``FINISH``, of both keys.
    """
    keys = {row["token"]: row for row in rows if isinstance(row.get("token"), str)}
    steps = []
    for row in keys.values():
        user_id = row.get("user_id")
        if isinstance(user_id, str) and is_reserved(user_id, settings):
            continue  # this service creates no key for a reserved id
        record = RotationRecord.of(row)
        if _is_past(row.get("expires"), now):
            resets = moment(row.get("budget_reset_at"))
            if is_ending(row):
                steps.append(Step(Action.ROTATED, row))
            elif Tool.of(row) and (resets is None or resets <= now):
                # Until the budget period ends, the tool's next key takes over this key's spend.
                steps.append(Step(Action.EXPIRED, row))
        elif record.replaces and _is_past(row.get("created_at"), now - INTERRUPTED_AFTER):
            old = keys.get(record.replaces[0])
            if not record.delivered:
                steps.append(Step(Action.UNDELIVERED, row))
            elif old is not None and _same_owner(row, old) and is_unfinished(row, old):
                steps.append(Step(Action.FINISH, row, old))
    return steps


def _is_past(time: object, now: datetime) -> bool:
    at = moment(time)
    return at is not None and at <= now


def _same_owner(one: Json, other: Json) -> bool:
    # Owners can write a key's metadata with a management key of LiteLLM. What they write there must
    # not change another owner's key.
    if one.get("user_id"):
        return bool(one["user_id"] == other.get("user_id"))
    same_team = bool(one.get("team_id")) and one["team_id"] == other.get("team_id")
    return same_team and is_team_key(one) and is_team_key(other)


@dataclass
class Pruning:
    """Finds and applies steps.

    Attributes:
        pace: Called before each call to LiteLLM.
        counts: How many steps were done, by :class:`Action`, and how many ``failed``.
        failures: LiteLLM's error messages, by hash of the key.
    """

    litellm: LiteLLM
    rotations: Rotations
    settings: Settings
    pace: Callable[[], None]
    now: Clock
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def steps(self, rows: Iterable[Json]) -> list[Step]:
        """Return the steps that are due now; ``rows`` as for :func:`steps_of`."""
        return steps_of(rows, self.settings, self.now())

    def apply(self, step: Step) -> None:
        """Do a step, if it is still due. An error of LiteLLM's is added to :attr:`failures`.

        Raises:
            UpstreamError: LiteLLM does not answer.
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
        due = self.steps(row for row in found if row is not None)
        same = (step.action, tokens[0])
        return next((each for each in due if (each.action, each.key["token"]) == same), None)

    def _do(self, step: Step) -> None:
        token, old = str(step.key["token"]), step.old
        event, changed, after = journal.PRUNE_DELETE, step.key, {}
        if old is not None:
            event, changed = journal.PRUNE_FINISH, old
            after = {"replaced_by": journal.key_id(token)}
        change = journal.change(journal.key_hash(str(changed["token"])), changed, after)
        audit_fields = {
            "userId": step.key.get("user_id"),
            "keyAlias": step.key.get("key_alias"),
            "keyId": journal.key_id(token),
            "reason": step.action.value,
        }
        self.pace()
        try:
            if old is None:
                self.litellm.delete_key(token)
            else:
                self.rotations.finish(step.key, old)
        except UpstreamError as exc:
            if old is not None or exc.answered != 404:  # 404: the owner has deleted the key
                journal.record(event, audit_fields, exc, change)
                raise
        journal.record(event, audit_fields, change=change)
        self.counts[step.action.value] += 1
