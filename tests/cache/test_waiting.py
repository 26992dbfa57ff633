"""Of the workers that want to read the same, one does, and the others take what it has read."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litellm_plugin.cache import waiting
from litellm_plugin.cache.host import HostShared
from litellm_plugin.cache.memory import MemoryStore
from litellm_plugin.cache.redis import RedisStore, connect
from litellm_plugin.cache.sealed import MAX_BYTES, Seal
from litellm_plugin.cache.shared import SharedStore
from litellm_plugin.cache.snapshots import Snapshots
from litellm_plugin.cache.store import Store
from litellm_plugin.errors import UpstreamError
from tests.cache.redis_server import RedisServer, needs_redis

SEAL = Seal("sk-master", "here")
WAIT = 20  # seconds, at most
PROCESSES = multiprocessing.get_context("fork")

# The children use nothing that a thread of the parent may have held.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

Submit = Callable[..., Future[Any]]


class Source:
    """Something to read, which is read when the test says so.

    Attributes:
        begun: Released whenever somebody begins to read.
        go: Lets them end.
    """

    def __init__(self, value: Any = "first", *, go: bool = False) -> None:
        self.value = value
        self.reads = 0
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        if go:
            self.go.set()

    def __call__(self) -> Any:
        self.reads += 1
        self.begun.release()
        assert self.go.wait(WAIT)
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def reached(self) -> None:
        assert self.begun.acquire(timeout=WAIT)


class WatchedHost(HostShared):
    """Tells when somebody wants to read what may be being read.

    Attributes:
        wanted: Released each time.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.wanted = threading.Semaphore(0)

    def alone(self, name: str, patience: float | None = None) -> Any:
        if name.startswith("read:"):
            self.wanted.release()
        return super().alone(name, patience)

    def reached(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.wanted.acquire(timeout=WAIT)


@pytest.fixture
def host(tmp_path: Path) -> WatchedHost:
    return WatchedHost(tmp_path / "a.shared")


@pytest.fixture
def submit() -> Iterator[Submit]:
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


@pytest.fixture(params=["file", pytest.param("redis", marks=needs_redis)])
def store(
    request: pytest.FixtureRequest, host: WatchedHost, tmp_path: Path
) -> Iterator[Callable[[], Store]]:
    """Makes the store of a worker, with a memory of its own."""
    if request.param == "file":
        # One that is let go of is about to close the file, and nobody can open it meanwhile.
        kept: list[Store] = []

        def another() -> Store:
            kept.append(SharedStore(MemoryStore(host), SEAL))
            return kept[-1]

        yield another
        return
    server = RedisServer(tmp_path / "redis")
    server.start()
    with contextlib.ExitStack() as stack:
        yield lambda: RedisStore(
            stack.enter_context(connect(server.url)), "http://litellm", SEAL, MemoryStore(host)
        )
    server.stop()


@pytest.fixture
def worker(store: Callable[[], Store]) -> Callable[[], Snapshots]:
    return lambda: Snapshots(store(), 30, 60)


Worked = Callable[[], Snapshots]


def read(worker: Snapshots, source: Source, key: str = "k", **how: Any) -> Any:
    return worker.read((key,), ("s",), source, **how)


def test_workers_that_want_the_same_ask_once(
    worker: Worked, host: WatchedHost, submit: Submit
) -> None:
    source = Source({"a": 1})
    reads = [submit(read, worker(), source) for _ in range(4)]
    host.reached(4)
    source.go.set()
    assert [each.result(WAIT) for each in reads] == [{"a": 1}] * 4
    assert source.reads == 1


def test_workers_that_want_different_things_do_not_wait(worker: Worked, submit: Submit) -> None:
    slow = Source()
    first = submit(read, worker(), slow)
    slow.reached()
    assert read(worker(), Source("other", go=True), "k2") == "other"
    slow.go.set()
    assert first.result(WAIT) == "first"


def test_whoever_knows_of_a_write_waits_for_no_earlier_read(worker: Worked, submit: Submit) -> None:
    overtaken, other = Source(), worker()
    first = submit(read, worker(), overtaken)
    overtaken.reached()
    other.forget("s")
    assert read(other, Source("second", go=True)) == "second"
    overtaken.go.set()
    assert first.result(WAIT) == "first"
    assert read(worker(), Source("second", go=True)) == "second"


def test_who_has_waited_through_a_write_gets_nothing_from_before_it(
    worker: Worked, host: WatchedHost, submit: Submit
) -> None:
    overtaken = Source()
    first = submit(read, worker(), overtaken)
    overtaken.reached()
    second = submit(read, worker(), Source("second", go=True))
    host.reached(2)
    worker().forget("s")
    overtaken.go.set()
    assert [first.result(WAIT), second.result(WAIT)] == ["first", "second"]
    assert read(worker(), Source("unread")) == "second"


def test_a_fresh_read_neither_waits_nor_joins_nor_takes_what_is_kept(
    worker: Worked, submit: Submit
) -> None:
    slow, one, other = Source(), worker(), worker()
    first = submit(read, one, slow)
    slow.reached()
    for each in (one, other):
        assert read(each, Source("fresh", go=True), fresh=True) == "fresh"
    slow.go.set()
    assert first.result(WAIT) == "first"
    source = Source("again", go=True)
    assert read(other, source, fresh=True) == "again"
    assert source.reads == 1


def test_those_who_have_waited_in_vain_ask_all_at_once(
    worker: Worked, host: WatchedHost, submit: Submit
) -> None:
    failing = Source(UpstreamError("down"))
    first = submit(read, worker(), failing)
    failing.reached()
    # In a row each would stand still, as nobody lets one go before all have begun.
    source = Source("second")
    others = [submit(read, worker(), source) for _ in range(3)]
    host.reached(4)
    failing.go.set()
    with pytest.raises(UpstreamError, match="down"):
        first.result(WAIT)
    for _ in others:
        source.reached()
    source.go.set()
    assert [each.result(WAIT) for each in others] == ["second"] * 3


def test_nobody_waits_for_long(
    worker: Worked, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)
    slow = Source()
    first = submit(read, worker(), slow)
    slow.reached()
    assert read(worker(), Source("second", go=True)) == "second"
    slow.go.set()
    assert first.result(WAIT) == "first"


@pytest.mark.parametrize("value", ["x" * MAX_BYTES, {"key": "sk-0123456789"}])
def test_nobody_waits_twice_for_what_can_not_be_shared(
    worker: Worked, host: WatchedHost, submit: Submit, value: Any
) -> None:
    one, other, slow = worker(), worker(), Source(value)
    first = submit(read, one, slow)
    second = submit(read, other, slow)
    host.reached(2)
    slow.go.set()
    assert [first.result(WAIT), second.result(WAIT)] == [value] * 2
    assert slow.reads == 2
    for each in (one, other):
        each.forget("s")
        slow.go.clear()
    first = submit(read, one, slow)
    second = submit(read, other, slow)
    for _ in range(4):
        slow.reached()
    slow.go.set()
    assert [first.result(WAIT), second.result(WAIT)] == [value] * 2


def test_nobody_waits_for_what_will_not_be_in_the_file(
    host: WatchedHost, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [SharedStore(MemoryStore(host), SEAL) for _ in range(2)]
    one, other = (Snapshots(store, 30) for store in stores)
    read(one, Source(go=True), "other")
    monkeypatch.setattr(stores[0]._file, "_again_at", time.monotonic() + 3600)
    slow = Source()
    first = submit(read, one, slow)
    slow.reached()
    assert read(other, Source("second", go=True)) == "second"
    slow.go.set()
    assert first.result(WAIT) == "first"


def test_a_read_that_was_over_just_before_is_found(host: WatchedHost) -> None:
    one, other = (Snapshots(SharedStore(MemoryStore(host), SEAL), 30) for _ in range(2))
    store = one._store

    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def reading(self, *of: Any) -> Any:
            read(other, Source("of the other", go=True))
            return store.reading(*of)

    one._store = Late()
    assert read(one, Source("unread")) == "of the other"


# -- processes ------------------------------------------------------------------


class Child:
    """Another process, which is reading.

    Attributes:
        go: Lets it end.
    """

    def __init__(self, path: Path) -> None:
        self._begun, self.go = PROCESSES.Event(), PROCESSES.Event()
        self._process = PROCESSES.Process(target=self._read, args=(path,))

    def start(self) -> None:
        self._process.start()
        assert self._begun.wait(WAIT)

    def kill(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(WAIT)

    def join(self) -> None:
        self._process.join(WAIT)
        assert self._process.exitcode == 0

    def _read(self, path: Path) -> None:
        one = Snapshots(SharedStore(MemoryStore(HostShared(path)), SEAL), 30)
        one.read(("k",), ("s",), self._loaded)

    def _loaded(self) -> str:
        self._begun.set()
        assert self.go.wait(WAIT)
        return "of the child"


def when_it_waits(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    """Do something as soon as this process waits for another one's lock."""

    def sleep(seconds: float) -> None:
        if not done:
            done.append(seconds)
            then()
        time.sleep(seconds)

    done: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr("litellm_plugin.cache.host.time", clock)


def test_what_another_process_is_reading_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(tmp_path / "a.shared")
    child.start()
    when_it_waits(monkeypatch, child.go.set)
    one = Snapshots(SharedStore(MemoryStore(HostShared(tmp_path / "a.shared")), SEAL), 30)
    assert read(one, Source("unread")) == "of the child"
    child.join()


def test_what_a_process_was_reading_when_it_died_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(tmp_path / "a.shared")
    child.start()
    when_it_waits(monkeypatch, child.kill)
    one = Snapshots(SharedStore(MemoryStore(HostShared(tmp_path / "a.shared")), SEAL), 30)
    assert read(one, Source("own", go=True)) == "own"
