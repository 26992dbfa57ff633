"""Access control: permissions, groups and the ownership of teams.

A guard returns what it has proved, such as the user, or raises. Where Backstage does not
answer, access is denied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum

from litellm_plugin.accounts.caller import Caller
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.backstage import Permissions
from litellm_plugin.clients.litellm import Json
from litellm_plugin.config.settings import AccessRestriction, Settings
from litellm_plugin.errors import BackstageUnavailable, Forbidden, NotAuthenticated
from litellm_plugin.identity.principal import ServicePrincipal, UserPrincipal
from litellm_plugin.shapes import as_object

log = logging.getLogger(__name__)

DECIDED = 3.0  # seconds; the longest TTL of a permission decision, even with a longer cacheSeconds


class Permission(Enum):
    """The plugin's permissions, each with name and action, in the order of the metadata route."""

    KEY_CREATE = ("litellm.key.create", "create")
    KEY_REVOKE = ("litellm.key.revoke", "delete")
    KEY_MANAGE = ("litellm.key.manage", "update")
    AUDIT_READ = ("litellm.audit.read", "read")
    TEAM_CREATE = ("litellm.team.create", "create")
    TEAM_MANAGE = ("litellm.team.manage", "update")
    TEAM_MEMBERS = ("litellm.team.members.manage", "update")
    TEAM_KNOWLEDGE_BASE = ("litellm.team.knowledgebase.manage", "update")
    TEAM_MCP = ("litellm.team.mcp.manage", "update")
    TEAM_DELETE = ("litellm.team.delete", "delete")
    TEAM_USAGE = ("litellm.team.usage.read", "read")  # only with litellm.teamUsage

    @property
    def id(self) -> str:
        """The name, such as ``litellm.key.create``."""
        return self.value[0]

    @property
    def action(self) -> str:
        """The action attribute: create, read, update or delete."""
        return self.value[1]


