"""``GET /audit`` from the store, merged with the rows of LiteLLM's own audit log."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from litellm_plugin import fields
from litellm_plugin.audit.writer import DENIED, AuditWriter
from litellm_plugin.audit_log import (
    EQUAL,
    MAX_PAGE_SIZE,
    PAGE_SIZE,
    TIMES,
    TOO_MANY,
    positive,
    time_fault,
)
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.clock import iso
from litellm_plugin.errors import BadRequest, UpstreamError
from litellm_plugin.shapes import present
from litellm_plugin.store.audit import AuditEvents, Filter
from litellm_plugin.store.database import StoreUnavailable

log = logging.getLogger(__name__)

CHUNK = MAX_PAGE_SIZE  # rows of one call to LiteLLM
ORDERS = ("desc", "asc")


@dataclass(frozen=True, slots=True)
class _Asked:
    """The checked parameters of a request."""

    page: int
    page_size: int
    wanted: Filter
    newest_first: bool

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.page_size


class AuditReader:
    """Reads pages of the audit log: events of the store and rows of LiteLLM, by time.

    The queue of ``writer`` is written to the store before a page is read.
    """

    def __init__(self, litellm: LiteLLM, writer: AuditWriter) -> None:
        self._litellm = litellm
        self._writer = writer

    def page(self, query: Mapping[str, str]) -> Json:
        """Return a page, by ``page``, ``page_size``, the filters, ``sort_order`` and ``include``.

        If LiteLLM or the store is unavailable, the answer has the rows of the other, and
        ``missing`` names the one that is unavailable. One call goes to LiteLLM if it has no rows or
        the page is within its first 100 rows; else at most 3, and one for each doubling of its
        number of pages of 100 rows.

        Raises:
            BadRequest: A parameter is wrong.
            UpstreamError: LiteLLM and the store are unavailable.
        """
        asked = _asked(query)
        missing: list[str] = []
        if not self._writer.failing:
            self._writer.flush()
        try:
            days = self._writer.events.days(asked.wanted)
        except StoreUnavailable as exc:
            days = {}
            log.warning("The audit events can't be read: %s", exc)
            missing.append("The events of this service are missing: its database is unavailable")
        ours = _Ours(self._writer.events, asked, days)
        theirs = _Theirs(self._litellm, asked)
        try:
            rows = _merged(ours, theirs, asked)
        except UpstreamError as exc:
            if missing:
                raise
            missing.append(f"The entries of LiteLLM's own log are missing: {exc}")
            theirs.total = 0
            rows = ours.rows(asked.offset, asked.page_size)
        total = ours.total + theirs.total
        answer: Json = {
            "audit_logs": rows,
            "total": total,
            "page": asked.page,
            "page_size": asked.page_size,
            "total_pages": -(-total // asked.page_size),
        }
        return {**answer, "missing": " ".join(missing)} if missing else answer

    def keys(self, hashes: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return owner and alias of keys, as ``AuditEvents.keys``; none while the store is down."""
        try:
            return self._writer.events.keys(hashes)
        except StoreUnavailable as exc:
            log.warning("owners and aliases of deleted keys can't be read: %s", exc)
            return {}


@dataclass(frozen=True, slots=True)
class _Ours:
    """The events of the store that a request asks for; ``days`` has their number by day."""

    events: AuditEvents
    asked: _Asked
    days: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.days.values())

    def rows(self, offset: int, limit: int) -> list[Json]:
        wanted, newest_first = self.asked.wanted, self.asked.newest_first
        rows = self.events.page(
            wanted, self.days, offset=offset, limit=limit, newest_first=newest_first
        )
        return [_row(row) for row in rows]

    def before(self, at: str) -> int:
        """Return the number of events that come before a row of LiteLLM with the time ``at``."""
        if self.total == 0:
            return 0
        wanted = self.asked.wanted
        if self.asked.newest_first:
            wanted = replace(wanted, start=max(wanted.start or "", at))
        else:
            wanted = replace(wanted, end=at if wanted.end is None else min(wanted.end, at))
        return sum(self.events.days(wanted).values())


