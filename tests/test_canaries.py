"""The watch over what the suite writes would notice a secret; and the service gives none away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask

from litellm_plugin import create_app, redaction
from litellm_plugin.config.settings import Cache, Settings
from litellm_plugin.errors import BadRequest
from litellm_plugin.redaction import redact
from tests.canaries import CONFIGURED, PASSWORD, WATCH, failed_for_output, secrets_in, shared_folder
from tests.client import PluginClient, Serve
from tests.fakes import FakeLiteLLM
from tests.fakes.litellm import MASTER_KEY
from tests.tokens import STATIC_TOKEN, TokenFactory

KEY = "sk-canary-0123456789"


def _logged_at_debug(secret: str) -> None:
    logging.getLogger("a.library").debug("sent %s", secret)


def _logged_in_a_traceback(secret: str) -> None:
    try:
        raise ValueError(secret)
    except ValueError:
        logging.getLogger("litellm_plugin").exception("failed")


def _logged_as_extra(secret: str) -> None:
    logging.getLogger("litellm_plugin").info("done", extra={"who": {"token": secret}})


def _put_in_an_error(secret: str) -> None:
    BadRequest("refused").args = (secret,)
    error = BadRequest("refused", hint=secret)
    WATCH.look("error", repr(vars(error)))


def _answered(secret: str) -> None:
    app = Flask("leaky")
    app.add_url_rule("/api/litellm/x", view_func=lambda: ({"error": secret}, 400))
    PluginClient(app).get("/x")


def _left_in_a_file(secret: str) -> None:
    shared_folder().mkdir(mode=0o700, exist_ok=True)
    file = shared_folder() / "leak"
    with file.open("wb") as opened:
        opened.seek(100_000)
        opened.write(secret.encode())
    WATCH.files(shared_folder())
    file.unlink()


@pytest.mark.parametrize(
    "leak",
    [
        _logged_at_debug,
        _logged_in_a_traceback,
        _logged_as_extra,
        _put_in_an_error,
        _answered,
        _left_in_a_file,
    ],
)
@pytest.mark.parametrize("kind", ["configured", "token", "key", "private key"])
def test_a_secret_that_is_written_is_noticed(
    tokens: TokenFactory, leak: Callable[[str], None], kind: str
) -> None:
    secret = {
        "configured": STATIC_TOKEN,
        "token": tokens.user(),
        "key": KEY,
        "private key": tokens.user_key.private_pem().decode(),
    }[kind]
    with WATCH.elsewhere() as leaks:
        leak(secret)
    assert leaks


@pytest.mark.parametrize("secret", CONFIGURED)
def test_each_configured_secret_is_known_to_the_watch(secret: str) -> None:
    assert set(secrets_in(f"before {secret} after")) == {secret}


@pytest.mark.parametrize("stream", ["Captured stdout call", "Captured stderr setup"])
def test_a_printed_secret_fails_the_test_that_printed_it(stream: str) -> None:
    report = pytest.TestReport(
        "tests/x.py::test", ("x", 1, "test"), {}, "passed", None, "teardown", [(stream, MASTER_KEY)]
    )
    failed_for_output(report)
    assert report.failed
    assert MASTER_KEY in str(report.longrepr)


def test_a_fault_of_ours_is_logged_without_what_it_quotes(
    client: PluginClient,
    litellm: FakeLiteLLM,
    tokens: TokenFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    quoted = f"{MASTER_KEY} {KEY} Bearer {STATIC_TOKEN} {tokens.user()}"
    litellm.get("/user/info", error=RuntimeError(f"it broke: {quoted}"))
    assert client.get("/keys", who="bob").status_code == 500
    assert "RuntimeError: it broke" in caplog.text
    assert secrets_in(caplog.text) == []


@pytest.fixture
def with_redis(settings: Settings) -> Settings:
    return replace(settings, cache=Cache("redis", f"redis://:{PASSWORD}@127.0.0.1:1/0"))


def test_no_settings_show_their_secrets(with_redis: Settings) -> None:
    assert secrets_in(repr(with_redis)) == []
    assert set(with_redis.secrets()) >= {*CONFIGURED} - {CONFIGURED[-2]}


def test_configured_secrets_are_redacted_whatever_they_look_like(with_redis: Settings) -> None:
    create_app(with_redis)
    for secret in with_redis.secrets():
        assert redact(f"a{secret}b") == "a[redacted]b"


def test_a_master_key_that_litellm_repeats_is_not_passed_on(
    serve: Serve,
    litellm: FakeLiteLLM,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(redaction, "_configured", ())  # and as it was, when the test is over
    litellm.master_key = "correct/horse+battery"  # only the configuration tells it from words
    said = {"error": {"message": f"no such user for {litellm.master_key}", "code": "400"}}
    litellm.get("/user/info", json=said, status=400)
    answer = serve(master_key=litellm.master_key).get("/keys", who="bob")
    assert answer.status_code >= 400
    assert "no such user for [redacted]" in answer.text
    assert litellm.master_key not in answer.text + caplog.text
