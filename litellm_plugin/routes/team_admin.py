"""Team administration, for the members of the team admins' group."""

from __future__ import annotations

from typing import Any

from litellm_plugin.access import Permission
from litellm_plugin.observability.journal import Event
from litellm_plugin.routes.inputs import body, current_caller, query
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.routing import routes

Json = dict[str, Any]

# The body is read before the team's lock is acquired, so that a slow client does not hold the lock.


@routes.post("/teams", relays=True, event=Event("team-create"))
def create_team() -> Json:
    user = plugin.access.team_admin(current_caller(), Permission.TEAM_CREATE)
    return plugin.team_admin.create(body(), user)


@routes.get("/teams/managed", relays=True)
def managed_teams() -> list[Json]:
    user = plugin.access.team_admin(current_caller(), Permission.TEAM_MANAGE)
    return plugin.team_admin.all(user)


@routes.patch("/teams/<litellm_id:team_id>", relays=True, event=Event("team-update"))
def update_team(team_id: str) -> Json:
    user = plugin.access.team_admin(current_caller(), Permission.TEAM_MANAGE)
    change = body()
    with plugin.team_admin.managed_team(user, team_id) as team:
        return plugin.team_admin.update(team, change)


@routes.delete("/teams/<litellm_id:team_id>", relays=True, event=Event("team-delete", "high"))
def delete_team(team_id: str) -> Json:
    user = plugin.access.team_admin(current_caller(), Permission.TEAM_DELETE)
    with plugin.team_admin.managed_team(user, team_id) as team:
        plugin.team_admin.delete(team, force=query("force") == "true")
    return {"success": True}


@routes.post("/teams/<litellm_id:team_id>/members", relays=True, event=Event("team-member-add"))
def add_team_member(team_id: str) -> Json:
    user = plugin.access.team_admin(current_caller(), Permission.TEAM_MEMBERS)
    change = body()
    with plugin.team_admin.managed_team(user, team_id) as team:
        return plugin.team_admin.add_member(team, change)


@routes.delete(
    "/teams/<litellm_id:team_id>/members", relays=True, event=Event("team-member-remove")
)
def remove_team_member(team_id: str) -> Json:
    user = plugin.access.team_admin(current_caller(), Permission.TEAM_MEMBERS)
    with plugin.team_admin.managed_team(user, team_id) as team:
        return plugin.team_admin.remove_member(team, query("userEntityRef"))


@routes.get("/vector-stores", relays=True)
def vector_stores() -> list[Json]:
    plugin.access.object_admin(current_caller(), Permission.TEAM_KNOWLEDGE_BASE)
    return plugin.team_admin.objects("vector_stores")


@routes.put(
    "/teams/<litellm_id:team_id>/knowledge-bases",
    relays=True,
    event=Event("team-knowledge-bases-update"),
)
def set_knowledge_bases(team_id: str) -> Json:
    user = plugin.access.object_admin(current_caller(), Permission.TEAM_KNOWLEDGE_BASE)
    change = body()
    with plugin.team_admin.managed_team(user, team_id) as team:
        return plugin.team_admin.set_objects(team, "vector_stores", change)


@routes.get("/mcp-servers", relays=True)
def mcp_servers() -> list[Json]:
    plugin.access.object_admin(current_caller(), Permission.TEAM_MCP)
    return plugin.team_admin.objects("mcp_servers")


@routes.put(
    "/teams/<litellm_id:team_id>/mcp-servers", relays=True, event=Event("team-mcp-servers-update")
)
def set_mcp_servers(team_id: str) -> Json:
    user = plugin.access.object_admin(current_caller(), Permission.TEAM_MCP)
    change = body()
    with plugin.team_admin.managed_team(user, team_id) as team:
        return plugin.team_admin.set_objects(team, "mcp_servers", change)
