"""What is tried again, what is not tried at all, and when there is no time for either."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from litellm_plugin.clients import deadline, http
from litellm_plugin.clients.circuit_breaker import FAILURES
from litellm_plugin.clients.http import MOST_HOSTS, READ_ATTEMPTS, NoAnswerError, Upstream
from litellm_plugin.config.settings import Timeouts
from tests.clients.conftest import ENOUGH, SHORT
from tests.clients.server import Peer, Server, answer, sends, sends_and_closes

Serve = Callable[..., Server]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have waited, in seconds."""
    waited: list[float] = []
    monkeypatch.setattr("litellm_plugin.clients.http.time.sleep", waited.append)
    return waited


@pytest.fixture
def trying() -> Upstream:
    return Upstream("LiteLLM", timeouts=Timeouts(), attempts=READ_ATTEMPTS)


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    monkeypatch.setattr("litellm_plugin.clients.circuit_breaker.PAUSE", ENOUGH)
    return Upstream("LiteLLM", timeouts=Timeouts(), breaking=True)


@pytest.fixture
def seconds() -> Iterator[Callable[[float], None]]:
    """Lets the request that is served have so many seconds."""
    yield deadline.begin
    deadline.end()


def refusal(upstream: Upstream, url: str, method: str = "GET") -> NoAnswerError:
    with pytest.raises(NoAnswerError) as caught:
        upstream.request(method, url, body={} if method == "POST" else None)
    return caught.value


BROKEN = {
    "closed": Peer.close,
    "reset": Peer.reset,
    "broken off in the head": sends_and_closes(b"HTTP/1.1 2"),
    "broken off in the body": sends_and_closes(answer(b"[", length=9)),
    "garbage": sends_and_closes(b"\x16\x03\x01 no HTTP"),
    "502": sends(answer(status="502 Bad Gateway")),
    "503": sends(answer(status="503 Service Unavailable")),
    "504": sends(answer(status="504 Gateway Time-out")),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_read_that_fails_for_a_moment_is_tried_again(
    serve: Serve, trying: Upstream, pauses: list[float], broken: Callable[[Peer], None]
) -> None:
    server = serve(broken, broken, broken, sends(answer(b"[1]")))

    assert trying.request("GET", server.url).json() == [1]
    assert len(server.received) == READ_ATTEMPTS
    # Not all at the same time, and more and more rarely.
    for turn, pause in enumerate(pauses):
        assert 0.05 * 2**turn / 2 <= pause <= 0.05 * 2**turn


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_write_never_is(
    serve: Serve, trying: Upstream, pauses: list[float], broken: Callable[[Peer], None]
) -> None:
    server = serve(broken, sends(answer()))

    with suppress(NoAnswerError):
        assert trying.request("POST", server.url, body={}).status in {502, 503, 504}
    assert (len(server.received), pauses) == (1, [])


def test_a_read_that_fails_for_good_is_an_error(serve: Serve, trying: Upstream) -> None:
    server = serve(Peer.close)

    assert str(refusal(trying, server.url)) == "LiteLLM broke off"
    assert len(server.received) == READ_ATTEMPTS


def test_silence_is_not_waited_for_twice(serve: Serve) -> None:
    server = serve(Peer.wait_until_gone)
    upstream = Upstream("LiteLLM", timeouts=Timeouts(read=SHORT), attempts=READ_ATTEMPTS)

    refusal(upstream, server.url)

    assert len(server.received) == 1


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "429 No", "500 No", "501 No"])
def test_an_answer_is_an_answer(serve: Serve, trying: Upstream, status: str) -> None:
    server = serve(sends(answer(status=status)))

    trying.request("GET", server.url)

    assert len(server.received) == 1


