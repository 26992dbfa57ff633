"""Daily usage, added up as by LiteLLM's ``daily/activity`` endpoints.

Fields of LiteLLM's answer that the service does not read are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

Json = dict[str, Any]
Named = Callable[["UsageRow"], str]
Described = Callable[[str], Json]

_COUNTED = ("prompt_tokens", "completion_tokens", "successful_requests", "failed_requests")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The usage of one key and one model on one day; a row of LiteLLM's table.

    Attributes:
        day: In UTC.
        token: The key's hash.
        model: The public name.
        deployment: The provider's name, such as ``openai/gpt-4o``.
        spend: USD.
    """

    day: date
    token: str
    user_id: str | None
    team_id: str | None
    model: str
    deployment: str
    spend: float
    prompt_tokens: int
    completion_tokens: int
    successful_requests: int
    failed_requests: int = 0


def page_of(
    rows: Sequence[UsageRow],
    *,
    page: int,
    page_size: int | None,
    key_limit: int = 100,
    entity: Named,
    about_entity: Described,
    about_key: Described,
) -> Json:
    """Return one page of daily activity.

    As in LiteLLM, a page is a number of rows: a day may be split, and the totals are those of the
    page.

    Args:
        rows: All rows of the query.
        page: From 1.
        page_size: Rows per page; None for the aggregated answer.
        key_limit: The limit of keys that the aggregated answer reports; it has all keys.
        entity: Returns the user or the team of a row.
        about_entity: Returns the metadata of such an entity.
        about_key: Returns the metadata of a key, by hash.
    """
    newest_first = sorted(rows, key=lambda row: (-row.day.toordinal(), row.token, row.model))
    pages = -(-len(rows) // page_size) if page_size else 1
    shown = newest_first[(page - 1) * page_size :][:page_size] if page_size else newest_first
    totals = {f"total_{name.removeprefix('total_')}": n for name, n in _metrics(shown).items()}
    return {
        "results": [
            {
                "date": day,
                "metrics": _metrics(own),
                "breakdown": _breakdown(own, entity, about_entity, about_key),
            }
            for day, own in _groups(shown, lambda row: row.day.isoformat())
        ],
        "metadata": {
            **totals,
            "total_pages": pages,
            "api_key_limit": None if page_size else key_limit,
            "total_api_keys": None if page_size else len({row.token for row in rows}),
        },
    }


def keys_of(rows: Sequence[UsageRow], *, offset: int, limit: int, about_key: Described) -> Json:
    """Return the usage of each key, by falling spend: a page of ``aggregated/keys``."""
    used = [(token, _metrics(own)) for token, own in _groups(rows, lambda row: row.token)]
    used.sort(key=lambda use: (-use[1]["spend"], use[0]))
    return {
        "api_keys": [
            {"api_key": token, "metrics": metrics, "metadata": about_key(token)}
            for token, metrics in used[offset:][:limit]
        ],
        "total_api_keys": len(used),
    }


def _breakdown(
    rows: Sequence[UsageRow], entity: Named, about_entity: Described, about_key: Described
) -> Json:
    def nothing(_name: str) -> Json:
        return {}

    def by_key(own: Iterable[UsageRow]) -> Json:
        return {
            token: {"metrics": _metrics(keys_own), "metadata": about_key(token)}
            for token, keys_own in _groups(own, lambda row: row.token)
        }

    def by(named: Named, about: Described = nothing) -> Json:
        return {
            name: {
                "metrics": _metrics(own),
                "metadata": about(name),
                "api_key_breakdown": by_key(own),
            }
            for name, own in _groups(rows, named)
        }

    return {
        "models": by(lambda row: row.deployment),
        "model_groups": by(lambda row: row.model),
        "api_keys": by_key(rows),
        "entities": by(entity, about_entity),
    }


def _groups(rows: Iterable[UsageRow], named: Named) -> list[tuple[str, list[UsageRow]]]:
    groups: dict[str, list[UsageRow]] = {}
    for row in rows:
        groups.setdefault(named(row), []).append(row)
    return list(groups.items())


def _metrics(rows: Sequence[UsageRow]) -> dict[str, float]:
    counts = {name: sum(getattr(row, name) for row in rows) for name in _COUNTED}
    return {
        **counts,
        "spend": sum((row.spend for row in rows), 0.0),
        "total_tokens": counts["prompt_tokens"] + counts["completion_tokens"],
        "api_requests": counts["successful_requests"] + counts["failed_requests"],
    }
