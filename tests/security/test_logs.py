"""Whatever somebody sends, one event is one line of the log, and no line is theirs."""

from __future__ import annotations

import importlib
import io
import json
import logging
import pkgutil
from collections.abc import Iterator
from urllib.parse import quote

import pytest

import litellm_plugin
from litellm_plugin.observability import logs
from tests.client import PluginClient
from tests.fakes import FakeBackstage, FakeLiteLLM
from tests.tokens import TokenFactory

Headers = dict[str, str]

PACKAGE = "litellm_plugin"
FORGED = "2026-11-27 12:00:00 INFO provisioned root"
EVIL = f"x\r\n{FORGED}\x1b[2J\x1b]0;x\x07\u2028{FORGED}\u202e\x85\x7f"


@pytest.fixture
def log(client: PluginClient) -> Iterator[io.StringIO]:
    """What a plain handler writes, everything included, while the application is asked."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    package = logging.getLogger("litellm_plugin")
    before = package.level
    package.addHandler(handler)
    package.setLevel(logging.DEBUG)
    yield written
    package.removeHandler(handler)
    package.setLevel(before)


def _lines(log: io.StringIO) -> list[str]:
    """Return the lines, of which each but the further ones of a traceback is a record's."""
    text = log.getvalue()
    assert text.isascii() or not any(char in text for char in "\x1b\u2028\u202e\x85\x7f\r")
    lines = text.splitlines()
    assert not [line for line in lines if line.startswith(FORGED)]
    assert all(line.split()[1].startswith("litellm_plugin") for line in lines if line[0] != " ")
    return lines


def test_a_subject_of_a_token_begins_no_line(
    client: PluginClient, litellm: FakeLiteLLM, tokens: TokenFactory, log: io.StringIO
) -> None:
    litellm.get("/user/info", status=404, times=1)
    litellm.post("/user/new")
    litellm.post("/user/update")
    litellm.get("/user/info", json={"user_id": "x", "user_info": {"user_id": "x"}})
    headers = {"Authorization": f"Bearer {tokens.user(sub=f'user:default/{EVIL}')}"}
    assert client.get("/keys", headers=headers).status_code == 200
    assert any("provisioned" in line and "root" in line for line in _lines(log))


def test_the_user_that_a_service_names_begins_no_line(
    client: PluginClient, litellm: FakeLiteLLM, tokens: TokenFactory, log: io.StringIO
) -> None:
    litellm.get("/user/info", status=404, times=1)
    litellm.post("/user/new")
    litellm.post("/user/update", status=500, text=EVIL)
    litellm.get("/user/info", json={"user_id": "x", "user_info": {"user_id": "x"}})
    headers = {"Authorization": f"Bearer {tokens.plugin()}"}
    assert client.get(f"/user/info?user_id={quote(EVIL)}", headers=headers).status_code == 200
    assert len(_lines(log)) >= 2


def test_what_an_upstream_says_begins_no_line(
    client: PluginClient,
    litellm: FakeLiteLLM,
    backstage: FakeBackstage,
    alice: Headers,
    log: io.StringIO,
) -> None:
    litellm.get("/user/info", json={"user_info": {"user_id": EVIL}, "teams": [EVIL]})
    litellm.get("/team/info", status=500, json={"error": {"message": EVIL}})
    litellm.get("/model/info", status=500, text=EVIL)
    litellm.get("/models", json={"data": []})
    assert client.get("/teams", headers=alice).status_code == 200
    assert client.get("/models", headers=alice).status_code == 200
    backstage.failures["catalog"] = 500
    client.get("/audit", headers=alice)
    assert len(_lines(log)) >= 3


def test_a_fault_is_told_in_lines_that_are_seen_to_be_of_it(
    client: PluginClient, litellm: FakeLiteLLM, alice: Headers, log: io.StringIO
) -> None:
    litellm.get("/user/info", error=RuntimeError(f"sk-secret-of-a-fault\n{FORGED}"))
    assert client.get("/keys", headers=alice).status_code == 500
    lines = _lines(log)
    assert any(line == f"    {FORGED}" for line in lines)
    assert "sk-secret-of-a-fault" not in log.getvalue()


@pytest.mark.parametrize("where", ["path", "query", "user-agent", "origin", "content-type", "body"])
def test_what_is_refused_writes_nothing_of_its_own(
    client: PluginClient, alice: Headers, log: io.StringIO, where: str
) -> None:
    sent = quote(EVIL, safe="")
    printable = EVIL.encode("unicode_escape").decode()
    path = f"/keys/{sent}/update" if where == "path" else f"/usage?start_date={sent}&end_date=x"
    headers = {
        "user-agent": {"User-Agent": printable},
        "origin": {"Origin": printable},
        "content-type": {"Content-Type": f"application/json; charset={printable}"},
        "body": {"Content-Type": "application/json"},
    }.get(where, {})
    client.post(path, raw=EVIL, headers=alice | headers)
    _lines(log)


def test_every_logger_of_the_package_is_guarded(client: PluginClient) -> None:
    def names() -> set[str]:
        known = logging.root.manager.loggerDict.items()
        return {
            name
            for name, logger in known
            if name.startswith(f"{PACKAGE}.")
            and not name.startswith(f"{PACKAGE}.sandbox")
            and isinstance(logger, logging.Logger)  # and not just a parent of some
        }

    guarded = names()
    assert len(guarded) > 10
    for name in guarded:
        filters = logging.getLogger(name).filters
        assert any(isinstance(each, logs.Printable) for each in filters), name
    # Those that gunicorn loads would replace what this very process waits with, by gevent's.
    others = tuple(
        f"{PACKAGE}.{name}" for name in ("sandbox", "worker", "gunicorn_conf", "__main__")
    )
    for module in pkgutil.walk_packages(litellm_plugin.__path__, f"{PACKAGE}."):
        if not module.name.startswith(others):
            importlib.import_module(module.name)
    # Those of Redis and of what the store is for are there as soon as they are configured; those of
    # gunicorn and of the command before anything is built.
    rooms = (
        *("cache.redis", "store.database", "store.adopted", "store.leavers"),
        *("audit.writer", "audit.reader", "usage.stored_days"),
        *("accounts.sync", "accounts.visits"),
        *("access", "cli.checks"),
    )
    late = {f"{PACKAGE}.{name}" for name in rooms}
    assert names() - guarded <= late


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("plain", "plain"),
        ("Grüße, 世界 😀", "Grüße, 世界 😀"),
        ("a\nb", "a\\nb"),
        ("a\tb\x00\x1b\x7f\x85", "a\\tb\\u0000\\u001b\\u007f\\u0085"),
        ("\u2028\u202e\ud800", "\\u2028\\u202e\\ud800"),
        ("Bearer abc.def sk-1234567890", "Bearer [redacted] sk-[redacted]"),
    ],
)
def test_a_message_is_one_printable_line(said: str, written: str) -> None:
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "%s", (said,), None)
    assert logs.Printable().filter(record)
    assert record.getMessage() == written


@pytest.mark.parametrize(
    "text", ["Received=sk-x", "Received API Key = x", "Bearer abc", f"{EVIL}\x7f", "a" * 64, "\\"]
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_line_of_json_stays_one(text: str, ascii_only: bool) -> None:
    said = json.dumps({"error": text, "key": text, "last": text}, ensure_ascii=ascii_only)
    record = logging.LogRecord("x", logging.INFO, __file__, 1, said, None, None)
    logs.Printable().filter(record)
    written = record.getMessage()
    assert written.isprintable()
    assert json.loads(written).keys() == {"error", "key", "last"}
