"""A key is rotated: the owner always has one that works, and never two after the grace."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from werkzeug.test import TestResponse

from litellm_plugin.config.settings import KeyGeneration, KeyPolicy
from litellm_plugin.keys import undelivered
from litellm_plugin.sandbox.store import token_of
from tests.cache.world import Call, FailsError, Hook, World
from tests.fakes import Policy
from tests.fakes.network import dropped
from tests.keys.conftest import MakeWorld

Json = dict[str, Any]

SECRET = "sk-bobs-laptop-0123456789"
OLD = token_of(SECRET)
BOB = "bob@example.com"
BRIDGED = f'keycloak:{{"preferred_username":"bob","email":"{BOB}"}}'
DAY = timedelta(days=1)


class KilledError(BaseException):
    """Stands for a worker's end by kill -9: no handler runs."""


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    world = make_world(workers=2)
    world.litellm.stand_in.team_new(
        {"team_id": "t1", "members_with_roles": [{"user_id": BOB, "role": "user"}]}
    )
    make(world)
    return world


def make(world: World, **fields: Any) -> None:
    """Make bob's key of this test, 30 days long, as LiteLLM has it."""
    given = {
        "key": SECRET,
        "key_alias": "laptop",
        "user_id": BOB,
        "key_type": "llm_api",
        "duration": "30d",
        "models": ["gpt-4o-mini"],
        "max_budget": 10,
        "budget_duration": "30d",
        "tpm_limit": 1000,
        "rpm_limit": 10,
        "metadata": {"purpose": "ci", "created_via": "backstage"},
        **fields,
    }
    world.litellm.stand_in.store.keys.clear()
    world.litellm.stand_in.key_generate(given)
    keys(world)[OLD]["spend"] = 6.0


def keys(world: World) -> dict[str, Json]:
    """Return LiteLLM's rows, by hash."""
    return world.litellm.stand_in.store.keys


def rotate(
    world: World,
    token: str = OLD,
    *,
    who: str = "bob",
    worker: int = 0,
    request: str | None = None,
    **body: Any,
) -> TestResponse:
    headers = {} if request is None else {"Idempotency-Key": request}
    bridge = "/bridge" if who.startswith("keycloak") else ""
    target = f"{bridge}/keys/{token}/rotate"
    return world.ask(who, "POST", target, worker=worker, json=body, headers=headers)


def only_other(world: World, *known: str) -> Json:
    (row,) = (row for token, row in keys(world).items() if token not in known)
    return row


def life_left(row: Json) -> timedelta:
    return datetime.fromisoformat(row["expires"]) - datetime.now(UTC)


def near(span: timedelta, wanted: timedelta) -> bool:
    return abs(span - wanted) < timedelta(minutes=1)


def on(path: str, number: int, act: Callable[[], None]) -> Hook:
    """Return a hook that acts on the call of that number to a path, from 1."""
    seen: list[str] = []

    def hook(call: Call) -> None:
        seen.append(call.path)
        if call.path == path and seen.count(path) == number:
            act()

    return hook


