"""The settings: what each is called, what it may be, its default, and what it is for.

This is the one declaration of them. A field is a key of ``app-config.yaml``, in camelCase there
if no ``name`` is given here. Reading and its faults, ``config check``, the JSON Schema and
the reference in ``docs/configuration.md`` all come from it. Amounts of money are USD.

The classes are plain dataclasses: what code makes of them itself is not checked.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema

from litellm_plugin.config import values as v
from litellm_plugin.config.values import WrittenAs, one_of

CACHE_SECONDS = 3.0
ACCOUNT_SECONDS = 1.0  # accounts; both unless cacheSeconds is configured

LLM_API = "llm_api"  # LiteLLM's type of a key that is for models, and for no management
KEY_TYPES = (LLM_API, "read_only", "default")  # not "management"

ORIGINAL, UNAMBIGUOUS = "original", "unambiguous"  # what userIds may be

SHARED_STORES = ("redis", "valkey")
_OTHER_STORES = ("memory", "none", "memcache", "infinispan")  # that Backstage has, or had


_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,8}) ?(?:/|per) ?(second|minute|hour|day)")


class Section:
    """An object of the configuration; what it has beside these keys may be for others."""

    __slots__ = ()
    __pydantic_config__: ClassVar = ConfigDict(alias_generator=to_camel)


class StrictSection(Section):
    """An object of the configuration in which a key that is not known is a fault."""

    __slots__ = ()
    __pydantic_config__: ClassVar = ConfigDict(alias_generator=to_camel, extra="forbid")


def key(
    meaning: str = "",
    default: Any = MISSING,
    /,
    *,
    name: str | None = None,
    secret: bool = False,
    **keywords: Any,
) -> Any:
    """Declare a setting; it is required if it has no default.

    Args:
        meaning: What it is for, for the reference and for editors.
        default: Counts where it is not configured. A class is a section with its own defaults.
        name: What it is called in the configuration, if not as the field.
        secret: Whether it must never be shown.
        keywords: More for the JSON Schema.
    """
    more = {**keywords, **({"writeOnly": True} if secret else {})}
    if default is dict:
        more["default"] = {}
    metadata: dict[str, Any] = {"description": meaning, "json_schema_extra": more}
    if name is not None:
        metadata["alias"] = name
    given: Any = {"default_factory" if isinstance(default, type) else "default": default}
    return field(**given, repr=not secret, metadata=metadata)


# A limit that is written and not there, for want of a variable or by a null, would be one too
# few: it is a fault.
def _limit(meaning: str) -> Any:
    return key(meaning, None, limits=True)


def _given(value: Any, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``value`` that are ``written``, and not their defaults."""
    return {f.name: getattr(value, f.name) for f in fields(value) if to_camel(f.name) in written}


@dataclass(frozen=True, slots=True)
class UserDefaults(Section):
    """``litellm.provisioning.defaults``: what a first visit creates.

    A role may blank a field, so the empty string and zero are values here.
    """

    max_budget: v.Number | None = key("USD per budgetDuration", 10.0)
    budget_duration: v.Duration = key("time until the spend begins at 0 again", "30d")
    models: v.Texts = key("empty allows every model of the proxy", (), emptyIsAll=True)
    teams: v.Texts = key("ids of LiteLLM teams to join", ())
    tpm_limit: v.Whole | None = key("tokens per minute", None)
    rpm_limit: v.Whole | None = key("requests per minute", None)
    user_role: v.Text = key("LiteLLM's role", "internal_user")
    metadata: v.Anything = key("kept with the user", dict)


@dataclass(frozen=True, slots=True)
class KeyPolicy(StrictSection):
    """``litellm.keyPolicy``: the limits of virtual keys; None is no limit."""

    max_duration: v.DurationLimit = _limit("longest life from now on")
    max_budget: v.PositiveLimit = _limit("USD, highest budget of a key")
    # None: under a max_budget none may be reset
    min_budget_duration: v.ResetLimit = _limit(
        "shortest time until such a budget begins anew, or else none may"
    )
    max_tpm_limit: v.PositiveWholeLimit = _limit("highest limit of tokens per minute")
    max_rpm_limit: v.PositiveWholeLimit = _limit("highest limit of requests per minute")
    allowed_models: v.TextsLimit = _limit("models and access groups that a key may be for")
    max_active_keys: v.WholeLimit = _limit(
        "keys of one LiteLLM user that are neither expired nor blocked"
    )


