"""The audit journal: an event for each write and each denial, as a line of JSON.

Fields have the names of Backstage's auditor
(https://backstage.io/docs/backend-system/core-services/auditor).

An event is a record of the logger ``litellm_plugin.audit``. The message is the JSON, the attribute
``audit`` the same event as a dict. Without any logging handler the line goes to standard error.

A :data:`Sink` gets each event after it is logged, with what the event changed at LiteLLM.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, Protocol

from litellm_plugin.config.settings import Settings
from litellm_plugin.redaction import redact

Severity = Literal["low", "medium", "high", "critical"]

MAX_TEXT = 256  # characters of a string
MAX_SEARCHED = 64 * MAX_TEXT  # characters of a string that are searched for secrets
MAX_ITEMS = 20  # of a list or an object
MAX_DEPTH = 4
MAX_VALUE = 4096  # characters of JSON of a changed field
KEY_DIGITS = 12  # of a key's hash: enough to find the key in LiteLLM, too few to use it

# Names of secrets, which LiteLLM and people keep in metadata, such as callback_vars.
_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)|secret|token$|api_?key|private_?key|credential|authorization|cookie",
    re.IGNORECASE,
)

# Fields of LiteLLM's rows that a change may have: no secrets and no masked secrets.
CHANGED = frozenset(
    {
        *("key_alias", "team_alias", "user_alias", "user_id", "user_email", "user_role", "team_id"),
        *("models", "max_budget", "budget_duration", "duration", "expires", "key_type"),
        *("tpm_limit", "rpm_limit", "max_parallel_requests", "blocked", "spend", "metadata"),
        *("object_permission", "member", "max_budget_in_team", "teams", "replaced_by"),
    }
)

log = logging.getLogger("litellm_plugin.audit")
if log.level == logging.NOTSET:
    # The root logger's level, warning by default, would drop all events.
    log.setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Event:
    """A kind of audit event."""

    id: str  # in kebab-case, without the plugin's name
    severity: Severity = "medium"  # "high" where something is deleted for good


AUTHENTICATE = Event("authenticate")
AUTHORIZE = Event("authorize", "low")  # the frontend also requests what its user may not see
RATE_LIMIT = Event("rate-limit")
USER_PROVISION = Event("user-provision")
USER_SYNC = Event("user-sync")
USER_SYNC_REPORT = Event("user-sync-report", "low")  # differences that are not corrected
UNDELIVERED = Event("undelivered-key-delete", "high")
OFFBOARD_BLOCK = Event("offboard-key-block")
OFFBOARD_UNBLOCK = Event("offboard-key-unblock")
OFFBOARD_DELETE = Event("offboard-user-delete", "high")
PRUNE_DELETE = Event("prune-key-delete", "high")
PRUNE_FINISH = Event("prune-rotation-finish")

# Events of refused reads, by status.
DENIALS: Mapping[int, Event] = {401: AUTHENTICATE, 403: AUTHORIZE, 429: RATE_LIMIT}


@dataclass(frozen=True, slots=True)
class Change:
    """What an event changed at LiteLLM, for a :data:`Sink`; not in the log.

    Attributes:
        object_id: Hash of the key, id of the team or user; None: not known.
        before: The fields before the change; None where the object is new.
        after: The fields after the change; empty where the object is deleted.
        uncertain: Whether LiteLLM was asked for the change and did not answer.
    """

    object_id: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    uncertain: bool = False


Sink = Callable[[Mapping[str, Any], Change], None]

# For events outside of requests; set by each application, so the last one's is used.
sink: Sink | None = None


class AuditedRequest(Protocol):
    """The request under way, for the audit fields that all its events have."""

    notes: dict[str, Any]  # for the "meta" of the request's own event, added by note()
    change: Change  # of the request's own event, set by changed()

    @property
    def sink(self) -> Sink | None:
        """Where the request's events go besides the log."""
        ...

    def audit_fields(self) -> dict[str, Any]:
        """Return the fields ``plugin``, ``actor`` and ``request``, and ``requestId`` if known."""
        ...

    def level(self, severity: Severity) -> int:
        """Return the level to log an event at."""
        ...


@dataclass(slots=True)
class _Command:
    """A command or background task, as the actor of its audit events.

    Attributes:
        plugin: The plugin id.
        name: The actor's id.
        levels: Log level of each severity, as ``backend.auditor`` has them.
    """

    plugin: str
    name: str
    levels: Mapping[str, int]
    notes: dict[str, Any] = field(default_factory=dict)
    change: Change = field(default_factory=Change)

    @property
    def sink(self) -> Sink | None:
        return sink

    def audit_fields(self) -> dict[str, Any]:
        return {"plugin": self.plugin, "actor": {"actorId": self.name}}

    def level(self, severity: Severity) -> int:
        return self.levels[severity]


_request: ContextVar[AuditedRequest | None] = ContextVar("litellm_plugin.journal", default=None)


