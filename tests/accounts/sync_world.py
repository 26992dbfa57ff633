"""An organisation that changes, its accounts at LiteLLM, and the service between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from litellm_plugin.config.settings import Provisioning, Role, Settings, Sync, UserDefaults
from litellm_plugin.plugin import Plugin, build
from litellm_plugin.store.grants import Grants
from tests.fakes import Asked, FakeBackstage, Network, People, Reply
from tests.fakes.litellm import BASE_URL
from tests.standin import StandIn
from tests.tokens import TokenFactory

DEFAULTS = UserDefaults(max_budget=10.0, teams=("team-guests",), tpm_limit=100)
ROLES = (
    Role(
        "group:default/power",
        {
            "max_budget": 100.0,
            "budget_duration": "7d",
            "models": ("gpt-4o", "gpt-4o-mini"),
            "teams": ("team-guests", "team-ml"),
            "tpm_limit": None,
            "rpm_limit": 60,
        },
    ),
    Role(
        "group:default/plain",
        {"models": ("gpt-4o-mini",), "teams": ("team-plain",), "user_role": "internal_user_viewer"},
    ),
)
TEAMS = ("team-guests", "team-ml", "team-plain", "team-other")
GROUPS = ("group:default/power", "group:default/plain", "group:default/none")


W = TypeVar("W", bound="World")


class Killed(BaseException):
    """The process is gone: no handler of exceptions runs on."""


class World:
    """LiteLLM, Backstage and a plugin whose accounts follow their roles.

    Attributes:
        fuse: Steps until the process is killed: each call to LiteLLM and each record of a grant
            has one before and one after it; None: it is not killed.
        calls: Method and path of the calls to LiteLLM.
    """

    base_url = BASE_URL

    def __init__(self, settings: Settings, tokens: TokenFactory) -> None:
        self.settings = settings
        self.host = StandIn()
        self.litellm = self.host.litellm
        self.backstage = FakeBackstage(tokens, People([]))
        self.members: dict[str, dict[str, Any]] = {}
        self.fuse: int | None = None
        self.calls: list[str] = []
        for team in TEAMS:
            self.litellm.team_new({"team_id": team, "team_alias": team})
        for model in ("gpt-4o", "gpt-4o-mini"):
            self.litellm.store.models.append({"model_name": model, "model_info": {}})
        self.network = Network(self, self.backstage)
        self.plugin: Plugin = build(settings)
        self.backstage.discovers("litellm", self.plugin.plugin_keys.public_jwks)

    def answer(self, asked: Asked) -> Reply:
        """Answer as LiteLLM, unless the process is killed meanwhile."""
        self.burn()
        self.calls.append(f"{asked.method} {asked.path}")
        reply = self.host.answer(asked)
        self.burn()
        return reply

    def burn(self) -> None:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Killed

    @property
    def writes(self) -> list[str]:
        return [call.removeprefix("POST ") for call in self.calls if call.startswith("POST")]

    def person(self, name: str, *groups: str, email: str | None = None) -> None:
        """Have a person in the catalog, as member of these groups."""
        profile = {"email": email} if email else {}
        self.members[name] = {
            "kind": "User",
            "metadata": {"name": name},
            "spec": {"profile": profile, "memberOf": [*groups]},
        }
        self.backstage.people = People(self.members.values())

    def leave(self, name: str) -> None:
        """Remove a person from the catalog."""
        del self.members[name]
        self.backstage.people = People(self.members.values())

    def account(self, user_id: str, **fields: Any) -> None:
        """Have an account at LiteLLM."""
        self.litellm.user_new({"user_id": user_id, "auto_create_key": False, **fields})

    def user(self, user_id: str) -> dict[str, Any]:
        """Return LiteLLM's row."""
        return dict(self.litellm.store.users[user_id])

    def visit(self, user_id: str) -> Any:
        """Compare an account, as a visit of its owner does."""
        assert self.plugin.sync is not None
        return self.plugin.sync.compare_visitor(user_id)

    def killed_visit(self, user_id: str, fuse: int) -> bool:
        """Compare an account until the fuse has burnt; tells whether it was killed."""
        self.fuse = fuse
        try:
            self.visit(user_id)
        except Killed:
            return True
        finally:
            self.fuse = None
        return False


def with_sync(settings: Settings, **options: Any) -> Settings:
    """Return settings whose accounts follow their roles."""
    sync = Sync(**{"enabled": True, "mode": "apply", **options})
    provisioning = Provisioning(enabled=True, defaults=DEFAULTS, roles=ROLES, sync=sync)
    service = replace(settings.service, cache_seconds=0.0)
    return replace(settings, provisioning=provisioning, service=service)


@contextmanager
def world(settings: Settings, tokens: TokenFactory, kind: type[W]) -> Iterator[W]:
    """Make a world, with settings of :func:`with_sync`."""
    made = kind(settings, tokens)
    with pytest.MonkeyPatch.context() as patch:
        made.network.install(patch)

        def burning(method: Callable[..., Any]) -> Callable[..., Any]:
            def put(*arguments: Any) -> Any:
                made.burn()
                answer = method(*arguments)
                made.burn()
                return answer

            return put

        patch.setattr(Grants, "put", burning(Grants.put))
        yield made
    assert made.plugin.store is not None
    made.plugin.store.close()
