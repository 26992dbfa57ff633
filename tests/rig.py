"""The application between a LiteLLM that keeps what it is told, and Backstage."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.client import JWKS_PATH, PluginClient
from tests.fakes import FakeBackstage, FakeKeycloak, Network
from tests.standin import furnished
from tests.tokens import TokenFactory

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
        credentials: Makes the headers of a caller, as the contract names callers.
    """

    def __init__(self, app: Flask, tokens: TokenFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app = app
        self.litellm = furnished()
        self.backstage = FakeBackstage(tokens)
        self.credentials = lru_cache(tokens.headers)  # clients keep a token for a while, too
        self._client = PluginClient(app, headers_of=self.credentials)
        self.backstage.discovers("litellm", lambda: self._client.get(JWKS_PATH).get_json())
        Network(self.litellm, self.backstage, FakeKeycloak(tokens)).install(monkeypatch)

    def ask(self, who: str, method: str, target: str, **sent: Any) -> TestResponse:
        """Send one request as ``who``, with what :meth:`PluginClient.request` takes."""
        return self._client.request(method, target, who=who, **sent)
