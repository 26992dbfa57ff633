"""Team administration: what the members of the team admins' group may do to their teams.

A route first asks :class:`~litellm_plugin.services.access.Access` whether the
caller is a team admin with the right permission; the methods here want the
:class:`ManagedTeam` that :meth:`TeamAdmin.managed_team` proved.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from litellm_plugin import journal
from litellm_plugin.cache.single_flight import SingleFlight
from litellm_plugin.cache.snapshots import Snapshots
from litellm_plugin.clients.backstage import Catalog, Entity, split_ref
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.config.settings import UNAMBIGUOUS, Settings
from litellm_plugin.errors import BadRequest, Conflict, Forbidden, NotFound, UpstreamError
from litellm_plugin.identity.principal import UserPrincipal
from litellm_plugin.services import fields, shapes
from litellm_plugin.services.access import Access
from litellm_plugin.services.account_owner import Claimant, same_email
from litellm_plugin.services.caller import litellm_id
from litellm_plugin.services.clock import Clock, stamp
from litellm_plugin.services.users import TEAMS, Profile, Users


@dataclass(frozen=True, slots=True)
class ManagedTeam:
    """A team that was proved to be owned by the team admins' group.

    Attributes:
        team_id: LiteLLM's id.
        row: The team, in the shape of ``GET /teams``.
        by: The team admin.
    """

    team_id: str
    row: Json
    by: UserPrincipal

    @property
    def metadata(self) -> Json:
        """The team's metadata; LiteLLM replaces it as a whole."""
        value = self.row.get("metadata")
        return value if isinstance(value, dict) else {}

    @property
    def member_ids(self) -> set[str]:
        """LiteLLM ids of the members."""
        members = self.row.get("members_with_roles") or []
        return {str(member.get("user_id")) for member in members if isinstance(member, dict)}


