"""The settings: name, type, default and meaning of each.

A field is a key of ``app-config.yaml``, where its name is in camelCase unless ``name`` is given
here. Validation, ``config check``, the JSON Schema and the reference in
``docs/configuration.md`` all come from these declarations. Amounts of money are USD.

The classes are plain dataclasses: only values from a configuration are validated.
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
from litellm_plugin.config.database import Database
from litellm_plugin.config.values import WrittenAs, one_of

CACHE_SECONDS = 3.0
ACCOUNT_SECONDS = 1.0  # for accounts; both are the defaults of cacheSeconds

LLM_API = "llm_api"  # LiteLLM's type of keys that call models and manage nothing
KEY_TYPES = (LLM_API, "read_only", "default")  # not "management"

ORIGINAL, UNAMBIGUOUS = "original", "unambiguous"  # values of userIds

ANY_TOOL = "*"  # in perTool: every tool without an entry of its own

SHARED_STORES = ("redis", "valkey")
_OTHER_STORES = ("memory", "none", "memcache", "infinispan")  # of Backstage, past and present


LONG_TARGET = 24  # characters of a webhook's path and query that may be a secret

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,8}) ?(?:/|per) ?(second|minute|hour|day)")


class Section:
    """An object of the configuration; unknown keys are ignored, others may read them."""

    __slots__ = ()
    __pydantic_config__: ClassVar = ConfigDict(alias_generator=to_camel)


class StrictSection(Section):
    """An object of the configuration in which an unknown key is an error."""

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
    """Declare a setting; a setting without a default is required.

    Args:
        meaning: What the setting is for, as the reference and editors show it.
        default: The value where the setting is missing; a class for a section with defaults.
        name: The name in the configuration, where it is not the field's name.
        secret: Whether the value must not be shown.
        keywords: More keywords of the setting's JSON Schema.
    """
    more = {**keywords, **({"writeOnly": True} if secret else {})}
    if default is dict:
        more["default"] = {}
    metadata: dict[str, Any] = {"description": meaning, "json_schema_extra": more}
    if name is not None:
        metadata["alias"] = name
    given: Any = {"default_factory" if isinstance(default, type) else "default": default}
    return field(**given, repr=not secret, metadata=metadata)


# A limit that is written but missing, because a variable is not set or the value is null, is
# an error: ignoring it would allow more than was meant.
def _limit(meaning: str) -> Any:
    return key(meaning, None, limits=True)


def _given(value: Any, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``value`` that the configuration sets."""
    return {f.name: getattr(value, f.name) for f in fields(value) if to_camel(f.name) in written}


@dataclass(frozen=True, slots=True)
class UserDefaults(Section):
    """``litellm.provisioning.defaults``: what a first visit creates.

    The empty string and zero are values, with which a role overrides a default.
    """

    max_budget: v.Number | None = key("USD per budgetDuration", 10.0)
    budget_duration: v.Duration = key("time after which the spend is reset to 0", "30d")
    models: v.Texts = key("empty allows every model of the proxy", (), emptyIsAll=True)
    teams: v.Texts = key("ids of LiteLLM teams to join", ())
    tpm_limit: v.Whole | None = key("tokens per minute", None)
    rpm_limit: v.Whole | None = key("requests per minute", None)
    user_role: v.Text = key("LiteLLM's role", "internal_user")
    metadata: v.Anything = key("kept with the user", dict)


@dataclass(frozen=True, slots=True)
class KeyPolicy(StrictSection):
    """``litellm.keyPolicy``: the limits of virtual keys; None is no limit."""

    max_duration: v.DurationLimit = _limit("longest lifetime from now on")
    max_budget: v.PositiveLimit = _limit("USD, highest budget of a key")
    # None: a key whose budget is limited may have no budget_duration
    min_budget_duration: v.ResetLimit = _limit(
        "shortest budget_duration under maxBudget; without it, none is allowed"
    )
    max_tpm_limit: v.PositiveWholeLimit = _limit("highest limit of tokens per minute")
    max_rpm_limit: v.PositiveWholeLimit = _limit("highest limit of requests per minute")
    allowed_models: v.TextsLimit = _limit("models and access groups that a key may have")
    max_active_keys: v.WholeLimit = _limit(
        "keys of one LiteLLM user that are neither expired nor blocked"
    )


