"""How often somebody may: changes by each caller, tokens that do not hold from each address."""

from __future__ import annotations

from litellm_plugin.cache.counters import Counters
from litellm_plugin.config.settings import RateLimits as Rates
from litellm_plugin.errors import TooManyRequests

_WRITES, _SERVICE_WRITES, _FAILED_TOKENS = "writes", "service-writes", "failed-tokens"


class RateLimits:
    """Counts, and refuses.

    Args:
        rates: ``litellm.service.rateLimits``.
        counters: Where it is counted; None: nowhere.
    """

    def __init__(self, rates: Rates, counters: Counters | None) -> None:
        self._rates = rates
        self._counters = counters

    def write(self, who: str, *, service: bool) -> None:
        """Count a change.

        Args:
            who: Whose; an entity ref, a subject, or what else names a caller for good.
            service: Whether it is a service, which speaks for many.

        Raises:
            TooManyRequests: It is one too many.
        """
        if self._counters is None:
            return
        rate = self._rates.service_writes if service else self._rates.writes
        wait = self._counters.hit(rate, _SERVICE_WRITES if service else _WRITES, who)
        if wait is not None:
            raise TooManyRequests("Too many changes in a short time", retry_after=wait)

    def failed_token(self, network: str) -> None:
        """Count a token that does not hold.

        Args:
            network: Where it came from.

        Raises:
            TooManyRequests: It is one too many.
        """
        if self._counters is None:
            return
        wait = self._counters.hit(self._rates.failed_tokens, _FAILED_TOKENS, network)
        if wait is not None:
            raise TooManyRequests("Too many tokens that do not hold", retry_after=wait)

    def suspects(self, network: str) -> bool:
        """Tell whether too many tokens from there did not hold; costs a look into a dictionary."""
        if self._counters is None:
            return False
        return self._counters.over(_FAILED_TOKENS, network) is not None
