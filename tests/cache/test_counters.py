"""Who asks too often is known to all workers of a host, or to all hosts, and to nobody's harm."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from limits.storage import Storage

from litellm_plugin.cache.counters import WAYS, Counters, HostTable, in_redis
from litellm_plugin.cache.redis import connect
from litellm_plugin.config.settings import Rate
from tests.cache.redis_server import RedisServer, needs_redis
from tests.canaries import PASSWORD
from tests.identity.doubles import Clock

THREE = Rate(3, 60)
LITELLM = "http://litellm:4000"
PROCESSES = multiprocessing.get_context("fork")


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> HostTable:
    return HostTable(tmp_path / "counts", clock)


def test_the_one_too_many_has_to_wait_until_the_window_ends(table: HostTable, clock: Clock) -> None:
    counters = Counters(table, clock=clock)
    assert [counters.hit(THREE, "writes", "alice") for _ in range(3)] == [None] * 3
    clock.now += 20
    assert counters.hit(THREE, "writes", "alice") == pytest.approx(40)
    clock.now += 39
    assert counters.hit(THREE, "writes", "alice") == pytest.approx(1)
    clock.now += 2
    assert counters.hit(THREE, "writes", "alice") is None


def test_others_and_other_things_are_counted_apart(table: HostTable, clock: Clock) -> None:
    counters = Counters(table, clock=clock)
    for _ in range(4):
        counters.hit(THREE, "writes", "alice")
    assert counters.hit(THREE, "writes", "bob") is None
    assert counters.hit(THREE, "failed-tokens", "alice") is None
    assert counters.over("writes", "alice")
    assert counters.over("writes", "bob") is None


def test_all_workers_of_a_host_count_together(tmp_path: Path, clock: Clock) -> None:
    workers = [Counters(HostTable(tmp_path / "counts", clock), clock=clock) for _ in range(4)]
    waits = [worker.hit(THREE, "writes", "alice") for worker in workers]
    assert [wait is None for wait in waits] == [True, True, True, False]


def _count(path: Path, times: int) -> None:
    table = HostTable(path)
    for _ in range(times):
        table.incr("name", 600)


def test_no_count_is_lost_among_processes_and_threads(tmp_path: Path) -> None:
    path = tmp_path / "counts"
    workers: list[Any] = [
        *(PROCESSES.Process(target=_count, args=(path, 500)) for _ in range(3)),
        *(threading.Thread(target=_count, args=(path, 500)) for _ in range(3)),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert HostTable(path).get("name") == 3000


def test_the_table_does_not_grow_and_who_asks_most_is_remembered(
    tmp_path: Path, clock: Clock
) -> None:
    table = HostTable(tmp_path / "counts", clock, sets=4)
    for _ in range(50):
        table.incr("busy", 60)
    for number in range(1000):
        table.incr(f"stranger {number}", 60)
    assert table.get("busy") == 50
    assert (tmp_path / "counts").stat().st_size == 4 * WAYS * 24
    assert sum(table.get(f"stranger {number}") for number in range(1000)) < 4 * WAYS


def test_what_is_over_makes_room_first(tmp_path: Path, clock: Clock) -> None:
    table = HostTable(tmp_path / "counts", clock, sets=1)
    for number in range(WAYS):
        table.incr(f"old {number}", 60, 5)
    clock.now += 61
    table.incr("new", 60)
    for number in range(WAYS - 1):
        table.incr(f"other {number}", 60)
    assert table.get("new") == 1


def test_a_name_can_be_cleared_and_all_of_them(table: HostTable) -> None:
    for name in ("a", "b"):
        table.incr(name, 60)
    table.clear("a")
    assert (table.get("a"), table.get("b"), table.check()) == (0, 1, True)
    table.reset()
    assert table.get("b") == 0


def test_the_file_is_the_users_alone(table: HostTable, tmp_path: Path) -> None:
    assert (tmp_path / "counts").stat().st_mode & 0o777 == 0o600


def test_without_a_folder_it_counts_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    counters = Counters(HostTable.of_user(LITELLM))
    waits = [counters.hit(THREE, "writes", "alice") for _ in range(4)]
    assert [wait is None for wait in waits] == [True, True, True, False]
    assert "forked workers only" in caplog.text


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", PASSWORD)
    server.start()
    yield server
    server.stop()


def _storage(server: RedisServer) -> Storage:
    return in_redis(connect(server.url).connection_pool, server.url, LITELLM)


@needs_redis
def test_all_hosts_count_together_in_redis(server: RedisServer, tmp_path: Path) -> None:
    hosts = [
        Counters(HostTable(tmp_path / f"host-{number}"), _storage(server)) for number in range(4)
    ]
    waits = [host.hit(THREE, "writes", "alice@example.com") for host in hosts]
    assert [wait is None for wait in waits] == [True, True, True, False]
    assert 50 < (waits[3] or 0) <= 60
    (name,) = server.names()
    assert b"alice" not in name
    assert 0 < server.redis.ttl(name) <= 60


@needs_redis
@pytest.mark.parametrize("gone", ["killed", "frozen"])
def test_while_redis_is_gone_each_host_counts_for_itself(
    server: RedisServer, tmp_path: Path, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters(HostTable(tmp_path / "counts"), _storage(server))
    assert counters.hit(THREE, "writes", "alice") is None
    server.kill() if gone == "killed" else server.freeze()
    with caplog.at_level(logging.DEBUG):
        waits = [counters.hit(THREE, "writes", "alice") for _ in range(4)]
    assert [wait is None for wait in waits] == [True, True, True, False]
    assert "rate limits are counted on each host for itself" in caplog.text
    assert PASSWORD not in caplog.text
    if gone == "frozen":
        server.thaw()


@needs_redis
def test_a_refused_password_refuses_nobody(
    server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url.replace(PASSWORD, "wrong-" + PASSWORD)
    storage = in_redis(connect(url).connection_pool, url, LITELLM)
    assert Counters(HostTable(tmp_path / "counts"), storage).hit(THREE, "writes", "a") is None
    assert "Redis does not answer" in caplog.text
    assert PASSWORD not in caplog.text
