"""The accounts that were found by their owner's e-mail: a row for each owner."""

from __future__ import annotations

import logging

from sqlalchemy import select

from litellm_plugin.clock import Clock, stamp
from litellm_plugin.store.database import Store, StoreUnavailable, upsert
from litellm_plugin.store.tables import adopted

log = logging.getLogger(__name__)


class AdoptedAccounts:
    """Records which LiteLLM account was found by whose e-mail."""

    def __init__(self, store: Store, now: Clock) -> None:
        self._store = store
        self._now = now

    def record(self, own_id: str, user_id: str, entity_ref: str) -> None:
        """Record an account; where the store is unavailable, only the log has it.

        Args:
            own_id: The LiteLLM id derived from the owner's name.
            user_id: The account's id.
            entity_ref: The owner, in lower case.
        """
        row = {"own_id": own_id, "user_id": user_id, "entity_ref": entity_ref}
        try:
            with self._store.write() as connection:
                upsert(connection, adopted, [{**row, "at": stamp(self._now)}])
        except StoreUnavailable as exc:
            log.warning("the account %s of %s can't be recorded now: %s", user_id, entity_ref, exc)

    def owners(self) -> dict[str, str]:
        """Return the owners' entity refs by the accounts' ids.

        Raises:
            StoreUnavailable: The database can't be used.
        """
        with self._store.read() as connection:
            rows = connection.execute(select(adopted.c.user_id, adopted.c.entity_ref))
            return {row.user_id: row.entity_ref for row in rows}
