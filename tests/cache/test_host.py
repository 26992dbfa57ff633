"""Processes and threads agree on generations and locks."""

from __future__ import annotations

import multiprocessing
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from litellm_plugin.cache import host
from litellm_plugin.cache.host import HostShared

PROCESSES = multiprocessing.get_context("fork")
TIMES = 200

# The children use nothing that a thread of the parent may have held.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def _count(shared: HostShared) -> None:
    for _ in range(TIMES):
        shared.bump(("s",))


@pytest.mark.parametrize("named", [True, False])
def test_no_count_is_lost_between_processes_and_threads(tmp_path: Path, *, named: bool) -> None:
    shared = HostShared(tmp_path / "shared" if named else None)
    children = [PROCESSES.Process(target=_count, args=(shared,)) for _ in range(2)]
    for child in children:
        child.start()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_count, [shared] * 2))
    for child in children:
        child.join(20)
    assert shared.generations(("s",)) == (4 * TIMES,)


def test_processes_that_share_nothing_but_the_name_agree(tmp_path: Path) -> None:
    one, other = HostShared(tmp_path / "shared"), HostShared(tmp_path / "shared")
    one.bump(("a", "b"))
    other.bump(("b",))
    assert one.generations(("a", "b", "c")) == other.generations(("a", "b", "c")) == (1, 2, 0)


def test_a_lock_is_held_by_one_thread_at_a_time(tmp_path: Path) -> None:
    shared = HostShared(tmp_path / "shared")
    inside, most = 0, 0
    guard = threading.Lock()

    def visit(_: int) -> None:
        nonlocal inside, most
        with shared.alone("user"):
            with guard:
                inside += 1
                most = max(most, inside)
            shared.bump(("user",))  # whoever holds it may count
            with guard:
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(50)))
    assert (most, shared.generations(("user",))) == (1, (50,))


def test_a_lock_keeps_other_processes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, done = PROCESSES.Event(), PROCESSES.Event()

    def hold() -> None:
        with HostShared(tmp_path / "shared").alone("user"):
            held.set()
            done.wait(20)

    child = PROCESSES.Process(target=hold)
    child.start()
    assert held.wait(20)
    shared = HostShared(tmp_path / "shared")
    monkeypatch.setattr(host, "PATIENCE", 0.05)
    with shared.alone("user"):  # in vain, and goes on
        pass
    monkeypatch.setattr(host, "PATIENCE", 20)
    done.set()
    with shared.alone("user"):
        child.join(20)
    assert child.exitcode == 0


def test_the_shared_file_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    HostShared.of_user("x").bump(("s",))
    assert HostShared.of_user("x").generations(("s",)) == (1,)
    assert HostShared.of_user("y").generations(("s",)) == (0,)
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    folder.chmod(0o777)
    assert HostShared.of_user("x").generations(("s",)) == (0,)  # not that file
    assert str(os.geteuid()) in caplog.text
