"""The table of leavers: accounts whose owner's entity is missing in the catalog."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, insert, or_, select

from litellm_plugin.clock import stamp
from litellm_plugin.store.database import Store, StoreUnavailable
from litellm_plugin.store.tables import job_runs, leavers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leaver:
    """An account whose owner's entity is missing in the catalog.

    Attributes:
        user_id: LiteLLM's id.
        plain_id: The id without letter case and outer blanks, to compare ids by.
        entity_ref: The owner's entity ref, in lower case.
        missing_since: When a run first saw the entity missing.
        runs_missing: How many runs have seen it missing; 0: the entity is back, and the keys are
            being unblocked.
        email: The owner's e-mail, in lower case.
        blocked_at: When blocking of the keys began; after the first pass, when a run last saw the
            keys and found none left to block.
        passes: How often a run has gone through all keys since then.
        blocking: Hash of the key that is about to be blocked.
        blocked_keys: Hashes of the keys that offboarding has blocked.
        deleted_at: When the account was deleted, or found to be deleted.
    """

    user_id: str
    plain_id: str
    entity_ref: str
    missing_since: datetime
    runs_missing: int
    email: str | None = None
    blocked_at: datetime | None = None
    passes: int = 0
    blocking: str | None = None
    blocked_keys: tuple[str, ...] = ()
    deleted_at: datetime | None = None

    @property
    def shut_out(self) -> bool:
        """Whether the account's keys are blocked, or the account is deleted."""
        return self.blocked_at is not None or self.deleted_at is not None


class LeaverTable:
    """Reads and writes the table; each method is a transaction, and may raise StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> dict[str, Leaver]:
        """Return all rows by user id."""
        with self._store.read() as connection:
            rows = connection.execute(select(leavers).order_by(leavers.c.user_id))
            return {row.user_id: _leaver(row) for row in rows}

    def shut_out(self, ids: Collection[str], emails: Collection[str], ref: str) -> list[Leaver]:
        """Return the leavers with one of these ids, one of these e-mails, or this entity ref.

        Only those whose keys are blocked or whose account is deleted.

        Args:
            ids: LiteLLM ids, as ``Leaver.plain_id`` has them.
            emails: E-mails, in lower case.
            ref: Entity ref, in lower case; "" for none.
        """
        c = leavers.c
        same = or_(c.plain_id.in_(ids), c.email.in_(emails), c.entity_ref == ref)
        with self._store.read() as connection:
            found = [_leaver(row) for row in connection.execute(select(leavers).where(same))]
        return [each for each in found if each.shut_out]

    def shut_out_if_known(
        self, ids: Collection[str], emails: Collection[str], ref: str
    ) -> list[Leaver] | None:
        """Return the same as :meth:`shut_out`; None where the database can't be read."""
        try:
            return self.shut_out(ids, emails, ref)
        except StoreUnavailable as exc:
            log.warning("the table of leavers can't be read: %s", exc)
            return None

    def save(self, rows: Iterable[Leaver], *, forget: Iterable[str] = ()) -> None:
        """Write rows, and delete those of the user ids ``forget``, in one transaction."""
        values = [_values(row) for row in rows]
        gone = [*({"id": row["user_id"]} for row in values), *({"id": id_} for id_ in forget)]
        if not gone:
            return
        with self._store.write() as connection:
            connection.execute(delete(leavers).where(leavers.c.user_id == bindparam("id")), gone)
            if values:
                connection.execute(insert(leavers), values)

    def people_of_last_run(self, job: str) -> int | None:
        """Return how many people the catalog had in the last run that succeeded; dry runs aside."""
        c = job_runs.c
        last = (
            select(c.counts)
            .where(c.job == job, c.status == "succeeded", ~c.dry_run)
            .order_by(c.id.desc())
            .limit(1)
        )
        with self._store.read() as connection:
            counts = connection.scalar(last)
        people = counts.get("people") if isinstance(counts, dict) else None
        return people if isinstance(people, int) else None


_TIMES = ("missing_since", "blocked_at", "deleted_at")


def _leaver(row: Any) -> Leaver:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's way to all columns
    times = {name: _moment(values[name]) for name in _TIMES}
    return Leaver(**{**values, **times, "blocked_keys": tuple(values["blocked_keys"])})


def _values(row: Leaver) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in Leaver.__dataclass_fields__}
    times = {name: _text(values[name]) for name in _TIMES}
    return {**values, **times, "blocked_keys": list(row.blocked_keys)}


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else stamp(lambda: moment)
