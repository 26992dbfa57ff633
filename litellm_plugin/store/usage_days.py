"""The usage of days that are over: a row for each day of a user or a team."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select

from litellm_plugin.store.database import Store, insert_of
from litellm_plugin.store.tables import usage_days

Json = dict[str, Any]

_c = usage_days.c


class UsageDays:
    """Reads and writes days of usage. Every method may raise ``StoreUnavailable``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, subject: str, subject_id: str, start: str, end: str) -> dict[str, Json | None]:
        """Return the known days of a period by date; None is a day without usage.

        Args:
            subject: ``user`` or ``team``.
            subject_id: LiteLLM's id.
            start: The first day, ``YYYY-MM-DD``.
            end: The last day, included.
        """
        query = select(_c.day, _c.report).where(
            _c.subject == subject, _c.subject_id == subject_id, _c.day.between(start, end)
        )
        with self._store.read() as connection:
            return {row.day: row.report for row in connection.execute(query)}

    def write(
        self, subject: str, subject_id: str, days: Mapping[str, Json | None], *, oldest: str
    ) -> None:
        """Write days, in place of known ones, and delete those before ``oldest`` of everybody."""
        rows = [
            {"subject": subject, "subject_id": subject_id, "day": day, "report": report}
            for day, report in sorted(days.items())  # in one order, so that no deadlock is possible
        ]
        with self._store.write() as connection:
            insert = insert_of(connection, usage_days)
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["subject", "subject_id", "day"],
                    set_={"report": insert.excluded.report},
                ),
                rows,
            )
            connection.execute(delete(usage_days).where(_c.day < oldest))
