"""Virtual keys of one's own: what is done to them here counts at the proxy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from tests.live.kinds import Person, Told
from tests.live.rigs import LiteLLMRig
from tests.live.web import Client, eventually, json_of


@dataclass(frozen=True)
class Key:
    alias: str
    secret: str
    token: str  # its hash, by which it is named ever after


NewKey = Callable[..., Key]


@pytest.fixture
def erin(person: Person) -> Client:
    """Member of no special group."""
    return person("erin")


@pytest.fixture
def new_key(erin: Client) -> NewKey:
    """Makes a key of erin's: ``new_key(models=["gpt-4o"])``."""

    def new_key(**fields: Any) -> Key:
        alias = f"key-{uuid4().hex[:8]}"
        made = json_of(erin.post("/keys/generate", {"alias": alias, **fields}))
        return Key(alias, made["key"], made["token"])

    return new_key


def test_a_new_key_completes_and_is_listed_without_its_secret(
    erin: Client, litellm: LiteLLMRig, new_key: NewKey, told: Told
) -> None:
    key = new_key(models=["gpt-4o-mini"], max_budget=5, duration="30d", tpm_limit=1000)
    answer = json_of(litellm.complete(key.secret))
    listing = erin.get("/keys")
    listed = {row["token"]: row for row in json_of(listing)}
    assert (
        listed[key.token].items()
        >= {
            "key": f"sk-...{key.secret[-4:]}",
            "key_alias": key.alias,
            "models": ["gpt-4o-mini"],
            "max_budget": 5,
            "tpm_limit": 1000,
            "user_id": "erin@example.com",
        }.items()
    )
    assert key.secret not in listing.text
    known = litellm.key(key.token)
    assert (
        known["metadata"].items()
        >= {
            "created_by_backstage_user": "user:default/erin",
            "created_via": "backstage",
        }.items()
    )
    said = answer["choices"][0]["message"]["content"]
    told(f"erin made {key.alias} and asked gpt-4o-mini with it: {said!r}")


def test_an_update_counts_at_the_proxy(
    erin: Client, litellm: LiteLLMRig, new_key: NewKey, told: Told
) -> None:
    key = new_key(models=["gpt-4o-mini"], max_budget=5)
    assert litellm.refuses_model(key.secret, "gpt-4o")
    renamed = f"{key.alias}-renamed"
    change = {"key_alias": renamed, "models": ["gpt-4o"], "max_budget": 7, "rpm_limit": 60}
    json_of(erin.post(f"/keys/{key.token}/update", change))
    assert litellm.key(key.token).items() >= change.items()
    json_of(litellm.complete(key.secret, "gpt-4o"))
    assert litellm.refuses_model(key.secret, "gpt-4o-mini")
    told(f"{key.alias} was moved from gpt-4o-mini to gpt-4o; the proxy follows")


def test_a_blocked_key_is_refused_until_it_is_unblocked(
    erin: Client, litellm: LiteLLMRig, new_key: NewKey, told: Told
) -> None:
    key = new_key()
    json_of(litellm.complete(key.secret))
    assert json_of(erin.post(f"/keys/{key.token}/block")) == {"success": True}
    refused = litellm.complete(key.secret)
    assert refused.status_code == 401
    assert "blocked" in refused.text
    listed = {row["token"]: row for row in json_of(erin.get("/keys"))}
    assert listed[key.token]["blocked"] is True
    assert json_of(erin.post(f"/keys/{key.token}/unblock")) == {"success": True}
    json_of(litellm.complete(key.secret))
    told(f"{key.alias} was blocked, refused by the proxy, unblocked, and served again")


def test_spend_is_set_to_nothing(
    erin: Client, litellm: LiteLLMRig, new_key: NewKey, told: Told
) -> None:
    key = new_key()
    json_of(litellm.complete(key.secret, "gpt-4o"))
    spent = eventually(lambda: litellm.key(key.token)["spend"])
    assert json_of(erin.post(f"/keys/{key.token}/reset_spend")) == {"success": True}
    assert litellm.key(key.token)["spend"] == 0
    told(f"{key.alias} had spent {spent:.6f} USD, and after the reset nothing")


