"""The ceilings of keys: what may be asked for, by whom, and what is filled in. Pure.

Nothing here looks at keys that are not being changed: a ceiling that is new leaves those that
are there as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from typing import Any, Generic, TypeVar

from litellm_plugin.config.settings import KeyPolicy, Provisioning
from litellm_plugin.errors import BadRequest, Forbidden
from litellm_plugin.fields import is_number, seconds, shortest
from litellm_plugin.model_names import allows
from litellm_plugin.shapes import Json, present

EVERYBODY = "everybody"

MAX_NAMED = 20  # models that a refusal lists

T = TypeVar("T")

# Tells the access groups of a model by its name.
GroupsOf = Callable[[str], Collection[str]]


class PolicyRefused(BadRequest):
    """A key is asked for that goes beyond a ceiling; the message says which, and whose it is."""


@dataclass(frozen=True, slots=True)
class Ceiling(Generic[T]):
    """One limit.

    Attributes:
        limit: The highest value, or what is allowed.
        whom: For whom it is, such as "everybody".
    """

    limit: T
    whom: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The ceilings that hold for one person; None is no ceiling.

    Attributes:
        duration: Of a key's life, from now on.
        budget: USD per key.
        renewal: The shortest time after which such a budget may begin anew; None in it: never.
        tpm: Tokens per minute.
        rpm: Requests per minute.
        models: Names, wildcards and access groups that a key may be for, as each list has them.
        active_keys: How many keys may work at a time.
    """

    duration: Ceiling[str] | None = None
    budget: Ceiling[float] | None = None
    renewal: Ceiling[str | None] | None = None
    tpm: Ceiling[int] | None = None
    rpm: Ceiling[int] | None = None
    models: tuple[Ceiling[tuple[str, ...]], ...] = ()
    active_keys: Ceiling[int] | None = None

    # -- what may be asked for -----------------------------------------------

    def new_key(self, key: Json, groups_of: GroupsOf) -> Json:
        """Return a request for a key with the ceilings in place of what it leaves out.

        Args:
            key: Fields of LiteLLM's ``/key/generate``.
            groups_of: Tells a model's access groups; asked only for models not allowed by name.

        Raises:
            PolicyRefused: It asks for more.
        """
        filled = {**self._ceilings(), **key}
        self._refuse(filled, groups_of)
        return {**filled, **self._models_for_all(filled)}

    def change(self, change: Json, row: Mapping[str, Any], groups_of: GroupsOf) -> Json:
        """Return a change of a key; what it does not name stays as it is, whatever that is.

        Args:
            change: Fields of LiteLLM's ``/key/update``.
            row: The key as it is.
            groups_of: As for :meth:`new_key`.

        Raises:
            PolicyRefused: It asks for more.
        """
        self._refuse(change, groups_of)
        # LiteLLM 1.81 ignores a budget_duration of null: the key may keep what it has.
        if "max_budget" in change and change.get("budget_duration") is None:
            self._refuse_raise(change["max_budget"], row)
        return {**change, **self._models_for_all(change)}

    def lesser(self, key: Json) -> Json:
        """Return a request that the configuration makes, cut down to the ceilings."""
        cut = {**self._ceilings(), **key}
        if self.duration and not _is_within(cut["duration"], self.duration.limit):
            cut["duration"] = self.duration.limit
        if self.budget and not _is_at_most(cut["max_budget"], self.budget.limit):
            cut["max_budget"] = self.budget.limit
        return {**cut, **self._models_for_all({"models": [], **cut})}

    def refuse_reset(self) -> None:
        """Refuse to let a key spend its budget once more.

        Raises:
            Forbidden: There is a ceiling of budgets.
        """
        if self.budget is not None:
            raise Forbidden(
                "The spend of a key can't be reset: its budget may be at most"
                f" {_usd(self.budget.limit)} for {self.budget.whom}",
                reason="ceiling",
            )

    def refuse_more(self, keys: Iterable[Mapping[str, Any]], now: datetime) -> None:
        """Refuse one more active key beside ``keys``.

        Raises:
            Forbidden: There are as many as there may be.
        """
        if self.active_keys is None:
            return
        active = sum(is_active(key, now) for key in keys)
        if active >= self.active_keys.limit:
            raise Forbidden(
                f"At most {self.active_keys.limit} active keys are allowed for"
                f" {self.active_keys.whom}, and there are {active}."
                " Revoke or block one that is not needed.",
                reason="ceiling",
            )

    def outlives(self, expires: Any, now: datetime) -> bool:
        """Tell whether a key that LiteLLM has just made lives longer than it may."""
        if self.duration is None:
            return False
        end = _moment(expires)
        # A minute for clocks that differ.
        most = (seconds(self.duration.limit) or 0) + 60
        return end is None or (end - now).total_seconds() > most

    # -- parts ---------------------------------------------------------------

    def _ceilings(self) -> Json:
        return present(
            duration=self.duration and self.duration.limit,
            max_budget=self.budget and self.budget.limit,
            tpm_limit=self.tpm and self.tpm.limit,
            rpm_limit=self.rpm and self.rpm.limit,
        ) | ({"models": []} if self.models else {})

    def _models_for_all(self, key: Mapping[str, Any]) -> Json:
        # An empty list means every model to LiteLLM, and is what the frontend sends for that.
        if not self.models or "models" not in key or key["models"]:
            return {}
        listed = dict.fromkeys(name for ceiling in self.models for name in ceiling.limit)
        common = [
            name for name in listed if all(allows(ceiling.limit, name) for ceiling in self.models)
        ]
        if not common:
            whom = " who are also ".join(dict.fromkeys(ceiling.whom for ceiling in self.models))
            raise PolicyRefused(f"No model is allowed for {whom}")
        return {"models": common}

    def _refuse(self, given: Mapping[str, Any], groups_of: GroupsOf) -> None:
        for name, refuse in LIMITS.items():
            if name in given:
                refuse(self, given[name], groups_of)

    def _refuse_raise(self, budget: Any, row: Mapping[str, Any]) -> None:
        """Refuse a higher budget of a key whose budget begins anew more often than it may."""
        present_budget = row.get("max_budget")
        if present_budget is None:
            return
        if is_number(present_budget) and _is_at_most(budget, present_budget):
            return
        if self.renewal and row.get("budget_duration") is not None:
            _refuse_renewal(row["budget_duration"], self.renewal)


