"""Fills :class:`~litellm_plugin.config.settings.Settings`; knows every key there is.

Defaults are not here but in ``settings``: a key that is not set is not passed on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litellm_plugin.config.convert import (
    address,
    base64_bytes,
    blank_or_text,
    existing_file,
    file,
    flag,
    header,
    is_service_record,
    matching,
    number,
    one_of,
    positive,
    positive_whole,
    rate,
    redis_url,
    target,
    text,
    url,
    url_with_query,
    whole,
)
from litellm_plugin.config.layers import Layers
from litellm_plugin.config.reader import Asked, Reader
from litellm_plugin.config.report import ConfigError, Report
from litellm_plugin.config.settings import (
    KEY_TYPES,
    ORIGINAL,
    UNAMBIGUOUS,
    AccessRestriction,
    Bridge,
    Cache,
    Cors,
    Discovery,
    DiscoveryEndpoint,
    Display,
    ExternalAccess,
    JwksAccess,
    KeyGeneration,
    KeyPolicy,
    LegacyAccess,
    Logs,
    Opencode,
    Provisioning,
    RateLimits,
    Role,
    Service,
    Settings,
    StaticAccess,
    StaticPluginKey,
    TeamAdmin,
    Timeouts,
    UserDefaults,
)
from litellm_plugin.config.sources import read_sources
from litellm_plugin.config.strays import Stray, strays
from litellm_plugin.config.yaml12 import Value

_ENTITY_REF = re.compile(r"[a-z][a-z0-9.-]*:[^\s/:A-Z]+/[^\s/A-Z]+")
_DOMAIN = re.compile(r"[^\s@/]+")
_ACTIONS = ("create", "read", "update", "delete")
_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519"),
)

_SEVERITIES = ("low", "medium", "high", "critical")
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}

_SHARED_STORES = ("redis", "valkey")
_OTHER_STORES = ("memory", "none", "memcache", "infinispan")  # that Backstage has, or had

_UNLIMITED = "unlimited"

_duration = matching(
    r"[1-9][0-9]{0,5}(s|m|h|d|w|mo)", "a number and one of s, m, h, d, w and mo, such as 30d"
)
_key_life = matching(
    r"[1-9][0-9]{0,4}(s|m|h|d|w|mo|y)", "a number and one of s, m, h, d, w, mo and y, such as 30d"
)
_plugin_id = matching(r"[A-Za-z0-9_-]+", "letters, digits, - and _ only")
_no_spaces = matching(r"\S+", "text without spaces")
_static_token = matching(r"\S{8,}", "8 or more characters, without spaces")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the configuration says, and what there is to say about it.

    Attributes:
        settings: Good for nothing if there are problems.
        asked: Every key that was read, in order, with what was found.
        problems: One line each; none of them quotes a value.
        warnings: Likewise.
        strays: The keys below ``litellm`` that nothing reads.
    """

    settings: Settings
    asked: Sequence[Asked]
    problems: Sequence[str]
    warnings: Sequence[str]
    strays: Sequence[Stray]


def load_settings(paths: Sequence[Path], environ: Mapping[str, str]) -> Settings:
    """Read the configuration files, in order, and ``APP_CONFIG_*`` of the environment.

    Args:
        paths: Later files win; :func:`~litellm_plugin.config.default_paths` names the usual.
        environ: Variables for ``${X}`` and ``$env``, and ``APP_CONFIG_*``.

    Raises:
        ConfigError: Something is missing or wrong; it names all of it.
    """
    reading = read_configuration(paths, environ)
    if reading.problems:
        raise ConfigError(reading.problems)
    return reading.settings


def read_configuration(paths: Sequence[Path], environ: Mapping[str, str]) -> Reading:
    """Read the configuration as :func:`load_settings` does, and tell all that is seen of it."""
    report = Report()
    reader = Reader(Layers(read_sources(paths, environ, report)), report)
    settings = read_settings(reader)
    unread = _judge_strays(reader, report)
    return Reading(settings, reader.log, report.problems, report.warnings, unread)


