"""Reads the caller's teams, and checks access to teams."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from litellm_plugin import shapes
from litellm_plugin.access import Access
from litellm_plugin.accounts.caller import Caller
from litellm_plugin.accounts.users import TEAMS, Users, keys_tag
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.config.settings import Display
from litellm_plugin.errors import (
    BackstageUnavailable,
    BadRequest,
    Forbidden,
    PluginError,
    UpstreamError,
    UsageUnavailable,
)
from litellm_plugin.usage import report as usage
from litellm_plugin.usage.periods import Reports, Subject

NOT_A_MEMBER = "Access denied: not a member of this team"

log = logging.getLogger(__name__)


class OwnerUnknown(PluginError):
    """LiteLLM can't tell which group owns a team."""

    status = 502


@dataclass(frozen=True)
class Teams:
    """Reads teams and their usage for members and managers."""

    _litellm: LiteLLM
    _cache: Cache
    _reports: Reports
    _users: Users
    _access: Access
    _display: Display

    def of(self, caller: Caller, account: Account) -> list[Json]:
        """Return the teams of the caller's account, except those that LiteLLM can't return."""

        def read() -> list[Json]:
            if not account.team_ids:
                return []
            whole = self._litellm.teams_of(account.user_id)
            known: dict[str, Any] = {row["team_id"]: {"team_info": row} for row in whole}
            others = [team_id for team_id in account.team_ids if team_id not in known]
            known |= self._litellm.teams(others)
            return [shapes.team(known[id_], id_) for id_ in account.team_ids if id_ in known]

        teams = self._cache.read(
            ("teams", caller.name, account.user_id, *account.team_ids),
            (TEAMS,),
            read,
            seconds=self._cache.account_seconds,
            weight=len,
            stale=caller.note_stale,
        )
        return [
            shapes.without_budget(team) if self._hides_budget(caller, team) else team
            for team in teams
        ]

    def usable(self, team_id: str, caller: Caller, account: Account | None) -> str:
        """Return ``team_id`` if the caller may create keys in the team.

        Raises:
            Forbidden: The caller is neither a member of the team nor manages it.
            OwnerUnknown: LiteLLM can't tell which group owns the team.
        """
        allowed = bool(caller.service) if account is None else account.in_team(team_id)
        if allowed or self._managed(team_id, caller):
            return team_id
        raise Forbidden(NOT_A_MEMBER, reason="membership")

    def usage(self, team_id: str, start: str, end: str, caller: Caller) -> Json:
        """Return a team's usage for one of its members or managers, or a service.

        ``start`` and ``end`` are the first and the last day, ``YYYY-MM-DD``.

        Raises:
            Forbidden: The caller is neither a member nor a manager of the team.
            OwnerUnknown: LiteLLM can't tell which group owns the team.
            BadRequest: The id has a comma.
            UsageUnavailable: LiteLLM can't return the caller's account.
        """
        try:
            account = None if caller.service else self._users.find(caller)
        except UpstreamError as exc:
            raise UsageUnavailable(
                f"LiteLLM can't tell who is a member of team {team_id}: {exc.message}",
                advice=exc.advice,
            ) from exc
        member = account is not None and account.in_team(team_id)
        # A member may be a manager, too, and budgets may be hidden from only one of the two.
        for_managers = self._display.hide_team_budget_for_managers
        for_members = self._display.hide_team_budget_for_members
        matters = not member or for_managers != for_members
        manager = matters and not caller.service and self._managed(team_id, caller)
        if not (caller.service or member or manager):
            raise Forbidden(NOT_A_MEMBER, reason="membership")
        user_id = caller.litellm_id if account is None else account.asked
        if "," in team_id:  # LiteLLM would read several ids
            raise BadRequest("LiteLLM can't tell the usage of a team with a comma in its id")
        report = self._reports.read(
            ("team-usage", caller.name, team_id),
            (keys_tag(user_id or ""),),  # the report names the user's keys, among others
            partial(self._litellm.activity, "team", team_id),
            (start, end),
            stale=caller.note_stale,
            subject=Subject("team", team_id, partial(self._litellm.key_sums, "team", team_id)),
        )
        hidden = for_managers if manager else for_members
        return usage.without_spend(report) if hidden else report

    def _hides_budget(self, caller: Caller, team: Json) -> bool:
        # The page shows this list to members; managers have GET /teams/managed as well.
        if self._display.hide_team_budget_for_members:
            return True
        if not self._display.hide_team_budget_for_managers:
            return False
        try:
            return self._access.manages(caller, team)
        except BackstageUnavailable as exc:
            log.warning("budgets are hidden from %s: %s", caller.name, exc)
            return True

    def _managed(self, team_id: str, caller: Caller) -> bool:
        """Tell whether the caller's group owns the team."""
        if not self._access.manages_teams(caller):
            return False
        try:
            return self._access.owns(shapes.team(self._litellm.team(team_id), team_id))
        except UpstreamError as exc:
            if exc.answered == 404:
                return False
            unknown = f"LiteLLM can't tell which group owns team {team_id}: {exc.message}"
            raise OwnerUnknown(unknown, advice=exc.advice) from exc
