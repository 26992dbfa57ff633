"""Writes audit events to the store, in batches, from a thread of its own."""

from __future__ import annotations

import atexit
import logging
import math
import os
import platform
import re
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from litellm_plugin.clock import Clock, stamp
from litellm_plugin.observability import metrics
from litellm_plugin.observability.journal import Change
from litellm_plugin.store.audit import AuditEvent, AuditEvents, Head
from litellm_plugin.store.database import StoreUnavailable

log = logging.getLogger(__name__)

MOST = 10_000  # events in memory; those that come while there are so many are only in the log
BATCH = 500  # events of one transaction
PAUSE = 0.05  # seconds between transactions, so that events gather in between
RETRY = (1.0, 2.0, 5.0, 15.0, 30.0)  # seconds until the next try while the store is unavailable

# Denied requests of one actor in a minute that are stored; all without valid credentials are one
# actor. A flood of them must neither fill the database nor the memory that changes wait in.
MOST_DENIED = 60

EXPIRING = 86_400.0  # seconds between deletions of what is older than the retention

OURS = "litellm-plugin"  # changed_by of events that no person and no service caused
DENIED = "denied"
KEYS, TEAMS, USERS = "LiteLLM_VerificationToken", "LiteLLM_TeamTable", "LiteLLM_UserTable"
_TABLES = {"key": KEYS, "opencode": KEYS, "team": TEAMS, "user": USERS}
_IDS = {KEYS: "keyId", TEAMS: "teamId", USERS: "userId"}  # in the "meta" of an audit event
_ACTIONS = {
    "create": "created",
    "connect": "created",
    "provision": "created",
    "delete": "deleted",
    "block": "blocked",
    "unblock": "unblocked",
    "rotate": "rotated",
    "report": "reported",
}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # in PostgreSQL or UTF-8


def stored(entry: Mapping[str, Any], change: Change) -> AuditEvent:
    """Return a journal's event in the shape of LiteLLM's audit log.

    An event that changed nothing has the action ``denied``.
    """
    event, meta = entry["eventId"], entry["meta"] or {}
    words = event.split("-")
    table = next((_TABLES[word] for word in words if word in _TABLES), "")
    if not table:
        table = next((name for name, id_ in _IDS.items() if meta.get(id_)), "")
    denied = _is_denied(entry, change)
    action = _ACTIONS.get(words[-1], "updated")
    if change.before and change.after == {}:
        action = "deleted"
    before, after = change.before, change.after
    if after is None:
        after = meta.get("fields") or {}
    if denied:
        before, after = None, {"event": event, **meta}
    if entry["status"] == "failed":
        after = {**after, "error": entry["error"]["message"]}
    return AuditEvent(
        at=entry["timestamp"],
        action=DENIED if denied else action,
        table_name=table,
        object_id=_text(change.object_id or meta.get(_IDS.get(table, "")) or "", 1024),
        changed_by=_actor(entry),
        denied=denied,
        before_value=before,
        updated_values=after,
        event=dict(entry),
    )


def _actor(entry: Mapping[str, Any]) -> str:
    """Return who caused an event; "" without valid credentials."""
    return _text((entry.get("actor") or {"actorId": OURS}).get("actorId") or "", 512)


def _is_denied(entry: Mapping[str, Any], change: Change) -> bool:
    return entry["status"] == "failed" and not change.uncertain


def _text(value: Any, most: int) -> str:
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))[:most]


@dataclass
class _Denials:
    """The denied requests of one minute, by actor.

    Attributes:
        minute: Such as ``2026-11-27T12:00``.
        seen: All of them.
        left_out: Number, and time of the first and last, of those that are not stored.
    """

    minute: str = ""
    seen: Counter[str] = field(default_factory=Counter)
    left_out: tuple[int, str, str] | None = None

    def is_too_many(self, actor: str, at: str, *, full: bool) -> bool:
        """Count a denied request; return whether it is left out. ``full``: there is no room."""
        self.seen[actor] += 1
        if self.seen[actor] <= MOST_DENIED and not full:
            return False
        number, first, _ = self.left_out or (0, at, at)
        self.left_out = (number + 1, first, at)
        return True

    def summary(self) -> dict[str, Any] | None:
        """Return the event that stands for those that are left out; None where all are stored."""
        if self.left_out is None:
            return None
        number, first, last = self.left_out
        actors = {who or "invalid credentials": times for who, times in self.seen.most_common(10)}
        return {
            "timestamp": last,
            "eventId": "denied-requests-left-out",
            "status": "failed",
            "meta": {"events": number, "first": first, "last": last, "actors": actors},
            "error": {"message": "Too many denied requests in a minute; the log has all of them"},
        }


