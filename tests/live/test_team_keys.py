"""Keys that a team owns, on the real LiteLLM: dave and alice manage the team, erin is a member."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.live.kinds import Person, Told
from tests.live.rigs import LiteLLMRig
from tests.live.web import Client, json_of

DAVE, ERIN = "dave@example.com", "erin@example.com"


@pytest.fixture
def team(person: Person) -> Iterator[str]:
    """The path of a team of dave's group, with dave and erin in it."""
    dave = person("dave")
    named = {"team_alias": f"teamkeys {uuid4().hex[:8]}", "max_budget": 10}
    made = json_of(dave.post("/teams", {**named, "models": ["gpt-4o-mini", "gpt-4o"]}))
    path = f"/teams/{made['team_id']}"
    for name in ("dave", "erin"):
        json_of(dave.post(f"{path}/members", {"userEntityRef": f"user:default/{name}"}))
    yield path
    person("alice").delete(path)


def create(client: Client, team: str, **fields: Any) -> dict[str, Any]:
    """Make a key of a team; return the answer."""
    new = {"alias": f"teamkeys-{uuid4().hex[:8]}", "max_budget": 1, "duration": "30d", **fields}
    return dict(json_of(client.post(f"{team}/keys", new)))


def life_left(row: dict[str, Any]) -> timedelta:
    return datetime.fromisoformat(row["expires"]) - datetime.now(UTC)


def test_a_key_is_the_teams_and_outlives_its_creators_account(
    person: Person, litellm: LiteLLMRig, team: str, told: Told
) -> None:
    key = create(person("dave"), team, models=["gpt-4o-mini"], metadata={"purpose": "ci"})
    row = litellm.key(key["token"])
    assert (row["user_id"], row["max_budget"]) == (None, 1)
    assert row["allowed_routes"] == ["llm_api_routes"]
    assert row["metadata"]["created_by_backstage_user"] == "user:default/dave"
    assert litellm.complete(key["key"]).status_code == 200
    assert litellm.refuses_model(key["key"], "gpt-4o")
    leave = {"team_id": team.rpartition("/")[2], "user_id": DAVE}
    json_of(litellm.admin.post("/team/member_delete", leave))
    json_of(litellm.admin.post("/user/delete", {"user_ids": [DAVE]}))
    assert litellm.complete(key["key"]).status_code == 200
    (listed,) = json_of(person("alice").get(f"{team}/keys"))
    assert listed["token"] == key["token"]
    told("dave made a key of a team, left the team and LiteLLM, and the key goes on")


def test_a_member_does_not_see_the_key_and_can_not_change_it(
    person: Person, litellm: LiteLLMRig, team: str
) -> None:
    key, erin = create(person("dave"), team), person("erin")
    token = key["token"]
    for path in ("/keys", "/teams", "/user/info"):
        answer = erin.get(path)
        assert answer.status_code == 200
        assert key["key"] not in answer.text
        assert token not in answer.text
    assert erin.get(f"{team}/keys").status_code == 403
    assert erin.post(f"{team}/keys/{token}/rotate").status_code == 403
    assert erin.delete(f"{team}/keys/{token}").status_code == 403
    for way in ("update", "rotate", "block", "reset_spend"):
        assert erin.post(f"/keys/{token}/{way}").status_code == 403
    assert erin.delete(f"/keys/{token}").status_code == 403
    assert litellm.complete(key["key"]).status_code == 200


def test_a_rotated_key_works_until_its_grace_ends_and_a_deleted_one_no_more(
    person: Person, litellm: LiteLLMRig, team: str, told: Told
) -> None:
    alice = person("alice")
    old = create(person("dave"), team, budget_duration="7d", tpm_limit=1000)
    target, headers = f"{team}/keys/{old['token']}/rotate", {"Idempotency-Key": uuid4().hex}
    new = json_of(alice.ask("POST", target, json={"grace": "2h"}, headers=headers))
    row = litellm.key(new["token"])
    assert (row["user_id"], row["key_alias"]) == (None, old["key_alias"])
    assert (row["budget_duration"], row["tpm_limit"]) == ("7d", 1000)
    assert row["metadata"]["backstage_team_key"] is True
    assert row["metadata"]["service_account_id"] == old["key_alias"]
    assert life_left(litellm.key(old["token"])) <= timedelta(hours=2)
    for secret in (old["key"], new["key"]):
        assert litellm.complete(secret).status_code == 200
    assert len(json_of(alice.get(f"{team}/keys"))) == 2
    again = json_of(alice.ask("POST", target, json={}, headers=headers), 409)
    assert again["token"] == new["token"]
    for each in (old, new):
        json_of(alice.delete(f"{team}/keys/{each['token']}"))
        assert litellm.deleted(each["token"])
        assert litellm.complete(each["key"]).status_code == 401
    assert json_of(alice.get(f"{team}/keys")) == []
    told("alice rotated and deleted a key of a team that dave had made")


def test_a_key_of_a_person_in_the_team_and_one_made_in_litellm_are_not_the_teams(
    person: Person, litellm: LiteLLMRig, team: str
) -> None:
    dave, team_id = person("dave"), team.rpartition("/")[2]
    for body in ({"user_id": ERIN, "team_id": team_id}, {"team_id": team_id}):
        token = json_of(litellm.admin.post("/key/generate", body))["token"]
        assert dave.post(f"{team}/keys/{token}/rotate").status_code == 404
        assert dave.delete(f"{team}/keys/{token}").status_code == 404
        assert not litellm.deleted(token)
    assert json_of(dave.get(f"{team}/keys")) == []
    assert (
        "at most"
        in json_of(
            dave.post(f"{team}/keys", {"alias": "x", "max_budget": 1, "duration": "2y"}), 400
        )["error"]
    )


def test_the_teams_keys_go_with_the_team(person: Person, litellm: LiteLLMRig, team: str) -> None:
    dave = person("dave")
    key = create(dave, team)
    json_of(dave.delete(team))
    assert litellm.deleted(key["token"])
