"""Finds the owner of an account for group sync, where no request names a person."""

from __future__ import annotations

from collections.abc import Callable

from litellm_plugin.accounts.caller import is_reserved, litellm_id
from litellm_plugin.accounts.directory import AllPeople, Directory, Person
from litellm_plugin.accounts.ownership import is_email, made_for
from litellm_plugin.clients.backstage import split_ref
from litellm_plugin.clients.litellm import Account
from litellm_plugin.config.settings import Settings

# Why an account has no certain owner: the catalog lacks the entity in the account's metadata;
# several people may be the owner; the catalog has no person with the account's id or e-mail.
MISSING, UNCLEAR, NOBODY = "missing", "unclear", "nobody"


class NoOwnerError(Exception):
    """An account has no certain owner.

    Attributes:
        status: :data:`MISSING`, :data:`UNCLEAR` or :data:`NOBODY`.
        ref: The entity ref in the account's metadata, if any.
        reasons: Why the owner is unclear.
    """

    def __init__(self, status: str, *reasons: str, ref: str | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.ref = ref
        self.reasons = reasons


def account_owner(
    account: Account,
    people: Directory | AllPeople,
    is_only: Callable[[Person, str], bool],
    settings: Settings,
) -> Person:
    """Return the owner of an account: the one person whose requests would use it.

    The service finds an account by the LiteLLM id derived from a person's name, or by the e-mail.
    ``is_only`` tells, for a person and an e-mail, whether no account has the person's own id, and
    no other account the e-mail.

    Raises:
        NoOwnerError: No person is certain to be the owner.
        BackstageUnavailable: The catalog can't be read.
    """
    if is_reserved(account.user_id, settings):
        raise NoOwnerError(NOBODY)
    recorded = made_for(account)
    if recorded and split_ref(recorded) is None:
        recorded = None  # created for a service, which named only the LiteLLM id
    same_id = people.of_id(account.user_id)
    if recorded:
        entity = people.entity(recorded)
        if entity is None:
            raise NoOwnerError(MISSING, ref=recorded)
        own_id = litellm_id(recorded, settings.user_id_domain)
        if own_id == account.user_id:
            return Person(recorded, own_id, entity.groups)
    elif len(same_id) == 1 and same_id[0].user_id == account.user_id:
        return same_id[0]
    if any(person.ref != recorded for person in same_id):
        refs = ", ".join(sorted(person.ref for person in same_id))
        raise NoOwnerError(UNCLEAR, f"the account has the LiteLLM id of {refs}", ref=recorded)
    return _by_email(account, people, is_only, recorded)


def _by_email(
    account: Account,
    people: Directory | AllPeople,
    is_only: Callable[[Person, str], bool],
    recorded: str | None,
) -> Person:
    email = account.info.get("user_email")
    found = people.with_email(email) if isinstance(email, str) and is_email(email) else []
    if not found and not recorded:
        raise NoOwnerError(NOBODY)
    if len(found) != 1 or recorded not in {None, found[0].ref}:
        raise NoOwnerError(UNCLEAR, "not exactly one person has the account's e-mail", ref=recorded)
    if not is_only(found[0], str(email)):
        reason = f"{found[0].ref} may be the owner of another account"
        raise NoOwnerError(UNCLEAR, reason, ref=recorded)
    return found[0]
