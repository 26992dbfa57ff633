"""What one opening of the frontend's page costs LiteLLM."""

from __future__ import annotations

from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import cycle
from typing import Any

import pytest
from werkzeug.test import TestResponse

from litellm_plugin.config.settings import Settings
from litellm_plugin.sandbox.store import token_of
from tests.cache.conftest import Worlds
from tests.cache.turns import Turn, Turns
from tests.cache.world import DAY, PERIOD, TEAM_ADMINS, World, caching, id_of, used

pytestmark = pytest.mark.deep

# The page of the frontend 0.26: six requests at once, three more when /config is there, the
# budget widget's three when /user/info is. People who administer no teams get 403 for
# ADMIN_PATHS, which the page takes for empty lists.
FIRST_PATHS = ("/user/info", "/keys", "/models", "/teams", "/config", f"/usage?{PERIOD}")
ADMIN_PATHS = ("/teams/managed", "/vector-stores", "/mcp-servers")
WIDGET_PATHS = ("/user/info", "/teams", "/keys")

BROWSER = 6  # connections to one origin
TEAMS = 5
SECONDS = 30.0

PLAIN, ADMIN, OTHER = "bob", "dave", "eve"


def open_page(world: World, who: str, at_once: int = BROWSER) -> dict[str, list[Any]]:
    """Open the page as a browser does; returns the answers by path.

    The requests go round the workers, and as many as there may be at once really are:
    LiteLLM answers nobody before all of them have come as far as they can.
    """
    assert world.turns is not None
    worker = cycle(range(len(world.workers)))
    page = Page()
    under_way: list[tuple[str, Turn[TestResponse]]] = []
    while page.queue or under_way:
        while page.queue and len(under_way) < at_once:
            path = page.queue.popleft()
            ask = partial(world.ask, who, "GET", path, worker=next(worker))
            under_way.append((path, world.turns.begin(ask)))
        if not any(turn.over for _, turn in under_way):
            world.turns.go_on(next(turn for _, turn in under_way if turn.parked))
        for path, turn in [pair for pair in under_way if pair[1].over]:
            page.answered(path, turn.result())
        under_way = [pair for pair in under_way if not pair[1].over]
    return page.complete(refused=who != ADMIN)


def open_page_in_threads(world: World, who: str) -> dict[str, list[Any]]:
    """Open the page with as many threads as a browser has connections."""
    worker = cycle(range(len(world.workers)))
    page = Page()
    with ThreadPoolExecutor(BROWSER) as pool:
        pending: dict[Future[TestResponse], str] = {}
        while page.queue or pending:
            while page.queue:
                path = page.queue.popleft()
                pending[pool.submit(world.ask, who, "GET", path, worker=next(worker))] = path
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                page.answered(pending.pop(future), future.result())
    return page.complete(refused=who != ADMIN)


class Page:
    """What is to be asked next, and what was answered."""

    def __init__(self) -> None:
        self.queue = deque(FIRST_PATHS)
        self._then = {"/config": ADMIN_PATHS, "/user/info": WIDGET_PATHS}
        self._answers: dict[str, list[Any]] = {}

    def answered(self, path: str, answer: TestResponse) -> None:
        self._answers.setdefault(path, []).append(answer)
        self.queue.extend(self._then.pop(path, ()))

    def complete(self, *, refused: bool) -> dict[str, list[Any]]:
        assert sum(map(len, self._answers.values())) == 12
        for path, answers in self._answers.items():
            wanted = 403 if refused and path in ADMIN_PATHS else 200
            assert {answer.status_code for answer in answers} == {wanted}, path
        return self._answers


def furnish(world: World, *, objects: bool = False, known: bool = True) -> None:
    """Put everybody in five teams, with a key and some usage each."""
    world.people(**{PLAIN: (), ADMIN: (TEAM_ADMINS,), OTHER: ()})
    litellm = world.litellm.stand_in
    names = (PLAIN, ADMIN, OTHER) if known else (OTHER,)
    for name in names:
        litellm.user_new({"user_id": id_of(name), "auto_create_key": False})
    for number in range(TEAMS):
        members = [{"user_id": id_of(name), "role": "user"} for name in names]
        team = {
            "team_id": f"team-{number}",
            "team_alias": f"Team {number}",
            "members_with_roles": members,
            "metadata": {"owning_group": TEAM_ADMINS},
        }
        given = {"object_permission": {"vector_stores": ["vs-docs"]}} if objects else {}
        litellm.team_new({**team, **given})
    for name in names:
        secret = f"sk-{name}-0123456789"
        litellm.key_generate(
            {"key": secret, "key_alias": name, "user_id": id_of(name), "team_id": "team-0"}
        )
        litellm.store.add_usage([used(token_of(secret), id_of(name), "team-0")])
    litellm.store.models.append({"model_name": "gpt-4o-mini", "model_info": {}})


