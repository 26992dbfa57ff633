"""Checks that a LiteLLM account belongs to the caller.

A person's LiteLLM id is derived from the user name alone, so people in several namespaces, or
with user names that differ only after the "@", have the same id. Provisioning records in the
account's metadata for whom the account was created.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from litellm_plugin.accounts.directory import Directory
from litellm_plugin.clients.backstage import split_ref
from litellm_plugin.clients.litellm import Account
from litellm_plugin.errors import BackstageUnavailable, Conflict
from litellm_plugin.shapes import Json, as_object, picked

log = logging.getLogger(__name__)

# Users with other roles may do more at LiteLLM than use keys and read their own data.
PLAIN_ROLES = (None, "", "internal_user", "internal_user_viewer")

_RECORD = ("backstage_entity", "backstage_email")  # of the metadata that provisioning writes

MAX_LOGGED = 10_000  # accounts

SHARED = "This LiteLLM account may belong to another person"
SHARED_HINT = (
    "The account was made for another person, or several people in the catalog have its id. To"
    ' name the owner, an administrator of LiteLLM sets "backstage_entity" in the metadata of the'
    " LiteLLM user to the owner's entity ref."
)
TAKEN = "The LiteLLM account with your e-mail address can't be used for you"


class IdentityRefused(Conflict):
    """An account may be another person's than the caller's."""

    def __init__(self, message: str, hint: str) -> None:
        advice = "ask an administrator of LiteLLM"
        super().__init__(message, advice=advice, hint=hint, provisioning=True)


@dataclass(frozen=True, slots=True)
class Login:
    """The names of a person in a token of the bridge.

    Attributes:
        names: User name and e-mail, in lower case.
        cut: Whether the LiteLLM id drops the user name's part after the "@".
    """

    names: frozenset[str]
    cut: bool


@dataclass(frozen=True, slots=True)
class Owner:
    """A person as the owner of an account.

    Attributes:
        own_id: The LiteLLM id derived from the person's name.
        ref: Entity ref, in lower case; for a user of the bridge, the ref that the user name has
            in the default namespace.
        email: Reads the e-mail from the catalog; None where the catalog has none.
        login: Names from a token of the bridge; None for users of Backstage.
    """

    own_id: str
    ref: str
    email: Callable[[], str | None]
    login: Login | None = None


def _taken(owner: Owner, ids: list[str], why: str) -> IdentityRefused:
    log.warning(
        "the LiteLLM accounts %r have the e-mail of %s and are not used: %s",
        ids[:5],
        owner.ref,
        why,
    )
    help_ = f"An administrator of LiteLLM can create the user {owner.own_id} without that address."
    return IdentityRefused(TAKEN, f"{why} {help_}")


class AccountOwners:
    """Checks who owns an account.

    Args:
        directory: Finds people in the catalog.
        refuse: Whether to refuse an account that may be another person's. If not, a warning is
            logged and the account is used, as in the original plugin.
    """

    def __init__(self, directory: Directory, *, refuse: bool) -> None:
        self.refuse = refuse
        self._directory = directory
        self._logged: set[tuple[str, str]] = set()

    def confirmed(self, owner: Owner | None, account: Account) -> Account:
        """Check and return an account that was found by the owner's LiteLLM id.

        ``owner`` is None for a service, whose accounts are not checked.

        Raises:
            IdentityRefused: The account may be another person's.
            BackstageUnavailable: The catalog can't be read, and the decision depends on it.
        """
        if owner is None:
            return account
        try:
            doubt = _doubt(owner, account)
        except BackstageUnavailable:
            if self.refuse:
                raise
            return account
        if doubt:
            self._warn(owner, account.user_id, doubt)
        if self.refuse:
            if doubt:
                raise IdentityRefused(SHARED, SHARED_HINT)
            if owner.login or made_for(account) != owner.ref:
                self.refuse_shared_id(owner)
        return account

    def refuse_shared_id(self, owner: Owner | None) -> None:
        """Refuse an id that several people of the catalog have, if configured.

        Raises:
            IdentityRefused: Several people have the id.
            BackstageUnavailable: The catalog can't be read.
        """
        if owner is None or not self.refuse:
            return
        people = self._directory.of_id(owner.own_id)
        if owner.login:
            # An id that differs in letter case is another account of LiteLLM.
            other_case = any(person.user_id != owner.own_id for person in people)
            shared = len(people) > 1 or other_case
        else:
            shared = any(person.ref != owner.ref for person in people)
        if shared:
            refs = ", ".join(sorted(person.ref for person in people))
            self._warn(owner, owner.own_id, f"in the catalog its id belongs to {refs}")
            raise IdentityRefused(SHARED, SHARED_HINT)

    def by_email(self, owner: Owner, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return the id of the account with the owner's e-mail.

        ``rows`` are LiteLLM's users with that e-mail, at least one.

        Raises:
            IdentityRefused: The account may be another person's.
            BackstageUnavailable: The catalog can't be read.
        """
        ids = [str(row.get("user_id")) for row in rows]
        people = self._directory.with_email(owner.email() or "")
        if [person.ref for person in people] != [owner.ref]:
            raise _taken(owner, ids, "The catalog does not show that only you have that address.")
        if len(rows) > 1:
            raise _taken(owner, ids, "Several LiteLLM accounts have that address.")
        if any(person.ref != owner.ref for person in self._directory.of_id(ids[0])):
            raise _taken(owner, ids, "Its id is the LiteLLM id of another person in the catalog.")
        return ids[0]

    def accept(self, owner: Owner, account: Account) -> Account:
        """Check and return an account that was found by the owner's e-mail.

        Raises:
            IdentityRefused: The account was created for another person.
        """
        if made_for(account) not in {None, owner.ref}:
            raise _taken(owner, [account.user_id], "It was made for another person.")
        return account

    def _warn(self, owner: Owner, user_id: str, doubt: str) -> None:
        """Log a doubt, once for each person and account."""
        name = (owner.ref, user_id)
        if name in self._logged:
            return
        if len(self._logged) >= MAX_LOGGED:
            self._logged.clear()
        self._logged.add(name)
        log.warning(
            "the LiteLLM account %r may belong to another person than %s%s: %s",
            user_id,
            owner.ref,
            " (bridge)" if owner.login else "",
            doubt,
        )


