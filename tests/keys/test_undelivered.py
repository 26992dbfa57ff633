"""An undelivered key is found and removed, or its owner gets a hint."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from litellm_plugin.config.settings import Settings
from litellm_plugin.keys import undelivered
from litellm_plugin.keys.undelivered import Outcome
from litellm_plugin.plugin import build
from litellm_plugin.sandbox.store import token_of
from tests.cache.world import Call, FailsError, World
from tests.fakes.network import connection_refused, dropped
from tests.keys.conftest import MakeWorld, wait_for_the_watcher
from tests.tokens import TokenFactory


@pytest.fixture
def world(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(undelivered, "UNAVAILABLE_PAUSE", 0.01)
    world = make_world()
    world.get("alice", "/user/info")
    return world


def cut_off(path: str, *, failure: Exception | None = None) -> Callable[[Call], None]:
    """Return a hook that breaks one answer of a path off."""
    left = [failure or dropped()]

    def hook(call: Call) -> None:
        if call.path == path and left:
            raise left.pop()

    return hook


def generate(world: World, alias: str = "ci", **fields: Any) -> tuple[int, str]:
    answer = world.ask("bob", "POST", "/keys/generate", json={"alias": alias, **fields})
    return answer.status_code, str(answer.get_json().get("error"))


def aliases(world: World) -> list[str]:
    return [key["key_alias"] for key in world.litellm.stand_in.store.keys.values()]


@pytest.mark.parametrize("failure", [dropped(), requests.ReadTimeout()])
def test_a_key_that_was_made_and_not_told_is_removed(world: World, failure: Exception) -> None:
    world.litellm.acted = cut_off("/key/generate", failure=failure)

    status, error = generate(world)

    assert status == 500
    assert error.startswith("LiteLLM ")
    assert error.endswith(Outcome.REMOVED)
    assert aliases(world) == []
    assert world.get("bob", "/keys") == []
    # Its name is free again, and nothing was made twice.
    assert generate(world)[0] == 200
    assert aliases(world) == ["ci"]


def test_the_journal_tells_what_became_of_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.litellm.acted = cut_off("/key/generate")

    generate(world)

    (entry,) = [
        entry
        for record in caplog.records
        if (entry := getattr(record, "audit", {})).get("eventId") == "undelivered-key-delete"
    ]
    assert (entry["status"], entry["severityLevel"]) == ("succeeded", "high")
    assert entry["meta"]["keyAlias"] == "ci"
    assert entry["meta"]["userId"] == "bob@example.com"
    assert len(entry["meta"]["keyId"]) == 12


def test_keys_that_were_there_stay(world: World) -> None:
    generate(world, "other")
    assert world.ask("alice", "POST", "/keys/generate", json={"alias": "x"}).status_code == 200
    world.litellm.acted = cut_off("/key/generate")

    generate(world)

    assert aliases(world) == ["other", "x"]


def test_a_key_that_was_not_made_is_not_found(world: World) -> None:
    world.litellm.arriving = cut_off("/key/generate")

    status, error = generate(world)

    assert (status, error.endswith(Outcome.ABSENT)) == (500, True)
    assert [call.path for call in world.litellm.writes][-1] == "/key/generate"


def test_where_litellm_has_no_list_of_keys_its_owner_and_the_operator_are_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.litellm.acted = cut_off("/key/generate")

    def arriving(call: Call) -> None:
        if call.path == "/key/list":
            raise FailsError(404)

    world.litellm.arriving = arriving

    assert generate(world)[1].endswith(Outcome.YOURS)
    assert "delete it in LiteLLM, if it is there: key 'ci' of bob@example.com" in caplog.text


def test_a_key_that_looks_like_another_one_is_not_removed(world: World) -> None:
    def acted(call: Call) -> None:
        if call.path == "/key/generate":
            twin = {**call.body, "key_alias": None}
            world.litellm.stand_in.key_generate(twin)
            for key in world.litellm.stand_in.store.keys.values():
                key["key_alias"] = "ci"
            raise dropped()

    world.litellm.acted = acted

    assert generate(world)[1].endswith(Outcome.YOURS)
    assert aliases(world) == ["ci", "ci"]


def test_litellms_own_refusal_is_passed_on_as_it_is(world: World) -> None:
    generate(world)

    status, error = generate(world)

    assert (status, "already exists" in error) == (400, True)
    assert world.litellm.read("/key/list") == []


def test_while_litellm_is_down_it_is_looked_for_until_it_is_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    down = threading.Event()

    def acted(call: Call) -> None:
        if call.path == "/key/generate":
            down.set()
            raise dropped()

    def arriving(_call: Call) -> None:
        if down.is_set():
            raise connection_refused()

    world.litellm.acted, world.litellm.arriving = acted, arriving

    status, error = generate(world)

    assert (status, error.endswith(Outcome.LATER)) == (500, True)
    assert aliases(world) == ["ci"]
    world.litellm.acted = lambda _call: None
    down.clear()
    wait_for_the_watcher()
    assert aliases(world) == []
    assert "removed an undelivered key: key 'ci' of bob@example.com, asked for at " in caplog.text


def test_one_that_is_made_late_is_removed(world: World) -> None:
    late: list[Any] = []

    def arriving(call: Call) -> None:
        if call.path == "/key/generate":
            late.append(call.body)
            raise dropped()
        if late and threading.current_thread() is not threading.main_thread():
            world.litellm.stand_in.key_generate(late.pop())

    world.litellm.arriving = arriving

    assert generate(world)[1].endswith(Outcome.ABSENT)
    wait_for_the_watcher()
    assert late == []
    assert aliases(world) == []


def test_a_key_of_the_next_try_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undelivered, "PAUSES", (0.2, 0.0))
    world.litellm.arriving = cut_off("/key/generate")
    assert generate(world)[1].endswith(Outcome.ABSENT)

    assert generate(world)[0] == 200
    wait_for_the_watcher()

    assert aliases(world) == ["ci"]
    assert len(world.litellm.read("/key/list")) > 1


@pytest.mark.parametrize("down", [False, True])
def test_a_worker_that_ends_looks_once_more_or_says_what_is_left(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    down: bool,
) -> None:
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", at_exit.append)
    monkeypatch.setattr(undelivered, "PAUSES", (5.0,))
    late: list[Any] = []

    def arriving(call: Call) -> None:
        if call.path == "/key/generate":
            late.append(call.body)
            raise dropped()
        if late and call.path == "/key/list" and down and at_exit:
            raise connection_refused()

    world.litellm.arriving = arriving
    generate(world)
    world.litellm.stand_in.key_generate(late[0])

    (end,) = at_exit
    end()

    assert aliases(world) == (["ci"] if down else [])
    told = "delete it in LiteLLM, if it is there: key 'ci' of bob@example.com"
    assert (told in caplog.text) is down


OPENCODE = "/opencode/connect?redirect_uri=http://localhost:1/callback"


def test_an_opencode_key_that_was_not_told_is_removed(world: World) -> None:
    for before in range(2):  # the first key of a slot, and one in the place of another
        world.litellm.acted = cut_off("/key/generate")
        answer = world.ask("bob", "GET", OPENCODE)
        assert answer.status_code == 500
        assert answer.get_json()["error"].endswith(Outcome.REMOVED)
        assert len(aliases(world)) == before
        world.litellm.acted = lambda _: None
        assert world.ask("bob", "GET", OPENCODE).status_code == 302
        assert len(aliases(world)) == 1


def test_the_first_opencode_key_of_a_slot_is_not_looked_for_later(world: World) -> None:
    # What is found then may be the key of the next try, which has the same name.
    lost = cut_off("/key/generate")

    def acted(call: Call) -> None:
        lost(call)
        if call.path == "/key/list" and aliases(world):
            raise connection_refused()

    world.litellm.acted = acted
    answer = world.ask("bob", "GET", OPENCODE)
    assert answer.get_json()["error"].endswith(Outcome.REPLACED)
    wait_for_the_watcher()
    assert len(aliases(world)) == 1
    world.litellm.acted = lambda _: None
    assert world.ask("bob", "GET", OPENCODE).status_code == 302
    assert len(aliases(world)) == 1


def test_a_client_that_has_gone_leaves_no_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litellm_plugin.routes.keys.client_gone", lambda: True)

    assert generate(world)[0] == 499
    assert aliases(world) == []


def test_without_the_breaker_nobody_looks(
    settings: Settings, tokens: TokenFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(settings, tokens, tmp_path, monkeypatch)
    world.people(bob=())
    world.get("bob", "/user/info")
    world.litellm.acted = cut_off("/key/generate")

    assert generate(world)[1].endswith(Outcome.YOURS)
    assert world.litellm.read("/key/list") == []


def test_a_key_that_is_deleted_by_its_secret_is_audited_by_its_hash(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = build(settings)
    told: list[Any] = []
    monkeypatch.setattr("litellm_plugin.observability.journal.sink", lambda *of: told.append(of))
    monkeypatch.setattr(plugin.litellm, "delete_key", lambda _: None)
    plugin.keys.take_back({"key": "sk-canary"})
    ((_, change),) = told
    assert change.object_id == token_of("sk-canary")
    assert "sk-canary" not in repr(told)