def _without_defaults(schema: dict[str, Any]) -> None:
    # The defaults of a role are those of litellm.provisioning.defaults.
    for inner in schema["properties"].values():
        inner.pop("default", None)


@dataclass(frozen=True, slots=True)
class _WrittenRole(UserDefaults):
    """One of ``litellm.provisioning.roles`` as it is written in the configuration."""

    __pydantic_config__: ClassVar = ConfigDict(
        alias_generator=to_camel, json_schema_extra=_without_defaults
    )

    budget_duration: v.BlankDuration = key("", "")
    user_role: v.BlankText = key("", "")
    metadata: v.Anything = key("merged with that of defaults", dict)
    group: v.BlankEntityRef = key("nobody has a role without a group", "")
    key_policy: Annotated[Mapping[str, Any], WrittenAs(KeyPolicy, _given)] = key(
        "limits that replace those of litellm.keyPolicy for this group; unlimited removes one", dict
    )

    def role(self, written: Mapping[str, Any]) -> Role:
        """Return the role, with the fields that the configuration sets."""
        overrides = _given(self, written)
        for name in ("group", "metadata", "key_policy"):
            overrides.pop(name, None)
        return Role(self.group, overrides, self.metadata, self.key_policy)


@dataclass(frozen=True, slots=True)
class Role:
    """One of ``litellm.provisioning.roles``: a group, and the settings of its members."""

    group: str  # entity ref; "": nobody has the role
    overrides: Mapping[str, Any]  # field names of UserDefaults to values, metadata left out
    metadata: Mapping[str, Any] = field(default_factory=dict)  # merged over the defaults'
    # Field names of KeyPolicy to values, which replace those of litellm.keyPolicy.
    key_policy: Mapping[str, Any] = field(default_factory=dict)

    def applied_to(self, defaults: UserDefaults) -> UserDefaults:
        """Return ``defaults``, overridden by this role's fields."""
        merged = {**defaults.metadata, **self.metadata}
        return replace(defaults, **self.overrides, metadata=merged)


@dataclass(frozen=True, slots=True)
class Sync(StrictSection):
    """``litellm.provisioning.sync``: what a role grants follows the groups of its users."""

    enabled: v.Flag = key("compare accounts with their roles on visits", False)
    mode: Annotated[str, one_of("report", "apply")] = key(
        "report logs the differences, apply removes them", "report"
    )
    visit_interval: v.Seconds = key("shortest time between two comparisons", 600.0, default="10m")
    on_excess_keys: Annotated[str, one_of("report", "block")] = key(
        "what happens to keys that the role's models or teams no longer allow", "report"
    )

    @property
    def applies(self) -> bool:
        """Whether differences are removed, not only reported."""
        return self.mode == "apply"


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
    sync: Sync = key("Access that follows the groups; see docs/sync.md.", Sync)

    def role_for(self, groups: frozenset[str]) -> Role | None:
        """Return the first role whose group is among ``groups`` (entity refs)."""
        return next((role for role in self.roles if role.group in groups), None)

    def for_groups(self, groups: frozenset[str]) -> UserDefaults:
        """Return what the first visit of a user in ``groups`` creates."""
        role = self.role_for(groups)
        return role.applied_to(self.defaults) if role else self.defaults


@dataclass(frozen=True, slots=True)
class KeyGeneration(Section):
    """``litellm.keyGeneration``; the first two are shown by ``/config``, and enforced where set."""

    allow_unlimited_budget: v.Flag | None = key("keys without a budget", None, usual="false")
    team_required: v.Flag | None = key("no keys outside of a team", None, usual="true")
    key_types: Annotated[
        tuple[str, ...],
        v.Value(v.texts, f"list of {v.either(KEY_TYPES)}", type="array"),
        v.some_of(*KEY_TYPES),
    ] = key("types of key that a request may ask for", ("llm_api",))