def policy_for(common: KeyPolicy, provisioning: Provisioning, groups: Collection[str]) -> Policy:
    """Return the ceilings of a member of ``groups`` (entity refs).

    The first role of ``provisioning`` whose group is among them replaces fields of ``common``.
    """
    role = provisioning.role_for(frozenset(groups))
    own = role.key_policy if role else {}
    merged = replace(common, **own)

    def ceiling(name: str, limit: T | None) -> Ceiling[T] | None:
        if limit is None:
            return None
        whom = f"members of {role.group}" if role and name in own else EVERYBODY
        return Ceiling(limit, whom)

    budget = ceiling("max_budget", merged.max_budget)
    models = ceiling("allowed_models", merged.allowed_models)
    renewal: Ceiling[str | None] | None = ceiling("min_budget_duration", merged.min_budget_duration)
    return Policy(
        duration=ceiling("max_duration", merged.max_duration),
        budget=budget,
        renewal=(renewal or Ceiling(None, budget.whom)) if budget else None,
        tpm=ceiling("max_tpm_limit", merged.max_tpm_limit),
        rpm=ceiling("max_rpm_limit", merged.max_rpm_limit),
        models=(models,) if models else (),
        active_keys=ceiling("max_active_keys", merged.max_active_keys),
    )


def strictest(policies: Collection[Policy]) -> Policy:
    """Return what all of ``policies`` allow, for who may be any of several people."""
    return reduce(_both, policies, Policy())


def is_set(common: KeyPolicy, provisioning: Provisioning) -> bool:
    """Tell whether there is any ceiling, for anybody."""
    return common != KeyPolicy() or by_role(provisioning)


def by_role(provisioning: Provisioning) -> bool:
    """Tell whether ceilings depend on who it is."""
    return any(role.key_policy for role in provisioning.roles)


def is_active(key: Mapping[str, Any], now: datetime) -> bool:
    """Tell whether a key works: it is neither expired nor blocked.

    Args:
        key: A row of LiteLLM's; ``blocked`` and ``expires`` count.
        now: The present time, in UTC.
    """
    if key.get("blocked") is True:
        return False
    if key.get("expires") is None:
        return True
    end = _moment(key["expires"])
    return end is None or end > now