def assert_only_about(world: World, who: str) -> None:
    """Check that LiteLLM was asked about nobody else."""
    assert {user for call in world.litellm.calls for user in call.users} <= {id_of(who)}
    assert all(call.users for call in world.litellm.calls if call.path.startswith("/user/"))
    if who != ADMIN:
        assert world.litellm.read("/team/list") == []


@pytest.fixture
def open_furnished(open_world: Worlds, settings: Settings) -> Any:
    def open_furnished(
        seconds: float = SECONDS, workers: int = 1, *, threads: bool = False, **how: bool
    ) -> World:
        turns = None if threads else Turns()
        world = open_world(caching(settings, seconds), workers, turns)
        furnish(world, **how)
        return world

    return open_furnished


@pytest.fixture
def world(open_furnished: Any) -> World:
    """One worker, for which everybody is in five teams."""
    opened: World = open_furnished()
    return opened


def paths(world: World) -> dict[str, int]:
    """Return how often LiteLLM was asked what, but for its version: once in minutes."""
    reads = world.litellm.reads
    return Counter(call.path for call in reads if not call.path.startswith("/health"))


ACCOUNT = {"/v2/user/info": 1, "/key/list": 1, "/v2/team/list": 1}
USAGE = {"/user/daily/activity/aggregated": 1}
OWN = {**ACCOUNT, **USAGE, "/model/info": 1}


def without_teams(calls: dict[str, int]) -> dict[str, int]:
    """Return what a page costs whose user is in no team."""
    return {path: count for path, count in calls.items() if path != "/v2/team/list"}


ADMINS = {"/team/list": 1, "/vector_store/list": 1, "/v1/mcp/server": 1}


def test_a_page_with_five_teams_costs_five_calls(world: World) -> None:
    answers = open_page(world, PLAIN)
    assert paths(world) == OWN
    assert world.litellm.writes == []
    assert_only_about(world, PLAIN)
    (user,) = {answer.text for answer in answers["/user/info"]}
    assert id_of(PLAIN) in user
    assert [len(answer.json) for answer in answers["/teams"]] == [TEAMS, TEAMS]


def test_the_page_again_costs_none(world: World) -> None:
    first = open_page(world, PLAIN)
    world.litellm.calls.clear()
    again = open_page(world, PLAIN)
    assert world.litellm.calls == []
    for path, answers in first.items():
        assert {answer.text for answer in answers} == {answer.text for answer in again[path]}


def test_the_page_later_asks_for_the_usage_of_days_that_are_not_over(open_furnished: Any) -> None:
    world = open_furnished(1e-9)
    path = f"/usage?{PERIOD}"
    first = open_page(world, PLAIN)[path][0].json
    for _ in range(2):
        world.litellm.calls.clear()
        assert open_page(world, PLAIN)[path][0].json == first
        (call,) = world.litellm.read("/user/daily/activity/aggregated")
        assert call.query["start_date"] > DAY.isoformat()
    (key,) = first["usage_by_key"]
    world.ask(PLAIN, "POST", f"/keys/{key}/update", json={"key_alias": "renamed"})
    world.litellm.calls.clear()
    after = open_page(world, PLAIN)[path][0].json
    assert after["usage_by_key"][key]["key_alias"] == "renamed"
    (call,) = world.litellm.read("/user/daily/activity/aggregated")
    assert call.query["start_date"] < DAY.isoformat()


def test_a_team_admins_page_costs_three_more(world: World) -> None:
    answers = open_page(world, ADMIN)
    assert paths(world) == OWN | ADMINS
    assert_only_about(world, ADMIN)
    assert len(answers["/teams/managed"][0].json) == TEAMS
    world.litellm.calls.clear()
    open_page(world, ADMIN)
    assert world.litellm.calls == []


@pytest.mark.parametrize("variant", ["no-objects"])
def test_a_team_admins_page_without_object_permissions_costs_four(
    open_world: Worlds, settings: Settings
) -> None:
    world = open_world(caching(settings, SECONDS))
    furnish(world)
    follow = ("/config", "/user/info", "/keys", "/models", "/teams", f"/usage?{PERIOD}")
    for path in (*follow, "/teams/managed", *WIDGET_PATHS):
        world.get(ADMIN, path)
    assert paths(world) == OWN | {"/team/list": 1}


def test_what_is_the_same_for_all_is_asked_once(world: World) -> None:
    open_page(world, OTHER)
    world.litellm.calls.clear()
    open_page(world, PLAIN)
    assert paths(world) == ACCOUNT | USAGE
    assert_only_about(world, PLAIN)


@pytest.mark.parametrize("at_once", [1, BROWSER])
def test_the_page_that_provisions_its_user_costs_two_reads_more(
    open_furnished: Any, at_once: int
) -> None:
    world = open_furnished(known=False)
    open_page(world, PLAIN, at_once)
    assert [call.path for call in world.litellm.writes] == ["/user/new", "/user/update"]
    # Before the user is made, after it, and into the next snapshot.
    assert paths(world) == without_teams(OWN) | {"/v2/user/info": 3}
    assert_only_about(world, PLAIN)
    world.litellm.calls.clear()
    open_page(world, PLAIN, at_once)
    assert world.litellm.calls == []