class Access:
    """Decides what a caller may do.

    ``on_behalf_of`` returns the token with which the permission API is asked about a user.
    """

    def __init__(
        self,
        settings: Settings,
        permissions: Permissions,
        cache: Cache,
        on_behalf_of: Callable[[UserPrincipal], str],
    ) -> None:
        self._settings = settings
        self._permissions = permissions
        self._cache = cache
        self._on_behalf_of = on_behalf_of

    def permissions(self) -> list[Permission]:
        """Return the permissions for Backstage's metadata route: those of enabled features."""
        by_member = self._settings.team_usage.member_breakdown.enabled
        return [each for each in Permission if by_member or each is not Permission.TEAM_USAGE]

    def require(self, caller: Caller, permission: Permission) -> None:
        """Refuse a caller whom Backstage's permission policy denies ``permission``.

        Raises:
            Forbidden: The policy denies it.
            BackstageUnavailable: The permission API does not answer.
        """
        if not self._allowed(caller, permission):
            missing = f'Access denied: missing permission "{permission.id}"'
            raise Forbidden(missing, reason="permission")

    def _allowed(self, caller: Caller, permission: Permission) -> bool:
        principal = caller.principal
        if isinstance(principal, ServicePrincipal):
            # Backstage's permission API refuses services: only the restrictions of
            # their token count.
            return principal.restrictions is None or any(
                _covers(restriction, permission) for restriction in principal.restrictions
            )
        if not self._settings.permission_enabled:
            return True
        return self._cache.read(
            ("decision", principal.entity_ref, permission.id),
            (),
            lambda: self._permissions.allowed(
                permission.id, permission.action, self._on_behalf_of(principal)
            ),
            seconds=min(DECIDED, self._cache.seconds),
        )

    def signed_in(self, caller: Caller) -> UserPrincipal:
        """Return the caller as a user.

        Raises:
            NotAuthenticated: The caller is a service.
        """
        if caller.user is None:
            raise NotAuthenticated
        return caller.user

    def may_view_audit(self, caller: Caller) -> bool:
        """Tell whether the caller is in the audit group; False while the catalog can't be read."""
        group = self._settings.audit.group
        try:
            return group is not None and group in caller.entity.groups
        except BackstageUnavailable as exc:
            log.warning("can't tell whether %s may view the audit log: %s", caller.name, exc)
            return False

    def auditor(self, caller: Caller, what: str) -> UserPrincipal:
        """Return the caller as a member of the audit group; ``what`` names the route in the error.

        Raises:
            NotAuthenticated: The caller is a service.
            Forbidden: There is no audit group, or the user is not in it.
            BackstageUnavailable: The catalog can't be read.
        """
        group = self._settings.audit.group
        if group is None:
            unset = f"{what} is not configured (litellm.audit.group not set)"
            raise Forbidden(unset, reason="switched-off")
        user = self.signed_in(caller)
        if group not in caller.entity.groups:
            raise Forbidden("Access denied: not a member of the audit group", reason="group")
        return user

    def team_admin(self, caller: Caller, permission: Permission) -> UserPrincipal:
        """Return the caller as a team admin.

        Raises:
            Forbidden: Team management is off, the user is not in its group, or Backstage's
                policy denies ``permission``.
            NotAuthenticated: The caller is a service.
            BackstageUnavailable: Backstage does not answer.
        """
        group = self._settings.team_admin.group
        if not self._settings.team_management or group is None:
            raise Forbidden(
                "Team management is disabled"
                " (requires permission.enabled and litellm.teamAdmin.group)",
                reason="switched-off",
            )
        user = self.signed_in(caller)
        if group not in caller.entity.groups:
            raise Forbidden(f"Access denied: not a member of {group}", reason="group")
        self.require(caller, permission)
        return user

    def object_admin(self, caller: Caller, permission: Permission) -> UserPrincipal:
        """Return the caller as a team admin who may manage knowledge bases and MCP servers.

        Raises as :meth:`team_admin`, and Forbidden if ``objectPermissions`` is off.
        """
        if self._settings.team_management and not self._settings.team_admin.object_permissions:
            raise Forbidden(
                "Knowledge-base / MCP management is disabled (set"
                " litellm.teamAdmin.objectPermissions.enabled: true, with a permission policy"
                " and the allowlists in place)",
                reason="switched-off",
            )
        return self.team_admin(caller, permission)

    def manages_teams(self, caller: Caller) -> bool:
        """Tell whether the caller manages the teams that the team admins' group owns."""
        settings = self._settings
        return settings.team_management and settings.team_admin.group in caller.entity.groups

    def require_usage_viewer(self, caller: Caller, role: str) -> None:
        """Refuse a member who may not read the usage of each member of the team.

        ``role`` is LiteLLM's role of the caller in the team, such as ``admin``.

        Raises:
            Forbidden: The role is not one of ``viewerRoles``, and Backstage's policy does not
                grant the permission.
            BackstageUnavailable: The permission API does not answer.
        """
        if role in self._settings.team_usage.member_breakdown.viewer_roles:
            return
        if not self._settings.permission_enabled:
            raise Forbidden(
                "Access denied: your role in this team may not read the usage of its members",
                reason="permission",
            )
        self.require(caller, Permission.TEAM_USAGE)

    def owner(self, team: Json) -> str | None:
        """Return the group that owns a team: ``owning_group`` of its metadata."""
        group = as_object(team.get("metadata")).get("owning_group")
        return group if isinstance(group, str) and group else None

    def owns(self, team: Json) -> bool:
        """Tell whether the team admins' group owns a team."""
        group = self._settings.team_admin.group
        return group is not None and self.owner(team) == group

    def manages(self, caller: Caller, team: Json) -> bool:
        """Tell whether the caller manages a team.

        Raises:
            BackstageUnavailable: The group owns the team, and the catalog can't be read.
        """
        return self.owns(team) and self.manages_teams(caller)


def _covers(restriction: AccessRestriction, permission: Permission) -> bool:
    return (not restriction.permissions or permission.id in restriction.permissions) and (
        not restriction.actions or permission.action in restriction.actions
    )
