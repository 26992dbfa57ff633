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
from litellm_plugin.routes.inputs import body, set_actor
from litellm_plugin.routes.keys import DONE, REFUSED, handed_over, rotation
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.responses import PublicResponse, json_response, secured
from litellm_plugin.routes.routing import routes


@routes.get("/bridge/health", exempt=True)
def bridge_health() -> Response:
    if plugin.bridge_tokens is None:
        raise NotFound
    bridge, base_url = plugin.settings.bridge, plugin.settings.public_base_url
    health: dict[str, Any] = {"status": "ok", "bridge": True, "clientId": bridge.client_id}
    if bridge.keys is not None:
        # Command-line clients configure themselves from these fields.
        keys = {"defaultTtl": bridge.keys.default_ttl, "maxTtl": bridge.keys.max_ttl}
        health |= shapes.present(issuer=bridge.issuer, baseUrl=base_url, keys=keys)
    return json_response(health, kind=PublicResponse)


@routes.get("/bridge/keys", exempt=True)
def list_bridge_keys() -> list[dict[str, Any]]:
    return [shapes.virtual_key(row) for row in plugin.bridge.keys(_person())]


@routes.post("/bridge/keys", relays=True, event=Event("bridge-key-create"), exempt=True)
def generate_bridge_key() -> Response:
    new = plugin.bridge.generate(_person(), body())
    response = secured(json_response(handed_over(new.key)))
    response.after_sending = new.after_sending
    return response


@routes.delete(
    "/bridge/keys/<litellm_id:token>",
    relays=REFUSED,
    event=Event("bridge-key-delete", "high"),
    exempt=True,
)
def delete_bridge_key(token: str) -> dict[str, Any]:
    plugin.bridge.delete(_person(), token)
    return DONE


@routes.post(
    "/bridge/keys/<litellm_id:token>/rotate",
    relays=True,
    event=Event("bridge-key-rotate"),
    exempt=True,
)
def rotate_bridge_key(token: str) -> dict[str, Any]:
    return plugin.bridge.rotate(_person(), rotation(token))


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
