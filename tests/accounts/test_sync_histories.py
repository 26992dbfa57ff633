"""Whatever happens in which order: what was set by hand stays, and all else is the role's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_plugin.accounts.three_way import SCALARS, role_values
from tests.accounts.sync_world import GROUPS, TEAMS, World, with_sync, world
from tests.apps import Apps
from tests.postgres import Postgres
from tests.tokens import TokenFactory

BY_HAND: dict[str, Any] = {  # values that no role grants
    "max_budget": 777.0,
    "budget_duration": "3d",
    "models": ["claude"],
    "tpm_limit": 7,
    "rpm_limit": 8,
    "user_role": "proxy_admin_viewer",
}
GRANTED_TEAMS = TEAMS[:3]

NUMBERS = itertools.count()

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.sampled_from(GROUPS)),
        st.tuples(st.just("run"), st.none()),
        st.tuples(st.just("kill"), st.integers(0, 16)),
        st.tuples(st.just("set"), st.sampled_from(SCALARS)),
        st.tuples(st.just("give back"), st.sampled_from(SCALARS)),
        st.tuples(st.just("add"), st.sampled_from(TEAMS)),
        st.tuples(st.just("remove"), st.sampled_from(TEAMS)),
    ),
    max_size=14,
)


@pytest.fixture(scope="module")
def changing(apps: Apps, tokens: TokenFactory) -> Iterator[World]:
    with world(with_sync(apps.settings()), tokens, World) as made:
        yield made


@pytest.fixture(scope="module")
def on_postgres(apps: Apps, tokens: TokenFactory, postgres: Postgres) -> Iterator[World]:
    settings = replace(with_sync(apps.settings()), database=postgres.database())
    with world(settings, tokens, World) as made:
        yield made


class History:
    """What one account has seen, and what has to be true of it.

    Attributes:
        hand: Fields that were set by hand, with their values.
        members: Teams that the account was put into by hand.
        removed: Teams that the account was taken out of by hand, after it was granted them.
        unclear: Teams of whose membership nobody can tell who changed it: a process was killed
            while it did.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        name = f"person-{next(NUMBERS)}"
        self.name, self.user_id = name, f"{name}@example.com"
        self.hand: dict[str, Any] = {}
        self.members: set[str] = set()
        self.removed: set[str] = set()
        self.unclear: set[str] = set()
        self.killed = False
        self.move(GROUPS[2])
        role = self.role
        world.account(
            self.user_id,
            **{name: role[name] for name in (*SCALARS, "teams")},
            metadata={"backstage_entity": f"user:default/{name}"},
        )
        world.visit(self.user_id)

    @property
    def role(self) -> dict[str, Any]:
        return role_values(self.world.settings.provisioning.for_groups(frozenset({self.group})))

    @property
    def teams(self) -> set[str]:
        return set(self.world.user(self.user_id)["teams"])

    def move(self, group: str) -> None:
        self.group = group
        self.world.person(self.name, group.removeprefix("group:default/"))

    def set(self, field: str) -> None:
        self.hand[field] = BY_HAND[field]
        self.write(field, BY_HAND[field])

    def give_back(self, field: str) -> None:
        """Set a field to the value that was granted, which hands it back."""
        grants = self.world.plugin.sync.grants  # type: ignore[union-attr]
        grant = grants.of(self.user_id)
        assert grant is not None
        self.hand.pop(field, None)
        self.write(field, grant.granted[field])

    def write(self, field: str, value: Any) -> None:
        row = self.world.litellm.store.users[self.user_id]
        row[field] = value

    def add(self, team: str) -> None:
        if team in self.teams:
            return
        self.world.litellm.team_member_add(
            {"team_id": team, "member": {"user_id": self.user_id, "role": "user"}}
        )
        if self.killed:
            self.unclear.add(team)
        elif team in self.removed:
            self.removed.discard(team)  # as granted again
        else:
            self.members.add(team)

    def remove(self, team: str) -> None:
        if team not in self.teams:
            return
        self.world.litellm.team_member_delete({"team_id": team, "user_id": self.user_id})
        if self.killed:
            self.unclear.add(team)
        elif team in self.members:
            self.members.discard(team)  # never granted, so there is nothing to remember
        else:
            self.removed.add(team)

    def kill(self, fuse: int) -> None:
        self.killed = self.world.killed_visit(self.user_id, fuse)
        self.check_hand()

    def run(self) -> None:
        outcome = self.world.visit(self.user_id)
        assert outcome.errors == ()
        self.killed = False
        self.check_hand()
        self.check_role()

    def check_hand(self) -> None:
        """Nothing that was changed by hand was overwritten."""
        row = self.world.user(self.user_id)
        assert {name: row[name] for name in self.hand} == self.hand
        assert self.members - self.unclear <= self.teams
        assert not (self.removed - self.unclear) & self.teams

    def check_role(self) -> None:
        """All else is as the role grants it, and nothing is left pending."""
        row, role = self.world.user(self.user_id), self.role
        models = [] if "all-proxy-models" in row["models"] else sorted(row["models"])
        row = {**row, "models": models}
        ours = [name for name in SCALARS if name not in self.hand]
        assert {name: row[name] for name in ours} == {name: role[name] for name in ours}
        wanted = ({*role["teams"]} | self.members) - self.removed
        assert self.teams - self.unclear == wanted - self.unclear
        assert len(row["teams"]) == len(self.teams)  # none twice
        grant = self.world.plugin.sync.grants.of(self.user_id)  # type: ignore[union-attr]
        assert grant is not None
        assert grant.pending is None


@pytest.mark.deep
@given(steps=STEPS)
def test_grants_in_postgresql_have_the_same_history(
    on_postgres: World, steps: list[tuple[str, Any]]
) -> None:
    _live_through(on_postgres, steps)


@settings(max_examples=settings().max_examples // 4)
@given(steps=STEPS)
def test_what_is_set_by_hand_stays_and_all_else_is_the_roles(
    changing: World, steps: list[tuple[str, Any]]
) -> None:
    _live_through(changing, steps)


def _live_through(changing: World, steps: list[tuple[str, Any]]) -> None:
    history = History(changing)
    for name, argument in steps:
        step = getattr(history, name.replace(" ", "_"))
        step(*([] if argument is None else [argument]))
    for group in (history.group, *GROUPS):
        history.move(group)
        history.run()
    changing.calls.clear()
    history.run()
    assert changing.writes == []  # a second run finds nothing to do