def fails(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@contextmanager
def ignoring(world: World, path: str, field: str) -> Iterator[None]:
    """Let LiteLLM ignore a field of the requests for a path."""
    stand_in = world.litellm.stand_in
    handler = {"/key/generate": stand_in.key_generate, "/key/update": stand_in.key_update}[path]
    views = stand_in.app.view_functions
    view = views[path]
    views[path] = stand_in._view(
        lambda body: handler({name: value for name, value in body.items() if name != field})
    )
    try:
        yield
    finally:
        views[path] = view


def nothing(_call: Call) -> None:
    pass


def mended(world: World) -> None:
    world.litellm.arriving = world.litellm.acted = nothing


@pytest.mark.parametrize("who", ["bob", BRIDGED])
def test_the_new_key_has_what_the_old_one_had(world: World, who: str) -> None:
    make(world, team_id="t1")
    keys(world)[OLD]["spend"] = 6.0
    answer = rotate(world, who=who)

    assert answer.status_code == 200, answer.text
    told = answer.get_json()
    row = keys(world)[token_of(told["key"])]
    old = keys(world)[OLD]
    same = ("models", "max_budget", "spend", "budget_duration", "tpm_limit", "rpm_limit")
    for name in (*same, "team_id", "user_id", "key_type"):
        assert row[name] == old[name], name
    assert row["spend"] == 6  # 4 USD are left
    assert row["metadata"]["purpose"] == "ci"
    assert row["key_alias"] == told["key_alias"] == "laptop"
    assert near(life_left(row), 30 * DAY)
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    assert old["key_alias"] == told["rotated"]["key_alias"] == f"laptop.rotated-{day}"
    assert near(life_left(old), DAY)
    assert told["rotated"]["token"] == OLD
    assert datetime.fromisoformat(told["rotated"]["expires"]) == datetime.fromisoformat(
        old["expires"]
    )
    assert "hint" not in told
    via = "abby-cli" if who == BRIDGED else "backstage"
    assert row["metadata"]["created_via"] == via
    assert old["metadata"]["purpose"] == "ci"


def test_what_is_cached_shows_the_new_key_at_once(world: World) -> None:
    assert len(world.get("bob", "/keys")) == 1
    rotate(world)
    assert {row["key_alias"] for row in world.get("bob", "/keys")} > {"laptop"}


@pytest.mark.parametrize(
    ("grace", "life", "left"),
    [
        ("2h", "30d", timedelta(hours=2)),
        ("7d", "30d", 7 * DAY),
        ("1w", "30d", 7 * DAY),
        ("7d", "3d", 3 * DAY),  # as without the rotation
        ("7d", None, 7 * DAY),
        (None, "30d", DAY),
    ],
)
def test_the_old_key_ends_after_the_grace_and_no_later_than_before(
    world: World, grace: str | None, life: str | None, left: timedelta
) -> None:
    make(world, duration=life)
    assert rotate(world, grace=grace).status_code == 200
    assert near(life_left(keys(world)[OLD]), left)
    new = only_other(world, OLD)
    assert life is not None or new["expires"] is None


def test_without_a_grace_the_old_key_is_deleted_at_once(world: World) -> None:
    told = rotate(world, grace="0s").get_json()
    assert list(keys(world)) == [token_of(told["key"])]
    assert only_other(world)["key_alias"] == told["key_alias"] == "laptop"
    assert told["rotated"]["token"] == OLD
    assert near(datetime.fromisoformat(told["rotated"]["expires"]) - datetime.now(UTC), 0 * DAY)


def test_a_key_without_an_alias_stays_without(world: World) -> None:
    make(world, key_alias=None)
    assert rotate(world).status_code == 200
    assert [row["key_alias"] for row in keys(world).values()] == [None, None]


def test_a_key_over_its_budget_has_nothing_left_afterwards(world: World) -> None:
    keys(world)[OLD]["spend"] = 12.0
    told = rotate(world).get_json()
    row = keys(world)[token_of(told["key"])]
    assert (row["spend"], row["max_budget"]) == (12, 10)


def test_where_litellm_takes_no_spend_with_a_new_key_it_is_set(world: World) -> None:
    def drop_spend(call: Call) -> None:
        if call.path == "/key/generate":
            only_other(world, OLD)["spend"] = 0

    world.litellm.acted = drop_spend
    generate = world.litellm.stand_in.key_generate
    told = {"spend": 0}
    world.litellm.stand_in.app.view_functions["/key/generate"] = world.litellm.stand_in._view(
        lambda body: generate(body) | told
    )
    try:
        assert rotate(world).status_code == 200
    finally:
        world.litellm.stand_in.app.view_functions["/key/generate"] = world.litellm.stand_in._view(
            generate
        )
    assert only_other(world, OLD)["spend"] == 6


@pytest.mark.parametrize(
    ("body", "request_key", "words"),
    [
        ({"grace": "8d"}, None, "grace must be at most 7d"),
        ({"grace": "1y"}, None, "grace must be at most 7d"),
        ({"grace": "-1"}, None, "grace must be a number"),
        ({"grace": 5}, None, "grace must be a number"),
        ({"alias": "x"}, None, '"alias"'),
        ({"metadata": {"backstage_rotation": {}}}, None, '"metadata"'),
        ({}, " ", "Idempotency-Key"),
        ({}, "a" * 256, "Idempotency-Key"),
        ({}, "\xe9", "Idempotency-Key"),
    ],
    ids=str,
)
@pytest.mark.parametrize("who", ["bob", BRIDGED])
def test_a_wrong_request_is_refused_before_anything_is_asked(
    world: World, who: str, body: Json, request_key: str | None, words: str
) -> None:
    world.ask(who, "GET", "/bridge/keys" if who == BRIDGED else "/keys")
    world.litellm.calls.clear()
    answer = rotate(world, who=who, request=request_key, **body)
    assert answer.status_code == 400
    assert words in answer.get_json()["error"]
    assert world.litellm.calls == []


@pytest.mark.parametrize("who", ["alice", BRIDGED.replace("bob", "alice")])
def test_somebody_elses_key_is_refused_and_stays(world: World, who: str) -> None:
    before = dict(keys(world)[OLD])
    answer = rotate(world, who=who)
    assert answer.status_code == 403
    assert answer.get_json() == {"error": "Access denied: key does not belong to the caller"}
    assert keys(world) == {OLD: before}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"blocked": True}, "The key is blocked"),
        ({"expires": "2020-01-01T00:00:00+00:00"}, "The key has expired"),
        ({"allowed_routes": ["/v1/embeddings"]}, "(allowed_routes)"),
        ({"aliases": {"a": "b"}, "tpd_limit": 5}, "(aliases, tpd_limit)"),
        ({"allowed_routes": ["management_routes"]}, "may not have the key_type management"),
        ({"allowed_routes": ["info_routes"]}, "may not have the key_type read_only"),
    ],
    ids=str,
)
def test_a_key_that_can_not_be_copied_is_refused_and_stays(
    world: World, state: Json, words: str
) -> None:
    keys(world)[OLD].update(state)
    before = dict(keys(world)[OLD])
    answer = rotate(world)
    assert answer.status_code == 409
    assert words in answer.get_json()["error"]
    assert keys(world) == {OLD: before}


