"""What is older than it is to be kept is deleted, and what is kept stays whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select

from litellm_plugin.clock import stamp
from litellm_plugin.config.database import Database
from litellm_plugin.store import housekeeping
from litellm_plugin.store.database import Store
from litellm_plugin.store.tables import audit_chains, audit_counts, audit_events

NOW = datetime(2026, 11, 30, tzinfo=UTC)
DAY = 86_400.0


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store(Database())
    yield store
    store.close()


def before(days: float) -> str:
    moment = NOW - timedelta(days=days)
    return stamp(lambda: moment)


def add(store: Store, chain: str, *days: float, ended: float | None = None) -> None:
    """Add a chain with an event for each of ``days`` before now."""
    values: dict[str, Any] = {"chain": chain, "last_sequence": 0, "last_hash": "", "lost": 0}
    with store.write() as connection:
        connection.execute(
            insert(audit_chains).values(
                **values,
                host="h",
                started_at=before(900),
                ended_at=None if ended is None else before(ended),
            )
        )
        for sequence, day in enumerate(days, 1):
            connection.execute(
                insert(audit_events).values(
                    chain=chain,
                    sequence=sequence,
                    previous=str(sequence - 1),
                    hash=str(sequence),
                    at=before(day),
                    action="created",
                    table_name="keys",
                    object_id="x",
                    changed_by="y",
                    denied=False,
                    event={},
                )
            )


def kept(store: Store, chain: str) -> list[int]:
    with store.read() as connection:
        wanted = select(audit_events.c.sequence).where(audit_events.c.chain == chain)
        return list(connection.scalars(wanted.order_by(audit_events.c.sequence)))


def prune(store: Store, days: float = 400) -> int:
    return housekeeping.prune(store, days * DAY, lambda: NOW)


def test_old_events_are_deleted_from_the_beginning_of_each_chain(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 2)
    add(store, "a", 500, 450, 420, 399, 1)
    add(store, "b", 2, 1)
    assert prune(store) == 3
    assert (kept(store, "a"), kept(store, "b")) == ([4, 5], [1, 2])
    assert prune(store) == 0


def test_a_clock_that_was_set_back_leaves_no_gap(store: Store) -> None:
    add(store, "a", 500, 1, 450, 2)
    assert prune(store) == 1
    assert kept(store, "a") == [2, 3, 4]


def test_only_chains_that_ended_and_are_empty_are_deleted(store: Store) -> None:
    add(store, "runs", 500)
    add(store, "ended", 500, ended=450)
    add(store, "has events", 500, 1, ended=450)
    prune(store)
    with store.read() as connection:
        assert set(connection.scalars(select(audit_chains.c.chain))) == {"runs", "has events"}


def test_totals_stay_those_of_the_events(store: Store) -> None:
    add(store, "a", 500, 500, 1)
    rows = [(500, 3), (1, 1)]  # one of the three is another chain's
    with store.write() as connection:
        for day, events in rows:
            connection.execute(
                insert(audit_counts).values(
                    day=before(day)[:10],
                    action="created",
                    table_name="keys",
                    denied=False,
                    events=events,
                )
            )
    prune(store)
    with store.read() as connection:
        found = dict(connection.execute(select(audit_counts.c.day, audit_counts.c.events)).all())
    assert found == {before(500)[:10]: 1, before(1)[:10]: 1}
    prune(store, 0.5)
    with store.read() as connection:
        assert list(connection.scalars(select(audit_counts.c.day))) == [before(500)[:10]]
