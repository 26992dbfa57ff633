"""The table of leavers; ``tests/routes/test_leavers.py`` has what a leaver is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

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


def test_rows_are_read_as_they_were_written() -> None:
    table = LeaverTable(Store(Database()))
    table.save([ANN, BEN])
    assert table.all() == {ANN.user_id: ANN, BEN.user_id: BEN}
    gone = replace(BEN, deleted_at=NOW)
    table.save([gone], forget=[ANN.user_id])
    assert table.all() == {BEN.user_id: gone}
    assert table.shut_out_if_known(set(), set(), BEN.entity_ref) == [gone], "found by entity alone"
    assert table.shut_out_if_known(set(), set(), "") == []
