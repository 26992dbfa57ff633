"""The bridge, for command-line clients with a Keycloak token.

While ``litellm.bridge`` is on, these routes need no Backstage credentials, and each verifies the
Keycloak token itself.
"""

from __future__ import annotations

from typing import Any

from flask import Response, request

from litellm_plugin import shapes
from litellm_plugin.errors import NotFound
from litellm_plugin.identity.keycloak import BridgeIdentity
from litellm_plugin.observability.journal import Event
from litellm_plugin.routes.inputs import body, client_gone, set_actor
from litellm_plugin.routes.keys import handed_over, rotation
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.responses import PublicResponse, json_response
from litellm_plugin.routes.routing import routes


@routes.get("/bridge/health", exempt=True)
def bridge_health() -> Response:
    if plugin.bridge_tokens is None:
        raise NotFound
    client_id = plugin.settings.bridge.client_id
    health = {"status": "ok", "bridge": True, "clientId": client_id}
    return json_response(health, kind=PublicResponse)


@routes.get("/bridge/keys", exempt=True)
def list_bridge_keys() -> list[dict[str, Any]]:
    return [shapes.virtual_key(row) for row in plugin.bridge.keys(_person())]


@routes.post("/bridge/keys", relays=True, event=Event("bridge-key-create"), exempt=True)
def generate_bridge_key() -> dict[str, Any]:
    return handed_over(plugin.bridge.generate(_person(), body()))


@routes.post(
    "/bridge/keys/<litellm_id:token>/rotate",
    relays=True,
    event=Event("bridge-key-rotate"),
    exempt=True,
)
def rotate_bridge_key(token: str) -> dict[str, Any]:
    return plugin.bridge.rotate(_person(), rotation(token), gone=client_gone)


@routes.get("/bridge/models", exempt=True)
def bridge_models() -> list[dict[str, Any]]:
    _person()
    return plugin.models.all()


def _person() -> BridgeIdentity:
    if plugin.bridge_tokens is None:
        raise NotFound
    person = plugin.bridge_tokens.verify(request.headers.get("Authorization"))
    set_actor(f"bridge:{person.login}")
    plugin.bridge.admit(person)
    return person
