"""What is remembered is the caller's own, and decides about no write."""

from __future__ import annotations

import pytest

from litellm_plugin.config.settings import Settings
from tests.cache.conftest import Worlds
from tests.cache.world import PERIOD, TEAM_ADMINS, World, caching, id_of, used

TEAM = "team-platform"
BOB, CLEO = "user_id=bob@example.com", "user_id=cleo@example.com"


@pytest.fixture
def world(open_world: Worlds, settings: Settings) -> World:
    world = open_world(caching(settings, 3600.0))
    world.people(bob=(), cleo=(), ada=(TEAM_ADMINS,), dave=(TEAM_ADMINS,))
    litellm = world.litellm.stand_in
    for name in ("bob", "cleo", "ada", "dave"):
        litellm.user_new({"user_id": id_of(name), "auto_create_key": False})
    roles = [{"user_id": id_of(name), "role": "user"} for name in ("bob", "cleo")]
    litellm.team_new(
        {
            "team_id": TEAM,
            "members_with_roles": roles,
            "metadata": {"owning_group": TEAM_ADMINS},
            "object_permission": {"vector_stores": ["vs-docs"]},  # so that /team/info is asked
        }
    )
    for name in ("bob", "cleo"):
        key = litellm.key_generate({"user_id": id_of(name), "key_alias": name})
        litellm.store.add_usage([used(key["token_id"], id_of(name), TEAM)])
    return world


@pytest.mark.parametrize("path", ["/user/info", "/keys", "/teams", f"/usage?{PERIOD}"])
def test_a_service_that_asks_for_somebody_and_they_themselves_are_told_apart(
    world: World, path: str
) -> None:
    theirs = f"{path}{'&' if '?' in path else '?'}{BOB}"
    costs = []
    for who, asked in (("plugin", theirs), ("static", theirs), ("bob", path)):
        world.litellm.calls.clear()
        world.get(who, asked)
        # LiteLLM's version is the same for everybody.
        calls = [call for call in world.litellm.calls if not call.path.startswith("/health")]
        costs.append(len(calls))
        before = len(world.litellm.calls)
        world.get(who, asked)
        assert len(world.litellm.calls) == before
    assert len(set(costs)) == 1
    assert costs[0] > 0


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/teams/managed", "/team/list"),
        (f"/teams/{TEAM}/usage?{PERIOD}", "/team/daily/activity/aggregated"),
    ],
)
def test_team_admins_are_told_apart(world: World, path: str, asked: str) -> None:
    for who in ("ada", "dave"):
        world.litellm.calls.clear()
        for _ in range(2):
            world.get(who, path)
        assert len(world.litellm.read(asked)) == 1


def test_a_service_is_told_of_whom_it_asks_for(world: World) -> None:
    for asked, name in ((BOB, "bob"), (CLEO, "cleo"), (BOB, "bob")):
        assert world.get("plugin", f"/user/info?{asked}")["user_id"] == id_of(name)
        (key,) = world.get("plugin", f"/keys?{asked}")
        assert key["key_alias"] == name
        used_by = world.get("plugin", f"/usage?{PERIOD}&{asked}")["usage_by_key"].values()
        assert [use["key_alias"] for use in used_by] == [name]


def test_periods_are_told_apart(world: World) -> None:
    assert world.get("bob", f"/usage?{PERIOD}")["api_requests"] == 1
    assert world.get("bob", "/usage?start_date=2026-11-05&end_date=2026-11-08")["api_requests"] == 0


@pytest.mark.parametrize("way", ["block", "unblock", "reset_spend", "update"])
def test_whose_a_key_is_was_asked_for_before_each_write(world: World, way: str) -> None:
    (key,) = world.get("bob", "/keys")
    # LiteLLM's own people give it to somebody else; the list need not show it at once.
    world.litellm.stand_in.key_update({"key": key["token"], "user_id": id_of("cleo")})
    answer = world.ask("bob", "POST", f"/keys/{key['token']}/{way}", json={})
    assert answer.status_code == 403
    assert world.litellm.writes == []


def test_whose_a_team_is_was_asked_for_before_a_key_is_made_in_it(world: World) -> None:
    assert [team["team_id"] for team in world.get("bob", "/teams")] == [TEAM]
    world.litellm.stand_in.team_member_delete({"team_id": TEAM, "user_id": id_of("bob")})
    answer = world.ask("bob", "POST", "/keys/generate", json={"alias": "x", "team_id": TEAM})
    assert answer.status_code == 403
    assert world.litellm.writes == []
