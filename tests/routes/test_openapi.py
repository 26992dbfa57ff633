"""The OpenAPI document says what the routes do, no more and no less."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator
from werkzeug.datastructures import Headers as AnswerHeaders
from werkzeug.test import EnvironBuilder, TestResponse

import litellm_plugin
from litellm_plugin import create_app
from litellm_plugin.config.settings import Bridge, Opencode, Provisioning
from tests.apps import Apps
from tests.client import MOUNT, PluginClient, json_of
from tests.contract import cases
from tests.contract.cases import Case
from tests.fakes import connection_refused
from tests.fakes.network import NOTHING
from tests.openapi import (
    METHODS,
    Described,
    Operation,
    described,
    operations,
    resolved,
)
from tests.rig import CALLERS, Rig
from tests.standin import IDS, TEAM, furnished
from tests.tokens import TokenFactory

Headers = dict[str, str]

CATALOG_ONLY = "raw:Bearer rig-static-catalog-only-token"  # of contract/base.yaml


OPERATIONS = operations()
WITH_BODY = [operation for operation in OPERATIONS if operation.body is not NOTHING]
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)
operation_with_a_body = pytest.mark.parametrize("operation", WITH_BODY, ids=str)


def statuses(some: tuple[int, ...], others: tuple[int, ...]) -> pytest.MarkDecorator:
    """Try some statuses by default, and the others with ``make deep``."""
    rows = [
        pytest.param(some, id="some"),
        pytest.param(others, id="others", marks=pytest.mark.deep),
    ]
    return pytest.mark.parametrize("statuses", rows)


# -- the document ------------------------------------------------------------


@pytest.fixture
def document(client: PluginClient) -> dict[str, Any]:
    """The document as it is served."""
    told = json_of(client.get("/openapi.json", who="bob"))
    served: dict[str, Any] = told
    return served


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_the_document_names_the_packages_version_and_the_mount(document: dict[str, Any]) -> None:
    assert document["info"]["version"] == litellm_plugin.__version__
    assert document["servers"] == [{"url": MOUNT}]


def test_the_server_is_where_the_application_is_mounted(app: Flask, bob: Headers) -> None:
    answer = app.test_client().get(
        f"{MOUNT}/openapi.json", headers=bob, environ_overrides={"SCRIPT_NAME": "/below"}
    )
    assert answer.get_json()["servers"] == [{"url": f"/below{MOUNT}"}]


def test_every_route_is_documented_and_every_operation_is_a_route(
    app: Flask, document: dict[str, Any]
) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.removeprefix(MOUNT)), endpoint)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(MOUNT)
        if (endpoint := rule.endpoint.rpartition(".")[2]) != "unknown_route"
        for method in rule.methods or ()
        if method.lower() in METHODS  # HEAD goes with GET, and OPTIONS is for CORS
    }
    operations = {
        (method.upper(), path, said.get("operationId"))
        for path, item in document["paths"].items()
        for method, said in item.items()
    }
    assert operations == routes


def test_every_path_parameter_is_documented() -> None:
    for operation in OPERATIONS:
        parameters = map(resolved, operation.said.get("parameters", ()))
        named = [one["name"] for one in parameters if one["in"] == "path"]
        assert sorted(named) == sorted(re.findall(r"\{(\w+)\}", operation.path)), operation


def test_every_operation_says_what_it_is_for() -> None:
    tags = {tag["name"] for tag in described().at("/tags")}
    for operation in OPERATIONS:
        assert operation.said["summary"], operation
        assert set(operation.said["tags"]) <= tags, operation


def test_no_component_is_left_over() -> None:
    text = json.dumps(described().at(""))
    components = described().at("/components")
    places = [f"{kind}/{name}" for kind in components for name in components[kind]]
    unused = [
        place
        for place in places
        if f'"#/components/{place}"' not in text and not place.startswith("securitySchemes/")
    ]
    assert unused == []


def _with_examples(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the pointer of each schema that has an example, and the example."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _with_examples(item, f"{place}/{index}")
    if isinstance(value, dict):
        if "example" in value:
            schema = f"{place}/schema" if "schema" in value else place
            if not place.startswith("/components/responses") or "schema" in value:
                yield schema, value["example"]
        for example in value.get("examples", {}).values() if "schema" in value else ():
            yield f"{place}/schema", example["value"]
        for name, member in value.items():
            if name != "example":
                escaped = name.replace("~", "~0").replace("/", "~1")
                yield from _with_examples(member, f"{place}/{escaped}")


def test_every_example_is_what_its_schema_says() -> None:
    judge = described()
    examples = list(_with_examples(judge.at("")))
    assert len(examples) > 30
    faults = [f"{where}: {fault}" for where, one in examples for fault in judge.faults(where, one)]
    assert faults == []


# -- the routes, asked as the examples say -----------------------------------


@pytest.fixture(scope="module")
def bare_app(apps: Apps) -> Flask:
    """An application where whatever can be switched off is."""
    settings = apps.settings()
    return create_app(
        replace(settings, bridge=Bridge(), opencode=Opencode(), provisioning=Provisioning())
    )


@pytest.fixture
def rig(apps: Apps, tokens: TokenFactory, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(apps.whole, tokens, monkeypatch)


@pytest.fixture
def bare_rig(bare_app: Flask, tokens: TokenFactory, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(bare_app, tokens, monkeypatch)


def _ask(rig: Rig, operation: Operation, who: str | None = None, **sent: Any) -> TestResponse:
    """Send the request that the operation's examples make; ``sent`` says what is else."""
    if "raw" not in sent:
        sent = {"json": operation.body, **sent}
    return rig.ask(who or operation.caller, operation.method, operation.target, **sent)


