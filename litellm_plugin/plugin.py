"""The parts of the plugin, made once from the settings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import litellm_plugin
from litellm_plugin.access import Access
from litellm_plugin.accounts.caller import Caller, not_reserved, own_id
from litellm_plugin.accounts.directory import Directory
from litellm_plugin.accounts.ownership import AccountOwners
from litellm_plugin.accounts.users import Users
from litellm_plugin.cache.cache import Cache
from litellm_plugin.cache.counters import Counters, in_redis
from litellm_plugin.cache.sealed import Seal
from litellm_plugin.clients.backstage import Catalog, Notifications, Permissions, key_set
from litellm_plugin.clients.http import READ_ATTEMPTS, Upstream
from litellm_plugin.clients.litellm import LiteLLM
from litellm_plugin.clients.litellm_version import KnownVersion
from litellm_plugin.config import ConfigError
from litellm_plugin.config.settings import (
    ACCOUNT_SECONDS,
    CACHE_SECONDS,
    UNAMBIGUOUS,
    Settings,
    Timeouts,
)
from litellm_plugin.identity.authenticator import Authenticator
from litellm_plugin.identity.keycloak import BridgeVerifier
from litellm_plugin.identity.principal import Principal, UserPrincipal
from litellm_plugin.identity.signing import PluginKeys, PluginTokens
from litellm_plugin.identity.token_cache import MAX_SECONDS, TokenCache
from litellm_plugin.keys.bridge import Bridge
from litellm_plugin.keys.opencode import OpencodeKeys
from litellm_plugin.keys.policy import KeyPolicies
from litellm_plugin.keys.rotation import Rotations
from litellm_plugin.keys.service import Keys
from litellm_plugin.keys.tools import ToolKeys
from litellm_plugin.keys.undelivered import UndeliveredKeys
from litellm_plugin.models import Models
from litellm_plugin.observability import journal, logs, metrics
from litellm_plugin.observability.readiness import Check, Readiness
from litellm_plugin.rate_limits import RateLimits
from litellm_plugin.redaction import register_secrets
from litellm_plugin.teams.administration import TeamAdmin
from litellm_plugin.teams.keys import TeamKeys
from litellm_plugin.teams.member_usage import MemberUsage
from litellm_plugin.teams.membership import Teams
from litellm_plugin.usage.periods import Reports, Subject

if TYPE_CHECKING:  # they import SQLAlchemy, which only some configurations need
    from litellm_plugin.accounts.leavers import Leavers
    from litellm_plugin.accounts.sync import Sync
    from litellm_plugin.accounts.visits import Visits
    from litellm_plugin.audit.reader import AuditReader
    from litellm_plugin.audit.writer import AuditWriter
    from litellm_plugin.store.database import Store
    from litellm_plugin.usage.stored_days import StoredDays

BACKSTAGE_AT_ONCE = 12  # of the 16 threads that gunicorn_conf.py gives a worker without gevent
PROBE = Timeouts(connect=2.0, read=2.0, total=2.0)  # for asking whether a server is up


@dataclass(slots=True, kw_only=True)
class StoreParts:
    """The parts that use the store; None where they are off.

    Attributes:
        works: Publishes the metrics of jobs, and returns whether the store can be used.
        record_adopted: Records an account that was found by e-mail.
        stored_days: Returns the stored usage of a user or team.
    """

    store: Store | None = None
    works: Check | None = None
    record_adopted: Callable[[str, str, str], None] | None = None
    leavers: Leavers | None = None
    sync: Sync | None = None
    visits: Visits | None = None
    audit_writer: AuditWriter | None = None
    audit_reader: AuditReader | None = None
    stored_days: Callable[[Subject], StoredDays] | None = None


@dataclass(frozen=True, slots=True)
class Plugin:
    """The parts that the routes use."""

    settings: Settings
    authenticator: TokenCache
    plugin_keys: PluginKeys
    catalog: Catalog
    directory: Directory
    cache: Cache
    litellm: LiteLLM
    access: Access
    users: Users
    keys: Keys
    rotations: Rotations
    teams: Teams
    member_usage: MemberUsage
    models: Models
    team_admin: TeamAdmin
    team_keys: TeamKeys
    bridge: Bridge
    bridge_tokens: BridgeVerifier | None  # None: the bridge is closed
    opencode: OpencodeKeys
    readiness: Readiness
    rate_limits: RateLimits
    notifications: Notifications
    store: Store | None  # None: nothing is on that needs it
    audit_writer: AuditWriter | None  # None: litellm.audit.store is off, as for the next one
    audit_reader: AuditReader | None
    sync: Sync | None  # None: accounts do not follow their roles
    visits: Visits | None  # as sync

    def caller(self, principal: Principal, asked: str | None) -> Caller:
        """Return the caller behind a principal.

        Args:
            principal: The user or service of the credentials.
            asked: The LiteLLM user id that a service asks for; ignored for users.

        Raises:
            ReservedId: The caller's id, or the one that a service asks for, is reserved.
        """
        if isinstance(principal, UserPrincipal):
            asked = own_id(principal.entity_ref, self.settings)
        elif asked is not None:
            asked = not_reserved(asked, self.settings)
        return Caller(principal, asked, self.directory.entity)


def upstream(
    settings: Settings, name: str, setting: str, at_once: int | None = None, *, probe: bool = False
) -> Upstream:
    """Return an HTTP client with the configured time-outs, proxies and CA file.

    Args:
        settings: The settings.
        name: The server's name in messages.
        setting: The key of the configuration that has the server's address, for messages.
        at_once: How many threads may send requests at the same time; None: any number.
        probe: Whether the client only asks whether the server is up: with short time-outs,
            without retries, and without a circuit breaker.
    """
    service = settings.service
    return Upstream(
        name,
        setting=setting,
        at_once=at_once,
        attempts=1 if probe else READ_ATTEMPTS,
        breaking=service.circuit_breaker and not probe,
        timeouts=PROBE if probe else service.timeouts,
        trust_environment=service.trust_environment,
        ca_file=service.ca_file,
    )


def build(settings: Settings, *, plugin_keys: PluginKeys | None = None) -> Plugin:
    """Make the parts of the plugin.

    Args:
        settings: The settings.
        plugin_keys: The signing keys; by default those of the settings, created if missing.

    Raises:
        ConfigError: The settings need a package that is not installed.
        KeyStoreError: The signing keys can't be read or stored.
    """
    register_secrets(settings.secrets())
    metrics.started(litellm_plugin.__version__)
    service = settings.service
    now = partial(datetime.now, UTC)

    cache = _cache(settings)
    backstage = _backstage(settings)
    plugin_keys = plugin_keys or PluginKeys.load(settings)
    tokens = PluginTokens(plugin_keys, service.plugin_id)
    fetch = partial(key_set, backstage)
    verifier = Authenticator(settings, fetch, plugin_keys)
    catalog = Catalog(backstage, settings.discovery, _service_token(settings, tokens, "catalog"))
    notifications = Notifications(
        backstage, settings.discovery, _service_token(settings, tokens, "notifications")
    )
    permissions = Permissions(backstage, settings.discovery)
    litellm_probe = _litellm(settings, probe=True)
    litellm = _litellm(settings, KnownVersion(litellm_probe.version))

    access = Access(settings, permissions, cache, tokens.on_behalf_of)
    directory = Directory(catalog, cache, settings.user_id_domain)
    owners = AccountOwners(directory, refuse=service.user_ids == UNAMBIGUOUS)
    models = Models(litellm, cache)
    stored = StoreParts()
    if settings.uses_store:
        # Imported here, because only configurations with a store need SQLAlchemy.
        from litellm_plugin import store_parts  # noqa: PLC0415

        stored = store_parts.build(settings, litellm, cache, directory, models, now)
    reports = Reports(cache, now, stored.stored_days)
    users = Users(
        litellm,
        cache,
        reports,
        settings,
        owners,
        now,
        stored.leavers,
        stored.visits,
        stored.record_adopted,
    )
    teams = Teams(litellm, cache, reports, users, access, settings.display)
    policies = KeyPolicies(settings, directory, models)
    undelivered = UndeliveredKeys(litellm, cache, looking=service.circuit_breaker)
    generation = settings.key_generation
    keys = Keys(
        litellm, cache, users, teams, generation, policies, undelivered, now, stored.leavers
    )
    rotations = Rotations(keys, litellm, cache, generation, policies, now)
    journal.sink = stored.audit_writer.add if stored.audit_writer else None
    audited = stored.audit_reader.keys if stored.audit_reader else None

    bridged = settings.bridge.enabled and settings.bridge.issuer is not None
    tool_keys = None
    if settings.bridge.keys is not None:
        tool_keys = ToolKeys(keys, litellm, cache, settings.bridge.keys, now)
    parts = Plugin(
        settings=settings,
        authenticator=TokenCache(verifier, 0.0 if service.cache_seconds == 0 else MAX_SECONDS),
        plugin_keys=plugin_keys,
        catalog=catalog,
        directory=directory,
        cache=cache,
        litellm=litellm,
        access=access,
        users=users,
        keys=keys,
        rotations=rotations,
        teams=teams,
        member_usage=MemberUsage(litellm, cache, users, access, settings, directory, audited),
        models=models,
        team_admin=TeamAdmin(settings, litellm, cache, catalog, users, access, now),
        team_keys=TeamKeys(keys, rotations, litellm, policies, settings, now),
        bridge=Bridge(settings, users, keys, rotations, policies, tool_keys, directory, now),
        bridge_tokens=BridgeVerifier(settings.bridge, fetch) if bridged else None,
        opencode=OpencodeKeys(users, keys, cache, settings.opencode, generation.team_required, now),
        readiness=_readiness(settings, verifier, litellm_probe, cache, stored.works),
        rate_limits=RateLimits(service.rate_limits, _counters(settings)),
        notifications=notifications,
        store=stored.store,
        audit_writer=stored.audit_writer,
        audit_reader=stored.audit_reader,
        sync=stored.sync,
        visits=stored.visits,
    )
    logs.add_filters()  # every module has been imported by now
    return parts


def check_installed(settings: Settings) -> None:
    """Check that every package that the settings need is installed.

    Raises:
        ConfigError: A package is missing.
    """
    _redis(settings)
    if settings.uses_store:
        from litellm_plugin import store_parts  # noqa: PLC0415

        store_parts.store_of(settings)


def cache_fault(settings: Settings) -> Exception | None:
    """Return why the server of ``backend.cache`` can't be used; None if it can or there is none.

    Raises:
        ConfigError: The package redis is not installed.
    """
    redis = _redis(settings)
    if redis is None:
        return None
    fault: Exception | None = redis.fault(settings.cache.connection)
    return fault


def _backstage(settings: Settings, *, probe: bool = False) -> Upstream:
    # Backstage fetches this service's keys before it answers. If every thread of a worker waited
    # for Backstage, none could serve the keys. gevent has a greenlet for each request.
    monkey = sys.modules.get("gevent.monkey")
    greenlets = monkey is not None and monkey.is_module_patched("threading")
    at_once = None if probe or greenlets else BACKSTAGE_AT_ONCE
    where = "litellm.service.backstageUrl and discovery.endpoints"
    return upstream(settings, "Backstage", where, at_once, probe=probe)


def _service_token(settings: Settings, tokens: PluginTokens, audience: str) -> Callable[[], str]:
    static = settings.service.backstage_token
    return partial(tokens.issue, audience) if static is None else lambda: static


def _litellm(
    settings: Settings, version: KnownVersion | None = None, *, probe: bool = False
) -> LiteLLM:
    client = upstream(settings, "LiteLLM", "litellm.baseUrl", probe=probe)
    return LiteLLM(client, settings.base_url, settings.master_key, version)


def _readiness(
    settings: Settings,
    verifier: Authenticator,
    litellm: LiteLLM,
    cache: Cache,
    store_works: Check | None,
) -> Readiness:
    fetch = partial(key_set, _backstage(settings, probe=True))
    others: dict[str, Check] = {}
    if settings.cache.connection is not None:
        others[settings.cache.store] = lambda: cache.stamps("readiness") is not None
    if store_works is not None:
        others["store"] = store_works
    return Readiness(
        {"backstage": partial(verifier.reaches_backstage, fetch), "litellm": litellm.works},
        others,
        strict=settings.service.strict_readiness,
    )


def _counters(settings: Settings) -> Counters | None:
    if not settings.service.rate_limits.enabled:
        return None
    redis, connection = _redis(settings), settings.cache.connection
    if redis is None or connection is None:
        return Counters()
    pool = redis.connect(connection).connection_pool
    return Counters(in_redis(pool, connection, settings.base_url))


def _cache(settings: Settings) -> Cache:
    redis, configured = _redis(settings), settings.service.cache_seconds
    tier = None
    if redis is not None:
        # Services with other settings must not share entries.
        installation = repr((settings.base_url, settings.discovery, settings.team_admin))
        seal = Seal(settings.master_key, installation)
        connection = redis.connect(settings.cache.connection)
        tier = redis.RedisTier(connection, settings.base_url, seal)
    return Cache(
        CACHE_SECONDS if configured is None else configured,
        settings.service.stale_seconds,
        account_seconds=ACCOUNT_SECONDS if configured is None else configured,
        tier=tier,
    )


def _redis(settings: Settings) -> ModuleType | None:
    """Return the module for Redis; None where ``backend.cache`` is memory.

    Raises:
        ConfigError: The package redis is not installed.
    """
    if settings.cache.connection is None:
        return None
    try:
        import litellm_plugin.cache.redis as redis  # noqa: PLC0415, PLR0402 - an extra
    except ImportError as exc:
        wanted = "needs the Python package redis; install litellm-plugin[redis]"
        raise ConfigError([f"backend.cache.store: {settings.cache.store} {wanted}"]) from exc
    return redis
