"""Charge-back: every combination adds up to what was used, or is refused; nothing is guessed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from litellm_plugin.errors import UpstreamError
from litellm_plugin.sandbox.activity import UsageRow, page_of
from litellm_plugin.usage.charges import DIMENSIONS, Activity, Names, NotTold, total, uses_of
from litellm_plugin.usage.report import METRICS

DAY = "2026-11-02"
Json = dict[str, Any]

COUNTS = st.integers(0, 1000)


def _used(**values: Any) -> UsageRow:
    given: Json = {
        "token": "k1",
        "user_id": "alice",
        "team_id": "red",
        "model": "gpt-4o",
        "spend": 0.5,
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "successful_requests": 3,
        "failed_requests": 0,
        **values,
    }
    return UsageRow(day=date.fromisoformat(DAY), deployment=f"openai/{given['model']}", **given)


def _refused(token: str = "k1", failed: int = 2, model: str = "gpt-4o") -> UsageRow:
    """Return what LiteLLM counts for a key that is deleted: nobody's refused requests."""
    nothing = {"spend": 0.0, "prompt_tokens": 0, "completion_tokens": 0, "successful_requests": 0}
    return _used(
        token=token, user_id=None, team_id=None, model=model, failed_requests=failed, **nothing
    )


class Proxy:
    """Answers as LiteLLM does, from the rows of one day.

    Attributes:
        asked: Each page: kind, number, and user or team.
    """

    def __init__(self, rows: Sequence[UsageRow], page_size: int = 1000) -> None:
        self.rows = list(rows)
        self.page_size: int | None = page_size
        self.without_totals = False
        self.asked: list[tuple[str, int, str | None]] = []

    @property
    def activity(self) -> Activity:
        return Activity(self.page, self.totals)

    def page(self, kind: str, day: str, number: int, owner: str | None) -> tuple[Any, int]:
        assert day == DAY
        self.asked.append((kind, number, owner))
        answer = self._page(kind, number, owner, self.page_size)
        return answer, answer["metadata"]["total_pages"]

    def totals(self, kind: str, day: str) -> Json | None:
        assert day == DAY
        return None if self.without_totals else dict(self._page(kind, 1, None, None)["metadata"])

    def _page(self, kind: str, number: int, owner: str | None, size: int | None) -> Json:
        def owner_of(row: UsageRow) -> str | None:
            return row.user_id if kind == "user" else row.team_id

        rows = [row for row in self.rows if kind == "user" or row.team_id]
        return page_of(
            [row for row in rows if owner in {None, owner_of(row)}],
            page=number,
            page_size=size,
            entity=lambda row: owner_of(row) or "Unassigned",
            about_entity=lambda name: {"user_email": f"{name}@example.com", "team_alias": name},
            about_key=lambda token: {"key_alias": f"{token}'s"},
        )


def _sums(rows: Iterable[UsageRow], apart: Sequence[str]) -> dict[tuple[Any, ...], list[float]]:
    """Return the sums of rows by what is told apart; keys always are."""
    sums: defaultdict[tuple[Any, ...], list[list[float]]] = defaultdict(list)
    for row in rows:
        requests = row.successful_requests + row.failed_requests
        tokens = row.prompt_tokens + row.completion_tokens
        figures = {
            **{name: getattr(row, name, 0) for name in METRICS},
            "total_tokens": tokens,
            "api_requests": requests,
        }
        place = (
            row.token,
            row.model if "model" in apart else "",
            row.user_id if "user" in apart else None,
            row.team_id if "team" in apart else None,
        )
        sums[place].append([figures[name] for name in METRICS])
    return {
        place: added
        for place, each in sums.items()
        if any(added := list(map(math.fsum, zip(*each, strict=True))))
    }


def _read(proxy: Proxy, apart: Sequence[str]) -> dict[tuple[Any, ...], list[float]]:
    found: dict[tuple[Any, ...], list[float]] = {}
    for use in uses_of(DAY, apart, proxy.activity, Names()):
        place = (use.key, use.model, use.user, use.team)
        assert place not in found
        if any(use.figures):
            found[place] = list(use.figures)
    return found


def _check(proxy: Proxy, apart: Sequence[str]) -> None:
    found, wanted = _read(proxy, apart), _sums(proxy.rows, apart)
    assert found.keys() == wanted.keys()
    for place, figures in wanted.items():
        assert found[place] == pytest.approx(figures, abs=1e-6)


