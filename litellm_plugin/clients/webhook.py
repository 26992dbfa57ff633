"""Sends events to a webhook, signed as https://www.standardwebhooks.com specifies."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

from litellm_plugin.clients.http import NoAnswerError, Upstream
from litellm_plugin.clock import Clock


class WebhookFailed(Exception):
    """The webhook did not take an event; the message says why."""


class Webhook:
    """A receiver of events.

    Args:
        upstream: Sends the requests.
        url: Where events are sent by POST.
        secret: ``whsec_`` and the base64 of the bytes that sign.
        now: The present time.
    """

    def __init__(self, upstream: Upstream, url: str, secret: str, now: Clock) -> None:
        self._upstream = upstream
        self._url = url
        self._secret = base64.b64decode(secret.removeprefix("whsec_"))
        self._now = now

    def send(self, event_id: str, event: dict[str, Any]) -> None:
        """Send an event.

        Args:
            event_id: Stays the same when an event is sent again, so that receivers can ignore it.
            event: ``type`` and ``data``; the time is added.

        Raises:
            WebhookFailed: The answer was not 2xx, or there was none.
        """
        now = self._now()
        body = {"type": event["type"], "timestamp": now.isoformat(), "data": event["data"]}
        content, time = json.dumps(body).encode(), str(int(now.timestamp()))
        signed = hmac.digest(self._secret, f"{event_id}.{time}.".encode() + content, "sha256")
        headers = {
            "Content-Type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": time,
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }
        try:
            answer = self._upstream.request("POST", self._url, body=content, headers=headers)
        except NoAnswerError as exc:
            raise WebhookFailed(str(exc)) from exc
        if not answer.ok:
            raise WebhookFailed(f"{self._upstream.name} answered {answer.status}")
