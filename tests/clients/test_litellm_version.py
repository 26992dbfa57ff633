"""Which versions of LiteLLM are supported, and how often it is asked for its own."""

from __future__ import annotations

import pytest

from litellm_plugin.clients.litellm_version import (
    KEPT,
    OLDEST,
    UNKNOWN_KEPT,
    KnownVersion,
    is_too_old,
)
from litellm_plugin.errors import UpstreamError, UsageUnavailable


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("1.81.14", False),
        ("1.81.14.rc1", False),
        ("1.81.14-stable", False),
        ("1.81.14-stable.patch.1", False),
        ("v1.82.0", False),
        ("1.82", False),
        ("1.106.2", False),
        ("2.0.0", False),
        ("10.0.1", False),
        ("1.81.13", True),
        ("1.81.13-stable", True),
        ("v1.81.9.rc2", True),
        ("1.81", True),
        ("1.9.99", True),
        ("0.110.0", True),
        ("main", None),
        ("", None),
        ("1", None),
        ("\u0661.\u0668\u0661.\u0661\u0664", None),  # digits, but of another script
    ],
)
def test_versions_are_compared_by_their_first_three_numbers(version: str, old: bool | None) -> None:
    assert is_too_old(version) is old


class World:
    """One process and its clock; a LiteLLM that counts how often it is asked."""

    def __init__(self, told: str | UpstreamError | None) -> None:
        self.told = told
        self.seconds = 0.0
        self.asked = 0
        self.version = KnownVersion(self.ask, lambda: self.seconds)

    def ask(self) -> str | None:
        self.asked += 1
        if isinstance(self.told, UpstreamError):
            raise self.told
        return self.told


def test_a_known_version_is_asked_for_once_in_five_minutes() -> None:
    world = World("1.106.2")
    for _ in range(3):
        world.version.refuse_too_old()
    world.seconds = KEPT - 1
    world.version.refuse_too_old()
    assert world.asked == 1
    world.seconds = KEPT
    world.told = "1.81.13"
    with pytest.raises(UsageUnavailable):
        world.version.refuse_too_old()
    assert world.asked == 2


def test_a_refusal_names_the_version_found_and_the_one_wanted() -> None:
    world = World("1.80.17")
    for _ in range(2):
        with pytest.raises(UsageUnavailable, match=f"1.80.17 .*{OLDEST}"):
            world.version.refuse_too_old()
    assert world.asked == 1


@pytest.mark.parametrize("told", [None, "main", UpstreamError("LiteLLM did not answer")])
def test_an_unknown_version_is_allowed_with_one_warning_a_minute(
    told: str | UpstreamError | None, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(told)
    world.version.refuse_too_old()
    world.seconds = UNKNOWN_KEPT - 1
    world.version.refuse_too_old()
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert world.asked == 1
    world.seconds = UNKNOWN_KEPT
    world.version.refuse_too_old()
    assert world.asked == 2


def test_a_version_that_was_told_counts_while_litellm_does_not_answer() -> None:
    world = World("1.80.17")
    with pytest.raises(UsageUnavailable):
        world.version.refuse_too_old()
    world.told, world.seconds = UpstreamError("LiteLLM did not answer"), KEPT
    with pytest.raises(UsageUnavailable):
        world.version.refuse_too_old()
