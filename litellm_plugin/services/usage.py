"""Usage figures: LiteLLM's daily rows added up the way the frontend reads them.

Pure: rows in, one report out. Spend in USD; days are UTC days, ``YYYY-MM-DD``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
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
    total = _zero("total_spend")
    by_model: dict[str, Json] = {}
    by_key: dict[str, Json] = {}
    days: dict[str, Json] = {}
    model_days: dict[tuple[str, str], Json] = {}
    for page in pages:
        _add_total(total, page)
        for date, row in _rows(page):
            _add(days.setdefault(date, {"date": date, **_zero("spend")}), row.get("metrics"))
            for model, entry in _models(row.get("breakdown")):
                metrics = entry.get("metrics")
                _add(by_model.setdefault(model, _zero("total_spend")), metrics)
                day = {"date": date, "model": model, **_zero("spend")}
                _add(model_days.setdefault((date, model), day), metrics)
                for token, use in _entries(entry.get("api_key_breakdown")):
                    _add_key(by_key, token, model, use)
    return {
        **total,
        "usage_by_model": by_model,
        "usage_by_key": by_key,
        "daily_usage": sorted(days.values(), key=lambda day: str(day["date"])),
        "daily_by_model": list(model_days.values()),
    }


def rows(pages: list[Any]) -> int:
    """Return how large pages of daily activity are, in models and keys of a day."""
    entries = (
        len(entry.get("api_key_breakdown") or ()) + 1
        for page in pages
        for _, row in _rows(page)
        for _, entry in _models(row.get("breakdown"))
    )
    return sum(entries)


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


def _add_key(by_key: dict[str, Json], token: str, model: str, use: Json) -> None:
    entry = by_key.setdefault(token, {"team_id": None, "models": [], **_zero("total_spend")})
    metadata = use.get("metadata")
    if isinstance(metadata, dict):
        # Older rows of a key may lack what newer ones have.
        for name in ("key_alias", "team_id"):
            if name in metadata and not entry.get(name):
                entry[name] = metadata[name]
    if model not in entry["models"]:
        entry["models"].append(model)
    _add(entry, use.get("metrics"))


def _rows(page: Any) -> list[tuple[str, Json]]:
    results = page.get("results") if isinstance(page, dict) else None
    rows = results if isinstance(results, list) else []
    return [
        (row["date"], row)
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


def _zero(spend: str) -> Json:
    return {spend: 0, **dict.fromkeys(COUNTS, 0)}


def _add_total(total: Json, page: Any) -> None:
    metadata = page.get("metadata") if isinstance(page, dict) else None
    if not isinstance(metadata, dict):
        return
    for name in total:
        total[name] += _number(metadata.get(name if name.startswith("total_") else f"total_{name}"))


def _add(sums: Json, metrics: Any) -> None:
    if not isinstance(metrics, dict):
        return
    spend = "spend" if "spend" in sums else "total_spend"
    sums[spend] += _number(metrics.get("spend"))
    for name in COUNTS:
        sums[name] += _number(metrics.get(name))


def _number(value: Any) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return value if usable and math.isfinite(value) else 0
