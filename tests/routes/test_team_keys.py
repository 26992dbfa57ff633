"""Keys that a team owns: its managers make, list, rotate and delete them, and no one else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from litellm_plugin.config.settings import Display, KeyPolicy, Settings
from litellm_plugin.keys import undelivered
from litellm_plugin.sandbox.refusals import proxy_error
from litellm_plugin.shapes import ROTATION, TEAM_KEY
from tests.cache.world import TEAM_ADMINS, Call, FailsError, World
from tests.client import json_of
from tests.fakes import Policy
from tests.fakes.network import dropped
from tests.keys.test_rotation import BRIDGED, STEPS, KilledError, fails, on
from tests.tokens import TokenFactory

Json = dict[str, Any]

BOB, DAVE = "bob@example.com", "dave@example.com"
NEW = {"alias": "nightly", "max_budget": 20, "duration": "90d"}
FOREIGN = "f" * 64


@pytest.fixture
def key_policy() -> KeyPolicy:
    return KeyPolicy()


@pytest.fixture
def display() -> Display:
    return Display()


@pytest.fixture
def world(
    settings: Settings,
    key_policy: KeyPolicy,
    display: Display,
    tokens: TokenFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """Bob is a member of team t1, which the team admins own; Alice and Dave are team admins."""
    monkeypatch.setattr(undelivered, "PAUSES", (0.0, 0.0))
    service = replace(settings.service, circuit_breaker=True, cache_seconds=60.0)
    settings = replace(settings, key_policy=key_policy, display=display, service=service)
    world = World(settings, tokens, tmp_path, monkeypatch, workers=2)
    world.people(bob=(), dave=(TEAM_ADMINS,), alice=(TEAM_ADMINS,))
    for name in ("bob", "dave"):
        world.get(name, "/user/info")
    world.litellm.stand_in.team_new(
        {
            "team_id": "t1",
            "models": ["gpt-4o-mini", "openai/*", "beta"],
            "metadata": {"owning_group": TEAM_ADMINS},
            "members_with_roles": [{"user_id": BOB, "role": "user"}],
        }
    )
    yield world
    for thread in threading.enumerate():
        if thread.name == "undelivered-keys":
            thread.join(10)


def create(world: World, worker: int = 0, **fields: Any) -> TestResponse:
    return world.ask("dave", "POST", "/teams/t1/keys", worker=worker, json={**NEW, **fields})


def made(world: World, **fields: Any) -> Json:
    """Create a key, and return the answer."""
    answer = create(world, **fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


def rotate(
    world: World, token: str, request: str | None = None, worker: int = 0, **body: Any
) -> TestResponse:
    headers = {} if request is None else {"Idempotency-Key": request}
    target = f"/teams/t1/keys/{token}/rotate"
    return world.ask("dave", "POST", target, worker=worker, json=body, headers=headers)


def listed(world: World, who: str = "dave") -> list[Json]:
    return list(world.get(who, "/teams/t1/keys"))


def rows(world: World) -> dict[str, Json]:
    """Return LiteLLM's rows of keys, by hash."""
    return world.litellm.stand_in.store.keys


def life_left(row: Json) -> timedelta:
    return datetime.fromisoformat(row["expires"]) - datetime.now(UTC)


# -- new keys ------------------------------------------------------------------


def test_a_key_belongs_to_the_team_and_to_no_person(world: World) -> None:
    key = made(world, models=["gpt-4o-mini"], tpm_limit=9, metadata={"purpose": "ci", TEAM_KEY: 0})
    assert key["key"].startswith("sk-")
    row = rows(world)[key["token"]]
    assert (row["user_id"], row["team_id"]) == (None, "t1")
    assert (row["key_alias"], row["max_budget"], row["tpm_limit"]) == ("nightly", 20, 9)
    assert row["allowed_routes"] == ["llm_api_routes"]
    assert abs(life_left(row) - timedelta(days=90)) < timedelta(minutes=1)
    about = row["metadata"]
    assert about[TEAM_KEY] is True
    assert about["service_account_id"] == "nightly"
    assert about["purpose"] == "ci"
    assert about["created_by_backstage_user"] == "user:default/dave"
    assert about["created_via"] == "backstage"