@pytest.mark.parametrize("routes", [[], ["llm_api_routes"]])
def test_the_new_key_is_for_models(world: World, routes: list[str]) -> None:
    keys(world)[OLD]["allowed_routes"] = routes
    assert rotate(world).status_code == 200
    assert only_other(world, OLD)["key_type"] == "llm_api"


def test_a_key_of_a_team_that_the_owner_has_left_is_refused(world: World) -> None:
    make(world, team_id="t2")
    assert rotate(world).status_code == 403
    assert rotate(world, who=BRIDGED).status_code == 403
    assert list(keys(world)) == [OLD]


@pytest.mark.parametrize(
    ("key_generation", "state"),
    [
        (KeyGeneration(team_required=True), {}),
        (KeyGeneration(allow_unlimited_budget=False), {"max_budget": None}),
    ],
)
def test_what_every_new_key_must_have_a_rotated_one_must_have(world: World, state: Json) -> None:
    keys(world)[OLD].update(state)
    assert rotate(world).status_code == 409
    assert list(keys(world)) == [OLD]


@pytest.mark.parametrize(
    "key_policy",
    [
        KeyPolicy(
            max_duration="10d",
            max_budget=5,
            min_budget_duration="60d",
            max_tpm_limit=500,
            max_rpm_limit=5,
            allowed_models=("gpt-4o-mini",),
        )
    ],
)
def test_the_new_key_is_within_the_policy_of_today(world: World) -> None:
    make(world, models=["gpt-4o", "gpt-4o-mini"])
    keys(world)[OLD]["spend"] = 6.0
    assert rotate(world).status_code == 200
    row = only_other(world, OLD)
    assert (row["max_budget"], row["spend"]) == (5, 6)
    assert (row["budget_duration"], row["tpm_limit"], row["rpm_limit"]) == ("60d", 500, 5)
    assert row["models"] == ["gpt-4o-mini"]
    assert near(life_left(row), 10 * DAY)


