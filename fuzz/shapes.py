"""What LiteLLM may answer, made into what the routes answer: whole, in shape, and nothing more.

An input is a day and, on the lines below it, a JSON text of LiteLLM's: a row, a list of rows, or a
page of usage.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson

from litellm_plugin import models, shapes
from litellm_plugin.shapes import Json
from litellm_plugin.teams import objects
from litellm_plugin.usage import report as usage

CASES = Path(__file__).parent.parent / "tests" / "contract" / "cases"

USAGE_FIELDS = {*usage.TOTALS, "usage_by_model", "usage_by_key", "daily_usage", "daily_by_model"}


def one_input(data: bytes) -> None:
    """Try one input.

    Raises:
        AssertionError: An answer lacks what is always there, or has what must not be.
    """
    day, _, text = data.decode("utf-8", "surrogateescape").partition("\n")
    try:
        told = orjson.loads(text)  # as clients/http.py reads it
    except orjson.JSONDecodeError:
        return
    rows = [row for row in (told if isinstance(told, list) else [told]) if isinstance(row, dict)]
    for row in rows:
        _unchanged(row, _row)
    _unchanged(rows, lambda rows: _usage(rows, day))
    if isinstance(told, list):
        _unchanged(told, lambda pages: _usage(pages, day))


def _unchanged(told: Any, judge: Callable[[Any], None]) -> None:
    before = deepcopy(told)
    judge(told)
    assert _same(told, before), "what LiteLLM said has been changed: it may be remembered"


def _same(one: Any, other: Any) -> bool:
    return _text(one) == _text(other)


def _text(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _sent(value: Any) -> Any:
    """Return what arrives of an answer."""
    text = orjson.dumps(value)  # as routes/responses.py writes it
    assert b"NaN" not in text or b'"' in text
    return orjson.loads(text)


# -- rows ----------------------------------------------------------------------


def _row(row: Json) -> None:
    _user(row)
    _key(row)
    _team(row)
    for named in (models.model, models.named_model):
        model = named(row)
        if model is not None:
            sent = _sent(model)
            assert isinstance(sent["model_name"], str)
            assert sent["model_name"]
            assert sent["mode"] is not None
            assert None not in sent.values()
    for offered in (objects.vector_store, objects.mcp_server):
        item = offered(row)
        if item is not None:
            assert isinstance(_sent(item.shown)["id"], str)
            assert None not in item.shown.values()


def _user(row: Json) -> None:
    for info in (row, row.get("user_info"), shapes.picked(row, shapes.USER_FIELDS)):
        if not isinstance(info, dict):
            continue
        user = _sent(shapes.user_info("jane@example.com", info, ["t1"], can_view_audit=False))
        assert user["user_id"] == "jane@example.com", "LiteLLM names another user"
        assert user["can_view_audit"] is False
        assert user["teams"] == ["t1"]
        assert isinstance(user.get("models", []), list)
        assert None not in user.values(), "null and absent differ to the frontend"
    # What is kept of a row is all that is answered of it.
    kept = shapes.picked(row, shapes.USER_FIELDS)
    assert _same(
        shapes.user_info("j", row, [], can_view_audit=True),
        shapes.user_info("j", kept, [], can_view_audit=True),
    )


def _key(row: Json) -> None:
    key = _sent(shapes.virtual_key(row))
    assert key["created_at"] is not None, "the frontend breaks on it"
    assert key["spend"] is not None
    assert isinstance(key["models"], list)
    assert not {"metadata", "user_info", "api_key", "secret"} & key.keys()
    assert None not in {name: key[name] for name in key if name != "token"}.values()
    kept = shapes.picked(row, shapes.KEY_FIELDS)
    assert _same(shapes.virtual_key(kept), shapes.virtual_key(row))


def _team(row: Json) -> None:
    team = shapes.team(row, "t1")
    sent = _sent(team)
    assert isinstance(sent["team_id"], str)
    assert sent["spend"] is not None
    for name in shapes.TEAM_LISTS:
        assert sent.get(name) is None or isinstance(sent[name], list)
    assert sent.keys() <= {"team_id", "spend", *shapes.TEAM_FIELDS}
    assert _same(shapes.team(team), team), "a team's team is another"
    hidden = shapes.without_budget(team)
    if hidden.get("budget_hidden"):
        assert _sent(hidden)["spend"] == 0
        dollars = {"max_budget", "soft_budget", "team_member_budget"}
        assert not dollars & hidden.keys(), "dollars are seen"
        assert 0 <= hidden["budget_pct"] <= 100
        assert hidden["budget_status"] in {"ok", "near", "over"}
    else:
        assert team.get("max_budget") in (None, [], {}), "a budget is seen"


# -- usage ---------------------------------------------------------------------


def _usage(pages: list[Any], day: str) -> None:
    report = usage.report(pages)
    assert report.keys() == USAGE_FIELDS
    _sent(report)
    _finite({name: report[name] for name in usage.TOTALS})
    for parts in (report["usage_by_model"], report["usage_by_key"]):
        for use in parts.values():
            assert use.keys() >= set(usage.TOTALS)
            _finite({name: use[name] for name in usage.TOTALS})
    for use in report["usage_by_key"].values():
        assert use.keys() >= {"models", "team_id"}
    for rows in (report["daily_usage"], report["daily_by_model"]):
        for row in rows:
            assert row.keys() >= {"date", *usage.METRICS}
            _finite({name: row[name] for name in usage.METRICS})
    days = [row["date"] for row in report["daily_usage"]]
    assert days == sorted(set(days)), "a day is told twice, or not in its place"
    assert usage.rows(report) >= 0
    _without_spend(report)
    parts = usage.parts(pages, day)
    if parts is not None:
        _about_the_same(usage.merged(*parts), report)


def _without_spend(report: Json) -> None:
    blanked = usage.without_spend(report)
    assert blanked["total_spend"] == 0
    assert all(row["spend"] == 0 for row in blanked["daily_usage"] + blanked["daily_by_model"])
    for name in ("usage_by_model", "usage_by_key"):
        assert all(use["total_spend"] == 0 for use in blanked[name].values()), "dollars are seen"
        assert blanked[name].keys() == report[name].keys()
    assert _same(usage.without_spend(blanked), blanked)
    counts = {name: report[name] for name in usage.COUNTS}
    assert counts == {name: blanked[name] for name in usage.COUNTS}


def _finite(numbers: Json) -> None:
    for name, value in numbers.items():
        assert isinstance(value, int | float), name
        assert not isinstance(value, bool), name
        assert math.isfinite(value), f"{name} is no number that JSON has"


def _about_the_same(merged: Any, whole: Any, place: str = "") -> None:
    """Two halves of a period are the whole, but for how floating-point sums round."""
    if isinstance(whole, dict):
        assert merged.keys() == whole.keys(), place
        for name, value in whole.items():
            _about_the_same(merged[name], value, f"{place}.{name}")
    elif isinstance(whole, list):
        assert len(merged) == len(whole), place
        for one, other in zip(merged, whole, strict=True):
            _about_the_same(one, other, f"{place}[]")
    elif isinstance(whole, int | float) and not isinstance(whole, bool):
        scale = max(abs(whole), abs(merged))
        assert abs(merged - whole) <= 1e-6 * max(scale, 1.0), place
    else:
        assert merged == whole, place


# -- where to begin ------------------------------------------------------------


def seeds() -> Iterator[bytes]:
    """Yield LiteLLM's answers in the recorded conversations, and the rows in them."""
    for file in sorted(CASES.glob("*.json")):
        for case in json.loads(file.read_text("utf-8")):
            for rule in case["litellm"]:
                answer = rule.get("json")
                yield from map(_seed, (answer, *_rows(answer)))


def _rows(answer: Any) -> Iterator[Any]:
    for value in answer.values() if isinstance(answer, dict) else ():
        if isinstance(value, list | dict) and value:
            yield value


def _seed(value: Any) -> bytes:
    return b"2026-11-10\n" + json.dumps(value).encode()


WORDS = (
    *('"token":', '"key_name":', '"created_at":', '"spend":', '"models":', '"max_budget":'),
    *('"team_id":"', '"team_info":{', '"members_with_roles":', '"metadata":{', '"user_info":{'),
    *('"model_name":"', '"model_info":{', '"litellm_params":{', '"mode":', '"id":"', '"alias":"'),
    *('"vector_store_id":"', '"server_id":"', '"results":[', '"date":"2026-11-0', '"metrics":{'),
    *('"breakdown":{', '"model_groups":{', '"api_key_breakdown":{', '"total_spend":'),
    *("1e308", "-1e308", "1e400", "18446744073709551616", "null", "true", "[]", "{}", '""', "[{"),
)
