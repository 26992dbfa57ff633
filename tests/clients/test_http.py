"""The way out over real sockets: whatever the other side does, it ends, soon and cleanly."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.adapters import DEFAULT_POOLSIZE, HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from litellm_plugin.clients import http
from litellm_plugin.clients.http import Answer, NoAnswerError, Upstream
from litellm_plugin.config.settings import Timeouts
from tests.clients.conftest import ENOUGH, SHORT
from tests.clients.server import (
    Peer,
    Script,
    Server,
    answer,
    chunked,
    sends,
    sends_and_closes,
)

Serve = Callable[..., Server]

FOREVER = b"x" * 1_000_000
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, "NO_PROXY", "no_proxy", "NETRC", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def small_bodies(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that an answer may have, at most."""
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 100_000)
    return http.MAX_BODY_BYTES


def refusal(upstream: Upstream, url: str, method: str = "GET", **request: object) -> NoAnswerError:
    with pytest.raises(NoAnswerError) as caught:
        upstream.request(method, url, **request)  # type: ignore[arg-type]
    return caught.value


class TestAsking:
    def test_status_reason_and_body_are_read(self, serve: Serve, upstream: Upstream) -> None:
        server = serve(sends(answer(b'{"a": 1}', status="418 I'm a teapot")))

        got = upstream.request("GET", server.url + "/x")

        assert (got.status, got.reason, got.json()) == (418, "I'm a teapot", {"a": 1})
        assert not got.ok

    @pytest.mark.parametrize(
        ("value", "sent"),
        [
            ("jane@example.com", "jane%40example.com"),
            ("with space", "with%20space"),
            ("with+plus", "with%2Bplus"),
            ("100%", "100%25"),
            ("%20", "%2520"),
            ("a&user_id=b", "a%26user_id%3Db"),
            ("#?/:;", "%23%3F%2F%3A%3B"),
            ("Jürgen", "J%C3%BCrgen"),
            ("..", ".."),
            ("", ""),
        ],
    )
    def test_an_id_in_the_query_arrives_as_it_is(
        self, serve: Serve, upstream: Upstream, value: str, sent: str
    ) -> None:
        server = serve()

        upstream.request("GET", server.url + "/user/info", params={"user_id": value})

        assert server.received[0].target == f"/user/info?user_id={sent}"

    def test_an_encoded_path_stays_encoded(self, serve: Serve, upstream: Upstream) -> None:
        server = serve()

        upstream.request("GET", server.url + "/by-name/user/a%2Fb/j%40x%20y")

        assert server.received[0].target == "/by-name/user/a%2Fb/j%40x%20y"

    @pytest.mark.parametrize("body", [{"alias": "ü", "models": []}, {}, None])
    def test_a_body_is_sent_as_json(
        self, serve: Serve, upstream: Upstream, body: dict[str, Any] | None
    ) -> None:
        server = serve()

        upstream.request("POST", server.url, body=body)

        asked = server.received[0]
        kind = None if body is None else "application/json"
        assert asked.headers.get("content-type") == kind
        assert (json.loads(asked.body) if asked.body else None) == body

    def test_an_id_that_no_url_can_hold_is_not_sent(self, serve: Serve, upstream: Upstream) -> None:
        server = serve()

        assert not refusal(upstream, server.url, params={"user_id": "\ud800"}).sent
        assert server.received == []

    @pytest.mark.parametrize(
        "header", ["Bearer a\nX-Evil: 1", "Bearer \N{LEFT DOUBLE QUOTATION MARK}"]
    )
    def test_a_header_that_is_none_is_not_sent(
        self, serve: Serve, upstream: Upstream, caplog: pytest.LogCaptureFixture, header: str
    ) -> None:
        server = serve()

        assert not refusal(upstream, server.url, headers={"Authorization": header}).sent
        assert server.received == []
        assert "Evil" not in caplog.text

    @pytest.mark.parametrize(
        "response",
        [
            chunked(b'{"a"', b": [1, ", b"2]}", b""),
            answer(gzip.compress(b'{"a": [1, 2]}'), "Content-Encoding: gzip"),
            chunked(gzip.compress(b'{"a": [1, 2]}'), b"", headers=["Content-Encoding: gzip"]),
            b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b'{"a": [1, 2]}'),
        ],
        ids=["chunked", "gzip", "chunked gzip", "after 100"],
    )
    def test_every_framing_gives_the_same_body(
        self, serve: Serve, upstream: Upstream, response: bytes
    ) -> None:
        server = serve(sends(response))

        for _ in range(2):
            assert upstream.request("GET", server.url).json() == {"a": [1, 2]}
        assert server.opened == 1

    def test_a_body_without_a_length_ends_with_the_connection(
        self, serve: Serve, upstream: Upstream
    ) -> None:
        server = serve(sends_and_closes(b"HTTP/1.0 200 OK\r\n\r\n[1]"))

        assert upstream.request("GET", server.url).json() == [1]
        assert server.all_closed()


