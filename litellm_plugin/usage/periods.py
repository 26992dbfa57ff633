"""Usage reports with a cache: past days are cached longer than days that still change.

The cache holds reports, not LiteLLM's answers. For a period with both kinds of days, LiteLLM
is asked once for all of them. The report of the past days is then cached by itself, and until
it expires LiteLLM is asked only for the other days. Where ``litellm.usage.store`` is on, past days
are also kept in the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from litellm_plugin.cache.cache import Cache
from litellm_plugin.clock import Clock
from litellm_plugin.errors import UpstreamError
from litellm_plugin.shapes import Json
from litellm_plugin.usage import report as usage

if TYPE_CHECKING:  # imports SQLAlchemy, which only some configurations need
    from litellm_plugin.usage.kept import KeptDays

# TTL of past days in seconds. Their figures don't change; names and owners of keys may, where
# they are changed in LiteLLM itself.
KEPT = 300.0

# A day's figures are final this long after midnight: LiteLLM counts a request on the day it
# began, but records it at its end. A request may take 100 minutes (REQUEST_TIMEOUT).
LATE = timedelta(hours=2)

Ask = Callable[[str, str], list[Any]]  # LiteLLM's pages, given the first and the last day


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose days are kept in the store.

    Attributes:
        kind: ``user`` or ``team``.
        id: LiteLLM's id.
        keys_used: Reads what each key has used from a first to a last day, as
            :meth:`~litellm_plugin.clients.litellm.LiteLLM.user_keys_used`.
    """

    kind: str
    id: str
    keys_used: Callable[[str, str], list[Json]]


class Reports:
    """Reads usage reports."""

    def __init__(
        self, cache: Cache, now: Clock, kept: Callable[[Subject], KeptDays] | None = None
    ) -> None:
        self._cache = cache
        self._now = now
        self._kept = kept  # None: litellm.usage.store is off

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
            subject: Whose days are kept; None: they are not.
        """
        start, end = period
        yesterday = self._now() - LATE - timedelta(days=1)
        last = min(end, yesterday.date().isoformat())  # the last past day of the period
        days = all(map(_is_day, period))
        kept = self._kept(subject) if self._kept and subject else None

        def load() -> Json:
            if not (days and start <= last and (kept or (self._cache.seconds and last < end))):
                return usage.report(pages_of(ask, start, end))
            whole: list[Any] | None = None  # the pages of the whole period, if they were read
            newer: Json | None = None

            def past() -> Json | None:
                nonlocal whole, newer
                older = kept.report(partial(pages_of, ask), start, last) if kept else None
                if older is None:
                    whole = pages_of(ask, start, end)
                    parts = kept.parts(whole, start, last) if kept else None
                    newer, older = parts or usage.parts(whole, _after(last)) or (None, None)
                return older

            if last == end:
                older = past()
            else:
                older = self._cache.read(
                    (*key, start, _after(last), "past"),
                    tags,
                    past,
                    seconds=KEPT,
                    weight=lambda report: usage.rows(report) if report else 1,
                )
            if older is None:  # the days can't be told apart
                return usage.report(pages_of(ask, start, end) if whole is None else whole)
            if last == end:
                return older
            return usage.merged(newer or usage.report(pages_of(ask, _after(last), end)), older)

        return self._cache.read(
            (*key, start, end),
            tags,
            load,
            seconds=max(KEPT, self._cache.seconds) if days and last == end else None,
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
        backwards = end < start and _is_day(start) and _is_day(end)
        if unknown or (exc.answered == 400 and backwards):
            return []
        raise


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()
