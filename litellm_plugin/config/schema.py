"""The model of the whole configuration, and what follows from it: settings, keys, JSON Schema."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Tag,
    TypeAdapter,
    ValidationInfo,
)

from litellm_plugin.config import values as v
from litellm_plugin.config.backend_database import BackendDatabase
from litellm_plugin.config.database import Database
from litellm_plugin.config.report import KeyPath
from litellm_plugin.config.settings import (
    SHARED_STORES,
    Cache,
    Cors,
    Discovery,
    DiscoveryEndpoint,
    ExternalAccess,
    JwksAccess,
    LegacyAccess,
    LiteLLM,
    Restrictions,
    Section,
    Settings,
    StaticAccess,
    StaticPluginKey,
    key,
)
from litellm_plugin.config.sources import INCLUDES
from litellm_plugin.config.values import WORDS, WrittenAs, either, one_of

_ALIKE = 0.75  # so that "masterkey", "base_url" and "rolls" count as misspelt, "title" not
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}


# Entries of externalAccess. The type of an entry decides which options it has.
_TYPES = ("static", "legacy", "jwks")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry(Section):
    type: Any
    options: Any
    access_restrictions: Restrictions | None = key("", None, limits=True)

    def access(self, _: object) -> ExternalAccess:
        access: ExternalAccess = replace(self.options, restrictions=self.access_restrictions)
        return access


@dataclass(frozen=True, slots=True, kw_only=True)
class _StaticEntry(_Entry):
    type: Annotated[str, one_of("static")] = key(
        "legacy is a token signed with a shared secret, jwks one of another issuer"
    )
    options: StaticAccess = key()


@dataclass(frozen=True, slots=True, kw_only=True)
class _LegacyEntry(_Entry):
    type: Annotated[str, one_of("legacy")] = key()
    options: LegacyAccess = key()


@dataclass(frozen=True, slots=True, kw_only=True)
class _JwksEntry(_Entry):
    type: Annotated[str, one_of("jwks")] = key()
    options: JwksAccess = key()


_External = Annotated[
    Annotated[ExternalAccess, WrittenAs(_StaticEntry, _Entry.access), Tag("<static>")]
    | Annotated[ExternalAccess, WrittenAs(_LegacyEntry, _Entry.access), Tag("<legacy>")]
    | Annotated[ExternalAccess, WrittenAs(_JwksEntry, _Entry.access), Tag("<jwks>")],
    Discriminator(
        lambda entry: f"<{entry.get('type')}>" if isinstance(entry, dict) else "<static>",
        custom_error_type="wrong",
        custom_error_message="{wanted}",
        custom_error_context={"wanted": either(_TYPES), "at": ("type",)},
    ),
]


@dataclass(frozen=True, slots=True)
class _OldKey(Section):
    """One of ``backend.auth.keys``, the older form of type ``legacy``."""

    secret: v.Base64 = key(secret=True)
    access_restrictions: Restrictions | None = key("", None, limits=True)

    def access(self, _: object) -> LegacyAccess:
        return LegacyAccess(self.secret, "external:backstage-plugin", self.access_restrictions)


def _first_signs(keys: tuple[StaticPluginKey, ...]) -> tuple[StaticPluginKey, ...]:
    if not keys:
        raise v.fault("empty; the first key signs")
    if keys[0].private_key_file is None:
        raise v.fault("missing", at=(0, "privateKeyFile"))
    return keys


@dataclass(frozen=True, slots=True)
class _StaticKeys(Section):
    keys: Annotated[tuple[StaticPluginKey, ...], AfterValidator(_first_signs)] = key()


@dataclass(frozen=True, slots=True)
class _KeyStore(Section):
    type: Annotated[str, one_of("static", "database")] | None = key("", None)
    static: _StaticKeys | None = key("", None)


def _only_of_its_type(store: Any) -> Any:
    if not isinstance(store, dict):
        return store
    static = {"static": store.get("static", {})} if store.get("type") == "static" else {}
    return {"type": store.get("type"), **static}


@dataclass(frozen=True, slots=True)
class _Auth(Section):
    dangerously_disable_default_auth_policy: v.Flag = key(
        "NOT honoured, true only logs a warning", False
    )
    external_access: tuple[_External, ...] = key(
        "Callers besides users and plugins. Restrictions limit a token to plugins, and there to "
        "permissions or actions; without restrictions it may do everything.",
        (),
    )
    keys: tuple[Annotated[LegacyAccess, WrittenAs(_OldKey, _OldKey.access)], ...] = key(
        "The older form of type legacy.", ()
    )
    plugin_key_store: Annotated[_KeyStore, BeforeValidator(_only_of_its_type)] = key(
        'The keys that sign plugin tokens. Several hosts need "static" and the same keys; '
        "otherwise each host has a key of its own, see litellm.service.keyFile.",
        _KeyStore,
    )


_Level = Annotated[str, one_of(*_LEVELS)]


@dataclass(frozen=True, slots=True)
class _AuditLevels(Section):
    low: _Level = key("Backstage's default is debug", "info")
    medium: _Level = key("", "info")
    high: _Level = key("", "info")
    critical: _Level = key("no event is critical so far", "info")


@dataclass(frozen=True, slots=True)
class _Auditor(Section):
    severity_log_level_mappings: _AuditLevels = key("", _AuditLevels)


def unsupported(cache: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the key below ``backend.cache`` with an unsupported value, if there is one."""
    store = cache.get("store", "memory")
    if store not in SHARED_STORES:
        return None if store in ("memory", "none") else ("store",)
    options = cache.get(store)
    return (store, "cluster") if isinstance(options, dict) and "cluster" in options else None