class TeamAdmin:
    """Creates, changes and deletes teams.

    Args:
        settings: Ceilings and allow-lists.
        litellm: The client.
        snapshots: What was read a moment ago.
        catalog: Knows who is a person.
        users: Finds and provisions new members.
        access: Tells which group owns a team.
        now: The present time, in UTC.
    """

    def __init__(
        self,
        settings: Settings,
        litellm: LiteLLM,
        snapshots: Snapshots,
        catalog: Catalog,
        users: Users,
        access: Access,
        now: Clock,
    ) -> None:
        self._settings = settings
        self._rules = settings.team_admin
        self._litellm = litellm
        self._snapshots = snapshots
        self._catalog = catalog
        self._users = users
        self._access = access
        self._now = now
        self._flights = SingleFlight()

    # -- guards --------------------------------------------------------------

    def managed_team(self, user: UserPrincipal, team_id: str) -> ManagedTeam:
        """Return a team that the team admins' group owns.

        Args:
            user: A team admin, as ``Access.team_admin`` returned.
            team_id: LiteLLM's id.

        Raises:
            Forbidden: Another group owns it, or none.
            NotFound: LiteLLM does not know it.
        """
        try:
            row = shapes.team(self._litellm.team(team_id), team_id)
        except UpstreamError as exc:
            if exc.answered == 404:
                raise NotFound("Team not found") from exc
            raise
        owner = self._access.owner(row)
        if owner is None:
            raise Forbidden(
                "This team is not managed by Backstage team admins and cannot be edited here",
                reason="ownership",
            )
        if not self._access.owns(row):
            raise Forbidden(f"Access denied: team is owned by {owner}", reason="ownership")
        return ManagedTeam(team_id, row, user)

    # -- teams ---------------------------------------------------------------

    def all(self, user: UserPrincipal) -> list[Json]:
        """Return every team the group owns, in the shape of ``GET /teams``."""
        rows = self._snapshots.read(
            ("managed", user.entity_ref), (TEAMS,), self._owned_rows, weight=len
        )
        return [self._shown(shapes.team(row)) for row in rows]

    def _owned_rows(self) -> list[Json]:
        rows = [row for row in self._litellm.all_teams() if self._access.owns(shapes.team(row))]
        # LiteLLM's list has no object_permission, only its id. Shown without, a
        # team would look bare, and saving from there would detach everything.
        bare = [str(row.get("team_id")) for row in rows if _lacks_objects(row)]
        objects = {
            id_: shapes.team(answer).get("object_permission")
            for id_, answer in self._litellm.teams(bare)
        }
        for row in rows:
            if row.get("team_id") in objects:
                row["object_permission"] = objects[row["team_id"]]
        return rows

    def create(self, body: Mapping[str, Any], user: UserPrincipal) -> Json:
        """Create a team that the group owns; returns LiteLLM's row, unless budgets are hidden.

        The same request of the same user, sent twice at once, makes one team.

        Raises:
            BadRequest: A field is missing or beyond what team admins may give.
        """
        alias = self._alias(body, "team_alias is required")
        team: Json = {"team_alias": alias, "models": self._models(body.get("models"))}
        budget = self._budget(body.get("max_budget"), "max_budget is required")
        if budget is not None:
            team |= {"max_budget": budget, "budget_duration": _duration(body) or "30d"}
        team |= _limits(body)

        def make() -> Json:
            owned = {
                "owning_group": self._rules.group,
                "created_by_backstage_user": user.entity_ref,
                "created_via": "backstage",
                "created_at_iso": stamp(self._now),
            }
            with self._snapshots.writing(TEAMS):
                return self._litellm.create_team({**team, "metadata": owned})

        same = (user.entity_ref, json.dumps(team, sort_keys=True))
        made = self._flights.share(same, make, repeat=False)
        journal.note(teamId=made.get("team_id"))
        return self._shown(made)

    def update(self, team: ManagedTeam, body: Mapping[str, Any]) -> Json:
        """Change a team; returns it in the shape of ``GET /teams``.

        Raises:
            Conflict: It was changed since ``expectedUpdatedAtIso``.
            BadRequest: Nothing is left to change, or a field is wrong.
        """
        change: Json = {}
        if "team_alias" in body:
            change["team_alias"] = self._alias(body, "team_alias must not be empty")
        if "models" in body:
            change["models"] = self._models(body["models"])
        if "max_budget" in body:
            change["max_budget"] = self._budget(
                body["max_budget"],
                "max_budget cannot be cleared (unlimited budgets are disabled)",
            )
        duration = _duration(body)
        if duration:
            change["budget_duration"] = duration
        change |= _limits(body)
        if "blocked" in body:
            if not isinstance(body["blocked"], bool):
                raise BadRequest("blocked must be a boolean")
            change["blocked"] = body["blocked"]
        if not change:
            raise BadRequest("no updatable fields provided")
        if "expectedUpdatedAtIso" in body:
            self._unchanged_since(team, body["expectedUpdatedAtIso"])
        return self._write(team, change)

    def delete(self, team: ManagedTeam, *, force: bool) -> None:
        """Delete a team for good, its keys with it.

        Raises:
            Forbidden: Deleting is switched off.
            Conflict: New users are put in that team, and ``force`` is not set.
        """
        if not self._rules.allow_team_delete:
            raise Forbidden(
                "Team deletion is disabled (set litellm.teamAdmin.allowTeamDelete: true)."
                " Block the team instead.",
                reason="switched-off",
            )
        if not force and team.team_id in self._provisioned_teams():
            raise Conflict(
                f"Team {team.team_id} is referenced by litellm.provisioning config; deleting it"
                " will break user provisioning. Re-send with ?force=true to override."
            )
        with self._snapshots.writing(TEAMS):
            self._litellm.delete_team(team.team_id)

    # -- members -------------------------------------------------------------

    def add_member(self, team: ManagedTeam, body: Mapping[str, Any]) -> Json:
        """Add a person of the catalog, provisioned if need be; returns the team.

        Raises:
            BadRequest: It is no person, or a field is wrong.
        """
        ref = _ref(body.get("userEntityRef"), "userEntityRef is required")
        if body.get("role", "user") != "user":
            raise BadRequest("only the 'user' team role can be assigned from Backstage")
        budget = None
        if "maxBudgetInTeam" in body:
            budget = body["maxBudgetInTeam"]
            if not fields.is_number(budget) or budget <= 0:
                raise BadRequest("maxBudgetInTeam must be a positive number")
        ref, person = self._person(ref)
        who = self._claimant(ref, person)
        profile = Profile(ref, person.groups, person.email, person.display_name)
        journal.note(memberId=who.own_id)
        account = self._users.account_of(who, lambda: profile, reader=team.by.entity_ref)
        journal.note(memberId=account.asked)
        with self._snapshots.writing(TEAMS):
            self._litellm.add_member(team.team_id, account.asked, budget)
        return self._again(team)

    def remove_member(self, team: ManagedTeam, who: str) -> Json:
        """Take somebody out of a team; returns the team.

        Args:
            team: The team.
            who: LiteLLM id of a member, as the frontend sends it, or an entity ref.
        """
        who = _ref(who, "userEntityRef query parameter is required")
        user_id = who if who in team.member_ids else self._member_id(team, who)
        journal.note(memberId=user_id)
        with self._snapshots.writing(TEAMS):
            self._litellm.remove_member(team.team_id, user_id)
        return self._again(team)

    def _member_id(self, team: ManagedTeam, ref: str) -> str:
        """Return the LiteLLM id of the member that a ref means."""
        own_id = litellm_id(ref, self._settings.user_id_domain)
        if own_id in team.member_ids:
            if self._settings.service.user_ids == UNAMBIGUOUS and split_ref(ref) is not None:
                who = self._claimant(_full(ref), self._catalog.entity(ref))
                self._users.refuse_other(who, team.by.entity_ref)
            return own_id
        # The account may be one that was there under another id.
        person = self._catalog.entity(ref) if split_ref(ref) is not None else None
        members = team.row.get("members_with_roles") or []
        same = [
            str(member.get("user_id"))
            for member in members
            if isinstance(member, dict)
            and person is not None
            and same_email(member.get("user_email"), person.email)
        ]
        return same[0] if len(same) == 1 else own_id

    def _claimant(self, ref: str, person: Entity | None) -> Claimant:
        own_id = litellm_id(ref, self._settings.user_id_domain)
        return Claimant(own_id, ref, lambda: person.email if person else None)

    # -- knowledge bases and MCP servers -------------------------------------

    def vector_stores(self) -> list[Json]:
        """Return the vector stores that team admins may give: ``id`` and ``name``."""
        stores = self._snapshots.read(("vector-stores",), (), self._litellm.vector_stores)
        rows = shapes.listed(map(shapes.vector_store, stores))
        return _named_in(self._rules.allowed_vector_stores, rows)

    def mcp_servers(self) -> list[Json]:
        """Return the MCP servers that team admins may give: ``id``, ``name`` and ``url``."""
        servers = self._snapshots.read(("mcp-servers",), (), self._litellm.mcp_servers)
        rows = shapes.listed(map(shapes.mcp_server, servers))
        return _named_in(self._rules.allowed_mcp_servers, rows)

    def set_vector_stores(self, team: ManagedTeam, body: Mapping[str, Any]) -> Json:
        """Replace a team's knowledge bases; returns the team."""
        allowed = self._rules.allowed_vector_stores
        stores = _allowed_objects(body, "vector_stores", allowed, "vector store(s)")
        return self._write(team, self._object_permission(team, {"vector_stores": stores}))

    def set_mcp_servers(self, team: ManagedTeam, body: Mapping[str, Any]) -> Json:
        """Replace a team's MCP servers; returns the team."""
        allowed = self._rules.allowed_mcp_servers
        servers = _allowed_objects(body, "mcp_servers", allowed, "MCP server(s)")
        return self._write(team, self._object_permission(team, {"mcp_servers": servers}))

    # -- parts ---------------------------------------------------------------

    def _write(self, team: ManagedTeam, change: Json) -> Json:
        metadata = {
            **team.metadata,
            "updated_at_iso": stamp(self._now),
            "updated_by_backstage_user": team.by.entity_ref,
        }
        change = {"team_id": team.team_id, **change, "metadata": metadata}
        with self._snapshots.writing(TEAMS):
            answer = self._litellm.update_team(change).get("data")
        if not isinstance(answer, dict):
            return self._again(team)
        return self._shown(shapes.team(answer, team.team_id))

    def _again(self, team: ManagedTeam) -> Json:
        return self._shown(shapes.team(self._litellm.team(team.team_id), team.team_id))

    def _shown(self, team: Json) -> Json:
        hidden = self._settings.display.hide_team_budget_for_managers
        return shapes.without_budget(team) if hidden else team

    def _alias(self, body: Mapping[str, Any], missing: str) -> str:
        alias = body.get("team_alias")
        if not isinstance(alias, str) or not alias.strip():
            raise BadRequest(missing)
        return fields.text("team_alias", alias.strip())

    def _models(self, value: Any) -> list[str]:
        if not isinstance(value, list) or not value:
            raise BadRequest(
                "models must list at least one allowed model"
                " (a team with no explicit models grants access to every proxy model)"
            )
        allowed = {*self._rules.allowed_models, *self._rules.allowed_model_access_groups}
        if not allowed:
            raise BadRequest("models are not allowed (team admin has configured no allowlist)")
        for model in value:
            if not isinstance(model, str) or model not in allowed:
                name = model if isinstance(model, str) else json.dumps(model)
                raise BadRequest(f'model "{name}" is not in the allowed set for team admins')
        return value

    def _budget(self, value: Any, not_unlimited: str) -> float | None:
        if value is None:
            if not self._rules.allow_unlimited_budget:
                raise BadRequest(not_unlimited)
            return None
        if not fields.is_number(value) or value <= 0:
            raise BadRequest("max_budget must be a positive number")
        ceiling = self._rules.max_budget_ceiling
        if value > ceiling:
            raise BadRequest(f"max_budget ${value:.15g} exceeds the ceiling ${ceiling:.15g}")
        budget: float = value
        return budget

    def _unchanged_since(self, team: ManagedTeam, expected: Any) -> None:
        changed_at = team.metadata.get("updated_at_iso")
        if changed_at is None or expected != changed_at:
            raise Conflict(
                "This team was modified since you loaded it. Reload and re-apply your change."
            )

    def _provisioned_teams(self) -> set[str]:
        provisioning = self._settings.provisioning
        teams = set(provisioning.defaults.teams)
        for role in provisioning.roles:
            teams.update(role.overrides.get("teams", ()))
        return teams

    def _person(self, ref: str) -> tuple[str, Entity]:
        """Return a person's entity, and their ref as Backstage's tokens write it."""
        if split_ref(ref) is None:
            raise BadRequest(f"Could not verify {ref} in the Backstage catalog")
        entity = self._catalog.entity(ref)
        if entity is None or entity.kind.lower() != "user":
            raise BadRequest(f"{ref} is not a User in the Backstage catalog")
        return _full(ref), entity

    def _object_permission(self, team: ManagedTeam, change: Json) -> Json:
        present = team.row.get("object_permission")
        return {"object_permission": {**(present if isinstance(present, dict) else {}), **change}}


