"""Which notices were sent to whom. Every function may raise ``StoreUnavailable``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import delete, insert, select

from litellm_plugin.store.database import Store
from litellm_plugin.store.tables import notices

_AT_ONCE = 500  # ids in one query


class SentNotice(NamedTuple):
    """A notice that was sent."""

    subject: str  # user, key or team
    subject_id: str  # its id at LiteLLM
    threshold: str  # such as budget-80
    period: str  # when the budget's period or the key ends, as text; or lifetime
    recipient: str  # entity ref of a person, or webhook


def sent_about(store: Store, subject_ids: Iterable[str]) -> set[SentNotice]:
    """Return the notices that were sent about some users, keys or teams."""
    ids = sorted(set(subject_ids))
    found: set[SentNotice] = set()
    c = notices.c
    wanted = select(c.subject, c.subject_id, c.threshold, c.period, c.recipient)
    with store.read() as connection:
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            rows = connection.execute(wanted.where(c.subject_id.in_(part)))
            found.update(SentNotice(*row) for row in rows)
    return found


def record(store: Store, notice: SentNotice, at: str) -> None:
    """Record that a notice was sent at a time, as ``clock.stamp`` writes it."""
    with store.write() as connection:
        connection.execute(insert(notices).values(**notice._asdict(), sent_at=at))


def prune(store: Store, before: str) -> None:
    """Delete the notices that were sent before a time and whose period or key ended before it."""
    # The period "lifetime" sorts after every time. LiteLLM may renew a budget late: without the
    # second condition each run would delete and send again a notice about an old period.
    old = (notices.c.period < before) & (notices.c.sent_at < before)
    with store.write() as connection:
        connection.execute(delete(notices).where(old))
