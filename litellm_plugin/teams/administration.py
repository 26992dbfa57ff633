"""Team administration: members of the team admins' group manage the teams of their group.

A route first asks :class:`~litellm_plugin.access.Access` whether the caller is a team admin
with the permission. Methods that change a team take a :class:`ManagedTeam`, which
:meth:`TeamAdmin.managed_team` returns after its checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from litellm_plugin import fields, shapes
from litellm_plugin.access import Access
from litellm_plugin.accounts.caller import not_reserved, own_id
from litellm_plugin.accounts.ownership import Owner, same_email
from litellm_plugin.accounts.users import TEAMS, Profile, Users
from litellm_plugin.cache.cache import Cache
from litellm_plugin.cache.single_flight import SingleFlight
from litellm_plugin.clients.backstage import Catalog, Entity, split_ref
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.clock import Clock, stamp
from litellm_plugin.config.settings import UNAMBIGUOUS, Settings
from litellm_plugin.errors import BadRequest, Busy, Conflict, Forbidden, NotFound, UpstreamError
from litellm_plugin.identity.principal import UserPrincipal
from litellm_plugin.models import allows
from litellm_plugin.observability import journal
from litellm_plugin.teams.objects import TeamObject, TeamObjects, meant

NO_MODELS = (
    "models must list at least one allowed model"
    " (a team with no explicit models grants access to every proxy model)"
)
DAY = 86_400  # seconds; the shortest budget_duration of a team
DEFAULT_RENEWAL = "30d"
OBJECTS = {"vector_stores": "vector store(s)", "mcp_servers": "MCP server(s)"}  # in messages
# Fields in which null is read, and may be refused; in other fields null is ignored.
NULLABLE = frozenset({"team_alias", "models", "max_budget", "blocked"})


@dataclass(frozen=True, slots=True)
class ManagedTeam:
    """A team that the team admins' group owns: ``row`` in the shape of ``GET /teams``.

    ``by`` is the team admin who changes the team. ``keys`` are LiteLLM's rows of all keys in the
    team, also of the members' keys; None where LiteLLM did not list them.
    """

    team_id: str
    row: Json
    by: UserPrincipal
    keys: Any

    @property
    def metadata(self) -> Json:
        """The team's metadata, empty where LiteLLM has none."""
        return shapes.as_object(self.row.get("metadata"))

    @property
    def members(self) -> list[Json]:
        """LiteLLM's row of each member."""
        members = self.row.get("members_with_roles") or []
        return [member for member in members if isinstance(member, dict)]

    @property
    def member_ids(self) -> set[str]:
        """LiteLLM ids of the members."""
        return {str(member.get("user_id")) for member in self.members}


