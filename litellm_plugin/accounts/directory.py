"""Finds the catalog's users by LiteLLM user id or e-mail."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from litellm_plugin.accounts.caller import litellm_id, plain
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.backstage import Catalog, Entity
from litellm_plugin.errors import BackstageUnavailable

NAMES_AT_ONCE = 50  # e-mails of one call to the catalog; they are in its URL
# The fields of a cached row. They are in the cache key because, during an update, builds with
# other fields may share one Redis.
_ROW = "ref groups email display_name"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the catalog.

    Attributes:
        ref: Full entity ref, in lower case.
        user_id: LiteLLM id derived from the user's name.
        groups: Entity refs of the groups that the user is a direct member of.
        email: The e-mail in the catalog, if any.
        display_name: The name for people, if any.
    """

    ref: str
    user_id: str
    groups: frozenset[str]
    email: str | None = None
    display_name: str | None = None


class Directory:
    """Looks up users in the catalog; ``domain`` is ``litellm.userIdDomain``."""

    def __init__(self, catalog: Catalog, cache: Cache, domain: str | None) -> None:
        self._catalog = catalog
        self._cache = cache
        self._domain = domain

    def entity(self, ref: str) -> Entity | None:
        """Return an entity, or None where the catalog has none of that ref.

        Raises:
            BackstageUnavailable: The catalog can't be read.
        """
        return self._cache.read(("entity", ref), (), lambda: self._catalog.entity(ref))

    def of_id(self, user_id: str) -> list[Person]:
        """Return the users whose derived LiteLLM id is ``user_id``, compared as by ``plain``.

        Users in several namespaces can have the same id.

        Raises:
            BackstageUnavailable: The catalog can't be read.
        """
        names = {user_id.strip()}
        local, _, domain = user_id.strip().rpartition("@")
        if self._domain and domain.lower() == self._domain.lower():
            names.add(local)
        found = self._found("metadata.name", sorted(names))
        return [person for person in found if plain(person.user_id) == plain(user_id)]

    def with_email(self, email: str) -> list[Person]:
        """Return the users with that e-mail in the catalog.

        Raises:
            BackstageUnavailable: The catalog can't be read.
        """
        return self._found("spec.profile.email", [email])

    def everyone(self) -> AllPeople:
        """Read all users of the catalog, past the cache.

        Raises:
            BackstageUnavailable: The catalog can't be read.
        """
        return AllPeople(self._catalog.people(), self._domain)

    def display_names(self, emails: Sequence[str]) -> dict[str, str]:
        """Return display names of people in the catalog, by e-mail in lower case.

        An e-mail is left out if no person or several people have it. While the catalog can't be
        read, the result is empty.
        """
        found: defaultdict[str, set[str]] = defaultdict(set)
        wanted = sorted({email.lower() for email in emails})
        try:
            for start in range(0, len(wanted), NAMES_AT_ONCE):
                part = wanted[start : start + NAMES_AT_ONCE]
                for person in self._found("spec.profile.email", part):
                    if person.email and person.display_name:
                        found[person.email.lower()].add(person.display_name)
        except BackstageUnavailable as exc:
            log.warning("people are shown without their names: %s", exc)
            return {}
        return {email: min(names) for email, names in found.items() if len(names) == 1}

    def members(self, group: str) -> list[Person]:
        """Return the direct members of a group, given its full entity ref.

        Raises:
            BackstageUnavailable: The catalog can't be read.
        """
        return self._found("relations.memberOf", [group])

    def _found(self, field: str, values: list[str]) -> list[Person]:
        def read() -> list[tuple[str, list[str], str | None, str | None]]:
            found = self._catalog.users(field, values)
            return [
                (ref, sorted(each.groups), each.email, each.display_name) for ref, each in found
            ]

        rows = self._cache.read(("people", _ROW, field, *values), (), read, weight=len)
        return [
            Person(ref, litellm_id(ref, self._domain), frozenset(groups), email, name)
            for ref, groups, email, name in rows
        ]


class AllPeople:
    """The catalog's users, all read at once, with the look-ups of :class:`Directory`.

    ``people`` are entity refs and entities, as ``Catalog.people`` yields them. Ids and e-mails are
    compared as ``plain`` returns them.
    """

    def __init__(self, people: Iterable[tuple[str, Entity]], domain: str | None) -> None:
        self._entities = dict(people)
        self._by_id: dict[str, list[Person]] = defaultdict(list)
        self._by_email: dict[str, list[Person]] = defaultdict(list)
        for ref, entity in self._entities.items():
            user_id = litellm_id(ref, domain)
            person = Person(ref, user_id, entity.groups, entity.email, entity.display_name)
            self._by_id[plain(person.user_id)].append(person)
            if entity.email:
                self._by_email[plain(entity.email)].append(person)

    def __len__(self) -> int:
        return len(self._entities)

    def entity(self, ref: str) -> Entity | None:
        """Return an entity, or None."""
        return self._entities.get(ref)

    def of_id(self, user_id: str) -> list[Person]:
        """Return the users whose derived LiteLLM id is ``user_id``."""
        return self._by_id.get(plain(user_id), [])

    def with_email(self, email: str) -> list[Person]:
        """Return the users with that e-mail."""
        return self._by_email.get(plain(email), [])

    def members(self, group: str) -> list[Person]:
        """Return the direct members of a group, given its full entity ref."""
        people = (person for same_id in self._by_id.values() for person in same_id)
        return [person for person in people if group in person.groups]