@dataclass(frozen=True, slots=True)
class _Switch(Section):
    """``litellm.teamAdmin.objectPermissions``."""

    enabled: v.Flag = key("vector stores and MCP servers of teams", False)


@dataclass(frozen=True, slots=True)
class TeamAdmin(Section):
    """``litellm.teamAdmin``."""

    group: v.EntityRef | None = key("may manage teams", None, usual="nobody")
    allowed_models: v.Texts = key(
        "models that a team may have; openai/* is every model of openai/", ()
    )
    allowed_model_access_groups: v.Texts = key("access groups of models that a team may have", ())
    max_budget_ceiling: v.Number = key(
        "USD, the highest budget of a team, of a member in a team, and of a team key", 1000.0
    )
    allow_unlimited_budget: v.Flag = key("teams without a budget", False)
    allowed_vector_stores: v.Texts = key("ids or names of vector stores that a team may have", ())
    allowed_mcp_servers: v.Texts = key("ids or names of MCP servers that a team may have", ())
    allowed_mcp_access_groups: v.Texts = key(
        "access groups whose MCP servers a team may have, too", ()
    )
    allow_team_delete: v.Flag = key("deleting teams", False)
    object_permissions: Annotated[bool, WrittenAs(_Switch, lambda written, _: written.enabled)] = (
        key("", False)
    )


@dataclass(frozen=True, slots=True)
class Display(Section):
    """``litellm.display``."""

    hide_team_budget_for_members: v.Flag = key(
        "for members; also for team admins, in teams that their group does not own", False
    )
    hide_team_budget_for_managers: v.Flag = key(
        "for team admins, in the teams that their group owns", False
    )


@dataclass(frozen=True, slots=True)
class MemberBreakdown(Section):
    """``litellm.teamUsage.memberBreakdown``."""

    enabled: v.Flag = key(
        "usage by member, for team admins, viewerRoles, and members with the permission "
        "litellm.team.usage.read, which needs permission.enabled",
        False,
    )
    viewer_roles: v.Texts = key(
        "LiteLLM's roles in a team, such as admin, whose members may read it", ()
    )


@dataclass(frozen=True, slots=True)
class TeamUsage(Section):
    """``litellm.teamUsage``."""

    member_breakdown: MemberBreakdown = key("", MemberBreakdown)


@dataclass(frozen=True, slots=True)
class ToolBudget(StrictSection):
    """An entry of ``litellm.bridge.keys.perTool``: the budget of a tool's keys."""

    tool: v.ToolName = key('name of the tool; "*" is every tool without an entry of its own')
    max_budget: v.Positive = key("USD, highest budget of a key, and the default")
    budget_duration: v.Period | None = key(
        "time after which the spend is reset",
        None,
        limits=True,
        usual="each new key has the whole budget",
    )


def _each_once(name: str) -> AfterValidator:
    """Return the check that no two entries of a list have the same value of a field."""

    def check(entries: tuple[Any, ...]) -> tuple[Any, ...]:
        values = [getattr(entry, name) for entry in entries]
        for index, value in enumerate(values):
            if value in values[:index]:
                raise v.fault(f"the same {name} twice", at=(index, name))
        return entries

    return AfterValidator(check)


@dataclass(frozen=True, slots=True)
class BridgeKeys(StrictSection):
    """``litellm.bridge.keys``: short-lived keys, of tools or without a tool."""

    default_ttl: v.Period = key("lifetime of a key whose request has no duration", "8h")
    max_ttl: v.Period = key("longest lifetime of a key", "24h", limits=True)
    per_tool: Annotated[tuple[ToolBudget, ...], _each_once("tool")] = key(
        "budgets of tool keys", ()
    )

    def budget_of(self, tool: str) -> ToolBudget | None:
        """Return the entry of ``perTool`` for a tool; None where its keys have no budget."""
        by_name = {budget.tool: budget for budget in self.per_tool}
        return by_name.get(tool, by_name.get(ANY_TOOL))


