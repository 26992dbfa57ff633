"""Whose an account of LiteLLM is, where several people may take it for theirs.

A person's LiteLLM id is made of their name alone, so that people of several namespaces, or
whose user names differ behind the "@" only, come to the same one. What tells them apart is
the record that provisioning leaves in the account: whom it was made for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litellm_plugin.accounts.directory import Directory
from litellm_plugin.clients.backstage import split_ref
from litellm_plugin.clients.litellm import Account
from litellm_plugin.errors import BackstageUnavailable, Conflict
from litellm_plugin.shapes import picked

log = logging.getLogger(__name__)

# Everything else may do more at LiteLLM than use keys and look at its own.
PLAIN_ROLES = (None, "", "internal_user", "internal_user_viewer")

_RECORD = ("backstage_entity", "backstage_email")  # of the metadata that provisioning writes

MAX_TOLD = 10_000  # accounts

SHARED = "This LiteLLM account may be somebody else's; ask an administrator of LiteLLM whose it is"
SHARED_HINT = (
    "Several people of the catalog come to the same LiteLLM id, and it is not known whose it is."
    " An administrator of LiteLLM can tell: the entity ref of the person belongs into the"
    ' metadata of the LiteLLM user, as "backstage_entity".'
)
TAKEN = (
    "Your e-mail address belongs to a LiteLLM account that can't be used for you; ask an"
    " administrator of LiteLLM"
)


class IdentityRefused(Conflict):
    """It is not certain that an account is the caller's."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint=hint, provisioning=True)


@dataclass(frozen=True, slots=True)
class Login:
    """What a token of the bridge calls a person.

    Attributes:
        names: User name and e-mail, in lower case.
        cut: Whether the LiteLLM id leaves something of the user name out: what is behind "@".
    """

    names: frozenset[str]
    cut: bool


@dataclass(frozen=True, slots=True)
class Claimant:
    """A person who is to be served by an account.

    Attributes:
        own_id: The LiteLLM id that is made of their name.
        ref: Their entity ref, in lower case; of people who come by the bridge the one that
            their user name has in the default namespace.
        email: Asks the catalog for their e-mail; None where it has none.
        login: How they came by the bridge, or None.
    """

    own_id: str
    ref: str
    email: Callable[[], str | None]
    login: Login | None = None


