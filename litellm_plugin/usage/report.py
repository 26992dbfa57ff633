"""Usage reports: LiteLLM's daily rows, added up as the frontend reads them.

Pure: rows in, one report out. Spend is in USD; days are UTC days, ``YYYY-MM-DD``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain, groupby
from operator import add, itemgetter
from typing import Any, TypeVar

from litellm_plugin.shapes import Json, as_object, picked, present

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
ABOUT_KEY = ("key_alias", "team_id")

T = TypeVar("T", bound=tuple[Any, ...])

_metrics = itemgetter(*METRICS)
_COMPARED = tuple(map(METRICS.index, ("spend", "total_tokens", "api_requests")))
_PLAIN = frozenset({int, float})  # not bool, although it is a subclass of int
NOISE = 1e-9  # smaller differences, in USD, come from adding up in another order


def report(pages: Iterable[Any]) -> Json:
    """Add up daily activity.

    Args:
        pages: LiteLLM's ``{results: [{date, metrics, breakdown}], metadata}``; ``metadata``
            has the totals of the page.

    Returns:
        ``total_spend`` and counts; ``usage_by_model`` and ``usage_by_key``, by name and by
        key hash; ``daily_usage``, oldest day first; ``daily_by_model``, in LiteLLM's order.
        Models have the names of ``GET /models`` where LiteLLM has these for the whole day.
        The figures by model and by key add up to the days, as far as LiteLLM attributes them.
        A row on two pages counts once.
    """
    pages = _once(list(pages))
    return _report(days_of(pages), _totals(pages))


def parts(pages: Sequence[Any], day: str) -> tuple[Json, Json] | None:
    """Add up daily activity from ``day`` on, and before ``day``, for :func:`merged`.

    Returns:
        The newer and the older report. None where the joined report would differ from
        :func:`report`: days are not in order, newest first, or do not add up to the totals.
    """
    pages = _once(pages)
    rows = days_of(pages)
    split = next((at for at, (date, _) in enumerate(rows) if date < day), len(rows))
    newer, older = rows[:split], rows[split:]
    totals = [_added_up([row.get("metrics") for _, row in part]) for part in (newer, older)]
    if not _all_same(_columns(totals), _totals(pages)) or any(date >= day for date, _ in older):
        return None
    return _report(newer, totals[0]), _report(older, totals[1])


def by_day(pages: Sequence[Any]) -> dict[str, Json] | None:
    """Add up daily activity in a report of each day, the newest first, for :func:`joined`.

    Returns:
        Reports by date. None where the joined reports would differ from :func:`report`, as for
        :func:`parts`.
    """
    pages = _once(pages)
    grouped = [(date, list(rows)) for date, rows in groupby(days_of(pages), itemgetter(0))]
    dates = [date for date, _ in grouped]
    totals = [_added_up([row.get("metrics") for _, row in rows]) for _, rows in grouped]
    if dates != sorted(set(dates), reverse=True) or not _all_same(_columns(totals), _totals(pages)):
        return None
    return {date: _report(rows, total) for (date, rows), total in zip(grouped, totals, strict=True)}


def joined(reports: Iterable[Json]) -> Json:
    """Join reports of periods without a common day; the newest report comes first."""
    return reduce(merged, reports, report([]))


def merged(newer: Json, older: Json) -> Json:
    """Return the report of two periods without a common day."""
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
    """Return the number of entries of a report, which is its weight in the cache."""
    return sum(len(part) for part in usage.values() if isinstance(part, dict | list))


def adds_up_to(report: Json, uses: Iterable[Json]) -> bool:
    """Tell whether a report's totals are the sums of LiteLLM's entries, ``{metrics}``, of keys."""
    sums = _added_up([use.get("metrics") for use in uses])
    return _all_same([report[name] for name in TOTALS], sums)


def renamed(report: Json, keys: Mapping[str, Any]) -> Json:
    """Return a report in which keys have the name and team of ``keys``.

    ``keys`` has LiteLLM's ``metadata`` by key hash.
    """
    by_key = {}
    for token, use in report["usage_by_key"].items():
        figures = {name: value for name, value in use.items() if name != "key_alias"}
        about = picked(as_object(keys.get(token)), ABOUT_KEY)
        by_key[token] = {**figures, "team_id": None, **about}
    return {**report, "usage_by_key": by_key}


def without_spend(usage: Json) -> Json:
    """Return a report in which all spend is 0."""

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
    # Metrics are collected in lists first, because adding up whole columns is fastest.
    days: defaultdict[str, list[Any]] = defaultdict(list)
    models: defaultdict[str, list[Any]] = defaultdict(list)
    model_days: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    keys: defaultdict[str, list[tuple[str | None, Any]]] = defaultdict(list)
    for date, row in rows:
        used_models, own = _models(row), row.get("metrics")
        # A day without metrics of its own is the sum of its models.
        days[date] += [own] if own else [entry.get("metrics") for _, entry in used_models]
        for model, entry in used_models:
            metrics = entry.get("metrics")
            models[model].append(metrics)
            model_days[date, model].append(metrics)
        for token, used, use in _key_uses(row, used_models):
            keys[token].append((used, use))
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


def _key(uses: Sequence[tuple[str | None, Any]]) -> Json:
    """Return an entry of ``usage_by_key``, from model and LiteLLM's entry of each use."""
    entries = [use for _, use in uses if isinstance(use, dict)]
    key = {
        "team_id": None,
        "models": list(dict.fromkeys(model for model, _ in uses if model is not None)),
        **_named(TOTALS, _added_up([entry.get("metrics") for entry in entries])),
    }
    described = [data for entry in entries if isinstance(data := entry.get("metadata"), dict)]
    for name in ABOUT_KEY:
        # Older rows of a key may lack its name or team.
        values = [data[name] for data in described if name in data]
        if values:
            key[name] = next(filter(None, values), values[-1])
    return key


