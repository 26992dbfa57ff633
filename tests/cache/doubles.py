"""Stand-ins for what is read, and for who reads it."""

from __future__ import annotations

from typing import Any

from litellm_plugin.cache.cache import Cache
from litellm_plugin.cache.stamps import StampTable
from tests.identity.doubles import Clock


class Source:
    """Something to read, which counts how often it is.

    Attributes:
        value: What is read.
        reads: How often it was.
        fault: Raised instead, if there is one.
    """

    def __init__(self, value: Any = "first") -> None:
        self.value = value
        self.reads = 0
        self.fault: Exception | None = None

    def __call__(self) -> Any:
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        return self.value


class Worker(Cache):
    """One process, with a memory of its own: 30 seconds, and 60 more as a stand-in."""

    def __init__(self, stamps: StampTable, tier: Any, clock: Clock) -> None:
        super().__init__(30, 60, stamps=stamps, tier=tier, clock=clock)
        self.tier = tier
