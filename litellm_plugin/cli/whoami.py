"""``whoami``: a user's groups, role and LiteLLM account, or what a first visit would create."""

from __future__ import annotations

import math
from typing import Any

import click

from litellm_plugin.accounts.caller import NO_ENTITY, Caller, litellm_id, not_reserved
from litellm_plugin.accounts.ownership import is_administrator
from litellm_plugin.cli.checks.references import close
from litellm_plugin.cli.terminal import Page, full_ref, json_option, settings_option, show
from litellm_plugin.cli.world import read_only_plugin
from litellm_plugin.clients.backstage import split_ref
from litellm_plugin.clients.litellm import Account
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import BackstageUnavailable, Conflict, PluginError
from litellm_plugin.identity.principal import UserPrincipal
from litellm_plugin.plugin import Plugin

# Fields of a LiteLLM user that limit spending and calls.
_LIMITS = ("max_budget", "budget_duration", "budget_reset_at", "models", "tpm_limit", "rpm_limit")


@click.command()
@click.argument("user")
@settings_option
@json_option
def whoami(user: str, settings: Settings, *, as_json: bool) -> None:
    """Show the role and LiteLLM account of USER, or what a first visit would create.

    USER is an entity ref, such as user:default/jane, or a name in the default namespace.
    Only reads, and provisions no user. Ends with status 1 if the catalog or LiteLLM fails,
    or the user is not in the catalog.
    """
    ref = full_ref("user", user)
    if split_ref(ref) is None or not ref.lower().startswith("user:"):
        raise click.BadParameter(f"{ref} is not the entity ref of a user", param_hint="USER")
    plugin = read_only_plugin(settings)
    with Page(err=True).progress(f"Looking for {ref} ..."):
        found = _found(plugin, settings, ref.lower())
    show(found, _print, as_json=as_json, failed=bool(found["errors"]))


def _found(plugin: Plugin, settings: Settings, ref: str) -> dict[str, Any]:
    """Return the fields of ``--json``, as docs/command-line.md describes them."""
    user_id = litellm_id(ref, settings.user_id_domain)
    # plugin.caller would refuse a reserved id; the catalog's part is shown all the same.
    caller = Caller(UserPrincipal(ref, None, None, math.inf), user_id, plugin.directory.entity)
    found: dict[str, Any] = {
        "user": ref,
        "catalog": None,
        "role": None,
        "audit": None,
        "team_admin": None,
        "litellm_id": user_id,
        "litellm": None,
        "first_visit": None,
        "refused": None,
        "errors": [],
    }
    entity = None
    try:
        entity = caller.entity
        role = settings.provisioning.role_for(entity.groups)
        found["role"] = role.group if role else None
        found["audit"] = settings.audit.group in entity.groups
        found["team_admin"] = plugin.access.manages_teams(caller)
        if entity is not NO_ENTITY:
            found["catalog"] = {
                "display_name": entity.display_name,
                "email": entity.email,
                "groups": sorted(entity.groups),
            }
        else:
            short = "user:default/"
            known = [each.removeprefix(short) for each in plugin.catalog.refs("user")]
            meant = close(ref.removeprefix(short), known)
            found["errors"].append(f"{ref} is not in the catalog{meant}.")
    except PluginError as exc:
        found["errors"].append(f"The catalog failed: {exc}; run litellm-plugin doctor")
        found["audit"] = found["team_admin"] = None  # not known
    try:
        not_reserved(user_id, settings)
        # Provisioning looks by e-mail when LiteLLM refuses a second user with the same e-mail.
        by_email = settings.service.cache_seconds != 0 or settings.provisioning.enabled
        account = plugin.users.find(caller, fresh=True, by_email=by_email)
        whole = plugin.litellm.whole_account(account.asked) if account else None
        found["litellm"] = _by_litellm(whole) if whole else None
        if account is None and entity is not None:
            found["first_visit"] = _first_visit(plugin, caller)
    except Conflict as exc:
        found["refused"] = f"{exc}. {exc.fields.get('hint', '')}"
    except PluginError as exc:
        if not isinstance(exc, BackstageUnavailable):
            found["errors"].append(f"LiteLLM failed: {exc}; run litellm-plugin doctor")
        elif not found["errors"]:
            found["errors"].append(f"The catalog failed: {exc}; run litellm-plugin doctor")
    return found


