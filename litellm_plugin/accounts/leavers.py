"""Refuses accounts and keys to leavers: people whose keys ``litellm-plugin offboard`` blocked."""

from __future__ import annotations

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


# Audit events name these classes.
class HasLeft(Forbidden):
    """The owner of an account or key is a leaver."""


class LeaversUnknown(Busy):
    """The table of leavers can't be read, and the catalog does not have the person."""


class Leavers:
    """Refuses requests that would give a leaver access again.

    A person whose entity is in the catalog is never refused, since the table is as old as the
    last run of ``offboard``. If the table can't be read, the catalog alone decides.
    """

    def __init__(self, table: LeaverTable, directory: Directory, domain: str | None) -> None:
        self._table = table
        self._directory = directory
        self._domain = domain

    def refuse(self, *user_ids: str, owner: Owner | None = None) -> None:
        """Refuse a new account, and a new or unblocked key, to a leaver.

        Args:
            user_ids: The person's LiteLLM ids: the derived one, and that of the account found.
            owner: The person; None if only the ids are known, as a service names them.

        Raises:
            HasLeft: The person is a leaver.
            LeaversUnknown: The table can't be read, and the catalog does not have the person.
            BackstageUnavailable: The catalog can't be read, and the decision depends on it.
        """
        # A service may name a person by user name or entity ref.
        ids = {*user_ids, *(litellm_id(each.strip(), self._domain) for each in user_ids)}
        names = ids | (owner.login.names if owner is not None and owner.login else set())
        ref = owner.ref if owner is not None else ""
        rows = self._table.shut_out_if_known(
            {plain(name) for name in names},
            {name.strip().lower() for name in names if "@" in name},
            ref,
        )
        if rows is not None and not rows:
            return
        refs = {row.entity_ref for row in rows or ()} | ({ref} if ref else set())
        if any(self._directory.entity(each) is not None for each in sorted(refs)):
            return
        if any(self._directory.of_id(each) for each in ids):
            return
        if rows is None:
            raise LeaversUnknown(NOT_KNOWN)
        raise HasLeft(HAS_LEFT, reason="leaver")