@pytest.mark.parametrize("key_policy", [KeyPolicy(allowed_models=("other",), max_budget=50)])
def test_a_key_none_of_whose_models_is_allowed_is_refused(world: World) -> None:
    answer = rotate(world)
    assert answer.status_code == 400
    assert "None of the key's models is allowed" in answer.get_json()["error"]
    assert list(keys(world)) == [OLD]


@pytest.mark.parametrize("denied", ["litellm.key.create", "litellm.key.manage"])
def test_both_permissions_are_needed(world: World, denied: str) -> None:
    world.backstage.policy = Policy(f"{denied}@bob")
    answer = rotate(world)
    assert answer.status_code == 403
    assert answer.get_json() == {"error": f'Access denied: missing permission "{denied}"'}
    assert list(keys(world)) == [OLD]


def test_a_service_rotates_the_key_of_a_user_that_it_names(world: World) -> None:
    path = f"/keys/{OLD}/rotate"
    assert world.ask("static", "POST", path, json={}).status_code == 403
    assert world.ask("static", "POST", f"{path}?user_id=alice@example.com").status_code == 403
    assert world.ask("static", "POST", f"{path}?user_id={BOB}", json={}).status_code == 200
    assert only_other(world, OLD)["user_id"] == BOB


# -- counted as one ------------------------------------------------------------


@pytest.mark.parametrize("key_policy", [KeyPolicy(max_active_keys=1)])
def test_both_count_as_one_until_the_grace_ends(world: World) -> None:
    first = rotate(world)
    assert first.status_code == 200, first.text
    new = token_of(first.get_json()["key"])
    generate = {"alias": "another"}
    refused = world.ask("bob", "POST", "/keys/generate", json=generate)
    assert (refused.status_code, "there are 1" in refused.text) == (403, True)
    # Blocked and unblocked, they are still one.
    assert world.ask("bob", "POST", f"/keys/{new}/block").status_code == 200
    assert world.ask("bob", "POST", f"/keys/{new}/unblock").status_code == 200
    # A second rotation would leave three that work, of which two count.
    assert rotate(world, new).status_code == 403
    # The old one counts again once the new one is gone.
    assert world.ask("bob", "DELETE", f"/keys/{new}").status_code == 200
    assert world.ask("bob", "POST", "/keys/generate", json=generate).status_code == 403
    assert world.ask("bob", "DELETE", f"/keys/{OLD}").status_code == 200
    assert world.ask("bob", "POST", "/keys/generate", json=generate).status_code == 200


@pytest.mark.parametrize("key_policy", [KeyPolicy(max_active_keys=2)])
def test_an_old_key_that_is_to_live_longer_counts(world: World) -> None:
    generate, longer = {"alias": "another"}, {"duration": "30d"}
    rotate(world, request="abc")
    assert world.ask("bob", "POST", f"/keys/{OLD}/update", json=longer).status_code == 200
    # A request that is repeated late changes nothing.
    assert rotate(world, request="abc").status_code == 409
    assert near(life_left(keys(world)[OLD]), 30 * DAY)
    assert world.ask("bob", "POST", "/keys/generate", json=generate).status_code == 403
    assert world.ask("bob", "POST", f"/keys/{OLD}/update", json={"duration": "1h"}).is_json
    assert world.ask("bob", "POST", "/keys/generate", json=generate).status_code == 200
    assert world.ask("bob", "POST", f"/keys/{OLD}/update", json=longer).status_code == 403


