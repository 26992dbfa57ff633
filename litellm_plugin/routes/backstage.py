"""The routes that Backstage expects of every plugin backend."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from flask import Response

from litellm_plugin.errors import InputRefused, NotAllowed, Unauthenticated
from litellm_plugin.identity.principal import ServicePrincipal, UserPrincipal
from litellm_plugin.routes.inputs import body, principal
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.responses import PublicResponse, json_response
from litellm_plugin.routes.routing import routes

COOKIE = "backstage-auth"


@routes.get("/.backstage/auth/v1/jwks.json", exempt=True)
def plugin_jwks() -> Response:
    return json_response(plugin.plugin_keys.public_jwks(), kind=PublicResponse)


@routes.get("/.backstage/auth/v1/cookie")
def issue_cookie() -> Response:
    user = _user()
    if user.limited_token is None:
        raise Unauthenticated("The token can't be made into a cookie; reload the page")
    expires = datetime.fromtimestamp(user.expires_at, UTC)
    text = expires.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    response = json_response({"expiresAt": text})
    _set_cookie(response, user.limited_token, expires)
    return response


@routes.delete("/.backstage/auth/v1/cookie")
def clear_cookie() -> Response:
    _user()
    response = Response(status=204)
    del response.headers["Content-Type"]
    _set_cookie(response, "", datetime.fromtimestamp(0, UTC))
    return response


@routes.get("/.well-known/backstage/permissions/metadata")
def permissions_metadata() -> dict[str, Any]:
    return {
        "permissions": [
            {
                "type": "basic",
                "name": permission.id,
                "attributes": {"action": permission.action},
            }
            for permission in plugin.access.permissions()
        ],
        "rules": [],
    }


@routes.post("/.well-known/backstage/permissions/apply-conditions")
def apply_conditions() -> dict[str, Any]:
    who = principal()
    if isinstance(who, UserPrincipal) and who.actor is None:
        raise NotAllowed("")
    items = body().get("items")
    if not isinstance(items, list):
        raise InputRefused("items must be a list")
    types = [item.get("resourceType") if isinstance(item, dict) else None for item in items]
    if types:
        # No permission of the plugin has a resource type.
        raise InputRefused(f"Unexpected resource types: {', '.join(map(str, types))}.")
    return {"items": []}


def _user() -> UserPrincipal:
    who = principal()
    if isinstance(who, ServicePrincipal):
        raise NotAllowed("This endpoint does not allow 'service' credentials")
    return who


def _set_cookie(response: Response, value: str, expires: datetime) -> None:
    backstage = urlsplit(plugin.settings.discovery.backstage_url)
    # Browsers take SameSite=None only from secure origins.
    secure = backstage.scheme == "https" or backstage.hostname == "localhost"
    response.set_cookie(
        COOKIE,
        value,
        expires=expires,
        domain=backstage.hostname,
        secure=secure,
        httponly=True,
        samesite="None" if secure else "Lax",
    )
