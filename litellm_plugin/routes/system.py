"""Health and configuration for the frontend; audit log and preview for the audit group."""

from __future__ import annotations

from typing import Any

from litellm_plugin.access import Permission
from litellm_plugin.audit_log import page, preview
from litellm_plugin.errors import BadRequest
from litellm_plugin.routes.inputs import current_caller, queries, query
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.routing import routes


@routes.get("/health")
def health() -> dict[str, Any]:
    return {"status": "ok", "provisioning": plugin.settings.provisioning.enabled}


@routes.get("/config")
def config() -> dict[str, Any]:
    settings = plugin.settings
    keys, teams, display = settings.key_generation, settings.team_admin, settings.display
    return {
        "baseUrl": settings.public_base_url or settings.base_url,
        "keyGeneration": {
            "allowUnlimitedBudget": bool(keys.allow_unlimited_budget),
            "teamRequired": keys.team_required is not False,
        },
        "opencode": {"enabled": settings.opencode.enabled},
        "teamManagement": {
            "enabled": settings.team_management,
            "maxBudgetCeiling": teams.max_budget_ceiling,
            "allowUnlimitedBudget": teams.allow_unlimited_budget,
            "objectPermissionsEnabled": settings.team_management and teams.object_permissions,
        },
        "display": {
            "hideTeamBudgetForMembers": display.hide_team_budget_for_members,
            "hideTeamBudgetForManagers": display.hide_team_budget_for_managers,
        },
    }


@routes.get("/audit")
def audit_log() -> Any:
    caller = current_caller()
    plugin.access.auditor(caller, "Audit log")
    plugin.access.require(caller, Permission.AUDIT_READ)
    if plugin.audit_reader is not None:
        return plugin.audit_reader.page(queries())
    return page(plugin.litellm, queries())


@routes.get("/provisioning/preview")
def preview_provisioning() -> dict[str, Any]:
    plugin.access.auditor(current_caller(), "Preview")
    group = query("group").strip()
    if not group:
        raise BadRequest("group query parameter is required (e.g. group=group:default/ai-platform)")
    shown = preview(plugin.settings.provisioning, group)
    return shown if plugin.sync is None else {**shown, "sync": plugin.sync.preview(group)}
