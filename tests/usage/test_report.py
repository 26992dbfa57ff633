"""Usage reports: at once or in parts, and whatever LiteLLM may have put among the figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import date, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_plugin.sandbox.activity import UsageRow, page_of
from litellm_plugin.usage import report as usage
from tests.usage.activity import Json, pages_of, used

FIRST = date(2026, 11, 1)
DAYS = [(FIRST + timedelta(days=number)).isoformat() for number in range(10)]
START, END = DAYS[0], DAYS[-1]
TOKENS = ("k1", "k2", "k3")
COUNTS = st.integers(0, 10**6)


def place(row: UsageRow) -> tuple[date, str, str]:
    """Return what LiteLLM's table has one row of."""
    return row.day, row.token, row.model


ROWS = st.lists(
    st.builds(
        UsageRow,
        day=st.sampled_from(DAYS).map(date.fromisoformat),
        token=st.sampled_from(TOKENS),
        user_id=st.just("bob@example.com"),
        team_id=st.none(),
        model=st.sampled_from(("gpt-4o", "gpt-4o-mini", "o4-mini")),
        deployment=st.just(""),
        spend=st.floats(0, 1000),
        prompt_tokens=COUNTS,
        completion_tokens=COUNTS,
        successful_requests=COUNTS,
        failed_requests=COUNTS,
    ).map(lambda row: replace(row, deployment=f"openai/{row.model}")),
    max_size=40,
    unique_by=place,
)
ABOUT = st.fixed_dictionaries(
    {}, optional={"key_alias": st.sampled_from((None, "ci")), "team_id": st.just("team-ml")}
)
PAGE_SIZES = st.none() | st.integers(1, 7)
SIZES = st.just((None, None, None)) | st.tuples(PAGE_SIZES, PAGE_SIZES, PAGE_SIZES)


@given(
    rows=ROWS,
    later=ROWS,
    day=st.sampled_from(DAYS),
    sizes=SIZES,
    about=st.fixed_dictionaries(dict.fromkeys(TOKENS, ABOUT)),
)
def test_parts_asked_for_at_two_times_are_the_report_of_one_answer(
    rows: list[UsageRow],
    later: list[UsageRow],
    day: str,
    sizes: tuple[int | None, int | None, int | None],
    about: dict[str, Json],
) -> None:
    def asked(rows: list[UsageRow], start: str, page_size: int | None) -> list[Any]:
        return pages_of(rows, start, END, page_size=page_size, about_key=about.__getitem__)

    def check(newer: Json, older: Json, complete: Json) -> None:
        both = usage.merged(newer, older)
        if sizes != (None, None, None):
            # Which model of a day, or of a key, comes first depends on where a page ends.
            both, complete = in_order(both), in_order(complete)
        assert_same(both, complete)

    parts = usage.parts(asked(rows, START, sizes[0]), day)
    assert parts is not None
    newer, older = parts
    check(newer, older, usage.report(asked(rows, START, sizes[1])))

    # Meanwhile more was used, on days that are not over.
    known = set(map(place, rows))
    rows = rows + [row for row in later if row.day.isoformat() >= day and place(row) not in known]
    newer = usage.report(asked(rows, day, sizes[2]))
    check(newer, older, usage.report(asked(rows, START, sizes[1])))


def in_order(report: Json) -> Json:
    """Return a report with the models of each day, and of each key, by name."""
    by_key = {
        token: {**use, "models": sorted(use["models"])}
        for token, use in sorted(report["usage_by_key"].items())
    }
    days = [
        row
        for _, rows in groupby(report["daily_by_model"], key=itemgetter("date"))
        for row in sorted(rows, key=itemgetter("model"))
    ]
    by_model = dict(sorted(report["usage_by_model"].items()))
    more = {"usage_by_model": by_model, "usage_by_key": by_key, "daily_by_model": days}
    return {**report, **more}


def assert_same(one: Any, other: Any) -> None:
    """Check that two reports are the same in all but the last digits, and in order."""
    if isinstance(other, Mapping):
        assert list(one) == list(other)
        for name in other:
            assert_same(one[name], other[name])
    elif isinstance(other, Sequence) and not isinstance(other, str):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(other, float):
        assert math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    else:
        assert one == other


