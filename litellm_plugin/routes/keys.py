"""The caller's virtual keys, and those of ``opencode connect``."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from litellm_plugin import shapes
from litellm_plugin.access import Permission
from litellm_plugin.errors import HungUp, NotFound
from litellm_plugin.keys.opencode import callback
from litellm_plugin.keys.rotation import Rotation
from litellm_plugin.observability.journal import Event
from litellm_plugin.routes.inputs import body, client_gone, current_caller, query
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.routing import routes

DONE = {"success": True}
# LiteLLM's status for a refused change, such as a taken alias.
REFUSED = frozenset({400})


@routes.get("/keys")
def list_keys() -> list[dict[str, Any]]:
    caller = current_caller()
    account = plugin.users.account(caller, keys_too=True)
    keys = plugin.users.keys(account, caller.name, stale=caller.note_stale)
    return [shapes.virtual_key(row) for row in keys]


@routes.post("/keys/generate", relays=True, event=Event("key-create"))
def generate_key() -> dict[str, Any]:
    caller = current_caller()
    key = plugin.keys.fields.new(body(), named=True, service=caller.service is not None)
    plugin.access.require(caller, Permission.KEY_CREATE)
    return handed_over(plugin.keys.generate(key, caller))


def handed_over(made: dict[str, Any]) -> dict[str, Any]:
    """Return the new key ``made``, unless the client can't receive it.

    Raises:
        HungUp: The client has closed its connection; the key is deleted.
    """
    if client_gone():
        plugin.keys.take_back(made)
        raise HungUp
    return made


@routes.post("/keys/<litellm_id:token>/update", relays=REFUSED, event=Event("key-update"))
def update_key(token: str) -> Any:
    caller = current_caller()
    plugin.access.require(caller, Permission.KEY_MANAGE)
    return plugin.keys.update(plugin.keys.owned(caller, token), body())


@routes.post("/keys/<litellm_id:token>/rotate", relays=True, event=Event("key-rotate"))
def rotate_key(token: str) -> dict[str, Any]:
    caller = current_caller()
    asked = rotation(token)
    plugin.access.require(caller, Permission.KEY_MANAGE)
    plugin.access.require(caller, Permission.KEY_CREATE)
    return plugin.rotations.rotate(caller, asked)


def rotation(token: str) -> Rotation:
    """Return the request for a new key in place of the one with the hash ``token``."""
    return Rotation.read(token, body(), request.headers.get("Idempotency-Key"), client_gone)


@routes.post("/keys/<litellm_id:token>/block", relays=REFUSED, event=Event("key-block"))
def block_key(token: str) -> dict[str, Any]:
    caller = current_caller()
    plugin.access.require(caller, Permission.KEY_MANAGE)
    plugin.keys.block(plugin.keys.owned(caller, token))
    return DONE


@routes.post("/keys/<litellm_id:token>/unblock", relays=REFUSED, event=Event("key-unblock"))
def unblock_key(token: str) -> dict[str, Any]:
    caller = current_caller()
    plugin.access.require(caller, Permission.KEY_MANAGE)
    plugin.keys.unblock(plugin.keys.owned(caller, token))
    return DONE


@routes.post("/keys/<litellm_id:token>/reset_spend", relays=REFUSED, event=Event("key-spend-reset"))
def reset_key_spend(token: str) -> dict[str, Any]:
    caller = current_caller()
    plugin.access.require(caller, Permission.KEY_MANAGE)
    plugin.keys.reset_spend(plugin.keys.owned(caller, token))
    return DONE


@routes.delete("/keys/<litellm_id:token>", relays=REFUSED, event=Event("key-delete", "high"))
def delete_key(token: str) -> dict[str, Any]:
    caller = current_caller()
    plugin.access.require(caller, Permission.KEY_REVOKE)
    plugin.keys.delete(plugin.keys.owned(caller, token))
    return DONE


@routes.get("/opencode/connect", event=Event("opencode-connect"))
def connect_opencode() -> Response:
    # This route makes a key, and HEAD must change nothing.
    if not plugin.settings.opencode.enabled or request.method == "HEAD":
        raise NotFound
    caller = current_caller()
    plugin.access.signed_in(caller)
    redirect_uri = callback(query("redirect_uri"))
    plugin.access.require(caller, Permission.KEY_CREATE)
    team_id = query("team") or None
    target = plugin.opencode.connect(caller, redirect_uri, team_id, gone=client_gone)
    return Response(
        f"Found. Redirecting to {target}",
        status=302,
        headers={"Location": target},
        content_type="text/plain; charset=utf-8",
    )
