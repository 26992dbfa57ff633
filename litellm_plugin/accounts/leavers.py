"""Refuses accounts and keys to leavers: people whose keys ``litellm-plugin offboard`` blocked."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from litellm_plugin.accounts.caller import litellm_id, plain
from litellm_plugin.accounts.directory import Directory
from litellm_plugin.accounts.ownership import Owner
from litellm_plugin.errors import Busy, Forbidden

if TYPE_CHECKING:  # imports SQLAlchemy, which only some configurations need
    from litellm_plugin.store.leavers import LeaverTable

HAS_LEFT = (
    "Access denied: this person has left. The Backstage catalog does not have the person's entity"
    " any more, so LiteLLM accounts and keys are closed; ask your administrator"
)
NOT_KNOWN = (
    "The service can't tell whether this person has left: its database can't be read, and the"
    " Backstage catalog has no such person. Try again in a minute, or ask your administrator"
)


class HasLeft(Forbidden):
    """The owner of an account or key is a leaver."""

    def __init__(self) -> None:
        super().__init__(HAS_LEFT, reason="leaver")


class LeaversUnknown(Busy):
    """The table of leavers can't be read, and the catalog does not have the person."""

    def __init__(self) -> None:
        super().__init__(NOT_KNOWN)


class Leavers:
    """Refuses what would give a leaver access again.

    A person whose entity is in the catalog is never refused, since the table is as old as the
    last run of ``offboard``. Where the table can't be read, the catalog alone decides.

    Args:
        table: The table of leavers.
        directory: Finds people in the catalog.
        domain: ``litellm.userIdDomain``.
    """

    def __init__(self, table: LeaverTable, directory: Directory, domain: str | None) -> None:
        self._table = table
        self._directory = directory
        self._domain = domain

    def refuse_account(self, user_id: str, owner: Owner | None) -> None:
        """Refuse to create an account for a leaver.

        Args:
            user_id: The LiteLLM id.
            owner: The person; None if a service names the id.

        Raises:
            HasLeft: The person is a leaver.
            LeaversUnknown: The table can't be read, and the catalog does not have the person.
            BackstageUnavailable: The catalog can't be read, and the decision depends on it.
        """
        login = owner.login.names if owner is not None and owner.login is not None else ()
        self._refuse([user_id], login, owner.ref if owner is not None else "")

    def refuse_key(self, *user_ids: str) -> None:
        """Refuse a new or unblocked key to a leaver; raises as :meth:`refuse_account`.

        Args:
            user_ids: The owner's LiteLLM ids: the derived one, and that of the account found.
        """
        self._refuse(user_ids, (), "")

    def _refuse(self, ids: Collection[str], names: Collection[str], ref: str) -> None:
        # A service may name a person by user name or entity ref.
        ids = {*ids, *(litellm_id(each.strip(), self._domain) for each in ids)}
        rows = self._table.shut_out_if_known(
            {plain(name) for name in (*ids, *names)},
            {name.strip().lower() for name in (*ids, *names) if "@" in name},
            ref,
        )
        if rows is not None and not rows:
            return
        refs = dict.fromkeys([ref] if ref else [])
        refs.update(dict.fromkeys(row.entity_ref for row in rows or ()))
        if any(self._directory.entity(each) is not None for each in refs):
            return
        if any(self._directory.of_id(each) for each in ids):
            return
        raise LeaversUnknown if rows is None else HasLeft