class TestJson:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"not json",
            b"{",
            b"\xff",
            b"NaN",
            b"[-Infinity]",
            b"1e999",
            b'{"spend": -1e400}',
            b"[" * 100_000,
            b"9" * 10_000,
        ],
        ids=lambda body: repr(body[:12]),
    )
    def test_what_is_no_json_is_a_value_error(self, body: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - its text is Python's own
            Answer(200, "OK", body).json()

    def test_finite_numbers_are_as_they_were_sent(self) -> None:
        assert Answer(200, "OK", b"[1, 0.5, 1e3, 1e-999]").json() == [1, 0.5, 1000.0, 0.0]

    def test_text_is_had_from_any_bytes(self) -> None:
        assert Answer(500, "", b"\xff boom").text == "\N{REPLACEMENT CHARACTER} boom"


class TestConnections:
    @pytest.mark.parametrize("status", ["200 OK", "204 No Content", "401 No", "404 No", "500 No"])
    def test_one_serves_call_after_call_whatever_was_answered(
        self, serve: Serve, upstream: Upstream, status: str
    ) -> None:
        body = b"" if status.startswith("204") else b'{"error": {"message": "x"}}'
        server = serve(sends(answer(body, status=status)))

        for method in ("GET", "POST", "GET"):
            upstream.request(method, server.url, body={} if method == "POST" else None)

        assert server.opened == 1

    def test_hosts_that_were_not_asked_for_long_are_asked_again(
        self, serve: Serve, upstream: Upstream
    ) -> None:
        servers = [serve() for _ in range(DEFAULT_POOLSIZE + 2)]
        for server in [*servers, *servers]:
            assert upstream.request("GET", server.url).ok

    def test_threads_get_their_own_answers(self, serve: Serve, upstream: Upstream) -> None:
        together = threading.Barrier(8)

        def echo(peer: Peer) -> None:
            together.wait(60)  # so that all eight are under way at once
            peer.send(answer(peer.asked.target.encode()))

        server = serve(echo)
        with ThreadPoolExecutor(8) as threads:
            urls = [f"{server.url}/{number}" for number in range(24)]
            bodies = [got.text for got in threads.map(lambda u: upstream.request("GET", u), urls)]

        assert bodies == [f"/{number}" for number in range(24)]
        assert server.opened == 8

    def test_one_that_the_server_closed_is_noticed(self, serve: Serve, upstream: Upstream) -> None:
        server = serve(sends_and_closes(answer()), sends(answer()))
        upstream.request("POST", server.url, body={})
        assert server.all_closed()

        upstream.request("POST", server.url, body={})

        assert [asked.connection for asked in server.received] == [0, 1]

    def test_one_that_the_server_is_about_to_close_is_not_used(
        self, serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = serve()
        upstream.request("GET", server.url)
        monkeypatch.setattr(http, "IDLE_SECONDS", 0.0)

        upstream.request("POST", server.url, body={})

        assert [asked.connection for asked in server.received] == [0, 1]

    @pytest.mark.parametrize("end", [Peer.close, Peer.reset], ids=["closed", "reset"])
    def test_a_read_that_meets_the_end_of_one_is_asked_again(
        self, serve: Serve, upstream: Upstream, end: Script
    ) -> None:
        server = serve(sends(answer()), end, sends(answer(b"[2]")))
        upstream.request("GET", server.url)

        assert upstream.request("GET", server.url).json() == [2]
        assert [asked.connection for asked in server.received] == [0, 0, 1]

    def test_a_read_is_asked_again_once_and_on_a_new_one(
        self, serve: Serve, upstream: Upstream
    ) -> None:
        both = threading.Barrier(2)

        def answers_both(peer: Peer) -> None:
            both.wait(60)
            peer.send(answer())

        server = serve(answers_both, answers_both, Peer.close)
        with ThreadPoolExecutor(2) as threads:  # leaves two connections in the pool
            list(threads.map(lambda _: upstream.request("GET", server.url), range(2)))

        assert refusal(upstream, server.url).sent
        assert server.opened == 3
        assert server.received[-1].connection == 2
        assert len(server.received) == 4

    def test_a_write_that_meets_the_end_of_one_is_not_repeated(
        self, serve: Serve, upstream: Upstream
    ) -> None:
        server = serve(sends(answer()), Peer.close, sends(answer()))
        upstream.request("GET", server.url)

        assert refusal(upstream, server.url, "POST", body={}).sent
        assert len(server.received) == 2

    def test_a_new_one_that_ends_at_once_is_not_tried_again(
        self, serve: Serve, upstream: Upstream
    ) -> None:
        server = serve(Peer.close, sends(answer()))

        assert refusal(upstream, server.url).sent
        assert len(server.received) == 1

    @pytest.mark.parametrize("begun", [b"H", answer(b"{", length=2)], ids=["head", "body"])
    def test_an_answer_that_has_begun_is_not_asked_for_again(
        self, serve: Serve, upstream: Upstream, begun: bytes
    ) -> None:
        server = serve(sends(answer()), sends_and_closes(begun), sends(answer()))
        upstream.request("GET", server.url)

        assert refusal(upstream, server.url).sent
        assert len(server.received) == 2

    def test_silence_on_one_is_not_asked_again(self, serve: Serve, impatient: Upstream) -> None:
        server = serve(sends(answer()), Peer.wait_until_gone, sends(answer()))
        impatient.request("GET", server.url)

        assert refusal(impatient, server.url).sent
        assert len(server.received) == 2

    def test_a_forked_process_opens_its_own(
        self, serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = serve()
        upstream.request("GET", server.url)
        monkeypatch.setattr(os, "getpid", lambda: -1)

        upstream.request("GET", server.url)
        upstream.request("GET", server.url)

        assert [asked.connection for asked in server.received] == [0, 1, 1]

    @pytest.mark.parametrize("surplus", [b"[1]", answer(b'{"of": "somebody else"}')])
    def test_surplus_bytes_never_become_the_next_answer(
        self, serve: Serve, upstream: Upstream, surplus: bytes
    ) -> None:
        server = serve(sends(answer(b"[0]") + surplus), sends(answer(b"[2]")))
        upstream.request("GET", server.url)

        assert upstream.request("GET", server.url).json() == [2]

    def test_an_informational_answer_never_makes_room_for_a_foreign_one(
        self, serve: Serve, upstream: Upstream
    ) -> None:
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        server = serve(sends(hints), sends(answer(b"[2]")))

        assert refusal(upstream, server.url).sent
        assert server.all_closed()
        assert upstream.request("GET", server.url).json() == [2]


def lines_of(name: bytes) -> Iterator[bytes]:
    return (b"%b-%d: x\r\n" % (name, number) for number in range(100))


DRIPS: dict[str, Script] = {
    "silence": Peer.wait_until_gone,
    "status line": lambda peer: peer.drip([b"HTTP/1.1 200 ", *[b"O"] * 500]),
    "headers": lambda peer: peer.drip([b"HTTP/1.1 200 OK\r\n", *lines_of(b"X")]),
    "100 again and again": lambda peer: peer.drip(
        itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n", 500)
    ),
    "100 without a pause": lambda peer: peer.flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "body": lambda peer: peer.drip([answer(b"", length=999), *[b"x"] * 500]),
    "body without length": lambda peer: peer.drip([b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 500]),
    "chunks": lambda peer: peer.drip([chunked(), *[b"1\r\nx\r\n"] * 500]),
    "a chunk's size": lambda peer: peer.drip([chunked(), *[b"0"] * 500]),
    "trailers": lambda peer: peer.drip([chunked(), b"0\r\n", *lines_of(b"T")]),
    "gzip": lambda peer: peer.drip(
        [answer(b"", "Content-Encoding: gzip", length=9999)]
        + [bytes([byte]) for byte in gzip.compress(os.urandom(1000))]
    ),
}


@contextmanager
def at_least(seconds: float) -> Iterator[None]:
    """Check that the block takes that long, and not as long as without the limit."""
    started = time.monotonic()
    yield
    assert seconds <= time.monotonic() - started < ENOUGH


@pytest.mark.deep
class TestTimeouts:
    @pytest.mark.parametrize(
        "said", [b"", b"HTTP/1.1 200 OK\r\n", answer(b"{", length=2), chunked(b"{")]
    )
    def test_silence_ends_the_call(self, serve: Serve, impatient: Upstream, said: bytes) -> None:
        def falls_silent(peer: Peer) -> None:
            peer.send(said)
            peer.wait_until_gone()

        server = serve(falls_silent)
        with at_least(SHORT):
            error = refusal(impatient, server.url)

        assert (str(error), error.sent) == ("LiteLLM did not answer in time", True)
        assert server.all_closed()

    @pytest.mark.parametrize(
        "drip",
        [
            pytest.param(drip, id=name, marks=[] if name == "headers" else pytest.mark.deep)
            for name, drip in DRIPS.items()
        ],
    )
    def test_an_endless_answer_ends_with_the_whole_call(
        self, serve: Serve, hurried: Upstream, drip: Script
    ) -> None:
        server = serve(drip)
        with at_least(SHORT):
            error = refusal(hurried, server.url)

        assert (str(error), error.sent) == ("LiteLLM did not answer in time", True)
        assert server.all_closed()

    def test_the_next_call_is_as_good_as_the_first(self, serve: Serve) -> None:
        server = serve(Peer.wait_until_gone, sends(answer()))
        upstream = Upstream("LiteLLM", timeouts=Timeouts(read=2 * SHORT))
        refusal(upstream, server.url)

        assert upstream.request("GET", server.url).ok
        assert server.opened == 2

    def test_a_slow_answer_within_both_limits_is_read(
        self, serve: Serve, upstream: Upstream
    ) -> None:
        server = serve(lambda peer: peer.drip([answer(b"", length=3), b"[", b"1", b"]"]))

        assert upstream.request("GET", server.url).json() == [1]

    def test_a_server_that_reads_nothing_ends_the_call(self, impatient: Upstream) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"

            error = refusal(impatient, url, "POST", body={"x": "x" * 20_000_000})

        assert (str(error), error.sent) == ("LiteLLM did not answer in time", True)

    def test_a_server_that_reads_slowly_is_given_its_time(self) -> None:
        def serve(listener: socket.socket) -> None:
            with listener.accept()[0] as sock, sock.makefile("rb") as file:
                threading.Event().wait(2 * SHORT)
                while file.readline().strip():
                    pass
                file.read(size)
                sock.sendall(answer())

        body = "x" * 5_000_000
        size = len(body) + 2
        upstream = Upstream("LiteLLM", timeouts=Timeouts(connect=SHORT))
        with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
            served = threads.submit(serve, listener)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"

            assert upstream.request("POST", url, body=body).ok
            served.result()

    def test_a_connection_that_does_not_come_about_ends_the_call(self, impatient: Upstream) -> None:
        with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for filler in (first, second):  # one more than the queue takes
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"

            error = refusal(impatient, url)

        assert (str(error), error.sent) == ("LiteLLM could not be reached in time", False)

    def test_where_nobody_listens_nothing_was_sent(self, upstream: Upstream) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))

            error = refusal(upstream, f"http://127.0.0.1:{unused.getsockname()[1]}")

        assert (str(error), error.sent) == ("LiteLLM could not be reached", False)

    def test_retries_are_one_line_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        refusal(Upstream("LiteLLM", timeouts=Timeouts(), attempts=3), "http://127.0.0.1:9/")

        assert caplog.text.count("could not be reached") == 1

    def test_the_reason_is_told_to_the_operator_and_secrets_are_not(
        self, upstream: Upstream, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        key_hash = "0123456789abcdef" * 4

        refusal(upstream, f"http://127.0.0.1:9/key/{key_hash}/reset_spend")

        assert "LiteLLM could not be reached" in caplog.text
        assert "Connection refused" in caplog.text
        assert key_hash not in caplog.text


BROKEN: dict[str, Script] = {
    "closed": Peer.close,
    "reset": Peer.reset,
    "short body": sends_and_closes(answer(b"{", length=2)),
    "half a head": sends_and_closes(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "half a chunk": sends_and_closes(chunked() + b"9\r\n{"),
    "no last chunk": sends_and_closes(chunked(b"{}")),
    "no status line": sends_and_closes(b"hello\r\n\r\n"),
    "status of words": sends_and_closes(b"HTTP/1.1 fine OK\r\n\r\n"),
    "chunk size of words": sends_and_closes(chunked() + b"many\r\n{}\r\n"),
    "two lengths": sends_and_closes(answer(b"{}", "Content-Length: 9")),
    "endless header": sends_and_closes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000),
    "too many headers": sends_and_closes(b"HTTP/1.1 200 OK\r\n" + b"".join(lines_of(b"A")) * 3),
    "no gzip": sends_and_closes(answer(b"{}", "Content-Encoding: gzip")),
    "five encodings": sends_and_closes(answer(b"{}", "Content-Encoding: " + "gzip," * 9)),
}


def reset_in_the_body(peer: Peer) -> None:
    peer.send(answer(b"{", length=2))
    peer.reset()


class TestBrokenAnswers:
    @pytest.mark.parametrize(
        "script", [*BROKEN.values(), reset_in_the_body], ids=[*BROKEN, "reset in the body"]
    )
    def test_they_are_no_answer_and_the_next_call_works(
        self, serve: Serve, upstream: Upstream, script: Script
    ) -> None:
        server = serve(script, sends(answer()))

        error = refusal(upstream, server.url)

        assert (str(error), error.sent) == ("LiteLLM broke off", True)
        assert server.all_closed()
        assert upstream.request("GET", server.url).ok

    @given(
        st.lists(
            st.sampled_from(
                [
                    b"HTTP/1.1 ", b"HTTP/1.0 ", b"200 OK\r\n", b"204 \r\n", b"100 Continue\r\n\r\n",
                    b"302 Found\r\nLocation: http://[\r\n", b"\r\n", b"Content-Length: 3\r\n",
                    b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n", b": \r\n",
                    b"Transfer-Encoding: gzip, chunked\r\n", b"Content-Encoding: gzip\r\n",
                    b"Content-Encoding: deflate, gzip\r\n", b"Set-Cookie: a\r\n", b"\r\n\r\n",
                    b"0\r\n\r\n", b"3\r\nabc\r\n", b"-3\r\n", b"\x1f\x8b\x08",
                    b"Connection: close\r\n",
                ]
            )
            | st.binary(max_size=8),
            max_size=9,
        )
    )  # fmt: skip
    def test_any_bytes_are_an_answer_or_none(self, pieces: list[bytes]) -> None:
        server = Server(sends_and_closes(b"".join(pieces)))
        try:
            got = Upstream("LiteLLM", timeouts=Timeouts()).request("GET", server.url)
        except NoAnswerError:
            pass
        else:
            assert 200 <= got.status <= 999
        finally:
            server.stop()
        assert len(server.received) == 1


class TestSize:
    @pytest.mark.parametrize(
        "response",
        [
            answer(FOREVER),
            answer(FOREVER, status="500 Internal Server Error"),
            answer(FOREVER, "Location: /elsewhere", status="302 Found"),
            chunked(FOREVER, b""),
            chunked(*[b"x" * 1000] * 1000, b""),
            b"HTTP/1.1 200 OK\r\n\r\n" + FOREVER,
            answer(gzip.compress(FOREVER), "Content-Encoding: gzip"),
            chunked(gzip.compress(FOREVER), b"", headers=["Content-Encoding: gzip"]),
        ],
        ids=[
            "length", "error", "redirect", "one chunk", "many chunks", "no length", "gzip",
            "chunked gzip",
        ],
    )  # fmt: skip
    def test_too_much_is_no_answer(
        self, serve: Serve, upstream: Upstream, small_bodies: int, response: bytes
    ) -> None:
        server = serve(sends_and_closes(response), sends(answer()))

        error = refusal(upstream, server.url)

        assert (str(error), error.sent) == ("LiteLLM sent too much", True)
        assert server.all_closed()
        assert upstream.request("GET", server.url).ok

    def test_the_limit_itself_is_not_too_much(
        self, serve: Serve, upstream: Upstream, small_bodies: int
    ) -> None:
        server = serve(sends(answer(b"x" * small_bodies)))

        assert len(upstream.request("GET", server.url).body) == small_bodies


class TestWhatIsNotDone:
    @pytest.mark.parametrize("status", ["301 Moved", "303 Other", "307 Temporary"])
    @pytest.mark.parametrize("where", ["/elsewhere", "http://127.0.0.1:9/", "//[", "http://\xfc"])
    def test_redirects_are_answers(
        self, serve: Serve, upstream: Upstream, status: str, where: str
    ) -> None:
        server = serve(sends(answer(b"moved", f"Location: {where}", status=status)))

        got = upstream.request("GET", server.url, headers={"Authorization": "Bearer secret"})

        assert (got.status, got.text, got.ok) == (int(status[:3]), "moved", False)
        assert len(server.received) == 1

    def test_cookies_are_not_kept(self, serve: Serve, upstream: Upstream) -> None:
        server = serve(sends(answer(b"{}", "Set-Cookie: session=1; Path=/", "Set-Cookie: b=2")))

        for _ in range(2):
            upstream.request("GET", server.url)

        assert "cookie" not in server.received[1].headers


class TestEnvironment:
    @pytest.fixture
    def proxy(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Server:
        proxy = serve(sends(answer(b'"proxied"')))
        for name in PROXY_VARIABLES:
            monkeypatch.setenv(name, proxy.url)
        return proxy

    @pytest.fixture
    def netrc(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "netrc"
        file.write_text("machine 127.0.0.1 login eve password evil\n")
        file.chmod(0o600)
        monkeypatch.setenv("NETRC", str(file))

    @pytest.fixture
    def trusting(self) -> Upstream:
        return Upstream("LiteLLM", timeouts=Timeouts(), trust_environment=True)

    def test_its_proxies_are_not_asked(
        self, serve: Serve, upstream: Upstream, proxy: Server
    ) -> None:
        server = serve()

        assert upstream.request("GET", server.url).json() == {}
        assert proxy.received == []

    def test_its_proxies_are_asked_where_configured(
        self, serve: Serve, trusting: Upstream, proxy: Server
    ) -> None:
        for _ in range(2):
            assert trusting.request("GET", "http://litellm.example/x").json() == "proxied"
        assert [asked.target for asked in proxy.received] == ["http://litellm.example/x"] * 2
        assert proxy.opened == 1

    @pytest.mark.parametrize(("scheme", "drip"), [("http", "body"), ("https", "headers")])
    def test_a_proxy_has_no_more_time_than_anybody(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch, drip: str, scheme: str
    ) -> None:
        proxy = serve(DRIPS[drip])
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
        hurried = Upstream("LiteLLM", timeouts=Timeouts(total=SHORT), trust_environment=True)

        with at_least(SHORT):
            refusal(hurried, f"{scheme}://litellm.example/x")

        assert proxy.all_closed()

    def test_what_connects_in_its_own_way_may_have_sent_something(
        self, serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As to a SOCKS proxy, by classes of urllib3 that do not tell."""
        server = serve(Peer.close)
        pool = HTTPConnectionPool("127.0.0.1", int(server.url.rpartition(":")[2]))
        pool.ConnectionCls = type("Socks", (HTTPConnection,), {})
        monkeypatch.setattr(
            HTTPAdapter, "get_connection_with_tls_context", lambda *_args, **_kwargs: pool
        )

        error = refusal(upstream, server.url, "POST", body={})

        assert (str(error), error.sent) == ("LiteLLM broke off", True)
        pool.close()

    @pytest.mark.usefixtures("netrc")
    def test_its_netrc_is_not_read(self, serve: Serve, upstream: Upstream) -> None:
        server = serve()

        upstream.request("GET", server.url)

        assert "authorization" not in server.received[0].headers

    @pytest.mark.usefixtures("netrc")
    def test_its_netrc_is_read_where_configured(self, serve: Serve, trusting: Upstream) -> None:
        server = serve()

        trusting.request("GET", server.url)

        assert server.received[0].headers["authorization"].startswith("Basic ")

    @pytest.mark.usefixtures("netrc")
    @pytest.mark.parametrize("login", ["", "eve:evil@"], ids=["netrc", "netrc and URL"])
    def test_nothing_takes_the_place_of_the_callers_credentials(
        self, serve: Serve, trusting: Upstream, login: str
    ) -> None:
        server = serve()
        url = server.url.replace("://", f"://{login}")

        trusting.request("GET", url, headers={"Authorization": "Bearer token"})

        assert server.received[0].headers["authorization"] == "Bearer token"


class TestTls:
    @pytest.fixture
    def knowing(self, certificate: Path) -> Upstream:
        return Upstream("LiteLLM", timeouts=Timeouts(), ca_file=certificate)

    def test_a_server_of_the_configured_authority_is_asked(
        self, serve: Serve, tls: ssl.SSLContext, knowing: Upstream
    ) -> None:
        server = serve(tls=tls)

        for _ in range(2):
            assert knowing.request("GET", server.url).ok
        assert server.opened == 1

    def test_another_one_is_told_nothing(
        self, serve: Serve, tls: ssl.SSLContext, upstream: Upstream,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        server = serve(tls=tls)

        error = refusal(upstream, server.url, headers={"Authorization": "Bearer token"})

        assert (str(error), error.sent) == ("LiteLLM could not be reached", False)
        assert "certificate verify failed" in caplog.text
        assert server.received == []
        assert server.all_closed()

    def test_a_certificate_for_another_name_is_refused(
        self, serve: Serve, tls: ssl.SSLContext, knowing: Upstream
    ) -> None:
        server = serve(tls=tls)

        assert not refusal(knowing, server.url.replace("127.0.0.1", "localhost")).sent
        assert server.received == []

    def test_a_missing_authority_file_lets_nobody_in(
        self, serve: Serve, tls: ssl.SSLContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        server = serve(tls=tls)
        upstream = Upstream("LiteLLM", timeouts=Timeouts(), ca_file=tmp_path / "none.pem")

        assert not refusal(upstream, server.url).sent
        assert "none.pem" in caplog.text

    @pytest.mark.parametrize(
        ("bundle", "ca_file", "trusting", "trusted"),
        [
            ("both.pem", None, False, False),
            ("both.pem", None, True, True),
            ("none.pem", "both.pem", True, True),
        ],
        ids=["not configured", "configured", "beaten by caFile"],
    )
    def test_the_environments_authorities_count_where_configured(
        self, serve: Serve, tls: ssl.SSLContext, certificate: Path,
        monkeypatch: pytest.MonkeyPatch, bundle: str, ca_file: str | None, *,
        trusting: bool, trusted: bool,
    ) -> None:  # fmt: skip
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_name(bundle)))
        upstream = Upstream(
            "LiteLLM",
            timeouts=Timeouts(),
            trust_environment=trusting,
            ca_file=certificate.with_name(ca_file) if ca_file else None,
        )
        url = serve(tls=tls).url

        if trusted:
            assert upstream.request("GET", url).ok
        else:
            assert not refusal(upstream, url).sent

    @pytest.mark.parametrize("limits", [Timeouts(connect=SHORT), Timeouts(total=SHORT)])
    def test_a_handshake_that_does_not_come_about_ends_the_call(self, limits: Timeouts) -> None:
        upstream = Upstream("LiteLLM", timeouts=limits)
        with socket.create_server(("127.0.0.1", 0)) as listener, at_least(SHORT):
            error = refusal(upstream, f"https://127.0.0.1:{listener.getsockname()[1]}")

        assert (str(error), error.sent) == ("LiteLLM could not be reached in time", False)

    def test_an_endless_answer_ends_with_the_whole_call(
        self, serve: Serve, tls: ssl.SSLContext, certificate: Path
    ) -> None:
        server = serve(DRIPS["headers"], tls=tls)
        hurried = Upstream("LiteLLM", timeouts=Timeouts(total=2 * SHORT), ca_file=certificate)

        with at_least(2 * SHORT):
            refusal(hurried, server.url)

        assert server.all_closed()


def test_only_so_many_ask_at_once_and_the_others_are_told_soon(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PATIENCE", SHORT)
    upstream = Upstream("Backstage", timeouts=Timeouts(), at_once=1)
    asked, go_on = threading.Event(), threading.Event()

    def slow(peer: Peer) -> None:
        asked.set()
        assert go_on.wait(60)
        sends(answer(b"{}"))(peer)

    url = serve(slow, sends(answer(b"{}"))).url
    with ThreadPoolExecutor() as pool:
        first = pool.submit(upstream.request, "GET", url)
        assert asked.wait(60)
        with at_least(SHORT):
            error = refusal(upstream, url)
        go_on.set()
        assert first.result().ok

    assert (str(error), error.sent) == ("Too many calls to Backstage are under way", False)
    assert upstream.request("GET", url).ok  # the place is free again
