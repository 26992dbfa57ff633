"""LiteLLM's version, and the oldest one that is supported."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

from litellm_plugin.errors import UpstreamError, UsageUnavailable

log = logging.getLogger(__name__)

OLDEST = "1.81.14"  # older ones ignore the user_id of daily activity, and return all users' usage
KEPT = 300.0  # TTL in seconds of a version
UNKNOWN_KEPT = 60.0  # TTL in seconds where the version is unknown

_NUMBERS = re.compile(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", re.ASCII)


def is_too_old(version: str) -> bool | None:
    """Tell whether a version is older than :data:`OLDEST`; None where the text is not a version.

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
    """LiteLLM's version, kept for :data:`KEPT` seconds. Safe to share between threads.

    While LiteLLM does not name its version, the last one that it named counts.

    Args:
        ask: Asks LiteLLM; returns None where the answer names no version, and may raise
            UpstreamError.
        timer: Returns a monotonic time in seconds.
    """

    def __init__(
        self, ask: Callable[[], str | None], timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._timer = timer
        self._version: str | None = None
        self._until = float("-inf")

    def refuse_too_old(self) -> None:
        """Refuse to read usage from a LiteLLM that would answer with all users' usage.

        An unknown version is allowed, with a warning in the log.

        Raises:
            UsageUnavailable: LiteLLM is older than :data:`OLDEST`.
        """
        if self._timer() >= self._until:  # concurrent requests may all ask, which costs little
            self._refresh()
        version = self._version
        if version is not None and is_too_old(version):
            raise UsageUnavailable(
                f"LiteLLM {version} would return the usage of all users instead of one user's. "
                f"Update LiteLLM to {OLDEST} or newer."
            )

    def _refresh(self) -> None:
        try:
            version = self._ask()
        except UpstreamError as exc:
            log.debug("LiteLLM's version can't be read: %s", exc)
            version = None
        if version is not None and is_too_old(version) is not None:
            self._version, kept = version, KEPT
        else:
            kept = UNKNOWN_KEPT
            log.warning(
                "LiteLLM's version is unknown (%s). It is assumed to be %s or newer, so that usage "
                "can be read; run litellm-plugin doctor to check it",
                version or self._version or "not named",
                OLDEST,
            )
        self._until = self._timer() + kept