def _merged_key(newer: Json, older: Json) -> Json:
    more = [model for model in older["models"] if model not in newer["models"]]
    about = {**newer, "models": newer["models"] + more}
    for name in ABOUT_KEY:
        if name in older and not about.get(name):
            about[name] = older[name]
    return {**about, **_merged_totals(newer, older)}


def _merged_totals(newer: Json, older: Json) -> Json:
    return {name: newer[name] + older[name] for name in TOTALS}


def days_of(pages: Iterable[Any]) -> list[tuple[str, Json]]:
    """Return the rows of all pages, each with its date; malformed rows are dropped."""
    results = (page.get("results") for page in pages if isinstance(page, dict))
    return [
        (row["date"], row)
        for rows in results
        if isinstance(rows, list)
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("date"), str)
    ]


def _models(row: Json) -> Sequence[tuple[str, Json]]:
    """Return the models of one day, with LiteLLM's entry of each.

    Models have their public names (``model_groups``), except where ``models`` has more of the
    day's usage: LiteLLM's aggregated answer leaves out models without a group.
    """
    breakdown = as_object(row.get("breakdown"))
    names = ("model_groups", "models")
    return _fullest(row, (entries(breakdown.get(name)) for name in names))


def _key_uses(
    row: Json, models: Sequence[tuple[str, Json]]
) -> Sequence[tuple[str, str | None, Any]]:
    """Return the uses of each key on one day: key hash, model, LiteLLM's entry with its metrics.

    Where ``models`` does not have all uses of the keys (a call to an MCP server has no model),
    uses come from elsewhere in the day: entries without a model, and models without entry.
    """
    breakdown = as_object(row.get("breakdown"))
    named = _uses(models)

    def sources() -> Iterator[Sequence[tuple[str, str | None, Json]]]:
        yield named
        yield [(token, None, use) for token, use in entries(breakdown.get("api_keys"))]
        for name in ("models", "model_groups"):
            yield _uses(entries(breakdown.get(name)))

    source = _fullest(row, sources())
    if source is named:
        return named
    tokens = {token for token, _, _ in source}
    return [(token, None, use) for token, _, use in source] + [
        (token, model, None) for token, model, _ in named if token in tokens
    ]


def _uses(models: Iterable[tuple[str, Json]]) -> Sequence[tuple[str, str | None, Json]]:
    return [
        (token, model, use)
        for model, entry in models
        for token, use in entries(entry.get("api_key_breakdown"))
    ]


def _fullest(row: Json, sources: Iterable[Sequence[T]]) -> Sequence[T]:
    """Return the source that adds up to the day, or else the one with most of the day's usage.

    Each item of a source ends with one of LiteLLM's entries. Of equal sources the first wins.
    """
    day = _added_up([row.get("metrics")])
    fullest: Sequence[T] = ()
    most: Sequence[float] = ()
    for source in sources:
        if not source:
            continue
        sums = _added_up([entry[-1].get("metrics") for entry in source])
        if any(day) and _all_same(sums, day):
            return source
        if not fullest or any(_less(most[at], sums[at]) for at in _COMPARED):
            fullest, most = source, sums
    return fullest


def _all_same(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(map(_same, one, other))


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, abs_tol=NOISE)


