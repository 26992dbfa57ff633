"""Tool keys: short-lived keys of the bridge, one for each person, tool and machine."""

from __future__ import annotations

import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from werkzeug.test import TestResponse

from litellm_plugin.config.settings import (
    BridgeKeys,
    KeyGeneration,
    KeyPolicy,
    Settings,
    ToolBudget,
)
from litellm_plugin.keys import undelivered
from litellm_plugin.sandbox.store import token_of
from litellm_plugin.shapes import BRIDGE_KEY
from tests.cache.world import FailsError, World
from tests.client import environ_of
from tests.fakes.network import dropped
from tests.keys.conftest import MakeWorld
from tests.keys.test_rotation import (
    KilledError,
    fails,
    ignoring,
    keys,
    life_left,
    near,
    nothing,
    on,
)

Json = dict[str, Any]

BOB = "bob@example.com"
HOUR = timedelta(hours=1)
CLAUDE: Json = {"tool": "claude-code", "machine": "laptop"}
KEYS = BridgeKeys(
    default_ttl="8h",
    max_ttl="24h",
    per_tool=(ToolBudget("claude-code", 5.0, "1d"), ToolBudget("*", 2.0)),
)


def bridged(name: str) -> str:
    return f'keycloak:{{"preferred_username":"{name}","email":"{name}@example.com"}}'


@pytest.fixture
def bridge_keys() -> BridgeKeys | None:
    return KEYS


@pytest.fixture
def workers() -> int:
    return 1


@pytest.fixture
def world(
    make_world: MakeWorld, settings: Settings, bridge_keys: BridgeKeys | None, workers: int
) -> World:
    bridge = replace(settings.bridge, keys=bridge_keys)
    return make_world(workers, bridge=bridge, public_base_url="https://llm.example.com")


def ask(world: World, who: str = "bob", worker: int = 0, **body: Any) -> TestResponse:
    return world.ask(bridged(who), "POST", "/bridge/keys", worker=worker, json=body)


def made(world: World, who: str = "bob", worker: int = 0, **body: Any) -> Json:
    """Return LiteLLM's row of a new key."""
    answer = ask(world, who, worker, **body)
    assert answer.status_code == 200, answer.text
    return keys(world)[token_of(answer.get_json()["key"])]


def error(answer: TestResponse, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.get_json()["error"])


# -- what a key has --------------------------------------------------------------


def test_a_key_tells_tool_and_machine_and_has_an_end(world: World) -> None:
    answer = ask(world, **CLAUDE, models=["gpt-4o-mini"])
    told = answer.get_json()
    row = keys(world)[token_of(told["key"])]
    assert re.fullmatch(r"agent/claude-code@laptop\.[0-9a-f]{8}", row["key_alias"])
    assert row["metadata"][BRIDGE_KEY] == CLAUDE
    assert row["metadata"]["created_via"] == "abby-cli"
    assert row["user_id"] == BOB
    assert row["models"] == ["gpt-4o-mini"]
    assert near(life_left(row), 8 * HOUR)
    assert near(datetime.fromisoformat(told["expires"]) - datetime.now(UTC), 8 * HOUR)
    assert int(answer.headers["Content-Length"]) == len(answer.data)


@pytest.mark.parametrize("bridge_keys", [None])
def test_unset_a_tool_is_an_unknown_field_and_keys_need_no_end(world: World) -> None:
    words = error(ask(world, **CLAUDE))
    assert words == 'Unknown or forbidden field: "machine", "tool"'
    assert made(world, alias="ci")["expires"] is None


WRONG_NAMES: list[Json] = [
    {"tool": "claude-code"},
    {"machine": "laptop"},
    {"tool": "", "machine": "laptop"},
    {"tool": "claude code", "machine": "laptop"},
    {"tool": "claude-code", "machine": "my/laptop"},
    {"tool": "claude-code", "machine": "x" * 65},
    {"tool": "claude-code", "machine": "läptop"},
    {"tool": "claude-code\n", "machine": "laptop"},
    {"tool": 5, "machine": "laptop"},
    {"tool": ["claude-code"], "machine": "laptop"},
]


def test_tool_and_machine_are_names(world: World) -> None:
    for body in WRONG_NAMES:
        assert "must be 1 to 64 letters" in error(ask(world, **body)), body
    assert keys(world) == {}


def test_a_key_of_a_tool_has_no_other_name(world: World) -> None:
    assert "alias must be left out" in error(ask(world, **CLAUDE, alias="ci"))