@pytest.mark.parametrize("key_policy", [KeyPolicy(max_active_keys=1)])
def test_nobody_writes_the_record_of_a_rotation(world: World) -> None:
    keys(world).clear()
    mark = {"replaces": ["f" * 64], "delivered": True, "replaced": {}}
    for who, path in (("bob", "/keys/generate"), (BRIDGED, "/bridge/keys")):
        body = {"alias": "x", "metadata": {"backstage_rotation": mark, "purpose": "ci"}}
        assert world.ask(who, "POST", path, json=body).status_code == 200
        row = only_other(world)
        assert "backstage_rotation" not in row["metadata"]
        assert row["metadata"]["purpose"] == "ci"
        keys(world).clear()


MALFORMED: list[Any] = [
    5,
    "x",
    [],
    {"replaces": "x"},
    {"replaces": [5]},
    {"replaces": [], "alias": {"a": 1}},
    {"request": 5},
    {"grace": "soon"},
    {"replaced": 5},
    {"replaced": {"alias": ["a"], "expires": None, "until": None}},
    {"replaced": {"alias": "a", "expires": 5, "until": None}},
    {"replaced": {"until": "soon"}},
]


@pytest.mark.parametrize("key_policy", [KeyPolicy(max_active_keys=9)])
def test_a_record_that_its_owner_has_changed_is_refused(world: World) -> None:
    for mark in MALFORMED:
        keys(world)[OLD]["metadata"] = {"backstage_rotation": mark}
        before = {token: dict(row) for token, row in keys(world).items()}
        for who in ("bob", BRIDGED):
            answer = rotate(world, who=who)
            assert answer.status_code == 409, mark
            assert "backstage_rotation was changed at LiteLLM" in answer.get_json()["error"]
        assert keys(world) == before
        # Other requests take it for no mark.
        for path in ("block", "unblock"):
            assert world.ask("bob", "POST", f"/keys/{OLD}/{path}").status_code == 200
        made = world.ask("bob", "POST", "/keys/generate", json={"alias": "other"}).get_json()
        assert rotate(world, token_of(made["key"]), grace="0s").status_code == 200
        for token in {*keys(world)} - {OLD}:
            del keys(world)[token]


# -- once ----------------------------------------------------------------------


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("grace", ["24h", "0s"])
def test_a_repeated_request_is_told_that_it_was_done(world: World, worker: int, grace: str) -> None:
    new = rotate(world, request='"abc"', grace=grace).get_json()
    before = {token: dict(row) for token, row in keys(world).items()}
    again = rotate(world, request='"abc"', grace=grace, worker=worker)
    assert again.status_code == 409
    told = again.get_json()
    assert told["error"].startswith("This request was done before")
    assert (told["token"], told["key_alias"]) == (token_of(new["key"]), "laptop")
    assert new["key"] not in again.text
    assert keys(world) == before


def test_another_request_is_told_that_the_key_was_rotated(world: World) -> None:
    rotate(world, request="abc")
    for request in (None, "def"):
        again = rotate(world, request=request)
        assert again.status_code == 409
        assert again.get_json()["error"].startswith("This key was rotated before")
    assert len(keys(world)) == 2


def test_an_earlier_key_names_the_newest(world: World) -> None:
    first = token_of(rotate(world, request="abc").get_json()["key"])
    second = token_of(rotate(world, first, grace="0s").get_json()["key"])
    again = rotate(world, request="abc")
    assert (again.status_code, again.get_json()["token"]) == (409, second)
    assert keys(world)[second]["key_alias"] == "laptop"
    assert set(keys(world)) == {OLD, second}


