"""Deletes what is older than it is to be kept."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from sqlalchemy import Connection, delete, select, update

from litellm_plugin.clock import Clock, stamp
from litellm_plugin.store.database import Store
from litellm_plugin.store.tables import audit_chains, audit_counts, audit_events

BATCH = 1000  # events in a transaction, so that a writer of audit events waits for a moment only

_c = audit_events.c


def prune(store: Store, retention: float, now: Clock) -> int:
    """Delete audit events that are older than ``retention``, from the beginning of each chain.

    An event stays as long as an older event of its chain does, even if a clock was set back in
    between: so what is kept of a chain has no gap. Chains that ended and have no events left are
    deleted, too.

    Args:
        store: The store.
        retention: Seconds.
        now: Returns the present time.

    Returns:
        The number of events that were deleted.

    Raises:
        StoreUnavailable: The database can't be used; what was deleted before stays deleted.
    """
    moment = now() - timedelta(seconds=retention)
    cutoff = stamp(lambda: moment)
    with store.read() as connection:
        chains = connection.scalars(select(_c.chain).where(_c.at < cutoff).distinct()).all()
    deleted = sum(_shorten(store, chain, cutoff) for chain in chains)
    with store.write() as connection:
        left = select(_c.id).where(_c.chain == audit_chains.c.chain).exists()
        connection.execute(delete(audit_chains).where(audit_chains.c.ended_at < cutoff, ~left))
    return deleted


def _shorten(store: Store, chain: str, cutoff: str) -> int:
    deleted = 0
    while True:
        with store.write() as connection:
            number = _delete_batch(connection, chain, cutoff)
        deleted += number
        if number < BATCH:
            return deleted


def _delete_batch(connection: Connection, chain: str, cutoff: str) -> int:
    oldest = (
        select(_c.id, _c.at, _c.action, _c.table_name, _c.denied)
        .where(_c.chain == chain)
        .order_by(_c.sequence)
        .limit(BATCH)
    )
    ids, counts = [], Counter[tuple[str, str, str, bool]]()
    for row in connection.execute(oldest):
        if row.at >= cutoff:
            break
        ids.append(row.id)
        counts[row.at[:10], row.action, row.table_name, row.denied] += 1
    if not ids:
        return 0
    connection.execute(delete(audit_events).where(_c.id.in_(ids)))
    n = audit_counts.c
    for (day, action, table_name, denied), number in counts.items():
        group = (n.day == day, n.action == action, n.table_name == table_name, n.denied == denied)
        connection.execute(update(audit_counts).where(*group).values(events=n.events - number))
        connection.execute(delete(audit_counts).where(*group, n.events <= 0))
    return len(ids)
