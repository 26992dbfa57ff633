"""Workers of one host share what they have read, whatever becomes of the file they share it in."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from litellm_plugin.cache import shared
from litellm_plugin.cache.host import HostShared
from litellm_plugin.cache.memory import MemoryStore
from litellm_plugin.cache.sealed import MAX_BYTES, Seal
from litellm_plugin.cache.shared import SharedStore
from litellm_plugin.cache.store import Entry
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import Account
from litellm_plugin.config.settings import Settings
from tests.cache.conftest import Worlds
from tests.cache.doubles import Source, Worker
from tests.cache.world import caching
from tests.identity.doubles import Clock

SEAL = Seal("sk-master", "here")
SECRET = "sk-0123456789abcdefghijkl"
WAIT = 20  # seconds, at most
PROCESSES = multiprocessing.get_context("fork")

# The children use nothing that a thread of the parent may have held.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


Worked = Callable[..., Worker]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def worker(folder: Path, clock: Clock) -> Worked:
    """Makes a worker; time does not pass for what is kept unless the test says so."""

    def worker(seal: Seal = SEAL, map_bytes: int = shared.MAP_BYTES) -> Worker:
        memory = MemoryStore(HostShared(folder / "a.shared"), 10_000, clock)
        return Worker(SharedStore(memory, seal, clock, map_bytes), clock)

    return worker


def read(worker: Worker, source: Source, key: str = "k", scopes: tuple[str, ...] = ("s",)) -> Any:
    return worker.read((key,), scopes, source)


def file_of(folder: Path) -> Path:
    (file,) = folder.glob("*.lmdb")
    return file


def entries(worker: Worker) -> dict[bytes, bytes]:
    """Return what is in the file."""
    opened = worker.store._file._present()
    assert opened is not None
    with opened.environment.begin() as reading:
        return {bytes(name): bytes(data) for name, data in reading.cursor()}


def overwrite(worker: Worker, changed: dict[bytes, bytes]) -> None:
    opened = worker.store._file._present()
    assert opened is not None
    with opened.environment.begin(write=True) as writing:
        for name, data in changed.items():
            writing.put(name, data)


def in_child(does: Callable[[], None]) -> None:
    """Run ``does`` in a forked process, which must not fail or crash."""
    child = PROCESSES.Process(target=does)
    child.start()
    child.join(WAIT)
    assert child.exitcode == 0


# -- workers agree --------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        Account("a@example.com", {"spend": 0.5}, [{"token": "9c1185"}], ["t1"], "a@example.com"),
        Entity("User", frozenset({"group:default/a", "group:default/b"}), None, "a@example.com"),
        [("t1", {"team_info": {}})],
        [{"model_name": "gpt-4o"}],
        {"results": [2**70, 1e-7, "\ud83d"]},
        True,
        None,
    ],
    ids=["account", "entity", "pairs", "list", "object", "decision", "nothing"],
)
def test_what_one_worker_has_read_another_need_not_read(worker: Worked, value: Any) -> None:
    source = Source(value)
    workers = [worker() for _ in range(3)]
    assert [read(one, source) for one in workers * 2] == [value] * 6
    assert source.reads == 1


def test_nobody_is_answered_from_another_ones_snapshot(worker: Worked) -> None:
    for key in (("account", "alice", "x"), ("account", "bob", "x"), ("account", "alice\x1fx")):
        source = Source(key)
        assert worker().read(key, ("s",), source) == key
        assert source.reads == 1


def test_a_write_through_one_worker_is_seen_through_every_other(
    worker: Worked, source: Source
) -> None:
    workers = [worker() for _ in range(3)]
    for number, writer in enumerate(workers):
        for one in workers:
            read(one, source, scopes=("s", "t"))
        with writer.writing("t"):
            source.value = number
        assert [read(one, source, scopes=("s", "t")) for one in workers] == [number] * 3
    assert source.reads == 4


def test_a_read_that_began_before_the_write_of_another_worker_is_not_kept(
    worker: Worked, source: Source
) -> None:
    one, other = worker(), worker()

    def overtaken() -> object:
        before = source()
        other.forget("s")
        source.value = "second"
        return before

    assert one.read(("k",), ("s",), overtaken) == "first"
    assert [read(one, source), read(other, source)] == ["second"] * 2


def test_a_read_that_was_overtaken_does_not_take_the_place_of_the_later_one(
    worker: Worked, source: Source, clock: Clock
) -> None:
    one, other = worker(), worker()

    def overtaken() -> object:
        before = source()
        other.forget("s")
        clock.now += 1
        source.value = "second"
        read(other, source)
        return before

    assert one.read(("k",), ("s",), overtaken) == "first"
    assert [read(each, source) for each in (one, other, worker())] == ["second"] * 3
    assert source.reads == 2


def test_what_is_in_memory_and_new_enough_is_not_looked_for(
    worker: Worked, source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = worker(), worker()
    for each in (one, other):
        read(each, source)
    looked: list[bytes] = []
    monkeypatch.setattr(shared._File, "get", lambda _, name: looked.append(name))
    clock.now += 29
    assert [read(one, source), read(other, source)] == ["first"] * 2
    assert looked == []
    clock.now += 1
    read(one, source)
    assert looked != []


def test_the_later_of_two_entries_wins(worker: Worked, source: Source, clock: Clock) -> None:
    one, other = worker(), worker()
    read(one, source)
    read(other, source)
    clock.now += 30
    source.value = "second"
    assert [read(other, source), read(one, source)] == ["second"] * 2
    assert source.reads == 2
    generations = one.store.generations(("s",))
    large, small = "x" * MAX_BYTES, "small"
    for value in (small, large, small, large):
        clock.now += 1
        entry = Entry(value, generations, clock.now)
        one.store.put("k", entry, seconds=60, weight=1)
        assert one.store.look_up("k", ("s",)) == (entry, generations)


def test_what_was_taken_from_the_file_ends_with_its_time(
    worker: Worked, source: Source, clock: Clock
) -> None:
    read(worker(), source)
    clock.now += 60
    later = worker()
    assert later.store.look_up("k", ("s",))[0] is not None
    clock.now += 29
    assert later.store.look_up("k", ("s",))[0] is not None
    clock.now += 1  # the lifetime, and what it may stand in after
    assert later.store.look_up("k", ("s",))[0] is None
    assert worker().store.look_up("k", ("s",))[0] is None


def test_what_has_run_out_does_not_accumulate(worker: Worked, clock: Clock) -> None:
    one = worker()
    for number in range(400):
        read(one, Source(number), str(number))
    clock.now += 90
    for number in range(400):
        read(one, Source(number), f"later {number}")
    assert 400 <= len(entries(one)) < 600


# -- what is in the file --------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "in_file"),
    [
        ({"key_name": "sk-...wxyz", "key_alias": "risk-assessment-2026"}, True),
        ({"credentials": None, "env": {}, "static_headers": []}, True),
        ({"key": SECRET}, False),
        ({"note": f"it was\n{SECRET}"}, False),
        ({"note": f"risk-{SECRET}"}, False),
        ({"note": f"“{SECRET}”"}, False),
        ({"note": f"\ud83d{SECRET}"}, False),
        ([{"credentials": {"auth_value": "hunter2"}}], False),
        ([{"env": {"TOKEN": "hunter2"}}], False),
        ([{"static_headers": {"X-Key": "hunter2"}}], False),
        ("x" * MAX_BYTES, False),
        (object(), False),
        ({"number": float("nan")}, False),
        ({"at": (1, 2)}, False),
    ],
    ids=lambda value: repr(value)[:20] if value is not True and value is not False else "",
)
def test_what_the_file_should_not_have_is_kept_in_the_process(
    worker: Worked, folder: Path, value: Any, *, in_file: bool
) -> None:
    one, other, source = worker(), worker(), Source(value)
    assert read(one, source) is value
    assert read(one, source) is value
    assert source.reads == 1
    everything = b"".join(file.read_bytes() for file in folder.iterdir())
    assert SECRET.encode() not in everything
    assert b"hunter2" not in everything
    assert bool(entries(one)) == in_file
    read(other, source)
    assert source.reads == (1 if in_file else 2)
    other.forget("s")  # is a write for it all the same
    source.reads, source.value = 0, "small"
    assert [read(one, source), read(other, source), read(one, source)] == ["small"] * 3
    assert source.reads == 1


def test_nobody_can_write_a_decision_into_the_file(worker: Worked, clock: Clock) -> None:
    one, denied = worker(), Source(False)
    read(one, denied, "bob")
    ((denial, sealed),) = entries(one).items()
    read(one, Source(True), "alice")
    (permission,) = entries(one).keys() - {denial}
    longer = struct.pack("=d", 1e9) + sealed[8:]
    for forged in (
        entries(one)[permission],
        sealed.replace(b"false", b"true"),
        longer,
        sealed[:-1],
        sealed[:10],
        b"",
    ):
        overwrite(one, {denial: forged})
        assert worker().store.look_up("bob", ("s",))[0] is None
    overwrite(one, {denial: sealed})
    assert worker().store.look_up("bob", ("s",))[0] is not None


def test_workers_with_other_settings_do_not_meet(worker: Worked, source: Source) -> None:
    read(worker(), source)
    for seal in (Seal("sk-master", "another Backstage"), Seal("sk-other", "here")):
        source.reads = 0
        read(worker(seal), source)
        assert source.reads == 1


def test_the_file_is_the_users_own(worker: Worked, folder: Path, source: Source) -> None:
    before = os.umask(0)
    try:
        read(worker(), source)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert len(list(folder.iterdir())) == 3
    assert modes == {0o600}
    assert file_of(folder).stat().st_size < 100_000  # not yet what it may be at most


def test_a_file_of_other_generations_is_not_believed(
    worker: Worked, folder: Path, source: Source
) -> None:
    one = worker()
    read(one, source)
    before = file_of(folder)
    (folder / "a.shared").unlink()  # the counts begin anew, and may come to the same
    source.value = "second"
    assert read(worker(), source) == "second"
    assert file_of(folder) != before  # which is of no use to anybody


def test_a_file_of_an_earlier_start_of_the_system_is_not_believed(
    worker: Worked, folder: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = worker()
    read(one, source)
    before = file_of(folder)
    boot_id = folder.parent / "boot_id"
    boot_id.write_text("another one")
    monkeypatch.setattr(shared, "_BOOT_ID", boot_id)
    source.value = "second"
    assert read(worker(), source) == "second"
    assert not before.exists()


# -- processes ------------------------------------------------------------------


def test_forked_processes_share_what_they_read(worker: Worked, source: Source) -> None:
    parent, late = worker(), worker()
    read(parent, source)  # so that the file is open when the child is made

    def child() -> None:
        for one in (parent, late, worker()):
            assert read(one, Source("unread")) == "first"
        read(parent, Source("of the child"), "other")
        late.forget("s")
        read(late, Source("second"))

    in_child(child)
    source.reads = 0
    assert [read(one, source) for one in (parent, late)] == ["second"] * 2
    assert read(worker(), source, "other") != "of the child"  # it is from before the write
    assert source.reads == 1


def test_a_process_that_is_killed_while_it_reads_keeps_no_room(worker: Worked) -> None:
    one = worker(map_bytes=1 << 20)
    fill(one, 10)

    def child() -> None:
        opened = worker(map_bytes=1 << 20).store._file._present()
        assert opened is not None
        opened.environment.begin()
        os.kill(os.getpid(), signal.SIGKILL)

    process = PROCESSES.Process(target=child)
    process.start()
    process.join(WAIT)
    assert process.exitcode == -signal.SIGKILL
    before = one.store._file._opened
    assert fill(one, 1000) == []
    assert one.store._file._opened is before


def fill(worker: Worker, times: int) -> list[int]:
    """Let a worker read; return what cannot be looked up immediately afterwards."""
    lost = []
    for number in range(times):
        read(worker, Source("x" * 5000), f"{times} {number}")
        if worker.store._found(f"{times} {number}") is None:
            lost.append(number)
    return lost


# -- faults ---------------------------------------------------------------------


def test_a_full_file_is_begun_anew(worker: Worked, folder: Path) -> None:
    one, other = worker(map_bytes=1 << 20), worker(map_bytes=1 << 20)
    assert fill(one, 1000) == []
    assert file_of(folder).stat().st_size <= 1 << 20
    assert len(entries(one)) > 20
    assert other.store.look_up("1000 999", ("s",))[0] is not None


def test_a_file_full_of_what_somebody_is_reading_is_given_up(
    worker: Worked, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = worker(map_bytes=1 << 20), worker(map_bytes=1 << 20)
    fill(one, 10)
    opened = one.store._file._opened
    assert opened is not None
    with opened.environment.begin():
        fill(one, 400)
    assert one.store._file._opened is not opened
    monkeypatch.setattr(one.store._file, "_again_at", 0.0)
    assert fill(one, 50) == []
    assert other.store.look_up("50 49", ("s",))[0] is not None


def test_a_full_disk_fails_nobody(
    worker: Worked, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "PAUSE", 0.0)

    def child() -> None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        one = worker()
        fill(one, 10)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most))
        assert len(fill(one, 200)) in range(1, 100)
        source = Source()
        assert [read(one, source), read(one, source)] == ["first"] * 2
        assert source.reads == 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert fill(one, 201) == []

    in_child(child)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"x"),
        lambda file: file.write_bytes(b"nonsense" * 10_000),
        lambda file: os.truncate(file, 8192),
        lambda file: file.with_name(f"{file.name}-lock").unlink(),
        lambda file: file.with_name(f"{file.name}-lock").write_bytes(b"nonsense" * 10_000),
        lambda file: file.unlink(),
    ],
    ids=["empty", "short", "foreign", "cut", "no lock", "foreign lock", "gone"],
)
def test_a_file_that_was_spoilt_is_begun_anew(
    worker: Worked, folder: Path, spoil: Callable[[Path], None]
) -> None:
    def write() -> None:
        fill(worker(), 50)

    def find_nothing_and_begin_anew() -> None:
        one, other = worker(), worker()
        fill(one, 60)
        source = Source("unread")
        assert read(other, source, "60 59") != "unread"

    in_child(write)
    spoil(file_of(folder))
    in_child(find_nothing_and_begin_anew)
    assert len(list(folder.iterdir())) == 3


def test_pages_that_were_overwritten_are_not_believed(
    worker: Worked, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "PAUSE", 0.0)

    def write() -> None:
        fill(worker(), 50)

    def survive() -> None:
        one = worker()
        for number in range(50):
            assert one.store._found(f"50 {number}") is None
        assert fill(one, 60) == []

    in_child(write)
    with file_of(folder).open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (file_of(folder).stat().st_size - 8192))
    in_child(survive)


def test_workers_follow_each_other_to_a_new_file(
    worker: Worked, folder: Path, source: Source
) -> None:
    one, other = worker(), worker()
    read(one, source)

    def child() -> None:
        for file in folder.glob("*.lmdb*"):
            file.unlink()
        read(worker(), source, "new")

    in_child(child)
    for each in (one, other):
        assert read(each, Source("unread"), "new") == "first"


def failing(*errors: Exception) -> Callable[..., Any]:
    """Return a way to open files that does not work the first times."""
    left, opens = list(errors), lmdb.open

    def failing(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop(0)
        return opens(*args, **kwargs)

    return failing


@pytest.mark.parametrize(
    "error",
    [
        lmdb.ReadonlyError("Read-only file system"),
        lmdb.DiskError("No space left on device"),
        lmdb.Error("Permission denied"),
        lmdb.ReadersFullError("too many"),
        PermissionError("not yours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_worker_that_can_not_open_the_file_has_its_memory(
    worker: Worked,
    source: Source,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("litellm_plugin.cache.shared.lmdb.open", failing(error, error))
    one, other = worker(), worker()
    for each in (one, other):
        assert [read(each, source), read(each, source)] == ["first"] * 2
    assert source.reads == 2
    with one.writing("s"):
        source.value = "second"
    assert [read(one, source), read(other, source)] == ["second"] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    for key in ("k0", "k1"):  # it is tried again, and once more
        monkeypatch.setattr(one.store._file, "_again_at", 0.0)
        read(one, source, key)
    assert read(other, Source("unread"), "k1") == "second"
    assert len(caplog.records) == 1


def test_a_worker_whose_folder_is_gone_has_its_memory(
    worker: Worked, folder: Path, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    one = worker()
    read(one, source)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    for value in ("first", "second"):
        assert [read(one, source), read(one, source)] == [value] * 2
        with one.writing("s"):
            source.value = "second"
    assert len(caplog.records) == 1


def test_a_worker_that_hangs_while_it_writes_stops_nobody(
    worker: Worked, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "PATIENCE", 0.05)
    one, other = worker(), worker()
    with one.store._memory.host.alone("write snapshots"):
        assert [read(one, source), read(one, source), read(other, source)] == ["first"] * 3
        assert source.reads == 2
    read(one, source, "k2")
    assert read(other, Source("unread"), "k2") == "first"


def test_more_readers_than_there_is_room_for_ask_themselves(
    worker: Worked, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "MAX_READERS", 2)
    one, other = worker(), worker()
    read(one, source)
    opened = one.store._file._opened
    assert opened is not None
    reading = [opened.environment.begin() for _ in range(2)]
    assert read(other, source) == "first"
    assert source.reads == 2
    while reading:
        reading.pop().abort()
    assert read(worker(), source) == "first"
    assert source.reads == 2


def test_without_the_cache_there_is_no_file(
    open_world: Worlds, settings: Settings, tmp_path: Path
) -> None:
    for seconds, files in ((0.0, 0), (30.0, 1)):
        world = open_world(caching(settings, seconds))
        world.people(bob=())
        for _ in range(2):
            assert world.ask("bob", "GET", "/models").status_code == 200
        assert len(list(tmp_path.rglob("*.lmdb"))) == files


def test_memory_of_a_single_process_is_no_file(clock: Clock) -> None:
    with pytest.raises(ValueError, match="inherit"):
        SharedStore(MemoryStore(HostShared(None)), SEAL, clock)
