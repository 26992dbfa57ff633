"""LiteLLM's version: which are supported, and which one answers."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable

from litellm_plugin.clients import deadline
from litellm_plugin.errors import UpstreamError, UsageUnavailable

log = logging.getLogger(__name__)

OLDEST = "1.81.14"  # before it, daily activity ignores user_id and tells of everybody's usage
KEPT = 300.0  # seconds
PATIENCE = 30.0  # seconds to wait for another request's question, where no deadline is sooner
UNKNOWN_KEPT = 60.0  # seconds until an unknown version is asked for again

_NUMBERS = re.compile(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", re.ASCII)


def is_too_old(version: str) -> bool | None:
    """Tell whether a version is older than :data:`OLDEST`; None for what is no version.

    Args:
        version: Such as ``1.81.14``, ``1.81.14.rc1``, ``1.81.14-stable``, ``v1.82.0``: only the
            first three numbers count.
    """
    numbers = _numbers(version)
    return None if numbers is None else numbers < (_numbers(OLDEST) or ())


def _numbers(version: str) -> tuple[int, ...] | None:
    found = _NUMBERS.match(version)
    return tuple(int(number or 0) for number in found.groups()) if found else None


class KnownVersion:
    """The version of the LiteLLM that answers, asked for once in :data:`KEPT` seconds.

    Requests of all threads share it. While LiteLLM does not tell, the version it told last
    goes on counting.

    Args:
        ask: Asks LiteLLM; returns None where it does not tell, and may raise UpstreamError.
        timer: Tells seconds, from any start.
    """

    def __init__(
        self, ask: Callable[[], str | None], timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._timer = timer
        self._lock = threading.Lock()
        self._version: str | None = None
        self._until = float("-inf")

    def refuse_too_old(self) -> None:
        """Refuse to ask a LiteLLM for somebody's usage that would tell everybody's.

        A version that is unknown is allowed, with a warning in the log.

        Raises:
            UsageUnavailable: LiteLLM is older than :data:`OLDEST`.
        """
        # A request waits for another one's question as long as its own deadline allows.
        patience = min(max(deadline.left(), 0), PATIENCE)
        if self._timer() >= self._until and self._lock.acquire(timeout=patience):
            try:
                if self._timer() >= self._until:
                    self._learn()
            finally:
                self._lock.release()
        version = self._version
        if version is not None and is_too_old(version):
            raise UsageUnavailable(
                f"LiteLLM {version} can't tell one person's usage from everybody's. "
                f"Update LiteLLM to {OLDEST} or newer."
            )

    def _learn(self) -> None:
        try:
            version = self._ask()
        except UpstreamError as exc:
            log.debug("LiteLLM's version can't be asked for: %s", exc)
            version = None
        if version is not None and is_too_old(version) is not None:
            self._version, kept = version, KEPT
        else:
            kept = UNKNOWN_KEPT
            log.warning(
                "LiteLLM's version is unknown (%s); usage is told on the assumption that it is "
                "%s or newer. litellm-plugin doctor looks closer",
                version or self._version or "not told",
                OLDEST,
            )
        self._until = self._timer() + kept