def made_for(account: Account) -> str | None:
    """Return the entity ref, or other name, of the person an account was created for."""
    recorded = _metadata(account).get("backstage_entity")
    return recorded.lower() if isinstance(recorded, str) and recorded else None


def is_administrator(account: Account) -> bool:
    """Tell whether a user may do more at LiteLLM than use keys and read their own data.

    ``account`` is what ``LiteLLM.whole_account`` returns, with roles in organizations.
    """
    memberships = account.info.get("organization_memberships") or []
    roles = [
        account.info.get("user_role"),
        *(row.get("user_role") for row in memberships if isinstance(row, dict)),
    ]
    return any(role not in PLAIN_ROLES for role in roles)


def slim(account: Account, names: Iterable[str]) -> Account:
    """Keep only ``names`` and the fields of a user's row that decide ownership and rights."""
    info = picked(account.info, ("user_role", *names))
    return replace(account, info={**info, "metadata": picked(_metadata(account), _RECORD)})


def same_email(one: Any, other: Any) -> bool:
    """Compare two e-mails as LiteLLM does, ignoring letter case and outer blanks.

    Beyond ASCII, letter case counts, since servers differ about it.
    """
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    first, second = one.strip(), other.strip()
    if first.isascii() and second.isascii():
        first, second = first.lower(), second.lower()
    return first == second


def is_email(text: str | None) -> bool:
    """Tell whether a text may be an e-mail address."""
    if text is None or any(char.isspace() or char == "," for char in text):
        return False
    local, at, domain = text.rpartition("@")
    return bool(local and at and domain)


def _doubt(owner: Owner, account: Account) -> str | None:
    """Return why the account's metadata points to another person, or None."""
    recorded = made_for(account)
    ref = split_ref(recorded) if recorded else None
    if ref is None:
        return _other_email(owner, account)
    if owner.login is None:
        return None if recorded == owner.ref else f"it was made for {recorded}"
    if ref[2] != owner.ref.rpartition("/")[2]:
        return f"it was made for {recorded}"
    return _other_email(owner, account) if owner.login.cut else None


def _other_email(owner: Owner, account: Account) -> str | None:
    """Return why the account's e-mail is not the owner's, or None."""
    certain = owner.login is not None and owner.login.cut  # an e-mail is required
    recorded = _metadata(account).get("backstage_email")
    known = [recorded] if recorded else [account.info.get("user_email")] if certain else []
    known = [email for email in known if isinstance(email, str) and (certain or "@" in email)]
    if not known:
        return "it has no e-mail address" if certain else None
    names = owner.login.names if owner.login else filter(None, [owner.email()])
    own = [name for name in names if certain or "@" in name]
    if not own or any(same_email(name, email) for name in own for email in known):
        return None
    return "it was made for another e-mail address"


def _metadata(account: Account) -> Json:
    return as_object(account.info.get("metadata"))