@pytest.mark.parametrize("who", [PLAIN, ADMIN])
@pytest.mark.parametrize("at_once", [1, BROWSER])
def test_each_of_several_workers_asks_at_most_once(
    open_furnished: Any, who: str, at_once: int
) -> None:
    world = open_furnished(workers=3)
    first = open_page(world, who, at_once)
    again = open_page(world, who, at_once)
    assert set(paths(world)) == set(OWN | (ADMINS if who == ADMIN else {}))
    assert max(paths(world).values()) <= 3
    assert_only_about(world, who)
    for path, answers in first.items():
        assert {answer.text for answer in answers} == {answer.text for answer in again[path]}


def test_two_workers_make_one_user(open_furnished: Any) -> None:
    world = open_furnished(workers=2, known=False)
    open_page(world, PLAIN)
    assert [call.path for call in world.litellm.writes] == ["/user/new", "/user/update"]
    assert_only_about(world, PLAIN)


def test_a_write_through_one_worker_costs_each_the_keys_and_their_usage(
    open_furnished: Any,
) -> None:
    world = open_furnished(workers=2)
    open_page(world, PLAIN)
    (key,) = world.get(PLAIN, "/keys")
    answer = world.ask(PLAIN, "POST", f"/keys/{key['token']}/block", json={}, worker=1)
    assert answer.status_code == 200
    world.litellm.calls.clear()
    open_page(world, PLAIN)
    assert paths(world) == {"/key/list": 2} | USAGE


def test_a_write_costs_the_keys_and_their_usage_and_no_other_user_anything(world: World) -> None:
    for who in (PLAIN, OTHER):
        open_page(world, who)
    (key,) = world.get(PLAIN, "/keys")
    world.litellm.calls.clear()
    answer = world.ask(PLAIN, "POST", f"/keys/{key['token']}/block", json={})
    assert answer.status_code == 200
    world.litellm.calls.clear()
    open_page(world, OTHER)
    assert world.litellm.calls == []
    open_page(world, PLAIN)
    assert paths(world) == {"/key/list": 1} | USAGE
    assert_only_about(world, PLAIN)


def test_a_team_with_knowledge_bases_costs_one_call_more_to_each_list(open_furnished: Any) -> None:
    # LiteLLM's lists have the id of what a team is given, and not what it is.
    world = open_furnished(objects=True)
    open_page(world, PLAIN)
    assert paths(world) == OWN | {"/team/info": TEAMS}
    own = {f"team-{number}" for number in range(TEAMS)}
    assert {call.query["team_id"] for call in world.litellm.read("/team/info")} == own
    world.litellm.calls.clear()
    open_page(world, ADMIN)
    assert paths(world)["/team/info"] == 2 * TEAMS
    world.litellm.calls.clear()
    for who in (PLAIN, ADMIN):
        open_page(world, who)
    assert world.litellm.calls == []


@pytest.mark.parametrize(("who", "more"), [(PLAIN, {}), (ADMIN, ADMINS)])
def test_threads_in_any_order_leave_a_snapshot_that_costs_nothing(
    open_furnished: Any, who: str, more: dict[str, int]
) -> None:
    world = open_furnished(threads=True)
    open_page_in_threads(world, who)
    assert paths(world) == OWN | more
    assert_only_about(world, who)
    world.litellm.calls.clear()
    open_page_in_threads(world, who)
    assert world.litellm.calls == []


@pytest.mark.parametrize("who", [PLAIN, ADMIN])
def test_threads_in_any_order_make_one_user(open_furnished: Any, who: str) -> None:
    world = open_furnished(threads=True, known=False)
    open_page_in_threads(world, who)
    assert [call.path for call in world.litellm.writes] == ["/user/new", "/user/update"]
    assert_only_about(world, who)


# What the page costs where nothing is kept: by how many requests are under way at once, as
# those share their calls all the same.
UNCACHED = {
    at_once: {**OWN, "/v2/user/info": users, "/key/list": 2, "/v2/team/list": 2}
    for at_once, users in ((1, 7), (BROWSER, 2))
}


@pytest.mark.parametrize(("who", "more"), [(PLAIN, {}), (ADMIN, ADMINS)])
@pytest.mark.parametrize(("at_once", "calls"), UNCACHED.items())
def test_without_the_cache_a_page_costs_thirteen_calls_or_eight_if_they_overlap(
    open_furnished: Any, who: str, more: dict[str, int], at_once: int, calls: dict[str, int]
) -> None:
    world = open_furnished(0)
    for _ in range(2):
        world.litellm.calls.clear()
        open_page(world, who, at_once)
        assert paths(world) == calls | more
        assert_only_about(world, who)
