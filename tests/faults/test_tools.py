"""Tool keys, while workers are killed, clients hang up and LiteLLM hangs."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from flask import Flask

from litellm_plugin.sandbox.store import token_of
from litellm_plugin.shapes import BRIDGE_KEY
from tests.faults.rig import TOTAL, Rig, running, serving
from tests.faults.test_rotation import at
from tests.tokens import TokenFactory

pytestmark = pytest.mark.faults

ALICE = "alice@example.com"


@dataclass(frozen=True)
class Realm:
    """The service, and a token of Keycloak for alice."""

    rig: Rig
    token: str


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    tokens, app = TokenFactory(), Flask("realm")
    app.add_url_rule("/<path:_>", "keys", lambda _: {"keys": [tokens.keycloak_key.jwk()]})
    with serving(app) as port:
        issuer = f"http://127.0.0.1:{port}/realms/rig"
        bridge = {"enabled": True, "issuer": issuer, "keys": {"perTool": []}}
        folder = tmp_path_factory.mktemp("tools")
        with running(folder, over={"litellm": {"bridge": bridge}}) as rig:
            token = tokens.keycloak(
                iss=issuer, preferred_username="alice", email=ALICE, exp=int(time.time()) + 3600
            )
            yield Realm(rig, token)


@dataclass
class Laptop:
    """A machine of alice's, whose tool has a key."""

    realm: Realm
    name: str = field(default_factory=lambda: f"laptop-{os.urandom(4).hex()}")

    def __post_init__(self) -> None:
        answer = self.ask()
        assert answer.status_code == 200, answer.text
        self.old = token_of(answer.json()["key"])
        assert self.tokens() == {self.old}

    @property
    def body(self) -> dict[str, str]:
        return {"tool": "claude-code", "machine": self.name}

    def tokens(self) -> set[str]:
        """Return the hashes of the machine's keys at LiteLLM."""
        rows = list(self.realm.rig.litellm_stand_in.store.keys.values())
        return {row["token"] for row in rows if row["metadata"].get(BRIDGE_KEY) == self.body}

    def ask(self) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.realm.token}"}
        with requests.Session() as session:
            session.trust_env = False
            url = f"{self.realm.rig.url}/bridge/keys"
            return session.post(url, json=self.body, headers=headers, timeout=20)

    def renews(self) -> None:
        """Ask for a key, of which one must be left."""
        answer = self.ask()
        assert answer.status_code == 200, answer.text
        new = token_of(answer.json()["key"])
        assert self.realm.rig.settled(lambda: self.tokens() == {new})


@pytest.mark.parametrize("acted", [False, True])
@pytest.mark.parametrize("path", ["/key/generate", "/key/delete"])
def test_a_worker_that_is_killed_leaves_a_key_that_works(
    realm: Realm, path: str, acted: bool
) -> None:
    laptop, there, rig = Laptop(realm), threading.Event(), realm.rig
    rig.litellm.spoil(at(path, 1, acted=acted, there=there))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(laptop.ask)
        assert there.wait(10)
        os.kill(rig.worker, signal.SIGKILL)
        if path == "/key/generate":
            assert isinstance(answer.exception(), requests.ConnectionError)
            known = laptop.old
        else:  # the answer was out before the old key was touched
            known = token_of(answer.result().json()["key"])
    rig.litellm.mend()

    assert known in laptop.tokens()
    assert len(laptop.tokens()) <= 2
    laptop.renews()  # served by the next worker


@pytest.mark.parametrize("acted", [False, True])
def test_litellm_hangs_when_it_makes_the_key(realm: Realm, acted: bool) -> None:
    laptop, there = Laptop(realm), threading.Event()
    realm.rig.litellm.spoil(at("/key/generate", 1, acted=acted, there=there))
    answer = laptop.ask()
    assert answer.status_code == 500
    realm.rig.litellm.mend()
    assert laptop.old in laptop.tokens()
    laptop.renews()


@pytest.mark.parametrize("acted", [False, True])
def test_litellm_hangs_when_it_deletes_the_old_key(realm: Realm, acted: bool) -> None:
    laptop, there = Laptop(realm), threading.Event()
    realm.rig.litellm.spoil(at("/key/delete", 1, acted=acted, there=there))
    began = time.monotonic()
    answer = laptop.ask()
    assert answer.status_code == 200
    assert time.monotonic() - began < TOTAL
    assert there.wait(10)
    realm.rig.litellm.mend()
    assert token_of(answer.json()["key"]) in laptop.tokens()
    laptop.renews()


def test_a_client_that_hangs_up_keeps_its_key(realm: Realm) -> None:
    laptop = Laptop(realm)
    with realm.rig.held("/bridge/keys", laptop.body, realm.token) as (client, goes_on):
        client.shutdown(socket.SHUT_RDWR)
        goes_on.set()
    assert realm.rig.settled(lambda: laptop.tokens() == {laptop.old})


def test_of_many_requests_at_once_one_key_is_left(realm: Realm) -> None:
    laptop = Laptop(realm)
    with ThreadPoolExecutor(8) as pool:
        answers: list[Any] = [each.result() for each in [pool.submit(laptop.ask) for _ in range(8)]]
    assert [answer.status_code for answer in answers] == [200] * 8
    assert realm.rig.settled(lambda: len(laptop.tokens()) == 1)
    assert laptop.tokens() < {token_of(answer.json()["key"]) for answer in answers}
