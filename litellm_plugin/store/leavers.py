"""The table of leavers: a row for each account whose owner is missing in the catalog."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, or_, select

from litellm_plugin.clock import iso, moment
from litellm_plugin.store.database import Store, StoreUnavailable, upsert
from litellm_plugin.store.tables import leavers


@dataclass(frozen=True, slots=True)
class Leaver:
    """An account whose owner's entity is missing in the catalog."""

    user_id: str  # LiteLLM's
    plain_id: str  # the id as `plain` returns it, to compare ids
    entity_ref: str  # the owner's, in lower case
    missing_since: datetime  # when a run first saw the entity missing
    # Number of runs that saw the entity missing; 0: it is back, and the keys are being unblocked.
    runs_missing: int
    email: str | None = None  # the owner's, in lower case
    # When blocking of the keys began; after the first pass, when a run last read the keys and found
    # none left to block.
    blocked_at: datetime | None = None
    passes: int = 0  # number of runs that went through all keys since then
    blocking: str | None = None  # hash of the key that is being blocked or unblocked
    blocked_keys: tuple[str, ...] = ()  # hashes of the keys that offboarding blocked
    deleted_at: datetime | None = None  # when the account was deleted, or found to be deleted

    @property
    def shut_out(self) -> bool:
        """Whether the account's keys are blocked, or the account is deleted."""
        return self.blocked_at is not None or self.deleted_at is not None


class LeaverTable:
    """Reads and writes the table. Each method is a transaction, and may raise StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> dict[str, Leaver]:
        """Return all rows by user id."""
        with self._store.read() as connection:
            rows = connection.execute(select(leavers).order_by(leavers.c.user_id))
            return {row.user_id: _leaver(row) for row in rows}

    def shut_out_if_known(
        self, ids: Collection[str], emails: Collection[str], ref: str
    ) -> list[Leaver] | None:
        """Return the leavers who are shut out and have one of the ids or e-mails, or the ref.

        Args:
            ids: LiteLLM ids, as ``Leaver.plain_id`` has them.
            emails: E-mails, in lower case.
            ref: Entity ref, in lower case; "" for none.

        Returns:
            The leavers; None if the database can't be read.
        """
        c = leavers.c
        same = or_(c.plain_id.in_(ids), c.email.in_(emails), c.entity_ref == ref)
        try:
            with self._store.read() as connection:
                found = [_leaver(row) for row in connection.execute(select(leavers).where(same))]
        except StoreUnavailable:  # the store logs that
            return None
        return [each for each in found if each.shut_out]

    def save(self, rows: Iterable[Leaver], *, forget: Iterable[str] = ()) -> None:
        """Write ``rows``, and delete the rows of the user ids ``forget``, in one transaction."""
        gone = [{"id": user_id} for user_id in forget]
        with self._store.write() as connection:
            if gone:
                same = leavers.c.user_id == bindparam("id")
                connection.execute(delete(leavers).where(same), gone)
            upsert(connection, leavers, [_values(row) for row in rows])


_TIMES = ("missing_since", "blocked_at", "deleted_at")


def _leaver(row: Any) -> Leaver:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's way to all columns
    times = {name: moment(values[name]) for name in _TIMES}
    return Leaver(**{**values, **times, "blocked_keys": tuple(values["blocked_keys"])})


def _values(row: Leaver) -> dict[str, Any]:
    values = asdict(row)
    return {**values, **{name: timestamp(values[name]) for name in _TIMES}}


def timestamp(time: datetime | None) -> str | None:
    """Return a time as text, as the tables have it."""
    return None if time is None else iso(time)
