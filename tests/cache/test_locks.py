"""Locks keep out other threads and processes, and no longer than is waited for."""

from __future__ import annotations

import multiprocessing
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from litellm_plugin.cache.cache import Cache
from litellm_plugin.cache.locks import FileLocks
from litellm_plugin.clients import deadline

PROCESSES = multiprocessing.get_context("fork")
WAIT = 60  # seconds, at most

# The children use nothing that a thread of the parent may have held.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"litellm-plugin-{os.geteuid()}"


def test_a_lock_is_held_by_one_thread_at_a_time() -> None:
    workers = [FileLocks() for _ in range(2)]
    inside, most, visits = 0, 0, 0
    guard = threading.Lock()

    def visit(number: int) -> None:
        nonlocal inside, most, visits
        with workers[number % 2].hold("user", WAIT) as held:
            with guard:
                inside, visits = inside + 1, visits + held
                most = max(most, inside)
            with guard:
                inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(visit, range(20)))
    assert (most, visits) == (1, 20)


def test_a_lock_keeps_other_processes_out_until_its_holder_is_killed() -> None:
    held = PROCESSES.Event()

    def hold() -> None:
        with FileLocks().hold("user", WAIT):
            held.set()
            threading.Event().wait()

    child = PROCESSES.Process(target=hold)
    child.start()
    assert held.wait(WAIT)
    with FileLocks().hold("user", 0.05) as mine:
        assert not mine
    child.kill()
    child.join(WAIT)
    with FileLocks().hold("user", WAIT) as mine:
        assert mine


def test_a_lock_that_was_used_before_the_fork_is_of_use_after_it() -> None:
    locks, answer = FileLocks(), PROCESSES.Queue()
    with locks.hold("user", WAIT) as held:
        assert held

    def again() -> None:
        with locks.hold("user", WAIT) as held:
            answer.put(held)

    child = PROCESSES.Process(target=again)
    child.start()
    assert answer.get(timeout=WAIT) is True
    child.join(WAIT)


def test_a_thread_may_hold_the_same_lock_twice() -> None:
    locks = FileLocks()
    with locks.hold("user", WAIT) as first, locks.hold("user", 0.0) as second:
        assert (first, second) == (True, True)
    with FileLocks().hold("user", 0.0) as held:
        assert held


def test_a_lock_is_waited_for_no_longer_than_the_request_may_take() -> None:
    with FileLocks().hold("user", WAIT):
        deadline.begin(0.05)
        try:
            with Cache(3).lock("user") as held:
                assert not held
        finally:
            deadline.end()


def test_the_files_are_the_users_own(folder: Path) -> None:
    with FileLocks().hold("user", WAIT) as held:
        assert held
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_in_a_folder_that_others_can_use_no_lock_is_held(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with FileLocks().hold("user", WAIT) as held:
        assert not held
    assert "open to other users" in caplog.text
    assert list(folder.iterdir()) == []


def test_without_a_folder_no_lock_is_held(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with FileLocks().hold("user", WAIT) as held:
        assert not held
    assert "check TMPDIR" in caplog.text
