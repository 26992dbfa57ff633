"""The audit journal: a line for every write and every denial, with who, what and from where."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from litellm_plugin.config.settings import Settings
from litellm_plugin.observability import journal
from litellm_plugin.redaction import redact
from litellm_plugin.routes.routing import routes
from tests.client import MOUNT, PluginClient, Serve
from tests.fakes.network import NOTHING
from tests.openapi import Operation, operations
from tests.rig import Rig
from tests.standin import KEY, SECRET, TEAM

# Routes of other methods than GET that change nothing in LiteLLM.
NO_WRITES = {"clear_cookie", "apply_conditions"}

USAGE = f"/teams/{TEAM}/usage?start_date=2026-11-01&end_date=2026-11-02"
BACK = "/opencode/connect?redirect_uri=http%3A%2F%2Flocalhost%3A1455%2Fcallback"


class Lines(logging.Handler):
    """Keeps the journal's lines, decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []
        self.levels: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        assert text.isascii()
        assert not re.search(r"[\x00-\x1f]", text)
        line = json.loads(text)
        assert line == vars(record)["audit"]
        self.lines.append(line)
        self.levels.append(record.levelno)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["eventId"] == event]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    journal.log.addHandler(handler)
    yield handler
    journal.log.removeHandler(handler)


# Each is asked as its examples in the OpenAPI document say.
CHANGES = [operation for operation in operations() if operation.route.event]
every_change = pytest.mark.parametrize("operation", CHANGES, ids=str)


def test_every_route_that_writes_has_an_event_in_the_journal() -> None:
    for route in routes:
        assert route.event or route.method == "GET" or route.name in NO_WRITES, (
            f"{route.method} {route.rule} has no event for the audit log"
        )
    events = [_event(operation) for operation in CHANGES]
    assert len(events) == len(set(events))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", event) for event in events)


def _event(operation: Operation) -> str:
    assert operation.route.event is not None
    return operation.route.event.id


def _ask(rig: Rig, operation: Operation, who: str | None = None) -> int:
    who = who or operation.caller
    return rig.ask(who, operation.method, operation.target, json=operation.body).status_code


@every_change
def test_every_write_leaves_one_line_that_tells_who_what_and_where(
    rig: Rig, lines: Lines, operation: Operation
) -> None:
    event = _event(operation)
    assert _ask(rig, operation) in {200, 302}
    (line,) = lines.of(event)
    assert line["status"] == "succeeded"
    assert line["plugin"] == "litellm"
    by = "bridge:alice" if "keycloak" in operation.schemes else "user:default/alice"
    assert line["actor"]["actorId"] == by
    assert line["actor"]["ip"] == "127.0.0.1"
    assert line["request"]["method"] == operation.method
    assert line["request"]["url"].startswith(MOUNT)
    assert line["isAuditEvent"] is True
    if "{token}" in operation.path:
        assert line["meta"]["keyId"] == KEY[: journal.KEY_DIGITS]
        assert line["meta"]["userId"] == "alice@example.com"
        assert line["meta"]["keyAlias"] == "alice-laptop"
    new_users = lines.of("user-provision") if event == "team-member-add" else []
    assert lines.lines == [*new_users, line]


@every_change
def test_every_write_that_is_denied_leaves_one_line(
    rig: Rig, lines: Lines, operation: Operation
) -> None:
    assert _ask(rig, operation, "none") == 401
    (line,) = lines.lines
    assert (line["eventId"], line["status"]) == (_event(operation), "failed")
    assert line["meta"]["statusCode"] == 401
    assert line["error"]["message"]
    assert "actorId" not in line["actor"]


@pytest.mark.parametrize(
    ("who", "method", "target", "status", "event", "actor"),
    [
        ("none", "GET", "/keys", 401, "authenticate", None),
        ("expired:alice", "GET", "/keys", 401, "authenticate", None),
        ("static", "GET", "/audit", 401, "authenticate", "rig-full"),
        ("bob", "GET", "/audit", 403, "authorize", "user:default/bob"),
        ("bob", "GET", USAGE, 403, "authorize", "user:default/bob"),
        ("bob", "DELETE", f"/teams/{TEAM}", 403, "team-delete", "user:default/bob"),
        ("bob", "DELETE", f"/keys/{KEY}", 403, "key-delete", "user:default/bob"),
        ("alice", "POST", f"/keys/{KEY}/update", 400, "key-update", "user:default/alice"),
        ("obo:alice", "DELETE", "/keys/none", 403, "key-delete", "user:default/alice"),
    ],
)
def test_every_denial_leaves_a_line(
    rig: Rig,
    lines: Lines,
    who: str,
    method: str,
    target: str,
    status: int,
    event: str,
    actor: str | None,
) -> None:
    sent = {"spend": 0} if method == "POST" else NOTHING
    assert rig.ask(who, method, target, json=sent).status_code == status
    (line,) = [each for each in lines.lines if each["eventId"] != "user-provision"]
    assert (line["eventId"], line["status"]) == (event, "failed")
    assert line["actor"].get("actorId") == actor
    assert line["meta"]["statusCode"] == status
    assert line["actor"].get("onBehalfBy") == ("plugin:rig" if who == "obo:alice" else None)


def test_what_is_read_and_allowed_leaves_no_line(rig: Rig, lines: Lines) -> None:
    for target in ("/keys", "/teams", "/nope", "/health"):
        rig.ask("alice", "GET", target)
    rig.ask("alice", "HEAD", BACK)
    rig.ask("alice", "OPTIONS", "/keys/generate")
    assert lines.lines == []


