"""Finds the people of the catalog to notify about LiteLLM's users, keys and teams."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from litellm_plugin.accounts.caller import is_reserved, litellm_id
from litellm_plugin.clients.backstage import Entity, split_ref
from litellm_plugin.config.settings import Settings
from litellm_plugin.notifications.rules import Audience
from litellm_plugin.shapes import Json, as_object


class Recipients:
    """The recipients of notices.

    Args:
        people: Full entity ref, in lower case, and entity of every user of the catalog.
        settings: ``litellm.userIdDomain``, ``teamAdmin`` and ``display`` are read.
        owns: ``Access.owns``: whether the team admins' group owns a team.
        adopted: Entity refs of owners by the ids of accounts that were found by e-mail.
    """

    def __init__(
        self,
        people: Iterable[tuple[str, Entity]],
        settings: Settings,
        owns: Callable[[Json], bool],
        adopted: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._owns = owns
        self._adopted = adopted
        self._refs: set[str] = set()
        self._managers: set[str] = set()
        self._by_id: defaultdict[str, list[str]] = defaultdict(list)
        self._by_account: dict[str, str | None] = {}
        self._by_team: dict[str, Audience] = {}
        for ref, entity in people:
            self._refs.add(ref)
            self._by_id[litellm_id(ref, settings.user_id_domain).lower()].append(ref)
            if settings.team_management and settings.team_admin.group in entity.groups:
                self._managers.add(ref)

    def of_user(self, row: Json) -> Audience:
        """Return the person of a LiteLLM user, and remember the person for :meth:`of_key`.

        That is the person for whom provisioning created the user, else the person who was found
        to own the account by e-mail, else the only person of the catalog with such an id.
        """
        user_id = row["user_id"]
        recorded = as_object(row.get("metadata")).get("backstage_entity")
        parts = split_ref(recorded) if isinstance(recorded, str) else None
        if parts is None:
            owner = self._adopted.get(user_id)
            ref = owner if owner in self._refs else self._of_id(user_id)
        else:
            # If the recorded person has left, a person with the same id is another one.
            named = f"{parts[0]}:{parts[1]}/{parts[2]}".lower()
            ref = named if named in self._refs else None
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
        refs = self._by_id.get(user_id.lower(), [])
        reserved = is_reserved(user_id, self._settings)
        return refs[0] if len(refs) == 1 and not reserved else None


def _only(ref: str | None) -> Audience:
    return Audience({} if ref is None else {ref: True})