@pytest.mark.parametrize("named", [CLAUDE, {"alias": "ci"}], ids=str)
def test_every_key_of_the_bridge_ends_in_time(world: World, named: Json) -> None:
    assert near(life_left(made(world, **named)), 8 * HOUR)
    keys(world).clear()
    assert near(life_left(made(world, **named, duration="1d")), 24 * HOUR)
    keys(world).clear()
    for longer in ("25h", "2d", "1y"):
        words = error(ask(world, **named, duration=longer))
        assert "at most 24h for bridge keys (litellm.bridge.keys.maxTtl)" in words
    assert "must not be unlimited: at most 24h" in error(ask(world, **named, duration=None))
    assert error(ask(world, **named, duration="0s")) == "duration must be more than 0"
    assert keys(world) == {}


def test_a_key_that_litellm_lets_live_on_is_shortened(world: World) -> None:
    with ignoring(world, "/key/generate", "duration"):
        row = made(world, **CLAUDE)
    assert near(life_left(row), 8 * HOUR)


def test_a_key_that_can_not_be_shortened_is_not_handed_out(world: World) -> None:
    with (
        ignoring(world, "/key/generate", "duration"),
        ignoring(world, "/key/update", "duration"),
    ):
        assert error(ask(world, **CLAUDE), 502).startswith(
            "LiteLLM did not take the key's duration"
        )
    assert keys(world) == {}


@pytest.mark.parametrize("key_policy", [KeyPolicy(max_duration="2h", max_budget=3.0)])
def test_the_persons_own_policy_counts_too(world: World) -> None:
    row = made(world, **CLAUDE)
    assert near(life_left(row), 2 * HOUR)
    assert row["max_budget"] == 3
    assert "at most 2h for everybody" in error(ask(world, **CLAUDE, duration="3h"))
    assert "at most 3 USD for everybody" in error(ask(world, **CLAUDE, max_budget=4))


# -- changes and rotations --------------------------------------------------------


@pytest.mark.parametrize(
    ("key_policy", "taken_over"),
    [
        (KeyPolicy(max_budget=3.0), 0),
        (KeyPolicy(max_budget=3.0, min_budget_duration="1d"), 2.5),
    ],
    ids=["no period", "a period"],
)
def test_a_policy_without_periods_gives_each_key_the_whole_reduced_budget(
    world: World, taken_over: float
) -> None:
    made(world, **CLAUDE)["spend"] = 2.5
    row = made(world, **CLAUDE)
    assert (row["max_budget"], row["spend"]) == (3, taken_over)


@pytest.mark.parametrize("named", [CLAUDE, {"alias": "ci"}], ids=str)
def test_a_key_of_the_bridge_can_not_be_made_to_live_longer(world: World, named: Json) -> None:
    token = made(world, **named)["token"]
    path = f"/keys/{token}/update"
    for duration in ("25h", None):
        answer = world.ask("bob", "POST", path, json={"duration": duration})
        assert "at most 24h for bridge keys" in error(answer)
    assert world.ask("bob", "POST", path, json={"duration": "24h"}).status_code == 200
    assert near(life_left(keys(world)[token]), 24 * HOUR)
    # Nor by the same change again each day.
    created = datetime.now(UTC) - timedelta(hours=20)
    keys(world)[token]["created_at"] = created.isoformat()
    words = error(world.ask("bob", "POST", path, json={"duration": "5h"}))
    assert "bridge keys live for 24h at most from their creation" in words
    assert world.ask("bob", "POST", path, json={"duration": "4h"}).status_code == 200
    assert near(life_left(keys(world)[token]), 4 * HOUR)


@pytest.mark.parametrize("at_bridge", [True, False])
def test_a_rotated_key_is_still_the_tools_and_ends_in_time(world: World, at_bridge: bool) -> None:
    old = made(world, **CLAUDE)
    # As if it had been extended each day.
    old["created_at"] = (datetime.now(UTC) - timedelta(days=5)).isoformat()
    path = f"/keys/{old['token']}/rotate"
    who, path = (bridged("bob"), f"/bridge{path}") if at_bridge else ("bob", path)
    answer = world.ask(who, "POST", path, json={"grace": "7d"})
    assert answer.status_code == 200, answer.text
    new = keys(world)[token_of(answer.get_json()["key"])]
    assert new["metadata"][BRIDGE_KEY] == CLAUDE
    assert near(life_left(new), 24 * HOUR)
    assert near(life_left(keys(world)[old["token"]]), 8 * HOUR)  # no longer than before
    # The tool's next key replaces both.
    assert made(world, **CLAUDE)["token"] in keys(world)
    assert len(keys(world)) == 1


