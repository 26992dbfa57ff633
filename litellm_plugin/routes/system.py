"""Health and configuration, as the frontend reads them."""

from __future__ import annotations

from typing import Any

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
