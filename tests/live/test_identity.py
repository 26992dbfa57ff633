"""Whoever has signed in to LiteLLM by SSO has one account, not two; and nobody has another's."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.faults.replica import BY_EACH_WORKER
from tests.live.kinds import Deploy, Told
from tests.live.rigs import BackstageRig, LiteLLMRig
from tests.live.service import Service
from tests.live.web import Client, json_of

HEIDI = "user:contractors/heidi"
EMAIL = "heidi@contractors.example.com"  # of the catalog
OWN_ID = "heidi@example.com"

CALLBACK = "http://localhost:1/callback"


@pytest.fixture
def sso(litellm: LiteLLMRig) -> Iterator[str]:
    """Heidi's account at LiteLLM, under an id of the identity provider; nobody has her own."""
    assert litellm.user(OWN_ID) is None
    user_id = f"sso-{uuid4()}"
    user = {
        "user_id": user_id,
        "user_email": EMAIL.title(),
        "user_role": "internal_user",
        "teams": ["team-guests"],
        "auto_create_key": False,
    }
    json_of(litellm.admin.post("/user/new", user))
    yield user_id
    assert litellm.user(OWN_ID) is None
    json_of(litellm.admin.post("/user/delete", {"user_ids": [user_id]}))


@pytest.fixture(scope="module", params=["cached", "uncached", "unambiguous"])
def any_service(request: pytest.FixtureRequest, deploy: Deploy) -> Service:
    config = "    userIds: unambiguous\n" if request.param == "unambiguous" else ""
    cached = request.param == "cached"
    # Without a cache workers do not tell each other whom they have found by e-mail.
    env = {} if cached else {"WEB_CONCURRENCY": "1"}
    return deploy(f"identity-{request.param}", config, caching=cached, env=env)


def test_an_account_of_sso_is_found_by_its_email_and_used(
    any_service: Service, backstage: BackstageRig, litellm: LiteLLMRig, sso: str, told: Told
) -> None:
    heidi = Client(any_service.url, backstage.sign_in(HEIDI))
    alias = f"key-{uuid4().hex[:8]}"
    assert json_of(heidi.get("/user/info"))["user_id"] == sso
    assert [team["team_id"] for team in json_of(heidi.get("/teams"))] == ["team-guests"]
    key = json_of(heidi.post("/keys/generate", {"alias": alias, "team_id": "team-guests"}))
    assert litellm.keys_of(sso) == [key["token"]]
    assert [row["token"] for row in json_of(heidi.get("/keys"))] == [key["token"]]
    days = {"start_date": "2026-11-01", "end_date": "2026-11-02"}
    json_of(heidi.get("/usage", **days))
    json_of(heidi.post(f"/keys/{key['token']}/update", {"max_budget": 3}))
    assert litellm.key(key["token"])["max_budget"] == 3
    for action in ("block", "unblock", "reset_spend"):
        json_of(heidi.post(f"/keys/{key['token']}/{action}", {}))
    json_of(heidi.delete(f"/keys/{key['token']}"))
    connected = heidi.get("/opencode/connect", redirect_uri=CALLBACK)
    assert connected.status_code == 302
    (opencode,) = litellm.keys_of(sso)
    assert litellm.key(opencode)["user_id"] == sso
    told(f"heidi, whom LiteLLM knows as {sso[:12]}… by e-mail, used that account on every route")


def test_a_team_admin_adds_and_removes_an_account_of_sso(
    service: Service, backstage: BackstageRig, litellm: LiteLLMRig, sso: str
) -> None:
    dave = Client(service.url, backstage.sign_in("dave"))
    team = json_of(dave.post("/teams", {"team_alias": "x", "models": ["gpt-4o"], "max_budget": 1}))[
        "team_id"
    ]
    json_of(dave.post(f"/teams/{team}/members", {"userEntityRef": HEIDI}))
    known = litellm.team(team)
    assert known is not None
    assert sso in [member["user_id"] for member in known["members_with_roles"]]
    path = f"/teams/{team}/members?userEntityRef=user%3Acontractors%2Fheidi"
    json_of(dave.delete(path))
    known = litellm.team(team)
    assert known is not None
    assert sso not in [member["user_id"] for member in known["members_with_roles"]]


@pytest.mark.parametrize("role", ["proxy_admin", "proxy_admin_viewer"])
def test_an_administrators_account_is_used_as_any_other(
    service: Service, backstage: BackstageRig, litellm: LiteLLMRig, sso: str, role: str
) -> None:
    json_of(litellm.admin.post("/user/update", {"user_id": sso, "user_role": role}))
    heidi = Client(service.url, backstage.sign_in(HEIDI))
    assert json_of(heidi.get("/user/info"))["user_id"] == sso
    key = json_of(heidi.post("/keys/generate", {"alias": f"key-{uuid4().hex[:8]}"}))
    assert litellm.keys_of(sso) == [key["token"]]


def test_an_account_stays_its_owners_after_a_restart_without_provisioning(
    deploy: Deploy, backstage: BackstageRig, sso: str, told: Told
) -> None:
    heidi = backstage.sign_in(HEIDI)
    before = deploy("adopting", caching=True)
    assert json_of(Client(before.url, heidi).get("/user/info"))["user_id"] == sso
    after = deploy("adopted", "  provisioning: { enabled: false }\n", caching=True)
    for _ in range(BY_EACH_WORKER):
        assert json_of(Client(after.url, heidi).get("/user/info"))["user_id"] == sso
    told("An account found by e-mail is its owner's after a restart without provisioning")


def test_another_persons_account_is_not_used(
    service: Service, backstage: BackstageRig, litellm: LiteLLMRig, sso: str
) -> None:
    record = {"metadata": {"backstage_entity": "user:default/somebody"}}
    json_of(litellm.admin.post("/user/update", {"user_id": sso, **record}))
    heidi = Client(service.url, backstage.sign_in(HEIDI))
    refused = json_of(heidi.get("/user/info"), 409)
    assert "e-mail" in refused["error"]
    assert sso not in str(refused)
    assert heidi.post("/keys/generate", {"alias": "x"}).status_code == 409
    assert litellm.keys_of(sso) == []


def test_two_people_of_one_id_are_told_apart_where_that_is_asked_for(
    deploy: Deploy, backstage: BackstageRig, litellm: LiteLLMRig, told: Told
) -> None:
    service = deploy("unambiguous", "    userIds: unambiguous\n")
    user_id = "frank@corp.example.com"
    json_of(litellm.admin.post("/user/new", {"user_id": user_id, "auto_create_key": False}))
    frank = Client(service.url, backstage.sign_in(f"user:default/{user_id}"))
    other = Client(service.url, backstage.sign_in(f"user:elsewhere/{user_id}", uncatalogued=True))
    assert frank.get("/keys").status_code == 200  # the catalog has one of that name
    assert other.get("/keys").status_code == 409
    record = {"metadata": {"backstage_entity": f"user:elsewhere/{user_id}"}}
    json_of(litellm.admin.post("/user/update", {"user_id": user_id, **record}))
    assert frank.get("/keys").status_code == 409
    assert other.get("/keys").status_code == 200
    json_of(litellm.admin.post("/user/delete", {"user_ids": [user_id]}))
    told("of two who come to one id, each was served only when the account was recorded as theirs")