@pytest.mark.parametrize("left_out", sorted(NEW))
@pytest.mark.parametrize("value", [None, ""])
def test_a_key_has_a_name_an_end_and_a_budget(world: World, left_out: str, value: Any) -> None:
    for answer in (
        create(world, **{left_out: value}),
        world.ask(
            "dave",
            "POST",
            "/teams/t1/keys",
            json={name: NEW[name] for name in NEW if name != left_out},
        ),
    ):
        assert answer.status_code == 400
        assert left_out in answer.get_json()["hint"]
    assert rows(world) == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("duration", value) for value in ("366d", "2y", "13mo", "-1", 30)),
        *(("max_budget", value) for value in (0, -1, "5", True, 1000.01)),
        *(("budget_duration", value) for value in ("1h", "0s", "2mo")),
        *(("models", value) for value in ("gpt-4o", ["gpt-4o"], ["gpt-4o-mini", "other"], ["*"])),
        ("alias", "line\nbreak"),
        ("tpm_limit", -1),
        ("rpm_limit", 1.5),
        ("metadata", {"service_account_id": "x"}),
        ("metadata", {"guardrails": []}),
        ("user_id", BOB),
        ("team_id", "t1"),
        ("key_type", "default"),
        ("key_alias", "x"),
        ("auto_rotate", False),
    ],
    ids=str,
)
def test_what_no_team_key_may_have_is_refused_by_name(world: World, field: str, value: Any) -> None:
    answer = create(world, **{field: value})
    assert answer.status_code == 400
    assert field.removesuffix("s") in answer.text
    assert rows(world) == {}


@pytest.mark.parametrize(
    "models", [None, [], ["openai/gpt-4o"], ["beta"], ["all-team-models"], ["gpt-4o-mini"]]
)
def test_a_key_is_for_models_of_the_team(world: World, models: list[str] | None) -> None:
    assert rows(world)[made(world, models=models)["token"]]["models"] == (models or [])


@pytest.mark.parametrize("models", [[], ["all-proxy-models"]])
def test_a_team_of_every_model_has_keys_for_any(world: World, models: list[str]) -> None:
    world.litellm.stand_in.store.teams["t1"]["models"] = models
    assert create(world, models=["gpt-4o"]).status_code == 200


@pytest.mark.parametrize(
    "key_policy", [KeyPolicy(max_duration="30d", max_budget=5, max_active_keys=1)]
)
def test_the_key_policy_of_the_creator_holds(world: World) -> None:
    assert "5 USD for everybody" in create(world, duration="1d").get_json()["error"]
    assert "30d for everybody" in create(world, max_budget=1).get_json()["error"]
    within: Json = {"duration": "1d", "max_budget": 1}
    # A person's own keys are not the team's.
    world.litellm.stand_in.key_generate({"user_id": DAVE, "team_id": "t1"})
    key = made(world, **within)
    told = json_of(create(world, alias="another", **within), 403)
    assert "At most 1 active keys" in told["error"]
    assert rotate(world, key["token"]).status_code == 200
    assert create(world, alias="another", **within).status_code == 403


@pytest.mark.parametrize("key_policy", [KeyPolicy(max_active_keys=1)])
@pytest.mark.parametrize("replaced", ["", FOREIGN])
def test_a_key_counts_whatever_its_metadata_says_of_rotations(world: World, replaced: str) -> None:
    token = made(world)["token"]
    rows(world)[token]["metadata"][ROTATION] = {"replaces": [replaced], "delivered": True}
    assert create(world, alias="another").status_code == 403


def test_an_alias_that_another_key_has_is_refused_by_litellm(world: World) -> None:
    made(world)
    answer = create(world)
    assert (answer.status_code, answer.get_json()["param"]) == (400, "key_alias")


def test_a_team_whose_own_key_duration_is_malformed_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Json) -> Json:
        raise proxy_error(500, "Invalid duration format")

    old = made(world)["token"]
    stand_in = world.litellm.stand_in
    monkeypatch.setitem(stand_in.app.view_functions, "/key/generate", stand_in._view(refuse))
    in_t1 = {"alias": "ci", "max_budget": 1, "team_id": "t1"}
    callback = "redirect_uri=http://localhost:1/callback"
    for answer in (
        create(world),
        rotate(world, old),
        world.ask("bob", "POST", "/keys/generate", json=in_t1),
        world.ask(BRIDGED, "POST", "/bridge/keys", json=in_t1),
        world.ask("bob", "GET", f"/opencode/connect?team=t1&{callback}"),
    ):
        told = json_of(answer, 502)
        assert told["teamId"] == "t1"
        assert "Team Member Key Duration" in told["error"]


