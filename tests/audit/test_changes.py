"""Each change is stored with who made it, and what it changed; no secret is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from litellm_plugin.observability import journal
from tests.audit.conftest import Audited
from tests.canaries import secrets_in
from tests.fakes.network import dropped
from tests.openapi import Operation, operations
from tests.standin import KEY, SECRET, TEAM, TEAM_KEY

KEYS, TEAMS, USERS = "LiteLLM_VerificationToken", "LiteLLM_TeamTable", "LiteLLM_UserTable"
ALICE = "user:default/alice"
CHANGES = [operation for operation in operations() if operation.route.event]


@pytest.mark.parametrize("operation", CHANGES, ids=str)
def test_each_change_names_its_author_and_its_object(
    audited: Audited, operation: Operation
) -> None:
    answer = audited.rig.ask(
        operation.caller, operation.method, operation.target, json=operation.body
    )
    assert answer.status_code in {200, 302}
    row = audited.rows()[0]
    by = "bridge:alice" if "keycloak" in operation.schemes else ALICE
    assert row["changed_by"] == by
    assert row["action"] in {*("created", "updated", "deleted", "blocked", "unblocked", "rotated")}
    if "{token}" in operation.path:
        assert (row["table_name"], row["object_id"]) == (KEYS, KEY)
    elif "{key}" in operation.path:
        assert (row["table_name"], row["object_id"]) == (KEYS, TEAM_KEY)
    elif operation.path.endswith("/keys"):
        assert (row["table_name"], row["object_id"]) == (KEYS, answer.get_json()["token"])
    elif "{team_id}" in operation.path:
        assert (row["table_name"], row["object_id"]) == (TEAMS, TEAM)
    assert row["object_id"]


def _do(audited: Audited, method: str, target: str, body: Any = None, who: str = "alice") -> Any:
    answer = audited.rig.ask(who, method, target, json=body or {})
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def _written(audited: Audited) -> str:
    """Return all that the table of events has."""
    with audited.store.read() as connection:
        rows = [tuple(row) for row in connection.execute(text("SELECT * FROM audit_events"))]
    return json.dumps(rows, default=str)


@pytest.mark.parametrize(
    ("method", "target", "body", "action", "before", "after"),
    [
        (
            "POST",
            f"/keys/{KEY}/update",
            {"max_budget": 5, "models": ["gpt-4o-mini"], "key_alias": "alice-laptop"},
            "updated",
            {"max_budget": None, "models": []},
            {"max_budget": 5, "models": ["gpt-4o-mini"]},
        ),
        ("POST", f"/keys/{KEY}/block", None, "blocked", {"blocked": None}, {"blocked": True}),
        ("POST", f"/keys/{KEY}/unblock", None, "unblocked", {"blocked": None}, {"blocked": False}),
        (
            "PATCH",
            f"/teams/{TEAM}",
            {"max_budget": 40, "team_alias": "Platform"},
            "updated",
            {"max_budget": 50},
            {"max_budget": 40},
        ),
        (
            "PUT",
            f"/teams/{TEAM}/knowledge-bases",
            {"vector_stores": ["Docs"]},
            "updated",
            {"object_permission": None},
            {"object_permission": {"vector_stores": ["vs-docs"]}},
        ),
        (
            "DELETE",
            f"/teams/{TEAM}/members?userEntityRef=jane%40example.com",
            None,
            "updated",
            {"member": "jane@example.com"},
            {"member": None},
        ),
    ],
)
def test_only_fields_that_differ_are_stored(
    audited: Audited,
    method: str,
    target: str,
    body: Any,
    action: str,
    before: Any,
    after: Any,
) -> None:
    _do(audited, method, target, body)
    (row,) = audited.rows()
    assert row["action"] == action
    assert row["before_value"] == before
    assert row["updated_values"] == after


def test_a_duration_shows_when_the_key_ended_and_ends(audited: Audited) -> None:
    _do(audited, "POST", f"/keys/{KEY}/update", {"duration": "7d"})
    (row,) = audited.rows()
    assert row["before_value"] == {"duration": None, "expires": None}
    assert row["updated_values"]["duration"] == "7d"
    assert row["updated_values"]["expires"].startswith("20")


def test_a_new_key_and_its_end_are_shown_whole(audited: Audited) -> None:
    made = _do(audited, "POST", "/keys/generate", {"alias": "ci", "max_budget": 5})
    _do(audited, "DELETE", f"/keys/{made['token']}")
    deleted, created = audited.rows()
    assert created["action"] == "created"
    assert created["object_id"] == deleted["object_id"] == made["token"]
    assert created["before_value"] is None
    assert created["updated_values"]["key_alias"] == "ci"
    assert created["updated_values"]["max_budget"] == 5
    assert deleted["action"] == "deleted"
    assert deleted["before_value"]["key_alias"] == "ci"
    assert deleted["updated_values"] == {}


def test_a_rotated_key_names_its_successor(audited: Audited) -> None:
    made = _do(audited, "POST", f"/keys/{KEY}/rotate")
    (row,) = audited.rows()
    assert (row["action"], row["object_id"]) == ("rotated", KEY)
    # The beginning of the hash, as in the log: the whole one is redacted.
    assert row["updated_values"]["replaced_by"] == made["token"][:12]


def test_a_new_user_is_an_event_of_its_own(audited: Audited) -> None:
    assert audited.rig.ask("bob", "GET", "/keys").status_code == 200
    (row,) = audited.rows()
    assert (row["action"], row["table_name"]) == ("created", USERS)
    assert (row["object_id"], row["changed_by"]) == ("bob@example.com", "user:default/bob")
    assert row["updated_values"]["user_role"]


def test_a_change_on_behalf_of_a_person_names_the_person(audited: Audited) -> None:
    _do(audited, "POST", f"/keys/{KEY}/block", who="obo:alice")
    (row,) = audited.rows()
    assert row["changed_by"] == ALICE


def test_denials_are_shown_where_they_are_asked_for(audited: Audited) -> None:
    assert audited.rig.ask("bob", "DELETE", f"/keys/{KEY}").status_code == 403
    assert audited.rig.ask("bob", "GET", "/audit").status_code == 403
    assert audited.rig.ask("none", "GET", "/keys").status_code == 401
    assert audited.rig.ask("alice", "POST", f"/keys/{KEY}/update", json={"x": 1}).status_code == 400
    assert audited.answer()["total"] == 0
    assert audited.answer("action=denied")["total"] == 0
    rows = audited.rows("include=denied")
    assert {row["action"] for row in rows} == {"denied"}
    told = [(row["updated_values"]["event"], row["changed_by"]) for row in rows]
    assert told == [
        ("key-update", ALICE),
        ("authenticate", ""),
        ("authorize", "user:default/bob"),
        ("key-delete", "user:default/bob"),
    ]
    assert all(row["updated_values"]["error"] for row in rows)
    assert rows[0]["table_name"] == KEYS


def test_a_change_that_litellm_refused_is_no_change(audited: Audited) -> None:
    audited.rig.litellm.failures["/key/block"] = 500
    assert audited.rig.ask("alice", "POST", f"/keys/{KEY}/block").status_code == 500
    assert audited.rows() == []


def test_a_change_without_an_answer_is_shown_with_its_error(audited: Audited) -> None:
    audited.rig.litellm.failures["/key/block"] = dropped()
    assert audited.rig.ask("alice", "POST", f"/keys/{KEY}/block").status_code >= 500
    (row,) = audited.rows()
    assert row["action"] == "blocked"
    assert row["updated_values"]["blocked"] is True
    assert row["updated_values"]["error"]


def test_no_secret_is_stored(audited: Audited) -> None:
    ask = audited.rig.ask
    metadata = {"token": f"Bearer {SECRET}", "deep": {"a": {"b": {"c": SECRET}}}}
    ask("alice", "POST", "/keys/generate", json={"alias": SECRET, "metadata": metadata})
    ask("alice", "POST", "/keys/generate", json={"alias": "ci", "max_budget": 5})
    ask("alice", "GET", "/opencode/connect?redirect_uri=http%3A%2F%2Flocalhost%3A1455%2Fcallback")
    ask("alice", "DELETE", f"/keys/{SECRET}?user_id=Bearer%20{SECRET}")
    ask("alice", "POST", f"/keys/{KEY}/update", json={"key_alias": SECRET})
    ask("alice", "DELETE", f"/keys/{KEY}")
    ask("alice", "DELETE", f"/teams/{TEAM}")
    assert audited.answer("include=denied")["total"] >= 5
    written = _written(audited)
    assert secrets_in(written) == []
    assert f"sk-...{SECRET[-4:]}" not in written
    assert "key_name" not in written


@pytest.mark.parametrize("name", ["a\ud800b", "\N{GRINNING FACE}", "x" * 5000])
def test_any_name_can_be_stored(audited: Audited, name: str) -> None:
    journal.record(journal.USER_PROVISION, {"userId": name}, change=journal.change(name, None, {}))
    (row,) = audited.rows()
    assert row["changed_by"] == "litellm-plugin"


def test_secrets_in_metadata_are_not_stored_whatever_their_form(audited: Audited) -> None:
    # As LiteLLM keeps the callbacks of a key, which its administrators set.
    logging = [{"callback_name": "x", "callback_vars": {"x_public": "p", "x_api_key": "hidden-1"}}]
    metadata = {
        "logging": logging,
        "deep": {"a": {"b": {"c": {"password": "hidden-2"}}}},
        "clientSecret": "hidden-3",
        "tokens": 5,
        "max_tokens": "7",
        "db": "postgresql://me:hidden-4@db/x",
        "credentials": ["hidden-5"],
    }
    journal.record(
        journal.USER_PROVISION,
        {"userId": "ann", "fields": {"password": "hidden-6"}},
        change=journal.change("ann", {"metadata": {}}, {"metadata": metadata}),
    )
    (row,) = audited.rows()
    assert "hidden" not in _written(audited)
    kept = row["updated_values"]["metadata"]
    assert (kept["tokens"], kept["max_tokens"]) == (5, "7")
    assert kept["db"] == "postgresql://me:[redacted]@db/x"


def test_a_change_of_any_size_is_a_small_event(audited: Audited) -> None:
    deep: Any = "x" * 1000
    for _ in range(4):
        deep = {f"name-{number}": deep for number in range(20)}
    journal.record(
        journal.USER_PROVISION,
        {"userId": "ann" * 500, "fields": dict.fromkeys(map(str, range(40)), 1)},
        change=journal.change("ann", {"metadata": {}}, {"metadata": deep, "max_budget": 5}),
    )
    (row,) = audited.rows()
    with audited.store.read() as connection:
        event = json.loads(connection.execute(text("SELECT event FROM audit_events")).scalar_one())
    assert (len(event["meta"]["userId"]), len(event["meta"]["fields"])) == (257, 20)
    assert len(json.dumps(row)) < 10_000
    assert row["updated_values"]["max_budget"] == 5
    assert row["updated_values"]["metadata"].startswith("left out: ")