class TeamAdmin:
    """Creates, changes and deletes teams, within the limits of ``litellm.teamAdmin``."""

    def __init__(
        self,
        settings: Settings,
        litellm: LiteLLM,
        cache: Cache,
        catalog: Catalog,
        users: Users,
        access: Access,
        now: Clock,
    ) -> None:
        self._settings = settings
        self._team_admin = settings.team_admin
        self._litellm = litellm
        self._cache = cache
        self._catalog = catalog
        self._users = users
        self._access = access
        self._now = now
        self._flights = SingleFlight()
        self._objects = TeamObjects(settings.team_admin, litellm, cache)
        # New teams and changes are checked by this table, in this order.
        self._readers: dict[str, fields.Reader] = {
            "team_alias": _alias,
            "models": self._models,
            "max_budget": self._budget,
            "budget_duration": _renewal,
            "tpm_limit": fields.limit,
            "rpm_limit": fields.limit,
            "blocked": _flag,
        }
        self._required = {"team_alias": "team_alias is required", "models": NO_MODELS}
        if not self._team_admin.allow_unlimited_budget:
            self._required["max_budget"] = "max_budget is required"

    # -- guards --------------------------------------------------------------

    @contextmanager
    def managed_team(
        self, user: UserPrincipal, team_id: str, *, on_all_hosts: bool = False
    ) -> Iterator[ManagedTeam]:
        """Hold a team's lock, and return the team where the team admins' group owns it.

        LiteLLM replaces a team's metadata as a whole. So a change reads, checks and writes the
        team under the lock; otherwise one of two concurrent changes would be lost.
        ``on_all_hosts`` is as for ``Cache.lock``.

        Raises:
            Forbidden: No group or another one owns the team.
            NotFound: LiteLLM does not know the team.
            Busy: Other requests hold the lock; or Redis is down, and ``on_all_hosts`` needs it.
        """
        with self._cache.lock(f"team {team_id}", on_all_hosts=on_all_hosts) as held:
            if not held:
                raise Busy(
                    "This team can't be changed right now: another change is under way, or the"
                    " service has no lock (its log says why). Try again in a moment."
                )
            yield self.owned_team(user, team_id)

    def owned_team(self, user: UserPrincipal, team_id: str) -> ManagedTeam:
        """Return a team for reading, without a lock; raises as :meth:`managed_team`."""
        try:
            answer = self._litellm.team(team_id)
            row = shapes.team(answer, team_id)
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
        return ManagedTeam(team_id, row, user, shapes.as_object(answer).get("keys"))

    # -- teams ---------------------------------------------------------------

    def all(self, user: UserPrincipal) -> list[Json]:
        """Return every team that the group owns, in the shape of ``GET /teams``."""
        rows = self._cache.read(
            ("managed", user.entity_ref), (TEAMS,), self._owned_rows, weight=len
        )
        return [self._shown(shapes.team(row)) for row in rows]

    def _owned_rows(self) -> list[Json]:
        rows = [row for row in self._litellm.all_teams() if self._access.owns(shapes.team(row))]
        # LiteLLM's list has only the id of object_permission. A team that is shown without its
        # objects would lose them when it is saved in the frontend.
        bare = [str(row.get("team_id")) for row in rows if _lacks_objects(row)]
        objects = {
            id_: shapes.team(answer).get("object_permission")
            for id_, answer in self._litellm.teams(bare)
        }
        if unread := [id_ for id_ in bare if id_ not in objects]:
            raise UpstreamError(
                f"LiteLLM did not return the objects of team {unread[0]}",
                advice="ask your administrator",
            )
        for row in rows:
            if row.get("team_id") in objects:
                row["object_permission"] = objects[row["team_id"]]
        return rows

    def create(self, body: Mapping[str, Any], user: UserPrincipal) -> Json:
        """Create a team that the group owns; returns LiteLLM's row, without a hidden budget.

        Concurrent equal requests of one user create one team.

        Raises:
            BadRequest: A field is missing or wrong, or exceeds a limit of team admins.
        """
        team = self._read(body, creating=True)
        if team.get("max_budget") is None:
            team.pop("max_budget", None)
        else:
            team.setdefault("budget_duration", DEFAULT_RENEWAL)

        def make() -> Json:
            owned = {
                "owning_group": self._team_admin.group,
                "created_by_backstage_user": user.entity_ref,
                "created_via": "backstage",
                "created_at_iso": stamp(self._now),
            }
            with self._cache.invalidating(TEAMS):
                return self._litellm.create_team({**team, "metadata": owned})

        journal.changed(None, None, team)
        same = (user.entity_ref, json.dumps(team, sort_keys=True))
        made = self._flights.share(same, make, repeat=False)
        journal.note(teamId=made.get("team_id"))
        journal.changed(made.get("team_id"), None, team)
        return self._shown(made)

    def update(self, team: ManagedTeam, body: Mapping[str, Any]) -> Json:
        """Change a team; returns it in the shape of ``GET /teams``.

        Raises:
            Conflict: The team was changed since ``expectedUpdatedAtIso``.
            BadRequest: No field is to be changed, or a field is wrong.
        """
        change = self._read(body, creating=False)
        if not change:
            raise BadRequest("no updatable fields provided")
        changed_at = team.metadata.get("updated_at_iso")
        if "expectedUpdatedAtIso" in body and (
            changed_at is None or body["expectedUpdatedAtIso"] != changed_at
        ):
            raise Conflict(
                "This team was modified since you loaded it. Reload and re-apply your change."
            )
        return self._write(team, change)

    def delete(self, team: ManagedTeam, *, force: bool) -> None:
        """Delete a team and its keys.

        Raises:
            Forbidden: ``litellm.teamAdmin.allowTeamDelete`` is off.
            Conflict: ``litellm.provisioning`` names the team, and ``force`` is not set.
        """
        if not self._team_admin.allow_team_delete:
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
        journal.changed(team.team_id, team.row, {})
        with self._cache.invalidating(TEAMS):
            self._litellm.delete_team(team.team_id)

    # -- members -------------------------------------------------------------

    def add_member(self, team: ManagedTeam, body: Mapping[str, Any]) -> Json:
        """Add a user of the catalog to a team, provisioning a new user; return the team.

        Raises:
            BadRequest: The catalog has no such person, or a field is wrong.
        """
        ref = _ref(body.get("userEntityRef"), "userEntityRef is required")
        own_id(ref, self._settings)  # refuses a reserved id before the catalog is read
        if body.get("role", "user") != "user":
            raise BadRequest("only the 'user' team role can be assigned from Backstage")
        budget = None
        if "maxBudgetInTeam" in body:
            budget = self._amount("maxBudgetInTeam", body["maxBudgetInTeam"])
        ref, person = self._person(ref)
        owner = self._owner(ref, person)
        profile = Profile(ref, person)
        journal.note(memberId=owner.own_id)
        account = self._users.account_of(owner, lambda: profile, reader=team.by.entity_ref)
        journal.note(memberId=account.asked)
        joined = {"member": account.asked, "max_budget_in_team": budget}
        journal.changed(team.team_id, {}, joined)
        with self._cache.invalidating(TEAMS):
            self._litellm.add_member(team.team_id, account.asked, budget)
        return self._again(team)

    def remove_member(self, team: ManagedTeam, member: str) -> Json:
        """Remove a member, named by LiteLLM id or entity ref; return the team."""
        member = _ref(member, "userEntityRef query parameter is required")
        user_id = member if member in team.member_ids else self._member_id(team, member)
        not_reserved(user_id, self._settings)
        journal.note(memberId=user_id)
        journal.changed(team.team_id, {"member": user_id}, {"member": None})
        with self._cache.invalidating(TEAMS):
            self._litellm.remove_member(team.team_id, user_id)
        return self._again(team)

    def _member_id(self, team: ManagedTeam, ref: str) -> str:
        user_id = own_id(ref, self._settings)
        if split_ref(ref) is None:
            return user_id
        if user_id in team.member_ids:
            if self._settings.service.user_ids == UNAMBIGUOUS:
                owner = self._owner(_full(ref), self._catalog.entity(ref))
                self._users.refuse_other(owner, team.by.entity_ref)
            return user_id
        # The member may have an older account with another id and the same e-mail address.
        person = self._catalog.entity(ref)
        same = [
            str(member.get("user_id"))
            for member in team.members
            if person is not None and same_email(member.get("user_email"), person.email)
        ]
        return same[0] if len(same) == 1 else user_id

    def _owner(self, ref: str, person: Entity | None) -> Owner:
        user_id = own_id(ref, self._settings)
        return Owner(user_id, ref, lambda: person.email if person else None)

    # -- knowledge bases and MCP servers -------------------------------------

    def objects(self, kind: str) -> list[Json]:
        """Return the objects that teams may have.

        Of ``vector_stores`` these are ``id`` and ``name``, of ``mcp_servers`` also ``url``.
        """
        return [row.shown for row in self._objects.all(kind)]

    def set_objects(self, team: ManagedTeam, kind: str, body: Mapping[str, Any]) -> Json:
        """Replace a team's ``vector_stores`` or ``mcp_servers``, named by id or name.

        Returns the team.
        """
        wanted = list(dict.fromkeys(fields.texts(kind, body.get(kind))))
        has = shapes.as_object(team.row.get("object_permission")).get(kind) or ()
        allowed = self._objects.allow_lists[kind]
        # Names that are both in the team's objects and in the allow-list are ids.
        if not all(name in has and name in allowed for name in wanted):
            wanted = _ids(wanted, self._objects.all(kind, fresh=True), OBJECTS[kind])
        return self._write(team, {"object_permission": {kind: wanted}})

    # -- parts ---------------------------------------------------------------

    def _write(self, team: ManagedTeam, change: Json) -> Json:
        metadata = {
            **team.metadata,
            "updated_at_iso": stamp(self._now),
            "updated_by_backstage_user": team.by.entity_ref,
        }
        journal.changed(team.team_id, team.row, change)
        change = {"team_id": team.team_id, **change, "metadata": metadata}
        with self._cache.invalidating(TEAMS):
            answer = self._litellm.update_team(change).get("data")
        objects = change.get("object_permission") or team.row.get("object_permission")
        # LiteLLM 1.81 keeps the objects of a team, but leaves them out of this answer.
        if (
            not isinstance(answer, dict)
            or _lacks_objects(answer)
            or (objects and answer.get("object_permission") is None)
        ):
            return self._again(team)
        return self._shown(shapes.team(answer, team.team_id))

    def _again(self, team: ManagedTeam) -> Json:
        return self._shown(shapes.team(self._litellm.team(team.team_id), team.team_id))

    def _shown(self, team: Json) -> Json:
        hidden = self._settings.display.hide_team_budget_for_managers
        return shapes.without_budget(team) if hidden else team

    def _read(self, body: Mapping[str, Any], *, creating: bool) -> Json:
        """Return the checked fields of a body; fields that are not in the table are ignored.

        Raises:
            BadRequest: A field is wrong, or a required field of a new team is missing.
        """
        values: Json = {}
        for name, read in self._readers.items():
            value = body.get(name)
            blank = isinstance(value, str) and not value.strip()
            if creating and name in self._required and (value is None or blank):
                raise BadRequest(self._required[name])
            if name == "budget_duration" and blank:
                continue  # the frontend's dialog sends an empty field
            if name in body and (value is not None or name in NULLABLE):
                values[name] = read(name, value)
        return values

    def _models(self, name: str, value: Any) -> list[str]:
        if not isinstance(value, list) or not value:
            raise BadRequest(NO_MODELS)
        allowed = self._team_admin
        if not (allowed.allowed_models or allowed.allowed_model_access_groups):
            raise BadRequest("models are not allowed (team admin has configured no allowlist)")
        for model in value:
            if not isinstance(model, str) or not (
                model in allowed.allowed_model_access_groups
                or allows(allowed.allowed_models, model)
            ):
                shown = model if isinstance(model, str) else json.dumps(model)
                raise BadRequest(f'model "{shown}" is not in the allowed set for team admins')
        return fields.texts(name, value)

    def _budget(self, name: str, value: Any) -> float | None:
        if value is not None:
            return self._amount(name, value)
        if not self._team_admin.allow_unlimited_budget:
            raise BadRequest("max_budget cannot be cleared (unlimited budgets are disabled)")
        return None

    def _amount(self, name: str, value: Any) -> float:
        if not fields.is_number(value) or value <= 0:
            raise BadRequest(f"{name} must be a positive number")
        highest = self._team_admin.max_budget_ceiling
        if value > highest:
            raise BadRequest(f"{name} ${value:.15g} exceeds the ceiling ${highest:.15g}")
        amount: float = value
        return amount

    def _provisioned_teams(self) -> set[str]:
        provisioning = self._settings.provisioning
        teams = set(provisioning.defaults.teams)
        for role in provisioning.roles:
            teams.update(role.overrides.get("teams", ()))
        return teams

    def _person(self, ref: str) -> tuple[str, Entity]:
        """Return a person's ref, in the form of Backstage's tokens, and their entity."""
        if split_ref(ref) is None:
            raise BadRequest(f"Could not verify {ref} in the Backstage catalog")
        entity = self._catalog.entity(ref)
        if entity is None or entity.kind.lower() != "user":
            raise BadRequest(f"{ref} is not a User in the Backstage catalog")
        return _full(ref), entity


