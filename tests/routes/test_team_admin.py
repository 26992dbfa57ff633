"""Team administration beyond the recorded conversations."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest

from tests.client import PluginClient, json_of
from tests.fakes import FakeLiteLLM

OWNED = {"owning_group": "group:default/litellm-team-admins"}


OBJECTS = {"vector_stores": ["vs-docs"], "mcp_servers": ["mcp-docs"]}


def _new_team(alias: str) -> dict[str, Any]:
    return {"team_alias": alias, "models": ["gpt-4o"], "max_budget": 5}


def test_two_different_requests_are_never_answered_with_one_team(
    client: PluginClient, litellm: FakeLiteLLM
) -> None:
    both_there = threading.Barrier(2)
    for alias in ("a", "b"):
        litellm.post(
            "/team/new",
            body={"team_alias": alias},
            json={"team_id": f"id-{alias}", "team_alias": alias},
            meanwhile=lambda: both_there.wait(60) and None,
        )

    def create(alias: str) -> Any:
        return client.post("/teams", json=_new_team(alias), who="dave").get_json()["team_id"]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(create, ["a", "b"])) == ["id-a", "id-b"]


def test_the_same_request_sent_twice_at_once_makes_one_team(
    client: PluginClient, litellm: FakeLiteLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    making, joined = threading.Event(), threading.Event()

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if making.is_set():
                joined.set()
            return super().wait(timeout)

    def make() -> None:
        making.set()
        assert joined.wait(60)

    monkeypatch.setattr("litellm_plugin.cache.single_flight.Event", Watched)
    # The first request is answered when the second has joined it.
    litellm.post("/team/new", json={"team_id": "one"}, meanwhile=make)

    def create(_: int) -> Any:
        return client.post("/teams", json=_new_team("a"), who="dave").get_json()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(create, range(2))) == [{"team_id": "one"}] * 2
    assert len(litellm.writes) == 1


def test_the_managed_list_shows_what_a_team_may_use(
    client: PluginClient, litellm: FakeLiteLLM
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
    teams = client.get("/teams/managed", who="dave").get_json()
    assert [team.get("object_permission") for team in teams] == [attached, None]
    assert len(litellm.reads) == 2


def test_the_managed_list_never_shows_a_team_as_bare_because_litellm_failed(
    client: PluginClient, litellm: FakeLiteLLM
) -> None:
    row = {"team_id": "t", "metadata": OWNED, "object_permission_id": "op"}
    litellm.get("/team/list", json=[row])
    litellm.get("/team/info", status=500)
    told = json_of(client.get("/teams/managed", who="dave"), 500)
    assert "the objects of team t" in told["error"]


# -- the fields of a team ------------------------------------------------------


@pytest.fixture
def owned(litellm: FakeLiteLLM) -> FakeLiteLLM:
    """LiteLLM has one team, which is the group's, and takes every change."""
    row = {"team_id": "owned", "metadata": OWNED, "object_permission": OBJECTS}
    litellm.get("/team/info", json={"team_id": "owned", "team_info": row})
    litellm.post("/team/new", json={"team_id": "new"})
    litellm.post("/team/update", json={"team_id": "owned", "data": row})
    litellm.post("/team/member_add", json={})
    return litellm


def _set(client: PluginClient, dave: str, way: str, field: str, value: Any) -> Any:
    """Set one field of a team, by creating one or by changing one."""
    if way == "create":
        return client.post("/teams", json={**_new_team("a"), field: value}, who=dave)
    return client.patch("/teams/owned", json={field: value}, who=dave)


HUGE = 10**300
WRONG: dict[str, list[Any]] = {
    "team_alias": [None, " ", 5, ["a"], "a\u200bb", "a\u202eb", "a\nb", "\u2060", "a" * 513],
    "models": [None, [], "gpt-4o", [5], [None], ["other"], {"gpt-4o": 1}],
    "max_budget": [0, -1, "5", True, [5], 1000.01, 1e308, HUGE],
    "budget_duration": ["1s", "10m", "23h", "0d", "-1d", "zzz", "1dx", "1.5d", 30, True, ["30d"]],
    "tpm_limit": [-1, "abc", "5", 1.5, True, [5], {}, 2**63, HUGE],
    "rpm_limit": [-1, "abc", "5", 1.5, True, [5], {}, 2**63, HUGE],
    "blocked": [None, "yes", 1, []],
}


@pytest.mark.parametrize("way", ["create", "change"])
@pytest.mark.parametrize("field", WRONG)
def test_what_is_no_value_of_a_field_is_refused_by_name(
    client: PluginClient, owned: FakeLiteLLM, way: str, field: str
) -> None:
    for value in WRONG[field]:
        answer = _set(client, "dave", way, field, value)
        assert answer.status_code == 400, value
        assert (field if field != "models" else "model") in answer.get_json()["error"], value
    assert owned.writes == []


