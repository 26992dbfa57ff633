"""Limits of keys: what LiteLLM has in the end is never beyond them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.live.kinds import Deploy, Told
from tests.live.rigs import BackstageRig, LiteLLMRig
from tests.live.service import Service
from tests.live.web import Client, json_of

POLICY = """
  keyPolicy:
    maxDuration: 30d
    maxBudget: 10
    maxTpmLimit: 1000
    maxRpmLimit: 10
    allowedModels: [gpt-4o-mini, everyone]
    maxActiveKeys: 4
"""
LIMITS = {
    "max_budget": 10,
    "tpm_limit": 1000,
    "rpm_limit": 10,
    "models": ["gpt-4o-mini", "everyone"],
    "budget_duration": None,
}


@pytest.fixture(scope="module")
def limited(deploy: Deploy) -> Service:
    """A service with limits."""
    return deploy("limited", POLICY)


@pytest.fixture
def newcomer(limited: Service, backstage: BackstageRig, stranger: str) -> Client:
    """Somebody new, who asks the service with limits."""
    return Client(limited.url, backstage.sign_in(stranger, uncatalogued=True))


def _alias() -> dict[str, str]:
    return {"alias": f"key-{uuid4().hex[:8]}"}


def _life(known: dict[str, Any]) -> timedelta:
    return datetime.fromisoformat(known["expires"]) - datetime.now(UTC)


def test_what_a_request_leaves_out_is_filled_in_and_litellm_holds_to_it(
    newcomer: Client, litellm: LiteLLMRig, told: Told
) -> None:
    sent = {**_alias(), "models": [], "max_budget": 5, "key_type": "llm_api"}
    key = json_of(newcomer.post("/keys/generate", sent))
    known = litellm.key(key["token"])
    assert {name: known[name] for name in LIMITS} == {**LIMITS, "max_budget": 5}
    assert timedelta(days=29) < _life(known) <= timedelta(days=30)
    assert litellm.complete(key["key"], "gpt-4o-mini").status_code == 200
    assert litellm.complete(key["key"], "llama-3-8b").status_code == 200  # of "everyone"
    assert litellm.refuses_model(key["key"], "gpt-4o")
    told("a key without models and limits got those of the policy, and gpt-4o refused it")


@pytest.mark.parametrize(
    ("beyond", "error"),
    [
        ({"duration": None}, "duration must not be unlimited: at most 30d for everybody"),
        ({"duration": "1mo"}, "duration must be at most 30d for everybody"),
        ({"max_budget": None}, "max_budget must not be unlimited: at most 10 USD for everybody"),
        ({"max_budget": 10.01}, "max_budget must be at most 10 USD for everybody"),
        ({"budget_duration": "1h"}, "budget_duration must be left out"),
        ({"rpm_limit": 11}, "rpm_limit must be at most 10 for everybody"),
        ({"models": ["gpt-4o"]}, 'model "gpt-4o" is not allowed: only gpt-4o-mini, everyone for'),
        ({"models": ["all-team-models"]}, 'model "all-team-models" is not allowed'),
        ({"metadata": {"temp_budget_increase": 99}}, "Unknown or forbidden field"),
    ],
    ids=str,
)
def test_more_is_refused_and_a_change_is_no_way_round(
    newcomer: Client, litellm: LiteLLMRig, beyond: dict[str, Any], error: str
) -> None:
    assert json_of(newcomer.post("/keys/generate", {**_alias(), **beyond}), 400)[
        "error"
    ].startswith(error)
    key = json_of(newcomer.post("/keys/generate", {**_alias(), "duration": "1d"}))
    before = litellm.key(key["token"])
    answer = newcomer.post(f"/keys/{key['token']}/update", beyond)
    assert answer.status_code == 400
    assert litellm.key(key["token"]) == before
    assert newcomer.post(f"/keys/{key['token']}/reset_spend", {}).status_code == 403


def test_a_model_of_an_allowed_access_group_may_be_named(
    newcomer: Client, litellm: LiteLLMRig
) -> None:
    key = json_of(newcomer.post("/keys/generate", {**_alias(), "models": ["llama-3-8b"]}))
    assert litellm.key(key["token"])["models"] == ["llama-3-8b"]


def test_a_life_counts_from_now_on(newcomer: Client, litellm: LiteLLMRig) -> None:
    key = json_of(newcomer.post("/keys/generate", {**_alias(), "duration": "1h"}))
    path = f"/keys/{key['token']}/update"
    json_of(newcomer.post(path, {"duration": "30d"}))
    assert timedelta(days=29) < _life(litellm.key(key["token"])) <= timedelta(days=30)
    for duration in ("31d", "-1", None, "1dxyz", "monthly"):
        assert newcomer.post(path, {"duration": duration}).status_code == 400


def test_a_team_does_not_let_keys_live_longer(
    newcomer: Client, litellm: LiteLLMRig, told: Told
) -> None:
    user_id = str(json_of(newcomer.get("/user/info"))["user_id"])
    team_id = f"team-{uuid4().hex[:8]}"
    team = {
        "team_id": team_id,
        "team_alias": team_id,
        "members_with_roles": [{"role": "user", "user_id": user_id}],
        "metadata": {"team_member_key_duration": "90d"},
    }
    json_of(litellm.admin.post("/team/new", team))
    sent = {**_alias(), "team_id": team_id, "duration": "2d"}
    key = json_of(newcomer.post("/keys/generate", sent))
    assert timedelta(days=1) < _life(litellm.key(key["token"])) <= timedelta(days=2)
    assert timedelta(days=1) < _life(key) <= timedelta(days=2)
    told("a team's 90d did not outlive the 2d that were asked for")


def test_many_at_once_over_two_workers_make_no_key_too_many(
    newcomer: Client, litellm: LiteLLMRig, told: Told
) -> None:
    user_id = str(json_of(newcomer.get("/user/info"))["user_id"])
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda _: newcomer.post("/keys/generate", _alias()).status_code, range(12))
        )
    assert sorted(answers) == [200] * 4 + [403] * 8
    assert len(litellm.keys_of(user_id)) == 4
    told("of 12 requests at once 4 made a key, as many as the policy allows")


def test_neither_unblocking_nor_a_new_life_makes_a_key_too_many(newcomer: Client) -> None:
    keys = [json_of(newcomer.post("/keys/generate", _alias()))["token"] for _ in range(4)]
    more = json_of(newcomer.post("/keys/generate", _alias()), 403)
    assert more["error"].startswith("At most 4 active keys are allowed for everybody")
    json_of(newcomer.post(f"/keys/{keys[0]}/block", {}))
    json_of(newcomer.post(f"/keys/{keys[1]}/update", {"duration": "0s"}))
    for _ in range(2):
        json_of(newcomer.post("/keys/generate", _alias()))
    assert newcomer.post(f"/keys/{keys[0]}/unblock", {}).status_code == 403
    assert newcomer.post(f"/keys/{keys[1]}/update", {"duration": "1d"}).status_code == 403
    json_of(newcomer.delete(f"/keys/{keys[2]}"))
    json_of(newcomer.post(f"/keys/{keys[0]}/unblock", {}))