def _both(one: Policy, other: Policy) -> Policy:
    def lower(
        first: Ceiling[T] | None, second: Ceiling[T] | None, size: Callable[[Any], float]
    ) -> Ceiling[T] | None:
        if first is None or second is None:
            return first or second
        return min(first, second, key=lambda ceiling: size(ceiling.limit))

    return Policy(
        duration=lower(one.duration, other.duration, lambda limit: seconds(limit) or 0),
        budget=lower(one.budget, other.budget, float),
        renewal=lower(one.renewal, other.renewal, lambda limit: -_renewal(limit)),
        tpm=lower(one.tpm, other.tpm, float),
        rpm=lower(one.rpm, other.rpm, float),
        models=tuple(dict.fromkeys(one.models + other.models)),
        active_keys=lower(one.active_keys, other.active_keys, float),
    )


def _renewal(limit: str | None) -> float:
    """Return the shortest time after which a budget begins anew, in seconds."""
    return math.inf if limit is None else shortest(limit) or 0


def _refuse_longer(duration: Any, ceiling: Ceiling[str]) -> None:
    if duration is None:
        raise PolicyRefused(
            f"duration must not be unlimited: at most {ceiling.limit} for {ceiling.whom}"
        )
    if seconds(duration) is None:
        raise PolicyRefused(
            "duration must be a number and one of s, m, h, d, w and mo:"
            f" at most {ceiling.limit} for {ceiling.whom}"
        )
    if not _is_within(duration, ceiling.limit):
        raise PolicyRefused(f"duration must be at most {ceiling.limit} for {ceiling.whom}")


def _refuse_renewal(duration: Any, renewal: Ceiling[str | None]) -> None:
    if renewal.limit is None:
        raise PolicyRefused(
            f"budget_duration must be left out: the budget of a key is for its whole life,"
            f" for {renewal.whom}"
        )
    span, least = shortest(duration), shortest(renewal.limit)
    if least and (span is None or span < least):
        raise PolicyRefused(f"budget_duration must be at least {renewal.limit} for {renewal.whom}")


def _refuse_higher(
    name: str, value: Any, ceiling: Ceiling[float] | Ceiling[int], unit: str = ""
) -> None:
    most = f"at most {ceiling.limit:.15g}{unit} for {ceiling.whom}"
    if value is None:
        raise PolicyRefused(f"{name} must not be unlimited: {most}")
    if not _is_at_most(value, ceiling.limit):
        raise PolicyRefused(f"{name} must be {most}")


def _refuse_other_models(
    names: Iterable[str], ceiling: Ceiling[tuple[str, ...]], groups_of: GroupsOf
) -> None:
    for name in names:
        if not allows(ceiling.limit, name) and not set(ceiling.limit) & {*groups_of(name)}:
            listed = ", ".join(ceiling.limit[:MAX_NAMED])
            more = ", …" if len(ceiling.limit) > MAX_NAMED else ""
            raise PolicyRefused(
                f'model "{name}" is not allowed: only {listed}{more} for {ceiling.whom}'
            )


def _refuse_duration(policy: Policy, value: Any, _: GroupsOf) -> None:
    if policy.duration:
        _refuse_longer(value, policy.duration)


def _refuse_budget(policy: Policy, value: Any, _: GroupsOf) -> None:
    if policy.budget:
        _refuse_higher("max_budget", value, policy.budget, unit=" USD")


def _refuse_budget_duration(policy: Policy, value: Any, _: GroupsOf) -> None:
    if policy.renewal and value is not None:
        _refuse_renewal(value, policy.renewal)


def _refuse_tpm(policy: Policy, value: Any, _: GroupsOf) -> None:
    if policy.tpm:
        _refuse_higher("tpm_limit", value, policy.tpm)


def _refuse_rpm(policy: Policy, value: Any, _: GroupsOf) -> None:
    if policy.rpm:
        _refuse_higher("rpm_limit", value, policy.rpm)


def _refuse_models(policy: Policy, value: Any, groups_of: GroupsOf) -> None:
    for ceiling in policy.models:
        _refuse_other_models(value or (), ceiling, groups_of)


# What a ceiling says of a field, of a new key as well as of a change.
LIMITS: dict[str, Callable[[Policy, Any, GroupsOf], None]] = {
    "duration": _refuse_duration,
    "max_budget": _refuse_budget,
    "budget_duration": _refuse_budget_duration,
    "tpm_limit": _refuse_tpm,
    "rpm_limit": _refuse_rpm,
    "models": _refuse_models,
}


def _is_within(duration: Any, limit: str) -> bool:
    span, most = seconds(duration), seconds(limit)
    return span is not None and most is not None and span <= most


def _is_at_most(value: Any, limit: float) -> bool:
    return is_number(value) and value <= limit


def _usd(amount: float) -> str:
    return f"{amount:.15g} USD"


def _moment(text: Any) -> datetime | None:
    """Return a time of LiteLLM's; None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
