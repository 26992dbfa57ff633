"""Two writes on one team or one key, in step: none is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from litellm_plugin.cache.cache import Cache
from tests import pairs
from tests.fakes import Asked, Reply
from tests.fakes.network import NOTHING
from tests.pairs import Write
from tests.rig import Rig
from tests.standin import TEAM_ADMINS

LONG = 60  # seconds; nobody waits as long, unless the test is about to fail


class Step:
    """Holds the first write of two requests back until both have read all they read before.

    A request that waits for a lock has got as far as it can.
    """

    def __init__(self) -> None:
        self._both = threading.Condition()
        self._ready: set[int] = set()

    def begin(self) -> None:
        with self._both:
            self._ready.clear()

    def ready(self) -> None:
        """Note that the request of this thread reads nothing more before it writes."""
        with self._both:
            self._ready.add(threading.get_ident())
            self._both.notify_all()

    def wait(self) -> None:
        """Wait until the other request is ready too."""
        self.ready()
        with self._both:
            self._both.wait_for(lambda: len(self._ready) > 1, LONG)


@pytest.fixture
def step(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Step:
    step = Step()
    answer, lock = rig.litellm.answer, Cache.lock
    one_at_a_time = threading.Lock()

    def answer_in_step(asked: Asked) -> Reply:
        if asked.method != "GET":
            step.wait()
        with one_at_a_time:
            return answer(asked)

    @contextmanager
    def lock_in_step(cache: Cache, name: str, **options: bool) -> Iterator[bool]:
        step.ready()
        with lock(cache, name, **options) as held:
            yield held

    monkeypatch.setattr(rig.litellm, "answer", answer_in_step)
    monkeypatch.setattr(Cache, "lock", lock_in_step)
    return step


@pytest.fixture
def rig(rig: Rig) -> Rig:
    pairs.furnish(rig.litellm.litellm)
    return rig


# All other pairs are sent to two workers, in tests/faults/test_two_workers.py.
@pytest.mark.parametrize("pair", pairs.SOME, ids=lambda pair: f"{pair[0]}+{pair[1]}")
def test_of_two_writes_at_once_none_is_lost(
    pair: tuple[Write, Write], rig: Rig, step: Step
) -> None:
    target = pairs.target(rig.litellm.litellm, pair[0], TEAM_ADMINS)
    step.begin()

    def ask(write: Write) -> int:
        body = NOTHING if write.body is None else write.body
        answer = rig.ask("alice", write.method, target.path + write.path, json=body)
        step.ready()
        return answer.status_code

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, pair)
    assert list(pairs.faults(pair, (first, second), target.now())) == []