def _without_defaults(schema: dict[str, Any]) -> None:
    # What a role leaves out is as in litellm.provisioning.defaults.
    for inner in schema["properties"].values():
        inner.pop("default", None)


@dataclass(frozen=True, slots=True)
class _WrittenRole(UserDefaults):
    """One of ``litellm.provisioning.roles`` as it is written."""

    __pydantic_config__: ClassVar = ConfigDict(
        alias_generator=to_camel, json_schema_extra=_without_defaults
    )

    budget_duration: v.BlankDuration = key("", "")
    user_role: v.BlankText = key("", "")
    metadata: v.Anything = key("merged with that of defaults", dict)
    group: v.BlankEntityRef = key("without one nobody has the role", "")
    key_policy: Annotated[Mapping[str, Any], WrittenAs(KeyPolicy, _given)] = key(
        "what differs of litellm.keyPolicy for this group; unlimited lifts a limit", dict
    )

    def role(self, written: Mapping[str, Any]) -> Role:
        """Return the role, with those fields that are ``written``."""
        overrides = _given(self, written)
        for name in ("group", "metadata", "key_policy"):
            overrides.pop(name, None)
        return Role(self.group, overrides, self.metadata, self.key_policy)


@dataclass(frozen=True, slots=True)
class Role:
    """One of ``litellm.provisioning.roles``: a group, and what differs for it."""

    group: str  # entity ref; "": nobody has the role
    overrides: Mapping[str, Any]  # field names of UserDefaults to values, metadata left out
    metadata: Mapping[str, Any] = field(default_factory=dict)  # merged over the defaults'
    # Field names of KeyPolicy to values, which replace those of litellm.keyPolicy.
    key_policy: Mapping[str, Any] = field(default_factory=dict)

    def applied_to(self, defaults: UserDefaults) -> UserDefaults:
        """Return ``defaults`` with this role's fields in place."""
        merged = {**defaults.metadata, **self.metadata}
        return replace(defaults, **self.overrides, metadata=merged)


@dataclass(frozen=True, slots=True)
class Provisioning(Section):
    """``litellm.provisioning``."""

    enabled: v.Flag = key("create unknown users", False)
    defaults: UserDefaults = key("", UserDefaults)
    roles: tuple[Annotated[Role, WrittenAs(_WrittenRole, _WrittenRole.role)], ...] = key(
        "the first role whose group the user is a direct member of counts; its fields replace "
        "the defaults, and its metadata is merged with theirs",
        (),
    )

    def role_for(self, groups: frozenset[str]) -> Role | None:
        """Return the first role whose group is among ``groups`` (entity refs)."""
        return next((role for role in self.roles if role.group in groups), None)

    def for_groups(self, groups: frozenset[str]) -> UserDefaults:
        """Return what a user in ``groups`` gets."""
        role = self.role_for(groups)
        return role.applied_to(self.defaults) if role else self.defaults


@dataclass(frozen=True, slots=True)
class KeyGeneration(Section):
    """``litellm.keyGeneration``: two told by ``/config``, and enforced only where set."""

    allow_unlimited_budget: v.Flag | None = key("keys without a budget", None, usual="false")
    team_required: v.Flag | None = key("no keys outside of a team", None, usual="true")
    key_types: Annotated[
        tuple[str, ...],
        v.some_of(v.texts, *KEY_TYPES, words=f"list of {v.either(KEY_TYPES)}", type="array"),
    ] = key("types of key that a request may ask for", ("llm_api",))


@dataclass(frozen=True, slots=True)
class _Switch(Section):
    """An object with a switch in it."""

    enabled: v.Flag = key("vector stores and MCP servers of teams", False)


