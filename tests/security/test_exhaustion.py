"""What a small request can cost: ten times the input must not be a hundred times the work."""

from __future__ import annotations

import gc
import json
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from litellm_plugin import fields
from litellm_plugin.config.settings import Cors
from litellm_plugin.errors import PluginError
from litellm_plugin.identity.jwt import MAX_TOKEN_CHARS, TokenError, audiences, parse
from litellm_plugin.keys import metadata
from litellm_plugin.keys.opencode import callback
from litellm_plugin.redaction import printable, redact
from litellm_plugin.routes import bodies
from litellm_plugin.routes.responses import CrossOrigin
from tests.client import PluginClient
from tests.rig import Rig
from tests.tokens import b64url

Headers = dict[str, str]

SMALL = 8_000  # characters; ten times as many are less than a body may have
TOLERATED = 40.0  # times the work for ten times the input; 100 is quadratic
LEAST = 100e-6  # seconds; less is not told apart from nothing


def _work(call: Callable[[Any], object], argument: Any) -> float:
    """Return the seconds of CPU that a call takes, at best."""
    taken = []
    gc.disable()  # a collection looks at all objects of the process that runs the tests
    try:
        for _ in range(3):
            started = time.process_time()
            with suppress(PluginError, TokenError):
                call(argument)
            taken.append(time.process_time() - started)
    finally:
        gc.enable()
    return min(taken)


def _slowness() -> float:
    """Return how many times as long this machine takes as one that the limits are meant for."""
    return max(1.0, _work(lambda size: sum(n * n for n in range(size)), 100_000) / 0.006)


def _body(text: str) -> object:
    return bodies.decoded(text.encode(), "utf-8")


