"""Finds the people of the catalog to notify about LiteLLM's users, keys and teams."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from litellm_plugin.accounts.caller import is_reserved
from litellm_plugin.accounts.directory import AllPeople
from litellm_plugin.clients.backstage import split_ref
from litellm_plugin.config.settings import Settings
from litellm_plugin.notifications.rules import Audience
from litellm_plugin.shapes import Json, as_object


class Recipients:
    """The recipients of notices.

    Args:
        people: The catalog's users.
        settings: ``litellm.userIdDomain``, ``teamAdmin`` and ``display`` are read.
        owns: ``Access.owns``: whether the team admins' group owns a team.
        adopted: Entity refs of owners by the ids of accounts that were found by e-mail.
    """

    def __init__(
        self,
        people: AllPeople,
        settings: Settings,
        owns: Callable[[Json], bool],
        adopted: Mapping[str, str],
    ) -> None:
        self._people = people
        self._settings = settings
        self._owns = owns
        self._adopted = adopted
        self._by_account: dict[str, str | None] = {}
        self._by_team: dict[str, Audience] = {}
        group = settings.team_admin.group if settings.team_management else None
        self._managers = {person.ref for person in people.members(group)} if group else set()

    def of_user(self, row: Json) -> Audience:
        """Return the person of a LiteLLM user, and remember the person for :meth:`of_key`.

        That is the person for whom provisioning created the user, else the person who was found
        to own the account by e-mail, else the only person of the catalog with such an id.
        """
        user_id = row["user_id"]
        recorded = as_object(row.get("metadata")).get("backstage_entity")
        parts = split_ref(recorded) if isinstance(recorded, str) else None
        if parts is None:
            ref = self._known(self._adopted.get(user_id)) or self._of_id(user_id)
        else:
            # If the recorded person has left, a person with the same id is another one.
            ref = self._known(f"{parts[0]}:{parts[1]}/{parts[2]}".lower())
        self._by_account[user_id] = ref
        return _only(ref)

    def of_team(self, row: Json) -> Audience:
        """Return the managers of a team, and remember them for :meth:`of_key`.

        They are the members with LiteLLM's role ``admin`` and, if the team admins' group owns the
        team, the members in that group. Without any such member, the whole group manages the team
        that it owns, as the creator of a team on the page is not a member of it.
        """
        display, owned = self._settings.display, self._owns(row)
        members = row.get("members_with_roles")
        people: dict[str, bool] = {}
        for member in members if isinstance(members, list) else []:
            user_id = as_object(member).get("user_id")
            ref = self._of_account(user_id) if isinstance(user_id, str) else None
            if ref is None:
                continue
            if owned and ref in self._managers:
                people[ref] = not display.hide_team_budget_for_managers
            elif member.get("role") == "admin":
                people[ref] = not display.hide_team_budget_for_members
        if owned and not people:
            people = dict.fromkeys(self._managers, not display.hide_team_budget_for_managers)
        hidden = display.hide_team_budget_for_members or display.hide_team_budget_for_managers
        audience = self._by_team[row["team_id"]] = Audience(people, amounts=not hidden)
        return audience

    def of_key(self, row: Json) -> Audience:
        """Return the owner of a key; without an owner, the managers of its team."""
        owner, team = row.get("user_id"), row.get("team_id")
        if isinstance(owner, str) and owner:
            return _only(self._of_account(owner))
        return self._by_team.get(team, Audience()) if isinstance(team, str) else Audience()

    def _of_account(self, user_id: str) -> str | None:
        if user_id in self._by_account:
            return self._by_account[user_id]
        return self._of_id(user_id)

    def _of_id(self, user_id: str) -> str | None:
        same_id = self._people.of_id(user_id)
        reserved = is_reserved(user_id, self._settings)
        return same_id[0].ref if len(same_id) == 1 and not reserved else None

    def _known(self, ref: str | None) -> str | None:
        return ref if ref and self._people.entity(ref) else None


def _only(ref: str | None) -> Audience:
    return Audience({} if ref is None else {ref: True})
