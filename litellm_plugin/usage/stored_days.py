"""Usage of past days in the store, compared with LiteLLM's sums at each read.

LiteLLM may add to a past day: after an outage of its database, or with the cost of a batch. So its
sums by key, a cheap read, are read each time, and stored days are used only if they add up to these
sums. LiteLLM before 1.106 has no such sums; then stored days are not used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from litellm_plugin.clock import Clock
from litellm_plugin.errors import PluginError
from litellm_plugin.shapes import Json
from litellm_plugin.store.database import StoreUnavailable
from litellm_plugin.store.usage_days import UsageDays
from litellm_plugin.usage import report as usage
from litellm_plugin.usage.periods import Ask, Subject

log = logging.getLogger(__name__)

# Older days are deleted. LiteLLM's sums are of 400 days at most.
MAX_AGE = timedelta(days=400)


class StoredDays:
    """The stored days of a user or a team.

    While the store is unavailable, LiteLLM is asked for all days.
    """

    def __init__(self, table: UsageDays, now: Clock, subject: Subject) -> None:
        self._table = table
        self._subject = subject
        self._oldest = (now() - MAX_AGE).date().isoformat()

    def report(self, pages: Ask, start: str, end: str) -> Json | None:
        """Return the report of past days, with the present names of keys.

        Days that are not stored are read from LiteLLM, in one period, and stored.

        Args:
            pages: Reads LiteLLM's pages of a period.
            start: The first day, ``YYYY-MM-DD``.
            end: The last day, included.

        Returns:
            The report; None where LiteLLM has to be asked for all days.
        """
        if start < self._oldest:
            return None
        try:
            days = self._table.read(self._subject.kind, self._subject.id, start, end)
        except StoreUnavailable as exc:
            log.warning("the usage of past days is read from LiteLLM, not from the store: %s", exc)
            return None
        if not days:
            return None
        missing = [day for day in _days(start, end) if day not in days]
        new: dict[str, Json | None] = {}
        if missing:
            first, last = missing[0], missing[-1]
            found = usage.by_day(pages(first, last))
            if found is None:
                return None
            new = _every_day(found, first, last)
            days |= new
        report = _joined(days)
        names = self._key_names(report, start, end)
        if names is None:
            return None
        if new:
            self._write(new)
        return usage.renamed(report, names)

    def parts(self, pages: Sequence[Any], start: str, last: str) -> tuple[Json, Json] | None:
        """Add up daily activity as :func:`usage.parts` does, and store its past days.

        ``start`` is the first day of the pages, and ``last`` the last past one.
        """
        days = usage.by_day(pages)
        if days is None:
            return None
        older = {day: report for day, report in days.items() if day <= last}
        # Empty periods are not stored: LiteLLM reads them fast, and a service may name any team.
        if older and start >= self._oldest:
            self._write(_every_day(older, start, last))
        return _joined({day: days[day] for day in days.keys() - older.keys()}), _joined(older)

    def _key_names(self, report: Json, start: str, end: str) -> dict[str, Any] | None:
        """Return LiteLLM's metadata by key; None if LiteLLM's sums differ from the report's."""
        whose = f"{self._subject.kind} {self._subject.id}"
        try:
            keys = self._subject.key_sums(start, end)
        except PluginError as exc:
            log.info("LiteLLM's sums of %s can't be read: %s", whose, exc)
            return None
        if not usage.adds_up_to(report, keys):
            log.info("the usage of %s has changed at LiteLLM, and is read again", whose)
            return None
        return {str(key.get("api_key")): key.get("metadata") for key in keys}

    def _write(self, days: Mapping[str, Json | None]) -> None:
        subject = self._subject
        try:
            self._table.write(subject.kind, subject.id, days, oldest=self._oldest)
        except StoreUnavailable as exc:
            log.warning("the usage of past days is not stored: %s", exc)


def _joined(days: Mapping[str, Json | None]) -> Json:
    newest_first = sorted(days, reverse=True)
    return usage.joined(report for day in newest_first if (report := days[day]))


def _every_day(days: Mapping[str, Json], start: str, end: str) -> dict[str, Json | None]:
    """Return every day of a period, None where it has no usage."""
    return {day: days.get(day) for day in _days(start, end)}


def _days(start: str, end: str) -> list[str]:
    first, last = date.fromisoformat(start), date.fromisoformat(end)
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
