"""Check of the channels of notices; nothing is sent to a person."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from litellm_plugin.cli.checks import Result, failed, ok, skipped
from litellm_plugin.cli.checks.reasons import described
from litellm_plugin.cli.world import World

_WEBHOOK = "litellm.notifications.webhook.url"


def notifications(world: World) -> Result:
    """Check Backstage's notifications API and the webhook's host, if notices are enabled."""
    settings = world.settings.notifications
    if not settings.enabled:
        return skipped("litellm.notifications.enabled is false")
    results = []
    if settings.backstage:
        results.append(_backstage(world))
    if settings.webhook is not None:
        results.append(_host(settings.webhook.url))
    if not results:
        return failed(
            "litellm.notifications.backstage is false, and there is no webhook: notices have "
            "nowhere to go.",
            "Set backstage: true, or configure litellm.notifications.webhook.",
        )
    together = ok("; ".join(result.found for result in results))
    return next((result for result in results if result.remedy), together)


def _backstage(world: World) -> Result:
    url = world.settings.discovery.base_url("notifications")
    static = world.settings.service.backstage_token
    token = world.plugin_token("notifications") if static is None else static
    # A notification without recipient and title is refused, once the token is accepted.
    answer = world.request(
        "Backstage",
        f"{url}/notifications",
        method="POST",
        headers={"Authorization": f"Bearer {token}"},
        body={"payload": {}},
        setting="discovery.endpoints",
    )
    if answer.status == 400:
        return ok(f"{url} accepts our token")
    if answer.status in {401, 403} and static is not None:
        return failed(
            f"{url} refuses litellm.service.backstageToken ({answer.status}).",
            "Allow the plugin notifications in the token's accessRestrictions, of "
            "backend.auth.externalAccess in Backstage.",
        )
    if answer.status in {401, 403}:
        return failed(
            f"{url} refuses our plugin token ({answer.status}), and the catalog accepts it.",
            "If notifications is a backend of its own, add discovery.endpoints to its "
            "configuration.",
        )
    return failed(
        f"{url} is not Backstage's notifications API: {described(answer)}.",
        "Add @backstage/plugin-notifications-backend to Backstage, or set "
        "litellm.notifications.backstage: false and configure a webhook.",
    )


def _host(url: str) -> Result:
    parts = urlsplit(url)
    try:
        socket.getaddrinfo(parts.hostname, parts.port or parts.scheme)
    except (OSError, UnicodeError):  # the latter for a part of more than 63 characters
        return failed(
            f"{_WEBHOOK}: the name {parts.hostname} can't be resolved.",
            f"Correct {_WEBHOOK}, or this host's DNS.",
        )
    return ok(f"the webhook's host {parts.hostname} has an address")
