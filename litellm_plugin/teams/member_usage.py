"""``GET /teams/:id/usage/members``: what each member has used in a team, and who may read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from litellm_plugin import shapes
from litellm_plugin.access import Access
from litellm_plugin.accounts.caller import Caller
from litellm_plugin.accounts.directory import Directory
from litellm_plugin.accounts.users import TEAMS, Users, keys_tag
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import (
    BadRequest,
    Forbidden,
    NotFound,
    UpstreamError,
    UsageUnavailable,
)
from litellm_plugin.shapes import as_object, present
from litellm_plugin.teams.membership import NOT_A_MEMBER
from litellm_plugin.usage import members
from litellm_plugin.usage import report as usage
from litellm_plugin.usage.periods import pages_of


@dataclass(frozen=True)
class MemberUsage:
    """Reads the usage of a team by member.

    ``audited_keys`` reads ``user_id`` and ``key_alias`` of deleted keys, by hash, from this
    service's audit log, as far as they are known; None without ``litellm.audit.store``.
    """

    _litellm: LiteLLM
    _cache: Cache
    _users: Users
    _access: Access
    _settings: Settings
    _directory: Directory
    _audited_keys: Callable[[Sequence[str]], Mapping[str, dict[str, str]]] | None

    def of(self, team_id: str, start: str, end: str, caller: Caller) -> Json:
        """Return a team's usage by member, for its managers and for members who may read it.

        A key's usage counts as its owner's. The owner of a deleted key is read from LiteLLM, else
        from the audit log. Usage without a known owner is a row with ``user_id`` None. The rows'
        spend adds up to ``total_spend``.

        ``start`` and ``end`` are the first and the last day, ``YYYY-MM-DD``.

        Raises:
            NotFound: ``litellm.teamUsage.memberBreakdown.enabled`` is false.
            NotAuthenticated: The caller is a service.
            Forbidden: The caller may not read it, or there is no such team.
            BackstageUnavailable: Backstage does not answer whether the caller may read it.
            BadRequest: The id has a comma.
            UsageUnavailable: LiteLLM can't return the caller's account or the team.
        """
        if not self._settings.team_usage.member_breakdown.enabled:
            raise NotFound(
                "Usage by member is disabled (litellm.teamUsage.memberBreakdown.enabled)"
            )
        self._access.signed_in(caller)
        account, info = self._read(team_id, caller)
        team = shapes.team(info, team_id)
        manager = self._access.manages(caller, team)
        if not manager:
            if account is None or not account.in_team(team_id):
                raise Forbidden(NOT_A_MEMBER, reason="membership")
            self._access.require_usage_viewer(caller, members.role_of(team, account.user_id))
        if "," in team_id:  # LiteLLM would read several ids
            raise BadRequest("LiteLLM can't tell the usage of a team with a comma in its id")
        rows = self._cache.read(
            ("team-member-usage", caller.name, team_id, start, end),
            (TEAMS, keys_tag("" if account is None else account.asked)),
            lambda: self._rows(team, info, start, end),
            weight=len,
            stale=caller.note_stale,
        )
        display = self._settings.display
        hidden = (
            display.hide_team_budget_for_managers
            if manager
            else display.hide_team_budget_for_members
        )
        if hidden:
            blank = {"team_id": team_id, "total_spend": 0, "budget_hidden": True}
            return {**blank, "members": members.without_spend(rows)}
        total = math.fsum(row["spend"] for row in rows)
        return {"team_id": team_id, "total_spend": total, "members": rows}

    def _read(self, team_id: str, caller: Caller) -> tuple[Account | None, Json]:
        """Return the caller's account and ``/team/info``."""
        try:
            return self._users.find(caller), as_object(self._litellm.team(team_id))
        except UpstreamError as exc:
            if exc.answered == 404:
                raise Forbidden(NOT_A_MEMBER, reason="membership") from exc
            raise UsageUnavailable(
                f"LiteLLM failed to return the members of team {team_id}: {exc.message}",
                advice=exc.advice,
            ) from exc

    def _rows(self, team: Json, info: Json, start: str, end: str) -> list[Json]:
        pages = pages_of(partial(self._litellm.activity, "team", team["team_id"]), start, end)
        figures = usage.report(pages)
        listed = info.get("keys")
        keys = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
        owners = members.owners(pages)
        for key in keys:
            owners.setdefault(str(key.get("token")), members.texts(key, ("user_id",)))
        missing = [token for token in figures["usage_by_key"] if token not in owners]
        if missing and self._audited_keys is not None:
            owners.update(self._audited_keys(missing))
        rows = members.by_member(team, figures, owners, keys)
        emails = [row["user_email"] for row in rows if "user_email" in row]
        names = self._directory.display_names(emails)
        return [
            {**row, **present(display_name=names.get(row.get("user_email", "").lower()))}
            for row in rows
        ]
