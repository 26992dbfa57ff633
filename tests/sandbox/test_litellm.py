"""The LiteLLM stand-in against what was observed on LiteLLM."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from litellm_plugin.sandbox.activity import UsageRow
from litellm_plugin.sandbox.litellm import MAX_BODY_BYTES, LiteLLMStandIn

KEY = "sk-of-these-tests"
NOW = 1_795_426_567.25  # Monday, 2026-11-23T09:36:07.250Z

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def standin() -> LiteLLMStandIn:
    return LiteLLMStandIn(KEY, clock=lambda: NOW)


@pytest.fixture
def ask(standin: LiteLLMStandIn) -> Ask:
    client = standin.app.test_client()

    def ask(
        method: str, path: str, body: Any = None, *, bearer: str | None = KEY, **query: Any
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        answer = client.open(
            path, method=method, json=body, query_string=query or None, headers=headers
        )
        return answer.status_code, answer.get_json()

    return ask


@pytest.fixture
def get(ask: Ask) -> Ask:
    return lambda path, **query: ask("GET", path, **query)


@pytest.fixture
def post(ask: Ask) -> Ask:
    return lambda path, body: ask("POST", path, body)


@pytest.fixture
def bobs_key(post: Ask) -> Any:
    post("/user/new", {"user_id": "bob", "user_email": "bob@x.com", "auto_create_key": False})
    members = [{"role": "user", "user_id": "bob"}]
    post("/team/new", {"team_id": "t1", "team_alias": "One", "members_with_roles": members})
    return post("/key/generate", {"user_id": "bob", "team_id": "t1", "key_alias": "mine"})[1]


def test_keys_are_listed_by_owner_and_name_the_newest_first(get: Ask, post: Ask) -> None:
    for alias in ("one", "two", "three"):
        post("/key/generate", {"user_id": "bob", "key_alias": alias, "metadata": {"a": alias}})
    post("/key/generate", {"key_alias": "nobodys"})

    status, listed = get("/key/list", user_id="bob", return_full_object="true", size="2")

    assert status == 200
    assert [key["key_alias"] for key in listed["keys"]] == ["three", "two"]
    assert (listed["total"], listed["total_pages"]) == (3, 2)
    (named,) = get("/key/list", key_alias="one")[1]["keys"]
    assert (named["user_id"], named["metadata"], len(named["token"])) == ("bob", {"a": "one"}, 64)


def usage(day: str, spend: float, *, token: str = "h" * 64, **fields: Any) -> UsageRow:
    row = {"user_id": "bob", "team_id": "t1", "model": "gpt-4o", "deployment": "openai/gpt-4o"}
    counts = {"prompt_tokens": 10, "completion_tokens": 5, "successful_requests": 2}
    return UsageRow(
        **{**row, **counts, **fields},
        day=date.fromisoformat(day),
        token=token,
        spend=spend,
    )


class TestTheMasterKey:
    @pytest.mark.parametrize("key", [None, "wrong", "sk-wrong", KEY + "x"])
    def test_is_wanted_everywhere(self, standin: LiteLLMStandIn, ask: Ask, key: str | None) -> None:
        for rule in standin.app.url_map.iter_rules():
            if rule.rule == "/health/readiness":  # which tells anybody
                continue
            method = next(iter({"GET", "POST"} & (rule.methods or set())))
            path = rule.rule.replace("<path:key>", "k")
            status, body = ask(method, path, {} if method == "POST" else None, bearer=key)
            assert (status, body["error"]["type"]) == (401, "token_not_found_in_db"), path

    def test_is_not_any_key_that_it_made(self, ask: Ask, bobs_key: Any) -> None:
        assert ask("GET", "/team/list", bearer=bobs_key["key"])[0] == 401

    def test_is_not_told(self, ask: Ask) -> None:
        assert KEY not in json.dumps(ask("GET", "/models", bearer="sk-wrong"))


@pytest.mark.parametrize(
    ("path", "body", "status", "shape", "said"),
    [
        ("/user/new", {"user_id": "bob"}, 409, "error", "{'error': 'User with id bob already"),
        ("/user/new", {"user_email": "bob@x.com"}, 409, "error", "email bob@x.com already exists"),
        ("/user/new", {"user_role": "boss"}, 422, "detail[]", "literal_error"),
        ("/user/new", {"budget_duration": "zzz"}, 400, "error", "Invalid budget_duration"),
        ("/user/new", {"max_budget": "inf"}, 400, "error", "non-negative finite number"),
        ("/key/generate", {"key_alias": "mine"}, 400, "error", "alias 'mine' already exists"),
        ("/key/generate", {"duration": "xyz"}, 500, "error", "Invalid duration format"),
        ("/key/generate", {"duration": "9eons"}, 500, "error", "Unsupported duration unit"),
        ("/key/generate", {"max_budget": "abc"}, 422, "detail[]", "float_parsing"),
        ("/key/generate", {"max_budget": -1}, 400, "error", "Received: -1.0"),
        ("/key/generate", {"max_budget": []}, 422, "detail[]", "float_type"),
        ("/key/generate", {"tpm_limit": "abc"}, 422, "detail[]", "int_parsing"),
        ("/key/generate", {"tpm_limit": 1.5}, 422, "detail[]", "valid integer"),
        ("/key/generate", {"models": "abc"}, 422, "detail[]", "list_type"),
        ("/key/generate", {"metadata": "abc"}, 422, "detail[]", "dict_type"),
        ("/key/generate", {"user_id": 5}, 422, "detail[]", "string_type"),
        ("/key/generate", {"key_type": "root"}, 422, "detail[]", "enum"),
        ("/key/generate", [1], 422, "detail[]", "model_attributes_type"),
        ("/key/update", {"key": "nope"}, 404, "error", "Key not found."),
        ("/key/update", {"key": "<key>", "duration": "xyz"}, 400, "error", "Invalid duration"),
        ("/key/update", {"key": "<key>", "models": None}, 400, "error", "Unable to match"),
        ("/key/update", {"key": "<key>", "team_id": "t2"}, 403, "error", "not a member"),
        ("/key/block", {}, 422, "detail[]", "Field required"),
        ("/key/block", {"key": "sk-nope"}, 404, "error", "Key not found."),
        ("/key/sk-nope/reset_spend", {"reset_to": 0}, 404, "detail", "Key sk-nope not found."),
        ("/key/<key>/reset_spend", {}, 422, "detail[]", "Field required"),
        ("/key/delete", {"keys": ["nope"]}, 404, "error", "{'error': 'No keys found'}"),
        ("/team/new", {"team_id": "t1"}, 400, "error", "Team id = t1 already exists"),
        ("/team/new", {"max_budget": -4}, 400, "error", "Received: -4.0"),
        ("/team/update", {"team_id": "t2"}, 404, "error", "Team not found, passed team_id=t2"),
        ("/team/update", {"team_id": "t1", "models": None}, 500, "error", "Unable to match"),
        ("/team/update", {}, 422, "detail[]", "Field required"),
        ("/team/delete", {"team_ids": ["t1", "t2"]}, 404, "detail", "passed team_id=t2"),
        ("/team/member_add", {"team_id": "t1"}, 422, "detail[]", "Field required"),
        ("/team/member_add", {"team_id": "t1", "member": 5}, 422, "detail[]", "user id or"),
        (
            "/team/member_add",
            {"team_id": "t2", "member": {"user_id": "x"}},
            404,
            "detail",
            "Team doesn't exist in db. Team=t2",
        ),
        (
            "/team/member_add",
            {"team_id": "t1", "member": {"user_id": "bob"}},
            400,
            "error",
            "User already in team",
        ),
        (
            "/team/member_add",
            {"team_id": "t1", "member": {"user_id": "x", "role": "admin"}},
            400,
            "detail",
            "premium feature",
        ),
        (
            "/team/member_delete",
            {"team_id": "t1", "user_id": "x"},
            400,
            "detail",
            "User not found in team",
        ),
        (
            "/team/member_delete",
            {"team_id": "t2", "user_id": "x"},
            400,
            "detail",
            "Team id=t2 does not exist in db",
        ),
    ],
)
def test_it_refuses_in_litellms_words_and_changes_nothing(
    standin: LiteLLMStandIn,
    post: Ask,
    bobs_key: Any,
    path: str,
    body: Any,
    status: int,
    shape: str,
    said: str,
) -> None:
    def hashed(value: str) -> str:
        return value.replace("<key>", bobs_key["token"])

    def rows() -> str:
        return json.dumps([standin.store.users, standin.store.keys, standin.store.teams])

    before = rows()
    answered, answer = post(hashed(path), json.loads(hashed(json.dumps(body))))
    assert answered == status
    match shape:
        case "error":
            assert set(answer["error"]) == {"message", "type", "param", "code"}
            assert answer["error"]["code"] == str(status)
        case "detail":
            assert set(answer["detail"]) == {"error"}
        case _:
            assert set(answer["detail"][0]) == {"type", "loc", "msg"}
    assert said in str(answer)
    assert rows() == before


@pytest.mark.parametrize(
    ("path", "query", "status", "said"),
    [
        ("/user/info", {"user_id": "nope"}, 404, "User nope not found"),
        ("/user/info", {"user_id": ""}, 404, "User  not found"),
        ("/v2/user/info", {"user_id": "nope"}, 404, "User not found: nope"),
        ("/v2/team/list", {"user_id": "nope"}, 404, "User not found, passed user_id=nope"),
        ("/user/list", {"page_size": 101}, 422, "less_than_equal"),
        ("/key/info", {"key": "nope"}, 404, "Key not found in database"),
        ("/team/info", {"team_id": "nope"}, 404, "Team not found, passed team id: nope."),
        (
            "/user/daily/activity",
            {"start_date": "20261101", "end_date": "2026-11-30"},
            400,
            "valid YYYY-MM-DD",
        ),
        (
            "/user/daily/activity/aggregated",
            {"start_date": "2026-02-31", "end_date": "y"},
            400,
            "valid YYYY-MM-DD",
        ),
        ("/user/daily/activity", {"page_size": 1001}, 422, "less_than_equal"),
        ("/user/daily/activity", {"page": "x"}, 422, "int_parsing"),
        ("/audit", {"page": 0}, 422, "greater_than_equal"),
        ("/audit", {"page_size": 101}, 422, "less_than_equal"),
        ("/nope", {}, 404, "Not Found"),
        ("/team/new", {}, 405, "Method Not Allowed"),
    ],
)
def test_it_refuses_to_read_in_litellms_words(
    get: Ask, path: str, query: dict[str, Any], status: int, said: str
) -> None:
    answered, answer = get(path, **query)
    assert answered == status
    assert said in str(answer)


class TestUsers:
    def test_a_new_user_is_told_with_keys_and_teams(self, get: Ask, bobs_key: Any) -> None:
        status, told = get("/user/info", user_id="bob")
        assert status == 200
        assert told["user_info"]["teams"] == ["t1"]
        (key,) = told["keys"]
        assert (key["token"], key["team_alias"]) == (bobs_key["token"], "One")
        (team,) = told["teams"]
        assert [member["user_id"] for member in team["members_with_roles"]] == [
            "bob",
            "default_user_id",
        ]
        assert [row["user_id"] for row in team["team_memberships"]] == ["bob"]
        assert team["keys"][0]["token"] == bobs_key["token"]

    def test_each_part_of_a_user_is_told_by_itself(
        self, get: Ask, post: Ask, bobs_key: Any
    ) -> None:
        post("/key/generate", {"user_id": "bob", "key_alias": "second"})
        whole = get("/user/info", user_id="bob")[1]
        row = get("/v2/user/info", user_id="bob")[1]
        assert row.items() <= {**whole["user_info"]}.items()
        assert "organization_memberships" not in row
        query = {"user_id": "bob", "sort_order": "asc"}
        keys = get("/key/list", **query)[1]["keys"]
        assert [key["token"] for key in keys] == [key["token"] for key in whole["keys"]]
        assert get("/key/list", user_id="bob")[1]["keys"] == keys[::-1]
        (team,) = get("/v2/team/list", user_id="bob")[1]["teams"]
        assert team.keys().isdisjoint({"keys", "team_memberships"})

    def test_users_are_listed_by_parts_of_their_ids(
        self, get: Ask, post: Ask, bobs_key: Any
    ) -> None:
        post("/user/new", {"user_id": "Bobby", "auto_create_key": False})
        found = get("/user/list", user_ids="bob")[1]["users"]
        assert [(user["user_id"], user["key_count"]) for user in found] == [
            ("bob", 1),
            ("Bobby", 0),
        ]

    def test_a_key_without_a_team_has_none_as_text(self, get: Ask, post: Ask) -> None:
        post("/user/new", {"user_id": "eve"})
        assert get("/user/info", user_id="eve")[1]["keys"][0]["team_alias"] == "None"

    def test_a_key_comes_with_a_new_user_unless_told_otherwise(self, post: Ask) -> None:
        assert post("/user/new", {"user_id": "a"})[1]["key"].startswith("sk-")
        made = post("/user/new", {"user_id": "b", "auto_create_key": False})[1]
        assert made["key"] == ""

    def test_unknown_teams_of_a_new_user_are_passed_over(self, post: Ask, bobs_key: Any) -> None:
        assert post("/user/new", {"user_id": "eve", "teams": ["t1", "t2"]})[1]["teams"] == ["t1"]

    def test_an_update_creates_an_unknown_user(self, get: Ask, post: Ask) -> None:
        status, answer = post("/user/update", {"user_id": "eve", "max_budget": 7})
        assert (status, answer["data"]["max_budget"]) == (200, 7.0)
        assert get("/user/info", user_id="eve")[0] == 200

    def test_a_plus_in_a_user_id_is_a_plus(self, get: Ask, post: Ask) -> None:
        post("/user/new", {"user_id": "with+plus and space"})
        assert get("/user/info?user_id=with+plus%20and%20space")[0] == 200
        assert get("/user/info?user_id=with%2Bplus+and+space")[0] == 404


class TestKeys:
    def test_the_secret_is_told_once(self, get: Ask, bobs_key: Any) -> None:
        secret = bobs_key["key"]
        assert hashlib.sha256(secret.encode()).hexdigest() == bobs_key["token"]
        assert bobs_key["token_id"] == bobs_key["token"]
        assert bobs_key["key_name"] == f"sk-...{secret[-4:]}"
        for told in (get("/user/info", user_id="bob"), get("/team/info", team_id="t1")):
            assert secret not in json.dumps(told)

    def test_both_secret_and_hash_name_a_key(self, get: Ask, bobs_key: Any) -> None:
        for named in (bobs_key["key"], bobs_key["token"]):
            status, told = get("/key/info", key=named)
            assert (status, told["key"], told["info"]["status"]) == (200, named, "active")
            assert "token" not in told["info"]

    def test_times_are_written_in_both_of_litellms_ways(self, get: Ask, post: Ask) -> None:
        made = post("/key/generate", {"user_id": "bob", "duration": "30d"})[1]
        assert made["expires"] == "2026-12-23T09:36:07.250000Z"
        told = get("/key/info", key=made["token"])[1]["info"]
        assert told["expires"] == "2026-12-23T09:36:07.250000+00:00"
        assert told["created_at"] == "2026-11-23T09:36:07.250000+00:00"

    def test_an_update_changes_what_is_sent(self, post: Ask, bobs_key: Any) -> None:
        key = {"key": bobs_key["token"]}
        post("/key/update", {**key, "max_budget": 5, "metadata": {"a": 1}, "duration": "1d"})
        answer = post("/key/update", {**key, "metadata": {"b": 2}, "key_alias": "mine"})[1]
        assert (answer["max_budget"], answer["metadata"]) == (5.0, {"b": 2})
        assert answer["expires"] is not None
        answer = post("/key/update", {**key, "duration": "-1", "max_budget": None})[1]
        assert (answer["expires"], answer["max_budget"]) == (None, None)

    def test_blocking_is_undone(self, get: Ask, post: Ask, bobs_key: Any) -> None:
        key = {"key": bobs_key["token"]}
        assert post("/key/block", key)[1]["blocked"] is True
        assert get("/key/info", **key)[1]["info"]["status"] == "revoked"
        assert post("/key/unblock", key)[1]["blocked"] is False
        assert get("/key/info", **key)[1]["info"]["status"] == "active"

    def test_a_key_of_no_time_is_expired(self, get: Ask, post: Ask) -> None:
        made = post("/key/generate", {"duration": "0s"})[1]
        assert get("/key/info", key=made["token"])[1]["info"]["status"] == "expired"

    def test_spend_is_reset(self, standin: LiteLLMStandIn, post: Ask, bobs_key: Any) -> None:
        standin.store.add_usage([usage("2026-11-23", 2.5, token=bobs_key["token"])])
        status, answer = post(f"/key/{bobs_key['token']}/reset_spend", {"reset_to": 0})
        assert (status, answer["previous_spend"], answer["spend"]) == (200, 2.5, 0.0)

    def test_a_deleted_key_is_still_told(self, get: Ask, post: Ask, bobs_key: Any) -> None:
        token = bobs_key["token"]
        assert post("/key/delete", {"keys": [token, "nope"]}) == (
            200,
            {"deleted_keys": [token, "nope"]},
        )
        assert get("/key/info", key=token)[1]["info"]["status"] == "deleted"
        assert get("/user/info", user_id="bob")[1]["keys"] == []

    def test_a_type_sets_the_routes(self, post: Ask) -> None:
        made = post("/key/generate", {"key_type": "llm_api"})[1]
        assert (made["key_type"], made["allowed_routes"]) == ("llm_api", ["llm_api_routes"])


class TestTeams:
    def test_objects_are_told_by_info_and_update_only(
        self, get: Ask, post: Ask, bobs_key: Any
    ) -> None:
        objects = {"vector_stores": ["vs"], "mcp_servers": []}
        change = {"team_id": "t1", "object_permission": objects}
        updated = post("/team/update", change)[1]["data"]
        assert updated["object_permission"]["vector_stores"] == ["vs"]
        info = get("/team/info", team_id="t1")[1]["team_info"]
        assert info["object_permission"]["vector_stores"] == ["vs"]
        (listed,) = get("/team/list")[1]
        assert listed["object_permission"] is None
        assert listed["object_permission_id"] == info["object_permission_id"]

    def test_members_come_with_a_budget_and_go_with_their_keys(
        self, get: Ask, post: Ask, bobs_key: Any
    ) -> None:
        added = {"team_id": "t1", "member": {"role": "user", "user_id": "eve"}}
        assert post("/team/member_add", {**added, "max_budget_in_team": 5})[1]["team_id"] == "t1"
        memberships = get("/team/info", team_id="t1")[1]["team_memberships"]
        budgets = {row["user_id"]: row["litellm_budget_table"] for row in memberships}
        assert budgets["eve"]["max_budget"] == 5.0
        made = post("/key/generate", {"user_id": "eve", "team_id": "t1"})[1]
        answer = post("/team/member_delete", {"team_id": "t1", "user_id": "eve"})[1]
        assert "eve" not in [member["user_id"] for member in answer["members_with_roles"]]
        tokens = [key["token"] for key in get("/team/info", team_id="t1")[1]["keys"]]
        assert tokens == [bobs_key["token"]]
        assert get("/user/info", user_id="eve")[1]["teams"] == []
        assert get("/key/info", key=made["token"])[1]["info"]["status"] == "deleted"

    def test_a_deleted_team_takes_its_keys_along(self, get: Ask, post: Ask, bobs_key: Any) -> None:
        assert post("/team/delete", {"team_ids": ["t1"]}) == (200, {"deleted_teams": ["t1"]})
        told = get("/user/info", user_id="bob")[1]
        assert (told["keys"], told["teams"]) == ([], [])
        assert get("/team/info", team_id="t1")[0] == 404

    def test_the_list_is_of_everybody_or_of_one(self, get: Ask, post: Ask, bobs_key: Any) -> None:
        post("/team/new", {"team_id": "t2"})
        assert [team["team_id"] for team in get("/team/list")[1]] == ["t1", "t2"]
        assert [team["team_id"] for team in get("/team/list", user_id="bob")[1]] == ["t1"]
        assert get("/team/list", user_id="nope") == (200, [])

    @pytest.mark.parametrize(
        ("duration", "reset"),
        [
            ("30d", "2026-12-01T00:00:00Z"),
            ("7d", "2026-11-30T00:00:00Z"),
            ("10d", "2026-12-03T00:00:00Z"),
            ("24h", "2026-11-24T00:00:00Z"),
            ("1h", "2026-11-23T10:00:00Z"),
            (None, None),
        ],
    )
    def test_budgets_start_anew_when_litellms_do(
        self, post: Ask, duration: str | None, reset: str | None
    ) -> None:
        made = post("/team/new", {"budget_duration": duration})[1]
        assert made["budget_reset_at"] == reset


class TestUsage:
    def test_pages_add_up_to_the_aggregated_answer(self, standin: LiteLLMStandIn, get: Ask) -> None:
        days = [f"2026-11-{day:02}" for day in range(1, 8)]
        standin.store.add_usage(
            usage(day, 0.5, token=token * 64) for day in days for token in ("a", "b", "c")
        )
        query = {"user_id": "bob", "start_date": days[0], "end_date": days[-1]}
        whole = get("/user/daily/activity/aggregated", **query)[1]
        assert [day["date"] for day in whole["results"]] == days[::-1]
        assert whole["metadata"]["total_spend"] == 10.5
        assert whole["metadata"]["total_api_keys"] == 3
        pages = [
            get("/user/daily/activity", **query, page=page, page_size=4)[1] for page in range(1, 8)
        ]
        assert {page["metadata"]["total_pages"] for page in pages} == {6}
        assert sum(page["metadata"]["total_spend"] for page in pages) == 10.5
        assert pages[6]["results"] == []
        # A page is one of rows: the third row of a day may be on the next page.
        assert pages[0]["results"][1]["date"] == pages[1]["results"][0]["date"]

    def test_what_keys_used_adds_up_to_the_aggregated_answer(
        self, standin: LiteLLMStandIn, get: Ask
    ) -> None:
        standin.store.add_usage(
            usage(f"2026-11-0{day}", day * price, token=token * 64)
            for day in range(1, 8)
            for token, price in (("a", 0.25), ("b", 1.0), ("c", 0.5))
        )
        for owner, whose in (("user", {"user_id": "bob"}), ("team", {"team_ids": "t1"})):
            query = {**whose, "start_date": "2026-11-01", "end_date": "2026-11-03"}
            path = f"/{owner}/daily/activity/aggregated"
            first = get(f"{path}/keys", **query, limit=2)[1]
            second = get(f"{path}/keys", **query, limit=2, offset=2)[1]
            keys = first["api_keys"] + second["api_keys"]
            assert first["total_api_keys"] == second["total_api_keys"] == 3
            assert [key["metrics"]["spend"] for key in keys] == [6.0, 3.0, 1.5]
            assert [key["api_key"][0] for key in keys] == ["b", "c", "a"]
            assert get(path, **query)[1]["metadata"]["total_spend"] == 10.5

    def test_a_day_is_broken_down(self, standin: LiteLLMStandIn, get: Ask, bobs_key: Any) -> None:
        token = bobs_key["token"]
        standin.store.add_usage([usage("2026-11-02", 0.5, token=token, failed_requests=1)])
        query = {"start_date": "2026-11-02", "end_date": "2026-11-02"}
        (day,) = get("/user/daily/activity", user_id="bob", **query)[1]["results"]
        assert day["metrics"]["api_requests"] == 3
        assert day["metrics"]["total_tokens"] == 15
        breakdown = day["breakdown"]
        assert list(breakdown["models"]) == ["openai/gpt-4o"]
        assert list(breakdown["model_groups"]) == ["gpt-4o"]
        assert list(breakdown["entities"]) == ["bob"]
        assert breakdown["api_keys"][token]["metadata"] == {
            "key_alias": "mine",
            "team_id": "t1",
            "user_id": "bob",
            "user_email": "bob@x.com",
            "key_exists": True,
        }
        by_key = breakdown["model_groups"]["gpt-4o"]["api_key_breakdown"]
        assert by_key[token]["metrics"] == day["metrics"]

    def test_a_teams_usage_is_the_teams(self, standin: LiteLLMStandIn, get: Ask) -> None:
        standin.store.add_usage([usage("2026-11-02", 1), usage("2026-11-02", 2, team_id="t2")])
        query = {"start_date": "2026-11-01", "end_date": "2026-11-03"}
        for path in ("/team/daily/activity", "/team/daily/activity/aggregated"):
            answer = get(path, team_ids="t2", **query)[1]
            assert answer["metadata"]["total_spend"] == 2
            assert list(answer["results"][0]["breakdown"]["entities"]) == ["t2"]
        assert answer["metadata"]["api_key_limit"] == 100

    def test_nobodys_usage_is_empty(self, get: Ask) -> None:
        query = {"start_date": "2026-11-01", "end_date": "2026-11-03"}
        answer = get("/user/daily/activity", user_id="nope", **query)[1]
        assert answer["results"] == []
        assert (answer["metadata"]["total_pages"], answer["metadata"]["total_spend"]) == (0, 0.0)

    def test_it_is_booked_on_key_user_and_team(
        self, standin: LiteLLMStandIn, get: Ask, bobs_key: Any
    ) -> None:
        standin.store.add_usage([usage("2026-11-02", 1.5, token=bobs_key["token"])])
        told = get("/user/info", user_id="bob")[1]
        assert told["user_info"]["spend"] == told["keys"][0]["spend"] == 1.5
        assert told["teams"][0]["spend"] == 1.5


def test_the_audit_log_is_newest_first_and_filtered(get: Ask, post: Ask, bobs_key: Any) -> None:
    post("/key/delete", {"keys": [bobs_key["token"]]})
    log = get("/audit", page_size=1)[1]
    assert (log["total"], log["total_pages"]) == (4, 4)
    (entry,) = log["audit_logs"]
    assert (entry["action"], entry["object_id"]) == ("deleted", bobs_key["token"])
    assert get("/audit", action="created", table_name="LiteLLM_TeamTable")[1]["total"] == 1


def test_lists_are_told(standin: LiteLLMStandIn, get: Ask) -> None:
    info = {"mode": "chat", "max_input_tokens": 8}
    standin.store.models.append({"model_name": "m", "model_info": info})
    standin.store.vector_stores.append({"vector_store_id": "vs"})
    standin.store.mcp_servers.append({"server_id": "mcp"})
    assert get("/model/info")[1]["data"][0]["model_name"] == "m"
    assert get("/models")[1]["data"][0]["id"] == "m"
    assert get("/vector_store/list")[1]["data"] == [{"vector_store_id": "vs"}]
    assert get("/v1/mcp/server")[1] == [{"server_id": "mcp"}]


def test_a_body_has_a_limit(post: Ask) -> None:
    assert post("/user/new", {"metadata": {"a": "x" * MAX_BODY_BYTES}})[0] == 413


def test_it_forgets(standin: LiteLLMStandIn, get: Ask, bobs_key: Any) -> None:
    standin.store.reset()
    assert get("/user/info", user_id="bob")[0] == 404


def test_one_of_many_creations_wins(standin: LiteLLMStandIn) -> None:
    statuses = []
    start = threading.Barrier(8)

    def create() -> None:
        start.wait()
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = standin.app.test_client().post("/user/new", json={"user_id": "x"}, headers=headers)
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 7
