"""Where snapshots and their generations are kept."""

from __future__ import annotations

import math
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


@dataclass(frozen=True, slots=True)
class Turn:
    """How somebody came to read what others may have been reading.

    Attributes:
        look_again: Whether the store may have it by now.
        waited: Whether somebody else was reading it. If the store does not have it all the
            same, they have failed, or are slow: no reason to let others wait once more.
    """

    look_again: bool
    waited: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """How somebody came by a lock.

    Attributes:
        held: Whether they have it; not, where it could not be had in time.
        waited: Whether somebody else had it when they came.
    """

    held: bool
    waited: bool


class Store(Protocol):
    """Keeps entries for a time, and counts how often each scope was written to.

    Every method may raise :class:`StoreUnavailableError`.
    """

    def look_up(
        self, key: str, scopes: tuple[str, ...], *, since: float = math.inf
    ) -> tuple[Entry | None, Generations]:
        """Return the entry of ``key``, and the present generations of ``scopes``.

        Args:
            key: What it was put under.
            scopes: What it depends on.
            since: Unix time, in seconds; an entry of this process that was read after that,
                and still counts, is good enough, even if others have a later one.
        """
        ...

    def put(self, key: str, entry: Entry, *, seconds: float, weight: int) -> None:
        """Keep ``entry`` for ``seconds``; ``weight`` is its size in rows."""
        ...

    def reading(self, key: str, generations: Generations) -> AbstractContextManager[Turn]:
        """Let others wait, where they would find ``key`` in the store afterwards.

        Whoever knows of a later write has later generations, and waits for nobody from
        before it. Nobody waits for long. Never raises StoreUnavailableError.
        """
        ...

    def generations(self, scopes: tuple[str, ...]) -> Generations:
        """Return the present generations of ``scopes``."""
        ...

    def alone(self, name: str) -> AbstractContextManager[Hold]:
        """Hold a lock that no other worker holds. Never raises StoreUnavailableError.

        It is a courtesy: who does not get it in time goes on without, and can tell.
        """
        ...

    def bump(self, scopes: tuple[str, ...]) -> None:
        """Begin a new generation of each scope: what was read before is stale."""
        ...
