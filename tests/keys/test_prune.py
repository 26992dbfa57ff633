"""Pruning changes only keys with this service's metadata, and only when a step is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from litellm_plugin.clock import iso
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import UpstreamError
from litellm_plugin.keys.metadata import RotationRecord
from litellm_plugin.keys.prune import INTERRUPTED_AFTER, Action, Pruning, steps_of
from litellm_plugin.plugin import build
from litellm_plugin.shapes import BRIDGE_KEY, ROTATION, TEAM_KEY
from tests.cache.world import FailsError, World
from tests.fakes.network import dropped
from tests.keys import test_rotation
from tests.keys.test_rotation import (
    OLD,
    STEPS,
    KilledError,
    fails,
    ignoring,
    keys,
    life_left,
    make,
    mended,
    near,
    on,
    only_other,
    rotate,
)

world = test_rotation.world

Json = dict[str, Any]

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TOOL = {BRIDGE_KEY: {"tool": "claude-code", "machine": "laptop"}}
PAST, AHEAD = iso(NOW - HOUR), iso(NOW + HOUR)
NEW_TOKEN, OLD_TOKEN = "a" * 64, "b" * 64
UNTIL = {"alias": "ci", "expires": None, "until": PAST}
NEW = RotationRecord((OLD_TOKEN,), "ci", delivered=True)


def row(token: str = NEW_TOKEN, **fields: Any) -> Json:
    known: Json = {
        "user_id": "bob@example.com",
        "created_at": PAST,
        "expires": None,
        "metadata": {},
    }
    return {"token": token, "key_alias": "ci", **known, **fields}


def new(mark: RotationRecord = NEW, **fields: Any) -> Json:
    return row(metadata={ROTATION: mark.as_json()}, **fields)


def of_team(key: Json) -> Json:
    metadata = {**key["metadata"], TEAM_KEY: True}
    return {**key, "user_id": None, "team_id": "t", "metadata": metadata}


def marked(mark: Any) -> Json:
    return row(metadata={ROTATION: mark}, expires=PAST)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([row(metadata=TOOL, expires=PAST)], Action.EXPIRED),
        ([row(metadata=TOOL, expires=PAST, budget_reset_at=PAST)], Action.EXPIRED),
        # Its spend counts until then.
        ([row(metadata=TOOL, expires=PAST, budget_reset_at=AHEAD)], None),
        ([row(metadata=TOOL, expires=AHEAD)], None),
        ([row(metadata=TOOL)], None),
        ([row(metadata=TOOL, expires="soon")], None),
        # A bridge key without a tool, one by hand, and one with metadata of another program.
        ([row(metadata={BRIDGE_KEY: {}}, expires=PAST)], None),
        ([row(expires=PAST)], None),
        ([row(metadata={"tool": "claude-code", "machine": "laptop"}, expires=PAST)], None),
        ([row(metadata={BRIDGE_KEY: "claude-code"}, expires=PAST)], None),
        ([row(metadata=TOOL, expires=PAST, user_id="default_user_id")], None),
        # Old keys of rotations.
        (
            [row(metadata={ROTATION: RotationRecord(replaced=UNTIL).as_json()}, expires=PAST)],
            Action.ROTATED,
        ),
        ([row(metadata={ROTATION: RotationRecord(replaced=UNTIL).as_json()}, expires=AHEAD)], None),
        # It got a longer life since, which is over, too: it ended as any other key.
        ([marked({"replaced": {**UNTIL, "until": iso(NOW - DAY)}})], None),
        ([marked(5)], None),
        ([marked({"replaced": {"until": 5}})], None),
        ([marked({"replaced": "x", "replaces": {}})], None),
        ([marked({"replaced": False})], None),
        ([marked({"replaced": []})], None),
        ([marked({"replaces": ""})], None),
        ([marked({"replaced": {**UNTIL, "until": "9999-12-31T23:59:59Z"}})], Action.ROTATED),
        # New keys that were not handed out.
        ([new(replace(NEW, delivered=False))], Action.UNDELIVERED),
        ([new(replace(NEW, delivered=False)), row(OLD_TOKEN)], Action.UNDELIVERED),
        ([new(replace(NEW, delivered=False), created_at=iso(NOW - MINUTE))], None),
        # Rotations whose old key was not ended.
        ([new(), row(OLD_TOKEN)], Action.FINISH),
        ([new(replace(NEW, grace="7d")), row(OLD_TOKEN)], Action.FINISH),
        ([new(replace(NEW, grace="999999999w")), row(OLD_TOKEN)], None),
        ([new()], None),
        ([new(created_at=iso(NOW - MINUTE)), row(OLD_TOKEN)], None),
        ([new(), row(OLD_TOKEN, user_id="eve@example.com")], None),
        ([new(user_id=None), row(OLD_TOKEN, user_id=None)], None),
        ([of_team(new()), of_team(row(OLD_TOKEN))], Action.FINISH),
        ([of_team(new()), {**of_team(row(OLD_TOKEN)), "team_id": "u"}], None),
        ([of_team(new()), {**of_team(row(OLD_TOKEN)), "metadata": {}}], None),
        ([of_team(new()), {**of_team(row(OLD_TOKEN)), "user_id": "eve@example.com"}], None),
        (
            [new(), row(OLD_TOKEN, metadata={ROTATION: RotationRecord(replaced=UNTIL).as_json()})],
            None,
        ),
        (
            [
                new(key_alias=f"ci.rotation-{OLD_TOKEN[:12]}"),
                row(OLD_TOKEN, metadata={ROTATION: RotationRecord(replaced=UNTIL).as_json()}),
            ],
            Action.FINISH,
        ),
    ],
    ids=str,
)
def test_only_recorded_keys_are_pruned_when_it_is_due(
    settings: Settings, rows: list[Json], wanted: Action | None
) -> None:
    steps = steps_of(rows, settings, NOW)
    assert [step.action for step in steps] == ([] if wanted is None else [wanted])


def test_a_chain_of_rotations_is_finished_key_by_key(settings: Settings) -> None:
    newest = {**new(replace(NEW, replaces=(NEW_TOKEN, OLD_TOKEN))), "token": "c" * 64}
    ended = row(
        OLD_TOKEN, expires=PAST, metadata={ROTATION: RotationRecord(replaced=UNTIL).as_json()}
    )
    steps = steps_of([ended, new(), newest], settings, NOW)
    assert [(step.action, step.key["token"]) for step in steps] == [
        (Action.ROTATED, OLD_TOKEN),
        (Action.FINISH, "c" * 64),
    ]


# -- with LiteLLM -----------------------------------------------------------------------


@pytest.fixture
def pruning(world: World, settings: Settings) -> Callable[..., Pruning]:
    def pruning(later: timedelta = INTERRUPTED_AFTER + MINUTE) -> Pruning:
        plugin = build(settings)
        now = lambda: datetime.now(UTC) + later  # noqa: E731
        return Pruning(plugin.litellm, plugin.rotations, settings, lambda: None, now)

    return pruning


def prune(pruning: Pruning) -> list[Action]:
    steps = pruning.steps(pruning.litellm.keys()[0])
    for step in steps:
        pruning.apply(step)
    return [step.action for step in steps]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["arriving", "acted"])
def test_a_rotation_whose_worker_was_killed_is_ended_without_its_client(
    world: World, pruning: Callable[..., Pruning], when: str, step: str
) -> None:
    setattr(world.litellm, when, on(*STEPS[step], fails(KilledError())))
    with pytest.raises(KilledError):
        rotate(world, request="abc", grace="2h")
    mended(world)
    before = {token: dict(kept) for token, kept in keys(world).items()}

    assert prune(pruning(timedelta())) == []  # a request may still be at it
    assert keys(world) == before
    prune(pruning())
    handed_out = test_rotation.BEFORE_IT_IS_HANDED_OUT
    if (when, step) in handed_out:
        assert set(keys(world)) == {OLD}
        assert keys(world)[OLD] == before[OLD]
    else:
        row = only_other(world, OLD)
        assert row["key_alias"] == "laptop"
        assert near(life_left(row), 30 * DAY)
        assert near(life_left(keys(world)[OLD]), 2 * HOUR)
    assert prune(pruning()) == []
    if len(keys(world)) == 2:
        assert prune(pruning(3 * HOUR)) == [Action.ROTATED]
        assert OLD not in keys(world)


def test_a_job_that_is_killed_at_any_step_is_finished_by_the_next(
    world: World, pruning: Callable[..., Pruning]
) -> None:
    for when in ("arriving", "acted"):
        for number in (1, 2):
            make(world)
            world.litellm.arriving = on(*STEPS["the old key is shortened"], fails(KilledError()))
            with pytest.raises(KilledError):
                rotate(world)
            mended(world)
            setattr(world.litellm, when, on("/key/update", number, fails(KilledError())))
            with pytest.raises(KilledError):
                prune(pruning())
            mended(world)
            prune(pruning())
            assert only_other(world, OLD)["key_alias"] == "laptop"
            assert near(life_left(keys(world)[OLD]), DAY)


def test_a_key_that_has_changed_since_it_was_listed_is_left_alone(
    world: World, pruning: Callable[..., Pruning]
) -> None:
    make(world, metadata=TOOL, duration="1s", budget_duration=None, max_budget=None)
    job = pruning()
    steps = job.steps(job.litellm.keys()[0])
    assert [step.action for step in steps] == [Action.EXPIRED]
    keys(world)[OLD]["expires"] = (datetime.now(UTC) + DAY).isoformat()
    job.apply(steps[0])
    assert OLD in keys(world)
    world.litellm.stand_in.key_delete({"keys": [OLD]})
    job.apply(steps[0])
    assert job.counts == {}
    assert job.failures == {}


def test_an_old_key_that_litellm_does_not_end_stops_no_job(
    world: World, pruning: Callable[..., Pruning]
) -> None:
    make(world)
    world.litellm.arriving = on(*STEPS["the old key is shortened"], fails(KilledError()))
    with pytest.raises(KilledError):
        rotate(world)
    mended(world)
    job = pruning()
    with ignoring(world, "/key/update", "duration"):
        assert prune(job) == [Action.FINISH]
    assert job.counts == {"failed": 1}
    assert list(job.failures.values()) == ["LiteLLM did not take the old key's duration"]


def test_a_refusal_is_told_and_an_outage_stops_the_job(
    world: World, pruning: Callable[..., Pruning]
) -> None:
    make(world, metadata=TOOL, duration="1s", budget_duration=None, max_budget=None)
    world.litellm.arriving = on("/key/delete", 1, fails(FailsError(400)))
    job = pruning()
    prune(job)
    assert job.failures == {OLD: "told to fail"}
    assert job.counts == {"failed": 1}
    world.litellm.arriving = on("/key/delete", 1, fails(dropped()))
    with pytest.raises(UpstreamError):
        prune(pruning())
    mended(world)
    prune(pruning())
    assert keys(world) == {}
