"""The application between a LiteLLM that keeps what it is told, and Backstage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.client import PluginClient
from tests.fakes import FakeBackstage, FakeKeycloak, Network
from tests.fakes.network import NOTHING
from tests.standin import furnished
from tests.tokens import TokenFactory

JWKS_PATH = "/.backstage/auth/v1/jwks.json"

# Somebody for each security scheme of the OpenAPI document, as the contract names callers.
CALLERS = {
    "user": "alice",
    "onBehalfOf": "obo:alice",
    "service": "plugin",
    "keycloak": "keycloak:"
    + json.dumps({"preferred_username": "alice", "email": "alice@example.com", "name": "Alice"}),
}


class Rig:
    """One application, and the hosts it asks, until the test ends.

    Attributes:
        app: The application.
        litellm: LiteLLM, furnished.
        backstage: Backstage, with the contract's people.
    """

    def __init__(self, app: Flask, tokens: TokenFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app = app
        self.litellm = furnished()
        self.backstage = FakeBackstage(tokens)
        self._tokens = tokens
        self._credentials: dict[str, dict[str, str]] = {}
        self._client = PluginClient(app)
        self.backstage.discovers("litellm", lambda: self._client.get(JWKS_PATH).get_json())
        Network(self.litellm, self.backstage, FakeKeycloak(tokens)).install(monkeypatch)
        # No waiting in tests.
        monkeypatch.setattr("litellm_plugin.clients.http.FIRST_PAUSE", 0.0)

    def credentials(self, who: str) -> dict[str, str]:
        """Return the headers of a caller, as the contract names callers."""
        if who not in self._credentials:  # as clients do, who keep a token for a while
            authorization = self._tokens.authorization(who)
            self._credentials[who] = {"Authorization": authorization} if authorization else {}
        return self._credentials[who]

    def ask(
        self,
        who: str,
        method: str,
        target: str,
        *,
        json: Any = NOTHING,
        raw: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> TestResponse:
        """Send one request as ``who``."""
        sent = self.credentials(who) | (headers or {})
        return self._client.request(method, target, json=json, raw=raw, headers=sent)
