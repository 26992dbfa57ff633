"""The settings, typed and frozen; field by field what ``app-config.yaml`` says.

Every class names the key it stands for. ``loader`` fills them; nothing here
reads a file or the environment. Amounts of money are USD.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class UserDefaults:
    """``litellm.provisioning.defaults``: what a first visit creates.

    A role may blank a field, so the empty string and zero are values here.
    """

    max_budget: float | None = 10.0  # USD per budget_duration
    budget_duration: str = "30d"
    models: tuple[str, ...] = ()  # empty: every model of the proxy
    teams: tuple[str, ...] = ()  # LiteLLM team ids
    tpm_limit: int | None = None  # tokens per minute
    rpm_limit: int | None = None  # requests per minute
    user_role: str = "internal_user"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """``litellm.keyPolicy``: the ceilings of virtual keys; None is no ceiling."""

    max_duration: str | None = None  # such as 30d
    max_budget: float | None = None  # USD per key
    min_budget_duration: str | None = None  # None: under a max_budget none may begin anew
    max_tpm_limit: int | None = None  # tokens per minute
    max_rpm_limit: int | None = None  # requests per minute
    allowed_models: tuple[str, ...] | None = None  # names and access groups
    max_active_keys: int | None = None  # per LiteLLM user


@dataclass(frozen=True, slots=True)
class Role:
    """One of ``litellm.provisioning.roles``: a group, and what differs for it."""

    group: str  # entity ref
    overrides: Mapping[str, Any]  # field names of UserDefaults to values, metadata left out
    metadata: Mapping[str, Any] = field(default_factory=dict)  # merged over the defaults'
    # Field names of KeyPolicy to values, which replace those of litellm.keyPolicy.
    key_policy: Mapping[str, Any] = field(default_factory=dict)

    def applied_to(self, defaults: UserDefaults) -> UserDefaults:
        """Return ``defaults`` with this role's fields in place."""
        merged = {**defaults.metadata, **self.metadata}
        return replace(defaults, **self.overrides, metadata=merged)


@dataclass(frozen=True, slots=True)
class Provisioning:
    """``litellm.provisioning``."""

    enabled: bool = False
    defaults: UserDefaults = field(default_factory=UserDefaults)
    roles: tuple[Role, ...] = ()  # the first whose group the user is in wins

    def role_for(self, groups: frozenset[str]) -> Role | None:
        """Return the first role whose group is among ``groups`` (entity refs)."""
        return next((role for role in self.roles if role.group in groups), None)

    def for_groups(self, groups: frozenset[str]) -> UserDefaults:
        """Return what a user in ``groups`` gets."""
        role = self.role_for(groups)
        return role.applied_to(self.defaults) if role else self.defaults


LLM_API = "llm_api"  # LiteLLM's type of a key that is for models, and for no management
KEY_TYPES = (LLM_API, "read_only", "default")  # not "management"


@dataclass(frozen=True, slots=True)
class KeyGeneration:
    """``litellm.keyGeneration``: two told by ``/config``, and enforced only where set."""

    allow_unlimited_budget: bool | None = None
    team_required: bool | None = None
    key_types: tuple[str, ...] = (LLM_API,)  # of KEY_TYPES; what may be asked for


@dataclass(frozen=True, slots=True)
class TeamAdmin:
    """``litellm.teamAdmin``."""

    group: str | None = None  # entity ref
    allowed_models: tuple[str, ...] = ()
    allowed_model_access_groups: tuple[str, ...] = ()
    max_budget_ceiling: float = 1000.0  # USD
    allow_unlimited_budget: bool = False
    allowed_vector_stores: tuple[str, ...] = ()
    allowed_mcp_servers: tuple[str, ...] = ()
    allowed_mcp_access_groups: tuple[str, ...] = ()
    allow_team_delete: bool = False
    object_permissions: bool = False  # objectPermissions.enabled


@dataclass(frozen=True, slots=True)
class Display:
    """``litellm.display``."""

    hide_team_budget_for_members: bool = False
    hide_team_budget_for_managers: bool = False


@dataclass(frozen=True, slots=True)
class Bridge:
    """``litellm.bridge``: CLI clients with a Keycloak token."""

    enabled: bool = False
    issuer: str | None = None
    client_id: str = "abby-cli"
    group: str | None = None  # entity ref; None: everybody with a token


@dataclass(frozen=True, slots=True)
class Opencode:
    """``litellm.opencode``."""

    enabled: bool = False
    key_duration: str = "30d"
    max_budget: float = 50.0  # USD
    require_team: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccessRestriction:
    """One of an external access entry's ``accessRestrictions``."""

    plugin: str
    permissions: frozenset[str] = frozenset()  # empty: no limit by name
    actions: frozenset[str] = frozenset()  # empty: no limit by permissionAttribute.action


@dataclass(frozen=True, slots=True)
class StaticAccess:
    """``externalAccess`` of type ``static``."""

    token: str = field(repr=False)
    subject: str
    restrictions: tuple[AccessRestriction, ...] | None = None  # None: everything


