"""Key policies: the limits of virtual keys, and the people whom each limit applies to.

Limits are checked when a key is created or changed. A new limit in the configuration leaves
existing keys as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from litellm_plugin.accounts.caller import Caller
from litellm_plugin.accounts.directory import Directory
from litellm_plugin.clock import moment
from litellm_plugin.config.settings import BridgeKeys, KeyPolicy, Provisioning, Settings
from litellm_plugin.errors import BadRequest, Forbidden
from litellm_plugin.fields import is_number, is_within, seconds, shortest
from litellm_plugin.keys.metadata import RotationRecord, Tool, is_bridge_key
from litellm_plugin.models import Models, allows
from litellm_plugin.shapes import Json, present

EVERYBODY = "everybody"

CLOCK_SKEW = timedelta(minutes=1)
MAX_NAMED = 20  # models that an error message lists

T = TypeVar("T")

# Returns the access groups of a model, given the model's name.
GroupsOf = Callable[[str], Collection[str]]


class PolicyRefused(BadRequest):
    """A request for a key exceeds a limit; the message names the limit and whom it applies to."""


@dataclass(frozen=True, slots=True)
class Limit(Generic[T]):
    """One limit of a key policy.

    Attributes:
        value: The highest allowed value.
        whom: Whom the limit applies to, as messages say it, such as "everybody".
    """

    value: T
    whom: str


@dataclass(frozen=True, slots=True)
class ModelLimit:
    """The allowed models, wildcards and access groups; ``whom`` is as in :class:`Limit`."""

    value: tuple[str, ...]
    whom: str
    groups_of: GroupsOf = field(compare=False)

    def allows(self, name: str) -> bool:
        """Tell whether a model is allowed, by its name or by one of its access groups."""
        return allows(self.value, name) or not set(self.value).isdisjoint(self.groups_of(name))

    def refuse_others(self, names: Iterable[str]) -> None:
        """Refuse models that are not allowed.

        Raises:
            PolicyRefused: ``names`` has such a model.
        """
        for name in names:
            if not self.allows(name):
                listed = ", ".join(self.value[:MAX_NAMED])
                more = ", …" if len(self.value) > MAX_NAMED else ""
                raise PolicyRefused(
                    f'model "{name}" is not allowed: only {listed}{more} for {self.whom}'
                )


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits that apply to one person; None is no limit.

    Attributes:
        duration: Lifetime of a key, counted from now.
        budget: USD per key.
        renewal: The shortest ``budget_duration`` of a key with such a budget; the value None
            allows no ``budget_duration`` at all.
        tpm: Tokens per minute.
        rpm: Requests per minute.
        models: A model must be allowed by each of them.
        active_keys: Number of keys that are neither expired nor blocked.
    """

    duration: Limit[str] | None = None
    budget: Limit[float] | None = None
    renewal: Limit[str | None] | None = None
    tpm: Limit[int] | None = None
    rpm: Limit[int] | None = None
    models: tuple[ModelLimit, ...] = ()
    active_keys: Limit[int] | None = None

    # -- requests for keys ---------------------------------------------------

    def new_key(self, key: Json) -> Json:
        """Return the fields of ``/key/generate``, with the limits for those that are left out.

        Raises:
            PolicyRefused: A field exceeds its limit.
        """
        filled = {**self._limits(), **key}
        self._refuse(filled)
        return {**filled, **self._allowed_for_all(filled)}

    def change(self, change: Json, row: Mapping[str, Any]) -> Json:
        """Return the fields of ``/key/update``; fields that are left out are not checked.

        ``row`` is LiteLLM's row of the key before the change.

        Raises:
            PolicyRefused: A field exceeds its limit.
        """
        self._refuse(change)
        # LiteLLM 1.81 ignores a budget_duration of null: the key may keep what it has.
        if "max_budget" in change and change.get("budget_duration") is None:
            self._refuse_raise(change["max_budget"], row)
        return {**change, **self._allowed_for_all(change)}

    def capped(self, key: Json) -> Json:
        """Return the fields of ``/key/generate``, reduced to the limits.

        For requests that are made from the configuration or from a rotated key, not by the owner;
        they have no null.

        Raises:
            PolicyRefused: None of the models is allowed.
        """
        cut = {**self._limits(), **key}
        if self.duration and not is_within(cut["duration"], self.duration.value):
            cut["duration"] = self.duration.value
        for name, limit in self._numbers.items():
            if not _is_at_most(cut[name], limit.value):
                cut[name] = limit.value
        renewal = cut.get("budget_duration")
        if self.renewal and renewal is not None and _renews_too_often(renewal, self.renewal):
            cut["budget_duration"] = self.renewal.value
        if self.models and cut["models"]:
            cut["models"] = [
                name for name in cut["models"] if all(limit.allows(name) for limit in self.models)
            ]
            if not cut["models"]:
                raise PolicyRefused(f"None of the key's models is allowed for {self._whom()}")
        return {**cut, **self._allowed_for_all(cut)}

    def refuse_reset(self) -> None:
        """Refuse to reset a key's spend, which would allow its budget to be spent again.

        Raises:
            Forbidden: Budgets are limited.
        """
        if self.budget is not None:
            raise Forbidden(
                "The spend of a key can't be reset: its budget may be at most"
                f" {self.budget.value:.15g} USD for {self.budget.whom}",
                reason="ceiling",
            )

    def refuse_more(self, keys: Iterable[Mapping[str, Any]], now: datetime) -> None:
        """Refuse one more active key to the owner of ``keys``.

        Raises:
            Forbidden: As many keys as allowed are active.
        """
        if self.active_keys is None:
            return
        active = len(counted(keys, now))
        if active >= self.active_keys.value:
            raise Forbidden(
                f"At most {self.active_keys.value} active keys are allowed for"
                f" {self.active_keys.whom}, and there are {active}."
                " Revoke or block one that is not needed.",
                reason="ceiling",
            )

    def outlives(self, expires: Any, now: datetime) -> bool:
        """Tell whether a key with LiteLLM's ``expires`` lives longer than allowed."""
        if self.duration is None:
            return False
        end = moment(expires)
        most = (seconds(self.duration.value) or 0) + CLOCK_SKEW.total_seconds()
        return end is None or (end - now).total_seconds() > most

    # -- parts ---------------------------------------------------------------

    @property
    def _numbers(self) -> dict[str, Limit[float]]:
        """The limits that are numbers, by the names of LiteLLM's fields."""
        return present(max_budget=self.budget, tpm_limit=self.tpm, rpm_limit=self.rpm)

    def _limits(self) -> Json:
        """Return the values for the fields that a request leaves out."""
        return {
            **present(duration=self.duration and self.duration.value),
            **{name: limit.value for name, limit in self._numbers.items()},
            **({"models": []} if self.models else {}),
        }

    def _allowed_for_all(self, key: Mapping[str, Any]) -> Json:
        """Return ``models`` with all allowed models, where ``key`` asks for every model."""
        # LiteLLM reads an empty list as every model, and the frontend sends one for that.
        if not self.models or "models" not in key or key["models"]:
            return {}
        listed = dict.fromkeys(name for limit in self.models for name in limit.value)
        common = [name for name in listed if all(allows(each.value, name) for each in self.models)]
        if not common:
            raise PolicyRefused(f"No model is allowed for {self._whom()}")
        return {"models": common}

    def _whom(self) -> str:
        return " who are also ".join(dict.fromkeys(limit.whom for limit in self.models))

    def _refuse(self, given: Mapping[str, Any]) -> None:
        """Refuse fields, of a new key or of a change, that exceed their limits."""
        if self.duration and "duration" in given:
            _refuse_longer(given["duration"], self.duration)
        for name, limit in self._numbers.items():
            if name in given:
                _refuse_higher(name, given[name], limit)
        if self.renewal and given.get("budget_duration") is not None:
            _refuse_renewal(given["budget_duration"], self.renewal)
        for allowed in self.models:
            allowed.refuse_others(given.get("models") or ())

    def _refuse_raise(self, budget: Any, row: Mapping[str, Any]) -> None:
        """Refuse a higher budget for a key whose ``budget_duration`` is shorter than allowed."""
        present_budget = row.get("max_budget")
        if present_budget is None:
            return
        if is_number(present_budget) and _is_at_most(budget, present_budget):
            return
        if self.renewal and row.get("budget_duration") is not None:
            _refuse_renewal(row["budget_duration"], self.renewal)