def _lacks_objects(row: Json) -> bool:
    return bool(row.get("object_permission_id")) and row.get("object_permission") is None


def _full(ref: str) -> str:
    """Return a ref in the form of Backstage's tokens, ``kind:namespace/name`` in lower case."""
    parts = split_ref(ref)
    return "{}:{}/{}".format(*parts).lower() if parts else ref


def _ref(value: Any, missing: str) -> str:
    if value is not None and not isinstance(value, str):
        raise BadRequest("userEntityRef must be a string")
    if not value or not value.strip():
        raise BadRequest(missing)
    return fields.text("userEntityRef", value.strip())


def _ids(wanted: list[str], allowed: list[TeamObject], what: str) -> list[str]:
    """Return the ids of the objects that a request names by id or name, without duplicates."""
    found = {name: {row.id for row in meant(name, allowed)} for name in wanted}
    if refused := [name for name, ids in found.items() if not ids]:
        names = ", ".join(refused)
        raise BadRequest(f"{what} not in the allowed set for team admins: {names}")
    if unclear := [name for name, ids in found.items() if len(ids) > 1]:
        names = ", ".join(unclear)
        raise BadRequest(f"{what} of the same name, use the ids instead: {names}")
    return list(dict.fromkeys(id_ for ids in found.values() for id_ in ids))


def _alias(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequest("team_alias must not be empty")
    return fields.name(name, value).strip()


def _renewal(name: str, value: Any) -> str:
    renewal = fields.budget_duration(name, value)
    if (fields.seconds(renewal) or 0) < DAY:
        raise BadRequest(f"{name} must be at least a day, such as 30d")
    return renewal


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be a boolean")
    return value
