"""Schemathesis makes requests of all kinds from our OpenAPI document.

What is made depends on the document only: random ones for each operation, and one for each rule of
each schema. Each is sent by each kind of caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import (
    CoveragePhaseConfig,
    GenerationConfig,
    PhasesConfig,
    ProjectConfig,
    ProjectsConfig,
)
from schemathesis.transport.wsgi import WSGI_TRANSPORT
from werkzeug.test import Client

from litellm_plugin.routes.openapi import document
from tests.client import MOUNT
from tests.openapi import described
from tests.rig import CALLERS, Rig
from tests.standin import IDS, furnished

pytestmark = pytest.mark.deep

DURATION = re.compile(r"[0-9]{1,4}(s|m|h|d|w|mo)")  # of more digits some are beyond its calendar

GENERATION = GenerationConfig(deterministic=True, with_security_parameters=False)
# Without that profile the requests are not even put together.
COVERAGE = CoveragePhaseConfig(enabled=settings.get_current_profile_name() == "deep")
PHASES = PhasesConfig(coverage=COVERAGE)
CONFIG = schemathesis.Config(
    projects=ProjectsConfig(default=ProjectConfig(generation=GENERATION, phases=PHASES))
)
SCHEMA = schemathesis.openapi.from_dict({**document(), "servers": [{"url": MOUNT}]}, config=CONFIG)


@SCHEMA.parametrize()
@settings(
    max_examples=settings().max_examples // 5,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_request_finds_a_server_error_or_an_undocumented_answer(
    case: schemathesis.Case[Any], rig: Rig
) -> None:
    if _has_odd_duration(case.body):
        return
    for who, path_parameters in _ways(case):
        case.path_parameters = path_parameters
        furnished()  # anew: each request may delete something
        sent = WSGI_TRANSPORT.serialize_case(case, headers=rig.credentials(who))
        answer = Client(rig.app).open(**sent)
        target = sent["path"].removeprefix(MOUNT)
        assert answer.status_code < 500, answer.text
        assert list(described().answer_faults(case.method, target, answer)) == []


def _ways(case: schemathesis.Case[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield who may ask, and for what: ids that nobody has, and the caller's own."""
    callers = [CALLERS[scheme] for scheme in _schemes(case)]
    given = dict(case.path_parameters)
    yield callers[0], {name: IDS[name] for name in given}
    if given or len(callers) > 1:
        yield callers[-1], given


def _schemes(case: schemathesis.Case[Any]) -> list[str]:
    said = case.operation.definition.raw
    wanted = said.get("security", document()["security"])
    return [scheme for one in wanted for scheme in one] or ["user"]


def _has_odd_duration(body: Any) -> bool:
    """Tell whether LiteLLM would answer 500, which the contract has us hand on."""
    given = body if isinstance(body, dict) else {}
    texts = (given.get(name) for name in ("duration", "budget_duration"))
    return any(isinstance(text, str) and not DURATION.fullmatch(text) for text in texts)
