"""Loads the service for long, with faults switched on and off and workers killed and reloaded.

Starts the real LiteLLM with its PostgreSQL, the real Backstage, our service with two workers, and a
proxy to each of the two, which spoils what goes through now and then. Measures how much the
service can do, then asks for half of that. In the end every write that was asked for is looked up
in LiteLLM's database: none may be lost, and none done twice.

    python benchmarks/soak.py --minutes 3 --cycle 20     # a try
    python benchmarks/soak.py                            # half an hour

README.md says how to read it. Ports: --litellm-port (4427), --backstage-port (7427) and
--keycloak-port (7491); all others are free ones.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import command
import report
import requests
import sides
from sides import MASTER_KEY, MOUNT, Ports

sys.path.insert(0, str(Path(__file__).parent.parent))  # the proxy is among the tests

from tests.deployed import free_port
from tests.faults import proxy
from tests.faults.proxy import Proxy

Json = dict[str, Any]

MINUTES, CYCLE = 30.0, 45.0  # of all; seconds from one fault to the next
FAULTY = 0.2  # of a cycle
CLIENTS = 8
PEOPLE = 24
MOST_KEYS, LEAST_KEYS = 9, 4  # of each of them
WARM_UP, MEASURING = 10.0, 30.0  # seconds
SAMPLE = 10.0  # seconds between two looks at memory
KILLS, RELOADS = 6, 4  # in the whole run
# How long after its end a fault may still be the reason for what fails: the breaker lets one
# request a second through, and Backstage's keys are fetched when they are wanted.
AFTER = 3.0  # seconds
AFTER_KILL = 2.0
SETTLING = 45.0  # seconds for what is looked for in the background
DEADLINE = 15.0  # seconds, litellm.service.timeouts.total
LATE = 3.0  # seconds beyond it that an answer may take to arrive, on a busy machine
GROWTH = 1.15  # what of a worker's memory may be more in the end, as a factor

OVERLAY = """\
litellm:
  service:
    backstageUrl: {backstage}
    timeouts: {{connect: 2, read: 30, total: {deadline}}}
