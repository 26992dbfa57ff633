"""The usage of past days: a row for each day of a user or a team."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, select

from litellm_plugin.shapes import Json
from litellm_plugin.store.database import Store, upsert
from litellm_plugin.store.tables import usage_days

_c = usage_days.c


class UsageDays:
    """Reads and writes days of usage. Every method may raise ``StoreUnavailable``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, subject: str, subject_id: str, start: str, end: str) -> dict[str, Json | None]:
        """Return the stored reports of a period, by day; None for a day without usage.

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
        """Insert or replace days; delete the days of all subjects before ``oldest``.

        The arguments are those of :meth:`read`, and ``days`` as it returns them.
        """
        rows = [
            {"subject": subject, "subject_id": subject_id, "day": day, "report": report}
            for day, report in sorted(days.items())  # sorted, against deadlocks
        ]
        with self._store.write() as connection:
            upsert(connection, usage_days, rows)
            connection.execute(delete(usage_days).where(_c.day < oldest))