def read_settings(reader: Reader) -> Settings:
    """Read every key there is from the root of the configuration.

    What is wrong is in the reader's report; the settings are good for nothing then.
    """
    litellm = reader.at("litellm")
    litellm.require("baseUrl", "masterKey")
    settings = Settings(
        base_url=(litellm.get("baseUrl", url) or "").rstrip("/"),
        master_key=litellm.get("masterKey", header, secret=True) or "",
        discovery=_discovery(reader),
        provisioning=_provisioning(litellm.at("provisioning")),
        key_generation=_key_generation(litellm.at("keyGeneration")),
        key_policy=KeyPolicy(**_key_policy(litellm.at("keyPolicy"))),
        team_admin=_team_admin(litellm.at("teamAdmin")),
        display=_display(litellm.at("display")),
        bridge=_bridge(litellm.at("bridge")),
        opencode=_opencode(litellm.at("opencode")),
        service=_service(litellm.at("service")),
        external_access=_external_access(reader.at("backend.auth")),
        plugin_keys=_plugin_keys(reader.at("backend.auth.pluginKeyStore")),
        cors=_cors(reader),
        cache=_cache(reader.at("backend.cache")),
        **_given(
            public_base_url=litellm.get("publicBaseUrl", url),
            user_id_domain=_domain(litellm),
            audit_group=_group(litellm, "audit.group"),
            permission_enabled=reader.get("permission.enabled", flag),
            audit_levels=_audit_levels(reader.at("backend.auditor.severityLogLevelMappings")),
        ),
    )
    if reader.get("backend.auth.dangerouslyDisableDefaultAuthPolicy", flag):
        reader.warn(
            "backend.auth.dangerouslyDisableDefaultAuthPolicy",
            "not honoured; every request still needs credentials",
        )
    _refuse_service_records(reader, settings)
    if litellm.has("teamAdmin") and not settings.team_management:
        litellm.warn("teamAdmin", "without effect; it needs a group, and permission.enabled")
    return settings


def _judge_strays(reader: Reader, report: Report) -> list[Stray]:
    """Refuse unknown keys of our own; others may be the frontend's, unless they look alike.

    Returns:
        All of them.
    """
    found = list(strays(reader.at("litellm").everything(), ("litellm",), reader.asked))
    for stray in found:
        hint = f"; did you mean {stray.meant}?" if stray.meant else ""
        if stray.path[:2] == ("litellm", "service"):
            report.problem(stray.path, f"no such key{hint}")
        elif stray.meant:
            report.warn(stray.path, f"not a key of this service{hint}")
    return found


def _given(**fields: Any) -> dict[str, Any]:
    """Return the fields that have a value; the others keep the default of their class."""
    return {name: value for name, value in fields.items() if value is not None}


def _group(reader: Reader, key: str, convert: Callable[[Value], str] = text) -> str | None:
    group = reader.get(key, convert)
    if group and not _ENTITY_REF.fullmatch(group):
        reader.warn(key, "not written as group:namespace/name in lower case: it has no members")
    return group


def _domain(litellm: Reader) -> str | None:
    domain = litellm.get("userIdDomain", text)
    if domain is not None and not _DOMAIN.fullmatch(domain):
        litellm.warn("userIdDomain", "no domain such as example.com; user ids end with @ and this")
    return domain


def _discovery(reader: Reader) -> Discovery:
    backstage_url = reader.get("litellm.service.backstageUrl", url)
    base_url = reader.get("backend.baseUrl", url)
    if not reader.has("litellm.service.backstageUrl"):
        reader.require("backend.baseUrl")
    endpoints = []
    for entry in reader.elements("discovery.endpoints") or ():
        entry.require("target", "plugins")
        plugins = entry.texts("plugins") or ()
        if isinstance(entry.peek("target"), dict):
            external = entry.get("target.external", target)
            internal = entry.get("target.internal", target)
            if internal and external and is_service_record(internal):
                internal = external
        else:
            internal = entry.get("target", target)
        if internal is not None:
            endpoints.append(DiscoveryEndpoint(internal, plugins))
    # Of two entries for a plugin, Backstage takes the last and Discovery the first.
    return Discovery(backstage_url or base_url or "", tuple(reversed(endpoints)))


def _refuse_service_records(reader: Reader, settings: Settings) -> None:
    """Report DNS service records that are the only target of a plugin which this service asks.

    Other plugins may have them: Backstage resolves them, and this service does not.
    """
    permission = ("permission",) if settings.permission_enabled else ()
    for plugin in ("auth", "catalog", *permission):
        if is_service_record(settings.discovery.base_url(plugin)):
            reader.problem(
                "discovery.endpoints",
                f"the target for {plugin} is a DNS service record; "
                "wanted an http or https URL, as target.internal or target.external",
            )