"""

KILLED = "a worker is killed"
STALLED = "the machine stood still"
TICK, STALL = 0.25, 2.0  # seconds

# Where nothing was sent, as the errors say it.
NOT_SENT = (
    "could not be reached",
    "does not answer at present",
    "no time left",
    "too much at once",
)


# -- what is asked -----------------------------------------------------------


@dataclass(slots=True)
class Done:
    """One request.

    Attributes:
        status: 0 where there was no answer.
        began, ended: On the monotonic clock.
    """

    what: str
    status: int
    began: float
    ended: float
    error: str = ""


@dataclass(slots=True)
class Key:
    """A key, as far as its owner knows.

    Attributes:
        token: Its hash; "" where nobody was told.
        fate: there, gone, maybe, or never: what LiteLLM's database must say.
        budgets: Those that it may have.
        asked: When it was asked for, on the monotonic clock; twice.
    """

    alias: str
    token: str = ""
    fate: str = "maybe"
    budgets: set[float] = field(default_factory=set)
    asked: tuple[float, float] = (0.0, 0.0)


class Person:
    """Somebody who asks for one thing after the other, and remembers what came of it."""

    def __init__(self, url: str, token: str, *, admin: bool) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._admin = admin
        self._random = random.Random(token)
        self.keys: list[Key] = []
        self.teams: dict[str, str] = {}  # alias: there, maybe or never
        self.done: list[Done] = []

    def turn(self) -> None:
        """Ask for one thing."""
        if self._admin and self._random.random() < 0.1:
            self._make_team()
            return
        if self._random.random() < 0.75:
            self._read()
            return
        mine = [key for key in self.keys if key.fate == "there"]
        if len(mine) < LEAST_KEYS or (len(mine) < MOST_KEYS and self._random.random() < 0.3):
            self._make_key()
        elif self._random.random() < 0.3:
            self._delete(self._random.choice(mine))
        elif self._random.random() < 0.5:
            self._change(self._random.choice(mine))
        else:
            way = self._random.choice(("block", "unblock", "reset_spend"))
            self._ask("POST", f"/keys/{self._random.choice(mine).token}/{way}", {}, way)

    def _read(self) -> None:
        today = datetime.now(UTC).date()
        period = f"start_date={today - timedelta(days=7)}&end_date={today}"
        path = self._random.choice(("/user/info", "/keys", "/teams", "/models", f"/usage?{period}"))
        self._ask("GET", path, None, f"GET {path.partition('?')[0]}")

    def _make_key(self) -> None:
        key = Key(f"soak-{uuid4().hex}", budgets={1.0})
        began = time.monotonic()
        answer, error = self._ask(
            "POST", "/keys/generate", {"alias": key.alias, "max_budget": 1.0}, "make a key"
        )
        key.asked = (began, time.monotonic())
        self.keys.append(key)
        if answer is not None and answer.get("token"):
            key.fate, key.token = "there", answer["token"]
        elif _not_done(error) or "removed again" in error:
            key.fate = "never"

    def _delete(self, key: Key) -> None:
        answer, error = self._ask("DELETE", f"/keys/{key.token}", None, "delete a key")
        if answer is not None:
            key.fate = "gone"
        elif not _not_done(error):
            key.fate = "maybe"

    def _change(self, key: Key) -> None:
        budget = float(self._random.randrange(2, 1_000_000))
        body = {"max_budget": budget}
        answer, error = self._ask("POST", f"/keys/{key.token}/update", body, "change a key")
        if answer is not None:
            key.budgets = {budget}
        elif not _not_done(error):
            key.budgets.add(budget)

    def _make_team(self) -> None:
        alias = f"soak-{uuid4().hex}"
        body = {"team_alias": alias, "models": ["gpt-4o"], "max_budget": 1}
        answer, error = self._ask("POST", "/teams", body, "make a team")
        sure = "there" if answer is not None else "never" if _not_done(error) else "maybe"
        self.teams[alias] = sure

    def _ask(self, method: str, path: str, body: Any, what: str) -> tuple[Json | None, str]:
        """Ask; return the answer if it is 2xx, else the error; "" where there was no answer."""
        began = time.monotonic()
        status, error, found = 0, "", None
        try:
            answer = self._session.request(method, self._url + path, json=body, timeout=60)
            status = answer.status_code
            decoded = answer.json()
            if answer.ok:
                found = decoded if isinstance(decoded, dict) else {}
            else:
                error = str(decoded.get("error"))
        except (requests.RequestException, ValueError) as exc:
            said = repr(exc)
            self.done.append(Done(what, status, began, time.monotonic(), said))
            # The port of a service whose master lives is never refused.
            return None, "could not be reached" if "NewConnectionError" in said else ""
        self.done.append(Done(what, status, began, time.monotonic(), error))
        return found, error


def _not_done(error: str) -> bool:
    """Tell whether an error says that nothing was done; one of Backstage's does."""
    return any(part in error for part in NOT_SENT) or "Backstage" in error


# -- how fast ----------------------------------------------------------------


class Pace:
    """Lets people have their turns, at a rate or as fast as they can."""

    def __init__(self, people: Sequence[Person], rate: float | None) -> None:
        self._people = list(people)
        self._lock = threading.Lock()
        self._free = list(people)
        self._rate = rate
        self._began = time.monotonic()
        self._number = itertools.count()
        self._over = threading.Event()
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, with the turns that have begun."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        try:
            while not self._over.is_set():
                if self._rate is not None:
                    due = self._began + next(self._number) / self._rate
                    if self._over.wait(max(due - time.monotonic(), 0.0)):
                        return
                with self._lock:
                    person = self._free.pop(random.randrange(len(self._free)))
                try:
                    person.turn()
                finally:
                    with self._lock:
                        self._free.append(person)
        except Exception as exc:
            self.failures.append(repr(exc))
            raise


