"""Team administration: what the members of the team admins' group may do to their teams.

A route first asks :class:`~litellm_plugin.access.Access` whether the
caller is a team admin with the right permission; the methods here want the
:class:`ManagedTeam` that :meth:`TeamAdmin.managed_team` proved.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from litellm_plugin import fields, shapes
from litellm_plugin.access import Access
from litellm_plugin.accounts.caller import not_reserved, own_id
from litellm_plugin.accounts.ownership import Claimant, same_email
from litellm_plugin.accounts.users import TEAMS, Profile, Users
from litellm_plugin.cache.cache import Cache
from litellm_plugin.cache.single_flight import SingleFlight
from litellm_plugin.clients.backstage import Catalog, Entity, split_ref
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.clock import Clock, stamp
from litellm_plugin.config.settings import UNAMBIGUOUS, Settings
from litellm_plugin.errors import BadRequest, Conflict, Forbidden, NotFound, UpstreamError
from litellm_plugin.identity.principal import UserPrincipal
from litellm_plugin.keys.limits import Busy
from litellm_plugin.model_names import allows
from litellm_plugin.observability import journal
from litellm_plugin.teams.objects import Row, TeamObjects, meant

NO_MODELS = (
    "models must list at least one allowed model"
    " (a team with no explicit models grants access to every proxy model)"
)
DAY = 86_400  # seconds; a budget that is renewed sooner limits nothing
DEFAULT_RENEWAL = "30d"


@dataclass(frozen=True, slots=True)
class Field:
    """A field that team admins may set.

    Attributes:
        read: Returns the checked value, as LiteLLM is sent it.
        required: The error of a creation without the field; None where it may be left out.
        nullable: Whether null means something else than leaving the field out.
    """

    read: fields.Reader
    required: str | None = None
    nullable: bool = False


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

    def has(self, kind: str, names: Iterable[str], allowed: Collection[str]) -> bool:
        """Tell whether the team has all of these objects, and the allow-list names each.

        They are ids then, and LiteLLM need not be asked what they mean.

        Args:
            kind: ``vector_stores`` or ``mcp_servers``.
            names: What a request names.
            allowed: The allow-list.
        """
        objects = self.row.get("object_permission")
        present = objects.get(kind) if isinstance(objects, dict) else None
        return all(name in (present or ()) and name in allowed for name in names)


class TeamAdmin:
    """Creates, changes and deletes teams.

    Args:
        settings: Ceilings and allow-lists.
        litellm: The client.
        cache: The cache.
        catalog: Knows who is a person.
        users: Finds and provisions new members.
        access: Tells which group owns a team.
        now: The present time, in UTC.
    """

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
        self._rules = settings.team_admin
        self._litellm = litellm
        self._cache = cache
        self._catalog = catalog
        self._users = users
        self._access = access
        self._now = now
        self._flights = SingleFlight()
        self._objects = TeamObjects(settings.team_admin, litellm, cache)
        # Creation and change read a body by this one table, in its order.
        self._fields: dict[str, Field] = {
            "team_alias": Field(_alias, "team_alias is required"),
            "models": Field(self._models, NO_MODELS, nullable=True),
            "max_budget": Field(
                self._budget,
                None if self._rules.allow_unlimited_budget else "max_budget is required",
                nullable=True,
            ),
            "budget_duration": Field(_renewal),
            "tpm_limit": Field(fields.limit),
            "rpm_limit": Field(fields.limit),
            "blocked": Field(_flag, nullable=True),
        }

    # -- guards --------------------------------------------------------------

    @contextmanager
    def managed_team(self, user: UserPrincipal, team_id: str) -> Iterator[ManagedTeam]:
        """Give a team that the team admins' group owns, and hold its lock meanwhile.

        LiteLLM replaces a team's metadata as a whole, and so whoever changes a team reads,
        checks and writes it under the lock: of two changes at once neither is lost.

        Args:
            user: A team admin, as ``Access.team_admin`` returned.
            team_id: LiteLLM's id.

        Raises:
            Forbidden: Another group owns it, or none.
            NotFound: LiteLLM does not know it.
            Busy: The team is being changed all the time.
        """
        with self._cache.lock(f"team {team_id}") as held:
            if not held:
                raise Busy(
                    "This team can't be changed right now: another change is under way, or the"
                    " service has no lock (its log says why). Try again in a moment."
                )
            yield self._managed_team(user, team_id)

    def _managed_team(self, user: UserPrincipal, team_id: str) -> ManagedTeam:
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
        rows = self._cache.read(
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
        if unread := [id_ for id_ in bare if id_ not in objects]:
            raise UpstreamError(f"LiteLLM can't tell what team {unread[0]} is given")
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
        team = self._read(body, creating=True)
        if team.get("max_budget") is None:
            team.pop("max_budget", None)
            team.pop("budget_duration", None)
        else:
            team.setdefault("budget_duration", DEFAULT_RENEWAL)

        def make() -> Json:
            owned = {
                "owning_group": self._rules.group,
                "created_by_backstage_user": user.entity_ref,
                "created_via": "backstage",
                "created_at_iso": stamp(self._now),
            }
            with self._cache.invalidating(TEAMS):
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
        change = self._read(body, creating=False)
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
        with self._cache.invalidating(TEAMS):
            self._litellm.delete_team(team.team_id)

    # -- members -------------------------------------------------------------

    def add_member(self, team: ManagedTeam, body: Mapping[str, Any]) -> Json:
        """Add a person of the catalog, provisioned if need be; returns the team.

        Raises:
            BadRequest: It is no person, or a field is wrong.
        """
        ref = _ref(body.get("userEntityRef"), "userEntityRef is required")
        own_id(ref, self._settings)  # it may be reserved, and in no catalog
        if body.get("role", "user") != "user":
            raise BadRequest("only the 'user' team role can be assigned from Backstage")
        budget = None
        if "maxBudgetInTeam" in body:
            budget = self._amount("maxBudgetInTeam", body["maxBudgetInTeam"])
        ref, person = self._person(ref)
        who = self._claimant(ref, person)
        profile = Profile(ref, person.groups, person.email, person.display_name)
        journal.note(memberId=who.own_id)
        account = self._users.account_of(who, lambda: profile, reader=team.by.entity_ref)
        journal.note(memberId=account.asked)
        with self._cache.invalidating(TEAMS):
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
        not_reserved(user_id, self._settings)
        journal.note(memberId=user_id)
        with self._cache.invalidating(TEAMS):
            self._litellm.remove_member(team.team_id, user_id)
        return self._again(team)

    def _member_id(self, team: ManagedTeam, ref: str) -> str:
        """Return the LiteLLM id of the member that a ref means."""
        user_id = own_id(ref, self._settings)
        if user_id in team.member_ids:
            if self._settings.service.user_ids == UNAMBIGUOUS and split_ref(ref) is not None:
                who = self._claimant(_full(ref), self._catalog.entity(ref))
                self._users.refuse_other(who, team.by.entity_ref)
            return user_id
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
        return same[0] if len(same) == 1 else user_id

    def _claimant(self, ref: str, person: Entity | None) -> Claimant:
        user_id = own_id(ref, self._settings)
        return Claimant(user_id, ref, lambda: person.email if person else None)

    # -- knowledge bases and MCP servers -------------------------------------

    def vector_stores(self) -> list[Json]:
        """Return the vector stores that team admins may give: ``id`` and ``name``."""
        return [row.shown for row in self._objects.vector_stores()]

    def mcp_servers(self) -> list[Json]:
        """Return the MCP servers that team admins may give: ``id``, ``name`` and ``url``."""
        return [row.shown for row in self._objects.mcp_servers()]

    def set_vector_stores(self, team: ManagedTeam, body: Mapping[str, Any]) -> Json:
        """Replace a team's knowledge bases, named by id or name; returns the team."""
        wanted = fields.texts("vector_stores", body.get("vector_stores"))
        wanted = list(dict.fromkeys(wanted))
        if not team.has("vector_stores", wanted, self._rules.allowed_vector_stores):
            allowed = self._objects.vector_stores(fresh=True)
            wanted = _ids(wanted, allowed, "vector store(s)")
        return self._write(team, {"object_permission": {"vector_stores": wanted}})

    def set_mcp_servers(self, team: ManagedTeam, body: Mapping[str, Any]) -> Json:
        """Replace a team's MCP servers, named by id or name; returns the team."""
        wanted = fields.texts("mcp_servers", body.get("mcp_servers"))
        wanted = list(dict.fromkeys(wanted))
        if not team.has("mcp_servers", wanted, self._rules.allowed_mcp_servers):
            allowed = self._objects.mcp_servers(fresh=True)
            wanted = _ids(wanted, allowed, "MCP server(s)")
        return self._write(team, {"object_permission": {"mcp_servers": wanted}})

    # -- parts ---------------------------------------------------------------

    def _write(self, team: ManagedTeam, change: Json) -> Json:
        metadata = {
            **team.metadata,
            "updated_at_iso": stamp(self._now),
            "updated_by_backstage_user": team.by.entity_ref,
        }
        change = {"team_id": team.team_id, **change, "metadata": metadata}
        with self._cache.invalidating(TEAMS):
            answer = self._litellm.update_team(change).get("data")
        objects = change.get("object_permission") or team.row.get("object_permission")
        # LiteLLM 1.81 leaves the objects of a team out of this answer, and keeps them.
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
        """Return what a body sets, checked; fields that are no team admin's are left out.

        Raises:
            BadRequest: A field is wrong, or missing from a creation.
        """
        values: Json = {}
        for name, field in self._fields.items():
            value = body.get(name)
            blank = isinstance(value, str) and not value.strip()
            if creating and field.required and (value is None or blank):
                raise BadRequest(field.required)
            if creating and name == "budget_duration" and blank:
                continue  # the dialog's empty field
            if name in body and (value is not None or field.nullable):
                values[name] = field.read(name, value)
        return values

    def _models(self, name: str, value: Any) -> list[str]:
        if not isinstance(value, list) or not value:
            raise BadRequest(NO_MODELS)
        rules = self._rules
        if not (rules.allowed_models or rules.allowed_model_access_groups):
            raise BadRequest("models are not allowed (team admin has configured no allowlist)")
        for model in value:
            if not isinstance(model, str) or not (
                model in rules.allowed_model_access_groups or allows(rules.allowed_models, model)
            ):
                shown = model if isinstance(model, str) else json.dumps(model)
                raise BadRequest(f'model "{shown}" is not in the allowed set for team admins')
        return fields.texts(name, value)

    def _budget(self, name: str, value: Any) -> float | None:
        if value is not None:
            return self._amount(name, value)
        if not self._rules.allow_unlimited_budget:
            raise BadRequest("max_budget cannot be cleared (unlimited budgets are disabled)")
        return None

    def _amount(self, name: str, value: Any) -> float:
        """Return an amount of USD that team admins may give."""
        if not fields.is_number(value) or value <= 0:
            raise BadRequest(f"{name} must be a positive number")
        ceiling = self._rules.max_budget_ceiling
        if value > ceiling:
            raise BadRequest(f"{name} ${value:.15g} exceeds the ceiling ${ceiling:.15g}")
        amount: float = value
        return amount

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


def _ids(wanted: list[str], allowed: list[Row], what: str) -> list[str]:
    """Return the ids of the objects that a request names by id or name, each once."""
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
