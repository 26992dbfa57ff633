"""Pages of our events and of LiteLLM's own, in one order by time."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete

from litellm_plugin.audit.reader import AuditReader
from litellm_plugin.audit.writer import AuditWriter
from litellm_plugin.clients.litellm import Json
from litellm_plugin.clock import iso
from litellm_plugin.config.database import Database
from litellm_plugin.store.audit import AuditEvents, Head
from litellm_plugin.store.database import Store
from litellm_plugin.store.tables import metadata
from tests.audit.conftest import Audited, event
from tests.fakes.network import dropped
from tests.standin import KEY, TEAM

START = datetime(2026, 11, 1, 23, 59, 59, 990_000, tzinfo=UTC)


def test_filters_select_events(audited: Audited) -> None:
    audited.rig.litellm.failures["/audit"] = 404
    ask = audited.rig.ask
    ask("bob", "GET", "/keys")
    ask("alice", "POST", f"/keys/{KEY}/block")
    ask("alice", "PATCH", f"/teams/{TEAM}", json={"max_budget": 40})
    rows = audited.rows()
    assert len(rows) == 3
    for query, kept in (
        ("action=blocked", rows[1:2]),
        ("table_name=LiteLLM_TeamTable", rows[:1]),
        ("changed_by=user%3Adefault%2Fbob", rows[2:]),
        ("changed_by=user%3Adefault%2Fbob&action=blocked", []),
        ("changed_by=bob", []),
        ("start_date=2020-01-01T00:00:00Z", rows),
        ("end_date=2020-01-01T00:00:00Z", []),
        (f"start_date={rows[1]['updated_at']}&end_date={rows[0]['updated_at']}", rows[:2]),
        ("sort_order=asc", rows[::-1]),
        ("sort_by=updated_at&sort_order=desc", rows),
        ("page_size=2", rows[:2]),
        ("page_size=2&page=2", rows[2:]),
        ("page_size=2&page=3", []),
    ):
        assert audited.rows(query) == kept, query


@pytest.mark.parametrize(
    "query",
    [
        *("page=0", "page=x", "page_size=101", "page_size=-1", "include=all"),
        *("sort_by=action", "sort_order=up"),
        *("start_date=2026-11-01", "end_date=yesterday", "start_date=2026-11-01T00:00:00"),
        "start_date=0001-01-01T00:00:00%2B14:00",
        *("changed_by=a%00b", "action=%0A", "table_name=" + "x" * 513),
    ],
)
def test_a_wrong_parameter_is_named(audited: Audited, query: str) -> None:
    answer = audited.rig.ask("alice", "GET", f"/audit?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.get_json()["error"]


def test_litellms_own_rows_are_between_ours(audited: Audited) -> None:
    ask, litellm = audited.rig.ask, audited.rig.litellm.litellm
    ask("alice", "POST", f"/keys/{KEY}/block")
    litellm.team_new({"team_id": "made-in-litellm"})
    ask("alice", "POST", f"/keys/{KEY}/unblock")
    answer = audited.answer()
    authors = [row["changed_by"] for row in answer["audit_logs"]]
    assert authors[0] == "user:default/alice"
    assert "default_user_id" in authors
    assert answer["total"] == len(authors)
    assert answer["total_pages"] == 1
    assert "missing" not in answer
    times = [row["updated_at"] for row in answer["audit_logs"]]
    assert times == sorted(times, reverse=True)


def test_without_litellm_our_rows_are_shown(audited: Audited) -> None:
    audited.rig.ask("alice", "POST", f"/keys/{KEY}/block")
    audited.rig.litellm.failures["/audit"] = dropped()
    answer = audited.answer()
    assert [row["action"] for row in answer["audit_logs"]] == ["blocked"]
    assert answer["total"] == 1
    assert "LiteLLM's own log are missing" in answer["missing"]


def test_a_litellm_without_the_route_has_no_rows(audited: Audited) -> None:
    audited.rig.litellm.failures["/audit"] = 404
    assert audited.answer() == {
        "audit_logs": [],
        "total": 0,
        "page": 1,
        "page_size": 25,
        "total_pages": 0,
    }


def test_without_the_store_litellms_rows_are_shown(
    audited_at: Callable[[Path | None], Audited], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    audited = audited_at(tmp_path / "file" / "store.db")
    assert audited.rig.ask("alice", "POST", f"/keys/{KEY}/block").status_code == 200
    answer = audited.answer()
    assert answer["total"] == len(answer["audit_logs"]) > 0
    assert "events of this service are missing" in answer["missing"]
    assert str(tmp_path) not in answer["missing"]
    audited.rig.litellm.failures["/audit"] = 500
    assert audited.rig.ask("alice", "GET", "/audit").status_code == 500


class FakeLiteLLM:
    """Has rows at the times ``at``, and counts how often it is asked."""

    def __init__(self, at: list[datetime]) -> None:
        self.asked = 0
        self.rows = [_their_row(number, moment) for number, moment in enumerate(at)]

    def audit_log(self, query: dict[str, str]) -> Json:
        self.asked += 1
        rows = [row for row in self.rows if _within(row["updated_at"], query)]
        rows.sort(key=lambda row: row["updated_at"], reverse=query.get("sort_order") != "asc")
        size, first = int(query["page_size"]), int(query["page"]) - 1
        return {"audit_logs": rows[first * size :][:size], "total": len(rows)}


def _their_row(number: int, moment: datetime) -> Json:
    text = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"id": f"theirs-{number}", "updated_at": text, "action": "created"}


def _within(at: str, query: dict[str, str]) -> bool:
    start = datetime.fromisoformat(query.get("start_date", "0001-01-01T00:00:00Z"))
    end = datetime.fromisoformat(query.get("end_date", "9999-01-01T00:00:00Z"))
    return start <= datetime.fromisoformat(at) <= end


STORE = Store(Database())


def _reader(ours: list[datetime], theirs: list[datetime]) -> tuple[AuditReader, FakeLiteLLM]:
    with STORE.write() as connection:
        for table in metadata.tables.values():
            connection.execute(delete(table))
    events = AuditEvents(STORE)
    events.append(Head("chain", "host", "x"), [event(at=iso(moment)) for moment in ours])
    litellm = FakeLiteLLM(theirs)
    writer = AuditWriter(events, lambda: START, 0)
    return AuditReader(litellm, writer), litellm  # type: ignore[arg-type]


# Moments few milliseconds apart, over midnight, so that many are equal.
moments = st.lists(
    st.integers(0, 30).map(lambda number: START + timedelta(milliseconds=number)), max_size=12
)
far = st.lists(st.integers(0, 10).map(lambda days: START + timedelta(days=days)), max_size=12)


@given(
    ours=moments | far,
    theirs=moments | far,
    page_size=st.integers(1, 5),
    order=st.sampled_from(["asc", "desc"]),
    limits=st.tuples(st.none() | st.integers(0, 30), st.none() | st.integers(0, 30)),
)
def test_all_pages_together_are_all_rows_in_order(
    ours: list[datetime],
    theirs: list[datetime],
    page_size: int,
    order: str,
    limits: tuple[int | None, int | None],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Small, so that few rows are many chunks.
        patch.setattr("litellm_plugin.audit.reader.CHUNK", 3)
        reader, litellm = _reader(ours, theirs)
        query = {"page_size": str(page_size), "sort_order": order}
        for name, limit in zip(("start_date", "end_date"), limits, strict=True):
            if limit is not None:
                query[name] = (START + timedelta(milliseconds=limit)).isoformat()
        first = reader.page(query)
        rows: list[Json] = []
        for page in range(1, first["total_pages"] + 2):
            litellm.asked = 0
            answer = reader.page({**query, "page": str(page)})
            assert litellm.asked <= 3 + math.ceil(math.log2(len(theirs) + 1))
            assert answer["total"] == first["total"]
            rows += answer["audit_logs"]
    assert len(rows) == first["total"]
    assert len({row["id"] for row in rows}) == len(rows)
    times = [datetime.fromisoformat(row["updated_at"]) for row in rows]
    assert times == sorted(times, reverse=order == "desc")
    wanted = [moment for moment in [*ours, *theirs] if _within(moment.isoformat(), query)]
    assert sorted(times) == sorted(wanted)


def test_a_deep_page_costs_litellm_few_calls() -> None:
    theirs = [START + timedelta(seconds=2 * number) for number in range(5000)]
    ours = [START + timedelta(seconds=2 * number + 1) for number in range(5000)]
    reader, litellm = _reader(ours, theirs)
    answer = reader.page({"page": "200", "page_size": "25"})
    assert litellm.asked <= 9  # 50 pages of 100 rows: 6 doublings, and 3
    assert answer["total"] == 10_000
    times = [datetime.fromisoformat(row["updated_at"]) for row in answer["audit_logs"]]
    assert times == [START + timedelta(seconds=9999 - 4975 - number) for number in range(25)]


def test_litellm_that_answers_nonsense_is_missing() -> None:
    reader, litellm = _reader([START], [])
    answers: list[Any] = [
        [],
        {},
        {"audit_logs": None, "total": 1},
        {"audit_logs": [{}], "total": 1},
    ]
    for answer in answers:
        litellm.audit_log = lambda _query, said=answer: said  # type: ignore[method-assign, misc]
        page = reader.page({})
        assert page["total"] == 1
        assert "missing" in page