def test_a_key_that_litellm_gives_to_a_person_is_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = world.litellm.stand_in

    def generate(body: Json) -> Json:  # as default_key_generate_params makes LiteLLM do
        return stand_in.key_generate({"user_id": DAVE, **body})

    monkeypatch.setitem(stand_in.app.view_functions, "/key/generate", stand_in._view(generate))
    assert "default_key_generate_params" in json_of(create(world), 502)["error"]
    assert rows(world) == {}


# -- the secret -----------------------------------------------------------------


def test_the_secret_is_in_no_later_answer(world: World) -> None:
    key = made(world)
    for who, path in (
        ("dave", "/teams/t1/keys"),
        ("alice", "/teams/t1/keys"),
        ("dave", "/teams/managed"),
        ("bob", "/teams"),
        ("bob", "/keys"),
        ("bob", "/user/info"),
    ):
        assert key["key"] not in world.ask(who, "GET", path).text
    (row,) = listed(world, "alice")
    assert row["token"] == key["token"]
    assert row["key"].startswith("sk-...")
    assert (row["key_alias"], row["team_id"], row["max_budget"]) == ("nightly", "t1", 20)
    assert "user_id" not in row


def test_the_list_costs_litellm_one_call(world: World) -> None:
    made(world)
    world.litellm.calls.clear()
    assert len(listed(world)) == 1
    assert [call.path for call in world.litellm.calls] == ["/team/info"]


def test_the_list_has_no_keys_of_members_and_none_made_elsewhere(world: World) -> None:
    world.litellm.stand_in.key_generate({"user_id": BOB, "team_id": "t1"})
    world.litellm.stand_in.key_generate({"team_id": "t1"})
    key = made(world)
    assert [row["token"] for row in listed(world)] == [key["token"]]


def test_a_list_that_litellm_does_not_tell_is_not_taken_for_an_empty_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = world.litellm.stand_in
    bare = stand_in._view(lambda query: {**stand_in.team_info(query), "keys": None})
    monkeypatch.setitem(stand_in.app.view_functions, "/team/info", bare)
    assert world.ask("dave", "GET", "/teams/t1/keys").status_code == 500
    assert create(world).status_code == 500
    assert rows(world) == {}


def test_a_client_that_hangs_up_leaves_no_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = made(world)["token"]
    before = dict(rows(world)[old])
    monkeypatch.setattr("litellm_plugin.routes.keys.client_gone", lambda: True)
    assert create(world, alias="another").status_code == 499
    assert rotate(world, old).status_code == 499
    assert rows(world) == {old: before}


def test_a_key_whose_answer_was_lost_is_removed(world: World) -> None:
    def lose(call: Call) -> None:
        if call.path == "/key/generate":
            raise dropped()

    world.litellm.acted = lose
    assert "removed" in json_of(create(world), 500)["error"]
    assert rows(world) == {}


@pytest.mark.parametrize("display", [Display(hide_team_budget_for_managers=True)])
def test_budgets_are_hidden_where_a_teams_are(world: World) -> None:
    key = made(world)
    rows(world)[key["token"]]["spend"] = 4.711
    rotated = rotate(world, key["token"]).get_json()
    assert rotated["key"].startswith("sk-")
    for answer in (key, rotated, *listed(world)):
        assert "max_budget" not in answer
        assert answer["spend"] == 0
        assert "4.711" not in str(answer)


# -- who may ------------------------------------------------------------------------


def every_route(token: str) -> list[tuple[str, str, Json | None]]:
    return [
        ("GET", "/teams/t1/keys", None),
        ("POST", "/teams/t1/keys", NEW),
        ("POST", f"/teams/t1/keys/{token}/rotate", {}),
        ("DELETE", f"/teams/t1/keys/{token}", None),
    ]


@pytest.mark.parametrize(("who", "status"), [("bob", 403), ("static", 401), ("none", 401)])
def test_only_managers_of_the_team_may(world: World, who: str, status: int) -> None:
    before = dict(rows(world)[made(world)["token"]])
    for method, target, body in every_route(before["token"]):
        answer = world.ask(who, method, target, json=body or {})
        assert answer.status_code == status, target
    assert rows(world) == {before["token"]: before}


def test_a_member_does_not_reach_a_teams_key_as_a_key_of_his_own(world: World) -> None:
    before = dict(rows(world)[made(world)["token"]])
    token = before["token"]
    for who in ("bob", "dave"):
        assert world.get(who, "/keys") == []
        for method, path in (
            ("POST", "/update"),
            ("POST", "/rotate"),
            ("POST", "/block"),
            ("POST", "/unblock"),
            ("POST", "/reset_spend"),
            ("DELETE", ""),
        ):
            answer = world.ask(who, method, f"/keys/{token}{path}", json={})
            assert answer.status_code == 403, path
    assert rows(world) == {token: before}


