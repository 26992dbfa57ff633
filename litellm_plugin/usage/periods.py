"""Usage reports with a cache: past days are cached longer than days that still change.

The cache holds reports, not LiteLLM's answers. For a period with both kinds of days, LiteLLM
is asked once for all of them. The report of the past days is then cached by itself, and until
it expires LiteLLM is asked only for the other days.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from litellm_plugin.cache.cache import Cache
from litellm_plugin.clock import Clock
from litellm_plugin.errors import UpstreamError
from litellm_plugin.shapes import Json
from litellm_plugin.usage import report as usage

# TTL of past days in seconds. Their figures don't change; names and owners of keys may, where
# they are changed in LiteLLM itself.
KEPT = 300.0

# A day's figures are final this long after midnight: LiteLLM counts a request on the day it
# began, but records it at its end. A request may take 100 minutes (REQUEST_TIMEOUT).
LATE = timedelta(hours=2)

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Ask = Callable[[str, str], list[Any]]  # LiteLLM's pages, given the first and the last day


class Reports:
    """Reads usage reports."""

    def __init__(self, cache: Cache, now: Clock) -> None:
        self._cache = cache
        self._now = now

    def read(
        self,
        key: tuple[str, ...],
        tags: tuple[str, ...],
        ask: Ask,
        period: tuple[str, str],
        *,
        stale: Callable[[float], None],
    ) -> Json:
        """Return the report of a period; callers must not modify it.

        Args:
            key: Reader and subject of the report.
            tags: Cache tags that invalidate the report.
            ask: Reads LiteLLM's pages of a period.
            period: First and last day, ``YYYY-MM-DD``; other texts go to LiteLLM as they are.
            stale: As for :meth:`Cache.read`.
        """
        start, end = period
        unfinished = (self._now() - LATE).date().isoformat()  # the first day that is not past
        days = all(map(_DAY.fullmatch, period))

        def load() -> Json:
            if not (self._cache.seconds and days and start < unfinished <= end):
                return usage.report(pages_of(ask, start, end))
            whole: list[Any] | None = None  # the pages of the whole period, if they were read
            newer: Json | None = None

            def past() -> Json | None:
                nonlocal whole, newer
                whole = pages_of(ask, start, end)
                newer, older = usage.parts(whole, unfinished) or (None, None)
                return older

            older = self._cache.read(
                (*key, start, unfinished, "past"),
                tags,
                past,
                seconds=KEPT,
                weight=lambda report: usage.rows(report) if report else 1,
            )
            if older is None:  # the days can't be told apart
                return usage.report(pages_of(ask, start, end) if whole is None else whole)
            return usage.merged(newer or usage.report(pages_of(ask, unfinished, end)), older)

        return self._cache.read(
            (*key, start, end),
            tags,
            load,
            seconds=max(KEPT, self._cache.seconds) if days and end < unfinished else None,
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
        days = _DAY.fullmatch(start) and _DAY.fullmatch(end)
        if unknown or (exc.answered == 400 and days and end < start):
            return []
        raise
