"""Usage of days that are over, from the store, compared with LiteLLM's sums at each read.

LiteLLM may add to a day that is over: after an outage of its database, with the cost of a batch, or
by hand. Its sums by key cost it little, so they are read each time, and kept days are used only if
they add up to the same. LiteLLM before 1.106 has no such sums, and kept days are not used.
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

# Older days are deleted. LiteLLM sums up 400 days at most.
KEPT_DAYS = timedelta(days=400)


class KeptDays:
    """The kept days of a user or a team.

    Where the store is unavailable, LiteLLM is asked for all days.
    """

    def __init__(self, table: UsageDays, now: Clock, subject: Subject) -> None:
        self._table = table
        self._subject = subject
        self._oldest = (now() - KEPT_DAYS).date().isoformat()

    def report(self, pages: Ask, start: str, end: str) -> Json | None:
        """Return the report of days that are over, with the present names of keys.

        Days that are not kept are read from LiteLLM, in one period, and kept.

        Args:
            pages: Reads LiteLLM's pages of a period.
            start: The first day, ``YYYY-MM-DD``.
            end: The last day, included.

        Returns:
            None where LiteLLM has to be asked for all days.
        """
        if start < self._oldest:
            return None
        try:
            days = self._table.read(self._subject.kind, self._subject.id, start, end)
        except StoreUnavailable as exc:
            log.warning("The usage of days that are over is read from LiteLLM: %s", exc)
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
            new = _whole(found, first, last)
            days |= new
        report = _joined(days)
        names = self._names_if_same(report, start, end)
        if names is None:
            return None
        if new:
            self._write(new)
        return usage.renamed(report, names)

    def parts(self, pages: Sequence[Any], start: str, last: str) -> tuple[Json, Json] | None:
        """Add up daily activity as :func:`usage.parts`, and keep the days until ``last``.

        Args:
            pages: LiteLLM's pages of a period.
            start: The first day of the period.
            last: The last of its days that is over.
        """
        days = usage.by_day(pages)
        if days is None:
            return None
        older = {day: report for day, report in days.items() if day <= last}
        # A period without any usage costs LiteLLM little, and a service may name any team.
        if older and start >= self._oldest:
            self._write(_whole(older, start, last))
        return _joined({day: days[day] for day in days.keys() - older.keys()}), _joined(older)

    def _names_if_same(self, report: Json, start: str, end: str) -> dict[str, Any] | None:
        """Return LiteLLM's metadata by key; None where its sums differ from a report's totals."""
        whose = f"{self._subject.kind} {self._subject.id}"
        try:
            keys = self._subject.keys_used(start, end)
        except PluginError as exc:
            log.info("LiteLLM's sums of %s can't be read: %s", whose, exc)
            return None
        if not usage.adds_up_to(report, keys):
            log.info("the usage of %s has changed, and is read again", whose)
            return None
        return {str(key.get("api_key")): key.get("metadata") for key in keys}

    def _write(self, days: Mapping[str, Json | None]) -> None:
        subject = self._subject
        try:
            self._table.write(subject.kind, subject.id, days, oldest=self._oldest)
        except StoreUnavailable as exc:
            log.warning("The usage of days that are over can't be kept now: %s", exc)


def _joined(days: Mapping[str, Json | None]) -> Json:
    newest_first = sorted(days, reverse=True)
    return usage.joined(report for day in newest_first if (report := days[day]))


def _whole(days: Mapping[str, Json], start: str, end: str) -> dict[str, Json | None]:
    """Return every day of a period, None where it has no usage."""
    return {day: days.get(day) for day in _days(start, end)}


def _days(start: str, end: str) -> list[str]:
    first, last = date.fromisoformat(start), date.fromisoformat(end)
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
