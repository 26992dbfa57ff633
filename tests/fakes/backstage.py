"""A Backstage with a catalog, a permission policy and key sets, and a Keycloak realm.

Only what this service asks; answers and their bodies as the real ones give them.
Tokens are really checked, our own plugin token against the key set we publish.
"""

from __future__ import annotations

import base64
import functools
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from tests.fakes.network import Asked, Reply
from tests.tokens import LIMITED_TYP, PLUGIN_TYP, STATIC_TOKEN, USER_TYP, SigningKey, TokenFactory

PEOPLE_FILE = Path(__file__).parents[1] / "contract" / "people" / "org.yaml"


class People:
    """The catalog's users and groups; of their relations, memberships only."""

    def __init__(self, entities: Iterable[Mapping[str, Any]]) -> None:
        self._entities = {_ref_of(entity): _stitched(entity) for entity in entities}

    @classmethod
    @functools.cache
    def of(cls, file: Path = PEOPLE_FILE) -> People:
        return cls(yaml.safe_load_all(file.read_text("utf-8")))

    def entity(self, ref: str) -> dict[str, Any] | None:
        """Return the entity; the case of ``ref`` does not matter."""
        return self._entities.get(ref.lower())

    def users(self, filters: str) -> list[dict[str, Any]]:
        """Return the users that a filter finds: any value of a field, and each field."""
        wanted: dict[str, set[str]] = {}
        for condition in filters.split(","):
            field, _, value = condition.partition("=")
            wanted.setdefault(field, set()).add(value.strip().lower())
        return [
            entity
            for entity in self._entities.values()
            if all(not any_.isdisjoint(_values(entity, name)) for name, any_ in wanted.items())
        ]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the entities of a kind, such as ``user``."""
        return [entity for ref, entity in self._entities.items() if ref.startswith(f"{kind}:")]

    def groups(self, ref: str) -> list[str]:
        """Return the refs of the groups a user is a direct member of."""
        entity = self.entity(ref) or {"relations": []}
        return [relation["targetRef"] for relation in entity["relations"]]


def _values(entity: Any, field: str) -> set[str]:
    """Return the values of a field that a filter compares, in lower case."""
    if field == "relations.memberOf":
        return {relation["targetRef"] for relation in entity["relations"]}
    return {str(_member(entity, field)).lower()}


def _member(entity: Any, path: str) -> Any:
    for name in path.split("."):
        entity = entity.get(name) if isinstance(entity, dict) else None
    return entity


def _ref_of(entity: Mapping[str, Any]) -> str:
    metadata = entity["metadata"]
    return f"{entity['kind']}:{metadata.get('namespace', 'default')}/{metadata['name']}".lower()


def _stitched(entity: Mapping[str, Any]) -> dict[str, Any]:
    groups = _refs(entity, entity["spec"].get("memberOf"), "group")
    return {
        **entity,
        "metadata": {"namespace": "default", **entity["metadata"]},
        "relations": [{"type": "memberOf", "targetRef": ref} for ref in groups],
    }


def _refs(entity: Mapping[str, Any], names: list[str] | None, kind: str) -> list[str]:
    """Complete short names as Backstage does: from the kind wanted and the entity's namespace."""
    refs = []
    for name in names or []:
        before, colon, rest = name.rpartition(":")
        namespace, slash, short = rest.rpartition("/")
        default = entity["metadata"].get("namespace", "default")
        refs.append(f"{before if colon else kind}:{namespace if slash else default}/{short}")
    return sorted(ref.lower() for ref in refs)


class PolicyError(Exception):
    """The policy was told to throw."""


@dataclass(frozen=True)
class _PolicyRule:
    permissions: tuple[str, ...]
    users: frozenset[str]
    result: str

    def applies(self, permission: str, refs: Iterable[str]) -> bool:
        return any(_matches(pattern, permission) for pattern in self.permissions) and (
            "*" in self.users or not self.users.isdisjoint(refs)
        )


def _matches(pattern: str, value: str) -> bool:
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return pattern == value