@dataclass(frozen=True, slots=True)
class TeamAdmin(Section):
    """``litellm.teamAdmin``."""

    group: v.EntityRef | None = key("may manage teams", None, usual="nobody")
    allowed_models: v.Texts = key(
        "what a team may be given; openai/* is every model of openai/", ()
    )
    allowed_model_access_groups: v.Texts = key("groups of models likewise", ())
    max_budget_ceiling: v.Number = key(
        "USD, the highest budget of a team, and of a member in a team", 1000.0
    )
    allow_unlimited_budget: v.Flag = key("teams without a budget", False)
    allowed_vector_stores: v.Texts = key("ids or names; vector stores that a team may be given", ())
    allowed_mcp_servers: v.Texts = key("ids or names; MCP servers that a team may be given", ())
    allowed_mcp_access_groups: v.Texts = key(
        "access groups; every MCP server in one of them may be given too", ()
    )
    allow_team_delete: v.Flag = key("deleting teams", False)
    object_permissions: Annotated[bool, WrittenAs(_Switch, lambda written, _: written.enabled)] = (
        key("", False)
    )


@dataclass(frozen=True, slots=True)
class Display(Section):
    """``litellm.display``."""

    hide_team_budget_for_members: v.Flag = key(
        "for members, the team admins among them in teams that their group does not own", False
    )
    hide_team_budget_for_managers: v.Flag = key(
        "for team admins, in the teams that their group owns", False
    )


@dataclass(frozen=True, slots=True)
class Bridge(Section):
    """``litellm.bridge``: CLI clients with a Keycloak token."""

    enabled: v.Flag = key("needs an issuer", False)
    issuer: v.BaseUrl | None = key("the realm whose tokens count", None)
    client_id: v.Text = key("the client that tokens have to be for", "abby-cli")
    group: v.EntityRef | None = key(
        "whom in the catalog the bridge is open to", None, usual="everybody"
    )


@dataclass(frozen=True, slots=True)
class Opencode(Section):
    """``litellm.opencode``."""

    enabled: v.Flag = key("", False)
    key_duration: v.Duration = key("life of such a key", "30d")
    max_budget: v.Number = key("USD per key", 50.0)
    require_team: v.Flag = key("the key has to belong to a team", False)
    metadata: v.Anything = key("kept with the key", dict)


@dataclass(frozen=True, slots=True)
class _PermissionAttribute(StrictSection):
    """``permissionAttribute`` of an access restriction."""

    action: Annotated[
        tuple[str, ...],
        v.some_of(
            v.words,
            *("create", "read", "update", "delete"),
            words="create, read, update or delete, or a list of them",
            **v.ONE_OR_MORE,
        ),
    ] = key("", limits=True)


@dataclass(frozen=True, slots=True)
class AccessRestriction(StrictSection):
    """One of an external access entry's ``accessRestrictions``."""

    plugin: v.Text = key()
    # empty: no limit by name
    permissions: v.WordSet = key("", frozenset(), name="permission", limits=True)
    # empty: no limit by permissionAttribute.action
    actions: Annotated[
        frozenset[str],
        WrittenAs(_PermissionAttribute, lambda written, _: frozenset(written.action)),
    ] = key("", frozenset(), name="permissionAttribute")


def _each_plugin_once(restrictions: tuple[AccessRestriction, ...]) -> Any:
    plugins = [restriction.plugin for restriction in restrictions]
    for index, plugin in enumerate(plugins):
        if plugin in plugins[:index]:
            raise v.fault("the same plugin twice", at=(index, "plugin"))
    return restrictions


def _misplaced(_: Any) -> Any:
    raise v.fault("without effect here; it belongs beside options")


Restrictions = Annotated[
    tuple[AccessRestriction, ...], BeforeValidator(v.some), AfterValidator(_each_plugin_once)
]
# Of an entry's options; taken from the entry itself. None: the token may do everything.
_OfTheEntry = Annotated[
    tuple[AccessRestriction, ...] | None, BeforeValidator(_misplaced), SkipJsonSchema()
]


@dataclass(frozen=True, slots=True)
class StaticAccess(Section):
    """``options`` of ``externalAccess`` of type ``static``."""

    token: v.StaticToken = key("of type static", secret=True)
    subject: v.Subject = key("what such a caller is called")
    restrictions: _OfTheEntry = key("", None, name="accessRestrictions")


