"""Usage reports, remembered: days that are over for longer than those that are not.

What is kept is what was added up, never LiteLLM's answer. A period that goes on is asked for in
full once; then its days that are over are kept by themselves, and LiteLLM is asked only for
the others, until it is time to ask for all of them again.
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

# What LiteLLM tells of a day that is over changes no more, but for the names of keys, and whose
# they are, where somebody changes these past us; they are out of date for so long at most.
KEPT = 300.0  # seconds

# LiteLLM counts a request on the day it began, and writes that down when it has ended: it may
# take 100 minutes (REQUEST_TIMEOUT), and writing seconds, or minutes where it goes through Redis.
LATE = timedelta(hours=2)

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Ask = Callable[[str, str], list[Any]]


class Reports:
    """Makes usage reports of what LiteLLM tells, and remembers them.

    Args:
        cache: The cache.
        now: The present time, in UTC.
    """

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
        """Return the report of a period, or the one of a moment ago; it must not be changed.

        Args:
            key: Who reads about whom.
            tags: What the report depends on.
            ask: Asks LiteLLM for the pages of a period, by first and last day.
            period: First and last day, ``YYYY-MM-DD``; with anything else LiteLLM is asked for
                just that.
            stale: As for :meth:`Cache.read`.
        """
        start, end = period
        ask = _or_nothing(ask)
        going_on = (self._now() - LATE).date().isoformat()  # the first day that is not over
        days = all(map(_DAY.fullmatch, period))

        def load() -> Json:
            if self._cache.seconds and days and start < going_on <= end:
                return self._in_parts(key, tags, ask, period, going_on)
            return usage.report(ask(start, end))

        return self._cache.read(
            (*key, start, end),
            tags,
            load,
            seconds=max(KEPT, self._cache.seconds) if days and end < going_on else None,
            weight=usage.rows,
            stale=stale,
        )

    def _in_parts(
        self,
        key: tuple[str, ...],
        tags: tuple[str, ...],
        ask: Ask,
        period: tuple[str, str],
        going_on: str,
    ) -> Json:
        start, end = period
        over = self._cache.entry((*key, start, going_on, "over"), tags, seconds=KEPT)
        if over.value is not None:
            return usage.merged(usage.report(ask(going_on, end)), over.value)
        pages = ask(start, end)
        parts = usage.parts(pages, going_on)
        if parts is None:
            return usage.report(pages)
        newer, older = parts
        over.keep(older, usage.rows(older))
        return usage.merged(newer, older)


def _or_nothing(ask: Ask) -> Ask:
    """Return ``ask`` that tells of no usage where LiteLLM refuses to tell of none.

    LiteLLM may not know a user or a team that has used nothing yet (404; 500 "not found" from
    old versions), and from 1.108 on it refuses an end before the start, which was an empty
    answer before (400).
    """

    def asked(start: str, end: str) -> list[Any]:
        try:
            return ask(start, end)
        except UpstreamError as exc:
            unknown = exc.answered == 404 or (exc.answered == 500 and "not found" in exc.message)
            days = _DAY.fullmatch(start) and _DAY.fullmatch(end)
            if unknown or (exc.answered == 400 and days and end < start):
                return []
            raise

    return asked
