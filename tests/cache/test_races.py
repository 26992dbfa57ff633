"""Reads and writes that meet at the worst moments, in real threads.

The moments are made, not waited for: LiteLLM holds an answer back until the other side is
through.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import pytest
from werkzeug.test import TestResponse

from litellm_plugin.cache.cache import Cache
from litellm_plugin.config.settings import Settings
from tests.cache.conftest import Worlds
from tests.cache.world import (
    PERIOD,
    TEAM_ADMINS,
    Call,
    FailsError,
    Hold,
    World,
    caching,
    id_of,
    used,
)

pytestmark = pytest.mark.deep

WORKERS = 3
SECONDS = 3600.0
WAIT = Hold.WAIT

PEOPLE, ADMIN, NEW = ("bob", "cleo"), "ada", ("nina", "omar", "pia")
TEAM, DOCS = "team-plain", "team-docs"  # the latter with knowledge bases: /team/info is asked

Submit = Callable[..., Future[Any]]


@pytest.fixture
def world(open_world: Worlds, settings: Settings) -> World:
    world = open_world(caching(settings, SECONDS), WORKERS)
    world.people(**dict.fromkeys((*PEOPLE, *NEW), ()), **{ADMIN: (TEAM_ADMINS,)})
    litellm = world.litellm.stand_in
    for name in (*PEOPLE, ADMIN):
        litellm.user_new({"user_id": id_of(name), "auto_create_key": False})
    for team_id, objects in ((TEAM, None), (DOCS, {"vector_stores": ["vs-docs"]})):
        members = [{"user_id": id_of(name), "role": "user"} for name in (*PEOPLE, ADMIN)]
        team = {
            "team_id": team_id,
            "team_alias": team_id,
            "max_budget": 1,
            "members_with_roles": members,
            "metadata": {"owning_group": TEAM_ADMINS},
        }
        litellm.team_new(team | ({"object_permission": objects} if objects else {}))
    for name in PEOPLE:
        key = {"key_alias": f"{name}-1", "user_id": id_of(name), "team_id": TEAM}
        token = litellm.key_generate(key)["token_id"]
        litellm.store.add_usage([used(token, id_of(name), TEAM)])
    return world


@pytest.fixture
def submit() -> Iterator[Submit]:
    """Runs calls in threads; what they raise is raised by the future's ``result``."""
    with ThreadPoolExecutor(32) as pool:
        yield pool.submit


# -- what is read and written ----------------------------------------------------


def rename(world: World, who: str, number: int, worker: int) -> TestResponse:
    """Give somebody's only key another name."""
    keys = world.litellm.stand_in.store.keys_of(user_id=id_of(who))
    path, body = f"/keys/{keys[0]['token']}/update", {"key_alias": f"{who}-{number}"}
    return world.ask(who, "POST", path, json=body, worker=worker)


def rebudget(world: World, team: str, number: int, worker: int) -> TestResponse:
    """Give a team another budget."""
    body = {"max_budget": number}
    return world.ask(ADMIN, "PATCH", f"/teams/{team}", json=body, worker=worker)


@dataclass(frozen=True)
class Meeting:
    """Somebody's read, and a write that it shows.

    Attributes:
        asked: What LiteLLM is asked for it.
        number: Reads from the answer which write it shows; before all of them it is 1.
        write: Makes that write through a worker.
    """

    who: str
    path: str
    asked: str
    number: Callable[[Any], int]
    write: Callable[[World, int, int], TestResponse]

    def read(self, world: World, worker: int) -> int:
        return self.number(world.get(self.who, self.path, worker=worker))


def of_key(rows: list[dict[str, Any]]) -> int:
    return int(rows[0]["key_alias"].partition("-")[2])


def of_use(report: dict[str, Any]) -> int:
    aliases = [use["key_alias"].partition("-") for use in report["usage_by_key"].values()]
    return next(int(number) for name, _, number in aliases if name == "bob")


def of_team(team: str) -> Callable[[Any], int]:
    return lambda rows: next(int(row["max_budget"]) for row in rows if row["team_id"] == team)


def _renames(world: World, number: int, worker: int) -> TestResponse:
    return rename(world, "bob", number, worker)


def _rebudgets(team: str) -> Callable[[World, int, int], TestResponse]:
    return lambda world, number, worker: rebudget(world, team, number, worker)