@dataclass
class _Queue:
    """The events of one process that are not stored yet.

    Attributes:
        head: The end of the process's chain in the store.
        waiting: Events that were not taken for a batch yet, oldest first.
        batch: Events that are being written: always the same ones until they are stored.
        lost: Number, and time of the first and last, of events dropped since the last batch.
        denials: The denied requests of the present minute.
        writing: Held while a batch is written.
        changed: Wakes the thread up.
    """

    pid: int
    head: Head
    waiting: deque[tuple[Mapping[str, Any], Change]] = field(default_factory=deque)
    batch: list[AuditEvent] = field(default_factory=list)
    lost: tuple[int, str, str] | None = None
    denials: _Denials = field(default_factory=_Denials)
    writing: threading.Lock = field(default_factory=threading.Lock)
    changed: threading.Condition = field(default_factory=threading.Condition)
    fault: str | None = None
    started: bool = False
    closed: bool = False


class AuditWriter:
    """Writes audit events to the store.

    Events wait in memory and are written by one thread for each process, which starts with the
    process's first event. What a killed process had in memory is only in the log.

    Args:
        events: The events of the store.
        now: The clock.
        retention: Seconds after which events are deleted, by the thread, once a day.
    """

    def __init__(self, events: AuditEvents, now: Clock, retention: float = math.inf) -> None:
        self.events = events
        self._now = now
        self._retention = retention
        self._guard = threading.Lock()
        self._queue: _Queue | None = None

    def add(self, entry: Mapping[str, Any], change: Change) -> None:
        """Queue an event of the journal; a :data:`~litellm_plugin.observability.journal.Sink`."""
        queue = self._own()
        with queue.changed:
            idle = not queue.waiting
            self._sum_up(queue, entry["timestamp"][:16])
            full = len(queue.waiting) >= MOST // 2
            # An event of a command has no request.
            denied = "request" in entry and _is_denied(entry, change)
            if denied and queue.denials.is_too_many(_actor(entry), entry["timestamp"], full=full):
                return
            if len(queue.waiting) >= MOST:
                self._drop(queue, entry["timestamp"])
                return
            queue.waiting.append((entry, change))
            start, queue.started = not (queue.started or queue.closed), True
            if idle:
                queue.changed.notify()
        if start:
            atexit.register(self.close)
            run = threading.Thread(target=self._run, args=(queue,), name="audit", daemon=True)
            run.start()
        elif queue.closed:
            self.close()  # the process ends: no thread writes any more

    @property
    def failing(self) -> bool:
        """Whether the last try to write failed."""
        return self._queue is not None and self._queue.fault is not None

    def flush(self) -> bool:
        """Write what this process has queued; return whether all of it is stored.

        Events that are queued meanwhile are not waited for.
        """
        queue = self._queue
        if queue is None or queue.pid != os.getpid():
            return True
        batches = len(queue.waiting) // BATCH + 2  # with the one that is being written
        with queue.writing:
            while batches and (queue.waiting or queue.batch or queue.lost):
                if not self._write(queue):
                    return False
                batches -= 1
        return True

    def close(self) -> None:
        """Write what is queued, and close the process's chain; called when the process ends."""
        atexit.unregister(self.close)
        queue = self._queue
        if queue is None or queue.pid != os.getpid():
            return
        with queue.changed:
            queue.closed = True
            self._sum_up(queue)
            queue.changed.notify()
        if not self.flush():
            left = len(queue.waiting) + len(queue.batch)
            log.warning("%d audit events are only in the log: %s", left, queue.fault)
            return
        try:
            with queue.writing:
                queue.head = self.events.append(queue.head, [], ended_at=stamp(self._now))
        except StoreUnavailable as exc:
            log.warning("the chain of audit events can't be closed: %s", exc)

    def _own(self) -> _Queue:
        """Return this process's queue: a fork has none of its parent's events."""
        queue, pid = self._queue, os.getpid()
        if queue is None or queue.pid != pid:
            with self._guard:
                queue = self._queue
                if queue is None or queue.pid != pid:
                    head = Head(secrets.token_hex(8), platform.node(), stamp(self._now))
                    queue = self._queue = _Queue(pid, head)
        return queue

    def _sum_up(self, queue: _Queue, minute: str = "") -> None:
        """Queue the summary of denied requests, unless it is still the same minute."""
        if queue.denials.minute == minute:
            return
        summary = queue.denials.summary()
        if summary is not None:
            queue.waiting.append((summary, Change()))
        queue.denials = _Denials(minute)

    def _drop(self, queue: _Queue, at: str) -> None:
        number, first, _ = queue.lost or (0, at, at)
        if number == 0:
            log.error("the store of audit events is away: new ones are only in the log")
        queue.lost = (number + 1, first, at)
        metrics.audit_events("lost", 1)

    def _run(self, queue: _Queue) -> None:
        failures, expired = 0, -math.inf
        while not queue.closed:
            with queue.changed:
                while not (queue.waiting or queue.batch or queue.closed):
                    queue.changed.wait()
            with queue.writing:
                failures = 0 if self._write(queue) else failures + 1
            if not failures and time.monotonic() - expired > EXPIRING:
                expired = time.monotonic()
                self._expire()
            pause = RETRY[min(failures, len(RETRY)) - 1] if failures else PAUSE
            with queue.changed:
                queue.changed.wait_for(lambda: queue.closed, pause)

    def _expire(self) -> None:
        """Delete what is older than the retention."""
        if self._retention == math.inf:
            return
        moment = self._now() - timedelta(seconds=self._retention)
        try:
            self.events.expire(stamp(lambda: moment))
        except Exception as exc:  # StoreUnavailable, or a fault that must not stop the writer
            log.warning("old audit events can't be deleted, which is tried again tomorrow: %s", exc)

    def _write(self, queue: _Queue) -> bool:
        """Write one batch; return whether the store took it."""
        if not queue.batch:
            with queue.changed:
                taken = [queue.waiting.popleft() for _ in range(min(BATCH, len(queue.waiting)))]
                lost, queue.lost = queue.lost, None
            queue.batch = [stored(entry, change) for entry, change in taken]
            if lost is not None:
                queue.batch.append(self._gap(queue, *lost))
                queue.head = replace(queue.head, lost=queue.head.lost + lost[0])
            if not queue.batch:
                return True
        try:
            queue.head = self.events.append(queue.head, queue.batch)
        except StoreUnavailable as exc:
            if queue.fault is None:
                log.warning("audit events wait in memory, up to %d of them: %s", MOST, exc)
            queue.fault = str(exc)
            return False
        except Exception:  # a fault of this service, which the next batch need not have
            log.exception("%d audit events can't be stored; they are in the log", len(queue.batch))
            for event in queue.batch:
                self._drop(queue, event.at)
            queue.batch = []
            return False
        if queue.fault is not None:
            queue.fault = None
            log.warning("audit events are stored again")
        metrics.audit_events("stored", len(queue.batch))
        queue.batch = []
        return True

    def _gap(self, queue: _Queue, number: int, first: str, last: str) -> AuditEvent:
        """Return the event that stands for dropped ones."""
        values = {"events": number, "first": first, "last": last}
        return AuditEvent(
            at=stamp(self._now),
            action="lost",
            table_name="",
            object_id=queue.head.chain,
            changed_by=OURS,
            denied=False,
            before_value=None,
            updated_values=values,
            event={"eventId": "audit-events-lost", "meta": values},
        )
