"""A plugin that only reads, and the context that the checks of ``doctor`` share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from litellm_plugin.cli.checks import CheckFailedError, failed
from litellm_plugin.cli.checks.reasons import origin_of, remedy, why
from litellm_plugin.clients.http import Answer, NoAnswerError, Upstream
from litellm_plugin.config.settings import Cache, RateLimits, Settings
from litellm_plugin.identity.jwt import PrivateKey
from litellm_plugin.identity.signing import KeyStoreError, PluginKeys
from litellm_plugin.plugin import Plugin, build, upstream


def _without_state(settings: Settings) -> Settings:
    """Return ``settings`` without cache, rate limits and circuit breakers."""
    service = replace(
        settings.service,
        cache_seconds=0.0,
        rate_limits=RateLimits(enabled=False),
        circuit_breaker=False,
    )
    return replace(settings, service=service, cache=Cache())


def read_only_plugin(settings: Settings, keys: PluginKeys | None = None) -> Plugin:
    """Return a plugin that caches nothing and does not write a signing key.

    Args:
        settings: The service's settings.
        keys: The signing keys. None: the service's, or a temporary key if there is none yet,
            with which Backstage refuses the plugin's tokens.
    """
    if keys is None:
        with suppress(KeyStoreError):
            keys = PluginKeys.existing(settings)
    signing = keys or PluginKeys(PrivateKey.generate())
    return build(_without_state(settings), plugin_keys=signing)


class World:
    """The context that all checks share. Thread-safe.

    Args:
        settings: The service's settings.
        warnings: Warnings about the configuration.
        url: The service's URL through the ingress; None: do not check the ingress.
        user_token: A Backstage user's token for requests through the ingress.

    Attributes:
        plugin: A plugin that only reads.
        keys: The service's signing key; None if there is none, or with ``key_fault``.
        key_fault: Why the signing key can't be used.
        clocks: For each upstream the seconds by which its clock is ahead of this host's,
            from the ``Date`` header of its first answer.
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
        self.plugin = read_only_plugin(settings, self.keys)
        self.clocks: dict[str, float] = {}
        self._upstreams = {
            name: upstream(settings, name, setting)
            for name, setting in (
                ("LiteLLM", "litellm.baseUrl"),
                ("Backstage", "discovery"),
                ("the ingress", "--url"),
            )
        }

    def request(
        self,
        name: str,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        tells_time: bool = False,
        setting: str | None = None,
    ) -> Answer:
        """Send a request, without credentials unless ``headers`` have them.

        Args:
            name: The client to use: ``LiteLLM``, ``Backstage`` or ``the ingress``.
            url: The URL; may be another host's, such as an issuer's.
            method: Such as GET.
            headers: Additional headers.
            body: Sent as JSON.
            tells_time: Whether the answer's ``Date`` is the clock of ``name``.
            setting: The key of the configuration that has the URL, for the remedy.

        Raises:
            CheckFailedError: There was no answer, and ``setting`` is given.
            NoAnswerError: There was no answer.
        """
        way: Upstream = self._upstreams[name]
        try:
            answer = way.request(method, url, headers=headers, body=body)
        except NoAnswerError as exc:
            if setting is None:
                raise
            found = f"{origin_of(url)}: {why(exc)}."
            raise CheckFailedError(failed(found, remedy(exc, setting))) from exc
        ahead = _ahead(answer, time.time()) if tells_time else None
        if ahead is not None:
            self.clocks[name] = ahead
        return answer


def _ahead(answer: Answer, now: float) -> float | None:
    try:
        date = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return None
    # The header is rounded down to a second.
    return date.replace(tzinfo=date.tzinfo or UTC).timestamp() + 0.5 - now
