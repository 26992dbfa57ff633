"""Worlds of several workers, a clock, and something to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from litellm_plugin.config.settings import Settings
from tests.cache.doubles import Source
from tests.cache.turns import Turns
from tests.cache.world import World
from tests.identity.doubles import Clock
from tests.tokens import TokenFactory

Worlds = Callable[..., World]


@pytest.fixture
def open_world(tokens: TokenFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worlds:
    """Makes a world: ``open_world(caching(settings, 30), workers=2)``."""

    def open_world(settings: Settings, workers: int = 1, turns: Turns | None = None) -> World:
        return World(settings, tokens, tmp_path, monkeypatch, workers, turns)

    return open_world


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def source() -> Source:
    return Source()
