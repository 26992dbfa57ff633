"""Hosts that share a Redis agree, also when it goes away, forgets or lies."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.cache import redis
from litellm_plugin.cache.redis import RedisTier, connect
from litellm_plugin.cache.sealed import MAX_BYTES, Seal
from litellm_plugin.cache.stamps import StampTable
from litellm_plugin.clients import circuit_breaker
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import Account
from litellm_plugin.errors import UpstreamError
from tests.cache.doubles import Source, Worker
from tests.cache.redis_server import RedisServer, needs_redis
from tests.identity.doubles import Clock

pytestmark = needs_redis

LITELLM = "http://litellm:4000"
SEAL = Seal("sk-master", LITELLM)
SECRET = "sk-0123456789abcdefghijkl"
PROCESSES = multiprocessing.get_context("fork")


Worked = Callable[..., Worker]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def worker(server: RedisServer, clock: Clock) -> Iterator[Worked]:
    """Makes a worker of a host: ``worker("a")``; time does not pass unless the test says so."""
    hosts: defaultdict[str, StampTable] = defaultdict(StampTable)
    with contextlib.ExitStack() as stack:

        def worker(host: str = "a", *, seal: Seal = SEAL, litellm: str = LITELLM) -> Worker:
            client = stack.enter_context(connect(server.url))
            stamps = hosts[host]
            return Worker(stamps, RedisTier(client, litellm, seal, stamps, clock), clock)

        yield worker


def read(worker: Worker, source: Source, key: str = "k", scopes: tuple[str, ...] = ("s",)) -> Any:
    return worker.read((key,), scopes, source)


# -- hosts agree ----------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        Account("a@example.com", {"spend": 0.5}, ["t1"], "a@example.com"),
        Entity("User", frozenset({"group:default/a", "group:default/b"}), None, "a@example.com"),
        [("t1", {"team_info": {}})],
        [{"model_name": "gpt-4o"}],
        {"results": []},
        True,
        None,
    ],
    ids=["account", "entity", "pairs", "list", "object", "decision", "nothing"],
)
def test_what_one_host_has_read_another_need_not_read(worker: Worked, value: Any) -> None:
    source = Source(value)
    assert [read(worker(host), source) for host in "aabbc"] == [value] * 5
    assert source.reads == 1


def test_a_write_on_one_host_is_seen_on_every_other(worker: Worked, source: Source) -> None:
    workers = [worker(host) for host in "aabb"]
    for number, writer in enumerate(workers):
        for one in workers:
            read(one, source, scopes=("s", "t"))
        with writer.invalidating("t"):
            source.value = number
        assert [read(one, source, scopes=("s", "t")) for one in workers] == [number] * 4


def test_a_read_that_began_before_the_write_of_another_host_is_not_kept(
    worker: Worked, source: Source
) -> None:
    one, other = worker("a"), worker("b")

    def overtaken() -> object:
        before = source()
        other.invalidate("s")
        source.value = "second"
        return before

    assert one.read(("k",), ("s",), overtaken) == "first"
    assert [read(one, source), read(other, source)] == ["second"] * 2


def test_a_look_up_is_one_round_trip(worker: Worked, server: RedisServer, source: Source) -> None:
    one = worker()
    read(one, source, scopes=("s", "t"))
    before = server.redis.info("stats")["total_commands_processed"]
    assert read(one, source, scopes=("s", "t")) == "first"
    assert server.redis.info("stats")["total_commands_processed"] == before + 2  # INFO is one


def test_two_who_are_the_first_agree(worker: Worked) -> None:
    one, other = worker("a").tier, worker("b").tier
    assert one._renew(("s",), ()) == other._renew(("s",), ()) == one.stamps(("s",))


def test_installations_do_not_meet(worker: Worked, source: Source) -> None:
    read(worker(), source)
    for other in (
        worker("b", litellm="http://other:4000"),
        worker("c", seal=Seal("sk-master", "another Backstage")),
        worker("d", seal=Seal("sk-other", LITELLM)),
    ):
        source.reads = 0
        read(other, source)
        assert source.reads == 1


def test_entries_end_with_their_time(worker: Worked, server: RedisServer, source: Source) -> None:
    read(worker(), source)
    (entry,) = server.names(":entry:")
    assert 80 <= server.redis.ttl(entry) <= 90  # the lifetime, and what it may stand in after
    assert all(server.redis.ttl(name) > 0 for name in server.names())


# -- Redis goes away --------------------------------------------------------------


def test_without_redis_each_process_goes_on_by_its_own_memory(
    worker: Worked, server: RedisServer, source: Source, clock: Clock
) -> None:
    one, colleague = worker("a"), worker("a")
    assert [read(each, source) for each in (one, colleague)] == ["first"] * 2
    server.kill()
    source.value = "second"
    assert [read(each, source) for each in (one, colleague)] == ["first"] * 2
    with one.invalidating("s"):
        source.value = "third"
    assert [read(each, source) for each in (one, colleague)] == ["third"] * 2
    assert source.reads == 3  # shared by Redis, and then each by itself
    clock.now += 30
    source.value = "fourth"
    assert read(one, source) == "fourth"


def test_without_redis_an_old_entry_stands_in_for_litellm(
    worker: Worked, server: RedisServer, source: Source, clock: Clock
) -> None:
    one, colleague = worker("a"), worker("a")
    assert [read(each, source) for each in (one, colleague)] == ["first"] * 2
    server.kill()
    clock.now += 31
    source.fault = UpstreamError("down")
    ages: list[float] = []
    for each in (one, colleague):
        assert each.read(("k",), ("s",), source, stale=ages.append) == "first"
    assert ages == [31, 31]


def test_a_write_that_redis_was_not_told_of_is_seen_on_its_host(
    worker: Worked, server: RedisServer, source: Source, clock: Clock
) -> None:
    writer, colleague, elsewhere = worker("a"), worker("a"), worker("b")
    assert [read(one, source) for one in (writer, colleague, elsewhere)] == ["first"] * 3
    server.save()
    server.kill()
    with writer.invalidating("s"):
        source.value = "second"
    assert [read(one, source) for one in (writer, colleague)] == ["second"] * 2
    server.start()  # with the snapshot from before the write
    assert len(server.names(":entry:")) == 1
    assert read(elsewhere, Source("unread")) == "first"  # nobody can have told it
    clock.now += circuit_breaker.PAUSE
    assert read(colleague, source) == "second"
    assert [read(one, source) for one in (writer, elsewhere)] == ["second"] * 2
    assert source.reads == 4  # the first, two without Redis, and one again


def test_a_write_that_redis_has_lost_is_seen_on_its_host(
    worker: Worked, server: RedisServer, source: Source, clock: Clock
) -> None:
    writer, colleague, elsewhere = worker("a"), worker("a"), worker("b")
    assert read(elsewhere, source) == "first"
    server.save()
    with writer.invalidating("s"):
        source.value = "second"
    server.kill()
    server.start()
    clock.now += circuit_breaker.PAUSE
    assert [read(one, source) for one in (colleague, writer, elsewhere)] == ["second"] * 3


@pytest.mark.parametrize("lost", ["", ":stamp:", ":told:", ":entry:"])
def test_whatever_redis_forgets_nothing_from_before_a_write_comes_back(
    worker: Worked, server: RedisServer, source: Source, lost: str
) -> None:
    one, other = worker("a"), worker("b")
    for number in range(4):
        assert [read(one, source), read(other, source)] == [source.value] * 2
        server.forget(lost)
        with (one if number % 2 else other).invalidating("s"):
            source.value = number
        server.forget(lost)


def test_a_write_while_redis_is_away_is_not_joined_to_an_earlier_read(
    worker: Worked, server: RedisServer
) -> None:
    reader, writer = worker("a"), worker("a")
    server.kill()
    reading, written = threading.Event(), threading.Event()

    def slow() -> str:
        reading.set()
        assert written.wait(60)
        return "first"

    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(reader.read, ("k",), ("s",), slow)
        assert reading.wait(60)
        writer.invalidate("s")
        assert reader.read(("k",), ("s",), lambda: "second") == "second"
        written.set()
        assert early.result(60) == "first"


def test_a_write_is_told_to_a_redis_that_is_back_without_waiting(
    worker: Worked, server: RedisServer, source: Source
) -> None:
    one, other = worker("a"), worker("b")
    assert [read(one, source), read(other, source)] == ["first"] * 2
    server.save()
    server.kill()
    read(one, source)
    server.start()
    with one.invalidating("s"):
        source.value = "second"
    assert read(other, source) == "second"


@pytest.mark.deep
def test_a_silent_redis_costs_one_request_in_a_while_its_time(
    worker: Worked,
    server: RedisServer,
    source: Source,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis, "ANSWER_SECONDS", 1.0)
    one = worker()
    read(one, source)
    server.freeze()
    took = []
    for _ in range(60):
        began = time.monotonic()
        read(one, source)
        took.append(time.monotonic() - began)
    limit = 10 * redis.ANSWER_SECONDS  # a busy machine takes its time
    assert redis.ANSWER_SECONDS <= took[0] < limit
    assert statistics.median(took[1:]) < redis.ANSWER_SECONDS  # any one may take longer
    began = time.monotonic()
    one.invalidate("s")  # writes are told in any case
    assert time.monotonic() - began < limit
    server.thaw()
    clock.now += circuit_breaker.PAUSE
    source.value = "second"
    assert [read(one, source), read(worker("b"), source)] == ["second"] * 2


def test_an_outage_is_two_lines_in_the_log(
    worker: Worked,
    server: RedisServer,
    source: Source,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    one = worker()
    read(one, source)
    server.kill()
    for _ in range(20):
        read(one, source)
        clock.now += circuit_breaker.PAUSE
    server.start()
    for _ in range(20):
        read(one, source)
        clock.now += circuit_breaker.PAUSE
    told, relieved = caplog.messages
    assert "Redis does not answer" in told
    assert "answers again" in relieved


def test_a_redis_that_refuses_writes_is_done_without(
    worker: Worked, server: RedisServer, source: Source, clock: Clock
) -> None:
    one, other = worker("a"), worker("b")
    read(one, source)
    server.redis.config_set("maxmemory", "1")
    with one.invalidating("s"):
        source.value = "second"
    clock.now += circuit_breaker.PAUSE
    assert read(one, source) == "second"
    server.redis.config_set("maxmemory", "0")
    clock.now += circuit_breaker.PAUSE
    assert [read(one, source), read(other, source)] == ["second"] * 2


def test_numbers_that_are_none_are_done_without(
    worker: Worked, server: RedisServer, source: Source
) -> None:
    one = worker()
    read(one, source)
    for name in server.names(":stamp:"):
        server.redis.set(name, "\x00nonsense")
    assert read(one, source) == "first"
    with one.invalidating("s"):
        source.value = "second"
    assert read(one, source) == "second"


def test_the_password_is_not_told(
    tmp_path: Path, clock: Clock, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path / "closed", password="right-hunter2")
    server.start()
    try:
        stamps = StampTable()
        with connect(server.url.replace("right", "wrong")) as client:
            wrong = Worker(stamps, RedisTier(client, LITELLM, SEAL, stamps, clock), clock)
            assert read(wrong, source) == "first"
        with connect(server.url) as client:
            right = Worker(stamps, RedisTier(client, LITELLM, SEAL, stamps, clock), clock)
            assert [read(right, source), read(right, source)] == ["first"] * 2
        assert source.reads == 2
    finally:
        server.stop()
    assert "Redis does not answer" in caplog.text
    assert "hunter2" not in caplog.text


# -- what is in Redis -------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "in_redis"),
    [
        ({"key_name": "sk-...wxyz", "key_alias": "risk-assessment-2026"}, True),
        ({"credentials": None, "env": {}, "static_headers": []}, True),
        ({"key": SECRET}, False),
        ({"note": f"it was\n{SECRET}"}, False),
        ({"note": f"“{SECRET}”"}, False),
        ([{"credentials": {"auth_value": "hunter2"}}], False),
        ([{"env": {"TOKEN": "hunter2"}}], False),
        ([{"static_headers": {"X-Key": "hunter2"}}], False),
        ("x" * MAX_BYTES, False),
        (object(), False),
    ],
    ids=lambda value: repr(value)[:20] if value is not True and value is not False else "",
)
def test_what_redis_should_not_have_is_kept_in_the_process(
    worker: Worked, server: RedisServer, value: Any, *, in_redis: bool
) -> None:
    one, other, source = worker("a"), worker("b"), Source(value)
    assert [read(one, source), read(one, source)] == [value] * 2
    assert source.reads == 1
    everything = server.everything()
    assert SECRET.encode() not in everything
    assert b"hunter2" not in everything
    assert bool(server.names(":entry:")) == in_redis
    read(other, source)
    assert source.reads == (1 if in_redis else 2)
    other.invalidate("s")  # is a write for it all the same
    source.reads, source.value = 0, "small"
    assert [read(one, source), read(other, source), read(one, source)] == ["small"] * 3
    assert source.reads == 1


def test_nobody_can_write_a_decision_into_redis(worker: Worked, server: RedisServer) -> None:
    one, other, third = worker(), worker(), worker()
    denied, allowed = Source(False), Source(True)
    read(one, denied, "bob")
    (denial,) = server.names(":entry:")
    read(one, allowed, "alice")
    (permission,) = set(server.names(":entry:")) - {denial}
    server.redis.copy(permission.decode(), denial.decode(), replace=True)
    assert read(other, denied, "bob") is False
    sealed = server.redis.get(denial)
    assert isinstance(sealed, bytes)
    assert b"false" in sealed
    server.redis.set(denial, sealed.replace(b"false", b"true"))
    assert read(third, denied, "bob") is False
    assert denied.reads == 3


# -- locks and processes ----------------------------------------------------------


def test_a_lock_is_held_on_one_host_at_a_time(worker: Worked) -> None:
    tiers = [worker(host).tier for host in "abc"]
    inside, most, visits = 0, 0, 0
    guard = threading.Lock()

    def visit(number: int) -> None:
        nonlocal inside, most, visits
        with tiers[number % 3].lock("user", 20) as held:
            with guard:
                inside, visits = inside + held, visits + held
                most = max(most, inside)
            with guard:
                inside -= held

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(visit, range(24)))
    assert (most, visits) == (1, 24)


def test_a_lock_that_nobody_gives_back_is_waited_for_in_measure(
    worker: Worked, server: RedisServer
) -> None:
    with worker("a").tier.lock("user", 20) as first, worker("b").tier.lock("user", 0.05) as second:
        assert (first, second) == (True, False)
        (lock,) = server.names(":lock:")
        assert 0 < server.redis.pttl(lock) <= redis.LOCK_SECONDS * 1000
    assert server.names(":lock:") == []


def test_a_lock_that_ran_out_is_not_taken_from_its_next_holder(
    worker: Worked, server: RedisServer
) -> None:
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(worker("a").tier.lock("user", 20))
        server.forget(":lock:")
        second.enter_context(worker("b").tier.lock("user", 20))
        (lock,) = server.names(":lock:")
        holder = server.redis.get(lock)
        first.close()
        assert server.redis.get(lock) == holder
    assert server.names(":lock:") == []


def test_without_redis_a_lock_is_the_hosts_own(worker: Worked, server: RedisServer) -> None:
    one = worker("a")
    server.kill()
    entered = threading.Event()

    def enter() -> None:
        with one.lock("user"):
            entered.set()

    with ThreadPoolExecutor(1) as pool:
        with one.lock("user") as held:
            assert held
            with one.lock("money", on_all_hosts=True) as everywhere:
                assert not everywhere
            waiting = pool.submit(enter)
            assert not entered.wait(0.05)
        waiting.result(60)
    with one.lock("user"):
        server.start()  # it comes back while the lock is held
    with one.lock("user"):
        server.kill()  # or goes


def test_a_failure_inside_a_lock_is_what_comes_out(worker: Worked, server: RedisServer) -> None:
    with pytest.raises(KeyError, match="mine"), worker().lock("user"):
        raise KeyError("mine")
    assert server.names(":lock:") == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_has_connections_of_its_own(worker: Worked, source: Source) -> None:
    parent = worker()
    read(parent, source)
    ours = parent.tier._redis.client_id()
    receiver, sender = PROCESSES.Pipe(duplex=False)

    def child() -> None:
        sender.send((parent.tier._redis.client_id(), read(parent, Source("unread"))))
        parent.invalidate("s")

    process = PROCESSES.Process(target=child)
    process.start()
    assert receiver.poll(20)
    theirs, value = receiver.recv()
    process.join(20)
    assert value == "first"
    assert theirs != ours
    assert parent.tier._redis.client_id() == ours
    source.value = "second"
    assert read(parent, source) == "second"