# -- what goes wrong ---------------------------------------------------------


@dataclass(slots=True)
class Window:
    """A time in which requests may fail.

    Attributes:
        began, ended: On the monotonic clock.
    """

    what: str
    began: float
    ended: float = float("inf")


def _writes(fault: proxy.Fault) -> proxy.Fault:
    def choosing(exchange: proxy.Exchange) -> None:
        (proxy.none if exchange.asked.method == "GET" else fault)(exchange)

    return choosing


Do = Callable[[], None]


def faults(litellm: Proxy, backstage: Proxy) -> list[tuple[str, Do]]:
    """Return what goes wrong, in turns."""
    spoil = litellm.spoil
    gateway = proxy.acted_and_answers("504 Gateway Timeout")
    return [
        ("LiteLLM refuses", litellm.refuse),
        ("LiteLLM acts on writes and resets", lambda: spoil(_writes(proxy.reset_after))),
        ("LiteLLM hangs", lambda: spoil(proxy.hang_before)),
        ("LiteLLM acts on writes and hangs", lambda: spoil(_writes(proxy.hang_after))),
        ("Backstage refuses", backstage.refuse),
        ("LiteLLM resets", lambda: spoil(proxy.reset_before)),
        ("a proxy answers 504 to writes that were done", lambda: spoil(_writes(gateway))),
        ("LiteLLM drips", lambda: spoil(proxy.drip)),
        ("LiteLLM answers 503", lambda: spoil(proxy.answers("503 Service Unavailable"))),
        ("Backstage hangs", lambda: backstage.spoil(proxy.hang_before)),
        ("LiteLLM resets in the body", lambda: spoil(proxy.reset_in_body)),
        ("LiteLLM answers garbage", lambda: spoil(proxy.garbage)),
    ]


class Trouble:
    """Switches faults on and off, kills workers and reloads them, and looks at their memory.

    Attributes:
        windows: When requests may fail.
        memory: By worker: seconds since the start, and MiB.
        reloads: When the master was told to, on the monotonic clock.
    """

    def __init__(
        self, service: sides.Service, wrong: list[tuple[str, Do]], mend: Do, cycle: float
    ) -> None:
        self._service = service
        self._wrong = itertools.cycle(wrong)
        self._mend = mend
        self._cycle = cycle
        self.windows: list[Window] = []
        self.reloads: list[float] = []
        self.memory: dict[int, list[tuple[float, float]]] = defaultdict(list)

    def run(self, seconds: float) -> None:
        """Make trouble for some seconds."""
        began = time.monotonic()
        over = threading.Event()
        ticking = threading.Thread(target=self._tick, args=(over,))
        ticking.start()
        # A kill is in turns within a fault and without one; a reload likewise.
        plan = [(t, self._fault) for t in _every(self._cycle, seconds, self._cycle * (1 - FAULTY))]
        plan += [(t, self._calm) for t in _every(self._cycle, seconds, self._cycle)]
        plan += [(t, self._kill) for t in _every(seconds / (KILLS + 0.5), seconds)]
        plan += [(t, self._reload) for t in _every(seconds / (RELOADS + 0.3), seconds)]
        plan += [(t, lambda: self._weigh(began)) for t in _every(SAMPLE, seconds, 1.0)]
        for due, do in sorted(plan, key=lambda step: step[0]):
            time.sleep(max(began + due - time.monotonic(), 0.0))
            do()
        time.sleep(max(began + seconds - time.monotonic(), 0.0))
        self._calm()
        over.set()
        ticking.join()

    def _tick(self, over: threading.Event) -> None:
        """Note when the machine gives nobody a turn; then what fails is nobody's fault."""
        last = time.monotonic()
        while not over.wait(TICK):
            now = time.monotonic()
            if now - last > TICK + STALL:
                command.say(f"this machine stood still for {now - last:.1f} s")
                self.windows.append(Window(STALLED, last, now + AFTER))
            last = now

    def _fault(self) -> None:
        what, do = next(self._wrong)
        command.say(what)
        self.windows.append(Window(what, time.monotonic()))
        do()

    def _calm(self) -> None:
        self._mend()
        for window in self.windows:
            if window.ended == float("inf"):
                window.ended = time.monotonic() + AFTER

    def _kill(self) -> None:
        workers = self._service.workers
        if not workers:
            return
        worker = random.choice(workers)
        now = time.monotonic()
        command.say(f"kill -9 {worker}")
        self.windows.append(Window(KILLED, now, now + AFTER_KILL))
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)

    def _reload(self) -> None:
        command.say("reload")
        self.reloads.append(time.monotonic())
        os.kill(self._service.pid, signal.SIGHUP)

    def _weigh(self, began: float) -> None:
        for worker in self._service.workers:
            with suppress(OSError, StopIteration):
                weight = sides.memory([worker]).pss
                self.memory[worker].append((time.monotonic() - began, weight))