def _provisioning(reader: Reader) -> Provisioning:
    defaults = reader.at("defaults")
    return Provisioning(
        defaults=UserDefaults(
            **_user_fields(defaults), **_given(metadata=defaults.mapping("metadata"))
        ),
        roles=tuple(role for entry in reader.elements("roles") or () if (role := _role(entry))),
        **_given(enabled=reader.get("enabled", flag)),
    )


def _role(reader: Reader) -> Role | None:
    """Return the role, or None for one that nobody can have."""
    group = _group(reader, "group", blank_or_text)
    overrides = _user_fields(reader, blank=True)
    metadata = reader.mapping("metadata")
    key_policy = _key_policy(reader.at("keyPolicy"))
    if not group:
        reader.warn("group", "missing; nobody has this role")
        return None
    return Role(group, overrides, key_policy=key_policy, **_given(metadata=metadata))


def _user_fields(reader: Reader, *, blank: bool = False) -> dict[str, Any]:
    """Return what is set of UserDefaults, but for metadata; ``blank`` allows empty text."""
    words = blank_or_text if blank else text
    return _given(
        max_budget=reader.get("maxBudget", number),
        budget_duration=reader.get("budgetDuration", words),
        models=reader.texts("models", empty_is_all=True),
        teams=reader.texts("teams"),
        tpm_limit=reader.get("tpmLimit", whole),
        rpm_limit=reader.get("rpmLimit", whole),
        user_role=reader.get("userRole", words),
    )


def _key_generation(reader: Reader) -> KeyGeneration:
    return KeyGeneration(
        allow_unlimited_budget=reader.get("allowUnlimitedBudget", flag),
        team_required=reader.get("teamRequired", flag),
        **_given(key_types=_key_types(reader)),
    )


def _key_types(reader: Reader) -> tuple[str, ...] | None:
    types = reader.texts("keyTypes")
    if types is not None and not set(types) <= set(KEY_TYPES):
        reader.problem("keyTypes", f"may have only {', '.join(KEY_TYPES)} in it")
    return types


def _key_policy(reader: Reader) -> dict[str, Any]:
    """Return what is set of KeyPolicy; None for what is said to be unlimited.

    A ceiling that is misspelt, or whose variable is not set, would be one too few.
    """
    names: dict[str, tuple[str, Callable[[str], Any]]] = {
        "maxDuration": ("max_duration", lambda key: reader.get(key, _duration)),
        "maxBudget": ("max_budget", lambda key: reader.get(key, positive)),
        "minBudgetDuration": ("min_budget_duration", lambda key: reader.get(key, _duration)),
        "maxTpmLimit": ("max_tpm_limit", lambda key: reader.get(key, positive_whole)),
        "maxRpmLimit": ("max_rpm_limit", lambda key: reader.get(key, positive_whole)),
        "allowedModels": ("allowed_models", lambda key: _at_least_one(reader, key)),
        "maxActiveKeys": ("max_active_keys", lambda key: reader.get(key, whole)),
    }
    _refuse_others(reader, tuple(names))
    policy: dict[str, Any] = {}
    for key, (name, read) in names.items():
        if reader.peek(key) == _UNLIMITED:
            reader.get(key, text)
            # Where no shortest time is set no budget begins anew; any may after no time at all.
            policy[name] = "0s" if key == "minBudgetDuration" else None
            continue
        value = read(key)
        if value is not None:
            policy[name] = value
        reader.refuse_left_out(key)
    return policy


def _at_least_one(reader: Reader, key: str) -> tuple[str, ...] | None:
    texts = reader.texts(key)
    if texts == ():
        reader.problem(key, f"names nothing; write {_UNLIMITED} if everything is allowed")
    return texts


def _team_admin(reader: Reader) -> TeamAdmin:
    return TeamAdmin(
        **_given(
            group=_group(reader, "group"),
            allowed_models=reader.texts("allowedModels"),
            allowed_model_access_groups=reader.texts("allowedModelAccessGroups"),
            max_budget_ceiling=reader.get("maxBudgetCeiling", number),
            allow_unlimited_budget=reader.get("allowUnlimitedBudget", flag),
            allowed_vector_stores=reader.texts("allowedVectorStores"),
            allowed_mcp_servers=reader.texts("allowedMcpServers"),
            allowed_mcp_access_groups=reader.texts("allowedMcpAccessGroups"),
            allow_team_delete=reader.get("allowTeamDelete", flag),
            object_permissions=reader.get("objectPermissions.enabled", flag),
        )
    )