def test_a_lost_secret_is_replaced_by_deleting_its_key(world: World) -> None:
    lost = token_of(rotate(world, request="abc").get_json()["key"])
    assert world.ask("bob", "DELETE", f"/keys/{lost}").status_code == 200
    again = rotate(world, request="abc")
    assert again.status_code == 200
    row = keys(world)[token_of(again.get_json()["key"])]
    assert row["key_alias"] == "laptop"
    assert near(life_left(row), 30 * DAY)  # not that of the grace
    assert near(life_left(keys(world)[OLD]), DAY)


@pytest.mark.parametrize("same", [True, False])
def test_of_two_requests_at_once_one_makes_a_key(world: World, same: bool) -> None:
    meet = threading.Barrier(2)

    def ask(number: int) -> TestResponse:
        meet.wait(10)
        return rotate(world, request="abc" if same else f"abc{number}", worker=number)

    with ThreadPoolExecutor(2) as pool:
        one, other = sorted(pool.map(ask, (0, 1)), key=lambda answer: answer.status_code)
    assert (one.status_code, other.status_code) == (200, 409)
    assert other.get_json()["token"] == token_of(one.get_json()["key"])
    assert len(keys(world)) == 2


def test_litellm_refuses_a_second_key_of_a_host_that_shares_no_lock(world: World) -> None:
    def elsewhere() -> None:
        world.litellm.stand_in.key_generate(
            {"key_alias": f"laptop.rotation-{OLD[:12]}", "user_id": BOB}
        )

    world.litellm.arriving = on("/key/generate", 1, elsewhere)
    answer = rotate(world)
    assert (answer.status_code, answer.get_json()["param"]) == (400, "key_alias")
    assert len(keys(world)) == 2


# -- faults --------------------------------------------------------------------


def test_litellm_hangs_before_it_makes_the_key(world: World) -> None:
    before = dict(keys(world)[OLD])
    world.litellm.arriving = on("/key/generate", 1, fails(dropped()))
    assert rotate(world, request="abc").status_code == 500
    assert keys(world) == {OLD: before}
    mended(world)
    assert rotate(world, request="abc").status_code == 200
    assert len(keys(world)) == 2


def test_litellm_hangs_after_it_has_made_the_key(world: World) -> None:
    before = dict(keys(world)[OLD])
    world.litellm.acted = on("/key/generate", 1, fails(dropped()))
    answer = rotate(world, request="abc")
    assert (answer.status_code, undelivered.Outcome.REMOVED in answer.text) == (500, True)
    assert keys(world) == {OLD: before}
    assert rotate(world, request="abc").status_code == 200
    assert len(keys(world)) == 2


@pytest.mark.parametrize("who", ["bob", BRIDGED])
def test_a_client_that_hangs_up_leaves_the_old_key_as_it_was(
    world: World, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(keys(world)[OLD])
    monkeypatch.setattr("litellm_plugin.routes.keys.client_gone", lambda: True)
    assert rotate(world, who=who, request="abc").status_code == 499
    assert keys(world) == {OLD: before}
    monkeypatch.undo()


STEPS = {
    "the key is made": ("/key/generate", 1),
    "it is recorded that it is handed out": ("/key/update", 1),
    "the old key is shortened": ("/key/update", 2),
    "the alias is passed on": ("/key/update", 3),
}
BEFORE_IT_IS_HANDED_OUT = (
    ("arriving", "the key is made"),
    (
        "acted",
        "the key is made",
    ),
    ("arriving", "it is recorded that it is handed out"),
)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["arriving", "acted"])
def test_a_worker_that_is_killed_between_the_steps_leaves_a_key_that_works(
    world: World, when: str, step: str
) -> None:
    setattr(world.litellm, when, on(*STEPS[step], fails(KilledError())))
    with pytest.raises(KilledError):
        rotate(world, request="abc")
    mended(world)

    assert life_left(keys(world)[OLD]) > DAY / 2
    again = rotate(world, request="abc", worker=1)
    if (when, step) in BEFORE_IT_IS_HANDED_OUT:
        assert again.status_code == 200, again.text
        new = token_of(again.get_json()["key"])
    else:
        assert again.status_code == 409
        new = again.get_json()["token"]
    # Never two after the grace, and the new one has the alias.
    assert set(keys(world)) == {OLD, new}
    assert keys(world)[new]["key_alias"] == "laptop"
    assert near(life_left(keys(world)[new]), 30 * DAY)
    assert near(life_left(keys(world)[OLD]), DAY)


