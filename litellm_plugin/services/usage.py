"""Usage figures: LiteLLM's daily rows added up the way the frontend reads them.

Pure: rows in, one report out. Spend in USD; days are UTC days, ``YYYY-MM-DD``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import chain
from operator import add, itemgetter
from typing import Any

from litellm_plugin.services.shapes import Json

COUNTS = (
    "total_tokens",
    "prompt_tokens",
    "completion_tokens",
    "api_requests",
    "successful_requests",
    "failed_requests",
)
METRICS = ("spend", *COUNTS)
TOTALS = ("total_spend", *COUNTS)

_metrics = itemgetter(*METRICS)
_PLAIN = frozenset({int, float})  # types of numbers; bool, which is an int, is none of them


def report(pages: Iterable[Any]) -> Json:
    """Add up daily activity.

    Args:
        pages: LiteLLM's ``{results: [{date, metrics, breakdown}], metadata}``, each
            summed up in its own ``metadata``.

    Returns:
        ``total_spend`` and counts; ``usage_by_model`` and ``usage_by_key`` (by name and by
        key hash); ``daily_usage``, oldest day first; ``daily_by_model``, in LiteLLM's order.
        Models have the names that ``GET /models`` has, where LiteLLM tells them.
    """
    pages = list(pages)
    return _report(_rows(pages), _totals(pages))


def parts(pages: Sequence[Any], day: str) -> tuple[Json, Json] | None:
    """Add up daily activity in two reports, of which :func:`merged` makes one.

    Args:
        pages: As for :func:`report`.
        day: The first day of the newer part.

    Returns:
        The newer and the older part. None where they would not make the same report: the days
        are not in LiteLLM's order, newest first, or are not what the totals are of.
    """
    rows = _rows(pages)
    split = next((at for at, (date, _) in enumerate(rows) if date < day), len(rows))
    newer, older = rows[:split], rows[split:]
    totals = [_added_up([row.get("metrics") for _, row in part]) for part in (newer, older)]
    same = all(
        math.isclose(new + old, told, abs_tol=1e-9)
        for new, old, told in zip(*totals, _totals(pages), strict=True)
    )
    if not same or any(date >= day for date, _ in older):
        return None
    return _report(newer, totals[0]), _report(older, totals[1])


def merged(newer: Json, older: Json) -> Json:
    """Return the report of two periods that have no day in common."""
    by_key = dict(newer["usage_by_key"])
    for token, use in older["usage_by_key"].items():
        by_key[token] = _merged_key(by_key[token], use) if token in by_key else use
    by_model = dict(newer["usage_by_model"])
    for model, use in older["usage_by_model"].items():
        by_model[model] = _merged_totals(by_model[model], use) if model in by_model else use
    return {
        **_merged_totals(newer, older),
        "usage_by_model": by_model,
        "usage_by_key": by_key,
        "daily_usage": older["daily_usage"] + newer["daily_usage"],
        "daily_by_model": newer["daily_by_model"] + older["daily_by_model"],
    }


def rows(usage: Json) -> int:
    """Return how large a report is."""
    return sum(len(part) for part in usage.values() if isinstance(part, dict | list))


def without_spend(usage: Json) -> Json:
    """Return a report whose dollars are all 0; tokens and counts stay."""

    def blank(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: 0
                if name in {"spend", "total_spend"} and not isinstance(part, dict)
                else blank(part)
                for name, part in value.items()
            }
        return [blank(part) for part in value] if isinstance(value, list) else value

    blanked: Json = blank(usage)
    return blanked


def _report(rows: Iterable[tuple[str, Json]], totals: Sequence[float]) -> Json:
    # Metrics are sorted into lists first: what takes least time is adding up whole columns.
    days: defaultdict[str, list[Any]] = defaultdict(list)
    models: defaultdict[str, list[Any]] = defaultdict(list)
    model_days: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    keys: defaultdict[str, list[tuple[str, Any]]] = defaultdict(list)
    for date, row in rows:
        days[date].append(row.get("metrics"))
        for model, entry in _models(row.get("breakdown")):
            metrics = entry.get("metrics")
            models[model].append(metrics)
            model_days[date, model].append(metrics)
            used_by = entry.get("api_key_breakdown")
            if isinstance(used_by, dict):
                for token, use in used_by.items():
                    keys[token].append((model, use))
    return {
        **_named(TOTALS, totals),
        "usage_by_model": {
            model: _named(TOTALS, _added_up(metrics)) for model, metrics in models.items()
        },
        "usage_by_key": {token: _key(uses) for token, uses in keys.items()},
        "daily_usage": [
            {"date": date, **_named(METRICS, _added_up(days[date]))} for date in sorted(days)
        ],
        "daily_by_model": [
            {"date": date, "model": model, **_named(METRICS, _added_up(metrics))}
            for (date, model), metrics in model_days.items()
        ],
    }


def _key(uses: Sequence[tuple[str, Any]]) -> Json:
    """Return an entry of ``usage_by_key``.

    Args:
        uses: Names of models, each with what LiteLLM tells of the key's use of it.
    """
    entries = [use for _, use in uses if isinstance(use, dict)]
    key = {
        "team_id": None,
        "models": list(dict.fromkeys(model for model, _ in uses)),
        **_named(TOTALS, _added_up([entry.get("metrics") for entry in entries])),
    }
    described = [data for entry in entries if isinstance(data := entry.get("metadata"), dict)]
    for name in ("key_alias", "team_id"):
        # Older rows of a key may lack what newer ones have.
        told = [data[name] for data in described if name in data]
        if told:
            key[name] = next(filter(None, told), told[-1])
    return key


def _merged_key(newer: Json, older: Json) -> Json:
    more = [model for model in older["models"] if model not in newer["models"]]
    about = {**newer, "models": newer["models"] + more}
    for name in ("key_alias", "team_id"):
        if name in older and not about.get(name):
            about[name] = older[name]
    return {**about, **_merged_totals(newer, older)}


def _merged_totals(newer: Json, older: Json) -> Json:
    return {name: newer[name] + older[name] for name in TOTALS}


def _rows(pages: Iterable[Any]) -> list[tuple[str, Json]]:
    """Return the days of all pages, with what LiteLLM tells of each."""
    results = (page.get("results") for page in pages if isinstance(page, dict))
    return [
        (row["date"], row)
        for rows in results
        if isinstance(rows, list)
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("date"), str)
    ]


def _models(breakdown: Any) -> list[tuple[str, Json]]:
    """Return the models of one day, by public name where LiteLLM gives it."""
    if not isinstance(breakdown, dict):
        return []
    return _entries(breakdown.get("model_groups")) or _entries(breakdown.get("models"))


def _entries(value: Any) -> list[tuple[str, Json]]:
    entries = value.items() if isinstance(value, dict) else ()
    return [(name, entry if isinstance(entry, dict) else {}) for name, entry in entries]


def _totals(pages: Iterable[Any]) -> Sequence[float]:
    """Return the sums that LiteLLM tells of its pages, in the order of :data:`TOTALS`."""
    told = [page.get("metadata") for page in pages if isinstance(page, dict)]
    return _added_up(
        [
            {name: metadata.get(f"total_{name.removeprefix('total_')}") for name in METRICS}
            for metadata in told
            if isinstance(metadata, dict)
        ]
    )


def _added_up(metrics: Sequence[Any]) -> Sequence[float]:
    """Return the sums of rows of metrics, in the order of :data:`METRICS`."""
    try:
        table = list(map(_metrics, metrics))
        plain = bool(table) and _PLAIN.issuperset(map(type, chain.from_iterable(table)))
    except (KeyError, TypeError):
        plain = False
    if plain:
        sums = table[0] if len(table) == 1 else _columns(table)
        if math.isfinite(sum(sums)):
            return sums
    # With something among them that counts as nothing.
    rows = (row if isinstance(row, dict) else {} for row in metrics)
    return _columns([[_number(row.get(name)) for name in METRICS] for row in rows])


def _columns(table: Sequence[Sequence[float]]) -> Sequence[float]:
    # sum() of Python 3.12 rounds otherwise than the original does.
    return [reduce(add, column, 0) for column in zip(*table, strict=True)] or [0] * len(METRICS)


def _named(names: Sequence[str], values: Sequence[float]) -> Json:
    return dict(zip(names, values, strict=True))


def _number(value: Any) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return value if usable and math.isfinite(value) else 0