def test_the_budget_of_a_tool_can_not_be_raised_or_reset(world: World) -> None:
    token = made(world, **CLAUDE)["token"]
    raised = world.ask("bob", "POST", f"/keys/{token}/update", json={"max_budget": 6})
    assert "at most 5 USD for keys of the tool claude-code" in error(raised)
    reset = world.ask("bob", "POST", f"/keys/{token}/reset_spend")
    assert "can't be reset" in error(reset, 403)


# -- budgets ------------------------------------------------------------------------


def test_a_tool_has_its_budget(world: World) -> None:
    row = made(world, **CLAUDE)
    assert (row["max_budget"], row["budget_duration"]) == (5, "1d")
    other = made(world, tool="aider", machine="laptop")
    assert (other["max_budget"], other["budget_duration"]) == (2, None)
    assert made(world, alias="ci")["max_budget"] is None
    assert made(world, **CLAUDE, max_budget=1)["max_budget"] == 1


def test_a_request_for_more_is_refused(world: World) -> None:
    refused: list[tuple[Json, str]] = [
        ({"max_budget": 5.01}, "max_budget must be at most 5 USD for keys of the tool claude-code"),
        ({"max_budget": None}, "max_budget must not be unlimited: at most 5 USD"),
        ({"budget_duration": "1h"}, "budget_duration must be at least 1d"),
    ]
    for body, words in refused:
        assert words in error(ask(world, **CLAUDE, **body))
    assert keys(world) == {}


def test_a_new_key_takes_over_what_the_old_one_has_spent(world: World) -> None:
    old = made(world, **CLAUDE)
    old["spend"] = 4.5
    assert made(world, **CLAUDE)["spend"] == 4.5
    assert made(world, tool="claude-code", machine="desktop")["spend"] == 0


def test_a_key_whose_budget_has_no_period_is_no_way_to_a_new_budget(world: World) -> None:
    old = made(world, **CLAUDE, budget_duration=None)
    assert old["budget_duration"] == "1d"
    old["spend"] = 4.5
    path = f"/keys/{old['token']}/update"
    assert world.ask("bob", "POST", path, json={"budget_duration": None}).status_code == 200
    old["budget_reset_at"] = None
    assert made(world, **CLAUDE, budget_duration=None)["spend"] == 4.5


def test_an_expired_key_still_tells_what_was_spent(world: World) -> None:
    old = made(world, **CLAUDE)
    old |= {"spend": 4.5, "expires": (datetime.now(UTC) - HOUR).isoformat()}
    assert made(world, **CLAUDE)["spend"] == 4.5
    assert len(keys(world)) == 1


def test_once_the_period_is_over_the_whole_budget_is_there(world: World) -> None:
    old = made(world, **CLAUDE)
    old |= {"spend": 4.5, "budget_reset_at": (datetime.now(UTC) - HOUR).isoformat()}
    assert made(world, **CLAUDE)["spend"] == 0


def test_without_a_period_each_key_has_the_whole_budget(world: World) -> None:
    made(world, tool="aider", machine="laptop")["spend"] = 1.5
    assert made(world, tool="aider", machine="laptop")["spend"] == 0


def test_a_spend_that_litellm_ignores_is_set(world: World) -> None:
    made(world, **CLAUDE)["spend"] = 4.5
    with ignoring(world, "/key/generate", "spend"):
        assert made(world, **CLAUDE)["spend"] == 4.5


def test_a_key_without_the_spend_is_not_handed_out(world: World) -> None:
    old = made(world, **CLAUDE)
    old["spend"] = 4.5
    world.litellm.arriving = on("/key/update", 1, fails(FailsError(500)))
    with ignoring(world, "/key/generate", "spend"):
        assert ask(world, **CLAUDE).status_code == 500
    assert list(keys(world)) == [old["token"]]


@pytest.mark.parametrize("key_generation", [KeyGeneration(allow_unlimited_budget=False)])
def test_where_keys_need_a_budget_that_of_the_tool_counts(world: World) -> None:
    assert made(world, **CLAUDE)["max_budget"] == 5
    assert error(ask(world, alias="ci")) == "Missing required fields"


# -- one for each person, tool and machine -------------------------------------------


