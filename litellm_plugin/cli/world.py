"""The plugin for looking only, and the world as ``doctor`` sees it through it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from litellm_plugin.clients.http import Answer, NoAnswerError, Upstream
from litellm_plugin.config.settings import Cache, RateLimits, Settings
from litellm_plugin.errors import PluginError
from litellm_plugin.identity.jwt import PrivateKey
from litellm_plugin.identity.signing import KeyStoreError, PluginKeys
from litellm_plugin.plugin import Plugin, build, upstream

T = TypeVar("T")


def undisturbed(settings: Settings) -> Settings:
    """Return settings under which a look leaves nothing behind, and nothing old is seen."""
    service = replace(
        settings.service,
        cache_seconds=0.0,
        rate_limits=RateLimits(enabled=False),
        circuit_breaker=False,
    )
    return replace(settings, service=service, cache=Cache())


def unheard_plugin(settings: Settings, keys: PluginKeys | None = None) -> Plugin:
    """Return a plugin that leaves nothing behind, not even its key.

    Args:
        settings: What the service was told.
        keys: To sign with; by default those that there are, else a key of this moment,
            which nobody will believe.
    """
    if keys is None:
        with suppress(KeyStoreError):
            keys = PluginKeys.existing(settings)
    signing = keys or PluginKeys(PrivateKey.generate())
    return build(undisturbed(settings), plugin_keys=signing)


class World:
    """What the checks share. Safe to share between threads.

    Args:
        settings: What the service was told.
        warnings: What was odd about the configuration.
        url: Where the service is from outside, through the ingress, if that is to be looked at.
        user_token: A Backstage user's token to look through it with.

    Attributes:
        plugin: It asks as the service asks, and leaves nothing behind.
        keys: The plugin key that there is; None: none, or see ``key_fault``.
        key_fault: Why the plugin key can't be used.
        clocks: By upstream, how many seconds its clock is ahead of this host's, by the ``Date``
            of its answer to the first look at it.
    """

    def __init__(
        self,
        settings: Settings,
        warnings: list[str],
        url: str | None = None,
        user_token: str | None = None,
    ) -> None:
        self.settings = settings
        self.warnings = warnings
        self.url = url
        self.user_token = user_token
        self.keys: PluginKeys | None = None
        self.key_fault: str | None = None
        try:
            self.keys = PluginKeys.existing(settings)
        except KeyStoreError as exc:
            self.key_fault = str(exc)
        self.plugin = unheard_plugin(settings, self.keys)
        self.clocks: dict[str, float] = {}
        self._upstreams = {
            name: upstream(settings, name, setting)
            for name, setting in (
                ("LiteLLM", "litellm.baseUrl"),
                ("Backstage", "discovery"),
                ("the ingress", "--url"),
            )
        }
        self._lock = threading.RLock()
        self._once: dict[str, Any] = {}

    def look(
        self,
        name: str,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        tells_time: bool = False,
    ) -> Answer:
        """Ask ``LiteLLM``, ``Backstage`` or ``the ingress``, without credentials unless given.

        Args:
            name: Which of them; the way there is set up as for it.
            url: Of it, or of what it leads to, such as an issuer or this service itself.
            method: Such as GET.
            headers: Beside those that are always sent.
            body: To be sent as JSON.
            tells_time: Whether it is the host of that name that answers, so that its clock is
                seen.

        Raises:
            NoAnswerError: There was no answer.
        """
        way: Upstream = self._upstreams[name]
        answer = way.request(method, url, headers=headers, body=body)
        ahead = _ahead(answer, time.time()) if tells_time else None
        if ahead is not None:
            self.clocks[name] = ahead
        return answer

    def once(self, key: str, ask: Callable[[], T]) -> T:
        """Return what ``ask`` gave when ``key`` was first wanted, or raise what it raised then."""
        with self._lock:
            if key not in self._once:
                try:
                    self._once[key] = (ask(), None)
                except (PluginError, NoAnswerError) as exc:
                    self._once[key] = (None, exc)
            value, error = self._once[key]
        if error is not None:
            raise error
        found: T = value
        return found


def _ahead(answer: Answer, now: float) -> float | None:
    try:
        date = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return None
    # The header has whole seconds, cut off.
    return date.replace(tzinfo=date.tzinfo or UTC).timestamp() + 0.5 - now
