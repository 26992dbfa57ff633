"""Rate limits: of changes by each caller, and of invalid tokens from each network."""

from __future__ import annotations

from litellm_plugin.cache.counters import Counters
from litellm_plugin.config.settings import Rate
from litellm_plugin.config.settings import RateLimits as Rates
from litellm_plugin.errors import TooManyRequests

_WRITES, _SERVICE_WRITES, _FAILED_TOKENS = "writes", "service-writes", "failed-tokens"


class RateLimits:
    """Counts requests and refuses those beyond a limit.

    Args:
        rates: ``litellm.service.rateLimits``.
        counters: The counters; None where rate limits are off.
    """

    def __init__(self, rates: Rates, counters: Counters | None) -> None:
        self._rates = rates
        self._counters = counters

    def write(self, caller: str, *, service: bool) -> None:
        """Count a change.

        Args:
            caller: A stable name of the caller: an entity ref or a subject.
            service: Whether the caller is a service, which has a limit of its own.

        Raises:
            TooManyRequests: The limit is exceeded.
        """
        if service:
            rate, kind = self._rates.service_writes, _SERVICE_WRITES
        else:
            rate, kind = self._rates.writes, _WRITES
        self._count(rate, kind, caller, "Too many changes in a short time")

    def failed_token(self, network: str) -> None:
        """Count an invalid token.

        Args:
            network: The network that the request came from.

        Raises:
            TooManyRequests: The limit is exceeded.
        """
        rate = self._rates.failed_tokens
        self._count(rate, _FAILED_TOKENS, network, "Too many invalid tokens")

    def suspects(self, network: str) -> bool:
        """Tell whether a network has exceeded the limit of invalid tokens; reads memory only."""
        return (
            self._counters is not None and self._counters.over(_FAILED_TOKENS, network) is not None
        )

    def _count(self, rate: Rate, kind: str, name: str, message: str) -> None:
        wait = self._counters.hit(rate, kind, name) if self._counters is not None else None
        if wait is not None:
            raise TooManyRequests(message, retry_after=wait)