def _display(reader: Reader) -> Display:
    return Display(
        **_given(
            hide_team_budget_for_members=reader.get("hideTeamBudgetForMembers", flag),
            hide_team_budget_for_managers=reader.get("hideTeamBudgetForManagers", flag),
        )
    )


def _bridge(reader: Reader) -> Bridge:
    issuer = reader.get("issuer", url)
    bridge = Bridge(
        issuer=issuer.rstrip("/") if issuer else None,
        group=_group(reader, "group"),
        **_given(enabled=reader.get("enabled", flag), client_id=reader.get("clientId", text)),
    )
    if bridge.enabled and not reader.has("issuer"):
        reader.warn("issuer", "missing; the bridge is enabled, and its routes are left out")
    return bridge


def _opencode(reader: Reader) -> Opencode:
    return Opencode(
        **_given(
            enabled=reader.get("enabled", flag),
            key_duration=reader.get("keyDuration", _key_life),
            max_budget=reader.get("maxBudget", number),
            require_team=reader.get("requireTeam", flag),
            metadata=reader.mapping("metadata"),
        )
    )


def _service(reader: Reader) -> Service:
    timeouts, logs = reader.at("timeouts"), reader.at("logs")
    return Service(
        logs=Logs(
            **_given(
                format=logs.get("format", one_of("json", "text")),
                level=logs.get("level", one_of("debug", "info", "warning", "error")),
                access=logs.get("access", flag),
            )
        ),
        timeouts=Timeouts(
            **_given(
                connect=timeouts.get("connect", positive),
                read=timeouts.get("read", positive),
                total=timeouts.get("total", positive),
            )
        ),
        **_given(
            backstage_token=reader.get("backstageToken", header, secret=True),
            plugin_id=reader.get("pluginId", _plugin_id),
            user_ids=reader.get("userIds", one_of(ORIGINAL, UNAMBIGUOUS)),
            reserved_user_ids=reader.texts("reservedUserIds"),
            cache_seconds=reader.get("cacheSeconds", number),
            stale_seconds=reader.get("staleSeconds", number),
            rate_limits=_rate_limits(reader),
            circuit_breaker=reader.get("circuitBreaker", flag),
            trusted_proxies=reader.get("trustedProxies", whole),
            trust_environment=reader.get("trustEnvironment", flag),
            ca_file=reader.get("caFile", existing_file),
            key_file=reader.get("keyFile", file),
            metrics_bind=reader.get("metrics.bind", address),
            tracing=reader.get("tracing", flag),
            strict_readiness=reader.get("strictReadiness", flag),
        ),
    )


def _rate_limits(reader: Reader) -> RateLimits | None:
    if not isinstance(reader.peek("rateLimits"), dict):
        enabled = reader.get("rateLimits", flag)
        return None if enabled is None else RateLimits(enabled=enabled)
    limits = reader.at("rateLimits")
    return RateLimits(
        **_given(
            writes=limits.get("writes", rate),
            service_writes=limits.get("serviceWrites", rate),
            failed_tokens=limits.get("failedTokens", rate),
        )
    )


def _audit_levels(reader: Reader) -> dict[str, int] | None:
    given = {
        severity: _LEVELS[level]
        for severity in _SEVERITIES
        if (level := reader.get(severity, one_of(*_LEVELS)))
    }
    return {**dict.fromkeys(_SEVERITIES, logging.INFO), **given} if given else None


def _external_access(auth: Reader) -> tuple[ExternalAccess, ...]:
    access = [_external_entry(entry) for entry in auth.elements("externalAccess") or ()]
    for entry in auth.elements("keys") or ():
        entry.require("secret")
        access.append(
            LegacyAccess(
                entry.get("secret", base64_bytes, secret=True) or b"",
                "external:backstage-plugin",
                _limits(entry),
            )
        )
    return tuple(entry for entry in access if entry is not None)


def _external_entry(entry: Reader) -> ExternalAccess | None:
    entry.require("type")
    kind = entry.get("type", one_of("static", "legacy", "jwks"))
    options = entry.at("options")
    limits = _limits(entry)
    if options.has("accessRestrictions"):
        options.problem("accessRestrictions", "without effect here; it belongs beside options")
    match kind:
        case "static":
            options.require("token", "subject")
            token = options.get("token", _static_token, secret=True)
            return StaticAccess(token or "", _subject(options), limits)
        case "legacy":
            options.require("secret", "subject")
            return LegacyAccess(
                options.get("secret", base64_bytes, secret=True) or b"",
                _subject(options),
                limits,
            )
        case "jwks":
            options.require("url")
            return JwksAccess(
                url=options.get("url", url_with_query) or "",
                issuers=options.limit("issuer"),
                audiences=options.limit("audience"),
                algorithms=_among(options, "algorithm", _ALGORITHMS),
                subject_prefix=options.get("subjectPrefix", text),
                restrictions=limits,
            )
    return None


