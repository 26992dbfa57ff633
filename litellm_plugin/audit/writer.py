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
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any

from litellm_plugin.clock import Clock, iso, stamp
from litellm_plugin.observability import metrics
from litellm_plugin.observability.journal import Change
from litellm_plugin.store.audit import KEYS, TEAMS, USERS, AuditEvent, AuditEvents, Head
from litellm_plugin.store.database import StoreUnavailable, ValuesRefused

log = logging.getLogger(__name__)

MAX_WAITING = 10_000  # events in memory; further ones are only in the log
BATCH = 500  # events of one transaction
PAUSE = 0.05  # seconds between transactions, so that one has several events
RETRY = (1.0, 2.0, 5.0, 15.0, 30.0)  # seconds until the next try while the store is unavailable
# Denied requests of one actor in a minute that are stored; all without valid credentials are one
# actor. A flood of them must neither fill the database nor the memory that changes wait in.
MAX_DENIED = 60
PRUNE_INTERVAL = 86_400.0  # seconds between deletions of events older than the retention

OURS = "litellm-plugin"  # changed_by of events that this service caused by itself
DENIED = "denied"
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
    """Return an audit event in the shape of LiteLLM's audit log.

    A request that failed and changed nothing has the action ``denied``.

    Args:
        entry: The line of the journal, as an object.
        change: What the event changed at LiteLLM.
    """
    event, meta = entry["eventId"], entry["meta"] or {}
    words = event.split("-")
    tables = [_TABLES[word] for word in reversed(words) if word in _TABLES]
    table = next(iter([*tables, *(name for name, id_ in _IDS.items() if meta.get(id_))]), "")
    denied = entry["status"] == "failed" and not change.uncertain
    action = _ACTIONS.get(words[-1], "updated")
    if change.before and change.after == {}:
        action = "deleted"
    before = change.before
    after = (meta.get("fields") or {}) if change.after is None else change.after
    if denied:
        before, after = None, {"event": event, **meta}
    if entry["status"] == "failed":
        after = {**after, "error": entry["error"]["message"]}
    return AuditEvent(
        at=entry["timestamp"],
        action=DENIED if denied else action,
        table_name=table,
        object_id=_text(change.object_id or meta.get(_IDS.get(table, "")) or "", 1024),
        changed_by=_text((entry.get("actor") or {"actorId": OURS}).get("actorId") or "", 512),
        denied=denied,
        before_value=before,
        updated_values=after,
        event=dict(entry),
    )


def _text(value: Any, most: int) -> str:
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))[:most]


@dataclass
class _Omitted:
    """Events that are not stored: their number, and the times of the first and the last one."""

    events: int = 0
    first: str = ""
    last: str = ""

    def count(self, at: str) -> None:
        """Count an event of the time ``at``."""
        self.events, self.first, self.last = self.events + 1, self.first or at, at


@dataclass
class _Denials:
    """The denied requests of one minute, by actor."""

    minute: str = ""  # such as 2026-11-27T12:00
    seen: Counter[str] = field(default_factory=Counter)  # all of them
    left_out: _Omitted = field(default_factory=_Omitted)  # those that are not stored

    def is_too_many(self, actor: str, at: str, *, full: bool) -> bool:
        """Count a denied request; return whether to leave it out. ``full``: leave it out."""
        self.seen[actor] += 1
        if self.seen[actor] <= MAX_DENIED and not full:
            return False
        self.left_out.count(at)
        return True

    def summary(self) -> dict[str, Any] | None:
        """Return an event with the number of those left out; None where all are stored."""
        if not self.left_out.events:
            return None
        actors = {who or "invalid credentials": times for who, times in self.seen.most_common(10)}
        return {
            "timestamp": self.left_out.last,
            "eventId": "denied-requests-left-out",
            "status": "failed",
            "meta": {**asdict(self.left_out), "actors": actors},
            "error": {"message": "Too many denied requests in a minute; the log has all of them"},
        }


@dataclass
class _Queue:
    """The events of one process that are not stored yet."""

    pid: int
    head: Head  # the end of the process's chain in the store
    waiting: deque[AuditEvent] = field(default_factory=deque)  # in no batch yet, oldest first
    # Events of the present transaction. A retry has the same ones: if the store has committed them,
    # it skips them by the number of the chain's last event.
    batch: list[AuditEvent] = field(default_factory=list)
    lost: _Omitted = field(default_factory=_Omitted)  # since the last batch
    denials: _Denials = field(default_factory=_Denials)  # of the present minute
    writing: threading.Lock = field(default_factory=threading.Lock)  # held to write a batch
    # Re-entrant; held to change `waiting` or `lost`, and notifies the thread.
    changed: threading.Condition = field(default_factory=threading.Condition)
    fault: str | None = None  # why the last write failed
    closed: bool = False  # whether the process ends