ROWS = st.lists(
    st.builds(
        _used,
        token=st.sampled_from(("k1", "k2")),
        user_id=st.sampled_from(("alice", "bob", None)),
        team_id=st.sampled_from(("red", "blue", None)),
        model=st.sampled_from(("gpt-4o", "o4-mini")),
        # LiteLLM keeps sums of prices of tokens, which are no smaller than this.
        spend=st.integers(0, 10**9).map(lambda number: number / 10**6),
        prompt_tokens=COUNTS,
        completion_tokens=COUNTS,
        successful_requests=st.integers(1, 1000),
        failed_requests=COUNTS,
    )
    | st.builds(_refused, st.sampled_from(("k1", "k2")), st.integers(1, 5)),
    max_size=12,
    unique_by=lambda row: (row.token, row.user_id, row.team_id, row.model),
)


@given(
    rows=ROWS,
    apart=st.sets(st.sampled_from(DIMENSIONS)).map(sorted),
    page_size=st.integers(1, 20),
)
def test_a_combination_is_what_was_used_or_is_refused(
    rows: list[UsageRow], apart: list[str], page_size: int
) -> None:
    proxy = Proxy(rows, page_size)
    try:
        _check(proxy, apart)
    except NotTold:
        assert {"user", "team"} <= set(apart)


@given(rows=ROWS, page_size=st.integers(1, 20), apart=st.sets(st.sampled_from(DIMENSIONS)))
def test_the_total_is_litellm_s_own(rows: list[UsageRow], page_size: int, apart: set[str]) -> None:
    assume(not {"user", "team"} <= apart)
    proxy = Proxy(rows, page_size)
    found = total(uses_of(DAY, apart, proxy.activity, Names()))
    own = proxy.totals("user", DAY)
    assert own is not None
    assert found["spend"] == pytest.approx(own["total_spend"], abs=1e-6)
    assert found["total_tokens"] == own["total_tokens"]
    assert found["failed_requests"] == own["total_failed_requests"]


EVERYTHING = ("user", "team", "key", "model")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [_used()],
        [_used(), _used(model="o4-mini"), _used(team_id=None)],  # one user
        [_used(), _used(user_id="bob"), _used(user_id=None)],  # one team
        [_used(token="k1"), _used(token="k2", user_id="bob", team_id="blue")],
        [_used(), _used(model="o4-mini", user_id="bob", team_id="blue")],  # a model each
        # The key was deleted, and is still used.
        [_used(), _refused()],
        [_used(), _used(model="o4-mini"), _refused(), _refused(model="o4-mini")],
        [_used(), _used(team_id="blue"), _refused()],
    ],
)
def test_a_key_of_one_user_or_one_team_is_told_apart(rows: list[UsageRow]) -> None:
    _check(Proxy(rows), EVERYTHING)


def test_a_key_of_two_users_in_two_teams_is_refused_with_a_reason() -> None:
    proxy = Proxy([_used(), _used(user_id="bob", team_id="blue")])
    with pytest.raises(NotTold) as refused:
        _read(proxy, EVERYTHING)
    assert "which of 2 users used the key k1 in which of 2 teams on 2026-11-02" in str(refused)
    assert "leave user or team out of --by" in refused.value.text
    for apart in (("user", "model"), ("team", "model"), ("key",)):
        _check(proxy, apart)


def test_users_are_asked_for_alone_only_where_their_models_are_not_plain() -> None:
    plain = Proxy([_used(), _used(model="o4-mini"), _used(token="k2", user_id="bob")])
    _check(plain, ("user", "model"))
    assert plain.asked == [("user", 1, None)]
    both = Proxy([*plain.rows, _used(user_id="bob"), _refused(), _refused(model="o4-mini")])
    _check(both, ("user", "model"))
    assert both.asked == [("user", 1, None), ("user", 1, "alice"), ("user", 1, "bob")]
    both.asked.clear()
    _check(both, ("model",))
    assert both.asked == [("user", 1, None)]