@pytest.mark.parametrize(
    ("permission", "refused"),
    [
        ("litellm.team.manage", {"GET", "POST", "ROTATE", "DELETE"}),
        ("litellm.key.create", {"POST", "ROTATE"}),
        ("litellm.key.manage", {"ROTATE"}),
        ("litellm.key.revoke", {"DELETE"}),
    ],
)
def test_backstage_decides_with_the_permissions_of_teams_and_of_keys(
    world: World, permission: str, refused: set[str]
) -> None:
    token = made(world)["token"]
    world.backstage.policy = Policy(f"{permission}@alice")
    for method, target, body in every_route(token):
        asked = "ROTATE" if target.endswith("rotate") else method
        answer = world.ask(
            "alice", method, target, json={**(body or {}), "alias": "b"} if body else {}
        )
        assert (answer.status_code == 403) is (asked in refused), f"{asked}: {answer.text}"
        if answer.status_code == 403:
            assert permission in answer.get_json()["error"]


@pytest.mark.parametrize("variant", ["no-permission"])
def test_where_team_management_is_off_there_are_no_team_keys(world: World) -> None:
    for method, target, body in every_route(FOREIGN):
        told = json_of(world.ask("dave", method, target, json=body or {}), 403)
        assert "Team management is disabled" in told["error"]


def test_a_team_of_others_has_no_keys_here(world: World) -> None:
    world.litellm.stand_in.store.teams["t1"]["metadata"] = {"owning_group": "group:default/x"}
    for method, target, body in every_route(FOREIGN):
        assert world.ask("dave", method, target, json=body or {}).status_code == 403
        there = target.replace("t1", "no-such-team")
        assert world.ask("dave", method, there, json=body or {}).status_code == 404


# -- rotating and deleting -----------------------------------------------------------


def test_a_new_key_takes_the_place_of_an_old_one(world: World) -> None:
    old = made(world, models=["gpt-4o-mini"], metadata={"purpose": "ci"})
    rows(world)[old["token"]]["spend"] = 6.0
    answer = rotate(world, old["token"], "abc", grace="2h")
    assert answer.status_code == 200, answer.text
    new = rows(world)[answer.get_json()["token"]]
    before = rows(world)[old["token"]]
    assert answer.get_json()["key"] not in {old["key"], ""}
    assert answer.get_json()["rotated"]["token"] == old["token"]
    assert (new["user_id"], new["team_id"], new["key_alias"]) == (None, "t1", "nightly")
    assert (new["models"], new["max_budget"], new["spend"]) == (["gpt-4o-mini"], 20, 6.0)
    assert new["allowed_routes"] == ["llm_api_routes"]
    about = new["metadata"]
    assert (about[TEAM_KEY], about["service_account_id"]) == (True, "nightly")
    assert about["purpose"] == "ci"
    assert before["key_alias"].startswith("nightly.rotated-")
    assert life_left(before) <= timedelta(hours=2)
    assert abs(life_left(new) - timedelta(days=90)) < timedelta(minutes=1)
    assert {row["token"] for row in listed(world)} == {old["token"], new["token"]}
    again = rotate(world, old["token"], "abc")
    assert (again.status_code, again.get_json()["token"]) == (409, new["token"])
    assert len(rows(world)) == 2


@pytest.mark.parametrize("key_policy", [KeyPolicy(max_active_keys=2)])
def test_both_count_as_one_but_rotations_do_not_add_up(world: World) -> None:
    first = made(world)["token"]
    made(world, alias="another")
    second = rotate(world, first).get_json()["token"]
    assert create(world, alias="third").status_code == 403
    # The first one counts again: with it, the second one and the other there would be three.
    assert rotate(world, second).status_code == 403
    assert world.ask("dave", "DELETE", f"/teams/t1/keys/{first}").status_code == 200
    assert rotate(world, second).status_code == 200


def test_an_old_key_without_an_end_or_a_budget_gets_them_in_its_new_one(world: World) -> None:
    old = made(world)["token"]
    rows(world)[old].update(expires=None, max_budget=None)
    new = rows(world)[rotate(world, old).get_json()["token"]]
    assert new["max_budget"] == 1000
    assert abs(life_left(new) - timedelta(days=365)) < timedelta(minutes=1)