def test_a_first_visit_is_told_of_once_and_by_whom(rig: Rig, lines: Lines) -> None:
    for _ in range(2):
        assert rig.ask("bob", "GET", "/keys").status_code == 200
    (line,) = lines.lines
    assert (line["eventId"], line["status"]) == ("user-provision", "succeeded")
    assert line["actor"]["actorId"] == "user:default/bob"
    assert line["meta"]["userId"] == "bob@example.com"
    assert line["request"]["url"] == f"{MOUNT}/keys"


def test_a_first_visit_that_fails_is_told_of(rig: Rig, lines: Lines) -> None:
    rig.litellm.failures["/user/new"] = 500
    assert rig.ask("bob", "GET", "/keys").status_code == 502
    (line,) = lines.of("user-provision")
    assert line["status"] == "failed"
    assert "told to fail" in line["error"]["message"]


def test_a_write_that_litellm_refuses_is_told_of_as_failed(rig: Rig, lines: Lines) -> None:
    rig.litellm.failures["/key/generate"] = 500
    body = {"alias": "ci", "max_budget": 5}
    assert rig.ask("alice", "POST", "/keys/generate", json=body).status_code == 500
    (line,) = lines.lines
    assert line["status"] == "failed"
    assert line["meta"]["fields"] == {"alias": "ci", "max_budget": 5}


def test_a_replaced_key_is_named(rig: Rig, lines: Lines) -> None:
    for _ in range(2):
        assert rig.ask("alice", "GET", BACK).status_code == 302
    first, second = lines.lines
    assert second["meta"]["replacedKeyIds"] == [first["meta"]["keyId"]]
    assert second["meta"]["keyId"] != first["meta"]["keyId"]


def test_a_key_in_a_path_is_not_written_but_told_by_its_hash(rig: Rig, lines: Lines) -> None:
    for spelling in (SECRET, "%73" + SECRET[1:], KEY, KEY.upper()):
        rig.ask("alice", "DELETE", f"/keys/{spelling}?user_id=Bearer%20{SECRET}")
    ids = {line["meta"]["keyId"] for line in lines.lines}
    assert ids == {KEY[: journal.KEY_DIGITS]}
    assert len(lines.lines) == 4
    text = json.dumps(lines.lines)
    assert SECRET not in text
    assert KEY not in text
    assert redact(text) == text


@pytest.mark.parametrize(
    "name", ["a\nb", "\u2028\u0085\r\n", "x\x1b[31m", "\x00", "é" * 5000, '"},{"eventId":"forged"']
)
def test_no_name_ends_the_line_or_makes_it_long(rig: Rig, lines: Lines, name: str) -> None:
    body = {"alias": name, "models": [name] * 500, "max_budget": 10**400, "x" * 90_000: 1}
    headers = {"User-Agent": name.encode("unicode_escape").decode() * 50}
    rig.ask("alice", "POST", "/keys/generate", json=body, headers=headers)
    (line,) = lines.lines
    assert line["eventId"] == "key-create"
    assert len(json.dumps(line)) < 32_000


def test_a_body_that_can_not_be_read_is_told_without_its_fields(rig: Rig, lines: Lines) -> None:
    rig.ask(
        "alice",
        "POST",
        "/keys/generate",
        raw='{"alias":"\\ud800"}',
        headers={"Content-Type": "application/json"},
    )
    (line,) = lines.lines
    assert (line["status"], line["meta"].get("fields")) == ("failed", None)


def test_what_people_keep_in_metadata_is_not_told(rig: Rig, lines: Lines) -> None:
    rig.ask("alice", "POST", "/keys/generate", json={"alias": "a", "metadata": {"pin": "4711"}})
    (line,) = lines.lines
    assert line["meta"]["fields"] == {"alias": "a", "others": 1}
    assert "4711" not in json.dumps(line)


def test_the_request_id_of_the_environment_is_told(rig: Rig, lines: Lines) -> None:
    app = rig.app.wsgi_app

    def named(environ: dict[str, Any], start: Any) -> Any:
        environ["litellm_plugin.request_id"] = "the-id"
        return app(environ, start)

    PluginClient(named).get("/keys")
    (line,) = lines.lines
    assert line["requestId"]


def test_the_level_goes_by_severity(serve: Serve, settings: Settings, lines: Lines) -> None:
    levels = {"low": logging.DEBUG, "medium": logging.ERROR, "high": 20, "critical": 20}
    client = serve(audit_levels=levels)
    client.get("/audit", who="bob")  # low, so it is not logged
    client.get("/audit")
    with journal.acting("litellm-plugin:offboard", replace(settings, audit_levels=levels)):
        journal.record(journal.AUTHORIZE, {})  # low
        journal.record(journal.USER_PROVISION, {})
    assert lines.levels == [logging.ERROR] * 2


def test_where_no_logging_is_set_up_it_goes_to_standard_error(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(journal.log, "propagate", False)
    assert not journal.log.hasHandlers()
    rig.ask("none", "GET", "/keys")
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert json.loads(line)["eventId"] == "authenticate"
    assert out == ""


def test_a_line_about_no_request_is_possible(lines: Lines) -> None:
    journal.record(journal.USER_PROVISION, {"userId": "x"})
    assert lines.lines[0]["meta"] == {"userId": "x"}
    assert "actor" not in lines.lines[0]
