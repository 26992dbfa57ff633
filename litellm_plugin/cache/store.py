"""Where snapshots and their generations are kept."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

Generations = tuple[int, ...]


class StoreUnavailableError(Exception):
    """The store can't be asked; whoever asks does without.

    Attributes:
        known: As much of the generations as is known all the same; on a look-up only.
    """

    def __init__(self, message: str, *, known: Generations = ()) -> None:
        super().__init__(message)
        self.known = known


@dataclass(frozen=True, slots=True)
class Entry:
    """One remembered value.

    Attributes:
        value: What was read; JSON-like.
        generations: Those of its scopes when the reading began.
        read_at: Unix time, in seconds, at which the reading began.
    """

    value: Any
    generations: Generations
    read_at: float


class Store(Protocol):
    """Keeps entries for a time, and counts how often each scope was written to.

    Every method may raise :class:`StoreUnavailableError`.
    """

    def look_up(self, key: str, scopes: tuple[str, ...]) -> tuple[Entry | None, Generations]:
        """Return the entry of ``key``, and the present generations of ``scopes``."""
        ...

    def put(self, key: str, entry: Entry, *, seconds: float, weight: int) -> None:
        """Keep ``entry`` for ``seconds``; ``weight`` is its size in rows."""
        ...

    def generations(self, scopes: tuple[str, ...]) -> Generations:
        """Return the present generations of ``scopes``."""
        ...

    def alone(self, name: str) -> AbstractContextManager[object]:
        """Hold a lock that no other worker holds. Never raises StoreUnavailableError."""
        ...

    def bump(self, scopes: tuple[str, ...]) -> None:
        """Begin a new generation of each scope: what was read before is stale."""
        ...
