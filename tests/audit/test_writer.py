"""The writer keeps requests going, whatever the store does, and tells what is missing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from litellm_plugin.audit import writer as writing
from litellm_plugin.audit.writer import stored
from litellm_plugin.observability.journal import Change
from litellm_plugin.store.audit import AuditEvents, Head
from litellm_plugin.store.database import Store, StoreUnavailable
from tests.audit.conftest import Audited
from tests.standin import KEY


class Switch:
    """Makes writing to any store fail, from one moment to another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away = False
        self.lose_answers = False
        write = Store.write

        @contextmanager
        def switched(store: Store) -> Iterator[Connection]:
            if self.away:
                raise StoreUnavailable("PostgreSQL db/backstage: connection refused")
            with write(store) as connection:
                yield connection
            if self.lose_answers:
                raise StoreUnavailable("PostgreSQL db/backstage: connection lost")

        monkeypatch.setattr(Store, "write", switched)


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Switch:
    # No thread writes by itself: the tests say when.
    monkeypatch.setattr(writing.AuditWriter, "_run", lambda *_: None)
    return Switch(monkeypatch)


def _block(audited: Audited) -> None:
    assert audited.rig.ask("alice", "POST", f"/keys/{KEY}/block").status_code == 200


def _chains(audited: Audited) -> list[dict[str, Any]]:
    with audited.store.read() as connection:
        rows = connection.execute(text("SELECT * FROM audit_chains ORDER BY started_at"))
        return [dict(row._mapping) for row in rows]


def test_while_the_store_is_away_requests_go_on_and_events_wait(
    audited: Audited, switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    switch.away = True
    with caplog.at_level(logging.WARNING, "litellm_plugin.audit.writer"):
        for _ in range(3):
            _block(audited)
            assert audited.writer.flush() is False
        assert audited.writer.failing
        (record,) = [each for each in caplog.records if each.levelname == "WARNING"]
        assert record.message.startswith("audit events wait in memory, up to 10000 of them: Postg")
        switch.away = False
        assert audited.writer.flush()
    assert caplog.records[-1].message == "audit events are stored again"
    assert [row["action"] for row in audited.rows()] == ["blocked"] * 3
    assert _chains(audited)[0]["lost"] == 0


def test_events_that_find_no_room_are_counted_and_an_event_tells_of_them(
    audited: Audited,
    switch: Switch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(writing, "MAX_WAITING", 2)
    switch.away = True
    _block(audited)
    audited.writer.flush()  # one event is in the batch that is tried again
    with caplog.at_level(logging.ERROR, "litellm_plugin.audit.writer"):
        for _ in range(5):
            _block(audited)
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "only in the log" in error.message
    switch.away = False
    assert audited.writer.flush()
    lost, *others = audited.rows()
    assert [row["action"] for row in others] == ["blocked"] * 3
    assert (lost["action"], lost["changed_by"]) == ("lost", "litellm-plugin")
    assert lost["updated_values"]["events"] == 3
    assert lost["updated_values"]["first"] <= lost["updated_values"]["last"]
    assert _chains(audited)[0]["lost"] == 3


def test_a_batch_whose_answer_was_lost_is_stored_once(audited: Audited, switch: Switch) -> None:
    audited.writer.flush()
    switch.lose_answers = True
    _block(audited)
    audited.writer.flush()
    switch.lose_answers = False
    _block(audited)
    assert audited.writer.flush()
    answer = audited.answer("changed_by=user%3Adefault%2Falice")
    assert answer["total"] == len(answer["audit_logs"]) == 2


@pytest.mark.parametrize("place", [AuditEvents, writing], ids=["append", "stored"])
def test_a_fault_of_ours_does_not_stop_the_writer(
    audited: Audited, switch: Switch, monkeypatch: pytest.MonkeyPatch, place: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(place, "append" if place is AuditEvents else "stored", lambda *_: 1 // 0)
        _block(audited)
        audited.writer.flush()
    _block(audited)
    assert audited.writer.flush()
    assert sorted(row["action"] for row in audited.rows()) == ["blocked", "lost"]


def test_an_event_that_the_database_refuses_does_not_hold_up_the_others(
    audited: Audited, switch: Switch
) -> None:
    with audited.store.write() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON audit_events WHEN NEW.changed_by LIKE"
                " '%carol' BEGIN SELECT RAISE(ABORT, 'a value that is refused'); END"
            )
        )
    for who in ("alice", "carol", "bob"):
        audited.rig.ask(who, "POST", f"/keys/{KEY}/block")
    assert audited.writer.flush()
    told = [row["changed_by"] for row in audited.rows("include=denied")]
    assert told == ["litellm-plugin", "user:default/bob", "user:default/alice"]
    assert _chains(audited)[0]["lost"] == 1


def test_the_end_of_the_process_stores_the_rest_and_closes_the_chain(audited: Audited) -> None:
    _block(audited)
    audited.writer.close()
    (chain,) = _chains(audited)
    assert chain["ended_at"] is not None
    assert chain["last_sequence"] == 1
    _block(audited)  # from another function that runs at the end of the process
    (chain,) = _chains(audited)
    assert (chain["last_sequence"], chain["ended_at"] is not None) == (2, True)


def test_a_process_that_is_killed_leaves_an_open_chain(
    audited_at: Callable[[Path | None], Audited], tmp_path: Path, switch: Switch
) -> None:
    first = audited_at(tmp_path / "store.db")
    _block(first)
    assert first.writer.flush()
    switch.away = True
    _block(first)  # only in the queue when the process is killed
    first.writer._queue = None
    switch.away = False
    second = audited_at(tmp_path / "store.db")
    _block(second)
    assert len(second.rows()) == 2
    chains = _chains(second)
    assert [chain["ended_at"] for chain in chains] == [None, None]
    assert len({chain["chain"] for chain in chains}) == 2


def test_a_forked_process_has_a_chain_of_its_own(audited: Audited) -> None:
    _block(audited)
    parent = audited.writer._queue
    assert parent is not None
    audited.writer.flush()
    parent.pid = os.getpid() + 1  # as after a fork, in the child
    _block(audited)
    assert audited.writer.flush()
    assert len(_chains(audited)) == 2


def test_the_thread_writes_and_deletes_what_is_older_than_the_retention(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned = threading.Event()
    prune = AuditEvents.prune

    def told(events: AuditEvents, before: str) -> None:
        prune(events, before)
        pruned.set()

    monkeypatch.setattr(AuditEvents, "prune", told)
    old = replace(stored(*_noted()), at="2024-11-30T12:00:00.000Z")
    audited.writer.events.append(Head("old", "host", "2024"), [old], ended_at="2024-12-01")
    assert [row["changed_by"] for row in audited.rows()] == ["litellm-plugin"]
    _block(audited)
    assert pruned.wait(30)
    monkeypatch.setattr(audited.writer, "flush", lambda: True)  # the thread has written it
    assert [row["changed_by"] for row in audited.rows()] == ["user:default/alice"]
    assert [chain["chain"] == "old" for chain in _chains(audited)] == [False]


def _noted() -> tuple[dict[str, Any], Change]:
    entry = {"eventId": "key-create", "status": "succeeded", "timestamp": "", "meta": {}}
    return entry, Change("hash", None, {"key_alias": "old"})
