"""Rate limits: of changes by each caller, and of invalid tokens from each network."""

from __future__ import annotations

from litellm_plugin.cache.counters import Counters
from litellm_plugin.config.settings import Rate
from litellm_plugin.config.settings import RateLimits as Rates
from litellm_plugin.errors import TooManyRequests

_FAILED_TOKENS = "failed-tokens"


class RateLimits:
    """Counts requests and refuses those beyond a limit; nothing without ``counters``."""

    def __init__(self, rates: Rates, counters: Counters | None) -> None:
        self._rates = rates
        self._counters = counters

    def write(self, caller: str, *, service: bool) -> None:
        """Count a change by a user (an entity ref) or a service (a subject).

        Raises:
            TooManyRequests: The limit is exceeded.
        """
        rate = self._rates.service_writes if service else self._rates.writes
        kind = "service-writes" if service else "writes"
        self._count(rate, kind, caller, "Too many changes in a short time")

    def failed_token(self, network: str) -> None:
        """Count an invalid token from a network.

        Raises:
            TooManyRequests: The limit is exceeded.
        """
        self._count(self._rates.failed_tokens, _FAILED_TOKENS, network, "Too many invalid tokens")

    def suspects(self, network: str) -> bool:
        """Tell whether a network has exceeded the limit of invalid tokens; reads memory only."""
        counters = self._counters
        return counters is not None and counters.over(_FAILED_TOKENS, network) is not None

    def _count(self, rate: Rate, kind: str, name: str, message: str) -> None:
        if self._counters and (wait := self._counters.hit(rate, kind, name)) is not None:
            raise TooManyRequests(message, retry_after=wait)
