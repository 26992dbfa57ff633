"""The first request of somebody whom LiteLLM does not know creates them there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live.kinds import Person, Told
from tests.live.rigs import BackstageRig, LiteLLMRig
from tests.live.service import Service
from tests.live.web import Client, json_of

TOGETHER = 24

DEFAULTS = {
    "max_budget": 10,
    "budget_duration": "30d",
    "models": [],
    "tpm_limit": 10_000,
    "rpm_limit": 100,
    "user_role": "internal_user",
    "teams": ["team-guests"],
}
POWER_USERS = {
    "max_budget": 100,
    "budget_duration": "7d",
    "models": ["gpt-4o", "gpt-4o-mini"],
    "tpm_limit": 100_000,
    "rpm_limit": 1000,
    "user_role": "internal_user",
    "teams": ["team-ml"],
}
ADMINS = {**DEFAULTS, "max_budget": 500, "user_role": "proxy_admin_viewer"}


@pytest.mark.parametrize(
    ("name", "email", "limits", "metadata"),
    [
        ("bob", "bob@example.com", DEFAULTS, {"source": "backstage"}),
        ("carol", "carol.clark@example.com", POWER_USERS, {"source": "backstage", "tier": "power"}),
        (
            "grace.hopper",
            "Grace.Hopper@Example.com",
            ADMINS,
            {"source": "backstage", "tier": "admin"},
        ),
    ],
)
def test_a_first_visit_creates_the_user_with_the_limits_of_their_group(
    person: Person,
    litellm: LiteLLMRig,
    told: Told,
    name: str,
    email: str,
    limits: dict[str, Any],
    metadata: dict[str, str],
) -> None:
    user_id = f"{name}@example.com"
    assert litellm.user(user_id) is None
    shown = json_of(person(name).get("/user/info"))
    user = litellm.user(user_id)
    assert user is not None
    info = user["user_info"]
    assert {field: info[field] for field in limits} == limits
    assert info["user_email"] == email
    expected = {**metadata, "backstage_entity": f"user:default/{name}"}
    assert info["metadata"].items() >= expected.items()
    assert user["keys"] == []
    team = litellm.team(limits["teams"][0])
    assert team is not None
    assert user_id in [member["user_id"] for member in team["members_with_roles"]]
    assert shown["user_id"] == user_id
    assert shown["max_budget"] == limits["max_budget"]
    assert shown["teams"] == limits["teams"]
    told(
        f"{name}'s first visit made {user_id} at LiteLLM, {info['max_budget']:g} USD per "
        f"{info['budget_duration']}, {info['user_role']}, in {info['teams']}"
    )


def test_many_first_visits_at_once_create_one_user(
    service: Service, backstage: BackstageRig, litellm: LiteLLMRig, told: Told, stranger: str
) -> None:
    client = Client(service.url, backstage.sign_in(stranger, uncatalogued=True))
    user_id = f"{stranger.rpartition('/')[2]}@example.com"
    paths = ("/user/info", "/keys", "/teams") * (TOGETHER // 3)
    with ThreadPoolExecutor(TOGETHER) as pool:
        answers = list(pool.map(client.get, paths))
    assert [answer.status_code for answer in answers] == [200] * TOGETHER
    listed = json_of(litellm.admin.get("/user/list", user_ids=user_id))
    assert [user["user_id"] for user in listed["users"]] == [user_id]
    team = litellm.team("team-guests")
    assert team is not None
    members = [member["user_id"] for member in team["members_with_roles"]]
    assert members.count(user_id) == 1
    assert litellm.keys_of(user_id) == []
    told(f"{TOGETHER} first visits at once, over two workers, made one user")


def test_a_later_visit_leaves_what_an_admin_has_changed(
    service: Service, backstage: BackstageRig, litellm: LiteLLMRig, stranger: str
) -> None:
    client = Client(service.url, backstage.sign_in(stranger, uncatalogued=True))
    user_id = str(json_of(client.get("/user/info"))["user_id"])
    json_of(litellm.admin.post("/user/update", {"user_id": user_id, "max_budget": 42}))
    json_of(client.get("/keys"))
    user = litellm.user(user_id)
    assert user is not None
    assert user["user_info"]["max_budget"] == 42