@dataclass(frozen=True, slots=True)
class LegacyAccess(Section):
    """``options`` of ``externalAccess`` of type ``legacy``, and ``backend.auth.keys``."""

    secret: v.Base64 = key("of type legacy", secret=True)  # decoded
    subject: v.Subject = key()
    restrictions: _OfTheEntry = key("", None, name="accessRestrictions")


@dataclass(frozen=True, slots=True)
class JwksAccess(Section):
    """``options`` of ``externalAccess`` of type ``jwks``."""

    url: v.UrlWithQuery = key("of type jwks")
    issuers: v.Words = key("", (), name="issuer", limits=True, usual="any")
    audiences: v.Words = key('never "backstage"', (), name="audience", limits=True, usual="any")
    algorithms: v.Algorithms = key(
        "", (), name="algorithm", limits=True, usual="any asymmetric one"
    )
    subject_prefix: v.Text | None = key("callers are called external:ci:SUB", None)
    restrictions: _OfTheEntry = key("", None, name="accessRestrictions")


ExternalAccess = StaticAccess | LegacyAccess | JwksAccess


@dataclass(frozen=True, slots=True)
class StaticPluginKey(Section):
    """One of ``backend.auth.pluginKeyStore.static.keys``; the first one signs."""

    key_id: v.Text = key("the first key signs")
    public_key_file: v.ExistingFile = key("SPKI")
    private_key_file: v.ExistingFile | None = key("PKCS #8, the first key needs it", None)
    algorithm: v.Algorithm = key("", "ES256")