def test_a_new_key_replaces_that_of_the_same_person_tool_and_machine(world: World) -> None:
    stay = [
        made(world, tool="claude-code", machine="desktop"),
        made(world, tool="aider", machine="laptop"),
        made(world, who="alice", **CLAUDE),
        made(world, alias="ci"),
    ]
    own = {"key_alias": "agent/claude-code@laptop", "user_id": BOB, "metadata": {"tool": "x"}}
    world.litellm.stand_in.key_generate(own)  # by hand
    before = set(keys(world))
    first, second = made(world, **CLAUDE)["token"], made(world, **CLAUDE)["token"]
    assert first not in keys(world)
    assert set(keys(world)) == {*before, second}
    assert {row["token"] for row in stay} < set(keys(world))


def test_what_is_cached_shows_the_new_key_at_once(world: World) -> None:
    assert world.get("bob", "/keys") == []
    made(world, **CLAUDE)
    made(world, **CLAUDE)
    assert [row["token"] for row in world.get("bob", "/keys")] == list(keys(world))


def answering(world: World) -> Any:
    """Return the parts of an answer with a new key, as a server takes them."""
    headers = {**world.headers(bridged("bob")), "Content-Type": "application/json"}
    environ = environ_of("POST", "/api/litellm/bridge/keys", headers, CLAUDE)
    return world.workers[0].app(environ, lambda *_: lambda _: None)


def test_the_old_key_works_until_the_answer_with_the_new_one_is_sent(world: World) -> None:
    old = made(world, **CLAUDE)["token"]
    parts = iter(answering(world))
    sent = next(parts)
    assert len(keys(world)) == 2
    assert old in keys(world)
    assert next(parts, None) is None  # the server has sent the first part
    assert old not in keys(world)
    (new,) = keys(world)
    assert new in str(sent)


@pytest.mark.parametrize("begun", [True, False])
def test_where_the_answer_can_not_be_sent_the_old_key_stays(world: World, begun: bool) -> None:
    old = made(world, **CLAUDE)["token"]
    parts = answering(world)
    if begun:
        next(iter(parts))
    parts.close()  # as a server does whose client is gone, or an application around this one
    assert list(keys(world)) == [old]


def test_a_client_that_hangs_up_meanwhile_keeps_the_old_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = made(world, **CLAUDE)["token"]
    monkeypatch.setattr("litellm_plugin.routes.keys.client_gone", lambda: True)
    assert ask(world, **CLAUDE).status_code == 499
    assert list(keys(world)) == [old]


@pytest.mark.parametrize("error", [dropped(), FailsError(500)], ids=repr)
def test_an_old_key_that_litellm_does_not_delete_is_deleted_the_next_time(
    world: World, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    made(world, **CLAUDE)
    world.litellm.arriving = on("/key/delete", 1, fails(error))
    second = made(world, **CLAUDE)
    assert "a replaced key is left, until the next time" in caplog.text
    assert second["token"] in keys(world)
    assert len(keys(world)) == 2
    made(world, **CLAUDE)
    assert len(keys(world)) == 1


def test_litellm_hangs_before_and_after_it_makes_the_key(world: World) -> None:
    old = made(world, **CLAUDE)["token"]
    world.litellm.arriving = on("/key/generate", 1, fails(dropped()))
    assert ask(world, **CLAUDE).status_code == 500
    assert list(keys(world)) == [old]
    world.litellm.arriving = nothing
    world.litellm.acted = on("/key/generate", 1, fails(dropped()))
    answer = ask(world, **CLAUDE)
    assert undelivered.Outcome.REMOVED in error(answer, 500)
    assert list(keys(world)) == [old]
    world.litellm.acted = nothing
    made(world, **CLAUDE)
    assert len(keys(world)) == 1


@pytest.mark.parametrize("workers", [2])
@pytest.mark.parametrize(
    ("when", "path"),
    [
        ("arriving", "/key/generate"),
        ("acted", "/key/generate"),
        ("arriving", "/key/delete"),
        ("acted", "/key/delete"),
    ],
)
def test_a_worker_that_is_killed_leaves_one_key_that_works_and_at_most_one_more(
    world: World, when: str, path: str
) -> None:
    old = made(world, **CLAUDE)["token"]
    setattr(world.litellm, when, on(path, 1, fails(KilledError())))
    sent: list[bytes] = []
    with pytest.raises(KilledError):
        sent.extend(answering(world))
    secrets = re.findall(rb'"key":"(sk-[^"]+)"', b"".join(sent))
    known = {token_of(secret.decode()) for secret in secrets} or {old}
    assert known <= set(keys(world))
    assert len(keys(world)) <= 2
    world.litellm.arriving = world.litellm.acted = nothing
    new = made(world, worker=1, **CLAUDE)["token"]
    assert list(keys(world)) == [new]


@pytest.mark.parametrize("workers", [2])
def test_of_two_requests_at_once_the_later_ones_key_is_left(world: World) -> None:
    made(world, **CLAUDE)
    meet = threading.Barrier(2)

    def both(worker: int) -> TestResponse:
        meet.wait(10)
        return ask(world, worker=worker, **CLAUDE)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(both, (0, 1)))
    assert [answer.status_code for answer in answers] == [200, 200]
    (left,) = keys(world)
    assert left in {token_of(answer.get_json()["key"]) for answer in answers}


