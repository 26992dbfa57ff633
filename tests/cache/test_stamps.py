"""A write in one process is seen in all that were forked from the same."""

from __future__ import annotations

import multiprocessing

import pytest

from litellm_plugin.cache.stamps import SLOTS, StampTable

PROCESSES = multiprocessing.get_context("fork")

# The children use nothing that a thread of the parent may have held.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def test_a_write_changes_the_stamps_of_its_tags_and_no_others() -> None:
    table = StampTable()
    tags = tuple(map(str, range(100)))
    before = table.of(tags)
    table.renew(tags[:50])
    now = table.of(tags)
    assert all(old != new for old, new in zip(before[:50], now[:50], strict=True))
    slots = {hash(tag) % SLOTS for tag in tags[:50]}
    for tag, old, new in zip(tags[50:], before[50:], now[50:], strict=True):
        assert (old == new) or hash(tag) % SLOTS in slots


def test_no_stamp_comes_twice() -> None:
    table = StampTable()
    seen = set()
    for _ in range(1000):
        table.renew(("tag",))
        seen.add(table.of(("tag",)))
    assert len(seen) == 1000


def test_forked_processes_see_each_others_writes() -> None:
    table = StampTable()
    before = table.of(("a", "b"))
    writers = [PROCESSES.Process(target=table.renew, args=((tag,),)) for tag in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    assert all(old != new for old, new in zip(before, table.of(("a", "b")), strict=True))
