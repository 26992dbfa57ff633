"""Usage of a team by member.

LiteLLM adds a team's usage up by key, not by person; here a key's usage counts as its owner's.
Spend is in USD.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from litellm_plugin.shapes import Json, as_object
from litellm_plugin.usage import report as usage


def owners(pages: Iterable[Any]) -> dict[str, Json]:
    """Return the owners of keys that LiteLLM's daily activity names, also of deleted keys.

    Returns:
        By key hash: ``user_id``, and ``user_email`` if LiteLLM has it; none before LiteLLM 1.106.
    """
    found: dict[str, Json] = {}
    for token, use in _key_entries(pages):
        known = texts(as_object(use.get("metadata")), ("user_id", "user_email"))
        if "user_id" in known:
            found[token] = known
    return found


def by_member(
    team: Json,
    figures: Json,
    owner_of: Mapping[str, Json],
    keys: Sequence[Json],
) -> list[Json]:
    """Return the usage of each member, the highest spend first.

    Usage without a known owner is one row with ``user_id`` None. The rows add up to the report's
    totals, or to the report's keys if these are more.

    Args:
        team: LiteLLM's row of the team; members without usage get a row too.
        figures: The team's usage report.
        owner_of: Owners by key hash, as :func:`owners` returns them.
        keys: LiteLLM's rows of the team's present keys, for ``key_count``.
    """
    rows: defaultdict[str | None, Json] = defaultdict(dict)
    parts: defaultdict[str | None, list[Json]] = defaultdict(list)
    for member in _members(team):
        rows[member["user_id"]].update(texts(member, ("user_email", "role")))
    for token, used in figures["usage_by_key"].items():
        owner = owner_of.get(token, {})
        user_id = owner.get("user_id")
        parts[user_id].append(used)
        if owner.get("user_email"):
            rows[user_id].setdefault("user_email", owner["user_email"])
    rest = _rest(figures)
    if rest is not None:
        parts[None].append(rest)
    count: defaultdict[str | None, int] = defaultdict(int)
    for key in keys:
        count[texts(key, ("user_id",)).get("user_id")] += 1
    listed = []
    for user_id in {**rows, **parts, **count}:
        about = rows[user_id]
        if "user_email" not in about and user_id is not None and "@" in user_id:
            about["user_email"] = user_id
        listed.append(
            {"user_id": user_id, **about, **_sums(parts[user_id])} | {"key_count": count[user_id]}
        )
    total = math.fsum(row["spend"] for row in listed)
    for row in listed:
        row["spend_share_pct"] = round(100 * row["spend"] / total, 2) if total > 0 else 0
    return sorted(listed, key=_order)


def texts(row: Json, names: Iterable[str]) -> dict[str, str]:
    """Return those fields of LiteLLM's row that are texts and not empty."""
    found = {name: row.get(name) for name in names}
    return {name: text for name, text in found.items() if isinstance(text, str) and text}


def without_spend(rows: Iterable[Json]) -> list[Json]:
    """Return rows with a spend of 0 and a share in whole percents.

    From a share with decimals and their own spend, members could compute the team's spend.
    """
    return [{**row, "spend": 0, "spend_share_pct": round(row["spend_share_pct"])} for row in rows]


def role_of(team: Json, user_id: str) -> str:
    """Return LiteLLM's role of a member in a team; "" without a role."""
    roles = (each.get("role") for each in _members(team) if each["user_id"] == user_id)
    return next((role for role in roles if isinstance(role, str)), "")


def _members(team: Json) -> list[Json]:
    listed = team.get("members_with_roles")
    return [
        each
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict) and isinstance(each.get("user_id"), str) and each["user_id"]
    ]


def _key_entries(pages: Iterable[Any]) -> Iterator[tuple[str, Json]]:
    for _, row in usage.days_of(pages):
        breakdown = as_object(row.get("breakdown"))
        yield from usage.entries(breakdown.get("api_keys"))
        for name in ("model_groups", "models"):
            for _, entry in usage.entries(breakdown.get(name)):
                yield from usage.entries(entry.get("api_key_breakdown"))


def _rest(figures: Json) -> Json | None:
    """Return the report's totals minus those of its keys; None if nothing is left."""
    keys = list(figures["usage_by_key"].values())
    rest = {name: figures[name] - sum(key[name] for key in keys) for name in usage.COUNTS}
    spend = figures["total_spend"] - math.fsum(key["total_spend"] for key in keys)
    rest = {name: max(number, 0) for name, number in rest.items()}
    spend = spend if spend > usage.NOISE else 0.0
    return {"total_spend": spend, **rest} if spend or any(rest.values()) else None


def _sums(parts: Sequence[Json]) -> Json:
    counts = {name: sum(part[name] for part in parts) for name in usage.COUNTS}
    answered = counts["successful_requests"] + counts["failed_requests"]
    rate = round(100 * counts["successful_requests"] / answered, 2) if answered else None
    spend = math.fsum(part["total_spend"] for part in parts)
    return {"spend": spend, "spend_share_pct": 0, **counts, "success_rate": rate}


def _order(row: Json) -> tuple[Any, ...]:
    user_id = row["user_id"]
    return (-row["spend"], -row["total_tokens"], user_id is None, user_id or "")
