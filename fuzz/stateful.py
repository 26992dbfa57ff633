"""Callers of every role, who use what others' requests made; and nobody gets at what is not theirs.

Schemathesis walks along the links of our OpenAPI document: a key that was made is changed, blocked
and deleted, a team gets members. Who asks changes from request to request, so that ids of one
caller come up in requests of another. LiteLLM is the sandbox's, which keeps what it is told.
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
import time
import zlib
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig
from schemathesis.core.transport import Response
from schemathesis.generation.stateful import run_state_machine_as_test
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from litellm_plugin.routes.openapi import document
from tests.apps import Apps
from tests.client import MOUNT
from tests.fakes.litellm import MASTER_KEY
from tests.rig import CALLERS, Rig
from tests.standin import SECRET, TEAM, TEAM_SECRET, furnished
from tests.tokens import STATIC_TOKEN, TokenFactory

CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

# Who asks, as the contract names callers, and their LiteLLM id; None for a service, which may
# speak for anybody. alice reads the audit log and manages teams, dave manages teams.
PEOPLE: dict[str, str | None] = {
    "alice": "alice@example.com",
    "bob": "bob@example.com",
    "carol": "carol@example.com",
    "dave": "dave@example.com",
    "obo:bob": "bob@example.com",
    "plugin": None,
    "static": None,
}
TEAM_MANAGERS = {"alice", "dave"}

# What a schema can't know, by the name of the field.
_KNOWN: dict[str, list[Any]] = {
    "models": [["gpt-4o"], ["gpt-4o-mini"], ["everyone", "gpt-4o"], []],
    "team_id": [TEAM, None, "team-guests"],
    "user_id": [*filter(None, PEOPLE.values()), "nobody@example.com"],
    "userEntityRef": ["user:default/bob", "user:default/carol", "bob@example.com", "group:x/y"],
    "vector_stores": [["vs-rig-docs"], []],
    "mcp_servers": [["rig_tools"], []],
    "max_budget": [5, 0.01, None],
}

# Of more digits some are beyond LiteLLM's calendar; it answers 500 to others, which is handed on.
_DURATION = re.compile(r"[0-9]{1,4}(s|m|h|d|w|mo)")
# What LiteLLM refuses is our 500 where its status is not handed on, as the original has it.
_REFUSED = re.compile(
    r'\{"error":"(Key with alias .* already exists\.|User=\S+ is not a member of )'
)
_HASH = re.compile(r"[0-9a-f]{64}")
_OF_THE_CALLER = re.compile(r"/(keys|user|usage|opencode|bridge)\b")

done: Counter[str] = Counter()
"""What was asked: the number of requests by operation and status."""

found: list[str] = []
"""What was wrong, and the request that showed it."""


@functools.cache  # it takes seconds to make
def machine() -> Any:
    """Return the state machine; its callers ask the application of its attribute ``rig``."""
    generation = GenerationConfig(with_security_parameters=False)
    project = ProjectConfig(generation=generation)
    config = schemathesis.Config(projects=ProjectsConfig(default=project))
    told = {**document(), "servers": [{"url": MOUNT}]}
    schema = schemathesis.openapi.from_dict(told, config=config)

    class Callers(schema.as_state_machine()):  # type: ignore[misc]
        """One walk: LiteLLM as new, and a caller for each request."""

        rig: ClassVar[Rig]

        def setup(self) -> None:
            furnished()
            self._asked = 0
            self._who = ""
            self._before: dict[str, Any] = {}

        def get_call_kwargs(self, case: schemathesis.Case[Any]) -> dict[str, Any]:
            self._who = _caller(case, self._asked)
            self._asked += 1
            self._before = rows(self.rig)
            return {"app": self.rig.app, "headers": self.rig.credentials(self._who)}

        def before_call(self, case: schemathesis.Case[Any]) -> None:
            if isinstance(case.body, dict):
                _make_likely(case.body, self._asked)

        def validate_response(
            self, response: Response, case: schemathesis.Case[Any], **_options: Any
        ) -> None:
            done[f"{case.operation.label} {response.status_code}"] += 1
            try:
                refused = _REFUSED.match(response.content.decode("utf-8", "replace"))
                excluded: list[CheckFunction] = [not_a_server_error] if refused else []
                case.validate_response(response, checks=CHECKS, excluded_checks=excluded)
                _check_privacy(self._who, case, response, self._before, rows(self.rig))
            except BaseException as exc:
                # Kept at once: it may not come up a second time.
                asked = f"{case.formatted_path} {case.query} {case.body!r}"
                found.append(f"{self._who}: {case.method} {asked}: {response.status_code}: {exc}")
                raise

    return Callers


def _make_likely(body: dict[str, Any], turn: int) -> None:
    """Replace texts by names of what there is, in most of the requests."""
    draw = zlib.crc32(f"{sorted(body)} {turn}".encode())
    for number, (name, values) in enumerate(_KNOWN.items()):
        if name in body and (draw >> number) % 4:
            body[name] = deepcopy(values[(draw >> number) % len(values)])
    for name in ("duration", "budget_duration"):
        text = body.get(name)
        if isinstance(text, str) and not _DURATION.fullmatch(text):
            body[name] = "30d"


def _caller(case: schemathesis.Case[Any], turn: int) -> str:
    """Return who asks: mostly the same through a walk, now and then anybody."""
    said = case.operation.definition.raw.get("security", document()["security"])
    schemes = [scheme for one in said for scheme in one]
    if schemes == ["keycloak"]:
        return CALLERS["keycloak"]
    draw = zlib.crc32(f"{case.operation.label} {turn}".encode())
    if draw % 3:
        return "alice"
    names = [
        who for who, id_ in PEOPLE.items() if id_ is not None or "service" in schemes or not schemes
    ]
    return names[draw // 3 % len(names)]


def rows(rig: Rig) -> dict[str, Any]:
    """Return a copy of what LiteLLM keeps of keys, teams and users, by their ids."""
    store = rig.litellm.litellm.store
    return deepcopy({"keys": store.keys, "teams": store.teams, "users": store.users})


def _check_privacy(
    who: str, case: Any, response: Response, before: dict[str, Any], after: dict[str, Any]
) -> None:
    text = response.content.decode("utf-8", "replace")
    for secret in (MASTER_KEY, SECRET, TEAM_SECRET, STATIC_TOKEN):
        assert secret not in text, "a secret is told"
        assert secret not in str(response.headers), "a secret is told"
    assert "eyJ" not in text or case.operation.label.startswith("GET /.backstage"), "a token"
    own = PEOPLE.get(who, "alice@example.com")
    if own is None:
        return
    path = case.operation.path
    if _OF_THE_CALLER.match(path):
        asked = json.dumps([case.path_parameters, case.query, case.body], default=repr)
        tells_only(own, text, {**before["keys"], **after["keys"]}, asked)
        changes_only(own, before, after)
    if who.removeprefix("obo:") not in TEAM_MANAGERS:
        assert _without_members(after["teams"]) == _without_members(before["teams"]), (
            f"{who} has changed a team"
        )
        assert _of_teams(after["keys"]) == _of_teams(before["keys"]), f"{who} has changed keys"


def tells_only(own: str, text: str, keys: dict[str, Any], asked: str) -> None:
    """No other user's keys and no other users are in an answer, but for those one asked with."""
    for token in set(_HASH.findall(text)) - set(_HASH.findall(asked)):
        if token in keys:
            assert keys[token]["user_id"] == own, "another user's key is told"
    for user_id in set(PEOPLE.values()) - {own, None}:
        assert user_id is not None
        assert user_id not in text or user_id in asked, "another user is told of"


