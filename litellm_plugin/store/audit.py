"""Audit events in the store: chains of events, pages, totals and retention.

Each process that writes has a chain of events: each event has the hash of the one before it. The
chain's row in ``audit_chains`` has the last hash, so that missing last events are found, too.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import takewhile
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)

from litellm_plugin.store.database import Store, upsert
from litellm_plugin.store.tables import audit_chains, audit_counts, audit_events

GENESIS = "0" * 64  # in place of the hash before the first event
EVERYBODY = ""  # changed_by of the counts of all events
READ_BATCH = 1000  # events of one query when all are read
# table_name of events, as in LiteLLM's audit log
KEYS, TEAMS, USERS = "LiteLLM_VerificationToken", "LiteLLM_TeamTable", "LiteLLM_UserTable"
KEYS_AT_ONCE = 500  # of one query
DELETE_BATCH = 1000  # events of one transaction; with SQLite other processes wait for it

_event, _chain, _count = audit_events.c, audit_chains.c, audit_counts.c
_LAST_OF_DAY = "T23:59:59.999Z"
_FIRST_OF_DAY = "T00:00:00.000Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """The columns of an event that its hash covers, in this order.

    See :data:`~litellm_plugin.store.tables.audit_events`.
    """

    at: str
    action: str
    table_name: str
    object_id: str
    changed_by: str
    denied: bool
    before_value: Any
    updated_values: Any
    event: Any


_HASHED = ("chain", "sequence", "previous", *(field.name for field in fields(AuditEvent)))


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain, in columns of :data:`~litellm_plugin.store.tables.audit_chains`."""

    chain: str  # a random id
    host: str
    started_at: str
    last_sequence: int = 0
    last_hash: str = GENESIS
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events to read; None selects all.

    ``start`` and ``end``, in the form of ``audit_events.at``, are included.
    """

    action: str | None = None
    table_name: str | None = None
    changed_by: str | None = None
    start: str | None = None
    end: str | None = None
    denied: bool = False  # whether denied events are included


def digest(row: Mapping[str, Any]) -> str:
    """Return the hash of an event: the SHA-256 of its columns and of the hash before it."""
    values = [row[name] for name in _HASHED]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class AuditEvents:
    """Reads and writes the audit events of a store.

    Each method raises ``StoreUnavailable`` where the database can't be used.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    # -- writing -------------------------------------------------------------

    def append(self, head: Head, events: Sequence[AuditEvent], ended_at: str | None = None) -> Head:
        """Append events to a chain, and return the chain's new last event.

        A repeated call changes nothing: the connection may be lost while the first call commits.

        Args:
            head: What the last call returned, with the present number in ``lost``.
            events: Oldest first.
            ended_at: When the process ended; None while it runs.
        """
        rows: list[dict[str, Any]] = []
        last = head
        for each in events:
            sequence = last.last_sequence + 1
            place = {"chain": head.chain, "sequence": sequence, "previous": last.last_hash}
            row = {**place, **asdict(each)}
            row["hash"] = digest(row)
            rows.append(row)
            last = replace(last, last_sequence=sequence, last_hash=row["hash"])
        with self._store.write() as connection:
            stored = connection.scalar(
                select(_chain.last_sequence).where(_chain.chain == head.chain)
            )
            first = {"first_sequence": 1, "first_previous": GENESIS}
            chain = {**asdict(last), "ended_at": ended_at, **first}
            upsert(connection, audit_chains, [chain], columns=chain.keys() - first.keys())
            if rows and stored != last.last_sequence:
                connection.execute(insert(audit_events), rows)
                groups = (
                    (each.changed_by, each.at[:10], each.action, each.table_name, each.denied)
                    for each in events
                )
                _add_counts(connection, Counter(groups))
        return last

    def prune(self, before: str) -> int:
        """Delete events older than a time, from the beginning of each chain.

        The chain's row records where the chain begins now, so that it can still be verified.
        Chains that have ended and have no event left are deleted.

        Returns:
            The number of deleted events; 0 while another process prunes.
        """
        with self._store.lock("audit-retention") as held:
            return self._prune(before) if held else 0

    def _prune(self, before: str) -> int:
        with self._store.read() as connection:
            query = select(_event.chain).where(_event.at < before).distinct()
            chains = list(connection.execute(query).scalars())
        deleted = 0
        for chain in chains:
            while some := self._prune_some(chain, before):
                deleted += some
        with self._store.write() as connection:
            left = select(_event.id).where(_event.chain == _chain.chain).exists()
            connection.execute(delete(audit_chains).where(_chain.ended_at < before, ~left))
            connection.execute(delete(audit_counts).where(_count.events <= 0))
        return deleted

    def _prune_some(self, chain: str, before: str) -> int:
        """Delete one batch of old events of a chain; return their number."""
        of_chain = _event.chain == chain
        day = func.substr(_event.at, 1, 10)
        by = (_event.changed_by, day, _event.action, _event.table_name, _event.denied)
        oldest = (
            select(_event.sequence, _event.hash, _event.at)
            .where(of_chain)
            .order_by(_event.sequence)
            .limit(DELETE_BATCH)
        )
        with self._store.write() as connection:
            rows = connection.execute(oldest).all()
            deleted = list(takewhile(lambda row: row.at < before, rows))
            if not deleted:
                return 0
            last = deleted[-1]
            old = and_(of_chain, _event.sequence <= last.sequence)
            groups = connection.execute(select(*by, func.count()).where(old).group_by(*by))
            _add_counts(connection, {tuple(group): -number for *group, number in groups})
            connection.execute(delete(audit_events).where(old))
            connection.execute(
                update(audit_chains)
                .where(_chain.chain == chain)
                .values(first_sequence=last.sequence + 1, first_previous=last.hash)
            )
        return len(deleted)

    # -- pages ---------------------------------------------------------------

    def days(self, wanted: Filter) -> dict[str, int]:
        """Return the number of events of each day that has any, newest day first."""
        query = select(_count.day, func.sum(_count.events)).where(
            _count.changed_by == (wanted.changed_by or EVERYBODY),
            *_equal(_count, wanted),
        )
        first, last = (wanted.start or "")[:10], (wanted.end or "")[:10]
        if first:
            query = query.where(_count.day >= first)
        if last:
            query = query.where(_count.day <= last)
        query = query.group_by(_count.day).order_by(_count.day.desc())
        with self._store.read() as connection:
            days = {day: int(number) for day, number in connection.execute(query)}
            for edge in {first, last} & days.keys():
                # The counts are of whole days; of the first and last only a part may be wanted.
                part = _limited(wanted, edge)
                if part != _limited(replace(wanted, start=None, end=None), edge):
                    counted = select(func.count()).select_from(audit_events).where(*_where(part))
                    days[edge] = connection.scalar(counted) or 0
        return {day: number for day, number in days.items() if number}

    def page(
        self,
        wanted: Filter,
        days: Mapping[str, int],
        *,
        offset: int,
        limit: int,
        newest_first: bool = True,
    ) -> list[Row[Any]]:
        """Return up to ``limit`` events by time, after the first ``offset`` ones.

        ``days`` is what :meth:`days` returned for ``wanted``: whole days are skipped by it.
        """
        for day in sorted(days, reverse=newest_first):
            if offset < days[day]:
                break
            offset -= days[day]
        else:
            return []
        if newest_first:
            wanted = replace(wanted, end=_limited(wanted, day).end)
            order = [_event.at.desc(), _event.id.desc()]
        else:
            wanted = replace(wanted, start=_limited(wanted, day).start)
            order = [_event.at.asc(), _event.id.asc()]
        ids = select(_event.id).where(*_where(wanted)).order_by(*order).offset(offset).limit(limit)
        with self._store.read() as connection:
            return list(
                connection.execute(select(audit_events).where(_event.id.in_(ids)).order_by(*order))
            )

    # -- keys ----------------------------------------------------------------

    def keys(self, hashes: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the last known owner and alias of keys, also of deleted ones, by LiteLLM's hash.

        They are ``user_id`` and ``key_alias``, each only if an event names it.
        """
        found: dict[str, dict[str, str]] = {}
        about_keys = (_event.table_name == KEYS, _event.denied.is_(False))
        query = select(audit_events).where(*about_keys).order_by(_event.at, _event.id)
        for start in range(0, len(hashes), KEYS_AT_ONCE):
            part = hashes[start : start + KEYS_AT_ONCE]
            with self._store.read() as connection:
                for row in connection.execute(query.where(_event.object_id.in_(part))):
                    found.setdefault(row.object_id, {}).update(_key_names(row))
        return {token: names for token, names in found.items() if names}

    # -- whole chains --------------------------------------------------------

    def heads(self) -> list[Row[Any]]:
        """Return the row of each chain, oldest first."""
        query = select(audit_chains).order_by(_chain.started_at, _chain.chain)
        with self._store.read() as connection:
            return list(connection.execute(query))

    def chains_without_row(self) -> list[str]:
        """Return ids of chains that have events and no row."""
        known = select(_chain.chain)
        with self._store.read() as connection:
            query = select(_event.chain).where(_event.chain.not_in(known)).distinct()
            return list(connection.execute(query).scalars())

    def of_chain(self, chain: str) -> Iterator[Row[Any]]:
        """Yield the events of a chain by sequence."""
        return self._each(select(audit_events).where(_event.chain == chain), _event.sequence)

    def last_sequence(self, chain: str) -> int:
        """Return the number of a chain's last event, from the chain's row."""
        with self._store.read() as connection:
            query = select(_chain.last_sequence).where(_chain.chain == chain)
            return connection.scalar(query) or 0

    def event(self, chain: str, sequence: int) -> Row[Any] | None:
        """Return the event of a chain with this number."""
        with self._store.read() as connection:
            return connection.execute(
                select(audit_events).where(_event.chain == chain, _event.sequence == sequence)
            ).first()

    def all(self, wanted: Filter) -> Iterator[Row[Any]]:
        """Yield events, oldest first."""
        return self._each(select(audit_events).where(*_where(wanted)), _event.at, _event.id)

    def _each(self, query: Select[Any], *keys: ColumnElement[Any]) -> Iterator[Row[Any]]:
        """Yield the rows of a query in the order of unique keys, in batches."""
        query = query.order_by(*keys).limit(READ_BATCH)
        batch = query
        while True:
            with self._store.read() as connection:
                rows = connection.execute(batch).all()
            yield from rows
            if len(rows) < READ_BATCH:
                return
            last = tuple(getattr(rows[-1], str(key.key)) for key in keys)
            batch = query.where(tuple_(*keys) > last)


def _key_names(row: Row[Any]) -> dict[str, str]:
    """Return owner and alias of an event's key, each only if the event has it."""
    meta = row.event.get("meta") or {}
    sources = (
        {"user_id": meta.get("userId"), "key_alias": meta.get("keyAlias")},
        row.before_value,
        row.updated_values,
    )
    return {
        name: source[name]
        for source in sources
        if isinstance(source, dict)
        for name in ("user_id", "key_alias")
        if isinstance(source.get(name), str) and source[name]
    }


def _add_counts(connection: Connection, numbers: Mapping[tuple[Any, ...], int]) -> None:
    """Add numbers of events to ``audit_counts``: to the actor's counts and to those of all."""
    sums: Counter[tuple[Any, ...]] = Counter()
    for (person, *group), number in numbers.items():
        for changed_by in {person, EVERYBODY}:
            sums[(changed_by, *group)] += number
    # All processes lock the rows in the same order, so that no deadlock is possible.
    rows = [
        dict(zip(_count.keys(), (*group, number), strict=True))
        for group, number in sorted(sums.items())
    ]
    upsert(connection, audit_counts, rows, columns=["events"], add=True)


def _limited(wanted: Filter, day: str) -> Filter:
    """Return the part of a filter that is within a day."""
    start = max(wanted.start or "", day + _FIRST_OF_DAY)
    end = min(wanted.end or "9", day + _LAST_OF_DAY)
    return replace(wanted, start=start, end=end)


def _equal(columns: Any, wanted: Filter, *names: str) -> list[ColumnElement[bool]]:
    equal = {name: getattr(wanted, name) for name in ("action", "table_name", *names)}
    conditions = [columns[name] == value for name, value in equal.items() if value is not None]
    return conditions if wanted.denied else [columns.denied.is_(False), *conditions]


def _where(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions = _equal(_event, wanted, "changed_by")
    if wanted.start is not None:
        conditions.append(_event.at >= wanted.start)
    if wanted.end is not None:
        conditions.append(_event.at <= wanted.end)
    return conditions