class TestDeadline:
    def test_a_call_ends_with_the_request(
        self, serve: Serve, trying: Upstream, seconds: Callable[[float], None]
    ) -> None:
        server = serve(Peer.wait_until_gone)
        began = time.monotonic()
        seconds(SHORT)

        assert str(refusal(trying, server.url)) == "LiteLLM did not answer in time"
        assert SHORT <= time.monotonic() - began < ENOUGH
        assert server.all_closed()

    def test_all_calls_share_it(
        self,
        serve: Serve,
        trying: Upstream,
        seconds: Callable[[float], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        server = serve(sends(answer()), Peer.wait_until_gone)
        seconds(ENOUGH)
        assert trying.request("GET", server.url).ok

        began = time.monotonic()
        taken = deadline.left() - SHORT  # so long, as it seems, by the first call
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + taken)
        monkeypatch.setattr(deadline, "time", later)
        refusal(trying, server.url)
        assert time.monotonic() - began < ENOUGH  # and not as long again

    def test_nothing_is_tried_again_that_could_not_be_waited_for(
        self,
        serve: Serve,
        trying: Upstream,
        seconds: Callable[[float], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(http, "FIRST_PAUSE", 60.0)
        server = serve(Peer.close)
        seconds(10.0)

        refusal(trying, server.url)

        assert len(server.received) == 1

    def test_afterwards_nothing_is_asked(
        self, serve: Serve, trying: Upstream, seconds: Callable[[float], None]
    ) -> None:
        server = serve()
        seconds(-1.0)

        for method in ("GET", "POST"):
            error = refusal(trying, server.url, method)
            assert str(error) == "There was no time left to call LiteLLM"
            assert not error.sent
        assert server.received == []

    def test_some_of_it_can_be_kept(self, seconds: Callable[[float], None]) -> None:
        seconds(60.0)

        with deadline.keeping(3.0):
            assert 51 < deadline.left() <= 57
        with deadline.keeping(30.0):
            assert 44 < deadline.left() <= 50
        assert 54 < deadline.left() <= 60

    def test_somebody_elses_request_has_its_own(self, seconds: Callable[[float], None]) -> None:
        seconds(1.0)

        assert contextvars.Context().run(deadline.left) == float("inf")


def left_alone() -> float:
    name = "litellm_plugin_upstream_left_alone"
    return REGISTRY.get_sample_value(name, {"upstream": "litellm"}) or 0.0


class TestBreaker:
    @pytest.mark.parametrize(
        "failure",
        [Peer.close, Peer.reset, Peer.wait_until_gone, BROKEN["502"], BROKEN["504"]],
        ids=["closed", "reset", "silent", "502", "504"],
    )
    def test_a_host_that_does_not_answer_is_left_alone(
        self, serve: Serve, breaking: Upstream, failure: Callable[[Peer], None]
    ) -> None:
        if failure is Peer.wait_until_gone:
            breaking = Upstream("LiteLLM", timeouts=Timeouts(read=SHORT), breaking=True)
        server = serve(failure)
        for _ in range(FAILURES):
            with suppress(NoAnswerError):
                breaking.request("GET", server.url)

        for method in ("GET", "POST"):
            error = refusal(breaking, server.url + "/other", method)
            assert str(error) == "LiteLLM does not answer at present"
            assert not error.sent
        assert len(server.received) == FAILURES

    def test_where_nobody_listens_that_is_no_answer_either(self, breaking: Upstream) -> None:
        url = "http://127.0.0.1:1"
        for _ in range(FAILURES):
            assert str(refusal(breaking, url)) == "LiteLLM could not be reached"

        assert str(refusal(breaking, url)) == "LiteLLM does not answer at present"

    @pytest.mark.parametrize("status", ["200 OK", "400 No", "401 No", "429 No", "500 No"])
    def test_what_is_answered_is_an_answer(
        self, serve: Serve, breaking: Upstream, status: str
    ) -> None:
        server = serve(sends(answer(status=status)))

        for _ in range(2 * FAILURES):
            breaking.request("GET", server.url)

        assert len(server.received) == 2 * FAILURES

    def test_what_could_not_be_sent_is_not_the_hosts_fault(
        self, serve: Serve, breaking: Upstream
    ) -> None:
        server = serve()
        for _ in range(FAILURES):
            with pytest.raises(NoAnswerError):
                breaking.request("GET", server.url, headers={"X-Id": "a\nb"})

        assert breaking.request("GET", server.url).ok

    def test_nor_is_a_request_that_came_with_no_time(
        self, serve: Serve, seconds: Callable[[float], None]
    ) -> None:
        upstream = Upstream("LiteLLM", timeouts=Timeouts(), breaking=True)
        answering = threading.Event()
        server = serve(lambda peer: answering.is_set() and peer.send(answer()))
        for _ in range(FAILURES):
            seconds(0.02)
            refusal(upstream, server.url)
        deadline.end()
        answering.set()

        assert upstream.request("GET", server.url).ok

    def test_another_host_is_asked_all_the_same(self, serve: Serve, breaking: Upstream) -> None:
        down, up = serve(Peer.close), serve()
        for _ in range(FAILURES + 1):
            refusal(breaking, down.url)

        assert breaking.request("GET", up.url).ok

    def test_it_is_asked_again_when_it_answers(
        self, serve: Serve, breaking: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("litellm_plugin.clients.circuit_breaker.PAUSE", 0.0)
        server = serve(*[Peer.close] * FAILURES, sends(answer()))
        before = left_alone()
        for _ in range(FAILURES):
            refusal(breaking, server.url)
        assert left_alone() == before + 1

        for _ in range(3):
            assert breaking.request("GET", server.url).ok
        assert left_alone() == before

    def test_a_host_that_many_others_came_after_is_forgotten(self, breaking: Upstream) -> None:
        before = left_alone()
        for _ in range(FAILURES):
            refusal(breaking, "http://127.0.0.1:1")
        assert left_alone() == before + 1

        for number in range(MOST_HOSTS):
            refusal(breaking, f"http://127.0.1.{number}:1")

        assert left_alone() == before
        assert str(refusal(breaking, "http://127.0.0.1:1")) == "LiteLLM could not be reached"

    def test_a_host_that_is_asked_now_and_then_is_not(
        self, breaking: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("litellm_plugin.clients.circuit_breaker.PAUSE", 60.0)
        for _ in range(FAILURES):
            refusal(breaking, "http://127.0.0.1:1")

        for number in range(MOST_HOSTS):
            refusal(breaking, f"http://127.0.1.{number}:1")
            error = refusal(breaking, "http://127.0.0.1:1")
            assert str(error) == "LiteLLM does not answer at present"

    def test_what_a_second_attempt_makes_good_does_not_count(self, serve: Serve) -> None:
        upstream = Upstream("LiteLLM", timeouts=Timeouts(), attempts=READ_ATTEMPTS, breaking=True)
        server = serve(*[Peer.close, sends(answer())] * (2 * FAILURES))

        for _ in range(2 * FAILURES):
            assert upstream.request("GET", server.url).ok
