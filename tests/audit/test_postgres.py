"""The store's audit events on PostgreSQL: what SQLite takes without a word, it may not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from litellm_plugin.audit.writer import stored
from litellm_plugin.cli.audit import _verified
from litellm_plugin.observability.journal import Change
from litellm_plugin.store.audit import AuditEvent, AuditEvents, Filter, Head
from litellm_plugin.store.database import Store
from tests.audit.conftest import event
from tests.postgres import Postgres

pytestmark = pytest.mark.deep

ACTIONS = ("created", "updated", "denied")
TABLES = ("LiteLLM_TeamTable", "LiteLLM_VerificationToken")
PEOPLE = ("user:default/alice", "user:default/bob", "")


@pytest.fixture
def events(postgres: Postgres) -> Iterator[AuditEvents]:
    store = Store(postgres.database())
    yield AuditEvents(store)
    store.close()


def _event(chance: random.Random) -> AuditEvent:
    action = chance.choice(ACTIONS)
    return event(
        at=f"2026-11-{chance.randint(1, 4):02d}T{chance.randint(0, 23):02d}:00:00.000Z",
        action=action,
        table_name=chance.choice(TABLES),
        changed_by=chance.choice(PEOPLE),
        denied=action == "denied",
        before_value=chance.choice([None, {}, {"max_budget": 0.1}]),
        updated_values={"spend": 1e-7, "name": "a\0b\ud800 \U0001f600"},
    )


def _kept(event: AuditEvent, wanted: Filter) -> bool:
    return (
        (wanted.denied or not event.denied)
        and wanted.action in {None, event.action}
        and wanted.table_name in {None, event.table_name}
        and wanted.changed_by in {None, event.changed_by}
        and (wanted.start or "") <= event.at <= (wanted.end or "9")
    )


FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"denied": True},
    {"action": "updated"},
    {"table_name": TABLES[0], "denied": True},
    {"changed_by": PEOPLE[0]},
    {"changed_by": PEOPLE[1], "action": "created", "table_name": TABLES[1]},
    {"start": "2026-11-02T07:00:00.000Z"},
    {"end": "2026-11-03T12:00:00.000Z", "start": "2026-11-01T05:00:00.000Z"},
    {"start": "2026-11-02T07:00:00.000Z", "end": "2026-11-02T19:00:00.000Z", "denied": True},
    {"start": "2026-11-05T00:00:00.000Z"},
)


def _check(events: AuditEvents, written: list[AuditEvent]) -> None:
    for values in FILTERS:
        wanted = Filter(**values)
        expected = sorted(event.at for event in written if _kept(event, wanted))
        days = events.days(wanted)
        assert sum(days.values()) == len(expected), wanted
        for newest_first in (True, False):
            rows = [
                row
                for offset in range(0, len(expected) + 7, 7)
                for row in events.page(
                    wanted, days, offset=offset, limit=7, newest_first=newest_first
                )
            ]
            assert len({row.id for row in rows}) == len(rows)
            assert [row.at for row in rows] == sorted(expected, reverse=newest_first)
        assert [row.at for row in events.all(wanted)] == expected


def test_pages_totals_and_retention(events: AuditEvents) -> None:
    chance = random.Random(4713)
    written = [_event(chance) for _ in range(120)]
    head = events.append(Head("aaaa", "host", "x"), written[:70])
    assert events.append(Head("aaaa", "host", "x"), written[:70]) == head  # the answer was lost
    head = events.append(head, written[70:])
    _check(events, written)
    assert _verified(events).faults == []

    # Of a chain, events go from its beginning to the first that is to be kept.
    before = "2026-11-01T12:00:00.000Z"
    gone = next(number for number, event in enumerate(written) if event.at >= before)
    assert events.prune(before) == gone
    _check(events, written[gone:])
    late = [replace(_event(chance), at="2026-11-04T00:00:00.000Z") for _ in range(3)]
    events.append(head, late)
    assert events.prune("2026-11-04T23:59:59.999Z") == len(written) - gone + 3
    _check(events, [])
    assert _verified(events).faults == []


def test_processes_that_write_at_once_do_not_wait_for_each_other_for_ever(
    events: AuditEvents,
) -> None:
    def write(name: str) -> list[AuditEvent]:
        chance, head = random.Random(name), Head(name, "host", name)
        written: list[AuditEvent] = []
        for _ in range(20):
            batch = [_event(chance) for _ in range(10)]
            head = events.append(head, batch)
            written += batch
        return written

    with ThreadPoolExecutor(4) as pool:
        written = [event for each in pool.map(write, "abcd") for event in each]
    _check(events, written)
    assert _verified(events).faults == []


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "x" * 100_000, "\N{GRINNING FACE}" * 900])
def test_any_name_can_be_stored(events: AuditEvents, name: str) -> None:
    entry = {
        "timestamp": "2026-11-01T00:00:00.000Z",
        "eventId": "team-update",
        "status": "succeeded",
        "actor": {"actorId": name},
        "meta": {"teamId": name},
    }
    made = stored(entry, Change(name, {"team_alias": name}, {"team_alias": "x"}))
    events.append(Head("aaaa", "host", "x"), [made])
    assert _verified(events).faults == []
    assert sum(events.days(Filter(changed_by=made.changed_by)).values()) == 1