class Policy:
    """``PERM[,PERM]@USER[,USER][=RESULT]``, more after ``;``; what no rule names is allowed.

    ``RESULT`` is DENY (the default), ALLOW or THROW. ``PERM`` may end in ``*``; ``USER``
    is a name, the full ref of a user or a group, or ``*``. The first rule that applies wins.
    """

    def __init__(self, text: str = "") -> None:
        self._rules = [_policy_rule(part) for part in text.split(";") if part]

    def decide(self, permission: str, refs: Iterable[str]) -> str:
        """Return ``ALLOW`` or ``DENY``.

        Raises:
            PolicyError: The rule says THROW.
        """
        refs = list(refs)
        for rule in self._rules:
            if rule.applies(permission, refs):
                if rule.result == "THROW":
                    raise PolicyError("rig policy was told to throw")
                return rule.result
        return "ALLOW"


def _policy_rule(text: str) -> _PolicyRule:
    left, _, result = text.partition("=")
    permissions, at, users = left.partition("@")
    result = result or "DENY"
    if not at or result not in {"ALLOW", "DENY", "THROW"}:
        raise ValueError(f"no policy rule: {text!r}")
    return _PolicyRule(
        permissions=tuple(permissions.split(",")),
        users=frozenset(
            user if user == "*" or ":" in user else f"user:default/{user}"
            for user in users.split(",")
        ),
        result=result,
    )


class _RefusedError(Exception):
    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name


def _illegal(message: str) -> _RefusedError:
    return _RefusedError(401, "AuthenticationError", message)


@dataclass(frozen=True)
class BackstageCall:
    """One request that Backstage got; ``plugin`` is the one asked."""

    plugin: str
    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False, compare=False)
    body: Any = None