class _Theirs:
    """The rows of LiteLLM's audit log that a request asks for, in the request's order.

    Attributes:
        total: Their number; 0 until :meth:`begin` has read it.
    """

    def __init__(self, litellm: LiteLLM, asked: _Asked) -> None:
        self._litellm = litellm
        wanted = asked.wanted
        self._query = present(
            start_date=wanted.start,
            end_date=wanted.end,
            action=wanted.action,
            table_name=wanted.table_name,
            changed_by=wanted.changed_by,
            sort_order=None if asked.newest_first else "asc",  # LiteLLM's default is desc
        )
        self._first: list[Json] = []
        self._chunks: dict[int, list[Json]] = {}
        self.total = 0

    def begin(self, number: int) -> None:
        """Read :attr:`total` and the first rows, at most ``number`` and :data:`CHUNK`."""
        self._first = self._read(1, min(number, CHUNK))

    def row(self, index: int) -> Json:
        """Return the row with this index."""
        if index < len(self._first):
            return self._first[index]
        chunk, place = divmod(index, CHUNK)
        if chunk not in self._chunks:
            rows = self._read(chunk + 1, CHUNK)
            if len(rows) < min(CHUNK, self.total - chunk * CHUNK):
                raise UpstreamError("LiteLLM's audit log changed while it was read; try again")
            self._chunks[chunk] = rows
        return self._chunks[chunk][place]

    def _read(self, page: int, page_size: int) -> list[Json]:
        query = {**self._query, "page": str(page), "page_size": str(page_size)}
        try:
            answer = self._litellm.audit_log(query)
        except UpstreamError as exc:
            if exc.answered != 404:
                raise
            answer = {"audit_logs": [], "total": 0}  # a LiteLLM without this route
        rows = answer.get("audit_logs") if isinstance(answer, dict) else None
        total = answer.get("total") if isinstance(answer, dict) else None
        if not isinstance(rows, list) or not isinstance(total, int):
            raise UpstreamError("LiteLLM's audit log can't be read")
        self.total = total
        return rows


def _merged(ours: _Ours, theirs: _Theirs, asked: _Asked) -> list[Json]:
    """Return the rows of the page; at equal times, events of the store come first."""
    theirs.begin(asked.offset + asked.page_size)
    if theirs.total == 0:
        return ours.rows(asked.offset, asked.page_size)
    # A binary search for the number of LiteLLM's rows before the page: at least the offset less
    # all events of the store.
    low = max(0, asked.offset - ours.total)
    high = min(asked.offset, theirs.total)
    before = bisect_left(
        range(high),
        asked.offset,
        lo=min(low, high),
        key=lambda index: index + ours.before(_time(theirs.row(index))),
    )
    mine = ours.rows(asked.offset - before, asked.page_size)
    stop = min(before + asked.page_size, theirs.total)
    foreign = [theirs.row(index) for index in range(before, stop)]
    rows = sorted([*mine, *foreign], key=_time, reverse=asked.newest_first)
    return rows[: asked.page_size]


def _row(event: Any) -> Json:
    """Return an event in the shape of LiteLLM's rows."""
    return {
        "id": f"{event.chain}-{event.sequence}",
        "updated_at": event.at.replace("Z", "000Z"),  # LiteLLM writes six digits
        "changed_by": event.changed_by,
        "changed_by_api_key": "",
        "action": event.action,
        "table_name": event.table_name,
        "object_id": event.object_id,
        "before_value": event.before_value,
        "updated_values": event.updated_values,
    }


def _time(row: Json) -> str:
    """Return a row's time in the form of our events.

    Raises:
        UpstreamError: LiteLLM's row has no time.
    """
    try:
        at = datetime.fromisoformat(row["updated_at"])
        return iso(at if at.tzinfo is not None else at.replace(tzinfo=UTC))
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise UpstreamError("LiteLLM's audit log has an entry without a time") from exc


def _asked(query: Mapping[str, str]) -> _Asked:
    page_size = int(positive("page_size", query.get("page_size") or str(PAGE_SIZE)))
    if page_size > MAX_PAGE_SIZE:
        raise BadRequest(TOO_MANY)
    if query.get("include") not in {None, "", DENIED}:
        raise BadRequest(f"include must be {DENIED}, or left out")
    order = query.get("sort_order") or ORDERS[0]
    if order not in ORDERS:
        raise BadRequest("sort_order must be desc or asc")
    if query.get("sort_by") not in {None, "", "updated_at"}:
        raise BadRequest("sort_by must be updated_at")
    times = {name: _moment(name, query[name]) for name in TIMES if query.get(name)}
    start, end = times.get("start_date"), times.get("end_date")
    if start is not None:
        # Rounded up to a millisecond, the precision of stored times.
        start += timedelta(microseconds=-start.microsecond % 1000)
    wanted = Filter(
        # For a NUL, which `text` refuses, PostgreSQL would fail as if it were unavailable.
        **{name: fields.text(name, query[name]) for name in EQUAL if query.get(name)},
        start=None if start is None else iso(start),
        end=None if end is None else iso(end),
        denied=query.get("include") == DENIED,
    )
    page = int(positive("page", query.get("page") or "1"))
    return _Asked(page, page_size, wanted, order == "desc")


def _moment(name: str, text: str) -> datetime:
    fault = time_fault(name, text)
    if fault is not None:
        raise BadRequest(fault)
    with suppress(OverflowError):
        return datetime.fromisoformat(text).astimezone(UTC)
    raise BadRequest(f"{name} must be a time of the years 1 to 9999")
