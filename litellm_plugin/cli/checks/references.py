"""Checks of names in the configuration: groups, teams, models, objects; and of user ids."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from litellm_plugin.accounts.caller import is_reserved, litellm_id
from litellm_plugin.cli.checks import Result, failed, ok, skipped, warning
from litellm_plugin.cli.world import World
from litellm_plugin.clients.backstage import split_ref
from litellm_plugin.config.settings import UNAMBIGUOUS, Role
from litellm_plugin.store.database import StoreUnavailable
from litellm_plugin.teams import objects as team_objects

MAX_NAMED = 5  # faults listed before "and N more"

# LiteLLM's special names, which are no models.
_SPECIAL_MODELS = frozenset({"all-proxy-models", "all-team-models", "no-default-models"})
_ALLOW_NOTHING = "Correct or remove the names: they allow nothing."


def groups(world: World) -> Result:
    """Check that the groups of the configuration are in the catalog."""
    settings, catalog, wrong = world.settings, world.plugin.catalog, []
    named = _named(
        ([settings.audit.group], "litellm.audit.group"),
        ([settings.bridge.group], "litellm.bridge.group"),
        ([settings.team_admin.group], "litellm.teamAdmin.group"),
        *(([role.group], f"{where}.group") for role, where in _roles(world)),
    )
    if not named:
        return skipped("The configuration names no group")
    known: list[str] | None = None
    for ref, where in named.items():
        parts = split_ref(ref)
        entity = catalog.entity(ref) if parts else None
        kind = entity.kind if entity else "Group"
        # Memberships are compared as text with full refs in lower case.
        plain = parts and ref == f"{parts[0]}:{parts[1]}/{parts[2]}".lower()
        if entity is not None and kind.lower() == "group" and plain:
            continue
        if known is None:
            known = list(catalog.refs("group"))
        full = ref.lower() if ":" in ref else f"group:default/{ref.lower()}"
        if kind.lower() != "group":
            fault = f"is a {kind}, and no group"
        elif full != ref and full in known:
            fault = f"has to be written {full}"
        else:
            fault = f"is not in the catalog{close(full, known)}"
        wrong.append(f"{where}: {ref} {fault}")
    remedy = (
        "Write groups as group:namespace/name, in lower case, as the catalog has them; "
        "another spelling has no members."
    )
    return _result(wrong, remedy, f"{len(named)} named, all in the catalog")


def teams(world: World) -> Result:
    """Check that the teams of provisioning exist."""
    named = _named(*_provisioned(world, "teams"))
    if not named:
        return skipped("Provisioning names no team")
    rows = world.plugin.litellm.all_teams()
    known = {str(row.get("team_id")) for row in rows}
    ids = {str(row.get("team_alias")): str(row.get("team_id")) for row in rows}
    wrong = [
        f"{where}: LiteLLM has no team {team}"
        + (f" ({team} is the name of team {ids[team]})" if team in ids else close(team, known))
        for team, where in named.items()
        if team not in known
    ]
    remedy = (
        "Name teams by their LiteLLM id, or make the team: LiteLLM silently creates users "
        "without an unknown team."
    )
    return _result(wrong, remedy, f"{len(named)} named, all in LiteLLM")


def sync(world: World) -> Result:
    """Check that accounts can be compared with their roles, if that is enabled."""
    found = world.plugin.sync
    if found is None:
        return skipped("litellm.provisioning.sync is off: roles are given on the first visit only")
    try:
        recorded = len(found.grants.all())
    except StoreUnavailable as exc:
        told = f"{str(exc).removesuffix('.')}."
        return failed(told, "Check backend.database; until it is back no account is compared.")
    world.plugin.litellm.accounts()
    mode = world.settings.provisioning.sync.mode
    return ok(f"mode {mode}; the grants of {recorded} accounts are recorded")


def models(world: World) -> Result:
    """Check that the models and access groups in the configuration exist."""
    admin = world.settings.team_admin
    given = _named(*_provisioned(world, "models"))
    allowed = _named(
        (admin.allowed_models, "litellm.teamAdmin.allowedModels"),
        (world.settings.key_policy.allowed_models, "litellm.keyPolicy.allowedModels"),
        *(
            (role.key_policy.get("allowed_models"), f"{where}.keyPolicy.allowedModels")
            for role, where in _roles(world)
        ),
    )
    groups = "litellm.teamAdmin.allowedModelAccessGroups"
    allowed_groups = _named((admin.allowed_model_access_groups, groups))
    if not (given or allowed or allowed_groups):
        return skipped("The configuration names no model")
    rows = world.plugin.litellm.model_info()
    names = {str(row.get("model_name")) for row in rows}
    infos = [info for row in rows if isinstance(info := row.get("model_info"), dict)]
    access_groups = {str(each) for info in infos for each in info.get("access_groups") or ()}
    prefixes = tuple(name.partition("*")[0] for name in names if "*" in name)

    def is_known(model: str) -> bool:
        return model in _SPECIAL_MODELS or "*" in model or model.startswith(prefixes)

    right = f"{len({*given, *allowed, *allowed_groups})} named, all in LiteLLM"
    if wrong := _missing(given, names | access_groups, is_known):
        remedy = (
            "Write LiteLLM's model_name, or an access group of models; a user whose models do not "
            "exist can call none."
        )
        return _result(wrong, remedy, right)
    wrong = _missing(allowed, names | access_groups, is_known)
    wrong += _missing(allowed_groups, access_groups, is_known)
    return _result(wrong, _ALLOW_NOTHING, right, warning)


def objects(world: World) -> Result:
    """Check that the vector stores and MCP servers of allow-lists exist."""
    admin, litellm = world.settings.team_admin, world.plugin.litellm
    stores, servers, groups = (
        _named((names, f"litellm.teamAdmin.{setting}"))
        for names, setting in (
            (admin.allowed_vector_stores, "allowedVectorStores"),
            (admin.allowed_mcp_servers, "allowedMcpServers"),
            (admin.allowed_mcp_access_groups, "allowedMcpAccessGroups"),
        )
    )
    if not (stores or servers or groups):
        return skipped("The configuration names no vector store or MCP server")
    wrong = []
    if stores:
        wrong += _missing_objects(
            stores, team_objects.read("vector_stores", litellm.vector_stores())
        )
    if servers or groups:
        rows = team_objects.read("mcp_servers", litellm.mcp_servers())
        wrong += _missing_objects(servers, rows)
        in_servers = {group for row in rows for group in row.groups}
        wrong += _missing(groups, in_servers, what="MCP server in ")
    right = f"{len(stores) + len(servers) + len(groups)} named, all in LiteLLM"
    return _result(wrong, _ALLOW_NOTHING, right, warning)


def _missing_objects(named: Mapping[str, str], rows: list[team_objects.TeamObject]) -> list[str]:
    known = {name for row in rows for name in (row.id, *row.names)}
    return _missing(named, known, lambda name: bool(team_objects.meant(name, rows)))


def user_ids(world: World) -> Result:
    """Check that no two users of the catalog have one LiteLLM id, and that none is reserved."""
    settings, owners = world.settings, defaultdict[str, list[str]](list)
    for ref in sorted(world.plugin.catalog.refs("user")):
        owners[litellm_id(ref, settings.user_id_domain)].append(ref)
    shared = [
        f"{user_id} is the LiteLLM id of {' and '.join(refs)}"
        for user_id, refs in sorted(owners.items())
        if len(refs) > 1
    ]
    reserved = [ref for id_ in sorted(owners) if is_reserved(id_, settings) for ref in owners[id_]]
    note = f"{_listed(reserved)}: the LiteLLM id is reserved, so every request is refused (409)."
    if shared:
        found = f"{_listed(shared)}."
        rename = "Rename one of them in the catalog; a LiteLLM id has the name, not the namespace."
        reserved_note = f" {note}" if reserved else ""
        if settings.service.user_ids == UNAMBIGUOUS:
            unclear = "Requests for an account of unclear ownership are refused (409)."
            return warning(f"{found} {unclear}{reserved_note}", rename)
        return failed(
            f"{found}{reserved_note}",
            f"They share one account with its keys and budget. {rename} Until then "
            "litellm.service.userIds: unambiguous refuses all but the account's owner.",
        )
    if reserved:
        return warning(
            note,
            "Rename them in the catalog, set litellm.userIdDomain, or correct "
            "litellm.service.reservedUserIds.",
        )
    return ok(f"{len(owners)} users, {len(owners)} LiteLLM ids")


def offboarding(world: World) -> Result:
    """Check that the catalog lists people, if ``litellm.offboarding.enabled``."""
    if not world.settings.offboarding.enabled:
        return skipped("litellm.offboarding.enabled is false")
    people = len(set(world.plugin.catalog.refs("user")))
    if not people:
        return failed(
            "The catalog lists no people, so litellm-plugin offboard refuses to run.",
            "Check Backstage's catalog providers, and that this service's token may read users.",
        )
    return ok(f"The catalog lists {people} people")


def _roles(world: World) -> list[tuple[Role, str]]:
    """Return the roles of provisioning, each with its key."""
    roles = world.settings.provisioning.roles
    return [(role, f"litellm.provisioning.roles[{index}]") for index, role in enumerate(roles)]


def _provisioned(world: World, field: str) -> list[tuple[Iterable[str], str]]:
    """Return the names in a field of provisioning's defaults and roles, each with its key."""
    provisioning = world.settings.provisioning
    if not provisioning.enabled:
        return []
    return [
        (getattr(provisioning.defaults, field), f"litellm.provisioning.defaults.{field}"),
        *((role.overrides.get(field, ()), f"{where}.{field}") for role, where in _roles(world)),
    ]


def _named(*places: tuple[Iterable[str | None] | None, str]) -> dict[str, str]:
    """Return each name in ``places`` with the first key that has it."""
    named: dict[str, str] = {}
    for names, where in places:
        for name in names or ():
            if name:
                named.setdefault(name, where)
    return named


def _missing(
    named: Mapping[str, str],
    known: Collection[str],
    is_known: Callable[[str], bool] = lambda _name: False,
    what: str = "",
) -> list[str]:
    return [
        f"{where}: LiteLLM has no {what}{name}{close(name, known)}"
        for name, where in named.items()
        if name not in known and not is_known(name)
    ]


def _result(
    wrong: list[str], remedy: str, right: str, bad: Callable[[str, str], Result] = failed
) -> Result:
    return bad(f"{_listed(wrong)}.", remedy) if wrong else ok(right)


def close(name: str, known: Collection[str]) -> str:
    """Return " (did you mean X?)" with the most similar of ``known``; "" if none is similar."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def _listed(wrong: list[str]) -> str:
    more = len(wrong) - MAX_NAMED
    return "; ".join(wrong[:MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")