class FakeBackstage:
    """A Backstage that has never heard of us until :meth:`discovers` is called.

    Attributes:
        policy: What the permission API decides by.
        people: The catalog.
        failures: By plugin id, the status it answers everything with, or what the
            connection fails with.
        never_signed_in: Refs of users whose tokens hold and whom the auth plugin has no record
            of: the permission API answers 404.
        notices: By person and scope, the payload of the notification that is shown.
        calls: What was asked, in order.
    """

    def __init__(self, tokens: TokenFactory, people: People | None = None) -> None:
        self.base_url = f"{tokens.backstage}/api"
        self.policy = Policy()
        self.people = people or People.of()
        self.failures: dict[str, int | Exception] = {}
        self.never_signed_in: set[str] = set()
        self.notices: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[BackstageCall] = []
        self._tokens = tokens
        self._key_sets = {
            url.removeprefix(self.base_url): keys for url, keys in tokens.jwks().items()
        }
        self._discovered: dict[str, Callable[[], Any]] = {}
        self._kept: dict[str, KeySet] = {}  # key sets by plugin, as they were read last
        self._lock = threading.Lock()

    def discovers(self, plugin: str, key_set: Callable[[], Any]) -> None:
        """Say where ``plugin`` publishes its keys, as ``discovery.endpoints`` does.

        Args:
            plugin: Plugin id.
            key_set: Fetches the decoded key set.
        """
        self._discovered[plugin] = key_set
        self._kept.pop(plugin, None)

    def asked_of(self, plugin: str) -> list[BackstageCall]:
        return [call for call in self.calls if call.plugin == plugin]

    def answer(self, asked: Asked) -> Reply:
        _, plugin, *rest = asked.path.split("/", 2)
        path = f"/{rest[0]}" if rest else ""
        with self._lock:
            call = BackstageCall(plugin, asked.method, path, dict(asked.headers), asked.json)
            self.calls.append(call)
        failure = self.failures.get(plugin)
        try:
            if isinstance(failure, Exception):
                raise failure
            if failure is not None:
                raise _RefusedError(failure, "Error", "told to fail")
            if asked.path in self._key_sets:
                return Reply(json=self._key_sets[asked.path])
            if plugin == "catalog" and path.startswith("/entities/by-name/"):
                return self._entity(asked, path)
            if (asked.method, plugin, path) == ("GET", "catalog", "/entities"):
                self._user_calling(asked, "catalog")
                return Reply(json=self.people.users(dict(asked.parameters)["filter"]))
            if (asked.method, plugin, path) == ("GET", "catalog", "/entities/by-query"):
                return self._query(asked)
            if (asked.method, plugin, path) == ("POST", "permission", "/authorize"):
                return self._authorize(asked)
            if (plugin, path) == ("notifications", "/notifications"):
                return self._notify(asked)
        except _RefusedError as exc:
            error = {"name": exc.name, "message": str(exc)}
            return _error_body(exc.status, error, asked.method, path)
        return Reply(404)

    # -- catalog -------------------------------------------------------------

    def _entity(self, asked: Asked, path: str) -> Reply:
        user = self._user_calling(asked, "catalog")
        kind, namespace, name = map(unquote, path.removeprefix("/entities/by-name/").split("/"))
        entity = self.people.entity(f"{kind}:{namespace}/{name}")
        hidden = user is not None and (
            self.policy.decide("catalog.entity.read", self._ownership(user)) == "DENY"
        )
        if asked.method != "GET" or entity is None or hidden:
            message = f"No entity named '{name}' found, with kind '{kind}' in namespace"
            raise _RefusedError(404, "NotFoundError", f"{message} '{namespace}'")
        return Reply(json=entity)

    def _query(self, asked: Asked) -> Reply:
        """Answer a filter by kind, two entities on a page; a cursor says where the next begins."""
        self._user_calling(asked, "catalog")
        query = dict(asked.parameters)
        found, _, start = query.get("cursor", query.get("filter", "")).partition(";")
        entities = self.people.of_kind(found.removeprefix("kind="))
        first, after = int(start or 0), int(start or 0) + 2
        page = {"nextCursor": f"{found};{after}"} if after < len(entities) else {}
        items = entities[first:after]
        return Reply(json={"items": items, "totalItems": len(entities), "pageInfo": page})

    # -- permission ----------------------------------------------------------

    def _authorize(self, asked: Asked) -> Reply:
        user = self._user_calling(asked, "permission")
        if user is None:
            message = "This endpoint does not allow 'service' credentials"
            raise _RefusedError(403, "NotAllowedError", message)
        items = asked.json.get("items") if isinstance(asked.json, dict) else None
        if not isinstance(items, list) or not all(map(_is_query, items)):
            raise _RefusedError(400, "InputError", "Invalid input")
        if user in self.never_signed_in:
            raise _RefusedError(404, "ResponseError", "Request failed with 404 Not Found")
        refs = self._ownership(user)
        try:
            decisions = [
                {"id": item["id"], "result": self.policy.decide(item["permission"]["name"], refs)}
                for item in items
            ]
        except PolicyError as exc:
            raise _RefusedError(500, "Error", str(exc)) from exc
        return Reply(json={"items": decisions})

    # -- notifications -------------------------------------------------------

    def _notify(self, asked: Asked) -> Reply:
        if self._user_calling(asked, "notifications") is not None:
            message = "This endpoint does not allow 'user' credentials"
            raise _RefusedError(403, "NotAllowedError", message)
        match asked.json:
            case {
                "recipients": {"type": "entity", "entityRef": str(ref)},
                "payload": {"title": str(), "scope": str(scope)} as payload,
            }:
                self.notices[ref, scope] = payload
                return Reply(json=[{"user": ref, "origin": "plugin:litellm", "payload": payload}])
        message = "request/body must have required property 'recipients'"
        raise _RefusedError(400, "InputError", message)

    def _ownership(self, user: str) -> list[str]:
        return [user, *self.people.groups(user)]

    # -- credentials ---------------------------------------------------------

    def _user_calling(self, asked: Asked, plugin: str) -> str | None:
        """Return the ref of the user who calls ``plugin``; None for a service."""
        token = asked.bearer
        if not token:
            raise _illegal("Missing credentials")
        typ = _unverified(token, 0).get("typ")
        if typ == PLUGIN_TYP:
            return self._plugin(token, plugin)
        if typ == LIMITED_TYP:
            raise _illegal("Illegal limited user token")
        if typ == USER_TYP:
            return self._user(token)
        if token == STATIC_TOKEN:
            return None
        raise _illegal("Illegal token")

    def _user(self, token: str) -> str:
        claims = self._claims(token, self._tokens.user_key, "Failed user token verification")
        return str(claims["sub"])

    def _plugin(self, token: str, called: str) -> str | None:
        failed = "Failed plugin token verification"
        caller = _unverified(token, 1).get("sub")
        if caller == self._tokens.plugin_id:
            claims = self._claims(token, self._tokens.plugin_key, failed)
        elif caller in self._discovered:
            claims = self._claims(token, caller, failed)
        else:
            raise _illegal(
                f"Received a plugin token where the source '{caller}' plugin unexpectedly does"
                " not have a JWKS endpoint. The target plugin needs to be migrated to be"
                " installed in an app using the new backend system."
            )
        audience = claims.get("aud")
        if called not in (audience if isinstance(audience, list) else [audience]):
            raise _illegal(failed)
        behalf = claims.get("obo")
        if not behalf:
            return None
        typ = _unverified(behalf, 0).get("typ") if isinstance(behalf, str) else None
        if typ not in {USER_TYP, LIMITED_TYP}:
            raise _illegal("Invalid user token in plugin token obo claim")
        return self._user(behalf)

    def _claims(self, token: str, signer: SigningKey | str, failed: str) -> dict[str, Any]:
        """Return the claims of a token that a key, or a key of a plugin's set, has signed."""
        now = self._tokens.clock()
        try:
            keys = self._keys_of(signer, token) if isinstance(signer, str) else _only(signer)
            claims = jwt.decode(token, keys, algorithms=["ES256"]).claims
        except (JoseError, ValueError) as exc:
            raise _illegal(failed) from exc
        expires, issued = claims.get("exp"), claims.get("iat")
        if not isinstance(expires, int) or not isinstance(issued, int) or expires <= now:
            raise _illegal(failed)
        if claims.get("nbf", now) > now or not isinstance(claims.get("sub"), str):
            raise _illegal(failed)
        return claims

    def _keys_of(self, plugin: str, token: str) -> KeySet:
        """Return a plugin's keys; they are read again where the token's key is none of them."""
        kept = self._kept.get(plugin)
        if kept is None or _unverified(token, 0).get("kid") not in {key.kid for key in kept.keys}:
            kept = self._kept[plugin] = KeySet.import_key_set(self._discovered[plugin]())
        return kept