def _supported(cache: Any) -> Any:
    """Drop keys of stores that this service does not use, which need not be valid."""
    if not isinstance(cache, dict):
        return cache
    if cache.get("store") in SHARED_STORES:
        return {} if unsupported(cache) else cache
    return {name: value for name, value in cache.items() if name == "store"}


def _connected(cache: Cache) -> Cache:
    if cache.store not in SHARED_STORES:
        return Cache()
    if cache.connection is None:
        raise v.fault("missing", at=("connection",))
    return cache


@dataclass(frozen=True, slots=True)
class _Backend(Section):
    base_url: v.Url | None = key(
        "Backstage", None, usual="required without litellm.service.backstageUrl"
    )
    auth: _Auth = key("", _Auth)
    auditor: _Auditor = key(
        "The log level of audit events, by their severity.",
        _Auditor,
    )
    cache: Annotated[Cache, BeforeValidator(_supported), AfterValidator(_connected)] = key(
        "The cache that replicas share: a write through one is seen through the others, and two "
        "first visits create one user. Workers of one host don't need it. "
        "litellm.service.cacheSeconds is the TTL. Other stores of Backstage count as memory.",
        Cache,
    )
    database: BackendDatabase | None = key(
        "The store, see docs/store.md. Only read where a feature needs it; without it the store is "
        "a file of SQLite beside that of the signing key.",
        None,
    )
    cors: Annotated[Cors | None, BeforeValidator(lambda cors: None if cors is False else cors)] = (
        key(
            "Browsers that call the service directly from another origin.",
            None,
            also=[{"const": False}],
        )
    )


def _database_in_use(backend: Any, info: ValidationInfo) -> Any:
    """Drop what this service does not use of ``database``, as it need not be valid."""
    if not isinstance(backend, dict) or not isinstance(backend.get("database"), dict):
        return backend
    litellm: LiteLLM | None = info.data.get("litellm")  # None: it is faulty
    if litellm is None or not litellm.uses_store:
        return {name: value for name, value in backend.items() if name != "database"}
    database = backend["database"]
    plugins = database.get("plugin")
    if isinstance(plugins, dict):
        name = litellm.service.plugin_id
        database = {**database, "plugin": {name: plugins[name]} if name in plugins else {}}
    return {**backend, "database": database}


def _database_usable(backend: _Backend, info: ValidationInfo) -> _Backend:
    if backend.database is not None:
        backend.database.database(info.data["litellm"].service.plugin_id)
    return backend


@dataclass(frozen=True, slots=True)
class _Discovery(Section):
    endpoints: tuple[DiscoveryEndpoint, ...] = key(
        "Addresses of plugins that are not below Backstage's own. The last entry for a plugin "
        "counts. This service does not resolve DNS service records (http+srv://…): auth, catalog "
        "and permission need another target.",
        (),
    )


@dataclass(frozen=True, slots=True)
class _Permission(Section):
    enabled: v.Flag = key("ask Backstage's permission policy; false allows everything", False)


@dataclass(frozen=True, slots=True)
class AppConfig(Section):
    """The configuration as it is written in ``app-config.yaml``."""

    litellm: LiteLLM = key()
    backend: Annotated[
        _Backend, BeforeValidator(_database_in_use), AfterValidator(_database_usable)
    ] = key("", _Backend)
    discovery: _Discovery = key("", _Discovery)
    permission: _Permission = key("", _Permission)

    def settings(self) -> Settings:
        """Return the settings of this configuration."""
        own, backend, store = self.litellm, self.backend, self.backend.auth.plugin_key_store
        litellm = {f.name: getattr(own, f.name) for f in fields(own)}
        roles = tuple(role for role in own.provisioning.roles if role.group)
        levels = backend.auditor.severity_log_level_mappings
        # Of several entries for a plugin the last counts, and Discovery takes the first.
        endpoints = tuple(end for end in reversed(self.discovery.endpoints) if end.target)
        return Settings(
            **litellm | {"provisioning": replace(own.provisioning, roles=roles)},
            discovery=Discovery(own.service.backstage_url or backend.base_url or "", endpoints),
            permission_enabled=self.permission.enabled,
            external_access=(*backend.auth.external_access, *backend.auth.keys),
            plugin_keys=store.static.keys if store.static else (),
            cors=backend.cors,
            cache=backend.cache,
            database=(
                backend.database.database(own.service.plugin_id) if backend.database else Database()
            ),
            audit_levels={f.name: _LEVELS[getattr(levels, f.name)] for f in fields(levels)},
        )


