"""The audit journal: what was done, and what was denied, one line of JSON each.

The names are those of Backstage's auditor: an event has an id and a severity, an actor, a
request and a status. https://backstage.io/docs/backend-system/core-services/auditor

Every line is a record of the logger ``litellm_plugin.audit``: its message is the line, and
its attribute ``audit`` the same as an object. Where nobody has set up logging, it goes to
standard error.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, Protocol

from litellm_plugin.observability import logs
from litellm_plugin.redaction import redact

Severity = Literal["low", "medium", "high", "critical"]

MAX_TEXT = 256  # characters
MAX_SEARCHED = 64 * MAX_TEXT  # of one that is longer
MAX_ITEMS = 20  # of a list or an object
MAX_DEPTH = 4
KEY_DIGITS = 12  # of a key's hash; enough to find the key in LiteLLM, and good for nothing else

log = logging.getLogger("litellm_plugin.audit")
if log.level == logging.NOTSET:
    # What the root logger is set to, warnings by default, would drop all of it.
    log.setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Event:
    """What can happen.

    Attributes:
        id: In kebab-case, without the plugin's name.
        severity: How much it matters; ``high`` where something is lost for good.
    """

    id: str
    severity: Severity = "medium"


AUTHENTICATE = Event("authenticate")
AUTHORIZE = Event("authorize", "low")  # the page asks for what its user may not see
RATE_LIMIT = Event("rate-limit")
USER_PROVISION = Event("user-provision")
UNDELIVERED = Event("undelivered-key-delete", "high")

# By status, what was denied to whoever wanted to change nothing.
DENIALS: Mapping[int, Event] = {401: AUTHENTICATE, 403: AUTHORIZE, 429: RATE_LIMIT}


class Occasion(Protocol):
    """A request, as far as the journal is concerned.

    Attributes:
        notes: What :func:`note` adds to: the ``meta`` of the request's own line.
    """

    notes: dict[str, Any]

    def circumstances(self) -> dict[str, Any]:
        """Return ``plugin``, ``actor`` and ``request``, and what else tells who and from where."""
        ...

    def level(self, severity: Severity) -> int:
        """Return the level to log at."""
        ...


_occasion: ContextVar[Occasion | None] = ContextVar("litellm_plugin.journal", default=None)


def begin(occasion: Occasion) -> Token[Occasion | None]:
    """Let what is noted and recorded from here on be of a request; returns what ends that."""
    return _occasion.set(occasion)


def end(begun: Token[Occasion | None]) -> None:
    """Let it be of whatever it was of before."""
    _occasion.reset(begun)


def note(**facts: Any) -> None:
    """Add to the line of the present request: ids, names and amounts, and never a secret."""
    occasion = _occasion.get()
    if occasion is not None:
        occasion.notes.update(facts)


def record(event: Event, meta: Mapping[str, Any], error: Exception | None = None) -> None:
    """Write a line about the present request, or about none.

    Args:
        event: What happened.
        meta: What it was about.
        error: Why it failed; None where it succeeded.
    """
    occasion = _occasion.get()
    entry: dict[str, Any] = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "isAuditEvent": True,
        "eventId": event.id,
        "severityLevel": event.severity,
        "status": "succeeded" if error is None else "failed",
        **(occasion.circumstances() if occasion else {}),
        "meta": meta,
    }
    if error is not None:
        entry["error"] = {"name": type(error).__name__, "message": str(error)}
    entry = _written(entry)
    level = occasion.level(event.severity) if occasion else logging.INFO
    if logs.at_once(log, level, event.id, {"audit": entry}):
        return
    # ASCII, so that it is one line whatever somebody put into a name.
    line = json.dumps(entry, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    if log.hasHandlers():
        log.log(level, "%s", line, extra={"audit": entry})
    elif log.isEnabledFor(level):
        with suppress(OSError, ValueError):  # it may be closed; what was done is done
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - nothing else is there


def key_id(token: str) -> str:
    """Return what names a key in the journal: the beginning of its hash.

    Args:
        token: The hash, as LiteLLM makes it of the secret; or the secret itself.
    """
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", token):
        token = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    return token[:KEY_DIGITS].lower()


def _written(entry: dict[str, Any]) -> Any:
    """Return what may be written of an entry: not too much of it, JSON, and no secret."""
    searched: list[str] = []

    def noted(text: str) -> str:
        searched.append(text[:MAX_SEARCHED])
        return _cut(text)

    bounded = _bounded(entry, noted)
    # Nearly all have no secret in them, which takes less time to find out of all at once.
    together = "\n".join(searched)
    return bounded if redact(together) == together else _bounded(entry, _text)


def _bounded(value: Any, text: Callable[[str], str], depth: int = 0) -> Any:
    """Return the JSON of a value, with ``text`` of each string in it, and not too much."""
    if isinstance(value, str):  # as most are
        return text(value)
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        items = islice(value.items(), MAX_ITEMS)
        return {text(str(name)): _bounded(item, text, depth + 1) for name, item in items}
    if isinstance(value, list | tuple) and depth < MAX_DEPTH:
        kept = [_bounded(item, text, depth + 1) for item in value[:MAX_ITEMS]]
        more = len(value) - len(kept)
        return [*kept, f"and {more} more"] if more else kept
    return text(str(value))


def _text(text: str) -> str:
    # Half a secret is one, too: so it is cut after it was searched.
    return _cut(redact(text[:MAX_SEARCHED]))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
