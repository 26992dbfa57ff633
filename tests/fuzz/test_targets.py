"""The fuzz targets hold for where they begin and for what was found, and notice a fault."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fuzz import config, fuzz_run, shapes, stateful, tokens
from litellm_plugin.accounts.caller import Caller
from litellm_plugin.identity import jwt
from litellm_plugin.keys.service import Keys, OwnedKey
from litellm_plugin.routes.openapi import document
from litellm_plugin.shapes import Json, virtual_key
from tests.rig import Rig
from tests.standin import KEY

FOUND = Path(fuzz_run.__file__).parent / "found"
ATHERIS = {"tokens": tokens, "config": config, "shapes": shapes}
MOST = 600  # bytes of a seed that is tried here: long ones take their time


def some_seeds(name: str, wanted: int = 12) -> list[bytes]:
    seeds = [seed for seed in dict.fromkeys(ATHERIS[name].seeds()) if len(seed) <= MOST]
    return seeds[:: max(1, len(seeds) // wanted)]


@pytest.mark.parametrize("name", ATHERIS)
def test_where_a_target_begins_nothing_is_found(name: str) -> None:
    seeds = some_seeds(name)
    assert len(seeds) >= 12
    for seed in seeds:
        ATHERIS[name].one_input(seed)


def test_every_target_is_known_here() -> None:
    assert tuple(ATHERIS) == fuzz_run.ATHERIS
    for name in fuzz_run.TARGETS:
        assert importlib.import_module(f"fuzz.{name}")


@pytest.mark.parametrize(
    "file", sorted(FOUND.glob("*/*")), ids=lambda file: f"{file.parent.name}/{file.name}"
)
def test_what_was_found_is_mended(file: Path) -> None:
    ATHERIS[file.parent.name].one_input(file.read_bytes())


def test_without_atheris_it_is_said_that_nothing_is_fuzzed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)
    assert fuzz_run.main(["tokens"]) == os.EX_TEMPFAIL
    assert "tokens SKIPPED" in capsys.readouterr().out


# Whether a fault is noticed.


def seeds_that_notice(name: str) -> int:
    """Return how many of the first seeds are no longer fine."""
    noticed = 0
    for seed in itertools.islice(ATHERIS[name].seeds(), 60):
        try:
            ATHERIS[name].one_input(seed)
        except AssertionError:
            noticed += 1
    return noticed


def test_a_signature_that_nobody_checks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def believed(token: jwt.UnverifiedToken, *_: object) -> jwt.Claims:
        return token.unverified_claims

    monkeypatch.setattr(jwt, "_verify", believed)
    assert seeds_that_notice("tokens")


def test_an_expiry_that_nobody_checks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litellm_plugin.identity.user_token.check_times", lambda *_, **__: None)
    assert seeds_that_notice("tokens")


def test_a_value_that_is_quoted_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(value: object, *_: object) -> str:
        return f"{value!r}"

    monkeypatch.setattr("litellm_plugin.config.load._shown", shown)
    with pytest.raises(AssertionError, match="a secret is quoted"):
        config.one_input(b"litellm: {service: {cacheSeconds: '${TOKEN}'}}")


def test_another_error_than_the_documented_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def model() -> None:
        raise OverflowError("int too large to convert to float")

    monkeypatch.setattr("litellm_plugin.config.load.model", model)
    with pytest.raises(OverflowError):
        config.one_input(b"litellm: {service: {cacheSeconds: 1}}")


def test_a_field_that_is_missing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = virtual_key

    def key(row: Json) -> Json:
        return {name: value for name, value in whole(row).items() if value}

    monkeypatch.setattr("litellm_plugin.shapes.virtual_key", key)
    with pytest.raises((AssertionError, KeyError)):
        shapes.one_input(b'2026-11-10\n{"token": "t"}')


def test_an_answer_that_is_changed_where_it_may_be_remembered_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hidden(team: dict[str, Any]) -> Mapping[str, Any]:
        team.pop("max_budget", None)
        return team

    monkeypatch.setattr("litellm_plugin.shapes.without_budget", hidden)
    monkeypatch.setattr("litellm_plugin.shapes.team", lambda row, _id="": row)
    with pytest.raises((AssertionError, KeyError)):
        shapes.one_input(b'2026-11-10\n{"team_id": "t", "spend": 1, "max_budget": 2}')


# Requests along the links; the walks themselves take too long for here, and are part of make fuzz.


def test_the_links_lead_from_a_new_key_and_a_new_team_to_what_can_be_done_with_it() -> None:
    responses = document()["paths"]
    links = document()["components"]["links"]
    operations = {
        described["operationId"]: path
        for path, item in responses.items()
        for described in item.values()
        if isinstance(described, dict)
    }
    for link in links.values():
        for name in link.get("parameters", {}):
            assert f"{{{name}}}" in operations[link["operationId"]] or name == "userEntityRef"
    led_to = {operations[link["operationId"]] for link in links.values()}
    assert {path for path in operations.values() if "{" in path} <= led_to


def test_a_key_that_is_not_guarded_is_noticed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def unguarded(self: Keys, caller: Caller, token: str) -> OwnedKey:
        account = self._users.find(caller, fresh=True)
        assert account is not None
        return OwnedKey(token, caller, account, {})

    rig.ask("bob", "GET", "/keys")
    before = stateful.rows(rig)
    assert rig.ask("bob", "POST", f"/keys/{KEY}/block").status_code == 403
    stateful.changes_only("bob@example.com", before, stateful.rows(rig))
    monkeypatch.setattr(Keys, "owned", unguarded)
    assert rig.ask("bob", "POST", f"/keys/{KEY}/block").status_code == 200
    with pytest.raises(AssertionError, match="another user's key is changed"):
        stateful.changes_only("bob@example.com", before, stateful.rows(rig))


def test_another_users_key_in_an_answer_is_noticed(rig: Rig) -> None:
    keys, told = stateful.rows(rig)["keys"], rig.ask("alice", "GET", "/keys").text
    stateful.tells_only("alice@example.com", told, keys, "")
    with pytest.raises(AssertionError, match="another user's key is told"):
        stateful.tells_only("bob@example.com", told, keys, "")
