"""Usage by member: the rows add up to the team's, whoever owns which key."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from litellm_plugin.sandbox.activity import UsageRow
from litellm_plugin.usage import members
from litellm_plugin.usage import report as usage
from tests.usage.activity import pages_of, used
from tests.usage.test_report import END, ROWS, START, TOKENS

OWNERS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(TOKENS, st.sampled_from((None, "alice", "bob@example.com")))
)
TEAMS = st.lists(
    st.fixed_dictionaries({"user_id": st.sampled_from(("alice", "carol")), "role": st.just("user")})
)


@given(rows=ROWS, owners=OWNERS, team=TEAMS, page_size=st.none() | st.integers(1, 7))
def test_the_rows_add_up_to_the_team_s_usage(
    rows: list[UsageRow],
    owners: dict[str, str | None],
    team: list[dict[str, Any]],
    page_size: int | None,
) -> None:
    pages = pages_of(
        rows,
        START,
        END,
        page_size=page_size,
        about_key=lambda token: {"user_id": owners.get(token)},
    )
    figures = usage.report(pages)
    listed = members.by_member(
        {"members_with_roles": team}, figures, members.owners(pages), keys=[]
    )
    ids = [row["user_id"] for row in listed]
    assert len(ids) == len(set(ids))
    assert {each["user_id"] for each in team} <= set(ids)
    spend = math.fsum(row["spend"] for row in listed)
    assert math.isclose(spend, math.fsum(row.spend for row in rows), abs_tol=1e-6)
    for name in usage.COUNTS:
        assert sum(row[name] for row in listed) == figures[name]
    for token, owner in owners.items():
        own = [row for row in rows if owners.get(row.token) == owner]
        if any(row.token == token for row in own):
            (found,) = [each for each in listed if each["user_id"] == owner]
            assert math.isclose(
                found["spend"],
                # Keys that no owner is known of are in the row without a user, too.
                math.fsum(row.spend for row in own),
                abs_tol=1e-6,
            )


@given(rows=ROWS, owners=OWNERS)
def test_no_dollars_are_left_where_they_are_hidden(
    rows: list[UsageRow], owners: dict[str, str | None]
) -> None:
    known = {token: {"user_id": owner} for token, owner in owners.items() if owner}
    figures = usage.report(pages_of(rows, START, END))
    shown = members.by_member({}, figures, known, keys=[])
    hidden = members.without_spend(shown)
    assert all(row["spend"] == 0 for row in hidden)
    assert all(isinstance(row["spend_share_pct"], int) for row in hidden)
    assert [row["total_tokens"] for row in hidden] == [row["total_tokens"] for row in shown]


def test_an_e_mail_without_a_user_names_nobody() -> None:
    row = used(START)
    pages = pages_of([row], START, END, about_key=lambda _: {"user_email": "bob@example.com"})
    assert members.owners(pages) == {}


def test_ids_of_wrong_types_name_nobody() -> None:
    row = used(START)
    pages = pages_of([row], START, END, about_key=lambda _: {"user_id": 5, "user_email": ["x"]})
    listed = members.by_member(
        {"members_with_roles": [{"user_id": "alice", "role": 5}]},
        usage.report(pages),
        members.owners(pages),
        keys=[{"token": row.token, "user_id": {}}],
    )
    assert [(each["user_id"], each["key_count"]) for each in listed] == [(None, 1), ("alice", 0)]
    assert not any("user_email" in each or "role" in each for each in listed)
