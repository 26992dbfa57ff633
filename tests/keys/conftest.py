"""What tests of keys share: the settings of the service that makes keys, and a world for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.config.settings import KeyGeneration, KeyPolicy, Settings
from litellm_plugin.keys import undelivered
from tests.cache.world import World
from tests.tokens import TokenFactory

MakeWorld = Callable[..., World]


@pytest.fixture
def key_policy() -> KeyPolicy:
    return KeyPolicy()


@pytest.fixture
def key_generation() -> KeyGeneration:
    return KeyGeneration()


@pytest.fixture
def make_world(
    settings: Settings,
    key_policy: KeyPolicy,
    key_generation: KeyGeneration,
    tokens: TokenFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MakeWorld]:
    """Makes a world with bob, who has visited, and alice: ``make_world(workers=2, bridge=...)``."""
    monkeypatch.setattr(undelivered, "PAUSES", (0.0, 0.0))
    service = replace(settings.service, circuit_breaker=True, cache_seconds=60.0)
    limits: dict[str, Any] = {"key_policy": key_policy, "key_generation": key_generation}

    def make(workers: int = 1, **changed: Any) -> World:
        changed_settings = replace(settings, service=service, **limits, **changed)
        world = World(changed_settings, tokens, tmp_path, monkeypatch, workers)
        world.people(bob=(), alice=())
        world.get("bob", "/user/info")
        world.litellm.stand_in.store.keys.clear()
        return world

    yield make
    wait_for_the_watcher()


def wait_for_the_watcher() -> None:
    """Wait until no undelivered key is looked for."""
    for thread in threading.enumerate():
        if thread.name == "undelivered-keys":
            thread.join(60)
            assert not thread.is_alive()
