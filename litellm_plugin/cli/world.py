"""A plugin that only reads, and the context that the checks of ``doctor`` share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from litellm_plugin.cli.checks import CheckEndedError, failed, skipped
from litellm_plugin.cli.checks.reasons import explained, origin_of
from litellm_plugin.clients.http import Answer, NoAnswerError, Upstream
from litellm_plugin.config.settings import Cache, RateLimits, Settings
from litellm_plugin.identity.jwt import PrivateKey
from litellm_plugin.identity.signing import KeyStoreError, PluginKeys, PluginTokens
from litellm_plugin.plugin import Plugin, build, upstream


def read_only_plugin(settings: Settings) -> Plugin:
    """Return a plugin without cache, rate limits and circuit breakers.

    It does not write a signing key. If there is none yet, its key is a temporary one, and
    Backstage refuses its tokens.
    """
    keys = None
    with suppress(KeyStoreError):
        keys = PluginKeys.existing(settings)
    service = replace(
        settings.service,
        cache_seconds=0.0,
        rate_limits=RateLimits(enabled=False),
        circuit_breaker=False,
    )
    return build(
        replace(settings, service=service, cache=Cache()),
        plugin_keys=keys or PluginKeys(PrivateKey.generate()),
    )


@dataclass
class World:
    """The context that all checks share. Thread-safe.

    Attributes:
        settings: The service's settings.
        warnings: Warnings about the configuration.
        url: The service's URL through the ingress; None: do not check the ingress.
        user_token: A Backstage user's token for requests through the ingress.
        plugin: A plugin that only reads.
        keys: The service's signing key; None if there is none, or with ``key_fault``.
        key_fault: Why the signing key can't be used.
        clocks: For each upstream the seconds by which its clock is ahead of this host's,
            from the ``Date`` header of its first answer.
    """

    settings: Settings
    warnings: list[str]
    url: str | None = None
    user_token: str | None = None
    keys: PluginKeys | None = field(default=None, init=False)
    key_fault: str | None = field(default=None, init=False)
    clocks: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        try:
            self.keys = PluginKeys.existing(self.settings)
        except KeyStoreError as exc:
            self.key_fault = str(exc)
        self.plugin = read_only_plugin(self.settings)
        self._upstreams: dict[str, Upstream] = {
            name: upstream(self.settings, name, setting)
            for name, setting in (
                ("LiteLLM", "litellm.baseUrl"),
                ("Backstage", "discovery"),
                ("the ingress", "--url"),
            )
        }

    def plugin_token(self, audience: str) -> str:
        """Return a token of this service for a plugin.

        Raises:
            CheckEndedError: There is no signing key, so that the check is skipped.
        """
        if self.keys is None:
            result = skipped("There is no plugin key on this host yet", "plugin-key")
            raise CheckEndedError(result)
        return PluginTokens(self.keys, self.settings.service.plugin_id).issue(audience)

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
            method: The HTTP method.
            headers: Additional headers.
            body: Sent as JSON.
            tells_time: Whether the answer's ``Date`` is the clock of ``name``.
            setting: The key of the configuration that has the URL, for the remedy.

        Raises:
            CheckEndedError: There was no answer, and ``setting`` is given.
            NoAnswerError: There was no answer.
        """
        try:
            answer = self._upstreams[name].request(method, url, headers=headers, body=body)
        except NoAnswerError as exc:
            if setting is None:
                raise
            reason, remedy = explained(exc, setting)
            raise CheckEndedError(failed(f"{origin_of(url)}: {reason}.", remedy)) from exc
        if tells_time:
            with suppress(ValueError):  # no date, or none that can be read
                date = parsedate_to_datetime(answer.headers.get("Date", ""))
                # The header is rounded down to a second.
                seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() + 0.5
                self.clocks[name] = seconds - time.time()
        return answer
