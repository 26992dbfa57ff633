"""The catalog's users as the directory caches them."""

from __future__ import annotations

from typing import cast

from litellm_plugin.accounts.directory import Directory, Person
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.backstage import Catalog, Entity

JANE, MAIL = "user:default/jane", "jane@example.com"


class _Catalog:
    def users(self, _field: str, _values: list[str]) -> list[tuple[str, Entity]]:
        return [(JANE, Entity("User", frozenset(), "Jane", MAIL))]


def test_rows_that_a_build_with_other_rows_has_cached_are_not_read() -> None:
    cache = Cache(60.0)
    earlier: list[tuple[str, list[str]]] = [(JANE, [])]
    cache.read(("people", "spec.profile.email", MAIL), (), lambda: earlier, weight=len)
    directory = Directory(cast("Catalog", _Catalog()), cache, "example.com")
    assert directory.with_email(MAIL) == [Person(JANE, MAIL, frozenset(), MAIL, "Jane")]
    assert directory.display_names([MAIL]) == {MAIL: "Jane"}
