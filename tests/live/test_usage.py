"""What a key has used appears in its owner's usage, and in its team's."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.live.kinds import Person, Told
from tests.live.rigs import LiteLLMRig
from tests.live.web import Client, days, eventually, json_of

CALLS = {"gpt-4o": 1, "gpt-4o-mini": 2}


def test_usage_appears_for_its_owner_and_for_the_team(
    person: Person, litellm: LiteLLMRig, told: Told
) -> None:
    ivan = person("ivan")
    alias = f"key-{uuid4().hex[:8]}"
    key = json_of(ivan.post("/keys/generate", {"alias": alias, "team_id": "team-ml"}))
    for model, calls in CALLS.items():
        for _ in range(calls):
            json_of(litellm.complete(key["key"], model))

    def of_the_key(client: Client, path: str) -> dict[str, Any]:
        usage = json_of(client.get(path, **days()))
        entry: dict[str, Any] = usage["usage_by_key"].get(key["token"], {})
        return usage if entry.get("api_requests") == sum(CALLS.values()) else {}

    own = eventually(lambda: of_the_key(ivan, "/usage"))
    teams = eventually(lambda: of_the_key(ivan, "/teams/team-ml/usage"))
    for usage in (own, teams):
        assert usage["usage_by_key"][key["token"]]["key_alias"] == alias
        assert set(usage["usage_by_model"]) >= set(CALLS)
        assert usage["total_spend"] > 0
        assert sum(day["spend"] for day in usage["daily_usage"]) == pytest.approx(
            usage["total_spend"]
        )
        for part in ("usage_by_model", "usage_by_key"):
            assert sum(each["total_spend"] for each in usage[part].values()) == pytest.approx(
                usage["total_spend"]
            )
    names = {model["model_name"] for model in json_of(ivan.get("/models"))}
    assert set(own["usage_by_model"]) <= names
    told(
        f"{sum(CALLS.values())} calls of ivan's appeared in /usage and /teams/team-ml/usage: "
        f"{own['total_tokens']} tokens, {own['total_spend']:.6f} USD"
    )


def test_the_usage_of_a_team_is_not_for_everybody(person: Person) -> None:
    assert person("erin").get("/teams/team-ml/usage", **days()).status_code == 403


def test_a_user_cannot_ask_for_the_usage_of_another(person: Person) -> None:
    # Somebody who uses nothing, so that their own usage does not change meanwhile.
    noprofile = person("noprofile")
    own = json_of(noprofile.get("/usage", **days()))
    assert own["api_requests"] == 0
    assert json_of(noprofile.get("/usage", **days(), user_id="ivan@example.com")) == own
