"""Checks of names in the configuration: groups, teams, models, objects; and of user ids."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from litellm_plugin.accounts.caller import is_reserved, litellm_id
from litellm_plugin.cli.checks import Result, failed, ok, skipped, warning
from litellm_plugin.cli.world import World
from litellm_plugin.clients.backstage import split_ref
from litellm_plugin.config.settings import UNAMBIGUOUS, UserDefaults
from litellm_plugin.teams import objects as team_objects

MAX_NAMED = 5  # faults listed before "and N more"

# LiteLLM's special names, which are no models.
_SPECIAL_MODELS = frozenset({"all-proxy-models", "all-team-models", "no-default-models"})


def groups(world: World) -> Result:
    """Check that the groups of the configuration are in the catalog."""
    named = dict(_groups_named(world))
    if not named:
        return skipped("The configuration names no group")
    catalog, wrong = world.plugin.catalog, []
    known: list[str] | None = None
    for ref, where in named.items():
        parts = split_ref(ref)
        entity = catalog.entity(ref) if parts else None
        # Memberships are compared as text with full refs in lower case.
        if entity is not None and entity.kind.lower() == "group" and _is_plain(ref):
            continue
        if known is None:
            known = list(catalog.refs("group"))
        if entity is not None and entity.kind.lower() != "group":
            wrong.append(f"{where}: {ref} is a {entity.kind}, and no group")
        else:
            wrong.append(f"{where}: {_unknown_group(ref, known)}")
    if wrong:
        return failed(
            f"{_listed(wrong)}.",
            "Write groups as group:namespace/name, in lower case, as the catalog has them; "
            "another spelling has no members.",
        )
    return ok(f"{len(named)} named, all in the catalog")


def _unknown_group(ref: str, known: Collection[str]) -> str:
    full = ref.lower() if ":" in ref else f"group:default/{ref.lower()}"
    if full != ref and full in known:
        return f"{ref} has to be written {full}"
    return f"{ref} is not in the catalog{_close(full, known)}"


def _is_plain(ref: str) -> bool:
    parts = split_ref(ref)
    return parts is not None and ref == f"{parts[0]}:{parts[1]}/{parts[2]}" == ref.lower()


def _groups_named(world: World) -> Iterator[tuple[str, str]]:
    """Yield each group with a key that names it; ``dict`` keeps the last one."""
    settings = world.settings
    for index, role in reversed(list(enumerate(settings.provisioning.roles))):
        yield role.group, f"litellm.provisioning.roles[{index}].group"
    if settings.team_admin.group:
        yield settings.team_admin.group, "litellm.teamAdmin.group"
    if settings.bridge.group:
        yield settings.bridge.group, "litellm.bridge.group"
    if settings.audit_group:
        yield settings.audit_group, "litellm.audit.group"


def teams(world: World) -> Result:
    """Check that the teams of provisioning exist."""
    named = _provisioned(world, "teams")
    if not named:
        return skipped("Provisioning names no team")
    rows = world.plugin.litellm.all_teams()
    known = {str(row.get("team_id")) for row in rows}
    ids = {str(row.get("team_alias")): str(row.get("team_id")) for row in rows}
    wrong = []
    for team, where in named.items():
        if team in known:
            continue
        hint = f" ({team} is the name of team {ids[team]})" if team in ids else _close(team, known)
        wrong.append(f"{where}: LiteLLM has no team {team}{hint}")
    if wrong:
        return failed(
            f"{_listed(wrong)}.",
            "Name teams by their LiteLLM id, or make the team: LiteLLM silently creates users "
            "without an unknown team.",
        )
    return ok(f"{len(named)} named, all in LiteLLM")


def models(world: World) -> Result:
    """Check that the models and access groups in the configuration exist."""
    given, allowed = _provisioned(world, "models"), _allowed_models(world)
    allowed_groups = dict.fromkeys(
        world.settings.team_admin.allowed_model_access_groups,
        "litellm.teamAdmin.allowedModelAccessGroups",
    )
    if not (given or allowed or allowed_groups):
        return skipped("The configuration names no model")
    rows = world.plugin.litellm.model_info()
    names = {str(row.get("model_name")) for row in rows}
    access_groups = _access_groups(rows)
    patterns = {name for name in names if "*" in name}

    def missing(named: dict[str, str], known: Collection[str]) -> list[str]:
        return [
            f"{where}: LiteLLM has no {model}{_close(model, known)}"
            for model, where in named.items()
            if model not in known
            and model not in _SPECIAL_MODELS
            and "*" not in model
            and not any(model.startswith(pattern.partition("*")[0]) for pattern in patterns)
        ]

    wrong = missing(given, names | access_groups)
    if wrong:
        return failed(
            f"{_listed(wrong)}.",
            "Write LiteLLM's model_name, or an access group of models; a user whose models do not "
            "exist can call none.",
        )
    wrong = missing(allowed, names | access_groups) + missing(allowed_groups, access_groups)
    if wrong:
        return warning(f"{_listed(wrong)}.", "Correct or remove the names: they allow nothing.")
    return ok(f"{len({*given, *allowed, *allowed_groups})} named, all in LiteLLM")


def _access_groups(rows: Iterable[dict[str, Any]]) -> set[str]:
    found: set[str] = set()
    for row in rows:
        info = row.get("model_info")
        listed = info.get("access_groups") if isinstance(info, dict) else None
        found.update(str(name) for name in listed or ())
    return found


def _allowed_models(world: World) -> dict[str, str]:
    """Return the models of allow-lists, each with a key that names it."""
    settings = world.settings
    named = dict.fromkeys(settings.team_admin.allowed_models, "litellm.teamAdmin.allowedModels")
    policies: list[tuple[str, Iterable[str] | None]] = [
        ("litellm.keyPolicy.allowedModels", settings.key_policy.allowed_models)
    ]
    policies += [
        (
            f"litellm.provisioning.roles[{index}].keyPolicy.allowedModels",
            role.key_policy.get("allowed_models"),
        )
        for index, role in enumerate(settings.provisioning.roles)
    ]
    for where, models in policies:
        for model in models or ():
            named.setdefault(model, where)
    return named


def objects(world: World) -> Result:
    """Check that the vector stores and MCP servers of allow-lists exist."""
    admin, litellm = world.settings.team_admin, world.plugin.litellm
    stores, servers, groups = (
        admin.allowed_vector_stores,
        admin.allowed_mcp_servers,
        admin.allowed_mcp_access_groups,
    )
    if not (stores or servers or groups):
        return skipped("The configuration names no vector store or MCP server")
    wrong = []
    if stores:
        rows = team_objects.vector_stores(litellm.vector_stores())
        wrong += _meaningless("allowedVectorStores", stores, rows)
    if servers or groups:
        rows = team_objects.mcp_servers(litellm.mcp_servers())
        wrong += _meaningless("allowedMcpServers", servers, rows)
        known = {group for row in rows for group in row.groups}
        wrong += [
            f"litellm.teamAdmin.allowedMcpAccessGroups: LiteLLM has no MCP server in"
            f" {name}{_close(name, known)}"
            for name in groups
            if name not in known
        ]
    if wrong:
        return warning(f"{_listed(wrong)}.", "Correct or remove the names: they allow nothing.")
    return ok(f"{len(stores) + len(servers) + len(groups)} named, all there")


def _meaningless(
    setting: str, names: Iterable[str], rows: list[team_objects.TeamObject]
) -> list[str]:
    known = {name for row in rows for name in (row.id, *row.names)}
    return [
        f"litellm.teamAdmin.{setting}: LiteLLM has no {name}{_close(name, known)}"
        for name in names
        if not team_objects.meant(name, rows)
    ]


def user_ids(world: World) -> Result:
    """Check that no two users of the catalog have one LiteLLM id, and that none is reserved."""
    domain = world.settings.user_id_domain
    owners: dict[str, list[str]] = defaultdict(list)
    for ref in world.plugin.catalog.refs("user"):
        owners[litellm_id(ref, domain)].append(ref)
    shared = [
        f"{user_id} is the LiteLLM id of {' and '.join(sorted(refs))}"
        for user_id, refs in sorted(owners.items())
        if len(refs) > 1
    ]
    reserved = [
        ref
        for user_id, refs in sorted(owners.items())
        if is_reserved(user_id, world.settings)
        for ref in sorted(refs)
    ]
    reserved_note = (
        f" {_listed(reserved)}: the LiteLLM id is reserved, so every request is refused (409)."
        if reserved
        else ""
    )
    rename = "Rename one of them in the catalog; a LiteLLM id has the name, not the namespace."
    if shared and world.settings.service.user_ids == UNAMBIGUOUS:
        return warning(
            f"{_listed(shared)}. Requests for an account of unclear ownership are refused (409)."
            f"{reserved_note}",
            rename,
        )
    if shared:
        return failed(
            f"{_listed(shared)}.{reserved_note}",
            f"They share one account with its keys and budget. {rename} Until then "
            "litellm.service.userIds: unambiguous refuses all but the account's owner.",
        )
    if reserved:
        return warning(
            reserved_note.strip(),
            "Rename them in the catalog, set litellm.userIdDomain, or correct "
            "litellm.service.reservedUserIds.",
        )
    return ok(f"{len(owners)} users, {len(owners)} LiteLLM ids")


def _provisioned(world: World, field: str) -> dict[str, str]:
    """Return the names in a field of provisioning's defaults and roles, each with its key."""
    provisioning = world.settings.provisioning
    if not provisioning.enabled:
        return {}
    defaults: UserDefaults = provisioning.defaults
    named = dict.fromkeys(getattr(defaults, field), f"litellm.provisioning.defaults.{field}")
    for index, role in enumerate(provisioning.roles):
        for name in role.overrides.get(field, ()):
            named.setdefault(name, f"litellm.provisioning.roles[{index}].{field}")
    return named


def _close(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _listed(wrong: list[str]) -> str:
    more = len(wrong) - MAX_NAMED
    return "; ".join(wrong[:MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")
