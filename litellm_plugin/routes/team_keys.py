"""Team keys, for members of the team admins' group."""

from __future__ import annotations

from typing import Any

from litellm_plugin.access import Permission
from litellm_plugin.observability.journal import Event
from litellm_plugin.routes.inputs import body, current_caller
from litellm_plugin.routes.keys import handed_over, rotation
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.routing import routes

Json = dict[str, Any]


@routes.get("/teams/<litellm_id:team_id>/keys", relays=True)
def team_keys(team_id: str) -> list[Json]:
    user = plugin.access.team_admin(current_caller(), Permission.TEAM_MANAGE)
    return plugin.team_keys.all(plugin.team_admin.owned_team(user, team_id))


@routes.post("/teams/<litellm_id:team_id>/keys", relays=True, event=Event("team-key-create"))
def create_team_key(team_id: str) -> Json:
    caller = current_caller()
    user = plugin.access.team_admin(caller, Permission.TEAM_MANAGE)
    plugin.access.require(caller, Permission.KEY_CREATE)
    new = plugin.team_keys.read(body())
    with plugin.team_admin.managed_team(user, team_id, on_all_hosts=True) as team:
        return handed_over(plugin.team_keys.create(team, new, caller))


@routes.post(
    "/teams/<litellm_id:team_id>/keys/<litellm_id:key>/rotate",
    relays=True,
    event=Event("team-key-rotate"),
)
def rotate_team_key(team_id: str, key: str) -> Json:
    caller = current_caller()
    user = plugin.access.team_admin(caller, Permission.TEAM_MANAGE)
    plugin.access.require(caller, Permission.KEY_MANAGE)
    plugin.access.require(caller, Permission.KEY_CREATE)
    asked = rotation(key)
    with plugin.team_admin.managed_team(user, team_id, on_all_hosts=True) as team:
        return plugin.team_keys.rotate(team, asked, caller)


@routes.delete(
    "/teams/<litellm_id:team_id>/keys/<litellm_id:key>",
    relays=True,
    event=Event("team-key-delete", "high"),
)
def delete_team_key(team_id: str, key: str) -> Json:
    caller = current_caller()
    user = plugin.access.team_admin(caller, Permission.TEAM_MANAGE)
    plugin.access.require(caller, Permission.KEY_REVOKE)
    with plugin.team_admin.managed_team(user, team_id) as team:
        plugin.team_keys.delete(team, key)
    return {"success": True}