@dataclass(frozen=True, slots=True)
class Cors(Section):
    """``backend.cors``, the options of the ``cors`` middleware of Express."""

    origins: v.TextOrTexts = key("globs", (), name="origin")
    methods: v.HeaderNames = key("", ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"))
    allowed_headers: v.HeaderNames | None = key("", None, usual="those asked for")
    exposed_headers: v.HeaderNames = key("", ())
    credentials: v.Flag = key("", False)
    max_age: v.Whole | None = key("seconds", None)


@dataclass(frozen=True, slots=True)
class _Connection(Section):
    """``backend.cache.connection`` with options."""

    url: v.RedisUrl = key("", secret=True)


@dataclass(frozen=True, slots=True)
class Cache(Section):
    """``backend.cache``: where the replicas of this service meet."""

    store: Annotated[str, one_of(*SHARED_STORES, *_OTHER_STORES)] = key("", "memory")
    # URL; None for memory
    connection: Annotated[
        v.RedisUrl | None, WrittenAs(_Connection, lambda written, _: written.url, bare=True)
    ] = key("for valkey too", None, secret=True)


@dataclass(frozen=True, slots=True)
class _Target(Section):
    """``target`` of an endpoint, where browsers have another than Backstage itself."""

    internal: v.Target | None = key("the one that is used, unless it is a DNS service record", None)
    external: v.Target | None = key(
        "for browsers; used where the internal one is a DNS service record", None
    )

    def used(self, _: object) -> str:
        """Return the target that this service can reach, if there is one."""
        internal = self.internal or ""
        return self.external if self.external and v.is_service_record(internal) else internal


@dataclass(frozen=True, slots=True)
class DiscoveryEndpoint(Section):
    """One of ``discovery.endpoints``.

    ``target`` is the internal one, or the external one where that is a DNS service record;
    "" where there is neither.
    """

    target: Annotated[v.Target, WrittenAs(_Target, _Target.used, bare=True)] = key()
    plugins: v.Texts = key('"*" is all others')


@dataclass(frozen=True, slots=True)
class Discovery:
    """Where each Backstage plugin is: ``discovery.endpoints``, else below Backstage's address."""

    backstage_url: str
    endpoints: tuple[DiscoveryEndpoint, ...] = ()

    def base_url(self, plugin: str) -> str:
        """Return the internal base URL of ``plugin``, without a trailing slash."""
        for wanted in (plugin, "*"):
            for endpoint in self.endpoints:
                if wanted in endpoint.plugins:
                    return endpoint.target.replace("{{pluginId}}", plugin).rstrip("/")
        return f"{self.backstage_url.rstrip('/')}/api/{plugin}"


@dataclass(frozen=True, slots=True)
class Timeouts(StrictSection):
    """``litellm.service.timeouts``, in seconds."""

    connect: v.Positive = key("seconds", 5.0)
    read: v.Positive = key("seconds, the longest silence", 30.0)
    total: v.Positive = key(
        "seconds, a whole request with all its calls; below gunicorn's graceful_timeout", 30.0
    )


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done."""

    amount: int
    seconds: int


def _rate(value: Any) -> Rate:
    if found := _RATE.fullmatch(v.text(value)):
        return Rate(int(found[1]), _SECONDS[found[2]])
    raise ValueError


_Requests = Annotated[
    Rate, v.Value(_rate, "number per second, minute, hour or day, as 100/minute", type="string")
]


@dataclass(frozen=True, slots=True)
class RateLimits(StrictSection):
    """``litellm.service.rateLimits``; nobody who uses the page meets them."""

    enabled: v.Flag = key("false, here or in place of the object: no limit at all", True)
    writes: _Requests = key("changes by one person", Rate(3000, 60), default="3000/minute")
    service_writes: _Requests = key("changes by one service", Rate(6000, 60), default="6000/minute")
    failed_tokens: _Requests = key(
        "tokens that do not hold, from one address", Rate(300, 60), default="300/minute"
    )


def _switched(value: Any) -> Any:
    return value if isinstance(value, dict) else RateLimits(enabled=v.flag(value))


@dataclass(frozen=True, slots=True)
class Logs(StrictSection):
    """``litellm.service.logs``, of our own entry points."""

    format: Annotated[str, one_of("json", "text")] | None = key(
        "", None, usual="json under gunicorn and text in development"
    )
    level: Annotated[str, one_of("debug", "info", "warning", "error")] = key("", "info")
    access: v.Flag = key("a line for each request", True)


@dataclass(frozen=True, slots=True)
class _Metrics(StrictSection):
    """``litellm.service.metrics``."""

    bind: v.Address | None = key("where Prometheus finds the metrics, never with the routes", None)


@dataclass(frozen=True, slots=True)
class Service(StrictSection):
    """``litellm.service``: what this service has beyond the original."""

    backstage_url: v.Url | None = key(
        "Backstage as the service reaches it, if not at backend.baseUrl", None
    )
    backstage_token: v.Header | None = key(
        "a static token for the catalog, if the service is not to sign its own", None, secret=True
    )
    plugin_id: v.PluginId = key("as which plugin it signs and is called", "litellm")
    user_ids: Annotated[str, one_of(ORIGINAL, UNAMBIGUOUS)] = key(
        "unambiguous refuses whom several people of the catalog share a LiteLLM id with", ORIGINAL
    )
    reserved_user_ids: v.Texts = key(
        "LiteLLM ids that are nobody's here, beside LiteLLM's own administrator, default_user_id",
        (),
    )
    # None: CACHE_SECONDS, and ACCOUNT_SECONDS for accounts; 0: nothing is kept.
    cache_seconds: v.Number | None = key(
        "how long answers of LiteLLM and Backstage are used again, 0 for never",
        None,
        usual="3, and 1 for accounts",
    )
    stale_seconds: v.Number = key(
        "how long beyond that reads are answered while LiteLLM is down", 0.0
    )
    rate_limits: Annotated[RateLimits, BeforeValidator(_switched)] = key(
        "How often somebody may, before they get 429 and a Retry-After; false instead of the "
        "object for no limit at all. Nobody who uses the page meets these.",
        RateLimits,
        also=[{"type": "boolean"}],
    )
    circuit_breaker: v.Flag = key(
        "leave an upstream alone that is down, and look for keys that were made and not delivered",
        True,
    )
    trusted_proxies: v.Whole = key(
        "reverse proxies in front of the service, whose X-Forwarded-For counts", 0
    )
    timeouts: Timeouts = key("", Timeouts)
    trust_environment: v.Flag = key(
        "take proxies, .netrc and CA bundles from the environment", False
    )
    ca_file: v.ExistingFile | None = key("CA bundle for LiteLLM and Backstage", None)
    logs: Logs = key(
        'Of "gunicorn app:app" and "python app.py"; an application that mounts the plugin has '
        "its own.",
        Logs,
    )
    metrics_bind: Annotated[
        tuple[str, int] | None, WrittenAs(_Metrics, lambda written, _: written.bind)
    ] = key("", None, name="metrics")
    # None: if the OTEL_ variables say where to
    tracing: v.Flag | None = key(
        "spans by OpenTelemetry",
        None,
        usual="true if OTEL_EXPORTER_OTLP_ENDPOINT or its kin is set",
    )
    strict_readiness: v.Flag = key(
        "/readyz fails while LiteLLM or Backstage is down, not only until both were reached",
        False,
    )
    key_file: v.File | None = key(
        "where the signing key is kept", None, usual="in the user's state folder"
    )


@dataclass(frozen=True, slots=True)
class _Audit(Section):
    group: v.EntityRef | None = key("may read the audit log", None, usual="nobody")


@dataclass(frozen=True, slots=True)
class LiteLLM(Section):
    """``litellm``."""

    base_url: v.BaseUrl = key("the LiteLLM proxy")  # without a trailing slash
    master_key: v.Header = key("never leaves the service", secret=True)
    public_base_url: v.Url | None = key("told to browsers instead of baseUrl", None)
    user_id_domain: v.Text | None = key("user:default/jane is jane@example.com at LiteLLM", None)
    provisioning: Provisioning = key("What a first visit creates at LiteLLM.", Provisioning)
    audit_group: Annotated[str | None, WrittenAs(_Audit, lambda written, _: written.group)] = key(
        "", None, name="audit"
    )  # entity ref; None: nobody
    key_generation: KeyGeneration = key(
        "allowUnlimitedBudget and teamRequired are told to the frontend, and enforced where they "
        "are set.",
        KeyGeneration,
    )
    key_policy: KeyPolicy = key(
        "Limits of keys, for everybody; docs/keys-and-identity.md tells all of it. What a request "
        "for a key leaves out is filled in, what goes beyond is refused. Without a key there is "
        "no limit.",
        KeyPolicy,
    )
    team_admin: TeamAdmin = key("Managing teams; needs permission.enabled too.", TeamAdmin)
    display: Display = key(
        "What is shown of a team's budget: a percentage takes the place of dollars.", Display
    )
    bridge: Bridge = key("Keys for command line clients, which come with a Keycloak token.", Bridge)
    opencode: Opencode = key(
        "/opencode/connect, which sends a key to a tool on the user's machine.", Opencode
    )
    service: Service = key(
        "What this service has and the npm plugin has not. A key that is not listed here is an "
        "error.",
        Service,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(LiteLLM):
    """Everything the service was told: ``litellm``, and what it reads of Backstage's own keys."""

    discovery: Discovery
    permission_enabled: bool = False
    external_access: tuple[ExternalAccess, ...] = ()
    plugin_keys: tuple[StaticPluginKey, ...] = ()  # empty: one key per host
    cors: Cors | None = None
    cache: Cache = field(default_factory=Cache)
    # backend.auditor.severityLogLevelMappings, as levels of Python's logging. Backstage's own
    # default for "low" hides those events.
    audit_levels: Mapping[str, int] = field(
        default_factory=lambda: dict.fromkeys(("low", "medium", "high", "critical"), logging.INFO)
    )

    @property
    def team_management(self) -> bool:
        """Whether teams can be administered at all."""
        return self.permission_enabled and self.team_admin.group is not None

    def secrets(self) -> Iterator[str]:
        """Yield what must never be shown, in the forms that it may come up in."""
        yield self.master_key
        if self.service.backstage_token is not None:
            yield self.service.backstage_token
        for entry in self.external_access:
            match entry:
                case StaticAccess():
                    yield entry.token
                case LegacyAccess():
                    yield base64.b64encode(entry.secret).decode()
                    yield entry.secret.decode("utf-8", "replace")
                case JwksAccess():
                    pass
        if self.cache.connection is not None:
            yield self.cache.connection
            yield unquote(urlsplit(self.cache.connection).password or "")
