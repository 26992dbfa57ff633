"""Runs of ``offboard`` that are killed at any step, and the rules that tables of cases tell."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_plugin.accounts.directory import AllPeople, Directory, Person
from litellm_plugin.accounts.offboarding import (
    Action,
    Candidate,
    Offboarding,
    Plan,
    Step,
    make_plan,
    refusal,
)
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import Account, LiteLLM
from litellm_plugin.config.settings import Settings
from litellm_plugin.store.leavers import Leaver, LeaverTable
from tests.apps import Apps

START = datetime(2026, 11, 27, 12, tzinfo=UTC)
GRACE = timedelta(hours=24)


class KilledError(BaseException):
    """The process is killed."""


@dataclass
class World:
    """The catalog, LiteLLM and the table in memory; the process is killed at a step of choice.

    A step is a call that changes LiteLLM or the table. A killed one has either been done, or not.

    Attributes:
        present: Names of the people in the catalog.
        keys: Whether a key is blocked, by user id and hash.
        blocked: Every call that blocked a key which was not blocked, and so for the next two.
    """

    present: set[str]
    keys: dict[str, dict[str, bool]]
    now: datetime = START
    rows: dict[str, Leaver] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    unblocked: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    steps: int = 0
    kill_at: int | None = None
    done_when_killed: bool = False

    def _step(self, change: Callable[[], None]) -> None:
        self.steps += 1
        if self.steps == self.kill_at:
            if self.done_when_killed:
                change()
            raise KilledError
        change()

    # -- the catalog ---------------------------------------------------------

    def everyone(self) -> AllPeople:
        people = ((f"user:default/{name}", Entity("User")) for name in sorted(self.present))
        return AllPeople(people, "example.com")

    def entity(self, ref: str) -> Entity | None:
        return Entity("User") if ref.rpartition("/")[2] in self.present else None

    def of_id(self, user_id: str) -> list[Person]:
        return self.everyone().of_id(user_id)

    # -- LiteLLM -------------------------------------------------------------

    def _row(self, user_id: str) -> dict[str, Any]:
        metadata = {
            "provisioned_by": "backstage",
            "backstage_entity": f"user:default/{user_id.partition('@')[0]}",
        }
        return {"user_id": user_id, "metadata": metadata, "key_count": len(self.keys[user_id])}

    def accounts(self, _page: int) -> tuple[list[Account], int]:
        return [Account(user_id, self._row(user_id), [], user_id) for user_id in self.keys], 1

    def whole_account(self, user_id: str) -> Account | None:
        if user_id not in self.keys:
            return None
        keys = [
            {"token": token, "blocked": blocked, "user_id": user_id}
            for token, blocked in self.keys[user_id].items()
        ]
        return Account(user_id, {**self._row(user_id), "keys": keys}, [], user_id)

    account = whole_account

    def _set(self, token: str, *, blocked: bool, calls: list[str]) -> None:
        (keys,) = [keys for keys in self.keys.values() if token in keys]
        assert keys[token] is not blocked, f"{token} was changed twice"
        del keys[token]  # PostgreSQL may list a changed row last
        keys[token] = blocked
        calls.append(token)

    def block_key(self, token: str) -> None:
        self._step(lambda: self._set(token, blocked=True, calls=self.blocked))

    def unblock_key(self, token: str) -> None:
        self._step(lambda: self._set(token, blocked=False, calls=self.unblocked))

    def delete_user(self, user_id: str) -> None:
        def delete() -> None:
            del self.keys[user_id]
            self.deleted.append(user_id)

        self._step(delete)

    # -- the table -----------------------------------------------------------

    def all(self) -> dict[str, Leaver]:
        return dict(self.rows)

    def save(self, rows: list[Leaver], *, forget: Any = ()) -> None:
        def write() -> None:
            for user_id in forget:
                self.rows.pop(user_id, None)
            self.rows.update({row.user_id: row for row in rows})

        if rows or forget:
            self._step(write)

    # -- a run ---------------------------------------------------------------

    def run(self, settings: Settings, delete_after: timedelta | None = None) -> None:
        work = Offboarding(
            cast("LiteLLM", self),
            cast("Directory", self),
            cast("LeaverTable", self),
            settings,
            lambda: None,
            lambda: self.now,
        )
        work.apply(work.plan(GRACE, delete_after))

    @property
    def table(self) -> dict[str, tuple[Any, ...]]:
        """What the table says, but for the number of runs and passes."""
        return {
            user_id: (row.entity_ref, row.shut_out, row.blocking, sorted(row.blocked_keys))
            for user_id, row in self.rows.items()
        }


@pytest.fixture(scope="session")
def settings(apps: Apps) -> Settings:
    return apps.settings()


def world() -> World:
    """Two leavers whose grace is over, one with a key blocked by hand, and one who stays."""
    ours = {
        "ann@example.com": {"a1": False, "a2": True, "a3": False},
        "ben@example.com": {"b1": False},
        "zoe@example.com": {"z1": False},
    }
    left = World({"zoe", "ann", "ben"}, ours)
    left.present -= {"ann", "ben"}
    return left


def due_world(settings: Settings) -> World:
    """A world in which the next run blocks the keys of both leavers."""
    left = world()
    left.run(settings)
    left.now += GRACE
    return left


def blocked_world(settings: Settings) -> World:
    left = due_world(settings)
    left.run(settings)
    return left


@pytest.mark.parametrize("act", ["block", "unblock", "delete"])
def test_a_run_may_be_killed_twice_at_any_steps(settings: Settings, act: str) -> None:
    before = due_world(settings) if act == "block" else blocked_world(settings)
    before.steps, delete_after = 0, timedelta(0) if act == "delete" else None
    if act == "unblock":
        before.present |= {"ann", "ben"}
    whole = deepcopy(before)
    whole.run(settings, delete_after)
    steps = range(1, whole.steps + 1)
    for step, done, second in itertools.product(steps, (False, True), steps):
        killed = deepcopy(before)
        killed.kill_at, killed.done_when_killed = step, done
        with pytest.raises(KilledError):
            killed.run(settings, delete_after)
        killed.steps, killed.kill_at = 0, second
        with suppress(KilledError):
            killed.run(settings, delete_after)
        killed.kill_at = None
        killed.run(settings, delete_after)
        for seen in ("keys", "table", "deleted"):
            assert getattr(killed, seen) == getattr(whole, seen), (step, done, second)
        for seen in ("blocked", "unblocked"):
            assert sorted(getattr(killed, seen)) == sorted(getattr(whole, seen))
    if act == "delete":
        assert set(whole.keys) == {"zoe@example.com"}
        assert all(row.deleted_at is not None for row in whole.rows.values())
    else:
        calls = whole.blocked if act == "block" else whole.unblocked
        assert sorted(calls) == ["a1", "a3", "b1"]
        assert whole.keys["ann@example.com"]["a2"] is True  # blocked by hand


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("step", range(1, 8))
def test_a_person_who_leaves_again_while_keys_are_unblocked_keeps_no_key(
    settings: Settings, step: int, done: bool
) -> None:
    left = blocked_world(settings)
    left.present |= {"ann", "ben"}
    left.steps, left.kill_at, left.done_when_killed = 0, step, done
    with pytest.raises(KilledError):
        left.run(settings)
    left.kill_at = None
    left.present -= {"ann", "ben"}
    for _ in range(3):
        left.now += GRACE
        left.run(settings)
    assert all(all(left.keys[f"{name}@example.com"].values()) for name in ("ann", "ben"))
    left.present |= {"ann", "ben"}
    left.run(settings)
    assert left.keys == world().keys


EVENTS = st.one_of(
    st.tuples(st.just("leave"), st.sampled_from(["ann", "ben"])),
    st.tuples(st.just("return"), st.sampled_from(["ann", "ben"])),
    st.tuples(st.just("run"), st.none()),
    st.tuples(st.just("kill"), st.tuples(st.integers(1, 14), st.booleans())),
)


@given(st.lists(EVENTS, max_size=12))
def test_whatever_happens_all_keys_come_back_with_their_owner_and_no_other(
    apps: Apps, events: list[tuple[str, Any]]
) -> None:
    settings, office = apps.settings(), world()
    office.present |= {"ann", "ben"}
    as_it_was = deepcopy(office.keys)
    for event, argument in events:
        office.now += GRACE
        if event == "leave":
            office.present.discard(argument)
        elif event == "return":
            office.present.add(argument)
        elif event == "run":
            office.run(settings)
        else:
            office.steps, (office.kill_at, office.done_when_killed) = 0, argument
            with suppress(KilledError):
                office.run(settings)
            office.kill_at = None
    # The key of a2's owner was blocked by hand, and nothing of zoe's was ever touched.
    assert "a2" not in office.blocked + office.unblocked
    assert "z1" not in office.blocked + office.unblocked
    missing = {"ann", "ben"} - office.present
    for _ in range(3):
        office.now += GRACE
        office.run(settings)
    for name in missing:
        assert all(office.keys[f"{name}@example.com"].values())
    office.present |= {"ann", "ben"}
    office.run(settings)
    assert office.keys == as_it_was
    assert office.rows == {}


# -- rules -------------------------------------------------------------------


def leaver(**over: Any) -> Leaver:
    ann = "ann@example.com"
    return replace(Leaver(ann, ann, "user:default/ann", START - GRACE, 1), **over)


BLOCKED = {"blocked_at": START - timedelta(days=30), "runs_missing": 5}


@pytest.mark.parametrize(
    ("row", "listed", "delete_after", "action"),
    [
        (None, True, None, Action.WAIT),
        (leaver(), True, None, Action.BLOCK),
        (leaver(missing_since=START - GRACE / 2), True, None, Action.WAIT),
        (leaver(), False, None, Action.GONE),
        (leaver(missing_since=START), False, None, Action.WAIT),
        (leaver(**BLOCKED), True, None, Action.FINISH),
        (leaver(**BLOCKED, passes=1), True, None, Action.FINISH),
        (leaver(**{**BLOCKED, "blocked_at": START}, passes=1), True, None, Action.BLOCKED),
        (leaver(**BLOCKED, passes=2), True, None, Action.BLOCKED),
        (leaver(**BLOCKED, passes=2), True, timedelta(days=31), Action.BLOCKED),
        (leaver(**BLOCKED, passes=2), True, timedelta(days=30), Action.DELETE),
        (leaver(**BLOCKED), True, timedelta(days=30), Action.FINISH),
        (leaver(**BLOCKED, deleted_at=START), False, None, Action.GONE),
        (leaver(**BLOCKED, deleted_at=START), True, None, Action.BLOCK),  # made again by hand
    ],
)
def test_what_is_done_about_a_missing_entity(
    row: Leaver | None, listed: bool, delete_after: timedelta | None, action: Action
) -> None:
    ann = Candidate("ann@example.com", "user:default/ann")
    accounts: dict[str, Candidate | None] = {ann.user_id: ann} if listed else {}
    known = {ann.user_id: row} if row is not None else {}
    people = AllPeople([("user:default/zoe", Entity("User"))], "example.com")
    plan = make_plan(accounts, people, known, START, GRACE, delete_after)
    assert [step.action for step in plan.steps] == [action]


def test_the_grace_begins_anew_for_a_leaver_who_was_back() -> None:
    ann = Candidate("ann@example.com", "user:default/ann")
    rows = {ann.user_id: leaver(runs_missing=0)}
    people = AllPeople([], "example.com")
    (step,) = make_plan({ann.user_id: ann}, people, rows, START, GRACE, None).steps
    assert (step.action, step.leaver.missing_since) == (Action.WAIT, START)


@pytest.mark.parametrize(
    ("people", "before", "accounts", "hit", "force", "word"),
    [
        (0, None, 5, 0, None, "no people"),
        (0, None, 5, 1, 1, "no people"),
        (50, 100, 100, 0, None, None),
        (49, 100, 100, 0, None, "fewer than half"),
        (49, 100, 100, 2, 2, None),
        (49, 100, 100, 2, 1, "does not fit"),
        (100, 100, 10, 3, None, None),
        (100, 100, 10, 4, None, "at once"),
        (100, 100, 100, 10, None, None),
        (100, 100, 100, 11, None, "at once"),
        (100, 100, 100, 11, 11, None),
        (100, 100, 100, 12, 11, "does not fit"),
        (100, 100, 100, 1, 11, "does not fit"),
        (100, None, 1, 1, None, None),
    ],
)
def test_limits(
    people: int, before: int | None, accounts: int, hit: int, force: int | None, word: str | None
) -> None:
    steps = tuple(Step(Action.BLOCK, leaver()) for _ in range(hit))
    text = refusal(Plan(accounts, people, steps), before, 10.0, force)
    assert (text is None) if word is None else (text is not None and word in text)
