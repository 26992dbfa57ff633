"""Workers of one host that want to read the same, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from litellm_plugin.cache.host import HostShared
from litellm_plugin.cache.store import Generations, Turn

# Seconds to wait for another worker's read. With litellm.service.timeouts.total (30) behind it,
# an upstream that is slow for everybody is still answered for before a reverse proxy gives up
# (nginx after 60).
PATIENCE = 10.0

_MOST_NAMES = 10_000


class Queue:
    """Lets others wait while one of them reads what all can then take from the store.

    Args:
        host: The locks; one whose holder dies is free.
    """

    def __init__(self, host: HostShared) -> None:
        self._host = host
        self._unshared: set[str] = set()

    def note(self, key: str, *, shared: bool) -> None:
        """Note whether what was read is in the store for all.

        What is not is read by each for itself, and nobody waits in vain for it again.
        """
        if shared:
            self._unshared.discard(key)
            return
        if len(self._unshared) >= _MOST_NAMES:
            self._unshared.clear()
        self._unshared.add(key)

    @contextmanager
    def turn(
        self, key: str, generations: Generations, *, look_anyway: bool = False
    ) -> Iterator[Turn]:
        """Wait until nobody else reads ``key``, and let others wait.

        Args:
            key: What is to be read.
            generations: Those its reader knows; whoever knows others is not waited for.
            look_anyway: Whether it costs little to look again where nobody was waited for: they
                may have been through just before.
        """
        if key in self._unshared:
            yield Turn(look_again=False, waited=False)
            return
        with self._host.alone(f"read:{generations}:{key}", PATIENCE) as hold:
            yield Turn(look_again=look_anyway or hold.waited, waited=hold.waited)
