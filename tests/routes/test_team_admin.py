"""Team administration beyond the recorded conversations."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.client import PluginClient
from tests.fakes import FakeLiteLLM

Headers = dict[str, str]
OWNED = {"owning_group": "group:default/litellm-team-admins"}


def _new_team(alias: str) -> dict[str, Any]:
    return {"team_alias": alias, "models": ["gpt-4o"], "max_budget": 5}


def test_two_different_requests_are_never_answered_with_one_team(
    client: PluginClient, litellm: FakeLiteLLM, dave: Headers
) -> None:
    both_there = threading.Barrier(2)
    for alias in ("a", "b"):
        litellm.post(
            "/team/new",
            body={"team_alias": alias},
            json={"team_id": f"id-{alias}", "team_alias": alias},
            meanwhile=lambda: both_there.wait(5) and None,
        )

    def create(alias: str) -> Any:
        return client.post("/teams", json=_new_team(alias), headers=dave).get_json()["team_id"]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(create, ["a", "b"])) == ["id-a", "id-b"]


def test_the_same_request_sent_twice_at_once_makes_one_team(
    client: PluginClient,
    litellm: FakeLiteLLM,
    dave: Headers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    making, joined = threading.Event(), threading.Event()

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if making.is_set():
                joined.set()
            return super().wait(timeout)

    def make() -> None:
        making.set()
        assert joined.wait(5)

    monkeypatch.setattr("litellm_plugin.cache.single_flight.Event", Watched)
    # The first request is answered when the second has joined it.
    litellm.post("/team/new", json={"team_id": "one"}, meanwhile=make)

    def create(_: int) -> Any:
        return client.post("/teams", json=_new_team("a"), headers=dave).get_json()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(create, range(2))) == [{"team_id": "one"}] * 2
    assert len(litellm.writes) == 1


def test_the_managed_list_shows_what_a_team_may_use(
    client: PluginClient, litellm: FakeLiteLLM, dave: Headers
) -> None:
    row = {"team_id": "t", "metadata": OWNED, "object_permission_id": "op"}
    plain = {"team_id": "p", "metadata": OWNED}
    foreign = {"team_id": "f", "metadata": {}, "object_permission_id": "op2"}
    litellm.get("/team/list", json=[row | {"object_permission": None}, plain, foreign])
    attached = {"vector_stores": ["vs-docs"]}
    litellm.get(
        "/team/info",
        query={"team_id": "t"},
        json={"team_id": "t", "team_info": row | {"object_permission": attached}},
    )
    teams = client.get("/teams/managed", headers=dave).get_json()
    assert [team.get("object_permission") for team in teams] == [attached, None]
    assert len(litellm.reads) == 2
