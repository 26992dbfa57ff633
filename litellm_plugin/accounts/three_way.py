"""The three-way comparison: values granted before, LiteLLM's now, and the role's now.

Pure functions. Values are fields of LiteLLM's user row, normalized: ``max_budget``
in USD, ``budget_duration``, ``tpm_limit`` and ``rpm_limit``, or None for no limit; ``models`` and
``teams`` as sorted lists, where an empty list of models means all models; ``user_role``.
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

ALL_MODELS = "all-proxy-models"  # LiteLLM's name for all; /user/update ignores an empty list
PLAIN_ROLE = "internal_user"  # LiteLLM's default

# What happens to a difference: the role's value is written; or the value stays.
CHANGE, BY_HAND = "change", "by hand"

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of an account that is not as the role grants it.

    Attributes:
        field: Such as ``max_budget``; ``team TEAM_ID`` for a membership, whose values are booleans.
        granted: The value that counts as granted; None where there is no record.
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
    """What to write to an account.

    Attributes:
        differences: All differences, those that stay too.
        update: The fields to write, with the role's values.
        join: Ids of the teams to join.
        leave: Ids of the teams to leave.
        granted: The values to record as granted before the writes.
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
        """The values to record before the writes, which may be interrupted."""
        teams = {*self.granted["teams"], *self.join}.difference(self.leave)
        return {**self.update, "teams": sorted(teams)}


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
    """Return the values of an account; a field that LiteLLM leaves out is None."""
    info = account.info
    models = info.get("models")
    return {
        **{name: info.get(name) for name in ("max_budget", "tpm_limit", "rpm_limit")},
        "budget_duration": info.get("budget_duration") or None,
        "models": _models(models if isinstance(models, list) else []),
        "user_role": info.get("user_role") or PLAIN_ROLE,
        "teams": sorted(set(account.team_ids)),
    }


def granted_values(granted: Values, pending: Values | None, now: Values) -> Json:
    """Return the values that count as granted, after a write that may have been interrupted.

    ``granted`` has the values recorded as granted before the write, ``pending`` those to be written
    (None: there was no write); both may lack fields. ``now`` has LiteLLM's values.
    """
    pending = pending or {}
    written = {
        name: pending[name]
        for name in SCALARS
        if name in pending and (name not in granted or pending[name] == now[name])
    }
    # A membership was written if LiteLLM has it as the write wanted it. A team that was granted
    # before and after, but that the user is not in, was left by hand: it stays recorded, so that
    # the user is not added again.
    before, of_account = {*granted.get("teams", ())}, {*now["teams"]}
    wanted = {*pending.get("teams", before)}
    teams = (before & wanted) | (of_account & (before | wanted))
    return {**granted, **written, "teams": sorted(teams)}


def make_plan(
    granted: Values,
    pending: Values | None,
    now: Values,
    role: Values,
    watched: Collection[str] = (),
) -> Plan:
    """Compare an account with its role.

    A field follows the role if its value counts as granted by :func:`granted_values`. Any other
    value was set by hand, and stays.

    ``watched`` are the ids of the teams that some role grants. Memberships in other teams are no
    differences, unless provisioning granted them.
    """
    granted = granted_values(granted, pending, now)
    update: Json = {}
    differences: list[Difference] = []
    for name in SCALARS:
        value, wanted = now[name], role[name]
        if value == wanted:
            continue
        if name in granted and granted[name] == value:
            update[name] = wanted
        action = CHANGE if name in update else BY_HAND
        differences.append(Difference(name, granted.get(name), value, wanted, action))
    recorded, of_account, of_role = ({*values["teams"]} for values in (granted, now, role))
    join = tuple(sorted(of_role - of_account - recorded))
    leave = tuple(sorted((of_account - of_role) & recorded))
    for team in sorted(of_role ^ of_account):
        action = CHANGE if team in (*join, *leave) else BY_HAND
        if action == CHANGE or team in recorded or team in watched:
            is_in = (team in recorded, team in of_account, team in of_role)
            differences.append(Difference(f"team {team}", *is_in, action))
    # A field without a record counts as granted if it has the role's value.
    return Plan(tuple(differences), update, join, leave, {**role, **granted})


def _models(names: Collection[str]) -> list[str]:
    return [] if ALL_MODELS in names else sorted(set(names))
