"""``whoami``: a user's groups, role and LiteLLM account, or what a first visit would create."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from litellm_plugin.accounts.caller import NO_ENTITY, Caller, litellm_id, not_reserved
from litellm_plugin.accounts.ownership import is_administrator
from litellm_plugin.cli.terminal import (
    FAILED,
    Page,
    captured_log,
    config_option,
    json_option,
    print_json,
    printable,
    settings_of,
)
from litellm_plugin.cli.world import read_only_plugin
from litellm_plugin.clients.backstage import Entity, split_ref
from litellm_plugin.clients.litellm import Account
from litellm_plugin.errors import BackstageUnavailable, Conflict, PluginError
from litellm_plugin.identity.principal import UserPrincipal
from litellm_plugin.plugin import Plugin
from litellm_plugin.redaction import redact

# Fields of a LiteLLM user that limit spending and calls.
_LIMITS = ("max_budget", "budget_duration", "budget_reset_at", "models", "tpm_limit", "rpm_limit")


@click.command()
@click.argument("user")
@config_option
@json_option
def whoami(user: str, files: Sequence[Path], *, as_json: bool) -> None:
    """Show the role and LiteLLM account of USER, or what a first visit would create.

    USER is an entity ref, such as user:default/jane, or a name in the default namespace.
    Only reads, and provisions no user. Ends with status 1 if the catalog or LiteLLM fails.
    """
    settings = settings_of(files)
    ref = user if ":" in user else f"user:default/{user}"
    if split_ref(ref) is None or not ref.lower().startswith("user:"):
        raise click.BadParameter(f"{ref} is not the entity ref of a user", param_hint="USER")
    with captured_log():
        plugin = read_only_plugin(settings)
        with Page(err=True).progress(f"Looking for {ref} ..."):
            kept = settings.service.cache_seconds != 0
            found = _found(plugin, ref.lower(), answers_kept=kept)
    if as_json:
        print_json(found)
    else:
        _print(Page(), found)
    if found["errors"]:
        sys.exit(FAILED)


def _found(plugin: Plugin, ref: str, *, answers_kept: bool) -> dict[str, Any]:
    """Return the fields of ``--json``, as docs/command-line.md describes them."""
    settings = plugin.settings
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
    in_catalog = None
    try:
        in_catalog = caller.entity
        found.update(_by_catalog(plugin, caller, in_catalog))
    except PluginError as exc:
        found["errors"].append(f"The catalog failed: {redact(exc.message)}")
    try:
        not_reserved(user_id, settings)
        account = plugin.users.would_find(caller, answers_kept=answers_kept)
        whole = plugin.litellm.whole_account(account.asked) if account else None
        found["litellm"] = _by_litellm(whole) if whole else None
        if account is None and in_catalog is not None:
            found["first_visit"] = _first_visit(plugin, caller)
    except Conflict as exc:
        found["refused"] = f"{redact(exc.message)}. {exc.fields.get('hint', '')}"
    except BackstageUnavailable as exc:
        if not found["errors"]:
            found["errors"].append(f"The catalog failed: {redact(exc.message)}")
    except PluginError as exc:
        found["errors"].append(f"LiteLLM failed: {redact(exc.message)}")
    return found


def _by_catalog(plugin: Plugin, caller: Caller, entity: Entity) -> dict[str, Any]:
    role = plugin.settings.provisioning.role_for(entity.groups)
    known = entity is not NO_ENTITY
    return {
        "catalog": {
            "display_name": entity.display_name,
            "email": entity.email,
            "groups": sorted(entity.groups),
        }
        if known
        else None,
        "role": role.group if role else None,
        "audit": plugin.settings.audit_group in entity.groups,
        "team_admin": plugin.access.manages_teams(caller),
    }


def _by_litellm(account: Account) -> dict[str, Any]:
    info = account.info
    keys = [key for key in info.get("keys") or () if isinstance(key, dict)]
    blocked = sum(1 for key in keys if key.get("blocked"))
    return {
        "user_id": account.user_id,
        "administrator": is_administrator(account),
        "email": info.get("user_email"),
        "role": info.get("user_role"),
        "spend": info.get("spend"),
        **{name: info.get(name) for name in _LIMITS},
        "teams": account.team_ids,
        "keys": len(keys),
        "blocked_keys": blocked,
    }


def _first_visit(plugin: Plugin, caller: Caller) -> dict[str, Any]:
    if not plugin.settings.provisioning.enabled:
        return {"creates": False, "user": None}
    user = plugin.users.would_create(caller)
    del user["metadata"]["provisioned_at"]  # the time of the visit
    return {"creates": True, "user": user}


def _print(page: Page, found: dict[str, Any]) -> None:
    page.line(found["user"], "bold")
    catalog = found["catalog"]
    if catalog is not None:
        rows = {
            "name": catalog["display_name"],
            "e-mail": catalog["email"],
            "groups": ", ".join(catalog["groups"]) or "none",
            "role": found["role"] or "none; the defaults apply",
            "may": _may(found),
        }
    elif found["audit"] is not None:
        page.line("Not in the catalog: no groups, so the defaults apply.", "yellow", indent=2)
        rows = {}
    else:
        rows = {}
    _rows(page, rows)
    page.heading(f"LiteLLM: {found['litellm_id']}")
    if found["litellm"] is not None:
        _rows(page, _account_rows(found["litellm"], found["litellm_id"]))
    elif found["first_visit"] is not None:
        _print_first_visit(page, found["first_visit"])
    if found["refused"] is not None:
        page.line(f"Refused (409): {found['refused']}", "yellow", indent=2)
    for error in found["errors"]:
        page.line(error, "bold red", indent=2)


def _may(found: dict[str, Any]) -> str:
    may = [
        text
        for text, allowed in (
            ("read the audit log", found["audit"]),
            ("manage teams", found["team_admin"]),
        )
        if allowed
    ]
    return ", ".join(may) or "nothing special"


def _account_rows(account: dict[str, Any], user_id: str) -> dict[str, Any]:
    keys = str(account["keys"])
    if account["blocked_keys"]:
        keys += f", {account['blocked_keys']} of them blocked"
    return {
        "found by": None if account["user_id"] == user_id else f"e-mail, as {account['user_id']}",
        "role": account["role"],
        "e-mail": account["email"],
        "spend": _usd(account["spend"]),
        "budget": _budget(account),
        "models": ", ".join(account["models"] or ()) or "all",
        "tokens per minute": account["tpm_limit"] or "no limit",
        "requests per minute": account["rpm_limit"] or "no limit",
        "teams": ", ".join(account["teams"]) or "none",
        "keys": keys,
    }


def _print_first_visit(page: Page, visit: dict[str, Any]) -> None:
    if not visit["creates"]:
        page.line(
            "No account. A first visit creates none (litellm.provisioning.enabled is false).",
            "yellow",
            indent=2,
        )
        return
    user = visit["user"]
    page.line("No account yet. A first visit creates the user, with:", indent=2)
    _rows(
        page,
        {
            "role": user.get("user_role"),
            "e-mail": user.get("user_email"),
            "budget": _budget(user),
            "models": ", ".join(user["models"]) or "all",
            "tokens per minute": user.get("tpm_limit") or "no limit",
            "requests per minute": user.get("rpm_limit") or "no limit",
            "teams": ", ".join(user["teams"]) or "none",
            "metadata": user["metadata"],
        },
    )


def _rows(page: Page, rows: dict[str, Any]) -> None:
    page.rows(
        [
            ((name, "dim"), (printable(value), ""))
            for name, value in rows.items()
            if value is not None
        ]
    )


def _usd(amount: Any) -> str:
    return "unknown" if amount is None else f"{amount:,.4f} USD"


def _budget(limits: dict[str, Any]) -> str:
    if limits.get("max_budget") is None:
        return "no limit"
    period = limits.get("budget_duration")
    reset_at = limits.get("budget_reset_at")
    return (
        f"{limits['max_budget']:,.2f} USD"
        + (f" per {period}" if period else "")
        + (f", reset at {reset_at}" if reset_at else "")
    )
