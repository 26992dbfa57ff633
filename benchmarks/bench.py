"""Asks the sides, in turns, and takes down what each of them spent."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import load
import requests
import sides
from frontend import ADMIN_PATHS, CONNECTIONS, WIDGET_PATHS, Browser, first_paths
from load import Load
from sides import MASTER_KEY, MOUNT, Rig, UnusableError

ORIGINAL, OURS, BARE, DIRECT = "original", "ours", "bare", "direct"
WARM, COLD = "warm", "cold"

# People of the rig who administer nothing, as most people do.
WARM_USERS = ("bob", "carol", "erin", "noprofile")
ADMIN = "alice"

WARM_UP = 0.3  # seconds
PAGE_PATIENCE = 3  # times the seconds of a run at a fixed rate
QUIET = 0.1  # seconds without work after which a side is taken to be done
QUIET_CPU = 0.02  # seconds of CPU that count as no work


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked for.

    Attributes:
        name: As on the command line.
        path: Below the mount; empty for the page load.
    """

    name: str
    path: str

    @property
    def page(self) -> bool:
        """Whether a job is a page and not a request."""
        return not self.path


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: Runs of each side, in turns.
        seconds: Of one run.
        delays: Of the stand-in, in milliseconds.
        connections: Open at the same time.
        rate_rounds: Rounds at a fixed rate.
        rate_seconds: Of one of them.
        cold_users: Before the first one comes again.
        page_users: The same for page loads, whose users have to sign in.
        thorough: All scenarios with a delay and at a fixed rate, too; else only some.
    """

    rounds: int
    seconds: int
    delays: tuple[int, ...]
    connections: tuple[int, ...]
    rate_rounds: int
    rate_seconds: float
    cold_users: int
    page_users: int
    thorough: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table."""

    scenario: Scenario
    users: str
    delay: int
    connections: int

    def facts(self) -> dict[str, Any]:
        """Return what tells it from other rows."""
        return {
            "scenario": self.scenario.name,
            "users": self.users,
            "delay_ms": self.delay,
            "connections": self.connections,
        }


