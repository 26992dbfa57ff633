"""What the network said, in an operator's words."""

from __future__ import annotations

import socket
import ssl

import pytest
import requests
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError, SSLError

from litellm_plugin.cli.checks.reasons import described, explained
from litellm_plugin.clients.http import Answer, NoAnswerError


def failed(cause: Exception) -> NoAnswerError:
    """Return what a client raises over a failure of ``requests``."""
    error = NoAnswerError("LiteLLM could not be reached", sent=False)
    pool = HTTPConnectionPool("litellm", 4000)
    error.__cause__ = requests.ConnectionError(MaxRetryError(pool, "/", cause))
    return error


def refused() -> NewConnectionError:
    error = NewConnectionError(HTTPConnection("litellm"), "Failed to establish a connection")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    return error


def unresolved() -> NameResolutionError:
    cause = socket.gaierror(-2, "Name or service not known")
    error = NameResolutionError("litellm", HTTPConnection("litellm"), cause)
    error.__cause__ = cause
    return error


def wrong_protocol() -> SSLError:
    cause = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    cause.reason = "WRONG_VERSION_NUMBER"
    return SSLError(cause)


@pytest.mark.parametrize(
    ("cause", "text", "advice"),
    [
        (refused(), "nothing listens there (connection refused)", "Start it"),
        (unresolved(), "its name can't be resolved", "DNS"),
        (TimeoutError("timed out"), "it does not answer in time", "Start it"),
        (ConnectionResetError(104, "reset"), "it closed the connection", "Start it"),
        (wrong_protocol(), "TLS does not work: wrong version number", "http or https"),
        (ValueError("something else"), "LiteLLM could not be reached", "Start it"),
    ],
)
def test_why(cause: Exception, text: str, advice: str) -> None:
    found, remedy = explained(failed(cause), "litellm.baseUrl")
    assert found == text
    assert advice in remedy


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(404, "", b""), "it answers 404 with an empty body"),
        (Answer(200, "", b"<!DOCTYPE html><p>"), "it answers with a web page (200)"),
        (Answer(200, "", b"x", {"Content-Type": "text/html"}), "it answers with a web page (200)"),
        (Answer(302, "", b"", {"Location": "/login"}), "it redirects to /login (302)"),
        (Answer(200, "", b"{}"), "it answers 200"),
    ],
)
def test_what_an_answer_is(answer: Answer, text: str) -> None:
    assert described(answer) == text
