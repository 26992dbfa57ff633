"""Stand-ins for time and for the hosts that publish keys; files of keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from litellm_plugin.config.settings import StaticPluginKey
from litellm_plugin.errors import BackstageUnavailable
from tests.tokens import SigningKey

NOW = 1_800_000_000


def numbered(_: object) -> str:
    """Name a test's case by its number: signatures differ from run to run."""
    return "case"


class Clock:
    """A clock that stands still unless a test moves it."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Web:
    """Documents by URL, and which of them were asked for; others can't be had."""

    def __init__(self, documents: Mapping[str, Any] | None = None) -> None:
        self.documents: dict[str, Any] = dict(documents or {})
        self.asked: list[str] = []
        self.before: Callable[[], object] = lambda: None

    def __call__(self, url: str) -> Any:
        self.asked.append(url)
        self.before()
        if url not in self.documents:
            raise BackstageUnavailable("Backstage answered 404")
        return self.documents[url]


def pem_files(folder: Path, key: SigningKey) -> StaticPluginKey:
    """Write both halves of a key to ``folder``."""
    public, private = folder / f"{key.kid}.pub.pem", folder / f"{key.kid}.pem"
    public.write_bytes(key.public_pem())
    private.write_bytes(key.private_pem())
    return StaticPluginKey(key.kid, public, private, key.alg)