def _within_max_ttl(keys: BridgeKeys | None) -> BridgeKeys | None:
    if keys is not None and v.seconds(keys.default_ttl) > v.seconds(keys.max_ttl):
        raise v.fault(
            f"{keys.default_ttl} is longer than maxTtl, {keys.max_ttl}", at=("defaultTtl",)
        )
    return keys


@dataclass(frozen=True, slots=True)
class Bridge(Section):
    """``litellm.bridge``: CLI clients with a Keycloak token."""

    enabled: v.Flag = key("needs an issuer", False)
    issuer: v.BaseUrl | None = key("the Keycloak realm that issues the tokens", None)
    client_id: v.Text = key("the client that the tokens are issued for", "abby-cli")
    group: v.EntityRef | None = key(
        "only members of this group may use the bridge", None, usual="everybody"
    )
    keys: Annotated[BridgeKeys | None, AfterValidator(_within_max_ttl)] = key(
        "short-lived keys: every key of the bridge expires, and requests may name tool and "
        "machine; {} for the defaults",
        None,
    )


@dataclass(frozen=True, slots=True)
class Opencode(Section):
    """``litellm.opencode``."""

    enabled: v.Flag = key("", False)
    key_duration: v.Duration = key("lifetime of such a key", "30d")
    max_budget: v.Number = key("USD per key", 50.0)
    require_team: v.Flag = key("the key must belong to a team", False)
    metadata: v.Anything = key("kept with the key", dict)


@dataclass(frozen=True, slots=True)
class _PermissionAttribute(StrictSection):
    """``permissionAttribute`` of an access restriction."""

    action: v.Actions = key("", limits=True)


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


def _misplaced(_: Any) -> Any:
    raise v.fault("without effect here; it belongs beside options")


Restrictions = Annotated[
    tuple[AccessRestriction, ...], BeforeValidator(v.some), _each_once("plugin")
]
# Only allowed beside an entry's options, from where it is copied. None: no restriction.
_OfTheEntry = Annotated[
    tuple[AccessRestriction, ...] | None, BeforeValidator(_misplaced), SkipJsonSchema()
]


@dataclass(frozen=True, slots=True)
class StaticAccess(Section):
    """``options`` of ``externalAccess`` of type ``static``."""

    token: v.StaticToken = key("of type static", secret=True)
    subject: v.Subject = key("the name of such callers")
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
    subject_prefix: v.Text | None = key("callers are named external:ci:SUB", None)
    restrictions: _OfTheEntry = key("", None, name="accessRestrictions")


ExternalAccess = StaticAccess | LegacyAccess | JwksAccess


@dataclass(frozen=True, slots=True)
class StaticPluginKey(Section):
    """One of ``backend.auth.pluginKeyStore.static.keys``; the first one signs."""

    key_id: v.Text = key("the first key signs, all are published")
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
    """``backend.cache``: the store that the replicas of this service share."""

    store: Annotated[str, one_of(*SHARED_STORES, *_OTHER_STORES)] = key("", "memory")
    # URL; None for memory
    connection: Annotated[
        v.RedisUrl | None, WrittenAs(_Connection, lambda written, _: written.url, bare=True)
    ] = key("for valkey too", None, secret=True)


@dataclass(frozen=True, slots=True)
class _Target(Section):
    """``target`` of an endpoint with different addresses for Backstage and for browsers."""

    internal: v.Target | None = key("used unless it is a DNS service record", None)
    external: v.Target | None = key(
        "for browsers; used if the internal one is a DNS service record", None
    )

    def used(self, _: object) -> str:
        """Return the target that this service can reach; "" where there is none."""
        internal = self.internal or ""
        return self.external if self.external and v.is_service_record(internal) else internal