def _every(period: float, seconds: float, first: float | None = None) -> list[float]:
    times, at = [], period if first is None else first
    while at < seconds:
        times.append(at)
        at += period
    return times


# -- LiteLLM -----------------------------------------------------------------


@contextmanager
def litellm(shared: Path, port: int) -> Iterator[None]:
    """Run LiteLLM and its PostgreSQL, empty but for the team that new users are put in."""
    rig = shared / "litellm"
    env = {**os.environ, "LITELLM_PORT": str(port), "LITELLM_MASTER_KEY": MASTER_KEY}
    try:
        sides.run(rig / "up", env, sides.INSTALLING)
        sides.run(rig / "reset", env, sides.STARTING)
        answer = requests.post(
            f"http://127.0.0.1:{port}/team/new",
            json={"team_id": "team-guests", "team_alias": "Guests"},
            headers={"Authorization": f"Bearer {MASTER_KEY}"},
            timeout=60,
        )
        answer.raise_for_status()
        yield
    finally:
        with suppress(sides.UnusableError):
            sides.run(rig / "reset", env, sides.STARTING)
        sides.run(rig / "down", env, sides.STARTING)


def rows(port: int, statement: str) -> list[list[str]]:
    """Return what PostgreSQL answers."""
    pg_port = os.environ.get("LITELLM_PG_PORT", "54329")
    psql = ["psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", pg_port]
    done = subprocess.run(
        [*psql, "-U", "litellm", "-d", f"litellm_{port}", "-c", statement],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise sides.UnusableError(f"PostgreSQL: {done.stderr[:1000]}")
    return [line.split("\t") for line in done.stdout.splitlines()]


# -- what came of it ---------------------------------------------------------


@dataclass(slots=True)
class Verdict:
    """What is wrong, and what is worth knowing."""

    wrong: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def check(self, good: bool, line: str) -> None:
        """Note whether something is as it must be."""
        self.lines.append(f"{'good ' if good else 'WRONG'}  {line}")
        if not good:
            self.wrong.append(line)


LIVE = """select key_alias, max_budget from "LiteLLM_VerificationToken"
where key_alias like 'soak-%'"""
# Where a key is deleted by two at the same time, LiteLLM writes that down twice.
DELETED = """select distinct key_alias, token from "LiteLLM_DeletedVerificationToken"
where key_alias like 'soak-%'"""
TEAMS = """select team_alias from "LiteLLM_TeamTable" where team_alias like 'soak-%'"""


def check_keys(
    port: int,
    people: Sequence[Person],
    log: str,
    killed: Sequence[Window],
    verdict: Verdict,
) -> None:
    """Hold what was told of keys against LiteLLM's database."""
    live: Counter[str] = Counter()
    budgets: dict[str, float] = {}
    for alias, budget in rows(port, LIVE):
        live[alias] += 1
        budgets[alias] = float(budget)
    made = Counter(alias for alias, _ in rows(port, DELETED))
    made.update(live)
    keys = [key for person in people for key in person.keys]
    by_fate = {
        fate: [key for key in keys if key.fate == fate]
        for fate in ("there", "gone", "maybe", "never")
    }
    lost = [key for key in by_fate["there"] if live[key.alias] != 1]
    verdict.check(not lost, f"{len(by_fate['there'])} keys told of and kept: {len(lost)} lost")
    undead = [key for key in by_fate["gone"] if live[key.alias]]
    verdict.check(
        not undead, f"{len(by_fate['gone'])} keys told to be deleted: {len(undead)} there"
    )
    ghosts = [key for key in by_fate["never"] if live[key.alias]]
    verdict.check(not ghosts, f"{len(by_fate['never'])} keys refused: {len(ghosts)} there")
    twice = [alias for alias, number in made.items() if number > 1]
    verdict.check(not twice, f"{sum(made.values())} keys made in all: {len(twice)} made twice")
    unknown = [alias for alias in live if alias not in {key.alias for key in keys}]
    verdict.check(not unknown, f"{len(unknown)} keys that nobody asked for")
    wrong = [
        key
        for key in keys
        if live[key.alias] and key.token and budgets[key.alias] not in key.budgets
    ]
    verdict.check(not wrong, f"budgets of {sum(live.values())} keys: {len(wrong)} not as told")
    unheard = [key for key in by_fate["maybe"] if not key.token]
    left = [key for key in unheard if live[key.alias]]
    reported = [key for key in left if f"'{key.alias}'" in log]
    # Where its worker was killed meanwhile, nobody can know of it.
    at_a_kill = [
        key
        for key in left
        if key not in reported
        and any(w.began - 1 <= key.asked[1] and key.asked[0] <= w.ended for w in killed)
    ]
    silent = len(left) - len(reported) - len(at_a_kill)
    told = f"{len(reported)} named in the log, {len(at_a_kill)} where a worker was killed"
    verdict.check(
        not silent,
        f"{len(unheard)} keys of whose making nobody heard: {len(left)} are left, {told}",
    )


def check_teams(port: int, people: Sequence[Person], verdict: Verdict) -> None:
    """Hold what was told of teams against LiteLLM's database."""
    there = Counter(alias for (alias,) in rows(port, TEAMS))
    told = {alias: fate for person in people for alias, fate in person.teams.items()}
    wrong = [
        alias
        for alias, fate in told.items()
        if there[alias] > 1
        or (fate == "there" and not there[alias])
        or (fate == "never" and there[alias])
    ]
    verdict.check(not wrong, f"{len(told)} teams asked for: {len(wrong)} not as told, or twice")


def check_errors(
    done: Sequence[Done], windows: Sequence[Window], verdict: Verdict
) -> dict[str, Any]:
    """Hold what failed against when it may."""

    def within(each: Done) -> Window | None:
        return next((w for w in windows if w.began <= each.ended and each.began <= w.ended), None)

    inside, outside = [], []
    for each in done:
        (outside if within(each) is None else inside).append(each)
    failed_in = [each for each in inside if not 200 <= each.status < 300]
    failed_out = [each for each in outside if not 200 <= each.status < 300]
    verdict.lines.append(
        f"       {len(inside)} requests while something was wrong: {len(failed_in)} failed "
        f"({100 * len(failed_in) / max(len(inside), 1):.1f} %)"
    )
    verdict.check(not failed_out, f"{len(outside)} requests besides: {len(failed_out)} failed")
    for each in failed_out[:20]:
        verdict.lines.append(f"         {each.what}: {each.status} {each.error[:200]}")
    odd = [each for each in failed_in if each.status not in {0, 401, 499, 500, 502, 503, 504}]
    verdict.check(not odd, f"{len(odd)} failed with a status that is no upstream's fault")
    for each in odd[:20]:
        verdict.lines.append(f"         {each.what}: {each.status} {each.error[:200]}")
    slow = max((each.ended - each.began for each in done), default=0.0)
    told = f"the longest answer took {slow:.1f} s; the deadline is {DEADLINE:.0f} s"
    verdict.check(slow < DEADLINE + LATE, told)
    return {"inside": len(inside), "failed": len(failed_in), "outside": len(outside)}


def check_memory(
    memory: Mapping[int, Sequence[tuple[float, float]]], seconds: float, verdict: Verdict
) -> str:
    """Return a table of the workers' memory, and judge those that lived for long."""
    body = []
    for worker, samples in memory.items():
        if len(samples) < 3:
            continue
        life = samples[-1][0] - samples[0][0]
        settled = [mib for at, mib in samples if at >= samples[0][0] + min(60.0, life / 3)]
        early = statistics.median(settled[: max(len(settled) // 4, 1)])
        late = statistics.median(settled[-max(len(settled) // 4, 1) :])
        body.append(
            [
                str(worker),
                f"{samples[0][0]:.0f}",
                f"{life:.0f}",
                f"{samples[0][1]:.1f}",
                f"{early:.1f}",
                f"{late:.1f}",
            ]
        )
        if life >= 180:
            verdict.check(
                late <= GROWTH * early,
                f"worker {worker}, {life:.0f} s old: {early:.1f} MiB, in the end {late:.1f} MiB",
            )
    totals: dict[int, float] = defaultdict(float)
    for samples in memory.values():
        for at, mib in samples:
            totals[round(at / SAMPLE)] += mib
    thirds = [total for _, total in sorted(totals.items())]
    third = max(len(thirds) // 3, 1)
    first, last = statistics.median(thirds[:third]), statistics.median(thirds[-third:])
    verdict.check(
        last <= GROWTH * first or seconds < 300,
        f"all workers: {first:.0f} MiB in the first third, {last:.0f} MiB in the last",
    )
    head = ["worker", "since s", "age s", "MiB at first", "settled", "in the end"]
    return report.table(head, body)


def by_fault(done: Sequence[Done], windows: Sequence[Window]) -> str:
    """Return a table of what failed under each fault."""
    body = []
    for what in dict.fromkeys(window.what for window in windows):
        spans = [window for window in windows if window.what == what]
        these = [
            each
            for each in done
            if any(w.began <= each.ended and each.began <= w.ended for w in spans)
        ]
        failed = Counter(each.status for each in these if not 200 <= each.status < 300)
        took = [each.ended - each.began for each in these] or [0.0]
        statuses = ", ".join(f"{number} x {status}" for status, number in sorted(failed.items()))
        body.append(
            [what, str(len(spans)), str(len(these)), str(sum(failed.values())), statuses or "-",
             f"{statistics.median(took):.2f}", f"{max(took):.2f}"]
        )  # fmt: skip
    head = ["what was wrong", "times", "requests", "failed", "statuses", "p50 s", "max s"]
    return report.table(head, body)


# -- all of it ---------------------------------------------------------------


def soak(given: argparse.Namespace, folder: Path) -> tuple[Json, str, Verdict]:
    """Do it."""
    ports = Ports(
        upstream=free_port(),
        service=free_port(),
        backstage=given.backstage_port,
        keycloak=given.keycloak_port,
    )
    with ExitStack() as stack:
        stack.enter_context(litellm(given.shared, given.litellm_port))
        upstream = Proxy(given.litellm_port, ports.upstream)
        stack.callback(upstream.stop)
        original = stack.enter_context(sides.backstage(given.shared, folder, ports))
        behind = Proxy(given.backstage_port)
        stack.callback(behind.stop)
        overlay = folder / "app-config.soak.yaml"
        overlay.write_text(OVERLAY.format(backstage=behind.url, deadline=DEADLINE))
        service = stack.enter_context(
            sides.service(given.shared, folder, given.checkout, [overlay, *given.config], ports)
        )
        sides.introduce(original, service)
        names = ["alice", *(f"soak-{number:02d}" for number in range(PEOPLE - 1))]
        people = [
            Person(service.url + MOUNT, token, admin=not number)
            for number, token in enumerate(original.sign_all_in(names))
        ]
        command.say("warming up")
        for person in people:
            person.turn()
        rate = measured_rate(people, given)
        for person in people:
            person.done.clear()
        command.say(f"{rate:.1f} requests a second; now half of that")
        trouble = Trouble(
            service, faults(upstream, behind), lambda: _mend(upstream, behind), given.cycle
        )
        pace = Pace(people, rate / 2)
        began = time.monotonic()
        trouble.run(given.minutes * 60)
        pace.stop()
        lasted = time.monotonic() - began
        command.say("waiting for what is looked for in the background")
        time.sleep(SETTLING)
        log = (folder / "service.log").read_text(errors="replace")
        verdict = Verdict()
        done = [each for person in people for each in person.done]
        killed = [w for w in trouble.windows if w.what == KILLED]
        check_keys(given.litellm_port, people, log, killed, verdict)
        check_teams(given.litellm_port, people, verdict)
        facts = check_errors(done, trouble.windows, verdict)
        weights = check_memory(trouble.memory, lasted, verdict)
        verdict.check(not pace.failures, f"{len(pace.failures)} clients ended: {pace.failures[:3]}")
        verdict.check(MASTER_KEY not in log, "the master key is not in the log")
        tracebacks = log.count("Traceback (most recent call last)")
        verdict.check(not tracebacks, f"{tracebacks} tracebacks in the log")
        found = re.findall(r"removed an undelivered key: key ", log)
        kinds = Counter(each.what for each in done)
        summary = (
            f"{lasted / 60:.1f} minutes at {len(done) / lasted:.1f} requests a second, half of"
            f" {rate:.1f}: {len(done)} requests; {len(killed)} kills, {len(trouble.reloads)}"
            f" reloads; {len(found)} keys found and removed"
        )
        text = "\n\n".join(
            [
                summary,
                report.table(["asked", "times"], [[k, str(n)] for k, n in sorted(kinds.items())]),
                by_fault(done, trouble.windows),
                weights,
                "\n".join(verdict.lines),
            ]
        )
        facts |= {"rate": rate, "seconds": lasted, "wrong": verdict.wrong}
        return facts, text, verdict


def _mend(*proxies: Proxy) -> None:
    for each in proxies:
        each.mend()


def measured_rate(people: Sequence[Person], given: argparse.Namespace) -> float:
    """Return how many requests a second are answered, as fast as everybody can ask."""
    command.say("measuring what it can do")
    pace = Pace(people, None)
    time.sleep(WARM_UP)
    before, began = _well(people), time.monotonic()
    time.sleep(given.measuring)
    answered, lasted = _well(people) - before, time.monotonic() - began
    pace.stop()
    asked = [each for person in people for each in person.done]
    failed = [each for each in asked if not 200 <= each.status < 300]
    command.say(f"{len(failed)} of {len(asked)} failed, at full speed: {failed[:3]}")
    return answered / lasted


def _well(people: Sequence[Person]) -> int:
    return sum(200 <= each.status < 300 for person in people for each in person.done)


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="default %(default)s")
    parser.add_argument(
        "--cycle",
        type=float,
        default=CYCLE,
        metavar="SECONDS",
        help="from one fault to the next; default %(default)s",
    )
    parser.add_argument(
        "--measuring",
        type=float,
        default=MEASURING,
        metavar="SECONDS",
        help="how long to measure what it can do; default %(default)s",
    )
    for name, port in (("litellm", 4427), ("backstage", 7427), ("keycloak", 7491)):
        parser.add_argument(f"--{name}-port", type=int, default=port, help="default %(default)s")
    command.add_common(parser)
    given = parser.parse_args()
    with command.ready(given) as folder:
        sides.check_tools(given.shared, ("backstage", "litellm"), wrk=False)
        facts, text, verdict = soak(given, folder)
    facts["environment"] = command.environment(given.checkout)
    command.finish(given, facts, text)
    if verdict.wrong:
        sys.exit(f"{len(verdict.wrong)} things are wrong")


if __name__ == "__main__":
    main()