def _by_litellm(account: Account) -> dict[str, Any]:
    info = account.info
    keys = [key for key in info.get("keys") or () if isinstance(key, dict)]
    return {
        "user_id": account.user_id,
        "administrator": is_administrator(account),
        "email": info.get("user_email"),
        "role": info.get("user_role"),
        "spend": info.get("spend"),
        **{name: info.get(name) for name in _LIMITS},
        "teams": account.team_ids,
        "keys": len(keys),
        "blocked_keys": sum(1 for key in keys if key.get("blocked")),
    }


def _first_visit(plugin: Plugin, caller: Caller) -> dict[str, Any]:
    if not plugin.settings.provisioning.enabled:
        return {"creates": False, "user": None}
    user = plugin.users.would_create(caller)
    del user["metadata"]["provisioned_at"]  # the time of the visit
    return {"creates": True, "user": user}


def _print(page: Page, found: dict[str, Any]) -> None:
    page.line(found["user"], "bold")
    catalog, account, visit = found["catalog"], found["litellm"], found["first_visit"]
    if catalog is not None:
        rights = (("read the audit log", found["audit"]), ("manage teams", found["team_admin"]))
        page.pairs(
            {
                "name": catalog["display_name"],
                "e-mail": catalog["email"],
                "groups": ", ".join(catalog["groups"]) or "none",
                "role": found["role"] or "none; the defaults apply",
                "may": ", ".join(text for text, has in rights if has) or "nothing special",
            }
        )
    elif found["audit"] is not None:
        page.line("Not in the catalog: no groups, so the defaults apply.", "yellow", indent=2)
    page.heading(f"LiteLLM: {found['litellm_id']}")
    if account is not None:
        other, blocked = account["user_id"] != found["litellm_id"], account["blocked_keys"]
        page.pairs(
            {"found by": f"e-mail, as {account['user_id']}" if other else None}
            | _user_rows(account, account["role"], account["email"], account["spend"])
            | {"keys": f"{account['keys']}" + (f", {blocked} of them blocked" if blocked else "")}
        )
    elif visit is not None and visit["creates"]:
        user = visit["user"]
        page.line("No account yet. A first visit creates the user, with:", indent=2)
        page.pairs(
            _user_rows(user, user.get("user_role"), user.get("user_email"), None)
            | {"metadata": user["metadata"]}
        )
    elif visit is not None:
        page.line(
            "No account. A first visit creates none (litellm.provisioning.enabled is false).",
            "yellow",
            indent=2,
        )
    if found["refused"] is not None:
        page.line(f"Refused (409): {found['refused']}", "yellow", indent=2)
    for error in found["errors"]:
        page.line(error, "bold red", indent=2)


def _user_rows(user: dict[str, Any], role: Any, email: Any, spend: Any) -> dict[str, Any]:
    """Return the lines about a LiteLLM user, or about one to be created."""
    return {
        "role": role,
        "e-mail": email,
        "spend": None if spend is None else f"{spend:,.4f} USD",
        "budget": _budget(user),
        "models": ", ".join(user["models"] or ()) or "all",
        "tokens per minute": user.get("tpm_limit") or "no limit",
        "requests per minute": user.get("rpm_limit") or "no limit",
        "teams": ", ".join(user["teams"]) or "none",
    }


def _budget(limits: dict[str, Any]) -> str:
    if limits.get("max_budget") is None:
        return "no limit"
    period, reset_at = limits.get("budget_duration"), limits.get("budget_reset_at")
    return (
        f"{limits['max_budget']:,.2f} USD"
        + (f" per {period}" if period else "")
        + (f", reset at {reset_at}" if reset_at else "")
    )
