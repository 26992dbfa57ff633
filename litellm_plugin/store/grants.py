"""The table of grants: what provisioning granted to each LiteLLM account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, timedelta
from zlib import crc32

from sqlalchemy import delete, select, update

from litellm_plugin.clock import Clock, stamp
from litellm_plugin.shapes import Json
from litellm_plugin.store.database import Store, upsert
from litellm_plugin.store.tables import grants

CREATED, TAKEN_IN = "created", "taken-in"  # origins of a row
LOCKS = 64  # locks that all accounts share; with SQLite each is a file


@dataclass(frozen=True, slots=True)
class Grant:
    """What was granted to an account; values are by field."""

    user_id: str  # LiteLLM's
    entity_ref: str | None  # the owner; None: not known
    origin: str  # CREATED by provisioning, or TAKEN_IN: recorded later
    granted: Json
    pending: Json | None = None  # about to be written; None: no write is under way or interrupted


class Grants:
    """Reads and records grants. Every method may raise ``StoreUnavailable``."""

    def __init__(self, store: Store, now: Clock) -> None:
        self._store = store
        self._now = now

    def of(self, user_id: str) -> Grant | None:
        """Return the grant of an account, or None."""
        with self._store.read() as connection:
            row = connection.execute(_COLUMNS.where(grants.c.user_id == user_id)).first()
        return None if row is None else Grant(*row)

    def all(self) -> dict[str, Grant]:
        """Return all grants by LiteLLM's user id."""
        with self._store.read() as connection:
            return {row.user_id: Grant(*row) for row in connection.execute(_COLUMNS)}

    def put(self, grant: Grant) -> None:
        """Record a grant, in place of the account's earlier one."""
        with self._store.write() as connection:
            upsert(connection, grants, [{**asdict(grant), "checked_at": stamp(self._now)}])

    def forget(self, user_id: str) -> None:
        """Delete the grant of an account."""
        with self._store.write() as connection:
            connection.execute(delete(grants).where(grants.c.user_id == user_id))

    def due(self, user_id: str, interval: float) -> bool:
        """Tell whether this process has to compare an account, and record the comparison.

        False where a process has compared the account in the last ``interval`` seconds.
        """
        before = self._now().astimezone(UTC) - timedelta(seconds=interval)
        with self._store.write() as connection:
            same = grants.c.user_id == user_id
            late = same & (grants.c.checked_at <= stamp(lambda: before))
            change = update(grants).where(late).values(checked_at=stamp(self._now))
            if connection.execute(change).rowcount:
                return True
            return connection.execute(select(grants.c.user_id).where(same)).first() is None

    @contextmanager
    def lock(self, user_id: str) -> Iterator[bool]:
        """Hold the lock of an account, or yield False if another process holds it."""
        with self._store.lock(f"grant-{crc32(user_id.encode()) % LOCKS}") as held:
            yield bool(held)


_COLUMNS = select(
    grants.c.user_id, grants.c.entity_ref, grants.c.origin, grants.c.granted, grants.c.pending
)