@dataclass(frozen=True, slots=True)
class DiscoveryEndpoint(Section):
    """One of ``discovery.endpoints``.

    ``target`` is the internal one, or the external one if that is a DNS service record; ""
    where there is neither.
    """

    target: Annotated[v.Target, WrittenAs(_Target, _Target.used, bare=True)] = key()
    plugins: v.Texts = key('"*" is all others')


@dataclass(frozen=True, slots=True)
class Discovery:
    """The address of each Backstage plugin: ``discovery.endpoints``, else below Backstage's own."""

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
    read: v.Positive = key("seconds without any byte", 30.0)
    total: v.Positive = key(
        "seconds for a request with all its calls; less than gunicorn's graceful_timeout", 30.0
    )


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate limit: ``amount`` requests in ``seconds``."""

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
    """``litellm.service.rateLimits``; normal use of the page stays below them."""

    enabled: v.Flag = key(
        "false, here or in place of the object, switches all rate limits off", True
    )
    writes: _Requests = key("changes by one person", Rate(3000, 60), default="3000/minute")
    service_writes: _Requests = key("changes by one service", Rate(6000, 60), default="6000/minute")
    failed_tokens: _Requests = key(
        "invalid tokens from one address", Rate(300, 60), default="300/minute"
    )


def _switched(value: Any) -> Any:
    return value if isinstance(value, dict) else RateLimits(enabled=v.flag(value))


@dataclass(frozen=True, slots=True)
class Logs(StrictSection):
    """``litellm.service.logs``."""

    format: Annotated[str, one_of("json", "text")] | None = key(
        "", None, usual="json under gunicorn and text in development"
    )
    level: Annotated[str, one_of("debug", "info", "warning", "error")] = key("", "info")
    access: v.Flag = key("a line for each request", True)


@dataclass(frozen=True, slots=True)
class _Metrics(StrictSection):
    """``litellm.service.metrics``."""

    bind: v.Address | None = key(
        "address at which Prometheus reads the metrics; never that of the routes", None
    )


@dataclass(frozen=True, slots=True)
class Jobs(StrictSection):
    """``litellm.service.jobs``: the commands sync, offboard, notify and prune."""

    per_second: v.Positive = key("calls to LiteLLM per second that a job makes at most", 20.0)


@dataclass(frozen=True, slots=True)
class Service(StrictSection):
    """``litellm.service``: settings of this service that the npm plugin does not have."""

    backstage_url: v.Url | None = key(
        "Backstage's address for this service, if not backend.baseUrl", None
    )
    backstage_token: v.Header | None = key(
        "a static token for the catalog, in place of tokens that the service signs",
        None,
        secret=True,
    )
    plugin_id: v.PluginId = key(
        "the plugin id in tokens that the service signs and accepts", "litellm"
    )
    user_ids: Annotated[str, one_of(ORIGINAL, UNAMBIGUOUS)] = key(
        "unambiguous refuses a user where several people of the catalog share the LiteLLM id",
        ORIGINAL,
    )
    reserved_user_ids: v.Texts = key(
        "LiteLLM ids that are refused; that of LiteLLM's administrator, default_user_id, always is",
        (),
    )
    # None: CACHE_SECONDS, and ACCOUNT_SECONDS for accounts; 0: no cache.
    cache_seconds: v.Number | None = key(
        "TTL of cached answers of LiteLLM and Backstage, 0 for no cache",
        None,
        usual="3, and 1 for accounts",
    )
    stale_seconds: v.Number = key(
        "how long after that a cached answer is still used while LiteLLM is down", 0.0
    )
    rate_limits: Annotated[RateLimits, BeforeValidator(_switched)] = key(
        "Requests beyond a limit get 429 and Retry-After; false instead of the object switches "
        "all limits off. Normal use of the page stays below them.",
        RateLimits,
        also=[{"type": "boolean"}],
    )
    circuit_breaker: v.Flag = key(
        "stop calling an upstream that is down for a while, and look for undelivered keys",
        True,
    )
    trusted_proxies: v.Whole = key(
        "number of reverse proxies in front of the service that set X-Forwarded-For", 0
    )
    timeouts: Timeouts = key("", Timeouts)
    trust_environment: v.Flag = key(
        "take proxies, .netrc and CA bundles from the environment", False
    )
    ca_file: v.ExistingFile | None = key("CA bundle for LiteLLM and Backstage", None)
    logs: Logs = key(
        'For "gunicorn app:app" and "python app.py"; an application that mounts the plugin '
        "configures its own.",
        Logs,
    )
    metrics_bind: Annotated[
        tuple[str, int] | None, WrittenAs(_Metrics, lambda written, _: written.bind)
    ] = key("", None, name="metrics")
    # None: true where an OTEL_ variable names an endpoint
    tracing: v.Flag | None = key(
        "spans by OpenTelemetry",
        None,
        usual="true if OTEL_EXPORTER_OTLP_ENDPOINT or a similar variable is set",
    )
    strict_readiness: v.Flag = key(
        "/readyz fails whenever LiteLLM or Backstage is down, not only before both were up once",
        False,
    )
    key_file: v.File | None = key(
        "file of the signing key", None, usual="in the user's state folder"
    )
    jobs: Jobs = key("", Jobs)


@dataclass(frozen=True, slots=True)
class Audit(Section):
    """``litellm.audit``."""

    group: v.EntityRef | None = key("may read the audit log", None, usual="nobody")
    store: v.Flag = key("keep audit events in the database, and show them in /audit", False)
    retention: v.Seconds = key("how long the database keeps them", 400 * 86_400.0, default="400d")


@dataclass(frozen=True, slots=True)
class Usage(Section):
    """``litellm.usage``."""

    store: v.Flag = key("keep the usage of past days in the database; see docs/caching.md", False)


@dataclass(frozen=True, slots=True)
class Offboarding(StrictSection):
    """``litellm.offboarding``: the accounts of people who have left the catalog."""

    enabled: v.Flag = key(
        "refuse to create accounts of leavers, and to unblock keys that offboarding blocked", False
    )
    grace: v.Seconds = key(
        "how long an entity has to be missing in the catalog", 86_400.0, default="24h"
    )
    max_share: v.Number = key(
        "percent of the accounts that one run may block, and at least 3", 10.0
    )


@dataclass(frozen=True, slots=True)
class Webhook(StrictSection):
    """``litellm.notifications.webhook``."""

    url: v.UrlWithQuery = key("gets each notice as JSON, by POST", secret=True)
    secret: v.WebhookSecret = key("signs the notices, as Standard Webhooks does", secret=True)

    def secrets(self) -> Iterator[str]:
        """Yield the secrets, in each form in which they may appear in a text."""
        yield self.secret
        yield self.secret.removeprefix("whsec_")
        yield self.url
        # Some services know their clients by a long path or query. A short path, such as
        # /litellm, is in many texts.
        parts = urlsplit(self.url)
        target = f"{parts.path}?{parts.query}".rstrip("?")
        if len(target) >= LONG_TARGET:
            yield target


@dataclass(frozen=True, slots=True)
class Notifications(StrictSection):
    """``litellm.notifications``: warnings before a budget or a key ends."""

    enabled: v.Flag = key("let litellm-plugin notify --apply send notices", False)
    budget_thresholds: Annotated[
        tuple[float, ...], v.Value(v.percentages, "list of numbers from 1 to 100", type="array")
    ] = key("percent of a budget at which a notice is sent", (80.0, 100.0), default=[80, 100])
    key_expiry: Annotated[
        tuple[float, ...], v.Value(v.spans, "list of durations like 7d", type="array")
    ] = key(
        "times before the end of a key at which a notice is sent",
        (604_800.0, 86_400.0),
        default=["7d", "1d"],
    )
    backstage: v.Flag = key("send notices to people, by Backstage's notifications", True)
    webhook: Webhook | None = key("", None)

    @property
    def soft_share(self) -> float | None:
        """The lowest threshold, as a share of the budget from 0 to 1; None where none is sent."""
        return min(self.budget_thresholds, default=0.0) / 100 or None if self.enabled else None


@dataclass(frozen=True, slots=True)
class LiteLLM(Section):
    """``litellm``."""

    base_url: v.BaseUrl = key("the LiteLLM proxy")  # without a trailing slash
    master_key: v.Header = key("LiteLLM's master key, which is only sent to LiteLLM", secret=True)
    public_base_url: v.Url | None = key("address shown to browsers in place of baseUrl", None)
    user_id_domain: v.Text | None = key("user:default/jane is jane@example.com at LiteLLM", None)
    provisioning: Provisioning = key("What a first visit creates at LiteLLM.", Provisioning)
    audit: Audit = key("", Audit)
    usage: Usage = key("", Usage)
    offboarding: Offboarding = key(
        "Blocks the keys of people who have left; see docs/offboarding.md.", Offboarding
    )
    notifications: Notifications = key(
        "Warnings before a budget or a key ends; see docs/notifications.md.", Notifications
    )
    key_generation: KeyGeneration = key(
        "The frontend is shown allowUnlimitedBudget and teamRequired; the service enforces them "
        "where they are set.",
        KeyGeneration,
    )
    key_policy: KeyPolicy = key(
        "Limits of keys, for everybody; see docs/keys-and-identity.md. A request for a key gets "
        "the limits for fields that it leaves out, and is refused where it exceeds a limit. A "
        "setting that is missing is no limit.",
        KeyPolicy,
    )
    team_admin: TeamAdmin = key("Managing teams; needs permission.enabled too.", TeamAdmin)
    display: Display = key(
        "Which users see a team's budget as a percentage in place of dollars.", Display
    )
    team_usage: TeamUsage = key("Usage of a team by member; see docs/charge-back.md.", TeamUsage)
    bridge: Bridge = key("Keys for command-line clients with a Keycloak token.", Bridge)
    opencode: Opencode = key(
        "/opencode/connect, which sends a key to a program on the user's machine.", Opencode
    )
    service: Service = key(
        "Settings that the npm plugin does not have. A key that is not listed here is an error.",
        Service,
    )

    @property
    def uses_store(self) -> bool:
        """Whether anything is on that needs the store."""
        return (
            self.audit.store
            or self.usage.store
            or self.provisioning.sync.enabled
            or self.offboarding.enabled
            or self.notifications.enabled
            or (self.bridge.enabled and self.bridge.keys is not None)  # for prune
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(LiteLLM):
    """All settings: ``litellm``, and those of Backstage's own keys that this service reads."""

    discovery: Discovery
    permission_enabled: bool = False
    external_access: tuple[ExternalAccess, ...] = ()
    plugin_keys: tuple[StaticPluginKey, ...] = ()  # empty: one key per host
    cors: Cors | None = None
    cache: Cache = field(default_factory=Cache)
    database: Database = field(default_factory=Database)  # of the store
    # backend.auditor.severityLogLevelMappings, as levels of Python's logging. Backstage's
    # default for "low", debug, would hide those events.
    audit_levels: Mapping[str, int] = field(
        default_factory=lambda: dict.fromkeys(("low", "medium", "high", "critical"), logging.INFO)
    )

    @property
    def team_management(self) -> bool:
        """Whether team management is on."""
        return self.permission_enabled and self.team_admin.group is not None

    def secrets(self) -> Iterator[str]:
        """Yield the secrets, in each form in which they may appear in a text."""
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
        if self.notifications.webhook is not None:
            yield from self.notifications.webhook.secrets()
        yield from self.database.secrets()
        if self.cache.connection is not None:
            yield self.cache.connection
            yield unquote(urlsplit(self.cache.connection).password or "")