def _less(one: float, other: float) -> bool:
    return one < other and not _same(one, other)


def _once(pages: Sequence[Any]) -> Sequence[Any]:
    """Return pages without the rows that an earlier page already has.

    LiteLLM pages through database rows: one for each day, key, model, provider and endpoint,
    newest day first. A row may be on two pages: LiteLLM 1.81 does not order the rows of a day,
    and a row written between two reads moves other rows to the next page. A page shows only
    sums by day, model and key. If two pages have the same metrics for the same day, model and
    key, these are taken for one row; with other metrics, for rows of two providers or
    endpoints, which both count.
    """
    if len(pages) < 2:
        return pages
    seen: set[Any] = set()
    return [_unseen(page, seen) for page in pages if isinstance(page, dict)]


def _unseen(page: Json, seen: set[Any]) -> Json:
    """Return a page without the rows in ``seen``, and add its other rows to ``seen``."""
    found: set[Any] = set()
    results = []
    repeated = False
    for date, row in days_of([page]):
        breakdown = as_object(row.get("breakdown"))
        groups, _ = _new(breakdown.get("model_groups"), seen, found, date, "model_groups")
        models, gone = _new(breakdown.get("models") or {"": row}, seen, found, date, "models")
        if not gone:
            results.append(row)
            continue
        repeated = True
        metrics = _rest(row, gone)
        if groups or models or not all(_same(number, 0) for number in metrics.values()):
            # "api_keys" has sums of several rows, from which one row can't be taken out.
            rest = {**breakdown, "model_groups": groups, "models": models, "api_keys": {}}
            results.append({"date": date, "metrics": metrics, "breakdown": rest})
    seen |= found
    # LiteLLM's totals count all rows of the page, so they are left out of a changed page.
    return {"results": results} if repeated else page


def _new(models: Any, seen: set[Any], found: set[Any], *where: str) -> tuple[Json, list[Any]]:
    """Return models without the uses in ``seen``, and the metrics of the removed uses."""
    kept: Json = {}
    gone: list[Any] = []
    for name, entry in entries(models):
        uses = dict(entries(entry.get("api_key_breakdown"))) or {"": entry}
        marks = {
            token: (*where, name, token, *_added_up([use.get("metrics")]))
            for token, use in uses.items()
        }
        found.update(marks.values())
        again = [uses[token].get("metrics") for token, mark in marks.items() if mark in seen]
        if len(again) == len(uses):
            gone.append(entry.get("metrics"))
            continue
        gone += again
        new = {token: uses[token] for token, mark in marks.items() if mark not in seen}
        changed = {"metrics": _rest(entry, again), "api_key_breakdown": new}
        kept[name] = {**entry, **changed} if again else entry
    return kept, gone


def _rest(entry: Json, gone: Sequence[Any]) -> Json:
    """Return an entry's metrics minus those of its parts ``gone``."""
    whole, part = _added_up([entry.get("metrics")]), _added_up(gone)
    return _named(METRICS, [number - less for number, less in zip(whole, part, strict=True)])


def entries(value: Any) -> list[tuple[str, Json]]:
    """Return LiteLLM's entries by name; an entry that is no object becomes an empty one."""
    return [(name, as_object(entry)) for name, entry in as_object(value).items()]


def own_totals(metadata: Json) -> Json:
    """Return LiteLLM's totals in the ``metadata`` of a page, by the names of :data:`METRICS`."""
    return {name: metadata.get(f"total_{name.removeprefix('total_')}") for name in METRICS}


def _totals(pages: Iterable[Any]) -> Sequence[float]:
    """Return totals in the order of :data:`TOTALS`: LiteLLM's own, or else the sums of the days."""
    sums = []
    for page in pages:
        metadata = as_object(page.get("metadata")) if isinstance(page, dict) else {}
        days = _named(METRICS, _added_up([row.get("metrics") for _, row in days_of([page])]))
        sums.append({**days, **present(**own_totals(metadata))})
    return _added_up(sums)


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
    # Some values are no finite numbers; they count as 0.
    rows = (row if isinstance(row, dict) else {} for row in metrics)
    return _columns([[_number(row.get(name)) for name in METRICS] for row in rows])


def _columns(table: Sequence[Sequence[float]]) -> Sequence[float]:
    # sum() of Python 3.12 rounds differently from the original plugin.
    return [reduce(add, column, 0) for column in zip(*table, strict=True)] or [0] * len(METRICS)


def _named(names: Sequence[str], values: Sequence[float]) -> Json:
    return dict(zip(names, values, strict=True))


def _number(value: Any) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return value if usable and math.isfinite(value) else 0