def _judged(operation: Operation, answer: TestResponse, *, body_sent: bool = False) -> list[str]:
    return list(
        described().answer_faults(operation.method, operation.target, answer, body_sent=body_sent)
    )


@every_operation
def test_the_examples_work_and_what_has_not_changed_is_not_sent_again_as_documented(
    rig: Rig, operation: Operation
) -> None:
    answer = _ask(rig, operation)
    assert answer.status_code in {200, 204, 302}, answer.text
    assert _judged(operation, answer) == []
    again = _ask(rig, operation, headers={"If-None-Match": answer.headers.get("ETag", "")})
    assert (again.status_code == 304) == ("304" in operation.codes)
    assert _judged(operation, again) == []


@every_operation
def test_each_operation_takes_the_credentials_it_names_and_no_others(
    rig: Rig, operation: Operation
) -> None:
    elsewhere = _ask(rig, operation, CATALOG_ONLY)
    assert _judged(operation, elsewhere) == []
    if "" in operation.schemes:
        assert _ask(rig, operation, "none").status_code == elsewhere.status_code == 200
        return
    assert elsewhere.status_code == (401 if "keycloak" in operation.schemes else 403)
    assert _ask(rig, operation, "none").status_code == 401
    for scheme, who in CALLERS.items():
        answer = _ask(rig, operation, who)
        if scheme in operation.schemes:
            assert answer.status_code != 401, f"{scheme}: {answer.text}"
        else:
            assert answer.status_code in {401, 403}, f"{scheme}: {answer.text}"
        assert _judged(operation, answer) == []


@every_operation
def test_what_is_switched_off_is_refused_as_documented(bare_rig: Rig, operation: Operation) -> None:
    off = operation.path.startswith(("/bridge/", "/opencode/"))
    answer = _ask(bare_rig, operation, "alice" if off else None)
    assert answer.status_code == 404 or not off
    assert _judged(operation, answer) == []
    assert _judged(operation, _ask(bare_rig, operation, "none")) == []
    assert _judged(operation, _ask(bare_rig, operation, CATALOG_ONLY)) == []


@every_operation
def test_bodies_that_can_not_be_read_are_refused_as_documented(
    rig: Rig, operation: Operation
) -> None:
    json_type = {"Content-Type": "application/json"}
    for raw, headers, status in (
        ("{", json_type, 400),
        ('{"a":"' + "a" * 102_400 + '"}', json_type, 413),
        ("{}", {"Content-Type": "application/json; charset=latin-1"}, 415),
    ):
        answer = _ask(rig, operation, raw=raw, headers=headers)
        assert answer.status_code == status
        assert _judged(operation, answer, body_sent=True) == []


@operation_with_a_body
def test_a_body_without_meaning_is_refused_as_documented(rig: Rig, operation: Operation) -> None:
    nonsense: Any = {"made": "up"}
    fields = operation.body_schema.get("properties", {})
    for odd in ({}, *({**operation.body, name: nonsense} for name in fields)):
        answer = _ask(rig, operation, json=odd)
        assert answer.status_code in {200, 400, 409}
        assert _judged(operation, answer) == []


# -- errors occur where they are documented, and nowhere else ----------------