def _subject(options: Reader) -> str:
    return options.get("subject", _no_spaces) or ""


def _among(reader: Reader, key: str, known: Sequence[str]) -> tuple[str, ...]:
    words = reader.limit(key)
    if not set(words) <= set(known):
        reader.problem(key, f"wanted only {', '.join(known)}")
    return words


def _limits(entry: Reader) -> tuple[AccessRestriction, ...] | None:
    """Return what a token is restricted to; None where it may do everything."""
    listed = entry.elements("accessRestrictions", limits=True)
    if listed is None:
        return None
    restrictions: dict[str, AccessRestriction] = {}
    for item in listed:
        _refuse_others(item, ("plugin", "permission", "permissionAttribute"))
        item.require("plugin")
        plugin = item.get("plugin", text) or ""
        if plugin in restrictions:
            item.problem("plugin", "the same plugin twice")
        attribute = item.at("permissionAttribute")
        _refuse_others(attribute, ("action",))
        if item.has("permissionAttribute"):
            attribute.require("action")
        restrictions[plugin] = AccessRestriction(
            plugin,
            permissions=frozenset(item.limit("permission")),
            actions=frozenset(_among(attribute, "action", _ACTIONS)),
        )
    return tuple(restrictions.values())


def _refuse_others(reader: Reader, known: Sequence[str]) -> None:
    """Report unknown keys where one that is not understood would be a limit too few."""
    for key in reader.everything():
        if key not in known:
            reader.problem(key, f"no such key; wanted {' or '.join(known)}")


def _plugin_keys(store: Reader) -> tuple[StaticPluginKey, ...]:
    if store.get("type", one_of("static", "database")) != "static":
        return ()
    store.require("static.keys")
    entries = store.elements("static.keys")
    if entries == []:
        store.problem("static.keys", "empty; the first key is to sign")
    keys = []
    for index, entry in enumerate(entries or ()):
        entry.require("keyId", "publicKeyFile", *(["privateKeyFile"] if index == 0 else []))
        keys.append(
            StaticPluginKey(
                key_id=entry.get("keyId", text) or "",
                public_key_file=entry.get("publicKeyFile", existing_file) or Path(),
                private_key_file=entry.get("privateKeyFile", existing_file),
                **_given(algorithm=entry.get("algorithm", one_of(*_ALGORITHMS))),
            )
        )
    return tuple(keys)


def _cors(reader: Reader) -> Cors | None:
    switch = reader.peek("backend.cors")
    if switch is None or switch is False:
        return None
    cors = reader.at("backend.cors")
    if not cors.has("origin"):
        cors.warn("origin", "missing; no other origin is let in")
    return Cors(
        origins=cors.text_or_texts("origin") or (),
        allowed_headers=_headers(cors, "allowedHeaders"),
        **_given(
            methods=_headers(cors, "methods"),
            exposed_headers=_headers(cors, "exposedHeaders"),
            credentials=cors.get("credentials", flag),
            max_age=cors.get("maxAge", whole),
        ),
    )


def _cache(reader: Reader) -> Cache:
    store = reader.get("store", one_of(*_SHARED_STORES, *_OTHER_STORES)) or "memory"
    if store not in _SHARED_STORES:
        reader.get("connection", str, secret=True)  # in a form that is the store's own affair
        if store not in {"memory", "none"}:
            reader.warn("store", "not supported; memory takes its place")
        return Cache()
    if reader.has(f"{store}.cluster"):
        reader.warn(f"{store}.cluster", "not supported; memory takes its place")
        return Cache()
    reader.require("connection")
    if not isinstance(reader.peek("connection"), dict):
        return Cache(store, reader.get("connection", redis_url))
    reader.require("connection.url")
    reader.warn("connection", "of its options only url is used")
    return Cache(store, reader.get("connection.url", redis_url))


def _headers(reader: Reader, key: str) -> tuple[str, ...] | None:
    texts = reader.text_or_texts(key)
    if texts is None:
        return None
    names = (name.strip() for text in texts for name in text.split(","))
    return tuple(name for name in names if name)
