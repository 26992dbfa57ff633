"""Requests in a row, as those of one page are: what they read, and what the next page does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from litellm_plugin.cache.host import LONGEST, HostShared
from litellm_plugin.cache.memory import MemoryStore
from litellm_plugin.cache.snapshots import PAUSE, Snapshots
from litellm_plugin.config.settings import CACHE_SECONDS, Settings
from tests.cache.conftest import Worlds
from tests.cache.test_page_load import PLAIN, furnish, paths
from tests.cache.world import PERIOD, World, caching, id_of
from tests.identity.doubles import Clock


@pytest.fixture
def host(tmp_path: Path) -> HostShared:
    return HostShared(tmp_path / "a.shared")


def test_a_row_goes_on_while_a_request_is_under_way(host: HostShared) -> None:
    assert host.begin("a", 1000.0, 0.05) == 1000.0
    assert host.begin("a", 1009.0, 0.05) == 1000.0
    host.end("a", 1010.0)
    assert host.begin("a", 1020.0, 0.05) == 1000.0


def test_a_row_goes_on_right_after_a_request(host: HostShared) -> None:
    host.begin("a", 1000.0, 0.05)
    host.end("a", 1001.0)
    assert host.begin("a", 1001.04, 0.05) == 1000.0


def test_a_new_row_begins_after_a_pause(host: HostShared) -> None:
    host.begin("a", 1000.0, 0.05)
    host.end("a", 1001.0)
    assert host.begin("a", 1001.06, 0.05) == 1001.06


def test_a_row_does_not_go_on_for_ever_because_a_worker_was_killed(host: HostShared) -> None:
    host.begin("a", 1000.0, 0.05)
    assert host.begin("a", 1001.0 + LONGEST, 0.05) == 1001.0 + LONGEST
    host.end("a", 1002.0 + LONGEST)
    assert host.begin("a", 1003.0 + LONGEST, 0.05) == 1003.0 + LONGEST


def test_a_row_does_not_go_on_because_the_clock_went_back(host: HostShared) -> None:
    host.begin("a", 1000.0, 0.05)
    assert host.begin("a", 900.0, 0.05) == 900.0


def test_workers_of_a_host_see_the_same_row(host: HostShared) -> None:
    assert host.path is not None
    host.begin("a", 1000.0, 0.05)
    assert HostShared(host.path).begin("a", 1000.5, 0.05) == 1000.0
    assert HostShared(host.path).begin("b", 1000.5, 0.05) == 1000.5


def test_what_an_earlier_row_read_is_read_again_and_stands_in_all_the_same(
    host: HostShared,
) -> None:
    clock = Clock(1000.0)
    snapshots = Snapshots(MemoryStore(host, timer=clock), 3, clock=clock, host=host)
    values = iter("abc")

    def read() -> str:
        since = snapshots.begin("jane")
        try:
            return snapshots.read(("k", "jane"), (), lambda: next(values), since=since)
        finally:
            snapshots.end("jane")

    assert [read(), read()] == ["a", "a"]
    clock.now += PAUSE / 2
    assert read() == "a"
    clock.now += PAUSE * 2
    assert [read(), read()] == ["b", "b"]


FOLLOWING = ("/keys", "/user/info", "/teams", "/models", f"/usage?{PERIOD}", "/keys")


@pytest.fixture
def world(open_world: Worlds, settings: Settings) -> World:
    """Two workers as they are unless configured; everybody has read everything once."""
    world = open_world(replace(settings, service=replace(settings.service, cache_seconds=None)), 2)
    furnish(world)
    for path in FOLLOWING:
        world.get(PLAIN, path)
    world.litellm.calls.clear()
    return world


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request that finds none under way begins a row."""
    monkeypatch.setattr("litellm_plugin.cache.snapshots.PAUSE", -1.0)


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests are in one row."""
    monkeypatch.setattr("litellm_plugin.cache.snapshots.PAUSE", 1000.0)


@pytest.mark.usefixtures("long_pause")
def test_a_page_costs_nothing_while_it_goes_on(world: World) -> None:
    for number, path in enumerate(FOLLOWING):
        world.get(PLAIN, path, worker=number % 2)
    assert world.litellm.calls == []


@pytest.mark.usefixtures("no_pause")
def test_what_was_made_in_litellm_itself_is_there_with_the_next_page(world: World) -> None:
    made = world.litellm.stand_in.key_generate({"user_id": id_of(PLAIN), "key_alias": "elsewhere"})
    keys = world.get(PLAIN, "/keys", worker=1)
    assert made["token"] in {key["token"] for key in keys}
    assert paths(world) == {"/user/info": 1}


@pytest.mark.usefixtures("no_pause")
def test_the_next_page_asks_for_nothing_but_the_account(world: World) -> None:
    for path in ("/models", f"/usage?{PERIOD}"):
        world.get(PLAIN, path)
    assert set(paths(world)) == {"/user/info"}


@pytest.mark.usefixtures("no_pause")
def test_a_configured_time_is_kept_to(open_world: Worlds, settings: Settings) -> None:
    world = open_world(caching(settings, CACHE_SECONDS), 2)
    furnish(world)
    world.get(PLAIN, "/keys")
    world.litellm.calls.clear()
    for number, path in enumerate(("/keys", "/user/info", "/teams")):
        world.get(PLAIN, path, worker=number % 2)
    assert world.litellm.calls == []