@every_operation
def test_litellm_out_of_reach_is_500_where_documented(rig: Rig, operation: Operation) -> None:
    rig.litellm.failures[""] = connection_refused()
    answer = _ask(rig, operation)
    if "/usage" in operation.path:
        assert answer.status_code == 503
    else:
        assert (answer.status_code == 500) == ("500" in operation.codes)
    assert _judged(operation, answer) == []


# The LiteLLM path on whose answer a read depends, where that is not the caller's account. A change
# depends on its last write.
READ = {
    "models": "/models",
    "bridge_models": "/models",
    "managed_teams": "/team/list",
    "vector_stores": "/vector_store/list",
    "mcp_servers": "/v1/mcp/server",
    "audit_log": "/audit",
}


def _upstream_path(rig: Rig, operation: Operation) -> str:
    """Return the LiteLLM path on whose answer an operation's own depends."""
    if operation.route.event is None:
        return READ[operation.route.name]
    assert _ask(rig, operation).status_code in {200, 302}
    path = rig.litellm.writes[-1]
    furnished()
    return path


@pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if one.route.event or one.route.name in READ], ids=str
)
@statuses((302, 401, 404, 418, 500), (400, 403, 409, 422, 429, 503, 599))
def test_litellms_status_is_handed_on_where_documented(
    rig: Rig, operation: Operation, statuses: tuple[int, ...]
) -> None:
    path = _upstream_path(rig, operation)
    rig.litellm.failures["/model/info"] = 500  # so that the models are asked for by name
    for status in statuses:
        rig.litellm.failures[path] = status
        answer = _ask(rig, operation)
        kept = 502 if status < 400 or status in {401, 403} else status
        relays = operation.route.relays
        handed_on = relays if isinstance(relays, bool) else status in relays
        assert answer.status_code == (kept if handed_on else 500)
        assert _judged(operation, answer) == []


@every_operation
@statuses((400, 500), (401, 404, 409, 422))
def test_a_user_that_litellm_does_not_create_is_told_of_as_documented(
    rig: Rig, operation: Operation, statuses: tuple[int, ...]
) -> None:
    rig.litellm.litellm.store.users.clear()
    for status in statuses:
        rig.litellm.failures["/user/new"] = status
        assert _judged(operation, _ask(rig, operation)) == []


@every_operation
def test_a_user_that_nobody_may_create_is_told_of_as_documented(
    bare_rig: Rig, operation: Operation
) -> None:
    bare_rig.litellm.litellm.store.users.clear()
    assert _judged(operation, _ask(bare_rig, operation)) == []


@every_operation
def test_backstage_out_of_reach_is_503_where_documented(rig: Rig, operation: Operation) -> None:
    # The first needs Backstage's keys, which are within reach; the second the catalog, where
    # litellm.bridge.group is set.
    if operation.path in {"/readyz", "/bridge/models"}:
        return
    rig.litellm.litellm.store.users.clear()  # a first visit needs the catalog
    rig.backstage.failures.update(dict.fromkeys(("catalog", "permission"), 500))
    answer = _ask(rig, operation)
    assert (answer.status_code == 503) == ("503" in operation.codes)
    assert _judged(operation, answer) == []


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if "{" in one.path], ids=str)
def test_what_is_not_there_is_told_of_as_documented(
    rig: Rig, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id_ in ("nobodys", "a%2Fb", "a,b", "a%0Ab", "%zz"):
        for name in IDS:
            monkeypatch.setitem(IDS, name, id_)
        for who in (operation.caller, "none"):
            assert _judged(operation, _ask(rig, operation, who)) == []


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if "?" in one.target], ids=str)
def test_parameters_given_twice_or_not_at_all_are_told_of_as_documented(
    rig: Rig, operation: Operation
) -> None:
    path, _, query = operation.target.partition("?")
    for target in (path, f"{path}?{query}&{query}"):
        answer = rig.ask(operation.caller, operation.method, target, json=operation.body)
        assert _judged(operation, answer) == []


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("/usage?start_date=yesterday&end_date=2026-11-30", "start_date"),
        ("/usage?start_date=2026-11-01&end_date=2026-11-31", "end_date"),
        ("/usage?start_date=20261101&end_date=2026-11-30", "start_date"),
        (f"/teams/{TEAM}/usage?start_date=2026-11-01&end_date=null", "end_date"),
        ("/teams/a,b/usage?start_date=2026-11-01&end_date=2026-11-30", "comma"),
        ("/audit?page_size=101", "page_size"),
    ],
)
def test_what_litellm_does_not_take_is_the_callers_fault(rig: Rig, target: str, wrong: str) -> None:
    who = "plugin" if wrong == "comma" else "alice"
    assert wrong in json_of(rig.ask(who, "GET", target), 400)["error"]