def test_a_deleted_key_is_refused_by_the_proxy(
    erin: Client, litellm: LiteLLMRig, new_key: NewKey, told: Told
) -> None:
    key = new_key()
    json_of(litellm.complete(key.secret))
    assert json_of(erin.delete(f"/keys/{key.token}")) == {"success": True}
    assert litellm.complete(key.secret).status_code == 401
    assert litellm.deleted(key.token)
    assert key.token not in [row["token"] for row in json_of(erin.get("/keys"))]
    told(f"{key.alias} was deleted, and is refused by the proxy")


def test_a_rotated_key_works_until_the_grace_ends(
    erin: Client, litellm: LiteLLMRig, new_key: NewKey, told: Told
) -> None:
    old = new_key(models=["gpt-4o-mini"], max_budget=5, budget_duration="30d", duration="30d")
    json_of(litellm.complete(old.secret))
    spent = eventually(lambda: litellm.key(old.token)["spend"])
    path, sent = f"/keys/{old.token}/rotate", {"grace": "10s"}
    again = {"Idempotency-Key": f'"{old.alias}"'}
    new = json_of(erin.ask("POST", path, json=sent, headers=again))
    json_of(litellm.complete(old.secret))
    json_of(litellm.complete(new["key"]))
    assert litellm.refuses_model(new["key"], "gpt-4o")
    known, before = litellm.key(new["token"]), litellm.key(old.token)
    assert known["key_alias"] == new["key_alias"] == old.alias
    assert before["key_alias"] == new["rotated"]["key_alias"]
    assert known["spend"] >= spent
    for name in ("max_budget", "budget_duration", "budget_reset_at", "models", "allowed_routes"):
        assert known[name] == before[name], name
    assert json_of(erin.ask("POST", path, json=sent, headers=again), 409)["token"] == new["token"]
    eventually(lambda: not litellm.complete(old.secret).ok)  # 1.81.14: not 401
    assert "xpired" in litellm.complete(old.secret).text
    json_of(litellm.complete(new["key"]))
    last = json_of(erin.post(f"/keys/{new['token']}/rotate", {"grace": "0s"}))
    assert litellm.complete(new["key"]).status_code == 401
    json_of(litellm.complete(last["key"]))
    told(f"{old.alias} was rotated twice; the old secrets end, and {spent:.6f} USD stay spent")


@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("POST", "/update"),
        ("POST", "/block"),
        ("POST", "/unblock"),
        ("POST", "/reset_spend"),
        ("POST", "/rotate"),
        ("DELETE", ""),
    ],
)
def test_nobody_touches_the_key_of_someone_else(
    person: Person, litellm: LiteLLMRig, new_key: NewKey, method: str, action: str
) -> None:
    key = new_key()
    before = litellm.key(key.token)
    change = {"key_alias": "stolen"} if action == "/update" else {}
    refused = person("noprofile").ask(method, f"/keys/{key.token}{action}", json=change)
    assert refused.status_code == 403
    assert litellm.key(key.token) == before


def test_a_taken_alias_is_refused_with_the_field_that_is_to_blame(
    erin: Client, new_key: NewKey
) -> None:
    taken = new_key().alias
    error = json_of(erin.post("/keys/generate", {"alias": taken}), 400)
    assert error["param"] == "key_alias"
    assert taken in error["error"]


def test_a_user_makes_keys_for_nobody_else(erin: Client, litellm: LiteLLMRig) -> None:
    body = {"alias": f"key-{uuid4().hex[:8]}", "user_id": "noprofile@example.com"}
    made = json_of(erin.post("/keys/generate", body))
    assert litellm.key(made["token"])["user_id"] == "erin@example.com"


def test_a_key_for_a_team_is_for_its_members(
    erin: Client, person: Person, litellm: LiteLLMRig
) -> None:
    alias = f"key-{uuid4().hex[:8]}"
    made = json_of(erin.post("/keys/generate", {"alias": alias, "team_id": "team-guests"}))
    assert litellm.key(made["token"])["team_id"] == "team-guests"
    refused = erin.post("/keys/generate", {"alias": f"{alias}-2", "team_id": "team-ml"})
    assert refused.status_code == 403