def changes_only(own: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    """No other user and no other user's key is changed."""
    for token in before["keys"].keys() | after["keys"].keys():
        old, new = before["keys"].get(token), after["keys"].get(token)
        if old != new:
            owners = {row["user_id"] for row in (old, new) if row is not None}
            assert owners == {own}, "another user's key is changed"
    for user_id, row in before["users"].items():
        if user_id != own:
            assert after["users"].get(user_id) == row, "another user is changed"


def _of_teams(keys: dict[str, Any]) -> dict[str, Any]:
    return {token: row for token, row in keys.items() if row["user_id"] is None}


def _without_members(teams: dict[str, Any]) -> dict[str, Any]:
    """First visits put people into teams, which changes these rows, too."""
    ignored = {"members_with_roles", "updated_at", "spend"}
    return {
        id_: {name: value for name, value in team.items() if name not in ignored}
        for id_, team in teams.items()
    }


def walk(rig: Rig, *, examples: int, steps: int) -> None:
    """Let callers walk along the links.

    Args:
        rig: The application, and the hosts it asks.
        examples: How many walks.
        steps: How many requests a walk has at most.

    Raises:
        Exception: What is wrong; also in :data:`found`.
    """
    walks = machine()
    walks.rig = rig
    run_state_machine_as_test(
        walks,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            database=None,
            deadline=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )


def run(seconds: float) -> int:
    """Walk until the time is over, or something is found; return the exit status."""
    print(f"fuzz: stateful for {seconds} seconds, from {time.asctime()}", flush=True)
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        rig = Rig(Apps(Path(folder) / "key.json").app(), TokenFactory(), patch)
        while time.monotonic() < end:
            try:
                walk(rig, examples=5, steps=30)
            except Exception as exc:
                if found:
                    break
                # Schemathesis tosses coins that Hypothesis knows nothing of, and ids are made up
                # anew each time, so that a walk that is tried again may be another.
                if not isinstance(exc, FlakyStrategyDefinition):
                    raise
            print(f"fuzz: stateful: {done.total()} requests", flush=True)
    for name, times in sorted(done.items()):
        print(f"{times:8} {name}")
    print("\n".join(found))
    return 1 if found else 0
