"""The plugin, put together once: clients, identity and services of one set of settings."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType

import litellm_plugin
from litellm_plugin.access import Access
from litellm_plugin.accounts.caller import Caller, not_reserved, own_id
from litellm_plugin.accounts.directory import Directory
from litellm_plugin.accounts.ownership import AccountOwners
from litellm_plugin.accounts.users import Users
from litellm_plugin.cache.cache import Cache
from litellm_plugin.cache.counters import Counters, in_redis
from litellm_plugin.cache.sealed import Seal
from litellm_plugin.clients.backstage import Catalog, KeySetReader, Permissions
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
from litellm_plugin.errors import BackstageUnavailable
from litellm_plugin.identity.authenticator import Authenticator
from litellm_plugin.identity.key_sets import NoKeysError
from litellm_plugin.identity.keycloak import BridgeVerifier
from litellm_plugin.identity.principal import Principal, UserPrincipal
from litellm_plugin.identity.signing import PluginKeys, PluginTokens
from litellm_plugin.identity.token_cache import MAX_SECONDS, TokenCache
from litellm_plugin.keys.bridge import Bridge
from litellm_plugin.keys.opencode import OpencodeKeys
from litellm_plugin.keys.policy import KeyPolicies
from litellm_plugin.keys.service import Keys
from litellm_plugin.keys.undelivered import UndeliveredKeys
from litellm_plugin.models import Models
from litellm_plugin.observability import logs, metrics
from litellm_plugin.observability.readiness import Check, Readiness
from litellm_plugin.rate_limits import RateLimits
from litellm_plugin.redaction import register_secrets
from litellm_plugin.teams.administration import TeamAdmin
from litellm_plugin.teams.membership import Teams
from litellm_plugin.usage.periods import Reports

BACKSTAGE_AT_ONCE = 12  # of the 16 threads that gunicorn_conf.py gives a worker without gevent
LOOKING = Timeouts(connect=2.0, read=2.0, total=2.0)  # of a look whether something is up


@dataclass(frozen=True, slots=True)
class Plugin:
    """What the routes work with."""

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
    teams: Teams
    models: Models
    team_admin: TeamAdmin
    bridge: Bridge
    bridge_tokens: BridgeVerifier | None  # None: the bridge is closed
    opencode: OpencodeKeys
    readiness: Readiness
    rate_limits: RateLimits

    def caller(self, principal: Principal, asked: str | None) -> Caller:
        """Return the caller behind a principal.

        Args:
            principal: What the credentials proved.
            asked: The LiteLLM user id that a service asks for; ignored for users.

        Raises:
            ReservedId: The caller's id, or the one that a service asks for, is nobody's.
        """
        if isinstance(principal, UserPrincipal):
            asked = own_id(principal.entity_ref, self.settings)
        elif asked is not None:
            asked = not_reserved(asked, self.settings)
        return Caller(principal, asked, self.directory.entity)


def upstream(
    settings: Settings,
    name: str,
    setting: str,
    at_once: int | None = None,
    timeouts: Timeouts | None = None,
) -> Upstream:
    """Return a way out, with the limits that are configured.

    Args:
        settings: What the plugin was told.
        name: Who is asked, for messages.
        setting: What says where that is.
        at_once: How many threads may be asking at the same time; None: any number.
        timeouts: Other limits than those that are configured, for a look whether it is up:
            that is not tried again, and taken whatever came of earlier ones.
    """
    look = timeouts is not None
    return Upstream(
        name,
        setting=setting,
        at_once=at_once,
        attempts=1 if look else READ_ATTEMPTS,
        breaking=settings.service.circuit_breaker and not look,
        timeouts=timeouts or settings.service.timeouts,
        trust_environment=settings.service.trust_environment,
        ca_file=settings.service.ca_file,
    )


def build(
    settings: Settings,
    now: Callable[[], datetime] | None = None,
    *,
    plugin_keys: PluginKeys | None = None,
) -> Plugin:
    """Put a plugin together.

    Args:
        settings: What it was told.
        now: The present time, in UTC; the system's clock by default.
        plugin_keys: To sign with; by default those that the settings name, made where there
            are none.

    Raises:
        ConfigError: They ask for what is not installed.
    """
    register_secrets(settings.secrets())
    metrics.started(litellm_plugin.__version__)
    utc_now = now or (lambda: datetime.now(UTC))
    service = settings.service

    # Backstage asks us for our key set before it answers. If every thread of a
    # worker waited for Backstage, nobody would be left to tell it. Greenlets are never all busy.
    where = "litellm.service.backstageUrl and discovery.endpoints"
    at_once = None if _in_greenlets() else BACKSTAGE_AT_ONCE
    backstage = upstream(settings, "Backstage", where, at_once=at_once)
    plugin_keys = plugin_keys or PluginKeys.load(settings)
    tokens = PluginTokens(plugin_keys, service.plugin_id, time.time)
    fetch = KeySetReader(backstage)
    caching = service.cache_seconds != 0
    verifier = Authenticator(settings, fetch, plugin_keys)
    authenticator = TokenCache(verifier, MAX_SECONDS if caching else 0.0)

    def catalog_token() -> str:
        return service.backstage_token or tokens.issue("catalog")

    def on_behalf_of(user: UserPrincipal) -> str:
        # The user's own token is their authority; behind another plugin only
        # the limited one is at hand, which Backstage takes inside a plugin token.
        if user.token is not None:
            return user.token
        if user.limited_token is None:
            raise BackstageUnavailable(
                "Your sign-in can't be passed on to Backstage; reload the page"
            )
        return tokens.issue("permission", obo=user.limited_token, not_after=user.expires_at)

    catalog = Catalog(backstage, settings.discovery, catalog_token)
    seen_litellm = LiteLLM(
        upstream(settings, "LiteLLM", "litellm.baseUrl", timeouts=LOOKING),
        settings.base_url,
        settings.master_key,
    )
    litellm = LiteLLM(
        upstream(settings, "LiteLLM", "litellm.baseUrl"),
        settings.base_url,
        settings.master_key,
        KnownVersion(seen_litellm.version),
    )
    cache = _cache(settings)
    permissions = Permissions(backstage, settings.discovery)
    access = Access(settings, permissions, cache, on_behalf_of)
    reports = Reports(cache, utc_now)
    directory = Directory(catalog, cache, settings.user_id_domain)
    owners = AccountOwners(directory, refuse=service.user_ids == UNAMBIGUOUS)
    users = Users(litellm, cache, reports, settings, owners, utc_now)
    teams = Teams(litellm, cache, reports, users, access, settings.display)
    models = Models(litellm, cache)
    policies = KeyPolicies(settings, directory, models)
    undelivered = UndeliveredKeys(litellm, cache, looking=service.circuit_breaker)
    keys = Keys(
        litellm, cache, users, teams, settings.key_generation, policies, undelivered, utc_now
    )

    def backstage_works() -> bool:
        try:
            # What was fetched just now need not be asked for again.
            return verifier.load_user_keys() or bool(seen_keys(verifier.user_keys_url))
        except (NoKeysError, BackstageUnavailable):
            return False

    seen_keys = KeySetReader(upstream(settings, "Backstage", where, timeouts=LOOKING))
    others: dict[str, Check] = {}
    if settings.cache.connection is not None:
        others[settings.cache.store] = lambda: cache.stamps("readiness") is not None
    readiness = Readiness(
        {"backstage": backstage_works, "litellm": seen_litellm.works},
        others,
        strict=service.strict_readiness,
    )
    bridged = settings.bridge.enabled and settings.bridge.issuer is not None
    logs.add_filters()  # every module has been imported by now
    return Plugin(
        settings=settings,
        authenticator=authenticator,
        plugin_keys=plugin_keys,
        catalog=catalog,
        directory=directory,
        cache=cache,
        litellm=litellm,
        access=access,
        users=users,
        keys=keys,
        teams=teams,
        models=models,
        team_admin=TeamAdmin(settings, litellm, cache, catalog, users, access, utc_now),
        bridge=Bridge(settings, users, keys, directory, utc_now),
        bridge_tokens=BridgeVerifier(settings.bridge, fetch) if bridged else None,
        opencode=OpencodeKeys(users, keys, cache, settings.opencode, utc_now),
        readiness=readiness,
        rate_limits=RateLimits(service.rate_limits, _counters(settings)),
    )


def check_installed(settings: Settings) -> None:
    """Check that what the settings ask for is installed.

    Raises:
        ConfigError: It is not.
    """
    if settings.cache.connection is not None:
        _redis(settings)


def cache_fault(settings: Settings) -> Exception | None:
    """Return what keeps the server of ``backend.cache`` from being used; None where nothing does.

    Raises:
        ConfigError: ``backend.cache`` asks for what is not installed.
    """
    if settings.cache.connection is None:
        return None
    fault: Exception | None = _redis(settings).fault(settings.cache.connection)
    return fault


def _in_greenlets() -> bool:
    """Tell whether threads are gevent's greenlets in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _counters(settings: Settings) -> Counters | None:
    """Return where to count who asks how often; None where nobody is counted.

    Raises:
        ConfigError: ``backend.cache`` asks for what is not installed.
    """
    if not settings.service.rate_limits.enabled:
        return None
    connection = settings.cache.connection
    if connection is None:
        return Counters()
    pool = _redis(settings).connect(connection).connection_pool
    return Counters(in_redis(pool, connection, settings.base_url))


def _cache(settings: Settings) -> Cache:
    """Return the cache, with a second tier where ``backend.cache`` names one.

    Raises:
        ConfigError: ``backend.cache`` asks for what is not installed.
    """
    service, connection = settings.service, settings.cache.connection
    tier = None
    if connection is not None:
        # Whoever reads by other settings does not read the same.
        installation = repr((settings.base_url, settings.discovery, settings.team_admin))
        seal = Seal(settings.master_key, installation)
        redis = _redis(settings)
        tier = redis.RedisTier(redis.connect(connection), settings.base_url, seal)
    configured = service.cache_seconds
    return Cache(
        CACHE_SECONDS if configured is None else configured,
        service.stale_seconds,
        account_seconds=ACCOUNT_SECONDS if configured is None else configured,
        tier=tier,
    )


def _redis(settings: Settings) -> ModuleType:
    """Return the module that knows Redis.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module("litellm_plugin.cache.redis")
    except ImportError as exc:
        wanted = "needs the Python package redis; install litellm-plugin[redis]"
        raise ConfigError([f"backend.cache.store: {settings.cache.store} {wanted}"]) from exc
