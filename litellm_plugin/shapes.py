"""Makes the users, keys and teams of responses from LiteLLM's rows.

Pure: one row in, one object out. The frontend distinguishes ``null`` from an absent field, so
each function says which of the two it returns. Money is in USD.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]


def present(**fields: Any) -> Json:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def picked(row: Json, names: Iterable[str]) -> Json:
    """Return those fields of a row that are in ``names``."""
    return {name: row[name] for name in names if name in row}


def first(*values: Any) -> Any:
    """Return the first value that is not None, else None."""
    return next((value for value in values if value is not None), None)


def as_object(value: Any) -> Json:
    """Return ``value`` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


USER_FIELDS = (
    "user_email",
    "email",
    "models",
    "max_budget",
    "budget_duration",
    "spend",
    "current_spend",
    "soft_limit",
    "hard_limit",
)


def user_info(
    user_id: str,
    info: Json,
    team_ids: list[str],
    *,
    can_view_audit: bool,
    soft_share: float | None = None,
) -> Json:
    """Return ``GET /user/info``; fields that are null in LiteLLM's row are absent.

    Args:
        user_id: LiteLLM id.
        info: LiteLLM's row.
        team_ids: The ids of the user's teams.
        can_view_audit: Whether the user is in the audit group.
        soft_share: The share of the budget, from 0 to 1, that is returned as ``soft_limit`` where
            the row has none, as LiteLLM's rows do; None returns none.
    """
    fields = present(**picked(info, USER_FIELDS))
    budget = amount(fields.get("max_budget"))
    if soft_share is not None and budget > 0:
        fields.setdefault("soft_limit", round(soft_share * budget, 6))
    if not isinstance(fields.get("models", []), list):
        fields["models"] = []
    return {"user_id": user_id, **fields, "teams": team_ids, "can_view_audit": can_view_audit}


_UNCHANGED_KEY_FIELDS = (
    "key_alias",
    "max_budget",
    "budget_duration",
    "tpm_limit",
    "rpm_limit",
    "user_id",
    "team_id",
    "blocked",
)
KEY_FIELDS = (
    *("key_name", "token", "created_at", "spend", "models", "expires"),
    *_UNCHANGED_KEY_FIELDS,
)

# Fields of a key's metadata, see Mark and Tool in keys.metadata; TEAM_KEY is True for the keys of
# teams/keys.py.
ROTATION = "backstage_rotation"
BRIDGE_KEY = "backstage_bridge_key"
TEAM_KEY = "backstage_team_key"


def key_row(row: Json) -> Json:
    """Return the part of a key's row that is cached; of the metadata only the two fields above."""
    marks = picked(as_object(row.get("metadata")), (ROTATION, BRIDGE_KEY))
    return {**picked(row, KEY_FIELDS), **({"metadata": marks} if marks else {})}


def virtual_key(row: Json) -> Json:
    """Return an entry of ``GET /keys``.

    ``key`` is the masked name, or the hash where the row has no name. ``created_at`` is always
    present: the frontend sorts by it and fails on null.
    """
    return {
        **present(key=first(row.get("key_name"), row.get("token"))),
        **picked(row, ("token",)),
        "created_at": first(row.get("created_at"), ""),
        "spend": first(row.get("spend"), 0),
        "models": row["models"] if isinstance(row.get("models"), list) else [],
        **present(expires_at=row.get("expires"), **picked(row, _UNCHANGED_KEY_FIELDS)),
    }


TEAM_FIELDS = (
    "team_alias",
    "max_budget",
    "budget_duration",
    "spend",
    "members_with_roles",
    "models",
    "tpm_limit",
    "rpm_limit",
    "metadata",
    "object_permission",
    "blocked",
    "team_member_budget",
)
TEAM_LISTS = frozenset({"members_with_roles", "models"})


def team(answer: Any, team_id: str = "") -> Json:
    """Return an entry of ``GET /teams``.

    Args:
        answer: LiteLLM's ``/team/info``, whose nulls become absent, or a bare team row,
            whose nulls stay.
        team_id: The id to return where the answer has none.
    """
    outer = as_object(answer)
    inner = as_object(outer.get("team_info"))
    fields = picked({**outer, **present(**inner)}, TEAM_FIELDS)
    for name in TEAM_LISTS:
        # The frontend fails on anything but a list or null.
        if not isinstance(fields.get(name), list | None):
            fields[name] = []
    named = first(outer.get("team_id"), inner.get("team_id"))
    return {
        "team_id": named if isinstance(named, str) else team_id,
        **fields,
        "spend": first(fields.get("spend"), 0),
    }


def without_budget(answer: Json) -> Json:
    """Return a team with a percentage and a status in place of all amounts of USD.

    Amounts of its members are left out too. A team without any amount is returned unchanged.
    """
    spend = amount(answer.get("spend"))
    given = {
        name: value
        for name, value in answer.items()
        if name != "spend" and not (value in (None, [], {}) and _tells_dollars(name))
    }
    shown = _without_dollars(given)
    if shown == given and not spend:
        return answer
    budget = answer.get("max_budget")
    if budget is None:
        ratio = 0.0
    else:
        # A budget of 0 counts as spent.
        ratio = min(max(spend / amount(budget), 0), 1) if amount(budget) > 0 else 1.0
    return {
        **shown,
        "spend": 0,
        # A whole number: from decimals and their own spend, members could compute the budget.
        "budget_pct": round(round(ratio, 2) * 100),
        "budget_status": "over" if ratio >= 1 else "near" if ratio >= 0.8 else "ok",
        "budget_hidden": True,
    }


def _without_dollars(value: Any) -> Any:
    """Return a part of LiteLLM's row without fields named budget or spend, at any depth."""
    if isinstance(value, list):
        return [_without_dollars(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _without_dollars(part) for name, part in value.items() if not _tells_dollars(name)
    }


def _tells_dollars(name: str) -> bool:
    # The time of a budget's renewal and its id are no secret.
    named = name.lower()
    return ("budget" in named or "spend" in named) and not named.endswith(
        ("duration", "reset_at", "_id")
    )


def amount(value: Any) -> float:
    """Return an amount, which LiteLLM may send as text; 0 for anything else."""
    if isinstance(value, bool):
        return 0.0
    try:
        amount = float(value)
    except (TypeError, ValueError):
        return 0.0
    return amount if math.isfinite(amount) else 0.0