class KeyPolicies:
    """Finds key policies: ``litellm.keyPolicy``, with the overrides of provisioning roles.

    Attributes:
        limits_budget: Whether any policy limits budgets.
    """

    def __init__(self, settings: Settings, directory: Directory, models: Models) -> None:
        self._common = settings.key_policy
        self._provisioning = settings.provisioning
        self._directory = directory
        self._models = models
        self._bridge_keys = settings.bridge.keys
        roles = settings.provisioning.roles
        self._by_role = any(role.key_policy for role in roles)
        budgets = (self._common.max_budget, *(role.key_policy.get("max_budget") for role in roles))
        self.limits_budget = any(budget is not None for budget in budgets) or bool(
            self._bridge_keys and self._bridge_keys.per_tool
        )

    def of(self, caller: Caller, user_id: str | None) -> Policy:
        """Return the policy of a user; for a service, that of the LiteLLM user ``user_id``.

        Raises:
            BackstageUnavailable: Roles have limits, and the catalog can't be read.
        """
        if not caller.user:
            return self.of_id(user_id)
        return self._of_groups(caller.entity.groups if self._by_role else ())

    def of_id(self, user_id: str | None) -> Policy:
        """Return the policy of the person in the catalog who has a LiteLLM id.

        For callers whose token does not prove their groups. If several people have the id,
        the limits of all of them apply; if none has, ``litellm.keyPolicy`` applies.

        Raises:
            BackstageUnavailable: As for :meth:`of`.
        """
        people = self._directory.of_id(user_id) if self._by_role and user_id else []
        groups = [person.groups for person in people] or [frozenset()]
        return combined(map(self._of_groups, groups))

    def of_key(self, policy: Policy, row: Mapping[str, Any]) -> Policy:
        """Return the policy of a key, made from its owner's.

        A bridge key also has the limits of ``litellm.bridge.keys``.
        """
        if self._bridge_keys is None or not is_bridge_key(row):
            return policy
        return combined((policy, bridge_policy(self._bridge_keys, Tool.of(row))))

    def refuse_extension(self, change: Json, row: Mapping[str, Any], now: datetime) -> None:
        """Refuse a change after which a key of the bridge lives longer than ``maxTtl`` in all.

        ``change`` is what :meth:`Policy.change` returned.

        Raises:
            PolicyRefused: It would live longer.
        """
        if self._bridge_keys is None or not is_bridge_key(row):
            return
        created, added = moment(row.get("created_at")), seconds(change.get("duration"))
        if created is None or added is None:
            return
        longest = self._bridge_keys.max_ttl
        most = (seconds(longest) or 0) + CLOCK_SKEW.total_seconds()
        if (now - created).total_seconds() + added > most:
            raise PolicyRefused(
                f"duration must be shorter: bridge keys live for {longest} at most from"
                " their creation (litellm.bridge.keys.maxTtl)"
            )

    def groups_of(self, model: str) -> Collection[str]:
        """Return the access groups of a model; none where LiteLLM does not list them."""
        groups: set[str] = set()
        for row in self._models.all():
            if row.get("model_name") == model and isinstance(row.get("access_groups"), list):
                groups.update(name for name in row["access_groups"] if isinstance(name, str))
        return groups

    def _of_groups(self, groups: Collection[str]) -> Policy:
        return policy_for(self._common, self._provisioning, groups, self.groups_of)