def test_a_repeated_request_without_grace_keeps_the_old_key_for_an_hour(world: World) -> None:
    step = STEPS["it is recorded that it is handed out"]
    world.litellm.acted = on(*step, fails(KilledError()))  # so the client has no new secret
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(rotate, world, grace="0s").exception()
    mended(world)
    assert rotate(world, grace="0s", worker=1).status_code == 409
    assert near(life_left(keys(world)[OLD]), timedelta(hours=1))


@pytest.mark.parametrize("step", ["the old key is shortened", "the alias is passed on"])
@pytest.mark.parametrize("when", ["arriving", "acted"])
@pytest.mark.parametrize("error", [dropped(), FailsError(500), FailsError(404)], ids=repr)
def test_where_the_last_step_fails_the_new_key_is_handed_out_and_it_is_completed_later(
    world: World, when: str, step: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    setattr(world.litellm, when, on(*STEPS[step], fails(error)))
    answer = rotate(world, request="abc")
    assert answer.status_code == 200, answer.text
    told = answer.get_json()
    assert "Send the same request again" in told["hint"]
    assert "a rotation is not complete" in caplog.text
    new = keys(world)[token_of(told["key"])]
    mended(world)

    again = rotate(world, request="abc")
    assert (again.status_code, again.get_json()["token"]) == (409, new["token"])
    assert new["key_alias"] == "laptop"
    assert near(life_left(keys(world)[OLD]), DAY)
    assert len(keys(world)) == 2


@pytest.mark.parametrize("error", [dropped(), FailsError(500), FailsError(404)], ids=repr)
@pytest.mark.parametrize("when", ["arriving", "acted"])
def test_where_it_can_not_be_recorded_the_new_key_is_removed(
    world: World, when: str, error: Exception
) -> None:
    before = dict(keys(world)[OLD])
    setattr(world.litellm, when, on("/key/update", 1, fails(error)))
    answer = rotate(world, request="abc")
    assert answer.status_code == (error.status if isinstance(error, FailsError) else 500)
    assert "The new key is removed, and the old one is as it was" in answer.get_json()["error"]
    assert keys(world) == {OLD: before}
    mended(world)
    assert rotate(world, request="abc").status_code == 200


def test_a_renamed_key_whose_name_is_taken_gets_another(world: World) -> None:
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    world.litellm.stand_in.key_generate({"key_alias": f"laptop.rotated-{day}", "user_id": "x"})
    answer = rotate(world)
    assert "hint" not in answer.get_json()
    assert keys(world)[OLD]["key_alias"] == f"laptop.rotated-{day}-{OLD[:8]}"


def test_an_old_key_that_litellm_does_not_end_is_told_of(world: World) -> None:
    with ignoring(world, "/key/update", "duration"):
        told = rotate(world).get_json()
    assert told["hint"].endswith("or delete the old key.")


def test_the_journal_has_both_keys(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    new = token_of(rotate(world).get_json()["key"])
    (entry,) = [
        entry
        for record in caplog.records
        if (entry := getattr(record, "audit", {})).get("eventId") == "key-rotate"
    ]
    assert entry["meta"]["keyId"] == OLD[:12]
    assert entry["meta"]["newKeyId"] == new[:12]
    assert entry["meta"]["keyAlias"] == "laptop"