def begin(request: AuditedRequest) -> Token[AuditedRequest | None]:
    """Set the request under way; returns the token for :func:`end`."""
    return _request.set(request)


def end(token: Token[AuditedRequest | None]) -> None:
    """Restore the request that was under way before :func:`begin`, if any."""
    _request.reset(token)


@contextmanager
def acting(name: str, settings: Settings) -> Iterator[None]:
    """Make a command, such as ``litellm-plugin:offboard``, the actor of the block's events."""
    token = begin(_Command(settings.service.plugin_id, name, settings.audit_levels))
    try:
        yield
    finally:
        end(token)


def note(**facts: Any) -> None:
    """Add ids, names or amounts, never secrets, to the event of the request under way."""
    request = _request.get()
    if request is not None:
        request.notes.update(facts)


def changed(
    object_id: str | None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Add what the request under way changes at LiteLLM to its event.

    Args:
        object_id: As in :class:`Change`.
        before: LiteLLM's row before the change; None where the object is new.
        after: The fields that change; empty where the object is deleted, None where nothing does.
    """
    request = _request.get()
    if request is not None:
        request.change = change(object_id, before, after)


def change(
    object_id: str | None, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> Change:
    """Return a change with the fields of :data:`CHANGED` that differ; see :func:`changed`."""
    if after is None:
        return Change(object_id)
    if before is None:
        return Change(object_id, None, _shown(after))
    if not after:
        return Change(object_id, _shown(before), {})
    old, new = _differing(before, {name: after[name] for name in after if name in CHANGED})
    return Change(object_id, old, new)


def record(
    event: Event,
    meta: Mapping[str, Any],
    error: Exception | None = None,
    change: Change | None = None,
) -> None:
    """Write an audit event, with the fields of the request under way, if any.

    ``error`` is the failure; None for a success.
    """
    request = _request.get()
    entry: dict[str, Any] = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "isAuditEvent": True,
        "eventId": event.id,
        "severityLevel": event.severity,
        "status": "succeeded" if error is None else "failed",
        **(request.audit_fields() if request else {}),
        "meta": meta,
    }
    if error is not None:
        entry["error"] = {"name": type(error).__name__, "message": str(error)}
    entry = _safe(entry)
    level = request.level(event.severity) if request else logging.INFO
    # ASCII, so that no separator in a name breaks the line.
    line = json.dumps(entry, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    if log.hasHandlers():
        log.log(level, "%s", line, extra={"audit": entry})
    elif log.isEnabledFor(level):
        with suppress(OSError, ValueError):  # standard error may be closed
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - no logging is set up
    receive = request.sink if request is not None else sink
    if receive is not None:
        change = change or Change()
        before, after = _bounded(change.before), _bounded(change.after)
        uncertain = getattr(error, "unfinished", False)
        receive(entry, replace(change, before=before, after=after, uncertain=uncertain))


def key_id(token: str) -> str:
    """Return a key's id in the journal: the first digits of its hash; takes hash or secret."""
    return key_hash(token)[:KEY_DIGITS]


def key_hash(token: str) -> str:
    """Return a key's hash; takes hash or secret."""
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", token):
        token = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    return token.lower()


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in row if name in CHANGED and row[name] is not None}


def _differing(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the members of ``after`` that differ, old and new; nested objects likewise."""
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    for name, value in after.items():
        was = before.get(name)
        if isinstance(value, Mapping) and isinstance(was, Mapping):
            old[name], new[name] = _differing(was, value)
        elif value != was:
            old[name], new[name] = was, value
    return old, new


def _safe(value: Any, depth: int = 0) -> Any:
    """Return ``value`` as JSON of a bounded size, without secrets."""
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        items = islice(value.items(), MAX_ITEMS)
        return {
            _text(str(name)): "[redacted]"
            if item
            and _SECRET_NAME.search(str(name)[:MAX_SEARCHED])
            and isinstance(item, str | list | tuple | Mapping)
            else _safe(item, depth + 1)
            for name, item in items
        }
    if isinstance(value, list | tuple) and depth < MAX_DEPTH:
        kept = [_safe(item, depth + 1) for item in value[:MAX_ITEMS]]
        more = len(value) - len(kept)
        return [*kept, f"and {more} more"] if more else kept
    if isinstance(value, Mapping | list | tuple):
        return "…"  # as text, it could show secrets, which are recognised by their names
    return _text(str(value))


def _bounded(fields: Mapping[str, Any] | None) -> Any:
    """Return the fields of a change as :func:`_safe` does, without those that are too long."""
    if fields is None:
        return None
    told = {}
    for name, value in _safe(fields).items():
        length = len(json.dumps(value)) if isinstance(value, dict | list) else 0
        told[name] = value if length <= MAX_VALUE else f"left out: {length} characters"
    return told


def _text(text: str) -> str:
    # Redacted before it is cut: half a secret would not be recognised.
    text = redact(text[:MAX_SEARCHED])
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
