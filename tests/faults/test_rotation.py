"""A key is rotated while workers are killed, clients hang up and LiteLLM hangs."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from litellm_plugin.sandbox.store import token_of
from tests.faults import proxy
from tests.faults.rig import Rig, running

pytestmark = pytest.mark.faults

ALICE = "alice@example.com"
DAY = timedelta(days=1)
HANGING = 6.0  # seconds; the deadline of a request, which two tests wait for


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("rotation"), total=HANGING) as rig:
        yield rig


@dataclass
class Rotation:
    """A key of alice's, and requests to rotate it."""

    rig: Rig
    alias: str = field(default_factory=lambda: f"key-{os.urandom(4).hex()}")

    def __post_init__(self) -> None:
        made = self.rig.litellm_stand_in.key_generate(
            {"key_alias": self.alias, "user_id": ALICE, "duration": "30d"} | {"key_type": "llm_api"}
        )
        self.old = str(made["token_id"])
        self.before = dict(self.rows()[self.old])

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return LiteLLM's rows of the old key and of what has come of it, by hash."""
        rows = list(self.rig.litellm_stand_in.store.keys.values())
        return {
            row["token"]: row for row in rows if (row["key_alias"] or "").startswith(self.alias)
        }

    def ask(self) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.rig.token}", "Idempotency-Key": self.alias}
        url = f"{self.rig.url}/keys/{self.old}/rotate"
        with requests.Session() as session:
            session.trust_env = False
            return session.post(url, json={"grace": "24h"}, headers=headers, timeout=60)

    def is_complete(self) -> bool:
        """Tell whether there are two keys: one with the alias, and one that ends in a day."""
        (new,) = (token for token in self.rows() if token != self.old)
        ends = datetime.fromisoformat(self.rows()[self.old]["expires"]) - datetime.now(UTC)
        return self.rows()[new]["key_alias"] == self.alias and abs(ends - DAY) < DAY / 100


def at(path: str, number: int, *, acted: bool, there: threading.Event) -> proxy.Fault:
    """Return a fault: nothing comes of a path's call of that number, and of all later writes."""
    lock, seen = threading.Lock(), [0]

    def fault(exchange: proxy.Exchange) -> None:
        with lock:
            seen[0] += exchange.asked.target == path
            spoilt = exchange.asked.method != "GET" and seen[0] >= number
            first = spoilt and not there.is_set()
        if not spoilt:
            proxy.none(exchange)
            return
        if first and acted:
            exchange.forward()
        there.set()
        exchange.stay_silent()

    return fault


# Of LiteLLM's calls the one at which the worker is killed, whether LiteLLM has acted on that, and
# what a repeated request is answered. The first update records that the key is handed out.
KILLED = [
    ("/key/generate", 1, False, 200),
    ("/key/generate", 1, True, 200),
    ("/key/update", 1, False, 200),
    ("/key/update", 1, True, 409),
    ("/key/update", 2, False, 409),
    ("/key/update", 2, True, 409),
    ("/key/update", 3, False, 409),
    ("/key/update", 3, True, 409),
]


@pytest.mark.parametrize(("path", "number", "acted", "status"), KILLED)
def test_a_worker_that_is_killed_between_the_steps_leaves_a_key_that_works(
    rig: Rig, path: str, number: int, acted: bool, status: int
) -> None:
    rotation, there = Rotation(rig), threading.Event()
    rig.litellm.spoil(at(path, number, acted=acted, there=there))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(rotation.ask)
        assert there.wait(20)
        os.kill(rig.worker, signal.SIGKILL)
        assert isinstance(answer.exception(), requests.ConnectionError)
    rig.litellm.mend()

    assert rotation.rows()[rotation.old]["blocked"] is not True
    again = rotation.ask()  # served by the next worker
    assert again.status_code == status, again.text
    assert rotation.is_complete()


@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
def test_litellm_hangs_when_it_makes_the_key(rig: Rig, acted: bool) -> None:
    rotation, there = Rotation(rig), threading.Event()
    rig.litellm.spoil(at("/key/generate", 1, acted=acted, there=there))
    answer = rotation.ask()
    assert answer.status_code == 500
    rig.litellm.mend()

    assert rotation.rows()[rotation.old] == rotation.before
    again = rotation.ask()
    assert again.status_code == 200, again.text
    # If the first new key turns up after all, it is removed, and not this one.
    assert rig.settled(rotation.is_complete)
    assert token_of(again.json()["key"]) in rotation.rows()


def test_a_client_that_hangs_up_leaves_the_old_key_as_it_was(rig: Rig) -> None:
    rotation = Rotation(rig)
    with rig.held(f"/keys/{rotation.old}/rotate", {"grace": "0s"}) as (client, goes_on):
        client.shutdown(socket.SHUT_RDWR)
        goes_on.set()

    assert rig.settled(lambda: rotation.rows() == {rotation.old: rotation.before})


def test_of_many_requests_at_once_one_makes_a_key(rig: Rig) -> None:
    rotation = Rotation(rig)
    with ThreadPoolExecutor(8) as pool:
        answers = [each.result() for each in [pool.submit(rotation.ask) for _ in range(8)]]
    by_status = sorted(answer.status_code for answer in answers)
    assert by_status == [200] + [409] * 7, by_status
    assert rotation.is_complete()