def policy_for(
    common: KeyPolicy, provisioning: Provisioning, groups: Collection[str], groups_of: GroupsOf
) -> Policy:
    """Return the policy of a member of ``groups`` (entity refs).

    The first role of ``provisioning`` whose group is among them replaces fields of ``common``.
    ``groups_of`` is called only for models that are not allowed by name.
    """
    role = provisioning.role_for(frozenset(groups))
    own = role.key_policy if role else {}
    merged = replace(common, **own)

    def limit(name: str, value: T | None) -> Limit[T] | None:
        if value is None:
            return None
        whom = f"members of {role.group}" if role and name in own else EVERYBODY
        return Limit(value, whom)

    budget = limit("max_budget", merged.max_budget)
    models = limit("allowed_models", merged.allowed_models)
    renewal: Limit[str | None] | None = limit("min_budget_duration", merged.min_budget_duration)
    return Policy(
        duration=limit("max_duration", merged.max_duration),
        budget=budget,
        renewal=(renewal or Limit(None, budget.whom)) if budget else None,
        tpm=limit("max_tpm_limit", merged.max_tpm_limit),
        rpm=limit("max_rpm_limit", merged.max_rpm_limit),
        models=(ModelLimit(models.value, models.whom, groups_of),) if models else (),
        active_keys=limit("max_active_keys", merged.max_active_keys),
    )


