"""Somebody else's ids, in the hands of everybody, on every route that takes one.

Backstage's policy allows everything here: what is refused, this service refuses by itself.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from litellm_plugin.sandbox.store import token_of
from tests.fakes import Asked
from tests.rig import CALLERS, Rig
from tests.security.surface import WRITES, Surface, body_of, surfaces
from tests.standin import TEAM_ADMINS

SECRET = "canary-4711"  # in whatever is not the attacker's to see
CAROLS_SECRET = "sk-carols-key-0123456789"
CAROLS_KEY = token_of(CAROLS_SECRET)
CAROLS_IN_TEAM = "sk-carols-key-in-the-team-0123456789"
CAROL = "carol@example.com"
OTHERS_TEAM, OWNED_TEAM = "team-of-others", "team-of-team-admins"

KEYCLOAK_BOB, KEYCLOAK_CAROL = (
    CALLERS["keycloak"].replace("alice", name) for name in ("bob", "carol")
)

# Two of each role; nobody of them has a right to Carol's key or to the team of others.
EVERYBODY = [
    "bob",
    "noprofile",
    "erin",  # of a child of the team admins' group
    "ivan",  # a member of a team of his own
    "grace.hopper",  # auditor
    "contractors/bob",  # auditor of another namespace
    "alice",  # auditor and team admin
    "dave",  # team admin
    "uncatalogued:user:default/nobody",
    "obo:bob",
    "obo:dave",
    "static",
    "plugin",
    "raw:Bearer rig-static-litellm-read-token",
    "raw:Bearer rig-static-litellm-keycreate-token",
    "raw:Bearer rig-static-catalog-only-token",
    KEYCLOAK_BOB,
    "limited:carol",
    "expired:carol",
]
TEAM_ADMIN = {"alice", "dave", "obo:dave"}
SERVICES = {"static", "plugin", *(who for who in EVERYBODY if who.startswith("raw:"))}


@pytest.fixture
def world(rig: Rig) -> Rig:
    """Carol has a key and is in two teams; Ivan and the team admins have a team each."""
    litellm = rig.litellm.litellm
    for name in ("carol", "bob", "ivan", "dave", "erin"):
        litellm.user_new({"user_id": f"{name}@example.com", "auto_create_key": False})
    for team_id, owner, members in (
        (OTHERS_TEAM, "group:default/others", ("carol",)),
        (OWNED_TEAM, TEAM_ADMINS, ("carol",)),
        ("team-of-ivan", "group:default/others", ("ivan",)),
        ("team-two-of-team-admins", TEAM_ADMINS, ("dave",)),
    ):
        litellm.team_new(
            {
                "team_id": team_id,
                "team_alias": f"{SECRET} {team_id}",
                "max_budget": 4711,
                "models": [f"{SECRET}-model"],
                "metadata": {"owning_group": owner, "note": SECRET},
                "members_with_roles": [
                    {"user_id": f"{name}@example.com", "role": "user"} for name in members
                ],
            }
        )
        litellm.key_generate(
            {
                "key": _secret_of(team_id),
                "key_alias": f"{SECRET} {team_id}",
                "team_id": team_id,
                "max_budget": 4711,
                "duration": "90d",
                "key_type": "llm_api",
                "metadata": {"backstage_team_key": True},
            }
        )
    litellm.key_generate({"key": CAROLS_SECRET, "key_alias": SECRET, "user_id": CAROL})
    own = {"user_id": CAROL, "team_id": OWNED_TEAM, "metadata": {"backstage_team_key": True}}
    litellm.key_generate({"key": CAROLS_IN_TEAM, **own})
    litellm.key_generate({"key": "sk-of-an-administrator", "team_id": OWNED_TEAM})
    for name in ("bob", "ivan", "dave", "erin"):
        litellm.key_generate({"key": f"sk-own-{name}", "user_id": f"{name}@example.com"})
    return rig


def _secret_of(team_id: str) -> str:
    return f"sk-key-of-{team_id}"


def _state(rig: Rig) -> Any:
    """Return what nobody but Carol and the team admins may change."""
    store = rig.litellm.litellm.store
    teams = {OTHERS_TEAM, OWNED_TEAM}
    return (
        store.users[CAROL],
        {token: key for token, key in store.keys.items() if key["user_id"] == CAROL},
        {token: key for token, key in store.keys.items() if key["team_id"] in teams},
        {team_id: store.teams.get(team_id) for team_id in teams},
        {who: row for who, row in store.memberships.items() if who[0] in teams},
        {team_id: store.objects.get(team_id) for team_id in teams},
    )


def _ask(rig: Rig, who: str, route: Surface, ids: dict[str, str], **over: Any) -> Any:
    _, example = body_of(route) or (None, {})
    query = "start_date=2026-11-01&end_date=2026-11-30&force=true"
    query += "&userEntityRef=user:default/carol"
    if who not in SERVICES:  # a service may speak for anybody
        query += f"&user_id={CAROL}"
    path = f"{route.path(ids)}?{query}"
    return rig.ask(who, route.method, path, json={**example, **over})


def _with_an_id(rig: Rig) -> list[Surface]:
    routes = [route for route in surfaces(rig.app) if route.names and route.method != "HEAD"]
    assert len(routes) > 11
    return routes


@pytest.mark.parametrize("who", EVERYBODY)
def test_nobody_gets_at_what_is_somebody_elses(world: Rig, who: str) -> None:
    before = deepcopy(_state(world))
    teams = [OTHERS_TEAM] if who in TEAM_ADMIN else [OTHERS_TEAM, OWNED_TEAM]
    for route in _with_an_id(world):
        for team_id in teams if "team_id" in route.names else teams[:1]:
            key = token_of(_secret_of(team_id))
            ids = {"token": CAROLS_KEY, "team_id": team_id, "key": key}
            if who in SERVICES and route.rule.endswith("/usage"):
                continue  # services may see any team's usage
            answer = _ask(world, who, route, ids)
            assert 400 <= answer.status_code < 500, f"{route}: {answer.status_code}"
            assert SECRET not in answer.text, str(route)
            assert "4711" not in answer.text, str(route)
            assert _state(world) == before, str(route)


@pytest.mark.parametrize(
    "who",
    [
        "bob",
        "dave",
        *(
            pytest.param(who, marks=pytest.mark.deep)
            for who in ("obo:bob", "plugin", "expired:carol")
        ),
    ],
)
def test_other_spellings_of_an_id_are_nobodys(world: Rig, who: str) -> None:
    before = deepcopy(_state(world))
    spellings = [
        CAROLS_SECRET,  # LiteLLM takes the secret as well as the hash
        "sk-...6789",
        CAROLS_KEY.upper(),
        f"{CAROLS_KEY} ",
        f"{CAROLS_KEY}\0",
        f"../{CAROLS_KEY}",
        f"{CAROLS_KEY}/../{CAROLS_KEY}",
        SECRET,
    ]
    for route in _with_an_id(world):
        if "token" in route.names:
            for token in spellings:
                answer = _ask(world, who, route, {"token": token})
                assert 400 <= answer.status_code < 500, f"{route}: {token}"
                assert _state(world) == before, f"{route}: {token}"


@pytest.mark.parametrize("who", sorted(TEAM_ADMIN))
def test_a_teams_routes_know_no_keys_but_its_own(world: Rig, who: str) -> None:
    before = _state(world)
    of_team = _secret_of(OWNED_TEAM)
    others = [
        token_of(_secret_of(OTHERS_TEAM)),
        token_of(_secret_of("team-two-of-team-admins")),
        CAROLS_KEY,
        token_of(CAROLS_IN_TEAM),
        token_of("sk-of-an-administrator"),  # made in LiteLLM itself
        of_team,  # LiteLLM takes the secret as well as the hash
        token_of(of_team).upper(),
        f"{token_of(of_team)} ",
    ]
    routes = [route for route in _with_an_id(world) if "key" in route.names]
    assert len(routes) == 2
    for route in routes:
        missing = _ask(world, who, route, {"team_id": OWNED_TEAM, "key": "0" * 64})
        assert missing.status_code == 404
        for key in others:
            answer = _ask(world, who, route, {"team_id": OWNED_TEAM, "key": key})
            assert (answer.status_code, answer.text) == (404, missing.text), f"{route}: {key}"
            assert _state(world) == before, f"{route}: {key}"


@pytest.mark.parametrize("who", ["bob", "ivan", "grace.hopper", "dave", "obo:bob", KEYCLOAK_BOB])
def test_an_id_in_a_body_or_a_query_opens_nothing(world: Rig, asked: list[Asked], who: str) -> None:
    """What is in the path is the attacker's own, as far as there is anything."""
    before = deepcopy(_state(world))
    name = who.removeprefix("obo:")
    team_id = "team-two-of-team-admins" if who in TEAM_ADMIN else "team-of-ivan"
    own = {
        "token": token_of(f"sk-own-{name}"),
        "team_id": team_id,
        "key": token_of(_secret_of(team_id)),
    }
    keys = {"key": CAROLS_KEY, "token": CAROLS_KEY, "user_id": CAROL, "keys": [CAROLS_KEY]}
    for route in surfaces(world.app):
        if route.method in WRITES:
            for team_id in [OTHERS_TEAM] if who in TEAM_ADMIN else [OTHERS_TEAM, OWNED_TEAM]:
                _ask(world, who, route, own, team_id=team_id)
                _ask(world, who, route, own, team_ids=[team_id], **keys)
        if route.rule == "/opencode/connect":
            uri = "redirect_uri=http%3A%2F%2Flocalhost%3A1%2Fcallback"
            for team_id in (OTHERS_TEAM, OWNED_TEAM):
                answer = world.ask(who, "GET", f"{route.rule}?{uri}&team={team_id}")
                assert answer.status_code in {401, 403}
        assert _state(world) == before, str(route)
    for call in asked:
        assert CAROLS_KEY not in f"{call.path}{call.query}{call.body!r}"