@dataclass(frozen=True, slots=True)
class Side:
    """Somebody who is asked.

    Attributes:
        name: Original, ours, bare or direct.
        url: Without a path.
        processes: Who works for it, by name, with the root of the process tree.
    """

    name: str
    url: str
    processes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one side; times are milliseconds.

    Attributes:
        rate: Jobs a second.
        p50: Time of a job at the median.
        p99: Time of a job at the 99th percentile.
        cpu: CPU for one job, of all who work for the side.
        cpu_of: The same by process tree, the stand-in's and the load's own too.
        calls: Calls to LiteLLM for one job.
        failed: Jobs without a right answer.
    """

    rate: float
    p50: float
    p99: float
    cpu: float
    cpu_of: dict[str, float]
    calls: float
    failed: int


@dataclass(slots=True)
class People:
    """Tokens, in memory and as a file for ``wrk``."""

    tokens: Sequence[str]
    file: Path


@dataclass(slots=True)
class Bench:
    """Measures.

    Args:
        rig: Everything that runs.
        plan: How much.
        folder: For the tokens.
        say: Takes a line about the progress.
    """

    rig: Rig
    plan: Plan
    folder: Path
    say: Callable[[str], None]
    usage: str = field(init=False)
    sides: dict[str, Side] = field(init=False)
    _people: dict[tuple[str, bool], People] = field(init=False, default_factory=dict)
    _next: dict[tuple[str, str, bool], int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        today = datetime.now(UTC).date()
        self.usage = f"/usage?start_date={today - timedelta(days=7)}&end_date={today}"
        backstage = {"backstage": self.rig.backstage.pid}
        self.sides = {
            ORIGINAL: Side(ORIGINAL, self.rig.backstage.url, backstage),
            OURS: Side(OURS, self.rig.service.url, {"service": self.rig.service.pid, **backstage}),
            BARE: Side(BARE, self.rig.bare.url, {"bare": self.rig.bare.pid}),
            DIRECT: Side(DIRECT, self.rig.upstream.url, {}),
        }

    def invite(self) -> None:
        """Get tokens for everybody who will ask."""
        plan, backstage = self.plan, self.rig.backstage
        warm = self._as_people("warm", backstage.sign_all_in(WARM_USERS))
        cold = backstage.signed(f"load-{number:06d}" for number in range(plan.cold_users))
        pages = backstage.sign_all_in([f"page-{number:06d}" for number in range(plan.page_users)])
        self._people = {
            (WARM, False): warm,
            (WARM, True): warm,
            (COLD, False): self._as_people("cold", cold),
            (COLD, True): self._as_people("pages", pages),
        }

    # -- what is measured ----------------------------------------------------

    def full_speed(self, cell: Cell) -> dict[str, list[Sample]]:
        """Measure who answers how much, each with as much as it can take."""
        names = [ORIGINAL, OURS, *([BARE] if cell.scenario.name == "health" else [])]
        return self._in_turns(cell, names, self.plan.rounds, self._hurried)

    def at_rate(self, cell: Cell, rate: float) -> dict[str, list[Sample]]:
        """Measure who takes how long, all offered the same.

        Args:
            cell: The row.
            rate: Jobs a second.
        """
        direct = cell.scenario.name == "keys" and cell.delay > 0
        names = [ORIGINAL, OURS, *([DIRECT] if direct else [])]
        return self._in_turns(cell, names, self.plan.rate_rounds, partial(self._paced, rate))

    def page_calls(self) -> dict[str, dict[str, dict[str, int]]]:
        """Count LiteLLM's calls for one page load, and for the next one right after it.

        Returns:
            By who looks and when, then by side: calls by path.
        """
        self.rig.upstream.delay(0)
        backstage = self.rig.backstage
        lookers = {
            "plain": backstage.sign_in("never-seen-before"),
            "team admin": backstage.sign_in(ADMIN),
        }
        counted: dict[str, dict[str, dict[str, int]]] = {}
        for who, token in lookers.items():
            for when in ("first", "again"):
                counted[f"{who}, {when}"] = {
                    name: self._calls_of(self.sides[name], token) for name in (ORIGINAL, OURS)
                }
        return counted

    def differences(self) -> list[str]:
        """Tell which paths the two sides answer differently."""
        told = []
        for name in (WARM_USERS[0], ADMIN):
            token = self.rig.backstage.sign_in(name)
            # A page load asks for some of them twice.
            paths = [*first_paths(self.usage), *ADMIN_PATHS, *WIDGET_PATHS, "/health"]
            for path in dict.fromkeys(paths):
                original, ours = (
                    _asked(f"{self.sides[side].url}{MOUNT}{path}", token)
                    for side in (ORIGINAL, OURS)
                )
                if original != ours:
                    what = "status" if original[0] != ours[0] else "JSON"
                    told.append(f"{path.partition('?')[0]} as {name}: {what}")
        return told

    # -- one run -------------------------------------------------------------

    def _in_turns(
        self, cell: Cell, names: Sequence[str], rounds: int, run: Callable[[Cell, Side], Load]
    ) -> dict[str, list[Sample]]:
        self.rig.upstream.delay(cell.delay)
        samples: dict[str, list[Sample]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, taken in samples.items():
                side = self.sides[name]
                self._warm_up(cell, side)
                taken.append(self._sample(side, partial(run, cell, side)))
        return samples

    def _hurried(self, cell: Cell, side: Side) -> Load:
        first, seconds = self._first(cell, side), self.plan.seconds
        if cell.scenario.page:
            workers = self._workers(cell, side)
            taken = load.full_speed(workers, first=first, seconds=seconds)
        else:
            taken = load.wrk(
                side.url,
                self._path(cell, side),
                self._whose(cell).file,
                first=first,
                connections=cell.connections,
                seconds=seconds,
            )
        self._advance(cell, side, taken)
        return taken

    def _paced(self, rate: float, cell: Cell, side: Side) -> Load:
        workers, first = self._workers(cell, side), self._first(cell, side)
        # Pages are few, and their percentiles are to be of more than a dozen.
        seconds = self.plan.rate_seconds * (PAGE_PATIENCE if cell.scenario.page else 1)
        taken = load.at_rate(workers, rate, first=first, seconds=seconds)
        self._advance(cell, side, taken)
        return taken

    def _warm_up(self, cell: Cell, side: Side) -> None:
        first = self._first(cell, side)
        taken = load.full_speed(self._workers(cell, side), first=first, seconds=WARM_UP)
        self._advance(cell, side, taken)

    def _sample(self, side: Side, run: Callable[[], Load]) -> Sample:
        roots = {**side.processes, "upstream": self.rig.upstream.pid}
        trees = {name: sides.tree(root) for name, root in roots.items()}
        calls = self.rig.upstream.calls()
        before = {name: sides.cpu_seconds(pids) for name, pids in trees.items()}
        own = _own_cpu()
        taken = run()
        own = _own_cpu() - own
        _settle([pid for name in side.processes for pid in trees[name]])
        spent = {name: sides.cpu_seconds(pids) - before[name] for name, pids in trees.items()}
        spent["load"] = own
        called = sum(self.rig.upstream.calls().values()) - sum(calls.values())
        jobs = taken.done + taken.unseen
        cpu_of = {name: 1000 * used / jobs for name, used in spent.items()}
        return Sample(
            rate=taken.rate,
            p50=taken.p50,
            p99=taken.p99,
            cpu=sum(cpu_of[name] for name in side.processes),
            cpu_of=cpu_of,
            calls=called / jobs,
            failed=taken.failed,
        )

    def _calls_of(self, side: Side, token: str) -> dict[str, int]:
        before = self.rig.upstream.calls()
        browser = Browser(side.url, MOUNT, self.usage, [token])
        if load.full_speed([browser], first=0, jobs=1).failed:
            raise UnusableError(f"a page load of {side.name} failed")
        return dict(Counter(self.rig.upstream.calls()) - Counter(before))

    # -- who asks for what ---------------------------------------------------

    def _workers(self, cell: Cell, side: Side) -> list[load.Worker]:
        tokens = [MASTER_KEY] if side.name == DIRECT else self._whose(cell).tokens
        if cell.scenario.page:
            browsers = max(1, cell.connections // CONNECTIONS)
            return [Browser(side.url, MOUNT, self.usage, tokens) for _ in range(browsers)]
        path = self._path(cell, side)
        return [
            load.Requests(load.Connection(side.url), path, tokens) for _ in range(cell.connections)
        ]

    def _path(self, cell: Cell, side: Side) -> str:
        if side.name == DIRECT:
            return "/user/info?user_id=bob%40example.com"
        return MOUNT + (self.usage if cell.scenario.name == "usage" else cell.scenario.path)

    def _whose(self, cell: Cell) -> People:
        return self._people[cell.users, cell.scenario.page]

    def _first(self, cell: Cell, side: Side) -> int:
        return self._next.get((side.name, cell.users, cell.scenario.page), 0)

    def _advance(self, cell: Cell, side: Side, taken: Load) -> None:
        # Each side goes through all the users before one of them comes again.
        key = side.name, cell.users, cell.scenario.page
        next_ = self._first(cell, side) + taken.done + taken.unseen
        self._next[key] = next_ % len(self._whose(cell).tokens)

    def _as_people(self, name: str, tokens: Sequence[str]) -> People:
        file = self.folder / f"{name}.tokens"
        file.write_text("".join(f"{token}\n" for token in tokens))
        return People(tokens, file)


def summary(runs: Sequence[Sample]) -> dict[str, Any]:
    """Return the medians of some runs, and the runs."""
    names = ("rate", "p50", "p99", "cpu", "calls")
    medians = {name: statistics.median(getattr(run, name) for run in runs) for name in names}
    return {
        **medians,
        "cpu_of": {
            name: statistics.median(run.cpu_of[name] for run in runs) for name in runs[0].cpu_of
        },
        "failed": sum(run.failed for run in runs),
        "runs": [asdict(run) for run in runs],
    }


def _settle(pids: Sequence[int]) -> None:
    """Wait until processes are done with what ``wrk`` had no more patience for."""
    deadline = time.monotonic() + load.DRAIN
    before = sides.cpu_seconds(pids)
    while time.monotonic() < deadline:
        time.sleep(QUIET)
        spent = sides.cpu_seconds(pids)
        if spent - before <= QUIET_CPU:
            return
        before = spent


def _own_cpu() -> float:
    """Return the CPU time of this process and of ended children such as ``wrk``, in seconds."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


def _asked(url: str, token: str) -> tuple[int, Any]:
    answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
    return answer.status_code, answer.json()
