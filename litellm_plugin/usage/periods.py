"""Usage reports with a cache: past days are cached longer than days that still change.

The cache holds reports, not LiteLLM's answers. For a period with both kinds of days, LiteLLM
is asked once for all of them. The report of the past days is then cached by itself, and until
it expires LiteLLM is asked only for the other days. With ``litellm.usage.store`` past days are in
the store too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from litellm_plugin.cache.cache import Cache
from litellm_plugin.clock import Clock, is_day
from litellm_plugin.errors import UpstreamError
from litellm_plugin.shapes import Json
from litellm_plugin.usage import report as usage

if TYPE_CHECKING:  # imports SQLAlchemy, which only some configurations need
    from litellm_plugin.usage.stored_days import StoredDays

# TTL in seconds. Figures of past days rarely change; names and owners of keys may, where they are
# changed in LiteLLM itself.
PAST_DAYS_TTL = 300.0

# A day's figures are final this long after midnight: LiteLLM counts a request on the day it
# began, but records it at its end. A request may take 100 minutes (REQUEST_TIMEOUT).
LATE = timedelta(hours=2)

Ask = Callable[[str, str], list[Any]]  # LiteLLM's pages, given the first and the last day


@dataclass(frozen=True, slots=True)
class Subject:
    """A user or a team whose past days are stored."""

    kind: str  # user or team
    id: str  # LiteLLM's
    # Reads what each key has used from a first to a last day, as LiteLLM.user_key_sums.
    key_sums: Callable[[str, str], list[Json]]


class Reports:
    """Reads usage reports."""

    def __init__(
        self, cache: Cache, now: Clock, stored: Callable[[Subject], StoredDays] | None = None
    ) -> None:
        self._cache = cache
        self._now = now
        self._stored = stored  # None: litellm.usage.store is off

    def read(
        self,
        key: tuple[str, ...],
        tags: tuple[str, ...],
        ask: Ask,
        period: tuple[str, str],
        *,
        stale: Callable[[float], None],
        subject: Subject | None = None,
    ) -> Json:
        """Return the report of a period; callers must not modify it.

        Args:
            key: Reader and subject of the report.
            tags: Cache tags that invalidate the report.
            ask: Reads LiteLLM's pages of a period.
            period: First and last day, ``YYYY-MM-DD``; other texts go to LiteLLM as they are.
            stale: As for :meth:`Cache.read`.
            subject: The user or team whose past days are stored; None: they are not stored.
        """
        start, end = period
        yesterday = self._now() - LATE - timedelta(days=1)
        last = min(end, yesterday.date().isoformat())  # the last past day of the period
        days = all(map(is_day, period))
        stored = self._stored(subject) if self._stored and subject else None

        def load() -> Json:
            if not (days and start <= last and (stored or (self._cache.seconds and last < end))):
                return usage.report(pages_of(ask, start, end))
            whole: list[Any] | None = None  # the pages of the whole period, if they were read
            newer: Json | None = None

            def past() -> Json | None:
                nonlocal whole, newer
                older = stored.report(partial(pages_of, ask), start, last) if stored else None
                if older is None:
                    whole = pages_of(ask, start, end)
                    parts = stored.parts(whole, start, last) if stored else None
                    newer, older = parts or usage.parts(whole, _after(last)) or (None, None)
                return older

            if last == end:
                older = past()
            else:
                older = self._cache.read(
                    (*key, start, _after(last), "past"),
                    tags,
                    past,
                    seconds=PAST_DAYS_TTL,
                    weight=lambda report: usage.rows(report) if report else 1,
                )
            if older is None:  # days are not in order, or do not add up
                return usage.report(pages_of(ask, start, end) if whole is None else whole)
            if last == end:
                return older
            return usage.merged(newer or usage.report(pages_of(ask, _after(last), end)), older)

        return self._cache.read(
            (*key, start, end),
            tags,
            load,
            seconds=max(PAST_DAYS_TTL, self._cache.seconds) if days and last == end else None,
            weight=usage.rows,
            stale=stale,
        )


def pages_of(ask: Ask, start: str, end: str) -> list[Any]:
    """Read LiteLLM's pages of a period; none where LiteLLM reports no usage as an error.

    LiteLLM may not know a user or a team without any usage (404; old versions 500 "not found").
    From 1.108 on it refuses a period that ends before it starts (400).
    """
    try:
        return ask(start, end)
    except UpstreamError as exc:
        unknown = exc.answered == 404 or (exc.answered == 500 and "not found" in exc.message)
        backwards = end < start and is_day(start) and is_day(end)
        if unknown or (exc.answered == 400 and backwards):
            return []
        raise


def _after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()