def test_merging_changes_neither_part() -> None:
    pages = pages_of([used(DAYS[1]), used(DAYS[2], model="o4-mini")], START, END)
    newer, older = usage.parts(pages, DAYS[2]) or ({}, {})
    kept = repr((newer, older))
    assert usage.merged(newer, older)["usage_by_key"]["k1"]["models"] == ["o4-mini", "gpt-4o"]
    assert repr((newer, older)) == kept


def test_days_that_are_not_in_order_have_no_parts() -> None:
    (page,) = pages_of([used(DAYS[1]), used(DAYS[2])], START, END)
    page["results"].reverse()
    assert usage.parts([page], DAYS[2]) is None


def test_totals_of_something_else_than_the_days_have_no_parts() -> None:
    (page,) = pages_of([used(DAYS[1]), used(DAYS[2])], START, END)
    page["metadata"]["total_prompt_tokens"] += 1
    assert usage.parts([page], DAYS[2]) is None


@pytest.mark.parametrize("alias", [None, "", "ci"])
def test_a_key_is_named_by_the_newest_row_that_has_a_name(alias: str | None) -> None:
    def told(day: str, alias: str | None) -> Json:
        return usage.report(
            pages_of([used(day)], START, END, about_key=lambda _: {"key_alias": alias})
        )

    newer, older = told(DAYS[2], alias), told(DAYS[1], "old")
    assert usage.merged(newer, older)["usage_by_key"]["k1"]["key_alias"] == (alias or "old")


@pytest.mark.parametrize("odd", [None, True, "7", math.nan, math.inf, -math.inf, [7], {}, ...])
@pytest.mark.parametrize("rows", [1, 2])
def test_what_is_no_number_counts_as_nothing(odd: Any, rows: int) -> None:
    fine = [used(day) for day in DAYS[1:rows]]
    wanted = usage.report(pages_of([*fine, used(DAYS[0], spend=0)], START, END))
    (page,) = pages_of([*fine, used(DAYS[0])], START, END)
    day = page["results"][-1]
    model = day["breakdown"]["model_groups"]["gpt-4o"]
    told = [day["metrics"], model["metrics"], model["api_key_breakdown"]["k1"]["metrics"]]
    for metrics in told:
        if odd is ...:
            del metrics["spend"]
        else:
            metrics["spend"] = odd
    page["metadata"]["total_spend"] = wanted["total_spend"]
    assert usage.report([page]) == wanted


@pytest.mark.parametrize("odd", [None, [], "x", {"results": None}, {"results": [None, {}]}])
def test_a_page_of_something_else_is_empty(odd: Any) -> None:
    assert usage.report([odd]) == usage.report([])


# -- what adds up to what ------------------------------------------------------

# What LiteLLM may tell of models: all, not all of them, none, or not of their keys.
TOLD = st.sampled_from(("all", "some", "nothing", "null", "no keys", "some keys"))


def some(entries: Json) -> Json:
    return dict(list(entries.items())[1:])


def as_told(entries: Json, told: str) -> Any:
    """Return the entries of models as an answer has them that tells less than all."""
    if told == "null":
        return None
    if told == "nothing":
        return {}
    if told == "some":
        return some(entries)
    changed = deepcopy(entries)
    for entry in changed.values():
        if told == "no keys":
            del entry["api_key_breakdown"]
        elif told == "some keys":
            entry["api_key_breakdown"] = some(entry["api_key_breakdown"])
    return changed


@given(rows=ROWS, groups=TOLD, models=TOLD, keys=st.sampled_from(("all", "some", "nothing")))
def test_models_and_keys_add_up_to_the_day_wherever_litellm_tells_all_of_them(
    rows: list[UsageRow], groups: str, models: str, keys: str
) -> None:
    (page,) = pages_of(rows, START, END)
    for day in page["results"]:
        breakdown = day["breakdown"]
        breakdown["model_groups"] = as_told(breakdown["model_groups"], groups)
        breakdown["models"] = as_told(breakdown["models"], models)
        breakdown["api_keys"] = as_told(breakdown["api_keys"], keys)
    report = usage.report([page])

    days = sums(report["daily_usage"], "spend")
    assert_same(sums([report]), days)
    if {groups, models} & {"all", "no keys", "some keys"}:
        assert_same(sums(report["usage_by_model"].values()), days)
        assert_same(sums(report["daily_by_model"], "spend"), days)
    if "all" in {groups, models, keys}:
        assert_same(sums(report["usage_by_key"].values()), days)