def _repeated(piece: str) -> Callable[[int], str]:
    return lambda size: piece * (size // len(piece))


def _origins(origin: str) -> object:
    asking = CrossOrigin(Cors(origins=("http://*.*.*.*.example.com", "*a*a*a*a*b")))
    return asking._allowed(origin)


GROWING: dict[str, tuple[Callable[[Any], object], Callable[[int], Any]]] = {
    **{
        f"redact {piece!r}": (redact, _repeated(piece))
        for piece in (
            "eyJ",
            "eyJa.",
            "eyJ.eyJ",
            "sk-",
            "Bearer ",
            "Bearer\t",
            "Received=",
            "Received API Key =",
            "%3D" + "a" * 63,
            "\\u0041",
            "a" * 63 + "g",
            " ",
            "-_-",
        )
    },
    "printable": (printable, _repeated("a\n\x1b")),
    "a body of names": (
        _body,
        lambda size: "{" + ",".join(f'"{n}":1' for n in range(size // 8)) + "}",
    ),
    "a body of lists": (_body, lambda size: "[" + "[],[[]]," * (size // 8) + "1]"),
    "a body of depth": (_body, lambda size: "[" * (size // 2) + "]" * (size // 2)),
    "a body of escapes": (
        _body,
        lambda size: '["' + "\\u0061\\ud83d\\ude00" * (size // 18) + '"]',
    ),
    "a body of digits": (_body, lambda size: "[" + "9" * min(size, 300) + ",1" * (size // 2) + "]"),
    "a body of one number": (_body, lambda size: "[0." + "1" * size + "]"),
    "a body of spaces": (_body, lambda size: " " * size + "[]"),
    "a compressed body": (
        lambda data: bodies.decompressed(data, "deflate"),
        lambda size: zlib.compress(b"[" + b" " * size + b"]"),
    ),
    "metadata of forged names": (
        lambda given: metadata.given("metadata", given),
        lambda size: {f"created_by{n}": n for n in range(size // 8)},
    ),
    "metadata of settings": (
        lambda given: metadata.given("metadata", given),
        lambda size: {f"litellm_{n}": n for n in range(size // 8)},
    ),
    "a list of models": (
        lambda given: fields.texts("models", given),
        lambda size: ["m"] * (size // 80),
    ),
    "an origin": (_origins, _repeated("a")),
    "a callback": (callback, lambda size: "http://localhost:1/callback?" + "a=b&" * (size // 4)),
    "a callback of slashes": (callback, lambda size: "http://" + "/" * size),
}


@pytest.mark.parametrize("what", GROWING)
def test_work_grows_with_what_is_sent(what: str) -> None:
    call, made = GROWING[what]
    small, large = _work(call, made(SMALL)), _work(call, made(10 * SMALL))
    assert large < TOLERATED * max(small, LEAST), f"{small:.6f} s, {large:.6f} s"


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 11_000,
        b'{"a":' * 2_000,
        b'{"sub":"' + b"\\u0061" * 1_800 + b'"}',
        b"{" + b",".join(b'"%d":1' % n for n in range(1_300)) + b"}",
        b'{"exp":' + b"9" * 11_000 + b"}",
        b'{"exp":1e' + b"9" * 11_000 + b"}",
        b'{"aud":[' + b'"litellm",' * 1_100 + b'""]}',
    ],
    ids=lambda payload: payload[:8].decode(),
)
def test_the_largest_token_is_read_at_once(payload: bytes) -> None:
    token = f"{b64url(b'{}')}.{b64url(payload)}."
    assert len(token) <= MAX_TOKEN_CHARS

    def read(text: str) -> object:
        return audiences(parse(text).unverified_claims)

    assert _work(read, token) < 0.05 * _slowness()


@pytest.mark.parametrize(
    ("name", "piece"),
    [
        ("Authorization", "Bearer "),
        ("Authorization", "Bearer a.b."),
        ("Authorization", " "),
        ("Origin", "http://localhost:3000"),
        ("If-None-Match", 'W/"a",'),
        ("If-None-Match", '"' + "a" * 10),
        ("Content-Type", "application/json;a=b;"),
        ("Content-Type", 'application/json;a="\\"'),
        ("Content-Type", "application/json;a*0=b;"),
        ("Content-Encoding", "gzip,"),
        ("Cache-Control", "no-cache=,"),
        ("Cookie", "backstage-auth=a;"),
        ("Accept", "a/b;q=0.1,"),
        ("Access-Control-Request-Headers", "a,"),
        ("X-Forwarded-For", "1.1.1.1,"),
    ],
)
def test_no_header_takes_long_to_be_read(rig: Rig, name: str, piece: str) -> None:
    client = PluginClient(rig.app)
    long = piece * (16_000 // len(piece))  # as much as gunicorn.conf.py lets through

    def ask(value: str) -> object:
        sent = {**rig.credentials("static"), name: value}
        return client.post("/health", raw=b"{}", headers=sent)

    ask(piece)  # so that everything has been loaded
    assert _work(ask, long) < 0.05 * _slowness()


@pytest.mark.parametrize(
    "path",
    ["/keys/" + "/update" * 550, "/keys/" + "%2F" * 1300 + "/update", "/teams/" + "a/" * 1900],
)
def test_no_path_takes_long_to_be_routed(rig: Rig, path: str) -> None:
    client = PluginClient(rig.app)

    def ask(target: str) -> object:
        return client.post(target, json={}, headers=rig.credentials("static"))

    ask("/health")
    assert _work(ask, path) < 0.05 * _slowness()


def test_a_bomb_is_not_unpacked(rig: Rig) -> None:
    """50 MB of zeros in 50 KB; what is unpacked of it is what a body may have."""
    bomb = zlib.compress(bytes(50_000_000), 9)
    assert len(bomb) < bodies.MAX_BODY
    with pytest.raises(PluginError) as caught:
        bodies.decompressed(bomb, "deflate")
    assert caught.value.status == 413
    assert _work(lambda data: bodies.decompressed(data, "deflate"), bomb) < 0.02 * _slowness()


def test_what_is_said_about_a_refusal_is_short(rig: Rig) -> None:
    """However much was refused."""
    body = {"alias": "a", **{f"{n}" + "x" * 60: 1 for n in range(1_200)}}
    assert len(json.dumps(body)) > 80_000
    answer = rig.ask("bob", "POST", "/keys/generate", json=body)
    assert answer.status_code == 400
    assert len(answer.data) < 10_000