def _named_in(allowed: Collection[str], rows: list[Json]) -> list[Json]:
    return [row for row in rows if row["id"] in allowed or row.get("name") in allowed]


def _lacks_objects(row: Json) -> bool:
    return bool(row.get("object_permission_id")) and row.get("object_permission") is None


def _full(ref: str) -> str:
    """Return a ref that can be split as Backstage's tokens write it."""
    parts = split_ref(ref)
    return "{}:{}/{}".format(*parts).lower() if parts else ref


def _ref(value: Any, missing: str) -> str:
    if value is not None and not isinstance(value, str):
        raise BadRequest("userEntityRef must be a string")
    if not value or not value.strip():
        raise BadRequest(missing)
    return fields.text("userEntityRef", value.strip())


def _allowed_objects(
    body: Mapping[str, Any], name: str, allowed: Collection[str], what: str
) -> list[str]:
    wanted = fields.texts(name, body.get(name))
    refused = [item for item in wanted if item not in allowed]
    if refused:
        names = ", ".join(refused)
        raise BadRequest(f"{what} not in the allowed set for team admins: {names}")
    return wanted


def _duration(body: Mapping[str, Any]) -> str | None:
    value = body.get("budget_duration")
    return value if isinstance(value, str) and value.strip() else None


def _limits(body: Mapping[str, Any]) -> Json:
    # What is no limit is left out, as the original does.
    limits = {
        name: body[name]
        for name in ("tpm_limit", "rpm_limit")
        if fields.is_number(body.get(name)) and body[name] >= 0
    }
    for name, limit in limits.items():
        if limit > fields.MAX_LIMIT:
            raise BadRequest(f"{name} must be at most {fields.MAX_LIMIT}")
    return limits