def bridge_policy(settings: BridgeKeys, tool: Tool | None) -> Policy:
    """Return the limits of ``litellm.bridge.keys``, for a tool key or for one without a tool."""
    longest = Limit(settings.max_ttl, "bridge keys (litellm.bridge.keys.maxTtl)")
    entry = settings.budget_of(tool.name) if tool else None
    if tool is None or entry is None:
        return Policy(duration=longest)
    whom = f"keys of the tool {tool.name}"
    renewal: Limit[str | None] = Limit(entry.budget_duration, whom)
    return Policy(duration=longest, budget=Limit(entry.max_budget, whom), renewal=renewal)


def combined(policies: Iterable[Policy]) -> Policy:
    """Return the policy that allows only what each of ``policies`` allows."""
    each = tuple(policies)

    def lowest(
        limits: Iterable[Limit[T] | None], size: Callable[[Any], float] = float
    ) -> Limit[T] | None:
        return min(filter(None, limits), key=lambda limit: size(limit.value), default=None)

    def life(duration: str) -> float:
        return seconds(duration) or 0

    def strictness(renewal: str | None) -> float:  # the longer time is the stricter limit
        return -math.inf if renewal is None else -(shortest(renewal) or 0)

    return Policy(
        duration=lowest((policy.duration for policy in each), life),
        budget=lowest(policy.budget for policy in each),
        renewal=lowest((policy.renewal for policy in each), strictness),
        tpm=lowest(policy.tpm for policy in each),
        rpm=lowest(policy.rpm for policy in each),
        models=tuple(dict.fromkeys(limit for policy in each for limit in policy.models)),
        active_keys=lowest(policy.active_keys for policy in each),
    )


def counted(keys: Iterable[Mapping[str, Any]], now: datetime) -> list[Mapping[str, Any]]:
    """Return the keys that count as active.

    A rotated key within its grace does not count while its active successor is among ``keys``. A
    rotation leaves out the key that it replaces, so the one before counts: graces don't add up.
    """
    active = [key for key in keys if is_active(key, now)]
    successors = [RotationRecord.of(key).replaces[:1] for key in active]
    return [key for key in active if not (is_ending(key) and (key.get("token"),) in successors)]


def is_ending(key: Mapping[str, Any]) -> bool:
    """Tell whether a key was rotated, and expires when its grace ends."""
    replaced = RotationRecord.of(key).replaced
    expires, until = moment(key.get("expires")), moment(replaced and replaced["until"])
    return expires is not None and until is not None and expires - until <= CLOCK_SKEW


def is_active(key: Mapping[str, Any], now: datetime) -> bool:
    """Tell whether a key is neither expired nor blocked, by LiteLLM's row."""
    end = moment(key.get("expires"))
    return key.get("blocked") is not True and (end is None or end > now)


def _refuse_longer(duration: Any, limit: Limit[str]) -> None:
    most = f"at most {limit.value} for {limit.whom}"
    if duration is None:
        raise PolicyRefused(f"duration must not be unlimited: {most}")
    if seconds(duration) is None:
        raise PolicyRefused(f"duration must be a number and one of s, m, h, d, w and mo: {most}")
    if not is_within(duration, limit.value):
        raise PolicyRefused(f"duration must be {most}")


def _refuse_renewal(duration: Any, limit: Limit[str | None]) -> None:
    if not _renews_too_often(duration, limit):
        return
    if limit.value is None:
        raise PolicyRefused(
            "budget_duration must be left out: the budget of a key is for its whole life,"
            f" for {limit.whom}"
        )
    raise PolicyRefused(f"budget_duration must be at least {limit.value} for {limit.whom}")


def _renews_too_often(duration: Any, limit: Limit[str | None]) -> bool:
    if limit.value is None:
        return True
    span, least = shortest(duration), shortest(limit.value)
    return bool(least) and (span is None or span < (least or 0))


def _refuse_higher(name: str, value: Any, limit: Limit[float]) -> None:
    unit = " USD" if name == "max_budget" else ""
    most = f"at most {limit.value:.15g}{unit} for {limit.whom}"
    if value is None:
        raise PolicyRefused(f"{name} must not be unlimited: {most}")
    if not _is_at_most(value, limit.value):
        raise PolicyRefused(f"{name} must be {most}")


def _is_at_most(value: Any, limit: float) -> bool:
    return is_number(value) and value <= limit