class AccountOwners:
    """Tells accounts that are the claimant's from those that may be somebody else's.

    Args:
        directory: Knows the catalog.
        refuse: Whether to refuse what is not certain; else it is only logged, as the original
            has no such question.
    """

    def __init__(self, directory: Directory, *, refuse: bool) -> None:
        self.refuse = refuse
        self._directory = directory
        self._told: set[tuple[str, str]] = set()

    def settle(self, claimant: Claimant | None, account: Account) -> Account:
        """Return an account that was found by the claimant's own id.

        Args:
            claimant: Whose it should be; None for a service, which names ids and no people.
            account: It.

        Raises:
            IdentityRefused: It may be somebody else's.
            BackstageUnavailable: The catalog would have to tell.
        """
        if claimant is None:
            return account
        try:
            doubt = _doubt(claimant, account)
        except BackstageUnavailable:
            if self.refuse:
                raise
            return account
        if doubt:
            self._note(claimant, account.user_id, doubt)
        if self.refuse:
            if doubt:
                raise IdentityRefused(SHARED, SHARED_HINT)
            if claimant.login or made_for(account) != claimant.ref:
                self.refuse_shared_id(claimant)
        return account

    def refuse_shared_id(self, claimant: Claimant | None) -> None:
        """Refuse an id that several people of the catalog come to, where that is to be refused.

        Raises:
            IdentityRefused: They do.
            BackstageUnavailable: The catalog can't be asked.
        """
        if claimant is None or not self.refuse:
            return
        people = self._directory.of_id(claimant.own_id)
        if claimant.login:
            # Another case of letters is another account of LiteLLM.
            other_case = any(person.user_id != claimant.own_id for person in people)
            shared = len(people) > 1 or other_case
        else:
            shared = any(person.ref != claimant.ref for person in people)
        if shared:
            refs = ", ".join(sorted(person.ref for person in people))
            self._note(claimant, claimant.own_id, f"its id is that of {refs}")
            raise IdentityRefused(SHARED, SHARED_HINT)

    def by_email(self, claimant: Claimant, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return the id of the account that has the claimant's e-mail.

        Args:
            claimant: Who has that e-mail in the catalog.
            rows: LiteLLM's users with that e-mail, one at least.

        Raises:
            IdentityRefused: It is not certain that it is theirs.
            BackstageUnavailable: The catalog can't be asked.
        """
        email = claimant.email() or ""
        ids = [str(row.get("user_id")) for row in rows]
        if [person.ref for person in self._directory.with_email(email)] != [claimant.ref]:
            raise self._taken(claimant, ids, "The catalog does not have it for one person alone.")
        if len(rows) > 1:
            raise self._taken(claimant, ids, "Several LiteLLM accounts have it.")
        if any(person.ref != claimant.ref for person in self._directory.of_id(ids[0])):
            raise self._taken(claimant, ids, "The id of that account is that of somebody else.")
        return ids[0]

    def accept(self, claimant: Claimant, account: Account) -> Account:
        """Return an account that was found by the claimant's e-mail.

        Raises:
            IdentityRefused: It was made for somebody else.
        """
        recorded = made_for(account)
        if recorded is not None and recorded != claimant.ref:
            raise self._taken(claimant, [account.user_id], "That account was made for another.")
        return account

    def _taken(self, claimant: Claimant, ids: list[str], why: str) -> IdentityRefused:
        log.warning(
            "the LiteLLM accounts %r have the e-mail of %s and are not used: %s",
            ids[:5],
            claimant.ref,
            why,
        )
        hint = f"{why} An administrator of LiteLLM can create the user {claimant.own_id} for you."
        return IdentityRefused(TAKEN, hint)

    def _note(self, claimant: Claimant, user_id: str, doubt: str) -> None:
        """Log a doubt, once for each person and account."""
        name = (claimant.ref, user_id)
        if name in self._told:
            return
        if len(self._told) >= MAX_TOLD:
            self._told.clear()
        self._told.add(name)
        log.warning(
            "the LiteLLM account %r is not certain to be that of %s%s: %s",
            user_id,
            claimant.ref,
            " (bridge)" if claimant.login else "",
            doubt,
        )


def made_for(account: Account) -> str | None:
    """Return whom an account was made for: an entity ref, or what else provisioning knew."""
    recorded = _record(account).get("backstage_entity")
    return recorded.lower() if isinstance(recorded, str) and recorded else None


def is_administrator(account: Account) -> bool:
    """Tell whether an account may do more at LiteLLM than use keys and look at its own.

    Args:
        account: As ``LiteLLM.whole_account`` returns it, with roles in organizations.
    """
    memberships = account.info.get("organization_memberships") or []
    roles = [
        account.info.get("user_role"),
        *(row.get("user_role") for row in memberships if isinstance(row, dict)),
    ]
    return any(role not in PLAIN_ROLES for role in roles)


def owner_fields(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a user's row tells whose it is, and what they may do."""
    metadata = info.get("metadata")
    return {
        "user_role": info.get("user_role"),
        "metadata": picked(metadata, _RECORD) if isinstance(metadata, dict) else {},
    }


def same_email(one: Any, other: Any) -> bool:
    """Tell whether two e-mails are one to LiteLLM, which does not look at case and blanks.

    Of letters beyond ASCII nobody knows what another server takes for the same.
    """
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    first, second = one.strip(), other.strip()
    if first.isascii() and second.isascii():
        first, second = first.lower(), second.lower()
    return first == second


def is_email(text: str | None) -> bool:
    """Tell whether a text may be somebody's e-mail."""
    if text is None or any(char.isspace() or char == "," for char in text):
        return False
    local, at, domain = text.rpartition("@")
    return bool(local and at and domain)


def _doubt(claimant: Claimant, account: Account) -> str | None:
    """Tell why an account may be somebody else's, by what its own record says."""
    recorded = made_for(account)
    ref = split_ref(recorded) if recorded else None
    if claimant.login is None:
        if ref is not None:
            return None if recorded == claimant.ref else f"it was made for {recorded}"
        return _other_email(account, lambda: frozenset(filter(None, (claimant.email(),))))
    if ref is not None and ref[2] != claimant.ref.rpartition("/")[2]:
        return f"it was made for {recorded}"
    if ref is None or claimant.login.cut:
        names = claimant.login.names
        return _other_email(account, lambda: names, certain=claimant.login.cut)
    return None


def _other_email(
    account: Account, mine: Callable[[], frozenset[str]], *, certain: bool = False
) -> str | None:
    """Tell whether an account was made for another e-mail; ``certain``: or for no known one."""
    recorded = _record(account).get("backstage_email")
    known = [recorded] if recorded else [account.info.get("user_email")] if certain else []
    known = [email for email in known if isinstance(email, str) and (certain or "@" in email)]
    if not known:
        return "it does not tell for which e-mail it was made" if certain else None
    own = [name for name in mine() if certain or "@" in name]
    if not own or any(same_email(name, email) for name in own for email in known):
        return None
    return "it was made for another e-mail"


def _record(account: Account) -> Mapping[str, Any]:
    metadata = account.info.get("metadata")
    return metadata if isinstance(metadata, dict) else {}