@pytest.mark.parametrize("who", sorted({"bob", "dave", "grace.hopper", "obo:bob"}))
def test_no_list_has_what_is_somebody_elses(world: Rig, who: str) -> None:
    for route in surfaces(world.app):
        if route.method != "GET" or route.names or who in TEAM_ADMIN & {"dave"}:
            continue
        if route.rule in {"/audit", "/teams/managed"}:
            continue  # for those who may see it all
        query = f"?start_date=2026-11-01&end_date=2026-11-30&user_id={CAROL}"
        answer = world.ask(who, "GET", route.rule + query)
        assert SECRET not in answer.text, str(route)
        assert CAROLS_KEY not in answer.text, str(route)


def test_each_of_these_routes_opens_to_whom_it_is_meant_for(world: Rig) -> None:
    """Or else the tests above would prove nothing."""
    routes = _with_an_id(world)
    # What deletes comes last, and the team after its members.
    for route in sorted(routes, key=lambda route: (route.method == "DELETE", -len(route.rule))):
        who = "carol" if "token" in route.names or "usage" in route.rule else "dave"
        who = KEYCLOAK_CAROL if route.bridged else who
        state = deepcopy(world.litellm.litellm.store.__dict__["keys"])
        key = token_of(_secret_of(OWNED_TEAM))
        ids = {"token": CAROLS_KEY, "team_id": OWNED_TEAM, "key": key}
        answer = _ask(world, who, route, ids)
        world.litellm.litellm.store.keys = state
        assert answer.status_code in {200, 400, 409}, f"{route}: {answer.text}"
    assert OWNED_TEAM not in world.litellm.litellm.store.teams