RIGHT: list[tuple[str, Any, Any]] = [
    ("team_alias", " Zoë's team ", "Zoë's team"),
    ("models", ["gpt-4o-mini", "beta-models"], ["gpt-4o-mini", "beta-models"]),
    ("max_budget", 1000, 1000),
    ("budget_duration", "1d", "1d"),
    ("budget_duration", "24h", "24h"),
    ("budget_duration", "86400s", "86400s"),
    ("budget_duration", "2w", "2w"),
    ("budget_duration", "1mo", "1mo"),
    ("budget_duration", "1y", "365d"),
    ("tpm_limit", 0, 0),
    ("rpm_limit", 10.0, 10),
    ("rpm_limit", 2**63 - 1, 2**63 - 1),
    ("blocked", True, True),
]


@pytest.mark.parametrize("way", ["create", "change"])
def test_a_field_is_sent_as_litellm_takes_it(
    client: PluginClient, owned: FakeLiteLLM, way: str
) -> None:
    for field, value, sent in RIGHT:
        owned.calls.clear()
        assert _set(client, "dave", way, field, value).status_code == 200, (field, value)
        assert [call.body[field] for call in owned.writes] == [sent]


def test_every_field_that_is_documented_is_walked(client: PluginClient) -> None:
    schemas = client.get("/openapi.json", who="dave").get_json()["components"]["schemas"]
    for body in ("NewTeam", "TeamChange"):
        named = schemas[body]["properties"].keys() - {"expectedUpdatedAtIso"}
        assert named == WRONG.keys() == {field for field, *_ in RIGHT}


@pytest.mark.parametrize("field", ["budget_duration", "tpm_limit", "rpm_limit"])
def test_null_is_as_if_the_field_were_not_there(
    client: PluginClient, owned: FakeLiteLLM, field: str
) -> None:
    assert _set(client, "dave", "change", field, None).status_code == 400
    assert _set(client, "dave", "create", field, None).status_code == 200
    (made,) = owned.writes
    assert made.body.get(field) == ("30d" if field == "budget_duration" else None)


def test_a_change_that_would_take_the_name_away_changes_nothing_else(
    client: PluginClient, owned: FakeLiteLLM
) -> None:
    change = {"team_alias": None, "tpm_limit": 5}
    answer = client.patch("/teams/owned", json=change, who="dave")
    assert (answer.status_code, answer.get_json()["error"]) == (400, "team_alias must not be empty")
    assert owned.writes == []


def test_an_empty_period_of_the_dialog_changes_nothing(
    client: PluginClient, owned: FakeLiteLLM
) -> None:
    change = {"rpm_limit": 1, "budget_duration": ""}
    assert client.patch("/teams/owned", json=change, who="dave").status_code == 200
    (sent,) = owned.writes
    assert sent.body["rpm_limit"] == 1
    assert "budget_duration" not in sent.body


def test_a_team_without_a_budget_keeps_the_period_that_its_spend_is_reset_after(
    client: PluginClient, owned: FakeLiteLLM
) -> None:
    team = {**_new_team("a"), "max_budget": None, "budget_duration": "7d"}
    assert client.post("/teams", json=team, who="dave").status_code == 200
    (made,) = owned.writes
    assert "max_budget" not in made.body
    assert made.body["budget_duration"] == "7d"


@pytest.mark.parametrize("budget", [1000.01, 1e308, HUGE, -1, True, "1"])
def test_no_member_may_spend_more_than_a_team(
    client: PluginClient, owned: FakeLiteLLM, budget: Any
) -> None:
    member = {"userEntityRef": "user:default/bob", "maxBudgetInTeam": budget}
    told = json_of(client.post("/teams/owned/members", json=member, who="dave"), 400)
    assert "maxBudgetInTeam" in told["error"]
    assert owned.writes == []


@pytest.mark.parametrize("variant", ["wildcards"])
@pytest.mark.parametrize("way", ["create", "change"])
def test_a_wildcard_allows_every_model_it_stands_for(
    client: PluginClient, owned: FakeLiteLLM, way: str
) -> None:
    allowed = ("openai/gpt-4o", "openai/*", "gpt-4o", "beta-models")
    for model in (*allowed, "openai", "openai2/gpt-4o", "gpt-4o-mini", "*", "all-proxy-models"):
        owned.calls.clear()
        status = _set(client, "dave", way, "models", [model]).status_code
        assert (status, len(owned.writes)) == ((200, 1) if model in allowed else (400, 0)), model


# -- vector stores and MCP servers -----------------------------------------------

STORES = [
    {"vector_store_id": "vs-7", "vector_store_name": "Handbook"},
    {"vector_store_id": "vs-8", "vector_store_name": "Payroll"},
    # Somebody has named a store like another one's id, and one like an allowed one.
    {"vector_store_id": "vs-9", "vector_store_name": "vs-7"},
]
SERVERS = [
    {"server_id": "m1", "server_name": "docs", "alias": None, "url": "http://m1"},
    {"server_id": "m2", "server_name": "x", "alias": "other"},
    {"server_id": "m3", "alias": "beta", "mcp_access_groups": ["mcp-beta", "more"]},
    {"server_id": "m4", "alias": "docs", "mcp_access_groups": None},
]


