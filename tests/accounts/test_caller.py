"""What is known of a caller is asked once, and nobody waits for another one's answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from litellm_plugin.accounts.caller import Caller
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.identity.principal import UserPrincipal


def _user(name: str) -> UserPrincipal:
    return UserPrincipal(f"user:default/{name}", None, None, expires_at=0.0)


def test_the_catalog_is_asked_once_for_each_caller() -> None:
    asked = []

    def look_up(ref: str) -> Entity:
        asked.append(ref)
        return Entity(kind="User", display_name=ref)

    caller = Caller(_user("bob"), None, look_up)
    assert caller.entity is caller.entity
    assert asked == ["user:default/bob"]


def test_callers_do_not_wait_for_the_catalogs_answer_about_another() -> None:
    entity = Entity(kind="User")
    cleo = Caller(_user("cleo"), None, lambda _: entity)
    with ThreadPoolExecutor(1) as pool:
        # The answer about bob comes after cleo has hers.
        bob = Caller(_user("bob"), None, lambda _: pool.submit(lambda: cleo.entity).result(5))
        assert bob.entity is entity
