"""Who asks too often is known to a worker, or with Redis to all, and to nobody's harm."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from limits.storage import Storage

from litellm_plugin.cache.counters import Counters, in_redis
from litellm_plugin.cache.redis import connect
from litellm_plugin.config.settings import Rate
from tests.cache.redis_server import RedisServer, needs_redis
from tests.canaries import PASSWORD
from tests.identity.doubles import Clock

THREE = Rate(3, 60)
LITELLM = "http://litellm:4000"


@pytest.fixture
def counters(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Counters:
    monkeypatch.setattr("limits.storage.memory.time.time", clock)
    monkeypatch.setattr("limits.strategies.time.time", clock)
    return Counters(clock=clock)


def test_the_one_too_many_has_to_wait_until_the_window_ends(
    counters: Counters, clock: Clock
) -> None:
    assert [counters.hit(THREE, "writes", "alice") for _ in range(3)] == [None] * 3
    clock.now += 20
    assert counters.hit(THREE, "writes", "alice") == pytest.approx(40)
    clock.now += 39
    assert counters.hit(THREE, "writes", "alice") == pytest.approx(1)
    clock.now += 2
    assert counters.hit(THREE, "writes", "alice") is None


def test_others_and_other_things_are_counted_apart(counters: Counters, clock: Clock) -> None:
    for _ in range(4):
        counters.hit(THREE, "writes", "alice")
    assert counters.hit(THREE, "writes", "bob") is None
    assert counters.hit(THREE, "failed-tokens", "alice") is None
    assert counters.over("writes", "alice")
    assert counters.over("writes", "bob") is None


def test_each_worker_counts_for_itself(clock: Clock) -> None:
    workers = [Counters(clock=clock) for _ in range(4)]
    assert [worker.hit(THREE, "writes", "alice") for worker in workers] == [None] * 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", PASSWORD)
    server.start()
    yield server
    server.stop()


def _storage(server: RedisServer) -> Storage:
    return in_redis(connect(server.url).connection_pool, server.url, LITELLM)


@needs_redis
def test_all_workers_count_together_in_redis(server: RedisServer) -> None:
    workers = [Counters(_storage(server)) for _ in range(4)]
    waits = [worker.hit(THREE, "writes", "alice@example.com") for worker in workers]
    assert [wait is None for wait in waits] == [True, True, True, False]
    assert 50 < (waits[3] or 0) <= 60
    (name,) = server.names()
    assert b"alice" not in name
    assert 0 < server.redis.ttl(name) <= 60


@needs_redis
@pytest.mark.parametrize("gone", ["killed", pytest.param("frozen", marks=pytest.mark.deep)])
def test_while_redis_is_gone_each_worker_counts_for_itself(
    server: RedisServer,
    gone: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("litellm_plugin.cache.redis.ANSWER_SECONDS", 1.0)
    counters = Counters(_storage(server))
    assert counters.hit(THREE, "writes", "alice") is None
    server.kill() if gone == "killed" else server.freeze()
    with caplog.at_level(logging.DEBUG):
        waits = [counters.hit(THREE, "writes", "alice") for _ in range(4)]
    assert [wait is None for wait in waits] == [True, True, True, False]
    assert "each worker counts rate limits alone" in caplog.text
    assert PASSWORD not in caplog.text
    if gone == "frozen":
        server.thaw()


@needs_redis
def test_a_refused_password_refuses_nobody(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url.replace(PASSWORD, "wrong-" + PASSWORD)
    storage = in_redis(connect(url).connection_pool, url, LITELLM)
    assert Counters(storage).hit(THREE, "writes", "a") is None
    assert "Redis does not answer" in caplog.text
    assert PASSWORD not in caplog.text
