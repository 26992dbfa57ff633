"""A flood of denied requests neither fills the store nor displaces the changes of others."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text

from litellm_plugin.audit import writer as writing
from litellm_plugin.observability.journal import Change
from tests.audit.conftest import Audited
from tests.standin import KEY

MINUTE = "2026-11-27T12:{:02}:00.000Z"


def event(minute: int, actor: str | None = None, *, denied: bool = True) -> dict[str, Any]:
    told: dict[str, Any] = {
        "timestamp": MINUTE.format(minute),
        "eventId": "key-block",
        "status": "failed" if denied else "succeeded",
        "actor": {"ip": "10.0.0.1"} if actor is None else {"actorId": actor},
        "request": {"url": "/", "method": "POST"},
        "meta": {},
    }
    return {**told, "error": {"message": "Missing credentials"}} if denied else told


@pytest.fixture
def by_hand(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> Audited:
    # No thread writes by itself: the tests say when.
    monkeypatch.setattr(writing.AuditWriter, "_run", lambda *_: None)
    return audited


def stored(audited: Audited) -> list[tuple[str, str]]:
    assert audited.writer.flush()
    with audited.store.read() as connection:
        query = "SELECT action, changed_by FROM audit_events ORDER BY id"
        return [tuple(row) for row in connection.execute(text(query))]


def test_requests_without_credentials_do_not_fill_the_store(by_hand: Audited) -> None:
    for _ in range(200):
        assert by_hand.rig.app.test_client().get("/api/litellm/keys").status_code == 401
    by_hand.writer.close()  # which stores the summary, as the next minute does
    rows = stored(by_hand)
    # The requests may have been sent in two minutes.
    assert writing.MAX_DENIED < len(rows) <= 2 * writing.MAX_DENIED + 2
    assert {row[0] for row in rows} == {"denied"}


def test_an_event_tells_of_those_that_are_left_out(by_hand: Audited) -> None:
    for _ in range(writing.MAX_DENIED + 5):
        by_hand.writer.add(event(0), Change())
    by_hand.writer.add(event(0, "user:default/alice"), Change())  # as many of each actor
    by_hand.writer.add(event(1), Change())
    rows = stored(by_hand)
    assert rows[-3:] == [
        ("denied", "user:default/alice"),
        ("denied", "litellm-plugin"),
        ("denied", ""),
    ]
    (summary,) = [
        row["updated_values"]
        for row in by_hand.answer("include=denied&page_size=100")["audit_logs"]
        if row["changed_by"] == "litellm-plugin"
    ]
    assert summary["events"] == 5
    assert summary["first"] == summary["last"] == MINUTE.format(0)
    assert summary["actors"] == {
        "invalid credentials": writing.MAX_DENIED + 5,
        "user:default/alice": 1,
    }


def test_changes_keep_their_place_while_the_store_is_away(
    by_hand: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_WAITING", 20)
    for number in range(100):
        by_hand.writer.add(event(0, f"user:default/mallory-{number}"), Change())
    for _ in range(9):
        assert by_hand.rig.ask("alice", "POST", f"/keys/{KEY}/block").status_code == 200
    by_hand.writer.close()
    actions = [action for action, _ in stored(by_hand)]
    assert actions.count("blocked") == 9
    assert actions.count("denied") == 11
    assert "lost" not in actions


def test_events_of_commands_are_all_stored(by_hand: Audited) -> None:
    for _ in range(writing.MAX_DENIED + 5):
        failed = event(0, "litellm-plugin:offboard")
        del failed["request"]
        by_hand.writer.add(failed, Change())
    assert len(stored(by_hand)) == writing.MAX_DENIED + 5


def test_a_page_is_not_kept_waiting_by_events_that_keep_coming(
    by_hand: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = type(by_hand.writer.events).append

    def and_another(*args: Any, **named: Any) -> Any:
        by_hand.writer.add(event(0, "user:default/alice", denied=False), Change())
        return append(*args, **named)

    by_hand.writer.add(event(0, "user:default/alice", denied=False), Change())
    with monkeypatch.context() as patch:
        patch.setattr(type(by_hand.writer.events), "append", and_another)
        flushed = threading.Thread(target=by_hand.writer.flush, daemon=True)
        flushed.start()
        flushed.join(20)
        assert not flushed.is_alive()