@dataclass(frozen=True, slots=True)
class LegacyAccess:
    """``externalAccess`` of type ``legacy``, and ``backend.auth.keys``."""

    secret: bytes = field(repr=False)  # decoded
    subject: str
    restrictions: tuple[AccessRestriction, ...] | None = None


@dataclass(frozen=True, slots=True)
class JwksAccess:
    """``externalAccess`` of type ``jwks``."""

    url: str
    issuers: tuple[str, ...] = ()  # empty: any
    audiences: tuple[str, ...] = ()  # empty: any
    algorithms: tuple[str, ...] = ()  # empty: any asymmetric one
    subject_prefix: str | None = None
    restrictions: tuple[AccessRestriction, ...] | None = None


ExternalAccess = StaticAccess | LegacyAccess | JwksAccess


@dataclass(frozen=True, slots=True)
class StaticPluginKey:
    """One of ``backend.auth.pluginKeyStore.static.keys``; the first one signs."""

    key_id: str
    public_key_file: Path
    private_key_file: Path | None
    algorithm: str = "ES256"


@dataclass(frozen=True, slots=True)
class Cors:
    """``backend.cors``, the options of the ``cors`` middleware of Express."""

    origins: tuple[str, ...]  # globs
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE")
    allowed_headers: tuple[str, ...] | None = None  # None: those the browser asks for
    exposed_headers: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int | None = None  # seconds


@dataclass(frozen=True, slots=True)
class Cache:
    """``backend.cache``: where the replicas of this service meet."""

    store: str = "memory"  # memory, redis or valkey
    connection: str | None = field(default=None, repr=False)  # URL; None for memory


@dataclass(frozen=True, slots=True)
class DiscoveryEndpoint:
    """One of ``discovery.endpoints``.

    ``target`` is the internal one, or the external one where that is a DNS service record.
    """

    target: str
    plugins: tuple[str, ...]


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
class Timeouts:
    """``litellm.service.timeouts``, in seconds."""

    connect: float = 5.0
    read: float = 30.0  # longest silence
    total: float = 30.0  # a whole request, with all its calls


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done."""

    amount: int
    seconds: int


@dataclass(frozen=True, slots=True)
class RateLimits:
    """``litellm.service.rateLimits``; nobody who uses the page meets them."""

    enabled: bool = True
    writes: Rate = Rate(3000, 60)  # changes by one person
    service_writes: Rate = Rate(6000, 60)  # changes by one service, which speaks for many
    failed_tokens: Rate = Rate(300, 60)  # from one address


@dataclass(frozen=True, slots=True)
class Logs:
    """``litellm.service.logs``, of our own entry points."""

    format: str | None = None  # json or text; None: json under gunicorn, text in development
    level: str = "info"  # debug, info, warning or error
    access: bool = True  # a line for each request


CACHE_SECONDS = 3.0
ACCOUNT_SECONDS = 1.0  # accounts; both unless cacheSeconds is configured

ORIGINAL, UNAMBIGUOUS = "original", "unambiguous"  # what userIds may be


@dataclass(frozen=True, slots=True)
class Service:
    """``litellm.service``: what this service has beyond the original."""

    backstage_token: str | None = field(default=None, repr=False)
    plugin_id: str = "litellm"
    user_ids: str = ORIGINAL  # or UNAMBIGUOUS: refuse ids that several people come to
    reserved_user_ids: tuple[str, ...] = ()  # LiteLLM ids that are nobody's, beside its own admin's
    # None: CACHE_SECONDS, and ACCOUNT_SECONDS for accounts; 0: nothing is kept.
    cache_seconds: float | None = None
    stale_seconds: float = 0.0  # how long beyond that while LiteLLM is down
    rate_limits: RateLimits = field(default_factory=RateLimits)
    circuit_breaker: bool = True
    trusted_proxies: int = 0  # reverse proxies whose X-Forwarded-For counts
    timeouts: Timeouts = field(default_factory=Timeouts)
    trust_environment: bool = False  # proxies, netrc and CA bundles of the environment
    ca_file: Path | None = None  # CA bundle for LiteLLM and Backstage
    logs: Logs = field(default_factory=Logs)
    metrics_bind: tuple[str, int] | None = None  # metrics.bind: host and port; None: nowhere
    tracing: bool | None = None  # OpenTelemetry; None: if the OTEL_ variables say where to
    strict_readiness: bool = False  # not ready while LiteLLM or Backstage is down
    key_file: Path | None = None  # where the plugin key is kept; None: the user's state folder


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the service was told."""

    base_url: str  # LiteLLM, without a trailing slash
    master_key: str = field(repr=False)
    discovery: Discovery
    public_base_url: str | None = None
    user_id_domain: str | None = None
    provisioning: Provisioning = field(default_factory=Provisioning)
    audit_group: str | None = None  # entity ref; None: nobody
    key_generation: KeyGeneration = field(default_factory=KeyGeneration)
    key_policy: KeyPolicy = field(default_factory=KeyPolicy)
    team_admin: TeamAdmin = field(default_factory=TeamAdmin)
    display: Display = field(default_factory=Display)
    bridge: Bridge = field(default_factory=Bridge)
    opencode: Opencode = field(default_factory=Opencode)
    service: Service = field(default_factory=Service)
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