@cache
def model() -> TypeAdapter[AppConfig]:
    """Return the validator of a configuration."""
    return TypeAdapter(AppConfig)


# JSON Schemas have keywords of our own: `limits` (a missing variable is an error), `emptyIsAll`
# (an empty list allows everything), `usual` (the default in words), `also` (other forms of the
# value) and WORDS (the type in words).

Node = dict[str, Any]
_OWN = {WORDS, "limits", "emptyIsAll", "usual", "also"}


@cache
def json_schema() -> Node:
    """Return the JSON Schema of the configuration, without references."""
    schema = model().json_schema()
    return dict(_expanded(schema, schema.pop("$defs")))


def _expanded(node: Any, definitions: Mapping[str, Node]) -> Any:
    if isinstance(node, list):
        return [_expanded(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        node = {**definitions[node["$ref"].rpartition("/")[2]], "description": "", **node}
    left_out = {"$ref", "title"}
    return {k: _expanded(inner, definitions) for k, inner in node.items() if k not in left_out}


@dataclass(frozen=True, slots=True)
class Key:
    """A key that this service reads, and its value in a configuration."""

    path: KeyPath
    schema: Node  # JSON Schema of the value
    value: Any = field(repr=False)  # None where the key is not set


@dataclass(frozen=True, slots=True)
class Stray:
    """An unknown key."""

    path: KeyPath
    meant: str | None  # a known key with a similar name
    forbidden: bool  # whether unknown keys are an error in its section


def walk(schema: Node, value: Any, path: KeyPath = ()) -> Iterator[Key | Stray]:
    """Yield all known keys, set or not, and the unknown keys of a configuration.

    An object without defaults that is not set is one key.
    """
    schema = _fitting(schema, value)
    properties = schema.get("properties")
    entries: Node = schema.get("items", {})
    if properties and (value is not None or schema.get("default", properties) is not None):
        written = value if isinstance(value, dict) else {}
        for name, inner in properties.items():
            yield from walk(inner, written.get(name), (*path, name))
        forbidden = schema.get("additionalProperties") is False
        for name in written:
            if name not in properties:
                yield Stray((*path, name), _closest(name, properties), forbidden)
    elif isinstance(value, list) and WORDS not in entries and WORDS not in schema:
        for index, item in enumerate(value):
            yield from walk(entries, item, (*path, index))
    else:
        yield Key(path, schema, value)


def forms(schema: Node) -> list[Node]:
    """Return the schemas of the forms that a value can have, except null."""
    if WORDS in schema:
        return [schema]
    if schema.get("type") == "null":
        return []
    own = {name: inner for name, inner in schema.items() if name not in {"anyOf", "oneOf"}}
    found: list[Node] = schema.get("anyOf") or schema.get("oneOf") or [{}]
    return [{**form, **own} for some in found for form in (forms(some) if some else [{}])]


def _fitting(schema: Node, value: Any) -> Node:
    """Return the schema of the form that ``value`` has."""

    def fits(form: Node) -> bool:
        properties = form.get("properties")
        if not isinstance(value, dict) or not properties:
            return isinstance(value, dict) == bool(properties)
        kinds = properties.get("type", {}).get("enum")
        return kinds is None or value.get("type") in kinds

    found = forms(schema)
    return next(filter(fits, found), found[0])


def _closest(name: str, known: Iterable[str]) -> str | None:
    by_plain_name = {_plain(other): other for other in known}
    close = difflib.get_close_matches(_plain(name), by_plain_name, n=1, cutoff=_ALIKE)
    return by_plain_name[close[0]] if close else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def editor_schema() -> Node:
    """Return the JSON Schema of a configuration file, for editors.

    No key is required, since another file may have it. Each value may also be in a variable or
    in an included file. Unknown keys are allowed.
    """
    elsewhere = {
        "anyOf": [
            {"type": "null"},
            {"type": "string", "pattern": r"\$\{"},
            {
                "type": "object",
                "properties": {name: {"type": "string"} for name in INCLUDES},
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ]
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "app-config.yaml of litellm-plugin",
        **_for_editors(json_schema()),
        "$defs": {"elsewhere": elsewhere},
    }


def _for_editors(schema: Node, *, in_list: bool = False) -> Node:
    left_out = {*_OWN, *(() if in_list else ("required",))}
    result: Node = {name: inner for name, inner in schema.items() if name not in left_out}
    if WORDS in schema:
        return {"title": schema[WORDS], **result}
    if "items" in schema:
        result["items"] = _or_elsewhere(schema["items"], in_list=True)
    if "properties" in schema:
        result["properties"] = {
            name: _or_elsewhere(inner, in_list=in_list)
            for name, inner in schema["properties"].items()
        }
    return result


def _or_elsewhere(schema: Node, *, in_list: bool) -> Node:
    own = [_for_editors(form, in_list=in_list) for form in forms(schema)]
    names = ("title", "description", "default")
    notes = {name: own[0][name] for name in names if own[0].get(name) not in ("", None)}
    for form in own:
        form.pop("description", None)
        form.pop("default", None)
    return {**notes, "anyOf": [*own, *schema.get("also", ()), {"$ref": "#/$defs/elsewhere"}]}