KEYS, TEAMS, OWN_USE, TEAM_USE = (
    "/key/list",
    "/v2/team/list",
    "/user/daily/activity/aggregated",
    "/team/daily/activity/aggregated",
)
MEETINGS = {
    "keys": Meeting("bob", "/keys", KEYS, of_key, _renames),
    "usage": Meeting("bob", f"/usage?{PERIOD}", OWN_USE, of_use, _renames),
    "team usage": Meeting("bob", f"/teams/{TEAM}/usage?{PERIOD}", TEAM_USE, of_use, _renames),
    "others' teams": Meeting("bob", "/teams", TEAMS, of_team(TEAM), _rebudgets(TEAM)),
    "own teams": Meeting(ADMIN, "/teams", TEAMS, of_team(TEAM), _rebudgets(TEAM)),
    "whole teams": Meeting(ADMIN, "/teams", "/team/info", of_team(DOCS), _rebudgets(DOCS)),
    "managed": Meeting(ADMIN, "/teams/managed", "/team/list", of_team(TEAM), _rebudgets(TEAM)),
}


@pytest.fixture(params=MEETINGS)
def meeting(request: pytest.FixtureRequest) -> Meeting:
    return MEETINGS[request.param]


def asks(method: str, path: str) -> Callable[[Call], bool]:
    return lambda call: (call.method, call.path) == (method, path)


def is_write(call: Call) -> bool:
    return call.method == "POST"


# -- one read, one write ---------------------------------------------------------


def test_a_read_that_a_write_overtakes_is_not_joined_and_not_kept(
    world: World, submit: Submit, meeting: Meeting
) -> None:
    for number in (2, 4):  # with nothing remembered, and with something outdated
        hold = world.litellm.acted = Hold(asks("GET", meeting.asked))
        overtaken = submit(meeting.read, world, 0)
        hold.reached()
        assert meeting.write(world, number, 1).status_code == 200
        # Through worker 0 too, where the first one is still under way.
        reads = [submit(meeting.read, world, worker) for worker in range(WORKERS)]
        assert [read.result(WAIT) for read in reads] == [number] * WORKERS
        hold.let_go()
        # ``number`` where keys were held while their account was still read: they are read again.
        assert overtaken.result(WAIT) <= number
        assert meeting.read(world, 0) == number
        assert meeting.write(world, number + 1, 2).status_code == 200


@pytest.mark.parametrize("moment", ["arriving", "acted"])
def test_a_read_that_falls_into_a_write_does_not_outlive_it(
    world: World, submit: Submit, meeting: Meeting, moment: str
) -> None:
    hold = Hold(is_write)
    setattr(world.litellm, moment, hold)
    written = submit(meeting.write, world, 2, 1)
    hold.reached()
    for worker in range(WORKERS):
        assert meeting.read(world, worker) in {1, 2}
    hold.let_go()
    assert written.result(WAIT).status_code == 200
    assert [meeting.read(world, worker) for worker in range(WORKERS)] == [2] * WORKERS


