"""Replays every recorded conversation against the application."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.apps import Apps
from tests.client import PluginClient
from tests.contract import cases
from tests.contract.cases import Case
from tests.contract.compare import Outcome, differences, leaks
from tests.fakes import FakeBackstage, FakeLiteLLM, Network, People, Policy
from tests.fakes.litellm import MASTER_KEY
from tests.fakes.network import NOTHING
from tests.openapi import described
from tests.tokens import RESTRICTED, entity_ref

RECORDED = cases.load(cases.HERE / "cases")


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in RECORDED])
def test_the_answer_is_what_the_contract_says(
    case: Case,
    apps: Apps,
    network: Network,
    litellm: FakeLiteLLM,
    backstage: FakeBackstage,
    client_of: Callable[[Flask], PluginClient],
) -> None:
    litellm.script(case.litellm)
    backstage.policy = Policy(case.policy)
    client = client_of(apps.app(case.variant))

    at = datetime.now(UTC)
    answer = client.request(
        case.request["method"],
        case.request["path"],
        json=case.request.get("json", NOTHING),
        raw=case.request.get("raw"),
        who=case.who,
        headers=case.request.get("headers"),
    )

    outcome = Outcome(
        status=answer.status_code,
        headers={name.lower(): value for name, value in answer.headers},
        body=answer.data,
        calls=litellm.calls,
        at=at,
    )
    found = differences(case, outcome) + _undocumented(case, answer)
    if leaks(outcome, MASTER_KEY):
        found.append("the answer has the master key in it")
    if network.strays:
        found.append(f"asked hosts it has no business with: {network.strays}")
    if found:
        pytest.fail(_report(case, outcome, found), pytrace=False)


def _undocumented(case: Case, answer: TestResponse) -> list[str]:
    request = case.request
    faults = described().answer_faults(
        request["method"],
        request["path"],
        answer,
        body_sent=bool(request.keys() & {"json", "raw"}),
    )
    return [f"not as openapi.yaml says: {fault}" for fault in faults]


def _report(case: Case, outcome: Outcome, found: list[str]) -> str:
    request = case.request
    lines = [
        f"{case.id}: {request['method']} {request['path']} as {case.who}",
        f"variant {case.variant}, parity {case.parity}",
        *([f"policy: {case.policy}"] if case.policy else []),
        *([f"sent: {request['json']}"] if "json" in request else []),
        "",
        *found,
        "",
        f"answered {outcome.status}: {outcome.body[:500].decode('utf-8', 'replace')}",
        "LiteLLM was asked:",
        *[f"  {call.method} {call.target} -> {call.status}" for call in outcome.calls],
    ]
    return "\n".join(lines)


def test_every_case_has_a_name_of_its_own() -> None:
    twice = [name for name, count in Counter(case.id for case in RECORDED).items() if count > 1]
    assert not twice


def test_everyone_who_asks_is_known() -> None:
    others = {"none", "static", "plugin", *RESTRICTED}
    names = {case.who for case in RECORDED if ":" not in case.who} - others
    assert {name for name in names if People.of().entity(entity_ref(name)) is None} == set()


def test_the_recordings_are_all_there() -> None:
    assert len(RECORDED) == 411
    assert {case.variant for case in RECORDED} <= {
        file.stem for file in (cases.HERE / "variants").glob("*.yaml")
    }