@functools.cache
def _only(key: SigningKey) -> KeySet:
    return KeySet.import_key_set({"keys": [key.jwk()]})


def _is_query(item: Any) -> bool:
    match item:
        case {
            "id": str(),
            "permission": {"type": "basic", "name": str(), "attributes": dict()},
        }:
            return True
    return False


def _error_body(status: int, error: Mapping[str, Any], method: str, path: str) -> Reply:
    body = {
        "error": error,
        "request": {"method": method, "url": path},
        "response": {"statusCode": status},
    }
    return Reply(status, body)


def _unverified(token: str, part: int) -> dict[str, Any]:
    """Decode a token's header (0) or claims (1); empty where it is no token."""
    segments = token.split(".")
    if len(segments) != 3:
        return {}
    try:
        decoded = json.loads(base64.urlsafe_b64decode(segments[part] + "=="))
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


class FakeKeycloak:
    """The realm's key set, and nothing else."""

    def __init__(self, tokens: TokenFactory) -> None:
        realm = urlsplit(tokens.issuer)
        self.base_url = f"{realm.scheme}://{realm.netloc}"
        self._path = f"{realm.path}/protocol/openid-connect/certs"
        self._tokens = tokens
        self.failure: Exception | None = None
        self.calls: list[str] = []

    def answer(self, asked: Asked) -> Reply:
        self.calls.append(asked.path)
        if self.failure is not None:
            raise self.failure
        if asked.path != self._path:
            return Reply(404, {"error": "not found"})
        return Reply(json={"keys": [self._tokens.keycloak_key.jwk()]})
