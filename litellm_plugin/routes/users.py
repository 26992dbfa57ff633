"""The caller's account, models, teams and usage."""

from __future__ import annotations

from typing import Any

from litellm_plugin import shapes
from litellm_plugin.routes.inputs import current_caller, dates, with_timezone
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.routing import routes


@routes.get("/user/info")
def user_info() -> dict[str, Any]:
    caller = current_caller()
    account = plugin.users.account(caller, for_service=True)
    audits = plugin.access.may_view_audit(caller)
    return shapes.user_info(
        account.user_id,
        account.info,
        account.team_ids,
        can_view_audit=audits,
        soft_share=plugin.settings.notifications.soft_share,
    )


@routes.get("/models")
def models() -> list[dict[str, Any]]:
    return plugin.models.all(current_caller().note_stale)


@routes.get("/teams")
def teams() -> list[dict[str, Any]]:
    caller = current_caller()
    return plugin.teams.of(caller, plugin.users.account(caller))


@routes.get("/usage")
def user_usage() -> dict[str, Any]:
    with dates() as (start, end):
        return with_timezone(plugin.users.usage(current_caller(), start, end))


@routes.get("/teams/<litellm_id:team_id>/usage")
def team_usage(team_id: str) -> dict[str, Any]:
    with dates() as (start, end):
        return with_timezone(plugin.teams.usage(team_id, start, end, current_caller()))


@routes.get("/teams/<litellm_id:team_id>/usage/members")
def team_member_usage(team_id: str) -> dict[str, Any]:
    with dates() as (start, end):
        return with_timezone(plugin.member_usage.of(team_id, start, end, current_caller()))
