"""The form of the logs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from litellm_plugin.observability import journal, logs, request_id
from litellm_plugin.redaction import redact
from litellm_plugin.server.access_log import Logger

SECRET = "ab" * 32  # the hash of a key


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a logger of this test writes; the root's handlers are put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:], root.level = handlers, level
    logs.ACCESS.setLevel(logging.NOTSET)
    logs._style = "json"


def configured(written: io.StringIO, style: str = "json", **options: Any) -> logging.Logger:
    logs.configure(style, options.pop("level", "info"), **options)
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    return logging.getLogger("elsewhere.test")


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_record_is_one_line_of_json(written: io.StringIO) -> None:
    log = configured(written)
    log.warning("%s\nbroke", "it", extra={"team": "t1"})
    (line,) = lines(written)
    age = datetime.now(UTC) - datetime.fromisoformat(line.pop("time"))
    assert abs(age) < timedelta(minutes=1)
    assert line == {
        "level": "WARNING",
        "logger": "elsewhere.test",
        "message": "it\nbroke",
        "team": "t1",
    }


def test_it_names_the_request_that_it_is_of(written: io.StringIO) -> None:
    log = configured(written)
    trace = request_id.begin({"HTTP_X_REQUEST_ID": "me"})
    log.info("one")
    request_id.end()
    log.info("two")
    one, two = lines(written)
    assert (one["request_id"], one["trace_id"]) == ("me", trace.trace_id)
    assert "request_id" not in two


def test_a_traceback_is_in_the_line_without_secrets(written: io.StringIO) -> None:
    log = configured(written)
    try:
        raise ValueError(f"Bearer {SECRET}")
    except ValueError:
        log.exception("no luck with %s", SECRET)
    (line,) = lines(written)
    assert "Traceback" in line["exception"]
    assert "ValueError: Bearer [redacted]" in line["exception"]
    assert SECRET not in written.getvalue()


def test_a_line_of_the_journal_is_an_object(written: io.StringIO) -> None:
    log = configured(written)
    log.info('{"eventId":"key-create"}', extra={"audit": {"eventId": "key-create"}})
    (line,) = lines(written)
    assert (line["message"], line["audit"]) == ("key-create", {"eventId": "key-create"})


def test_in_development_it_is_text(written: io.StringIO) -> None:
    log = configured(written, "text")
    request_id.begin({"HTTP_X_REQUEST_ID": "me"})
    log.info("key %s", SECRET)
    request_id.end()
    assert written.getvalue().endswith(" INFO    elsewhere.test [me] key [redacted]\n")


def test_what_is_below_the_level_is_left_out(written: io.StringIO) -> None:
    log = configured(written, level="error")
    log.warning("no")
    log.error("yes")
    assert [line["message"] for line in lines(written)] == ["yes"]


def access(written: io.StringIO, environ: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    log = Logger(Config())
    configured(written, **options)
    for handler in log.error_log.handlers:
        assert isinstance(handler.formatter, logs.JsonFormatter)
    response = SimpleNamespace(status="404 Not Found", sent=12)
    log.access(response, None, {"REQUEST_METHOD": "GET", **environ}, timedelta(milliseconds=1.26))
    return lines(written)


def test_a_request_has_a_line(written: io.StringIO) -> None:
    (line,) = access(
        written,
        {
            "PATH_INFO": f"/api/litellm/keys/{'a' * 64}",
            "QUERY_STRING": f"token={SECRET}",
            "HTTP_AUTHORIZATION": f"Bearer {SECRET}",
            request_id.ROUTE: "/api/litellm/keys/<token>",
            request_id.REQUEST_ID: "me",
            request_id.TRACE_ID: "b" * 32,
        },
    )
    del line["time"]
    assert line == {
        "level": "INFO",
        "logger": "litellm_plugin.access",
        "message": "GET /api/litellm/keys/<token> 404",
        "method": "GET",
        "route": "/api/litellm/keys/<token>",
        "status": 404,
        "duration_ms": 1.3,
        "bytes": 12,
        "request_id": "me",
        "trace_id": "b" * 32,
    }


def test_a_path_that_no_route_is_for_is_written_without_secrets(written: io.StringIO) -> None:
    path = f"/{'a' * 64}\n/{SECRET}"
    (line,) = access(written, {"PATH_INFO": path, "QUERY_STRING": "a=b"})
    assert line["message"] == f"GET {redact(path)!r} 404"
    assert "route" not in line


def test_it_can_be_switched_off(written: io.StringIO) -> None:
    assert access(written, {"PATH_INFO": "/"}, access=False) == []


def test_probes_are_told_of_when_they_fail(written: io.StringIO) -> None:
    log = Logger(Config())
    configured(written)
    for status in ("200 OK", "503 Service Unavailable"):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/readyz"}
        log.access(SimpleNamespace(status=status, sent=1), None, environ, timedelta())
    assert [line["status"] for line in lines(written)] == [503]


def test_gunicorn_keeps_the_form_when_it_reloads(written: io.StringIO) -> None:
    log = Logger(Config())
    configured(written, "text")
    log.setup(Config())  # as a HUP makes it do
    assert log.error_log.handlers
    for handler in log.error_log.handlers:
        assert isinstance(handler.formatter, logs.TextFormatter)


@pytest.mark.parametrize(
    "name", ["plain", "an é, a \u2028 and a \x1b[31m", "sk-" + "x" * 20, SECRET]
)
def test_an_audit_event_is_one_line_without_secrets(written: io.StringIO, name: str) -> None:
    configured(written)
    request_id.begin({"HTTP_X_REQUEST_ID": "its-id"})
    try:
        journal.record(journal.UNDELIVERED, {"keyAlias": name}, ValueError(f"about {name}"))
    finally:
        request_id.end()
    (line,) = lines(written)
    assert (line["message"], line["request_id"]) == ("undelivered-key-delete", "its-id")
    assert line["audit"]["meta"]["keyAlias"] == redact(name)
    assert redact(written.getvalue()) == written.getvalue()


def test_half_a_surrogate_pair_does_not_break_a_request(written: io.StringIO) -> None:
    configured(written)
    journal.record(journal.USER_PROVISION, {"keyAlias": "a\ud800b"})
    (line,) = lines(written)
    assert line["message"] == "user-provision"


@pytest.mark.parametrize("of", ["litellm_plugin.audit", "litellm_plugin"])
def test_whoever_listens_to_the_journal_alone_hears_it(written: io.StringIO, of: str) -> None:
    configured(written)
    heard: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append(vars(record)["audit"]["eventId"])  # type: ignore[method-assign]
    logging.getLogger(of).addHandler(listener)
    try:
        journal.record(journal.AUTHORIZE, {})
    finally:
        logging.getLogger(of).removeHandler(listener)
    assert heard == ["authorize"]
    assert len(lines(written)) == 1


@pytest.mark.parametrize("broken", ["closed", "failing"])
def test_a_log_that_can_not_be_written_does_not_break_the_request(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(_: str) -> int:
        raise OSError

    configured(written)
    if broken == "closed":
        written.close()
    else:
        monkeypatch.setattr(written, "write", fail)
    logs.ACCESS.info("GET /keys 200")
    journal.record(journal.AUTHORIZE, {})