@pytest.mark.parametrize("error", [dropped(), FailsError(500)], ids=repr)
def test_a_rotation_that_fails_leaves_the_old_key_and_can_be_done_again(
    world: World, error: Exception
) -> None:
    old = made(world)["token"]
    before = dict(rows(world)[old])

    def fail(call: Call) -> None:
        if call.path == "/key/update":
            raise error

    world.litellm.arriving = fail
    assert rotate(world, old, "abc").status_code == 500
    assert rows(world) == {old: before}
    world.litellm.arriving = lambda _: None
    assert rotate(world, old, "abc").status_code == 200


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["arriving", "acted"])
def test_a_worker_that_is_killed_leaves_a_key_that_works_and_never_two_for_long(
    world: World, when: str, step: str
) -> None:
    old = made(world)["token"]
    setattr(world.litellm, when, on(*STEPS[step], fails(KilledError())))
    with ThreadPoolExecutor(1) as thread:  # which holds the dead worker's locks no longer
        assert thread.submit(rotate, world, old, "abc").exception()
    assert old in rows(world)
    setattr(world.litellm, when, lambda _: None)
    again = rotate(world, old, "abc", worker=1)
    assert again.status_code in {200, 409}
    new = again.get_json()["token"]
    assert set(rows(world)) == {old, new}
    assert rows(world)[new]["key_alias"] == "nightly"
    assert life_left(rows(world)[old]) <= timedelta(days=1)


def at_once(ask: Callable[[int], TestResponse]) -> list[TestResponse]:
    """Ask through both workers at the same time; return the answers in the order of statuses."""
    meet = threading.Barrier(2)

    def one(worker: int) -> TestResponse:
        meet.wait(10)
        return ask(worker)

    with ThreadPoolExecutor(2) as pool:
        return sorted(pool.map(one, (0, 1)), key=lambda answer: answer.status_code)


def test_of_two_rotations_at_once_one_makes_a_key(world: World) -> None:
    old = made(world)["token"]
    one, other = at_once(lambda worker: rotate(world, old, worker=worker))
    assert (one.status_code, other.status_code) == (200, 409)
    assert other.get_json()["token"] == one.get_json()["token"]
    assert len(rows(world)) == 2


@pytest.mark.parametrize("key_policy", [KeyPolicy(max_active_keys=1)])
def test_two_requests_at_once_do_not_exceed_the_number_of_keys(world: World) -> None:
    answers = at_once(lambda worker: create(world, worker, alias=f"key-{worker}"))
    assert [answer.status_code for answer in answers] == [200, 403]


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda world: FOREIGN, id="unknown"),
        pytest.param(
            lambda world: world.litellm.stand_in.key_generate({"user_id": BOB, "team_id": "t1"})[
                "token"
            ],
            id="of a member",
        ),
        pytest.param(
            lambda world: world.litellm.stand_in.key_generate({"team_id": "t1"})["token"],
            id="made in LiteLLM",
        ),
    ],
)
def test_a_key_that_the_team_does_not_own_is_not_there(
    world: World, token: Callable[[World], str]
) -> None:
    named = token(world)
    before = dict(rows(world))
    for answer in (
        rotate(world, named),
        world.ask("dave", "DELETE", f"/teams/t1/keys/{named}"),
    ):
        assert (answer.status_code, answer.get_json()["error"]) == (404, "Team key not found")
    assert rows(world) == before


def test_a_deleted_key_is_gone(world: World) -> None:
    token = made(world)["token"]
    target = f"/teams/t1/keys/{token}"
    assert world.ask("alice", "DELETE", target).json == {"success": True}
    assert rows(world) == {}
    assert world.ask("alice", "DELETE", target).status_code == 404


def test_a_teams_keys_go_with_the_team(world: World) -> None:
    made(world)
    assert world.ask("dave", "DELETE", "/teams/t1").status_code == 200
    assert rows(world) == {}


def test_a_key_outlives_its_creators_account(world: World) -> None:
    member = {"userEntityRef": "user:default/dave"}
    assert world.ask("alice", "POST", "/teams/t1/members", json=member).status_code == 200
    token = made(world)["token"]
    leave = "/teams/t1/members?userEntityRef=user:default/dave"
    assert world.ask("alice", "DELETE", leave).status_code == 200
    world.litellm.stand_in.user_delete({"user_ids": [DAVE]})
    world.people(bob=(), alice=(TEAM_ADMINS,))
    (row,) = listed(world, "alice")
    assert (row["token"], row.get("blocked")) == (token, None)
    target = f"/teams/t1/keys/{token}/rotate"
    assert world.ask("alice", "POST", target, json={}).status_code == 200