def test_models_have_their_public_names_unless_litellm_leaves_some_out() -> None:
    class Old(Proxy):
        """LiteLLM 1.81 has no public name for some models."""

        def _page(self, *arguments: Any) -> Json:
            answer = super()._page(*arguments)
            for row in answer["results"]:
                row["breakdown"]["model_groups"].pop("o4-mini")
            return answer

    proxy = Old([_used(), _used(token="k2"), _used(token="k2", model="o4-mini")])
    models = {(use.key, use.model) for use in uses_of(DAY, ["model"], proxy.activity, Names())}
    assert models == {("k1", "gpt-4o"), ("k2", "openai/gpt-4o"), ("k2", "openai/o4-mini")}


def test_usage_without_key_or_model_is_in_the_report() -> None:
    class Sparse(Proxy):
        def _page(self, *arguments: Any) -> Json:
            answer = super()._page(*arguments)
            for row in answer["results"]:
                row["metrics"]["spend"] += 1.0
                row["breakdown"]["models"] = row["breakdown"]["model_groups"] = {}
            return answer

    uses = uses_of(DAY, ["user", "model"], Sparse([_used()]).activity, Names())
    found = {(use.key, use.model, use.user): use.figures[0] for use in uses}
    assert found == {("k1", "", "alice"): 0.5, ("", "", None): 1.0}


def test_what_litellm_counts_for_teams_only_is_in_the_report_and_said() -> None:
    class Torn(Proxy):
        def _page(self, kind: str, *arguments: Any) -> Json:
            kept, own = self.rows, [row for row in self.rows if row.token == "k1"]
            self.rows = own if kind == "user" else kept
            try:
                return super()._page(kind, *arguments)
            finally:
                self.rows = kept

    names = Names()
    proxy = Torn([_used(), _used(token="k2", spend=0.25)])
    uses = uses_of(DAY, ["team", "user"], proxy.activity, names)
    found = {(use.key, use.user, use.team): use.figures[0] for use in uses}
    assert found == {("k1", "alice", "red"): 0.5, ("k2", None, "red"): 0.25}
    (note,) = names.notes
    assert note.startswith("2026-11-02: LiteLLM counts 0.25 USD and 3 requests of the key k2 for a")


# -- what is read while LiteLLM writes -----------------------------------------


class Moving(Proxy):
    """A LiteLLM that writes a row after the first page, some times."""

    def __init__(self, rows: Sequence[UsageRow], times: int) -> None:
        super().__init__(rows, page_size=2)
        self._times = times

    def page(self, kind: str, day: str, number: int, owner: str | None) -> tuple[Any, int]:
        found = super().page(kind, day, number, owner)
        if number == 1 and self._times:
            self._times -= 1
            new = _used(token="k0", model=f"new-{self._times}", spend=float(self._times + 1))
            self.rows.append(new)
        return found


def test_a_day_is_read_again_while_its_pages_do_not_add_up() -> None:
    rows = [_used(model=f"m{number}") for number in range(5)]
    proxy = Moving(rows, times=2)
    _check(proxy, ("model",))
    assert [number for _, number, _ in proxy.asked].count(1) == 3
    with pytest.raises(UpstreamError, match="does not add up"):
        _read(Moving(rows, times=9), ("model",))


def test_pages_that_can_not_be_checked_are_refused() -> None:
    proxy = Proxy([_used(), _used(model="o4-mini")], page_size=1)
    proxy.without_totals = True  # 1.81 has none of teams
    with pytest.raises(UpstreamError, match="2 pages of usage can't be checked"):
        _read(proxy, ("team",))
    proxy.page_size = 1000
    _check(proxy, ("team",))


@pytest.mark.parametrize("spend", [None, "0.5", True, math.nan, math.inf])
def test_what_is_no_number_is_not_counted_as_0(spend: Any) -> None:
    class Odd(Proxy):
        def _page(self, *arguments: Any) -> Json:
            answer = super()._page(*arguments)
            answer["results"][0]["metrics"]["spend"] = spend
            return answer

    with pytest.raises(UpstreamError, match="for spend, which is no number"):
        _read(Odd([_used()]), ("day",))


def test_names_are_kept_as_litellm_tells_them() -> None:
    names = Names()
    uses_of(DAY, ["team", "user"], Proxy([_used()]).activity, names)
    assert names.users == {"alice": "alice@example.com"}
    assert names.teams == {"red": "red"}
    assert names.keys == {"k1": {"key_alias": "k1's"}}
