"""Decides whose account one is, where that is certain; for changes that nobody has asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Protocol

from litellm_plugin.accounts.caller import is_reserved, litellm_id
from litellm_plugin.accounts.directory import Person
from litellm_plugin.accounts.ownership import is_email, made_for
from litellm_plugin.clients.backstage import Entity, split_ref
from litellm_plugin.clients.litellm import Account
from litellm_plugin.config.settings import Settings

# Why an account has no known owner: the catalog does not have the person that it was made for;
# it may be several people's; nobody of the catalog has its id or e-mail.
MISSING, UNCLEAR, NOBODY = "missing", "unclear", "nobody"


class NoOwnerError(Exception):
    """It is not certain whose account it is.

    Attributes:
        status: :data:`MISSING`, :data:`UNCLEAR` or :data:`NOBODY`.
        ref: The entity ref in the account's metadata, if any.
        reasons: Why it is unclear.
    """

    def __init__(self, status: str, *reasons: str, ref: str | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.ref = ref
        self.reasons = reasons


class People(Protocol):
    """Finds people of the catalog, as ``Directory`` does."""

    def entity(self, ref: str) -> Entity | None:
        """Return an entity, or None."""
        ...

    def of_id(self, user_id: str) -> list[Person]:
        """Return the people whose derived LiteLLM id is ``user_id``, ignoring letter case."""
        ...

    def with_email(self, email: str) -> list[Person]:
        """Return the people with that e-mail."""
        ...


class Everybody:
    """All people of the catalog, read at once.

    Args:
        people: Entity refs and entities.
        domain: ``litellm.userIdDomain``.
    """

    def __init__(self, people: Iterable[tuple[str, Entity]], domain: str | None) -> None:
        self._entities: dict[str, Entity] = {}
        self._by_id: dict[str, list[Person]] = defaultdict(list)
        self._by_email: dict[str, list[Person]] = defaultdict(list)
        for ref, entity in people:
            person = Person(ref, litellm_id(ref, domain), entity.groups)
            self._entities[ref] = entity
            self._by_id[person.user_id.lower()].append(person)
            self._by_email[(entity.email or "").lower()].append(person)

    def entity(self, ref: str) -> Entity | None:
        """Return an entity, or None."""
        return self._entities.get(ref)

    def of_id(self, user_id: str) -> list[Person]:
        """Return the people whose derived LiteLLM id is ``user_id``, ignoring letter case."""
        return self._by_id.get(user_id.lower(), [])

    def with_email(self, email: str) -> list[Person]:
        """Return the people with that e-mail."""
        return self._by_email.get(email.lower(), [])


def account_owner(
    account: Account,
    people: People,
    is_only: Callable[[Person, str], bool],
    settings: Settings,
) -> Person:
    """Return the owner of an account: the person for whom the service would find it.

    It finds an account by the id that is derived from a person's name, or by the e-mail.

    Args:
        account: The account.
        people: The catalog's.
        is_only: Tells whether no account has the person's own id, and no other one the e-mail.
        settings: For reserved ids, and ``litellm.userIdDomain``.

    Raises:
        NoOwnerError: There is none for certain.
        BackstageUnavailable: The catalog can't be read.
    """
    if is_reserved(account.user_id, settings):
        raise NoOwnerError(NOBODY)
    recorded = made_for(account)
    if recorded and split_ref(recorded) is None:
        recorded = None  # a service had it created, and knew only the LiteLLM id
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
        raise NoOwnerError(UNCLEAR, f"its id is that of {refs}", ref=recorded)
    return _by_email(account, people, is_only, recorded)


def _by_email(
    account: Account,
    people: People,
    is_only: Callable[[Person, str], bool],
    recorded: str | None,
) -> Person:
    email = account.info.get("user_email")
    found = people.with_email(email) if isinstance(email, str) and is_email(email) else []
    if not found and not recorded:
        raise NoOwnerError(NOBODY)
    if len(found) != 1 or recorded not in {None, found[0].ref}:
        raise NoOwnerError(UNCLEAR, "its e-mail is not that of one person alone", ref=recorded)
    person = found[0]
    if not is_only(person, str(email)):
        raise NoOwnerError(UNCLEAR, f"another account may be that of {person.ref}", ref=recorded)
    return person