@pytest.mark.parametrize("key_policy", [KeyPolicy(max_active_keys=1)])
def test_old_and_new_count_as_one(world: World) -> None:
    made(world, **CLAUDE)
    made(world, **CLAUDE)
    assert "there are 1" in error(ask(world, tool="aider", machine="laptop"), 403)
    assert error(ask(world, alias="ci"), 403)
    assert len(keys(world)) == 1


def test_nobody_writes_the_record_of_a_tool(world: World) -> None:
    row = made(world, alias="ci", metadata={BRIDGE_KEY: CLAUDE, "purpose": "ci"})
    assert row["metadata"]["purpose"] == "ci"
    assert row["metadata"][BRIDGE_KEY] == {}
    body = {"alias": "x", "metadata": {BRIDGE_KEY: CLAUDE}, "max_budget": 1}
    answer = world.ask("bob", "POST", "/keys/generate", json=body)
    assert BRIDGE_KEY not in keys(world)[token_of(answer.get_json()["key"])]["metadata"]
    made(world, **CLAUDE)
    assert len(keys(world)) == 3


def test_a_malformed_mark_is_no_tools(world: World) -> None:
    marks: list[Any] = [5, [], "x", {"tool": 5, "machine": []}, {"tool": "x"}]
    for number, mark in enumerate(marks, 1):
        row = made(world, **CLAUDE)
        row["metadata"] = {**row["metadata"], BRIDGE_KEY: mark}
        assert len(keys(world)) == number


def test_the_journal_names_tool_machine_and_replaced_keys(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old = made(world, **CLAUDE)["token"]
    made(world, **CLAUDE)
    *_, entry = [
        entry
        for record in caplog.records
        if (entry := getattr(record, "audit", {})).get("eventId") == "bridge-key-create"
    ]
    assert entry["meta"]["tool"] == "claude-code"
    assert entry["meta"]["machine"] == "laptop"
    assert entry["meta"]["replacedKeyIds"] == [old[:12]]


# -- what a client is told, and how it ends its key ------------------------------------


def test_a_client_configures_itself_from_health(world: World) -> None:
    health = world.workers[0].get("/bridge/health").get_json()
    assert health.pop("issuer").startswith("http")
    assert health == {
        "status": "ok",
        "bridge": True,
        "clientId": "abby-cli",
        "baseUrl": "https://llm.example.com",
        "keys": {"defaultTtl": "8h", "maxTtl": "24h"},
    }


@pytest.mark.parametrize("bridge_keys", [None])
def test_unset_health_is_as_before(world: World) -> None:
    health = world.workers[0].get("/bridge/health").get_json()
    assert health == {"status": "ok", "bridge": True, "clientId": "abby-cli"}


@pytest.mark.parametrize("bridge_keys", [KEYS, None])
def test_a_client_deletes_its_key(world: World) -> None:
    token = made(world, alias="ci")["token"]
    assert len(world.get(bridged("bob"), "/bridge/keys")) == 1
    answer = world.ask(bridged("bob"), "DELETE", f"/bridge/keys/{token}")
    assert answer.get_json() == {"success": True}
    assert keys(world) == {}
    assert world.get(bridged("bob"), "/bridge/keys") == []


def test_somebody_elses_key_is_not_deleted(world: World) -> None:
    token = made(world, **CLAUDE)["token"]
    for path in (f"/bridge/keys/{token}", "/bridge/keys/unknown"):
        answer = world.ask(bridged("alice"), "DELETE", path)
        assert error(answer, 403) == "Access denied: key does not belong to the caller"
    assert token in keys(world)
