"""Workers of one gunicorn, and two gunicorns that have LiteLLM, Backstage and a Redis in common."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.clients.circuit_breaker import PAUSE
from litellm_plugin.sandbox import people
from litellm_plugin.sandbox.launch import MASTER_KEY, Sandbox, running
from tests.cache.redis_server import RedisServer, needs_redis
from tests.faults.replica import (
    BY_EACH_WORKER,
    CONFIG,
    NOWHERE,
    PATIENCE,
    SERVICE_TOKEN,
    Replica,
)

pytestmark = [pytest.mark.faults, needs_redis]

MEETING = 0.3  # seconds that calls of LiteLLM wait for each other
BOUND = 10.0  # seconds that a request may take while Redis is away

Wsgi = Callable[..., Iterable[bytes]]


class Gate:
    """Counts what LiteLLM is asked, and lets calls wait for each other.

    Attributes:
        calls: How often each was made, as ``GET /v2/user/info``.
        meetings: By call, where the first ones of that kind wait for each other.
    """

    def __init__(self, inside: Wsgi) -> None:
        self._inside = inside
        self.calls: Counter[str] = Counter()
        self.meetings: dict[str, threading.Barrier] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        call = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.calls[call] += 1
        if call in self.meetings:
            with suppress(threading.BrokenBarrierError):
                self.meetings[call].wait()
        return self._inside(environ, start_response)

    @property
    def looked_up(self) -> int:
        return self.calls["GET /v2/user/info"]


def caching(cache: dict[str, Any]) -> dict[str, Any]:
    service = {"cacheSeconds": 30, "backstageToken": SERVICE_TOKEN}
    return {"backend": {"cache": cache}, "litellm": {"service": service}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def redis(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def sandbox(folder: Path) -> Iterator[Sandbox]:
    config = folder / "sandbox.yaml"
    config.write_text(json.dumps({"litellm": {"service": {"backstageToken": SERVICE_TOKEN}}}))
    with running([CONFIG, config], NOWHERE, port=0) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def litellm(sandbox: Sandbox) -> Gate:
    app = sandbox.litellm.app
    gate = Gate(app.wsgi_app)
    app.wsgi_app = gate  # type: ignore[method-assign]
    return gate


@pytest.fixture(scope="module")
def replicas(
    folder: Path, redis: RedisServer, sandbox: Sandbox, litellm: Gate
) -> Iterator[tuple[Replica, Replica]]:
    config = caching({"store": "redis", "connection": redis.url})
    with (
        Replica(folder / "a", sandbox, config) as one,
        Replica(folder / "b", sandbox, config) as other,
    ):
        one.wait()
        other.wait()
        yield one, other


def settled(replicas: Iterable[Replica], litellm: Gate) -> None:
    """Ask until nobody has to ask LiteLLM any more."""
    until = time.monotonic() + PATIENCE
    quiet = 0
    while quiet < BY_EACH_WORKER:
        assert time.monotonic() < until, "answers are not remembered"
        before = litellm.looked_up
        for replica in replicas:
            replica.aliases()
        quiet = 0 if litellm.looked_up > before else quiet + 1


def test_a_write_through_one_replica_is_seen_through_the_other_at_once(
    replicas: tuple[Replica, Replica], litellm: Gate, redis: RedisServer
) -> None:
    settled(replicas, litellm)
    secrets = []
    for number in range(6):
        writer, other = replicas[:: -1 if number % 2 else 1]
        before = litellm.looked_up
        assert [replica.aliases() for replica in replicas * 2] == [writer.aliases()] * 4
        assert litellm.looked_up == before  # so it is remembered what a write is to change
        made = writer.make(f"key-{number}")
        secrets.append(made["key"])
        for replica in (other, writer) * 2:
            assert f"key-{number}" in replica.aliases()
    for replica in replicas:
        replica.ask(people.BOB, "GET", "/teams")
        replica.ask(people.BOB, "GET", "/models")
        replica.ask(people.ALICE, "GET", "/vector-stores")
        replica.ask(people.ALICE, "GET", "/mcp-servers")
    everything = redis.everything()
    assert b"key-5" in everything
    for secret in (*secrets, MASTER_KEY, SERVICE_TOKEN, "eyJ"):
        assert secret.encode() not in everything


def test_two_first_visits_make_one_user(replicas: tuple[Replica, Replica], litellm: Gate) -> None:
    litellm.meetings = {
        "GET /v2/user/info": threading.Barrier(2, timeout=MEETING),  # both find nobody
        "POST /user/new": threading.Barrier(2, timeout=MEETING),  # in vain
    }
    with ThreadPoolExecutor(2) as pool:
        visits = [
            pool.submit(replica.ask, people.CAROL, "GET", "/user/info") for replica in replicas
        ]
        first, second = [visit.result() for visit in visits]
    litellm.meetings = {}
    assert first == second
    assert first["user_id"] == "carol@example.com"
    assert litellm.calls["POST /user/new"] == 1


def test_of_two_rotations_through_two_replicas_one_makes_a_key(
    replicas: tuple[Replica, Replica], litellm: Gate, redis: RedisServer
) -> None:
    for number in range(4):
        old = replicas[0].make(f"rotated-{number}")["token"]
        # Without the lock both would get there.
        litellm.meetings = {"POST /key/generate": threading.Barrier(2, timeout=MEETING)}
        with ThreadPoolExecutor(2) as pool:
            sent = [
                pool.submit(replica.send, people.BOB, "POST", f"/keys/{old}/rotate", {})
                for replica in replicas
            ]
            made, refused = sorted((each.result() for each in sent), key=lambda a: a.status_code)
        litellm.meetings = {}
        assert (made.status_code, refused.status_code) == (200, 409), refused.text
        assert refused.json()["token"] == made.json()["token"]
        for replica in replicas:
            mine = {alias for alias in replica.aliases() if alias.startswith(f"rotated-{number}")}
            assert len(mine) == 2
            assert f"rotated-{number}" in mine
    old = replicas[0].make("not-rotated")["token"]
    redis.freeze()  # a write that succeeds meanwhile would not be known to the other replica
    try:
        answer = replicas[0].send(people.BOB, "POST", f"/keys/{old}/rotate", {})
        assert answer.status_code == 503, answer.text
    finally:
        redis.thaw()


def test_redis_goes_away_and_comes_back(
    replicas: tuple[Replica, Replica], litellm: Gate, redis: RedisServer
) -> None:
    writer, other = replicas
    settled(replicas, litellm)
    redis.save()
    redis.kill()
    took = []

    def keys_of(replica: Replica) -> set[str]:
        began = time.monotonic()
        keys = replica.aliases()
        took.append(time.monotonic() - began)
        return keys

    before = litellm.looked_up
    assert keys_of(writer) == keys_of(other)
    assert litellm.looked_up <= before + 4  # each of the workers goes on by its own memory
    writer.make("while-away")
    for _ in range(6):
        assert "while-away" in keys_of(writer)
    redis.start()  # with what it knew before that write
    until, seen = time.monotonic() + PATIENCE, 0
    trials_from = time.monotonic() + PAUSE  # when every worker asks Redis again
    while seen < BY_EACH_WORKER:
        assert time.monotonic() < until, "the other host does not learn of it"
        assert "while-away" in keys_of(writer)
        known = "while-away" in keys_of(other) and time.monotonic() > trials_from
        seen = seen + 1 if known else 0
    other.make("afterwards")
    for replica in (writer, other) * BY_EACH_WORKER:
        assert {"while-away", "afterwards"} <= keys_of(replica)
    redis.freeze()
    for replica in (writer, other):
        assert {"while-away", "afterwards"} <= keys_of(replica)
    redis.thaw()
    settled(replicas, litellm)
    assert max(took) < BOUND
    for replica in replicas:
        assert "Traceback" not in replica.log
        complaints = replica.log.count("each process goes on by its own memory")
        assert 1 <= complaints <= 2  # once for each worker


def test_without_redis_a_write_is_seen_through_every_worker_of_a_gunicorn(
    folder: Path, sandbox: Sandbox, litellm: Gate
) -> None:
    with Replica(folder / "alone", sandbox, caching({"store": "memory"})) as replica:
        replica.wait()
        settled([replica], litellm)
        for number in range(6):
            replica.make(f"alone-{number}")
            assert all(f"alone-{number}" in replica.aliases() for _ in range(8))
        settled([replica], litellm)
