"""Limits of keys, as tables: what a request asks for, and what LiteLLM is sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_plugin.config.settings import KeyPolicy, Provisioning, Role
from litellm_plugin.errors import Forbidden
from litellm_plugin.fields import seconds
from litellm_plugin.keys.policy import (
    Policy,
    PolicyRefused,
    combined,
    is_active,
    policy_for,
)

Json = dict[str, Any]

NOW = datetime(2026, 11, 27, 6, tzinfo=UTC)
STAFF = "group:default/staff"
COMMON = KeyPolicy(
    max_duration="30d",
    max_budget=100,
    max_tpm_limit=1000,
    max_rpm_limit=10,
    allowed_models=("gpt-4o-mini", "everyone"),
    max_active_keys=2,
)
FILLED = {
    "duration": "30d",
    "max_budget": 100,
    "tpm_limit": 1000,
    "rpm_limit": 10,
    "models": ["gpt-4o-mini", "everyone"],
}


def groups_of(model: str) -> Collection[str]:
    return {"llama-3": {"everyone"}, "gpt-4o": {"premium"}}.get(model, set())


def policy(common: KeyPolicy = COMMON, **of_staff: Any) -> Policy:
    """Return the limits of a member of the staff, who have a role with fields of their own."""
    provisioning = Provisioning(roles=(Role(STAFF, {}, key_policy=of_staff),))
    return policy_for(common, provisioning, {STAFF}, groups_of)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"models": []},
        {"models": None},
        {"key_alias": "ci", "team_id": "t"},
        {"duration": "30d", "max_budget": 100.0, "tpm_limit": 1000, "rpm_limit": 10},
        {"duration": "720h"},
        {"duration": "43200m"},
        {"duration": "2592000s"},
        {"duration": "4w"},
        {"duration": "0s"},
        {"max_budget": 0.01, "tpm_limit": 0, "rpm_limit": 0},
        {"models": ["gpt-4o-mini"]},
        {"models": ["everyone"]},
        {"models": ["llama-3"]},
        {"budget_duration": None},
        {"metadata": None},
        {"metadata": {"purpose": "ci", "tags": ["a"]}},
    ],
    ids=str,
)
def test_what_is_within_the_limits_is_kept_and_what_is_left_out_is_filled_in(asked: Json) -> None:
    made = policy().new_key(asked)
    named = {name: value for name, value in asked.items() if name != "models" or value}
    assert made == {**FILLED, **named}


REFUSED = [
    ({"duration": None}, "duration must not be unlimited: at most 30d for everybody"),
    ({"duration": "31d"}, "duration must be at most 30d for everybody"),
    ({"duration": "1mo"}, "duration must be at most 30d for everybody"),
    ({"duration": "721h"}, "duration must be at most 30d for everybody"),
    ({"max_budget": None}, "max_budget must not be unlimited: at most 100 USD for everybody"),
    ({"max_budget": 100.01}, "max_budget must be at most 100 USD for everybody"),
    ({"max_budget": float("nan")}, "max_budget must be at most 100 USD for everybody"),
    ({"tpm_limit": None}, "tpm_limit must not be unlimited: at most 1000 for everybody"),
    ({"tpm_limit": 1001}, "tpm_limit must be at most 1000 for everybody"),
    ({"rpm_limit": None}, "rpm_limit must not be unlimited: at most 10 for everybody"),
    ({"rpm_limit": 11}, "rpm_limit must be at most 10 for everybody"),
    (
        {"models": ["gpt-4o-mini", "gpt-4o"]},
        'model "gpt-4o" is not allowed: only gpt-4o-mini, everyone for everybody',
    ),
    *(
        ({"models": [name]}, f'model "{name}" is not allowed: only gpt-4o-mini, everyone for')
        for name in ("all-team-models", "all-proxy-models", "*", "premium", "gpt-4o*", "")
    ),
    (
        {"budget_duration": "1s"},
        "budget_duration must be left out: the budget of a key is for its whole life, for everyb",
    ),
]


@pytest.mark.parametrize(("asked", "error"), REFUSED, ids=str)
def test_what_goes_beyond_a_limit_is_refused_with_limit_and_for_whom(
    asked: Json, error: str
) -> None:
    with pytest.raises(PolicyRefused) as refused:
        policy().new_key(asked)
    assert refused.value.message.startswith(error)
    assert refused.value.status == 400
    with pytest.raises(PolicyRefused) as of_a_change:
        policy().change(asked, {"max_budget": 100})
    assert of_a_change.value.message == refused.value.message


@pytest.mark.parametrize(
    "duration",
    ["", "-1", "-1d", "1dxyz", "30", "1month", "monthly", "1 d", " 1d", "1D", "٣d", "1d\n"],
)
def test_a_life_that_is_not_understood_is_refused_under_a_limit(duration: str) -> None:
    assert seconds(duration) is None
    for ask in (policy().new_key, lambda asked: policy().change(asked, {})):
        with pytest.raises(PolicyRefused, match="at most 30d for everybody"):
            ask({"duration": duration})
    assert Policy().new_key({"duration": duration}) == {"duration": duration}


BEYOND: dict[str, Any] = {
    "duration": "31d",
    "max_budget": 101,
    "budget_duration": "1h",
    "tpm_limit": 1001,
    "rpm_limit": 11,
    "models": ["gpt-4o"],
}


def test_each_limit_limits_a_field() -> None:
    limits = {field.name for field in dataclasses.fields(KeyPolicy)} - {"max_active_keys"}
    assert len(limits) == len(BEYOND)
    for limit in limits - {"min_budget_duration"}:
        alone = policy(KeyPolicy(**{limit: getattr(COMMON, limit)}))
        with pytest.raises(PolicyRefused):
            alone.change(BEYOND, {})


def test_without_limits_nothing_is_changed() -> None:
    asked: Json = {
        "models": [],
        "duration": "x",
        "max_budget": None,
        "tpm_limit": None,
        "metadata": {},
    }
    free = policy(KeyPolicy())
    assert free == Policy()
    assert free.new_key(asked) == free.change(asked, {}) == asked
    assert free.capped(asked) == asked
    free.refuse_reset()
    free.refuse_more([{}] * 1000, NOW)
    assert not free.outlives(None, NOW)


def test_a_change_leaves_alone_what_it_does_not_name() -> None:
    beyond: Json = {"max_budget": None, "models": [], "tpm_limit": None, "expires": None}
    assert policy().change({"key_alias": "x"}, beyond) == {"key_alias": "x"}
    assert policy().change({}, beyond) == {}


def test_a_change_to_all_models_is_one_to_all_that_are_allowed() -> None:
    assert policy().change({"models": []}, {}) == {"models": ["gpt-4o-mini", "everyone"]}


@pytest.mark.parametrize(
    ("key", "change", "allowed"),
    [
        ({"max_budget": 10, "budget_duration": "1h"}, {"max_budget": 50}, False),
        ({"max_budget": 10, "budget_duration": "1h"}, {"max_budget": 10}, True),
        ({"max_budget": 10, "budget_duration": "1h"}, {"max_budget": 5}, True),
        ({"max_budget": None, "budget_duration": "1h"}, {"max_budget": 50}, True),
        ({"max_budget": 10, "budget_duration": "x"}, {"max_budget": 50}, False),
        ({"max_budget": 10, "budget_duration": None}, {"max_budget": 50}, True),
        (
            {"max_budget": 10, "budget_duration": "1h"},
            {"max_budget": 50, "budget_duration": None},
            False,  # LiteLLM 1.81 ignores the null
        ),
    ],
)
def test_a_budget_that_begins_anew_too_often_is_not_raised(
    key: Json, change: Json, *, allowed: bool
) -> None:
    if allowed:
        assert policy().change(change, key) == change
    else:
        with pytest.raises(PolicyRefused, match="budget_duration must be left out"):
            policy().change(change, key)


@pytest.mark.parametrize(
    ("least", "asked", "allowed"),
    [
        ("7d", "7d", True),
        ("7d", "1w", True),
        ("7d", "1mo", True),
        ("30d", "1mo", False),  # February has 28 days
        ("1mo", "1mo", True),
        ("7d", "6d", False),
        ("7d", "daily", False),
        ("0s", "1s", True),
        ("0s", "daily", True),
    ],
)
def test_budgets_may_begin_anew_as_often_as_is_allowed(
    least: str, asked: str, *, allowed: bool
) -> None:
    renewing = policy(KeyPolicy(max_budget=5, min_budget_duration=least))
    if allowed:
        assert renewing.new_key({"budget_duration": asked})["budget_duration"] == asked
    else:
        with pytest.raises(PolicyRefused, match=f"budget_duration must be at least {least} for"):
            renewing.new_key({"budget_duration": asked})


def test_without_a_limit_of_budgets_they_may_begin_anew_at_any_time() -> None:
    free = policy(KeyPolicy(min_budget_duration="30d"))
    assert free.new_key({"budget_duration": "1s"}) == {"budget_duration": "1s"}


def test_a_role_replaces_what_it_names_and_its_refusals_name_its_group() -> None:
    staff = policy(max_budget=500.0, max_duration=None)
    assert staff.new_key({"duration": None}) == {**FILLED, "max_budget": 500} | {"duration": None}
    with pytest.raises(PolicyRefused, match=f"at most 500 USD for members of {STAFF}$"):
        staff.new_key({"max_budget": 501})
    with pytest.raises(PolicyRefused, match=r"at most 10 for everybody$"):
        staff.new_key({"rpm_limit": 11})


def test_the_first_role_counts_and_others_have_the_common_limits() -> None:
    roles = (
        Role("group:default/a", {}, key_policy={"max_budget": 1.0}),
        Role("group:default/b", {}, key_policy={"max_budget": 2.0}),
        Role("group:default/c", {}),
    )
    provisioning = Provisioning(roles=roles)

    def budget(*groups: str) -> float | None:
        refs = {f"group:default/{name}" for name in groups}
        found = policy_for(COMMON, provisioning, refs, groups_of)
        return found.budget.value if found.budget else None

    assert [budget("b", "a"), budget("b"), budget("c", "b"), budget("c"), budget()] == [
        1,
        2,
        2,
        100,
        100,
    ]


@pytest.mark.parametrize(
    ("least", "asked", "allowed"),
    [
        (("0s", "30d"), "1h", False),
        (("30d", "0s"), "29d", False),
        (("0s", "30d"), "30d", True),
        (("0s", "0s"), "1s", True),
        (("1d", None), "30d", False),
        (("1d", "1w"), "6d", False),
    ],
    ids=str,
)
def test_the_longest_of_several_shortest_times_counts(
    least: tuple[str | None, ...], asked: str, *, allowed: bool
) -> None:
    several = combined(
        [policy(KeyPolicy(max_budget=5, min_budget_duration=each)) for each in least]
    )
    if allowed:
        several.new_key({"budget_duration": asked})
    else:
        with pytest.raises(PolicyRefused, match="budget_duration must be "):
            several.new_key({"budget_duration": asked})


DURATIONS = st.sampled_from(["1s", "1h", "1d", "6d", "1w", "30d", "1mo", "31d", "365d"])
MODELS = st.lists(
    st.sampled_from(
        ["*", "openai/*", "openai/gpt-*", "openai/gpt-4o", "gpt-4o", "llama-3", "everyone", "pre*"]
    ),
    min_size=1,
    max_size=3,
)
BUDGETS = st.sampled_from([0.5, 1, 5, 99.5, 100, 1000])
COUNTS = st.integers(0, 4)


def _or_none(some: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | some


LIMITS: dict[str, st.SearchStrategy[Any]] = {
    "max_duration": _or_none(DURATIONS),
    "max_budget": _or_none(BUDGETS),
    "min_budget_duration": _or_none(st.just("0s") | DURATIONS),
    "max_tpm_limit": _or_none(st.integers(1, 4)),
    "max_rpm_limit": _or_none(st.integers(1, 4)),
    "allowed_models": _or_none(MODELS.map(tuple)),
    "max_active_keys": _or_none(COUNTS),
}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "duration": _or_none(DURATIONS),
    "max_budget": _or_none(BUDGETS),
    "budget_duration": _or_none(DURATIONS),
    "tpm_limit": _or_none(COUNTS),
    "rpm_limit": _or_none(COUNTS),
    "models": st.just([]) | MODELS,
}
# Limits that everybody has, others, and the fields that are asked for: of all at once too few
# pairs are tried.
TOGETHER: dict[str, tuple[Json, list[str], list[str]]] = {
    "duration": ({}, ["max_duration"], ["duration"]),
    "budget": ({}, ["max_budget"], ["max_budget"]),
    "renewal": ({"max_budget": 5}, ["min_budget_duration"], ["budget_duration"]),
    "numbers": ({}, ["max_tpm_limit", "max_rpm_limit"], ["tpm_limit", "rpm_limit"]),
    "models": ({}, ["allowed_models"], ["models"]),
    "keys": ({}, ["max_active_keys"], []),
    "all": ({}, list(LIMITS), list(FIELDS)),
}


def _refused(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except (PolicyRefused, Forbidden):
        return True
    return False


@pytest.mark.parametrize("what", TOGETHER)
@given(st.data())
def test_what_several_policies_allow_together_each_allows(what: str, data: st.DataObject) -> None:
    common, limits, fields = TOGETHER[what]
    some = st.fixed_dictionaries({name: LIMITS[name] for name in limits})
    given = {name: FIELDS[name] for name in fields}
    requests = st.fixed_dictionaries({}, optional=given) | st.fixed_dictionaries(given)
    members = [
        policy(KeyPolicy(**common, **each)) for each in data.draw(st.lists(some, max_size=3))
    ]
    asked, row, keys = data.draw(requests), data.draw(requests), data.draw(COUNTS)
    together = combined(members)

    def one_refuses(ask: Callable[[Policy], object]) -> bool:
        return any(_refused(lambda: ask(member)) for member in members)  # noqa: B023

    # A new key, and what is filled in for it.
    refused = _refused(lambda: together.new_key(asked))
    if one_refuses(lambda member: member.new_key(asked)):
        assert refused
    elif what != "keys" and asked.keys() == given.keys() and asked.get("models") != []:
        assert not refused
    if not refused:
        made = together.new_key(asked)
        assert all(member.new_key(made) == made for member in members)
    # A change, a reset, one key more.
    if one_refuses(lambda member: member.change(asked, row)):
        assert _refused(lambda: together.change(asked, row))
    for ask in (Policy.refuse_reset, lambda policy: policy.refuse_more([{}] * keys, NOW)):
        assert _refused(lambda: ask(together)) is one_refuses(ask)  # noqa: B023
    ends = [None, _in(days=1), _in(days=40)]
    for end in ends:
        outlives = any(member.outlives(end, NOW) for member in members)
        assert together.outlives(end, NOW) is outlives
    # What the configuration asks for, or a key that is rotated has, cut down.
    wanted: Json = {name: value for name, value in asked.items() if value is not None}
    if not _refused(lambda: together.capped(wanted)):
        cut = together.capped(wanted)
        assert not one_refuses(lambda member: member.new_key(cut))


def test_who_may_be_several_people_has_the_limits_of_each() -> None:
    one = policy(KeyPolicy(max_duration="10d", allowed_models=("a", "b"), max_active_keys=1))
    two = policy(KeyPolicy(max_duration="1w", max_budget=5, allowed_models=("b", "c")))
    three = policy(KeyPolicy(max_budget=9, min_budget_duration="1d", max_tpm_limit=4))
    both = combined([one, two, three])
    assert combined([three, two, one]).budget == both.budget
    assert both.new_key({}) == {
        "duration": "1w",
        "max_budget": 5,
        "models": ["b"],
        "tpm_limit": 4,
    }
    with pytest.raises(PolicyRefused, match="budget_duration must be left out"):
        both.new_key({"budget_duration": "1d"})
    with pytest.raises(Forbidden):
        both.refuse_more([{}], NOW)
    nothing = combined([two, policy(KeyPolicy(allowed_models=("a",)))])
    requests: list[Json] = [{}, {"models": []}, {"models": ["a"]}]
    for asked in requests:
        with pytest.raises(PolicyRefused):
            nothing.new_key(asked)
    assert combined([]) == Policy()


@pytest.mark.parametrize(
    ("configured", "made"),
    [
        ({"duration": "90d", "max_budget": 500}, {"duration": "30d", "max_budget": 100}),
        ({"duration": "1d", "max_budget": 5}, {"duration": "1d", "max_budget": 5}),
        ({"duration": "monthly", "max_budget": 5}, {"duration": "30d", "max_budget": 5}),
        ({"duration": "-1", "max_budget": 5}, {"duration": "30d", "max_budget": 5}),
    ],
)
def test_what_the_configuration_asks_for_is_cut_down_to_the_limits(
    configured: Json, made: Json
) -> None:
    assert policy().capped(configured) == {**FILLED, **made}


def _in(**ahead: float) -> str:
    return (NOW + timedelta(**ahead)).isoformat()


@pytest.mark.parametrize(
    ("key", "active"),
    [
        ({}, True),
        ({"blocked": None, "expires": None}, True),
        ({"blocked": False, "expires": _in(days=1)}, True),
        ({"expires": "2026-11-27T06:00:01Z"}, True),
        ({"expires": "2026-11-27T06:00:00Z"}, False),
        ({"expires": "2026-11-27T05:59:59"}, False),
        ({"expires": _in(days=-1)}, False),
        ({"blocked": True}, False),
        ({"expires": "someday"}, True),
        ({"expires": 5}, True),
    ],
    ids=str,
)
def test_a_key_that_is_expired_or_blocked_is_not_active(key: Json, *, active: bool) -> None:
    assert is_active(key, NOW) is active


def test_only_active_keys_are_counted() -> None:
    idle: list[Json] = [{"blocked": True}, {"expires": _in(days=-1)}]
    policy().refuse_more([{}, *idle], NOW)
    with pytest.raises(Forbidden, match="At most 2 active keys are allowed for everybody, and th"):
        policy().refuse_more([{}, {}, *idle], NOW)


def test_where_none_may_be_active_none_is_made() -> None:
    with pytest.raises(Forbidden, match="At most 0 active keys"):
        policy(max_active_keys=0).refuse_more([], NOW)


def test_a_spent_budget_is_not_given_back() -> None:
    with pytest.raises(Forbidden, match="at most 100 USD for everybody"):
        policy().refuse_reset()


@pytest.mark.parametrize(
    ("expires", "outlives"),
    [(_in(days=30), False), (_in(days=1), False), (_in(days=31), True), (None, True), ("x", True)],
)
def test_a_key_that_litellm_lets_live_longer_is_noticed(
    expires: str | None, *, outlives: bool
) -> None:
    assert policy().outlives(expires, NOW) is outlives
