"""The three-way comparison: granted before, LiteLLM's now, and the role's now.

Pure: values in, a plan out. Values are fields of LiteLLM's user row in one form: ``max_budget``
in USD, ``budget_duration``, ``tpm_limit`` and ``rpm_limit``, or None for no limit; ``models`` and
``teams`` as sorted lists, where no models stand for every model; ``user_role``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from litellm_plugin import fields
from litellm_plugin.clients.litellm import Account
from litellm_plugin.config.settings import UserDefaults
from litellm_plugin.shapes import Json

SCALARS = ("max_budget", "budget_duration", "models", "tpm_limit", "rpm_limit", "user_role")
JOIN, LEAVE = "join", "leave"  # names of pending values: ids of teams

ALL_MODELS = "all-proxy-models"  # LiteLLM's word; /user/update ignores an empty list
PLAIN_ROLE = "internal_user"  # what LiteLLM takes a user without a role for

CHANGE, BY_HAND = "change", "by hand"  # what happens; by hand: the value stays

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of an account that is not as the role grants it.

    Attributes:
        field: Such as ``max_budget``; ``team TEAM_ID`` for a membership, whose values are booleans.
        granted: The value that provisioning recorded; None where there is no record.
        now: LiteLLM's value.
        role: The value that the role grants.
        action: :data:`CHANGE` or :data:`BY_HAND`.
    """

    field: str
    granted: Any
    now: Any
    role: Any
    action: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of a comparison.

    Attributes:
        differences: All of them.
        update: The fields to write, with the role's values.
        join: Ids of the teams to join.
        leave: Ids of the teams to leave.
        granted: What to record as granted before any of this is written.
    """

    differences: tuple[Difference, ...]
    update: Json
    join: tuple[str, ...]
    leave: tuple[str, ...]
    granted: Json

    @property
    def writes(self) -> bool:
        """Whether anything has to be written to LiteLLM."""
        return bool(self.update or self.join or self.leave)

    @property
    def pending(self) -> Json:
        """What to record before the writes, which may be interrupted."""
        return {**self.update, JOIN: [*self.join], LEAVE: [*self.leave]}

    def settled(self, now: Values) -> Json:
        """Return what to record as granted after the writes, given the account after them."""
        kept = {name: value for name, value in self.update.items() if now[name] == value}
        joined = {team for team in self.join if team in now["teams"]}
        left = {team for team in self.leave if team not in now["teams"]}
        teams = sorted(({*self.granted["teams"]} | joined) - left)
        return {**self.granted, **kept, "teams": teams}


def role_values(gets: UserDefaults) -> Json:
    """Return the values that a role grants."""
    span = gets.budget_duration
    return {
        "max_budget": gets.max_budget,
        "budget_duration": fields.duration("budgetDuration", span) if span else None,
        "models": _models(gets.models),
        "tpm_limit": gets.tpm_limit,
        "rpm_limit": gets.rpm_limit,
        "user_role": gets.user_role or PLAIN_ROLE,
        "teams": sorted(set(gets.teams)),
    }


def account_values(account: Account) -> Json:
    """Return the values of an account; a field that LiteLLM does not tell is None."""
    info = account.info
    models = info.get("models")
    return {
        **{name: info.get(name) for name in ("max_budget", "tpm_limit", "rpm_limit")},
        "budget_duration": info.get("budget_duration") or None,
        "models": _models(models if isinstance(models, list) else []),
        "user_role": info.get("user_role") or PLAIN_ROLE,
        "teams": sorted(set(account.team_ids)),
    }


def as_pending(role: Values) -> Json:
    """Return the pending values of an account that is about to be created with a role's values."""
    return {**{name: role[name] for name in SCALARS}, JOIN: role["teams"], LEAVE: []}


def compare(
    granted: Values,
    pending: Values | None,
    now: Values,
    role: Values,
    watched: Collection[str] = (),
) -> Plan:
    """Compare an account with its role.

    A field is provisioning's where its value is the one recorded as granted, or the one of a write
    that may have been interrupted. Any other value was set by hand, and stays.

    Args:
        granted: The values recorded as granted; a field may be missing.
        pending: The values recorded before a write that was not finished; None: there is none.
        now: LiteLLM's values.
        role: The role's values.
        watched: Ids of the teams that some role grants. Other teams that provisioning did not
            grant are no difference.
    """
    pending = pending or {}
    record: Json = {}
    update: Json = {}
    differences: list[Difference] = []
    for name in SCALARS:
        known = [values[name] for values in (granted, pending) if name in values]
        value, wanted = now[name], role[name]
        ours = value in known
        # A field without a record is taken in: as granted, if it has the role's value.
        record[name] = value if ours else known[0] if known else wanted
        if value == wanted:
            continue
        action = CHANGE if ours else BY_HAND
        differences.append(Difference(name, granted.get(name), value, wanted, action))
        if ours:
            update[name] = wanted
    memberships = _Memberships(
        granted={*granted.get("teams", ())},
        joining={*pending.get(JOIN, ())},
        leaving={*pending.get(LEAVE, ())},
        now={*now["teams"]},
        role={*role["teams"]},
    )
    record["teams"] = sorted(memberships.recorded())
    for team in sorted(memberships.role ^ memberships.now):
        action = memberships.action(team)
        if action == CHANGE or team in memberships.granted or team in watched:
            differences.append(
                Difference(
                    f"team {team}",
                    team in memberships.granted,
                    team in memberships.now,
                    team in memberships.role,
                    action,
                )
            )
    changed = [each for each in differences if each.action == CHANGE]
    teams = [each for each in changed if each.field not in SCALARS]
    return Plan(
        tuple(differences),
        update,
        tuple(each.field.removeprefix("team ") for each in teams if each.role),
        tuple(each.field.removeprefix("team ") for each in teams if not each.role),
        record,
    )


@dataclass(frozen=True, slots=True)
class _Memberships:
    """Ids of teams: granted, about to be joined or left, LiteLLM's now and the role's now."""

    granted: set[str]
    joining: set[str]
    leaving: set[str]
    now: set[str]
    role: set[str]

    def recorded(self) -> set[str]:
        """Return the teams to record as granted, once it is seen what became of pending writes."""
        joined = self.joining & self.now
        # A team that was granted, and is not there, was left by hand. It stays recorded, so that
        # the user is not added again; unless the interrupted write was ours.
        left = self.leaving - self.now
        return (self.granted | joined) - left

    def action(self, team: str) -> str:
        """Return what happens to a membership in which LiteLLM and the role differ."""
        ours = team in self.recorded()
        if team in self.role:
            return BY_HAND if ours else CHANGE
        return CHANGE if ours else BY_HAND


def _models(names: Collection[str]) -> list[str]:
    return [] if ALL_MODELS in names else sorted(set(names))