def sums(rows: Iterable[Json], spend: str = "total_spend") -> list[float]:
    rows = list(rows)
    return [sum(row[name] for row in rows) for name in (spend, *usage.COUNTS)]


def test_a_day_is_told_by_its_models_where_the_groups_leave_some_out() -> None:
    one, two = used(DAYS[1], model="m1"), used(DAYS[1], model="m2", token="k2", spend=0.2)
    (page,) = pages_of([one, two, used(DAYS[0], model="m1")], START, END)
    day = page["results"][0]
    del day["breakdown"]["model_groups"]["m2"]
    day["metrics"]["api_requests"] = 1  # no sum is this day's in all it tells
    report = usage.report([page])
    assert set(report["usage_by_model"]) == {"openai/m1", "openai/m2", "m1"}
    assert report["usage_by_model"]["openai/m2"]["total_spend"] == 0.2
    assert report["usage_by_key"]["k2"]["models"] == ["openai/m2"]


def test_keys_that_used_no_model_are_told_as_well() -> None:
    (page,) = pages_of([used(DAYS[1]), used(DAYS[1], token="k2", model="mcp")], START, END)
    breakdown = page["results"][0]["breakdown"]
    del breakdown["model_groups"]["mcp"], breakdown["models"]["openai/mcp"]
    by_key = usage.report([page])["usage_by_key"]
    assert {token: use["models"] for token, use in by_key.items()} == {"k1": ["gpt-4o"], "k2": []}
    assert by_key["k2"]["key_alias"] == "k2's"
    assert by_key["k2"]["total_tokens"] == 9


def test_a_day_without_figures_is_what_its_models_add_up_to() -> None:
    (page,) = pages_of([used(DAYS[1]), used(DAYS[1], model="m2")], START, END)
    wanted = usage.report([page])
    del page["results"][0]["metrics"], page["metadata"]
    report = usage.report([page])
    assert_same(report["daily_usage"], wanted["daily_usage"])
    assert_same(report["usage_by_key"], wanted["usage_by_key"])


# -- rows on two pages ---------------------------------------------------------


@given(rows=ROWS, size=st.integers(1, 7), again=st.lists(st.integers(0, 3), max_size=40))
def test_a_row_on_two_pages_counts_once(rows: list[UsageRow], size: int, again: list[int]) -> None:
    ordered = sorted(rows, key=lambda row: row.day, reverse=True)
    starts = range(0, len(ordered), size)
    # Before each further page so many rows were written that were not there before.
    shifts = [0, *again, *[0] * len(starts)]
    pages = [
        single(ordered[max(start - shift, 0) : start + size])
        for start, shift in zip(starts, shifts, strict=False)
    ]
    kept = repr(pages)
    assert_same(in_order(usage.report(pages)), in_order(usage.report([single(rows)])))
    assert repr(pages) == kept


def single(rows: Sequence[UsageRow]) -> Any:
    """Return rows as one page."""
    return page_of(
        rows,
        page=1,
        page_size=None,
        entity=lambda _row: "",
        about_entity=lambda _name: {},
        about_key=lambda _token: {},
    )


def test_two_rows_of_one_model_and_key_on_two_pages_both_count() -> None:
    pages = [single([used(DAYS[1], spend=spend)]) for spend in (0.25, 0.5)]
    report = usage.report(pages)
    assert report["total_spend"] == report["usage_by_key"]["k1"]["total_spend"] == 0.75


def test_a_page_that_comes_twice_counts_once() -> None:
    page = single([used(DAYS[1]), used(DAYS[2], model="m2")])
    for day in page["results"]:
        day["breakdown"]["model_groups"] = {}
    assert usage.report([page, deepcopy(page)]) == usage.report([page])
    for day in page["results"]:
        day["breakdown"] = {}
    assert usage.report([page, deepcopy(page)]) == usage.report([page])


def test_a_report_is_as_large_as_what_it_lists() -> None:
    pages = pages_of([used(DAYS[1]), used(DAYS[2])], START, END)
    assert usage.rows(usage.report(pages)) == 6  # two days, once more by model; a model; a key
