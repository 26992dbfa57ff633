"""Reads the configuration and reports all problems at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from litellm_plugin.config.database import FILE, Database
from litellm_plugin.config.report import ConfigError, KeyPath, Report, deepest, dotted
from litellm_plugin.config.schema import (
    AppConfig,
    Key,
    Stray,
    json_schema,
    model,
    unsupported,
    walk,
)
from litellm_plugin.config.settings import LiteLLM, Settings
from litellm_plugin.config.sources import Tree, read_tree
from litellm_plugin.config.state import state_folder
from litellm_plugin.config.values import is_service_record, kind

# Texts that a report may quote. Others may be secrets, or URLs with a password.
_QUOTABLE = re.compile(r"[A-Za-z0-9_ $./:,+-]{1,60}")
_NO_BRACES = re.compile(r"\$([A-Z_][A-Z0-9_]+)\b")
_ENTITY_REF = re.compile(r"[a-z][a-z0-9.-]*:[^\s/:A-Z]+/[^\s/A-Z]+")
_DOMAIN = re.compile(r"[^\s@/]+")
_BACKSTAGE_URL = ("litellm", "service", "backstageUrl")
_BASE_URL = ("backend", "baseUrl")
_DATABASE = ("backend", "database")


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading a configuration; problems and warnings are lines without secrets."""

    settings: Settings | None  # None if there are problems
    keys: Sequence[Key]  # every key that this service reads, set or not
    tree: Tree  # the values, each with its origin
    problems: Sequence[str]
    warnings: Sequence[str]
    strays: Sequence[Stray]  # unknown keys below litellm, and misspelt keys of Backstage


def load_settings(paths: Sequence[Path], environ: Mapping[str, str]) -> Settings:
    """Read the configuration files, in order, and ``APP_CONFIG_*`` of the environment.

    Args:
        paths: Later files override earlier ones; see
            :func:`~litellm_plugin.config.default_paths`.
        environ: Variables for ``${X}`` and ``$env``, and ``APP_CONFIG_*``.

    Raises:
        ConfigError: The configuration has problems; the error lists all of them.
    """
    reading = read_configuration(paths, environ)
    if reading.settings is None:
        raise ConfigError(reading.problems)
    return reading.settings


def read_configuration(paths: Sequence[Path], environ: Mapping[str, str]) -> Reading:
    """Read the configuration like :func:`load_settings`, but return problems and details."""
    report = Report()
    tree = read_tree(paths, environ, report)
    found = list(walk(json_schema(), tree.data))
    keys = [item for item in found if isinstance(item, Key)]
    strays = [item for item in found if isinstance(item, Stray)]
    strays = [stray for stray in strays if stray.forbidden or _is_ours(stray, tree)]
    config = _checked(tree, keys, strays, report)
    if tree.at(*_BACKSTAGE_URL) is None and tree.at(*_BASE_URL) is None:
        report.missing(_BASE_URL, deepest(_BASE_URL, tree.left_out))
    for key in keys:
        _judge_left_out(key, tree, report)
        _judge_variables(key, tree, report)
    for stray in strays:
        hint = f"; did you mean {stray.meant}?" if stray.meant else ""
        if stray.forbidden:
            report.problem(stray.path, f"no such key{hint}")
        elif stray.meant:
            report.warn(stray.path, f"not a key of this service{hint}")
    settings = config.settings() if config else None
    if config and settings and settings.uses_store and config.backend.database is None:
        settings = _with_file(settings, environ, report)
    if config and settings:
        _judge_discovery(settings, report)
        for path, text in _warnings(config, settings, tree):
            report.warn((path,), text)
    return Reading(
        None if report.problems else settings, keys, tree, report.problems, report.warnings, strays
    )


def _with_file(settings: Settings, environ: Mapping[str, str], report: Report) -> Settings:
    """Return the settings with the store in a file beside that of the signing key."""
    key_file = settings.service.key_file
    folder = key_file.parent if key_file else state_folder(environ)
    if folder is None:
        text = "missing, and this user has no home folder to keep a file of SQLite in"
        report.problem(_DATABASE, text)
        return settings
    return replace(settings, database=Database(file=folder / FILE))


def _checked(
    tree: Tree, keys: Sequence[Key], strays: Sequence[Stray], report: Report
) -> AppConfig | None:
    try:
        return model().validate_python({"litellm": {}, **tree.data})
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
    misspelt = {(*s.path[:-1], s.meant): f"{s.path[-1]} is written" for s in strays if s.meant}
    for error in errors:
        context = error.get("ctx", {})
        at = context.get("at", ())
        # Pydantic puts the form of a value that it has tried, such as <object>, into the path.
        path = tuple(part for part in error["loc"] if str(part)[:1] != "<") + at
        text = context.get("text", error["type"])
        value = tree.at(*path)
        if text == "missing" or (at == ("type",) and value is None):
            report.missing(path, deepest(path, tree.left_out) or misspelt.get(path))
        elif error["type"] == "fault":
            report.problem(path, text)
        elif error["type"] != "unexpected_keyword_argument":  # else an unknown key
            wanted = "list of objects" if error["type"] == "tuple_type" else "object"
            got = context.get("got")
            if not got and "wanted" in context:
                got = _shown(value, context.get("word"), path, keys, tree)
            origins = tree.origins_of(path)  # none of an object without members
            where = f" in {origins[-1]}" if origins else ""
            wanted = context.get("wanted", wanted)
            report.problem(path, f"got {got or kind(value)}{where}, wanted {wanted}")
    return None


