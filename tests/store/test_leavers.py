"""The table of leavers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from litellm_plugin.config.database import Database
from litellm_plugin.store.database import Store
from litellm_plugin.store.leavers import Leaver, LeaverTable

NOW = datetime(2026, 11, 27, 12, 0, 0, 123_000, tzinfo=UTC)
ANN = Leaver(
    "Ann@example.com",
    "ann@example.com",
    "user:default/ann",
    NOW,
    2,
    "ann@example.org",
    blocked_at=NOW,
    passes=1,
    blocking="h3",
    blocked_keys=("h1", "h2"),
)
BEN = Leaver("ben@example.com", "ben@example.com", "user:default/ben", NOW, 1)


@pytest.fixture
def table() -> LeaverTable:
    table = LeaverTable(Store(Database()))
    table.save([ANN, BEN])
    return table


def test_rows_are_read_as_they_were_written(table: LeaverTable) -> None:
    assert table.all() == {ANN.user_id: ANN, BEN.user_id: BEN}
    gone = replace(ANN, deleted_at=NOW, blocking=None, blocked_keys=())
    table.save([gone], forget=[BEN.user_id])
    assert table.all() == {ANN.user_id: gone}
    table.save([])
    assert table.all() == {ANN.user_id: gone}


@pytest.mark.parametrize(
    ("ids", "emails", "ref"),
    [
        ({"ann@example.com"}, set(), ""),
        ({"x", "ann@example.com"}, set(), ""),
        (set(), {"ann@example.org"}, ""),
        (set(), set(), "user:default/ann"),
        ({"ben@example.com"}, {"ann@example.org"}, "user:default/ben"),
    ],
)
def test_a_leaver_is_found_by_id_e_mail_or_entity(
    table: LeaverTable, ids: set[str], emails: set[str], ref: str
) -> None:
    assert table.shut_out_if_known(ids, emails, ref) == [ANN]


@pytest.mark.parametrize("row", [BEN, replace(ANN, blocked_at=None)])
def test_who_is_not_blocked_is_not_shut_out(table: LeaverTable, row: Leaver) -> None:
    table.save([row])
    assert table.shut_out_if_known({row.plain_id}, set(), row.entity_ref) == []


def test_a_database_that_cannot_be_read_is_told_from_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    file.write_text("no database, but long enough to be taken for the header of one")
    table = LeaverTable(Store(Database(file=file)))
    assert table.shut_out_if_known({"ann@example.com"}, set(), "") is None