def test_a_write_between_look_up_and_keeping_counts(
    world: World, submit: Submit, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    about_to_keep, go = threading.Event(), threading.Event()
    writer = threading.get_ident()
    keep = Cache._keep

    def keep_late(cache: Cache, *what: Any) -> None:
        asked = {call.path for call in world.litellm.reads}
        if threading.get_ident() != writer and meeting.asked in asked:
            about_to_keep.set()
            assert go.wait(WAIT)
        keep(cache, *what)

    monkeypatch.setattr(Cache, "_keep", keep_late)
    overtaken = submit(meeting.read, world, 0)
    assert about_to_keep.wait(WAIT)
    assert meeting.write(world, 2, 1).status_code == 200
    go.set()
    # 2 where the held entry is the account's: the keys, read at the same time, are read again.
    assert overtaken.result(WAIT) in {1, 2}
    assert [meeting.read(world, worker) for worker in range(WORKERS)] == [2] * WORKERS


def test_a_write_that_litellm_reports_as_failed_is_forgotten_too(
    world: World, meeting: Meeting
) -> None:
    def fail(call: Call) -> None:
        if is_write(call):
            raise FailsError

    for worker in range(WORKERS):
        assert meeting.read(world, worker) == 1
    world.litellm.acted = fail
    assert meeting.write(world, 2, 1).status_code == 500
    assert [meeting.read(world, worker) for worker in range(WORKERS)] == [2] * WORKERS


# -- keys are read together with their account -----------------------------------


def is_part_of_keys(call: Call) -> bool:
    return call.path in {"/v2/user/info", KEYS}


def test_litellm_is_asked_for_user_and_keys_at_the_same_time(world: World) -> None:
    world.litellm.arriving = Hold(is_part_of_keys, 2, together=True)
    assert of_key(world.get("bob", "/keys")) == 1
    assert sorted(call.path for call in world.litellm.reads) == [KEYS, "/v2/user/info"]


@pytest.mark.parametrize("late", [KEYS, "/v2/user/info"])
def test_the_slower_of_both_reads_is_waited_for(world: World, submit: Submit, late: str) -> None:
    hold = world.litellm.acted = Hold(asks("GET", late))
    read = submit(world.get, "bob", "/keys")
    hold.reached()
    hold.let_go()
    assert of_key(read.result(WAIT)) == 1
    assert len(world.litellm.read(KEYS)) == 1


def test_keys_that_can_not_be_read_are_an_error_and_read_again(world: World) -> None:
    def fail(call: Call) -> None:
        if call.path == KEYS:
            raise FailsError

    world.litellm.acted = fail
    assert world.ask("bob", "GET", "/keys").status_code == 500
    world.litellm.acted = lambda _call: None
    assert of_key(world.get("bob", "/keys")) == 1


# -- first visits ----------------------------------------------------------------


def test_first_visits_through_all_workers_at_once_make_one_user_each(
    world: World, submit: Submit
) -> None:
    # Every worker has been told that there is no such user before any of them goes on.
    unknown = Hold(asks("GET", "/v2/user/info"), WORKERS * len(NEW), together=True)
    world.litellm.acted = unknown
    visits = [
        (who, submit(world.get, who, path, worker=worker))
        for worker in range(WORKERS)
        for who in NEW
        for path in ("/user/info", "/teams")
    ]
    users = [(who, visit.result(WAIT)) for who, visit in visits[::2]]
    assert all(user["user_id"] == id_of(who) for who, user in users)
    assert all(visit.result(WAIT) == [] for _, visit in visits[1::2])
    made = [call.body["user_id"] for call in world.litellm.writes if call.path == "/user/new"]
    assert sorted(made) == sorted(map(id_of, NEW))


def test_a_first_visit_that_litellm_reports_as_failed_makes_one_user(
    world: World, submit: Submit
) -> None:
    def fail(call: Call) -> None:
        unknown(call)
        if call.path == "/user/new":
            raise FailsError

    unknown = Hold(asks("GET", "/v2/user/info"), WORKERS, together=True)
    world.litellm.acted = fail
    visits = [
        submit(world.ask, NEW[0], "GET", "/user/info", worker=worker) for worker in range(WORKERS)
    ]
    # One is told of the failure; the others look again, and find the user.
    assert sorted(visit.result(WAIT).status_code for visit in visits) == [200, 200, 502]
    assert [call.path for call in world.litellm.writes] == ["/user/new"]
    assert world.get(NEW[0], "/user/info", worker=1)["user_id"] == id_of(NEW[0])


# -- many at once ----------------------------------------------------------------


ROUNDS = 12


class Crowd:
    """Writers, who count their writes, and readers, who know what writers were told.

    Args:
        world: Where.
        size: How many threads begin together.
    """

    def __init__(self, world: World, size: int) -> None:
        self._world = world
        self._start = threading.Barrier(size)
        self._told = dict.fromkeys((*PEOPLE, ADMIN), 1)
        self._over: set[str] = set()

    def write(self, who: str) -> None:
        """Write again and again, through one worker after the other, and read through the next."""
        self._start.wait(WAIT)
        try:
            for number in range(2, ROUNDS + 1):
                worker = number % WORKERS
                if who == ADMIN:
                    answer = rebudget(self._world, TEAM, number, worker)
                else:
                    answer = rename(self._world, who, number, worker)
                assert answer.status_code == 200, answer.text
                self._told[who] = number
                assert self._seen(who, who, (worker + 1) % WORKERS) == number
        finally:
            self._over.add(who)

    def read(self, who: str, of: str) -> None:
        """Read what somebody writes, through all workers, until there is no more."""
        self._start.wait(WAIT)
        for worker in cycle(range(WORKERS)):
            over, least = of in self._over, self._told[of]
            assert least <= self._seen(who, of, worker) <= ROUNDS
            if over:
                return

    def _seen(self, who: str, of: str, worker: int) -> int:
        if of == ADMIN:
            return of_team(TEAM)(self._world.get(who, "/teams", worker=worker))
        rows = self._world.get(who, "/keys", worker=worker)
        assert [row["user_id"] for row in rows] == [id_of(who)]
        return of_key(rows)


@pytest.fixture
def _switching_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_switching_often")
def test_many_threads_through_many_workers_never_see_less_than_was_answered(
    world: World, submit: Submit
) -> None:
    writers = (*PEOPLE, ADMIN)
    pairs = [(who, of) for who in writers for of in {who, ADMIN}]
    crowd = Crowd(world, len(writers) + len(pairs))
    threads = [submit(crowd.write, who) for who in writers]
    threads += [submit(crowd.read, who, of) for who, of in pairs]
    for thread in threads:
        thread.result(WAIT)
