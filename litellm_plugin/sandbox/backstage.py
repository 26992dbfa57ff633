"""A stand-in for the parts of Backstage that the plugin uses: auth, catalog, permission.

It checks tokens like Backstage, and fetches the service's public keys from the service itself.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from flask import Flask, Response, request

from litellm_plugin.clients.backstage import key_set
from litellm_plugin.clients.http import Upstream
from litellm_plugin.config.settings import Timeouts
from litellm_plugin.errors import BackstageUnavailable
from litellm_plugin.identity import jwt
from litellm_plugin.sandbox.tokens import LIMITED_USER, PLUGIN, USER, Issuer, proven

Json = dict[str, Any]

# Backstage plugins; the stand-in's issuer signs their tokens.
PLUGINS = frozenset({"auth", "catalog", "permission", "proxy", "scaffolder"})
MAX_BODY_BYTES = 100 * 1024

_JWKS_PATH = "/.backstage/auth/v1/jwks.json"


class RefusedError(Exception):
    """An error answer in Backstage's shape."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.message = message


def _unauthenticated(message: str) -> RefusedError:
    return RefusedError(401, "AuthenticationError", message)


class BackstageStandIn:
    """Backstage's auth, catalog and permission plugins, in memory.

    Args:
        issuer: Signs the tokens of users and of other plugins.
        entities: The catalog's entities, in the shape of its API.
        discovery: Base URLs of plugins that are served elsewhere, by plugin id.
        static_tokens: The tokens of ``backend.auth.externalAccess``.
        fetch: Fetches a key set by its URL; raises BackstageUnavailable.
        clock: Returns the Unix time, in seconds.

    Attributes:
        entities: Entities by ref, in lower case.
        denied: Pairs of permission name and entity ref that the policy denies;
            everything else is allowed.
    """

    def __init__(
        self,
        issuer: Issuer,
        entities: Iterable[Json],
        *,
        discovery: Mapping[str, str],
        static_tokens: Collection[str] = (),
        fetch: Callable[[str], Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._initial = {_ref(entity): entity for entity in entities}
        self._discovery = dict(discovery)
        self._static_tokens = static_tokens
        self._fetch = fetch or partial(key_set, Upstream("the plugin", timeouts=Timeouts()))
        self._clock = clock
        self.reset()
        self.app = Flask("litellm_plugin.sandbox.backstage", static_folder=None)
        self.app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
        rule = self.app.add_url_rule
        rule("/api/auth/.well-known/jwks.json", view_func=self._user_keys)
        rule(f"/api/<plugin>{_JWKS_PATH}", view_func=self._plugin_keys)
        rule("/api/auth/sandbox/refresh", view_func=self._sign_in)
        rule("/api/catalog/entities/by-name/<kind>/<namespace>/<name>", view_func=self._entity)
        rule("/api/catalog/entities", view_func=self._list)
        rule("/api/catalog/entities/by-query", view_func=self._page)
        rule("/api/permission/authorize", view_func=self._authorize, methods=["POST"])
        self.app.register_error_handler(RefusedError, _refusal)
        self.app.register_error_handler(404, lambda _error: Response(status=404))

    def reset(self) -> None:
        """Restore the initial entities, allow everything, and forget fetched keys."""
        self.entities: dict[str, Json] = dict(self._initial)
        self.denied: set[tuple[str, str]] = set()
        self._known_keys: dict[str, Json] = {}

    # -- routes --------------------------------------------------------------

    def _user_keys(self) -> Response:
        return _json(self._issuer.jwks())

    def _plugin_keys(self, plugin: str) -> Response:
        if plugin not in PLUGINS:
            return Response(status=404)
        return _json(self._issuer.jwks())

    def _sign_in(self) -> Response:
        """Sign in the user that ``X-Sandbox-User`` names, without a password."""
        ref = request.headers.get("X-Sandbox-User", "")
        user = self.entities.get(ref)
        if user is None or user["kind"] != "User":
            raise _unauthenticated(f"X-Sandbox-User names no user of the catalog: {ref!r}")
        token = self._issuer.user_token(ref, issuer=f"{request.host_url}api/auth")
        groups = [one["targetRef"] for one in user["relations"] if one["type"] == "memberOf"]
        identity = {"type": "user", "userEntityRef": ref, "ownershipEntityRefs": [ref, *groups]}
        signed_in = {"token": token, "expiresInSeconds": 3600, "identity": identity}
        profile = user["spec"]["profile"]
        return _json({"providerInfo": {}, "profile": profile, "backstageIdentity": signed_in})

    def _entity(self, kind: str, namespace: str, name: str) -> Response:
        user = self._user_calling("catalog")
        entity = self.entities.get(f"{kind}:{namespace}/{name}".lower())
        # The catalog answers 404 for an entity that the caller may not see.
        if entity is None or self._hides(user):
            what = f"named '{name}' found, with kind '{kind}' in namespace '{namespace}'"
            raise RefusedError(404, "NotFoundError", f"No entity {what}")
        return _json(entity)

    def _found(self) -> list[Json]:
        """Return the visible entities that match ``filter=kind=user,field=value,...``."""
        user = self._user_calling("catalog")
        wanted: dict[str, set[str]] = {}
        for condition in request.args.get("filter", "").split(","):
            field, _, value = condition.partition("=")
            wanted.setdefault(field, set()).add(value.strip().lower())
        return [
            entity
            for entity in ([] if self._hides(user) else self.entities.values())
            if all(_member(entity, field) in values for field, values in wanted.items())
        ]

    def _list(self) -> Response:
        return _json(self._found())

    def _page(self) -> Response:
        items = self._found()
        return _json({"items": items, "totalItems": len(items), "pageInfo": {}})

    def _hides(self, user: str | None) -> bool:
        return ("catalog.entity.read", user or "") in self.denied

    def _authorize(self) -> Response:
        user = self._user_calling("permission")
        if user is None:
            message = "This endpoint does not allow 'service' credentials"
            raise RefusedError(403, "NotAllowedError", message)
        body = request.get_json(silent=True)
        items = body.get("items") if isinstance(body, dict) else None
        if not isinstance(items, list) or not all(_is_permission_query(item) for item in items):
            raise RefusedError(400, "InputError", "items must be a list of {id, permission}")
        if user not in self.entities:
            # Backstage knows only the groups of users who have signed in.
            raise RefusedError(404, "ResponseError", "Request failed with 404 Not Found")
        decisions = [
            {
                "id": item["id"],
                "result": "DENY" if (item["permission"]["name"], user) in self.denied else "ALLOW",
            }
            for item in items
        ]
        return _json({"items": decisions})

    # -- tokens --------------------------------------------------------------

    def _user_calling(self, plugin: str) -> str | None:
        """Return the user who calls ``plugin``, maybe through a plugin; None for a service.

        Raises:
            RefusedError: The token is missing or not valid.
        """
        header = request.headers.get("Authorization", "")
        match = re.fullmatch(r"bearer +(\S+)", header, re.IGNORECASE)
        if match is None:
            raise _unauthenticated("Missing credentials")
        try:
            token = jwt.parse(match[1])
        except jwt.TokenError:
            token = None
        if token is not None and token.typ == PLUGIN:
            return self._user_behind(token, plugin)
        if token is not None and token.typ == LIMITED_USER:
            raise _unauthenticated("Illegal limited user token")
        if token is not None and token.typ == USER:
            return self._user(token)
        if match[1] in self._static_tokens:
            return None
        raise _unauthenticated("Illegal token")

    def _user(self, token: jwt.UnverifiedToken) -> str:
        try:
            claims = proven(token, self._issuer.jwks(), now=self._clock())
        except jwt.TokenError as exc:
            raise _unauthenticated("Failed user token verification") from exc
        if not isinstance(claims.get("sub"), str) or not claims["sub"]:
            raise _unauthenticated("No user sub found in token")
        return str(claims["sub"])

    def _user_behind(self, token: jwt.UnverifiedToken, plugin: str) -> str | None:
        """Return the user on whose behalf another plugin calls ``plugin``, if any."""
        failed = _unauthenticated("Failed plugin token verification")
        try:
            source = token.unverified_claims.get("sub")
        except jwt.TokenError as exc:
            raise failed from exc
        if not isinstance(source, str) or not re.fullmatch(r"[\w-]+", source, re.ASCII):
            raise _unauthenticated("Invalid plugin token: forbidden subject format")
        try:
            claims = proven(token, self._keys_of(source, token), now=self._clock())
        except jwt.TokenError as exc:
            raise failed from exc
        if plugin not in jwt.audiences(claims):
            raise failed
        if not claims.get("obo"):
            return None
        try:
            behind = jwt.parse(str(claims["obo"]))
        except jwt.TokenError:
            behind = None
        if behind is None or behind.typ not in {LIMITED_USER, USER}:
            raise _unauthenticated("Invalid user token in plugin token obo claim")
        return self._user(behind)

    def _keys_of(self, source: str, token: jwt.UnverifiedToken) -> Json:
        if source not in self._discovery:
            if source in PLUGINS:
                return self._issuer.jwks()
            raise _no_jwks_endpoint(source)
        known = self._known_keys.get(source, {"keys": []})
        kid = token.header.get("kid")
        if not any(members.get("kid") == kid for members in known["keys"]):
            try:
                known = self._fetch(self._discovery[source] + _JWKS_PATH)
            except BackstageUnavailable as exc:
                raise _no_jwks_endpoint(source) from exc
            if not isinstance(known, dict) or not isinstance(known.get("keys"), list):
                raise _no_jwks_endpoint(source)
            self._known_keys[source] = known
        return known


def _no_jwks_endpoint(source: str) -> RefusedError:
    return _unauthenticated(
        f"Received a plugin token where the source '{source}' plugin unexpectedly does not have "
        "a JWKS endpoint. The target plugin needs to be migrated to be installed in an app using "
        "the new backend system."
    )


def _is_permission_query(item: Any) -> bool:
    match item:
        case {"id": str(), "permission": {"type": str(), "name": str(), "attributes": dict()}}:
            return True
    return False


def _member(entity: Any, path: str) -> str:
    """Return a field in lower case, as filters compare it; "" if it is missing."""
    for name in path.split("."):
        entity = entity.get(name) if isinstance(entity, dict) else None
    return entity.lower() if isinstance(entity, str) else ""


def _ref(entity: Mapping[str, Any]) -> str:
    metadata = entity["metadata"]
    return f"{entity['kind']}:{metadata['namespace']}/{metadata['name']}".lower()


def _json(answer: Any, status: int = 200) -> Response:
    return Response(json.dumps(answer), status, mimetype="application/json")


def _refusal(refused: RefusedError) -> Response:
    plugin = request.path.removeprefix("/api/").partition("/")[0]
    url = request.full_path.rstrip("?").removeprefix(f"/api/{plugin}")
    body = {
        "error": {"name": refused.name, "message": refused.message},
        "request": {"method": request.method, "url": url},
        "response": {"statusCode": refused.status},
    }
    return _json(body, refused.status)
