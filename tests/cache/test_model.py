"""Several users read and write through several workers, in any order and at the same time.

Whatever the order, three things hold. Who has the answer to a write reads nothing from before
it, through any worker. Nobody sees what is another user's. Nobody is created twice. What
LiteLLM does behind our back need not be seen at once.

Requests take turns (``turns.py``): each stands still when LiteLLM has acted and its answer is
not out yet, until the test lets it go on.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from werkzeug.test import TestResponse

from litellm_plugin.sandbox.store import Store
from tests.apps import Apps
from tests.cache.conftest import Worlds
from tests.cache.turns import Turn, Turns, finish
from tests.cache.world import (
    PERIOD,
    TEAM_ADMINS,
    Call,
    FailsError,
    World,
    caching,
    id_of,
    used,
)
from tests.fakes import dropped
from tests.fakes.network import NOTHING

pytestmark = pytest.mark.deep

# Kept: within a snapshot's life. Standing in: every read asks, and an old snapshot is shown
# while LiteLLM is down. Off: calls under way are shared, and nothing else.
MODES = {"kept": (3600.0, 0.0), "standing in": (1e-9, 3600.0), "off": (0.0, 0.0)}

EXAMPLES = max(settings().max_examples // 5, 1)  # each of which is many requests
STEPS = 30
WORKERS = 2

KNOWN, NEW, ADMINS = ("bob", "cleo"), ("nina", "omar"), ("ada",)
PEOPLE = (*KNOWN, *NEW, *ADMINS)
GUESTS = "team-guests"  # where new users are put

_run = itertools.count(1)  # nobody is met in two examples, so nothing is remembered from another


# -- what LiteLLM holds ----------------------------------------------------------


@dataclass(frozen=True)
class State:
    """LiteLLM at one time.

    Attributes:
        teams_of: Of each user, the team ids.
        keys: By hash, the owner and what is shown of the key.
        aliases: Of every key there ever was.
        teams: By id, what is shown of the team.
        stores: By team id, the knowledge bases.
    """

    teams_of: Mapping[str, frozenset[str]]
    keys: Mapping[str, tuple[str, Any]]
    aliases: Mapping[str, str | None]
    teams: Mapping[str, Any]
    stores: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, store: Store) -> State:
        keys = {**store.deleted_keys, **store.keys}
        return cls(
            teams_of={id_: frozenset(user["teams"]) for id_, user in store.users.items()},
            keys={hash_: (key["user_id"], shown(key)) for hash_, key in store.keys.items()},
            aliases={hash_: key["key_alias"] for hash_, key in keys.items()},
            teams={id_: shown_team(team) for id_, team in store.teams.items()},
            stores={id_: stores_of(store.objects.get(id_)) for id_ in store.teams},
        )

    def keys_of(self, user_id: str) -> dict[str, Any]:
        return {hash_: key for hash_, (owner, key) in self.keys.items() if owner == user_id}


def shown(key: Mapping[str, Any]) -> Any:
    names = ("key_alias", "max_budget", "blocked", "team_id", "spend")
    return tuple(key.get(name) for name in names)


def shown_team(team: Mapping[str, Any]) -> Any:
    members = frozenset(member["user_id"] for member in team["members_with_roles"])
    return team["team_alias"], team.get("max_budget"), members


def stores_of(objects: Mapping[str, Any] | None) -> frozenset[str]:
    return frozenset((objects or {}).get("vector_stores") or ())


# -- what may be read ------------------------------------------------------------

Window = Sequence[State]  # LiteLLM from the last write that must be seen until now
# Of an answer, by the reader's id: with the window of everybody's writes, and of the reader's own.
Check = Callable[[Any, str, Window, Window], None]


def check_user(seen: Any, user_id: str, window: Window, own: Window) -> None:
    assert seen["user_id"] == user_id
    assert frozenset(seen["teams"]) in [
        state.teams_of[user_id] for state in window if user_id in state.teams_of
    ]


def check_keys(seen: Any, user_id: str, window: Window, own: Window) -> None:
    assert all(row["user_id"] == user_id for row in seen)
    assert {row["token"]: shown(row) for row in seen} in [
        state.keys_of(user_id) for state in window
    ]


def check_teams(seen: Any, user_id: str, window: Window, own: Window) -> None:
    _check_team_rows(seen, [state.teams_of.get(user_id) for state in window], window)


def check_managed(seen: Any, user_id: str, window: Window, own: Window) -> None:
    # Every team here is owned by the team admins' group.
    _check_team_rows(seen, [frozenset(state.teams) for state in window], window)


def _check_team_rows(seen: Any, listed: Iterable[frozenset[str] | None], window: Window) -> None:
    # A list is put together of several reads, each of its own time.
    rows = {row["team_id"]: row for row in seen}
    gone = {id_ for state in window for id_ in rows.keys() | _ids(window) - state.teams.keys()}
    assert any(ids is not None and rows.keys() <= ids <= rows.keys() | gone for ids in listed)
    for id_, row in rows.items():
        there = [state for state in window if id_ in state.teams]
        assert shown_team(row) in [state.teams[id_] for state in there]
        stores = stores_of(row.get("object_permission"))
        assert stores in [state.stores[id_] for state in there] or (not stores and id_ in gone)


def _ids(window: Window) -> set[str]:
    return {id_ for state in window for id_ in state.teams}


def check_usage(seen: Any, user_id: str, window: Window, own: Window) -> None:
    _check_aliases(seen, user_id, own)
    for hash_ in seen["usage_by_key"]:
        assert all(user_id == state.keys.get(hash_, (user_id,))[0] for state in window)


def check_team_usage(seen: Any, user_id: str, window: Window, own: Window) -> None:
    managed = user_id.startswith(ADMINS)
    may = [
        GUESTS in (state.teams if managed else state.teams_of.get(user_id, ())) for state in window
    ]
    if "error" in seen:
        assert not all(may)
    else:
        assert any(may)
        _check_aliases(seen, user_id, own)


def _check_aliases(seen: Any, user_id: str, own: Window) -> None:
    for hash_, use in seen["usage_by_key"].items():
        # What others call theirs need not be known at once.
        if any(hash_ in state.keys_of(user_id) for state in own):
            assert use.get("key_alias") in [state.aliases[hash_] for state in own]


READS: dict[str, tuple[str, Check]] = {
    "user": ("/user/info", check_user),
    "keys": ("/keys", check_keys),
    "teams": ("/teams", check_teams),
    "usage": (f"/usage?{PERIOD}", check_usage),
    "team usage": (f"/teams/{GUESTS}/usage?{PERIOD}", check_team_usage),
    "managed": ("/teams/managed", check_managed),
}
ADMINS_READS = ("managed",)

# What shows a write: to whom wrote, and to somebody else.
SHOWS_KEYS = ("keys", "usage", "team usage")
SHOWS_TEAMS = ("user", "teams", "managed")

KEY_WRITES = ("generate", "update", "block", "unblock", "reset_spend", "delete", "connect")
TEAM_WRITES = ("create team", "change team", "add", "remove", "delete team", "give")


# -- the model -------------------------------------------------------------------


class Request:
    """One request under way.

    Attributes:
        since: Index of the oldest state that it may show.
        own_since: The same, where only the caller's own writes must be seen.
        fault: What becomes of its first call to LiteLLM that may be meant.
        acted_at: Index of the state that its last write made; None: it has written nothing.
        for_all: Whether what it wrote shows for others, too.
    """

    def __init__(
        self, who: str, since: int, own_since: int, check: Check | None, fault: str | None
    ) -> None:
        self.who = who
        self.since = since
        self.own_since = own_since
        self.check = check
        self.fault = fault
        self.acted_at: int | None = None
        self.for_all = False
        self.faults_before = 0
        self.turn: Turn[TestResponse] | None = None


class Model(RuleBasedStateMachine):
    """What anybody may do at any time, and what must hold whenever an answer is out."""

    def __init__(self, world: World) -> None:
        super().__init__()
        assert world.turns is not None
        self.world = world
        self.turns = world.turns
        self.store = world.litellm.stand_in.store
        self.run = next(_run)
        self.first_worker = 0
        self.number = 0
        self.faults = 0  # that have reached a worker
        self.under_way: list[Request] = []
        self.mine = threading.local()
        self.broken: list[str] = []
        self.failed = False
        world.litellm.arriving = self.arriving
        world.litellm.acted = self.acted
        self.arrange()
        self.states = [State.of(self.store)]
        self.since = dict.fromkeys(map(self.name, PEOPLE), 0)
        self.own_since = dict(self.since)

    def name(self, who: str) -> str:
        return f"{who}{self.run}"

    def arrange(self) -> None:
        """Begin with two people and an admin in a team, and some keys."""
        groups = {self.name(who): (TEAM_ADMINS,) if who in ADMINS else () for who in PEOPLE}
        self.world.people(**groups)
        self.world.litellm.calls.clear()
        litellm = self.world.litellm.stand_in
        litellm.store.reset()
        known = [id_of(self.name(who)) for who in (*KNOWN, *ADMINS)]
        for user_id in known:
            litellm.user_new({"user_id": user_id, "auto_create_key": False})
        for team_id, stores in ((GUESTS, []), ("team-docs", ["vs-docs"])):
            team: dict[str, Any] = {
                "team_id": team_id,
                "team_alias": team_id,
                "members_with_roles": [{"user_id": id_, "role": "user"} for id_ in known],
                "metadata": {"owning_group": TEAM_ADMINS},
            }
            if stores:
                team["object_permission"] = {"vector_stores": stores}
            litellm.team_new(team)
        for user_id in known:
            for team_of in (None, GUESTS):
                key = {"key_alias": f"{user_id}-{team_of}", "user_id": user_id, "team_id": team_of}
                token = litellm.key_generate(key)["token_id"]
                litellm.store.add_usage([used(token, user_id, team_of)])

    # -- rules ---------------------------------------------------------------

    @initialize(mode=st.sampled_from(sorted(MODES)))
    def start_in(self, mode: str) -> None:
        self.first_worker = list(MODES).index(mode) * WORKERS

    @rule(
        worker=st.integers(0, WORKERS - 1),
        who=st.sampled_from(PEOPLE),
        what=st.sampled_from(sorted(READS)),
        fault=st.sampled_from((None, None, None, None, "500", "hang up")),
        wait=st.booleans(),
    )
    def read(self, worker: int, who: str, what: str, fault: str | None, *, wait: bool) -> None:
        self.look(worker, self.name(who), what, fault=fault, wait=wait)

    @rule(who=st.sampled_from(PEOPLE), what=st.sampled_from(sorted(READS)))
    def read_through_all_workers_at_once(self, who: str, what: str) -> None:
        for worker in range(WORKERS):
            self.look(worker, self.name(who), what, wait=False)

    @rule(
        worker=st.integers(0, WORKERS - 1),
        who=st.sampled_from(PEOPLE),
        what=st.sampled_from(KEY_WRITES),
        pick=st.integers(0, 3),
        fault=st.sampled_from((None, None, None, "500", "hang up", "refuse")),
        wait=st.booleans(),
    )
    def write_key(
        self, worker: int, who: str, what: str, pick: int, fault: str | None, *, wait: bool
    ) -> None:
        self.number += 1
        name, own = f"{who}-{self.number}", self.states[-1].keys_of(id_of(self.name(who)))
        body: Any = {}
        if what == "connect":
            method, path = "GET", "/opencode/connect?redirect_uri=http://localhost:1/callback"
            body = NOTHING
        elif what == "generate" or not own:
            method, path, body = "POST", "/keys/generate", {"alias": name, "max_budget": 1}
            if pick == 0:
                body["team_id"] = GUESTS
        else:
            token = list(own)[pick % len(own)]
            method = "DELETE" if what == "delete" else "POST"
            path = f"/keys/{token}" if what == "delete" else f"/keys/{token}/{what}"
            if what == "update":
                body = {"key_alias": name, "max_budget": self.number}
        self.begin(worker, self.name(who), method, path, json=body, fault=fault, wait=wait)

    @rule(
        worker=st.integers(0, WORKERS - 1),
        who=st.sampled_from(ADMINS),
        what=st.sampled_from(TEAM_WRITES),
        pick=st.integers(0, 3),
        whom=st.sampled_from(PEOPLE),
        fault=st.sampled_from((None, None, None, "500", "hang up", "refuse")),
        wait=st.booleans(),
    )
    def write_team(
        self,
        worker: int,
        who: str,
        what: str,
        pick: int,
        whom: str,
        fault: str | None,
        *,
        wait: bool,
    ) -> None:
        self.number += 1
        teams = list(self.states[-1].teams)
        path = f"/teams/{teams[pick % len(teams)]}" if teams else "/teams"
        shape = {"team_alias": f"team-{self.number}", "max_budget": self.number}
        new = {**shape, "models": ["gpt-4o"], "budget_duration": "30d"}
        ref = f"user:default/{self.name(whom)}"
        given = {"vector_stores": ["vs-docs"] if pick % 2 else []}
        asked: dict[str, tuple[str, str, Any]] = {
            "create team": ("POST", "/teams", new),
            "change team": ("PATCH", path, shape),
            "add": ("POST", f"{path}/members", {"userEntityRef": ref}),
            "remove": ("DELETE", f"{path}/members?userEntityRef={ref}", NOTHING),
            "delete team": ("DELETE", path, NOTHING),
            "give": ("PUT", f"{path}/knowledge-bases", given),
        }
        method, path, body = asked[what if teams else "create team"]
        self.begin(worker, self.name(who), method, path, json=body, fault=fault, wait=wait)

    @precondition(lambda self: self.states[-1].keys)
    @rule(pick=st.integers(0, 7))
    def litellm_itself_blocks_a_key(self, pick: int) -> None:
        keys = list(self.store.keys)
        self.world.litellm.stand_in.key_block({"key": keys[pick % len(keys)]})
        self.states.append(State.of(self.store))

    @precondition(lambda self: self.parked())
    @rule(pick=st.integers(0, 3))
    def go_on(self, pick: int) -> None:
        parked = self.parked()
        self.turns.go_on(parked[pick % len(parked)])
        self.look_at_answers()

    def teardown(self) -> None:
        self.settle()

    def settle(self) -> None:
        """Let everything that is under way come to its end."""
        while self.under_way:
            finish(self.turns, [request.turn for request in self.under_way if request.turn])
            if self.failed:
                return
            self.look_at_answers()

    # -- one request ---------------------------------------------------------

    def begin(
        self,
        worker: int,
        who: str,
        method: str,
        path: str,
        *,
        json: Any = NOTHING,
        check: Check | None = None,
        fault: str | None,
        wait: bool,
    ) -> None:
        """Send a request; ``wait`` for its answer, as far as it does not wait for others."""
        request = Request(who, self.since[who], self.own_since[who], check, fault)
        request.faults_before = self.faults

        def ask() -> TestResponse:
            self.mine.request = request
            return self.world.ask(who, method, path, worker=self.first_worker + worker, json=json)

        turn = request.turn = self.turns.begin(ask)
        self.under_way.append(request)
        while wait and turn.parked:
            self.turns.go_on(turn)
        self.look_at_answers()

    def look(
        self, worker: int, who: str, what: str, *, fault: str | None = None, wait: bool = True
    ) -> None:
        if what in ADMINS_READS and not who.startswith(ADMINS):
            what = "keys"
        path, check = READS[what]
        self.begin(worker, who, "GET", path, check=check, fault=fault, wait=wait)

    def parked(self) -> list[Turn[TestResponse]]:
        return [request.turn for request in self.under_way if request.turn and request.turn.parked]

    def look_at_answers(self) -> None:
        over = [request for request in self.under_way if request.turn and request.turn.over]
        self.under_way = [request for request in self.under_way if request not in over]
        assert self.broken == []
        try:
            for request in over:
                self.judge(request)
        except BaseException:
            self.failed = True
            raise

    def judge(self, request: Request) -> None:
        """Look at an answer that is out."""
        assert request.turn is not None
        answer = request.turn.result()
        if request.check is not None:
            expected = {200, 403} if request.check is check_team_usage else {200}
            if answer.status_code in expected:
                windows = self.states[request.since :], self.states[request.own_since :]
                request.check(answer.json, id_of(request.who), *windows)
            else:
                # Only where LiteLLM failed meanwhile; a shared call fails for all who share it.
                assert self.faults > request.faults_before, answer.text
        if request.acted_at is None:
            return
        for name in self.since if request.for_all else (request.who,):
            self.since[name] = max(self.since[name], request.acted_at)
        self.own_since[request.who] = max(self.own_since[request.who], request.acted_at)
        for worker in range(WORKERS):
            for what in SHOWS_TEAMS if request.for_all else SHOWS_KEYS:
                self.look(worker, request.who, what)
            if request.for_all:
                self.look(worker, self.name(KNOWN[0]), "teams")

    # -- inside LiteLLM ------------------------------------------------------

    def arriving(self, call: Call) -> None:
        if call.path == "/user/new" and call.body["user_id"] in self.store.users:
            self.broken.append(f"created twice: {call.body['user_id']}")
        request = self._present()
        if request is not None and request.fault == "refuse" and call.method == "POST":
            request.fault = None
            self.faults += 1
            raise FailsError

    def acted(self, call: Call) -> None:
        if call.method == "POST":
            self.states.append(State.of(self.store))
        request = self._present()
        if request is None:
            return
        if call.method == "POST":
            request.acted_at = len(self.states) - 1
            request.for_all |= not call.path.startswith("/key/")
        fault = None
        if call.method == "POST" or request.check is not None:
            fault, request.fault = request.fault, None
        self.turns.park()
        if fault is not None:
            self.faults += 1
            raise FailsError if fault == "500" else dropped()

    def _present(self) -> Request | None:
        """Return whose thread this is; None for a helper's."""
        request: Request | None = getattr(self.mine, "request", None)
        return request