def _shown(value: Any, word: str | None, path: KeyPath, keys: Sequence[Key], tree: Tree) -> str:
    """Return a wrong value, or its wrong ``word``, in quotes; of a secret only the source."""
    if word is None and (not isinstance(value, str) or not value):
        return kind(value)
    inside = (source for place, source in tree.filled.items() if place[: len(path)] == path)
    if source := deepest(path, tree.filled) or next(inside, None):
        return f"a string from {source}"
    texts = value if isinstance(value, list) else [value]
    schema = next((key.schema for key in keys if path[: len(key.path)] == key.path), None)
    if schema is None or schema.get("writeOnly") or not all(map(_QUOTABLE.fullmatch, texts)):
        return "a string (not shown)"
    return f'"{word or value}"'


def _is_ours(stray: Stray, tree: Tree) -> bool:
    """Tell whether an unknown key is below ``litellm``, or a misspelt key of Backstage.

    With a misspelt ``permission`` the service would not ask Backstage's permission policy.
    """
    if stray.path[0] == "litellm":
        return True
    return stray.meant is not None and tree.at(*stray.path[:-1], stray.meant) is None


def _judge_left_out(key: Key, tree: Tree, report: Report) -> None:
    """Report limits, and entries of lists, that are left out."""
    reason = deepest(key.path, tree.left_out)
    if key.value is None and key.schema.get("limits") and reason:
        report.missing(key.path, reason)
    lost = tree.lost.get(key.path, ())
    if lost and key.value == [] and key.schema.get("emptyIsAll"):
        report.problem(
            key.path,
            f"every entry is left out in {tree.origins_of(key.path)[-1]}; an empty list would "
            "allow everything",
        )
    for reason in lost:
        report.warn(key.path, f"an entry is left out: {reason}")


def _judge_variables(key: Key, tree: Tree, report: Report) -> None:
    """Warn about variables without braces, which Backstage does not replace."""
    values = key.value if isinstance(key.value, list) else [key.value]
    for index, value in enumerate(values):
        found = _NO_BRACES.search(value) if isinstance(value, str) else None
        if found and deepest((*key.path, index), tree.filled) is None:
            name = "NAME" if key.schema.get("writeOnly") else found[1]
            text = f"${name} is used as it is written; write ${{{name}}} for the variable's value"
            report.warn(key.path, text)


def _judge_discovery(settings: Settings, report: Report) -> None:
    """Report plugins that this service calls and whose only target is a DNS service record.

    Backstage resolves such records, this service does not.
    """
    permission = ("permission",) if settings.permission_enabled else ()
    for plugin in ("auth", "catalog", *permission):
        if is_service_record(settings.discovery.base_url(plugin)):
            report.problem(
                ("discovery", "endpoints"),
                f"the target for {plugin} is a DNS service record; "
                "wanted an http or https URL, as target.internal or target.external",
            )


def _warnings(config: AppConfig, settings: Settings, tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield warnings about valid settings that may not work as intended: key and text."""
    yield from _group_warnings(config.litellm)
    domain = config.litellm.user_id_domain
    if domain is not None and not _DOMAIN.fullmatch(domain):
        text = "not a domain such as example.com; LiteLLM user ids end with @ and this value"
        yield "litellm.userIdDomain", text
    if tree.at("litellm", "teamAdmin") is not None and not settings.team_management:
        yield "litellm.teamAdmin", "without effect; it needs a group, and permission.enabled"
    if settings.bridge.enabled and settings.bridge.issuer is None:
        text = "missing; the bridge is enabled, and its routes are left out"
        yield "litellm.bridge.issuer", text
    if config.backend.auth.dangerously_disable_default_auth_policy:
        text = "not honoured; every request still needs credentials"
        yield "backend.auth.dangerouslyDisableDefaultAuthPolicy", text
    if settings.cors and not settings.cors.origins:
        yield "backend.cors.origin", "missing; no other origin is allowed"
    if settings.uses_store and settings.database == Database():
        yield "backend.database.connection", "in memory; what the store has is lost at the end"
    cache: Any = tree.at("backend", "cache") or {}
    if key := unsupported(cache):
        yield dotted(("backend", "cache", *key)), "not supported; memory takes its place"
    elif settings.cache.connection and isinstance(cache["connection"], dict):
        yield "backend.cache.connection", "of its options only url is used"


def _group_warnings(litellm: LiteLLM) -> Iterator[tuple[str, str]]:
    groups = {
        "audit.group": litellm.audit.group,
        "teamAdmin.group": litellm.team_admin.group,
        "bridge.group": litellm.bridge.group,
    }
    for index, role in enumerate(litellm.provisioning.roles):
        groups[f"provisioning.roles[{index}].group"] = role.group
    for key, group in groups.items():
        if group == "":
            yield f"litellm.{key}", "missing; no user is a member"
        elif group and not _ENTITY_REF.fullmatch(group):
            text = "not written as group:namespace/name in lower case: it has no members"
            yield f"litellm.{key}", text