def test_dates_of_the_audit_log_are_times(rig: Rig) -> None:
    rig.litellm.failures["/audit"] = 500  # as LiteLLM answers to a bare day
    assert rig.ask("alice", "GET", "/audit?start_date=2026-11-01").status_code == 400
    target = "/audit?start_date=2026-11-01T00%3A00%3A00Z&end_date=2026-11-02T00%3A00%3A00%2B01%3A00"
    assert rig.ask("alice", "GET", target).status_code == 500


def test_a_line_break_in_a_path_does_not_lead_around_the_barrier(rig: Rig) -> None:
    assert rig.ask("none", "GET", "/made%0Aup").status_code == 401
    assert rig.ask("alice", "GET", "/made%0Aup").status_code == 404
    assert rig.ask("alice", "DELETE", "/keys/made%0Aup").status_code == 403


# -- the recordings ----------------------------------------------------------

# The team forms send no such limits; they are ignored, as the original does.
ODD_LIMITS = frozenset({"team-create-body-11", "team-create-strict-body-11"})


def _promised(case: Case) -> int:
    """Return the status; 0 where there are several."""
    status: int = case.expect.get("status", 0 if case.expect else case.original["status"])
    return status


def test_every_recorded_body_that_was_taken_is_as_documented() -> None:
    recorded = [
        case
        for case in cases.load(cases.HERE / "cases")
        if "json" in case.request
        and case.request["method"] != "DELETE"
        and 200 <= _promised(case) < 300
        and case.name not in ODD_LIMITS
    ]
    assert len(recorded) > 20
    faults = [
        f"{case.id}: {fault}"
        for case in recorded
        for fault in described().request_faults(
            case.request["method"], case.request["path"], case.request["json"]
        )
    ]
    assert faults == []


# -- the judge ---------------------------------------------------------------


def _answer(status: int, body: Any, mimetype: str = "application/json") -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = AnswerHeaders({"Content-Type": mimetype})
    return TestResponse([data], f"{status} X", headers, request=EnvironBuilder().get_request())


HEALTHY = {"status": "ok", "provisioning": True}


@pytest.mark.parametrize(
    ("method", "target", "answer", "fault"),
    [
        ("GET", "/health", _answer(200, HEALTHY), None),
        ("GET", "/health/?x=1", _answer(200, HEALTHY), None),
        ("GET", "/%68ealth", _answer(200, HEALTHY), None),
        ("HEAD", "/health", _answer(200, b""), None),
        ("GET", "/health", _answer(418, {"error": "x"}), "418 is not documented"),
        ("GET", "/health", _answer(500, {"error": "x"}), "500 is not documented"),
        ("GET", "/health", _answer(400, {"error": "x"}), "400 is not documented"),
        ("GET", "/health", _answer(200, HEALTHY, "text/html"), "text/html"),
        ("GET", "/health", _answer(200, {"status": "ok"}), "'provisioning' is a required"),
        ("GET", "/health", _answer(200, {**HEALTHY, "status": "no"}), "$.status"),
        ("GET", "/health", _answer(200, {**HEALTHY, "made_up": 1}), "made_up"),
        ("GET", "/health", _answer(304, b"x"), "no body is documented"),
        ("GET", "/made-up", _answer(404, {"error": "x"}), None),
        ("GET", "/made-up", _answer(200, {}), "no operation is documented"),
        ("PUT", "/health", _answer(200, {}), "no operation is documented"),
        ("GET", "/teams/managed", _answer(418, {"error": "x", "param": "y"}), None),
        ("GET", "/teams/managed", _answer(418, {"error": "x", "hint": "y"}), "hint"),
        ("GET", "/.backstage/auth/v1/cookie", _answer(200, {"expiresAt": "x"}), "Set-Cookie"),
    ],
)
def test_the_judge_finds_what_is_not_as_documented(
    method: str, target: str, answer: TestResponse, fault: str | None
) -> None:
    found = " ".join(described().answer_faults(method, target, answer))
    assert (fault in found) if fault else found == ""


def test_the_judge_finds_bodies_that_are_not_as_documented() -> None:
    judge: Described = described()
    assert list(judge.request_faults("POST", "/keys/generate", {"alias": "ci"})) == []
    assert list(judge.request_faults("POST", "/keys/generate", {"alias": "ci", "made_up": 1}))
    assert list(judge.request_faults("GET", "/keys", {})) == ["no body is documented"]