@pytest.fixture
def objects(owned: FakeLiteLLM) -> FakeLiteLLM:
    owned.get("/vector_store/list", json={"data": STORES})
    owned.get("/v1/mcp/server", json=SERVERS)
    return owned


@pytest.mark.parametrize("variant", ["by-name"])
def test_what_may_be_given_is_listed_by_name_id_and_access_group(
    client: PluginClient, objects: FakeLiteLLM
) -> None:
    stores = client.get("/vector-stores", who="dave").get_json()
    assert stores == [{"id": "vs-7", "name": "Handbook"}]
    servers = client.get("/mcp-servers", who="dave").get_json()
    assert servers == [
        {"id": "m1", "name": "docs", "url": "http://m1"},
        {"id": "m3", "name": "beta"},
        {"id": "m4", "name": "docs"},
    ]


def test_an_object_that_is_named_twice_is_given_once(
    client: PluginClient, owned: FakeLiteLLM
) -> None:
    wanted = {"vector_stores": ["vs-docs", "vs-docs"]}
    answer = client.put("/teams/owned/knowledge-bases", json=wanted, who="dave")
    assert answer.status_code == 200
    assert owned.writes[-1].body["object_permission"] == {"vector_stores": ["vs-docs"]}


@pytest.mark.parametrize("variant", ["by-name"])
@pytest.mark.parametrize(
    ("kind", "wanted", "sent"),
    [
        ("knowledge-bases", ["Handbook"], ["vs-7"]),
        ("knowledge-bases", ["vs-7", "Handbook"], ["vs-7"]),
        ("knowledge-bases", ["Handbook", "Payroll"], "vector store(s) not in the allowed set"),
        ("knowledge-bases", ["vs-9"], "vs-9"),
        ("knowledge-bases", ["vs-docs"], "vs-docs"),  # the team has it, and may not be given it
        ("knowledge-bases", [], []),
        ("mcp-servers", ["m1", "m4"], ["m1", "m4"]),
        ("mcp-servers", ["beta"], ["m3"]),
        ("mcp-servers", ["docs"], "of the same name, use the ids instead: docs"),
        ("mcp-servers", ["m2"], "m2"),
        ("mcp-servers", ["other"], "other"),
        ("mcp-servers", ["mcp-beta"], "mcp-beta"),  # a group is no server
        ("mcp-servers", [""], "not in the allowed set"),
    ],
)
def test_an_object_is_named_by_id_or_name_and_sent_by_id(
    client: PluginClient, objects: FakeLiteLLM, kind: str, wanted: list[str], sent: list[str] | str
) -> None:
    field = {"knowledge-bases": "vector_stores", "mcp-servers": "mcp_servers"}[kind]
    answer = client.put(f"/teams/owned/{kind}", json={field: wanted}, who="dave")
    if isinstance(sent, str):
        assert answer.status_code == 400
        assert sent in answer.get_json()["error"]
        assert objects.writes == []
    else:
        assert answer.status_code == 200
        assert [call.body["object_permission"] for call in objects.writes] == [{field: sent}]


@pytest.mark.parametrize("told", [{}, {"object_permission": None}])
def test_what_a_change_is_not_answered_with_is_read_again(
    client: PluginClient, litellm: FakeLiteLLM, told: dict[str, Any]
) -> None:
    row = {"team_id": "owned", "metadata": OWNED}
    litellm.get(
        "/team/info", json={"team_id": "owned", "team_info": row | {"object_permission": OBJECTS}}
    )
    litellm.post("/team/update", json={"team_id": "owned", "data": row | told})
    answer = client.patch("/teams/owned", json={"team_alias": "After"}, who="dave")
    assert answer.get_json()["object_permission"] == OBJECTS
    assert [call.body for call in litellm.writes if "object_permission" in call.body] == []


def test_a_team_that_is_being_changed_all_the_time_is_not_changed(
    client: PluginClient, owned: FakeLiteLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "litellm_plugin.cache.cache.Cache.lock", lambda *_, **__: nullcontext(enter_result=False)
    )
    for method, path in (
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/members"),
        ("DELETE", "/members?userEntityRef=bob"),
        ("PUT", "/knowledge-bases"),
        ("PUT", "/mcp-servers"),
        ("POST", f"/keys/{'1' * 64}/rotate"),
        ("DELETE", f"/keys/{'1' * 64}"),
    ):
        told = json_of(client.request(method, f"/teams/owned{path}", json={}, who="dave"), 503)
        assert "Try again" in told["error"]
    assert owned.calls == []