class AuditWriter:
    """Writes audit events to the store.

    Events wait in memory. One thread of each process writes them; it starts with the process's
    first event. Events that a killed process had in memory are only in the log. Once a day the
    thread deletes events that are older than ``retention`` seconds.
    """

    def __init__(self, events: AuditEvents, now: Clock, retention: float) -> None:
        self.events = events
        self._now = now
        self._retention = retention
        self._guard = threading.Lock()
        self._queue: _Queue | None = None

    def add(self, entry: Mapping[str, Any], change: Change) -> None:
        """Queue an event of the journal; a :data:`~litellm_plugin.observability.journal.Sink`."""
        queue = self._own()
        try:
            event = stored(entry, change)
        except Exception:  # a fault of this service must not fail a request
            log.exception("an audit event can't be stored")
            self._drop(queue, entry["timestamp"])
            return
        with queue.changed:
            idle = not queue.waiting
            self._sum_up(queue, entry["timestamp"][:16])
            full = len(queue.waiting) >= MAX_WAITING // 2
            # An event of a command has no request.
            limited = event.denied and "request" in entry
            if limited and queue.denials.is_too_many(event.changed_by, event.at, full=full):
                return
            if len(queue.waiting) >= MAX_WAITING:
                self._drop(queue, entry["timestamp"])
                return
            queue.waiting.append(event)
            if idle:
                queue.changed.notify()
        if queue.closed:
            self.close()  # the process ends, and its thread has ended

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
            while batches and (queue.waiting or queue.batch or queue.lost.events):
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
        """Return this process's queue; a forked process gets an empty one and its own thread."""
        with self._guard:
            queue, pid = self._queue, os.getpid()
            if queue is None or queue.pid != pid:
                head = Head(secrets.token_hex(8), platform.node(), stamp(self._now))
                queue = self._queue = _Queue(pid, head)
                atexit.register(self.close)
                threading.Thread(target=self._run, args=(queue,), name="audit", daemon=True).start()
        return queue

    def _sum_up(self, queue: _Queue, minute: str = "") -> None:
        """Queue the summary of denied requests, unless it is still the same minute."""
        if queue.denials.minute == minute:
            return
        summary = queue.denials.summary()
        if summary is not None:
            queue.waiting.append(stored(summary, Change()))
        queue.denials = _Denials(minute)

    def _drop(self, queue: _Queue, at: str) -> None:
        """Count an event that is not stored; the next batch reports the number."""
        with queue.changed:
            queue.lost.count(at)
            is_first = queue.lost.events == 1
        if is_first:
            log.error("audit events are not stored: they are only in the log")
        metrics.audit_events("lost", 1)

    def _run(self, queue: _Queue) -> None:
        failures, pruned = 0, -math.inf
        while not queue.closed:
            with queue.changed:
                queue.changed.wait_for(lambda: queue.waiting or queue.batch or queue.closed)
            with queue.writing:
                failures = 0 if self._write(queue) else failures + 1
            if not failures and time.monotonic() - pruned > PRUNE_INTERVAL:
                pruned = time.monotonic()
                self._prune()
            pause = RETRY[min(failures, len(RETRY)) - 1] if failures else PAUSE
            with queue.changed:
                queue.changed.wait_for(lambda: queue.closed, pause)

    def _prune(self) -> None:
        """Delete events older than the retention."""
        try:
            self.events.prune(iso(self._now() - timedelta(seconds=self._retention)))
        except Exception as exc:  # StoreUnavailable, or a fault that must not stop the writer
            log.warning("old audit events can't be deleted; the next try is tomorrow: %s", exc)

    def _write(self, queue: _Queue) -> bool:
        """Write one batch; return whether the store could be written."""
        if not queue.batch:
            self._fill(queue)
        at_once = len(queue.batch)
        while queue.batch:
            events = queue.batch[:at_once]
            try:
                queue.head = self.events.append(queue.head, events)
            except Exception as exc:
                if isinstance(exc, StoreUnavailable) and not isinstance(exc, ValuesRefused):
                    if queue.fault is None:
                        text = "audit events wait in memory, up to %d of them: %s"
                        log.warning(text, MAX_WAITING, exc)
                    queue.fault = str(exc)
                    return False
                # The database refuses a value, or this service has a fault. The transaction has
                # stored nothing, so the events are written one by one.
                if at_once > 1:
                    at_once = 1
                    continue
                log.exception("an audit event can't be stored; it is in the log")
                self._drop(queue, events[0].at)
            else:
                metrics.audit_events("stored", len(events))
            del queue.batch[:at_once]
        if queue.fault is not None:
            queue.fault = None
            log.warning("audit events are stored again")
        return True

    def _fill(self, queue: _Queue) -> None:
        """Make the next batch: waiting events, and the report of dropped ones."""
        with queue.changed:
            size = min(BATCH, len(queue.waiting))
            queue.batch = [queue.waiting.popleft() for _ in range(size)]
            lost, queue.lost = queue.lost, _Omitted()
        if lost.events:
            queue.batch.append(self._gap(queue, lost))
            queue.head = replace(queue.head, lost=queue.head.lost + lost.events)

    def _gap(self, queue: _Queue, lost: _Omitted) -> AuditEvent:
        """Return the event that reports dropped events."""
        return AuditEvent(
            at=stamp(self._now),
            action="lost",
            table_name="",
            object_id=queue.head.chain,
            changed_by=OURS,
            denied=False,
            before_value=None,
            updated_values=asdict(lost),
            event={"eventId": "audit-events-lost", "meta": asdict(lost)},
        )