@pytest.fixture
def world(open_world: Worlds, apps: Apps) -> World:
    """Workers in each mode; new users are put in a team, whose members see them."""
    told = apps.settings("full")
    defaults = replace(told.provisioning.defaults, teams=(GUESTS,))
    told = replace(told, provisioning=replace(told.provisioning, defaults=defaults))
    world = open_world(told, 0, Turns())
    for seconds, stale in MODES.values():
        world.start(caching(told, seconds, stale), WORKERS)
    return world


@pytest.mark.hypothesis  # for make deep
def test_nobody_reads_from_before_their_own_write_or_anything_of_others(world: World) -> None:
    run_state_machine_as_test(
        lambda: Model(world),  # type: ignore[arg-type]  # anything that makes one will do
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("fault", [None, "500", "hang up"])
def test_every_kind_of_write_is_seen_through_every_worker(world: World, fault: str | None) -> None:
    for what in (*KEY_WRITES, *TEAM_WRITES):
        model = Model(world)
        model.start_in("kept")
        who, shows = ("bob", SHOWS_KEYS) if what in KEY_WRITES else ("ada", SHOWS_TEAMS)
        for worker in range(WORKERS):
            for read in shows:
                model.look(worker, model.name(who), read)
            model.look(worker, model.name("bob"), "teams")
        written = len(world.litellm.writes)
        if what in KEY_WRITES:
            model.write_key(0, who, what, 1, fault, wait=True)
        else:
            whom = "nina" if what == "add" else "bob"
            model.write_team(0, who, what, 1, whom, fault, wait=True)
        assert len(world.litellm.writes) > written, what
        assert model.under_way == []  # it was answered, and then looked for everywhere
