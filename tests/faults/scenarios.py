"""What goes wrong, what must be answered then, and what was measured."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from litellm_plugin.identity import jwt
from tests.cache.redis_server import PROGRAM, RedisServer
from tests.faults import proxy
from tests.faults.rig import (
    MASTER_KEY,
    SLACK,
    TOKEN_SECONDS,
    TOTAL,
    Answer,
    Counted,
    Rig,
    Route,
    running,
)

KEYS = Route("GET", "/keys")
OUT_OF_ORDER = frozenset({500, 502, 503, 504})
# What the pools may keep: a connection to each upstream for each of the requests that are asked at
# once, which is more or fewer as the machine is busy; and the worker's own, Redis included.
MOST_SOCKETS = 30
# The main one, and gevent's ten that resolve names, each of which is made when it is first needed.
MOST_THREADS = 11


@dataclass
class Row:
    """What was measured under one fault.

    Attributes:
        fault: What went wrong.
        first: The answers right after it began, all routes at once.
        then: The answers a moment later.
        recovery: Seconds from its end to the first answer as it should be.
        before: What the worker had open before; after: afterwards.
        problems: What was not as it must be.
    """

    fault: str
    first: list[Answer] = field(default_factory=list)
    then: list[Answer] = field(default_factory=list)
    recovery: float = 0.0
    before: Counted | None = None
    after: Counted | None = None
    problems: list[str] = field(default_factory=list)

    def wrong(self, problem: str) -> None:
        self.problems.append(problem)

    @property
    def statuses(self) -> str:
        """Such as ``9 x 500, 2 x 503``."""
        count = Counter(answer.status for answer in [*self.first, *self.then])
        return ", ".join(f"{number} x {status}" for status, number in sorted(count.items()))

    def seconds(self, answers: list[Answer]) -> tuple[float, float]:
        """Return the median and the longest time."""
        took = [answer.seconds for answer in answers] or [0.0]
        return statistics.median(took), max(took)


Start = Callable[[Rig], None]


def spoiling(fault: proxy.Fault) -> Start:
    return lambda rig: rig.litellm.spoil(fault)


def _on_writes(fault: proxy.Fault) -> Start:
    def choosing(exchange: proxy.Exchange) -> None:
        (proxy.none if exchange.asked.method == "GET" else fault)(exchange)

    return spoiling(choosing)


@dataclass(frozen=True)
class LiteLLMFault:
    """LiteLLM is out of order.

    Attributes:
        reads: Statuses that reads may have.
        writes: Statuses that writes may have.
        acts: Whether LiteLLM has acted on the writes that fail.
    """

    name: str
    start: Start
    reads: Collection[int] = OUT_OF_ORDER
    writes: Collection[int] = OUT_OF_ORDER
    acts: bool = False


LITELLM = [
    LiteLLMFault("LiteLLM refuses connections", lambda rig: rig.litellm.refuse()),
    LiteLLMFault("LiteLLM hangs before it acts", spoiling(proxy.hang_before)),
    LiteLLMFault("LiteLLM hangs in the headers", spoiling(proxy.hang_in_headers)),
    LiteLLMFault("LiteLLM hangs in the body", spoiling(proxy.hang_in_body)),
    LiteLLMFault("LiteLLM drips", spoiling(proxy.drip)),
    LiteLLMFault("LiteLLM resets before it acts", spoiling(proxy.reset_before)),
    LiteLLMFault("LiteLLM resets in the body", spoiling(proxy.reset_in_body)),
    LiteLLMFault("LiteLLM answers what is no HTTP", spoiling(proxy.garbage)),
    LiteLLMFault("LiteLLM answers 200 and no JSON", spoiling(proxy.no_json)),
    LiteLLMFault("LiteLLM answers 200 and an error", spoiling(proxy.ok_with_error)),
    *(
        LiteLLMFault(f"LiteLLM answers {status}", spoiling(proxy.answers(status)))
        for status in ("500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable")
    ),
    LiteLLMFault("LiteLLM answers 504 Gateway Timeout", spoiling(proxy.answers("504 Timeout"))),
    LiteLLMFault(
        "LiteLLM answers each read twice with 503",
        lambda rig: rig.litellm.spoil(proxy.burst(2, "503 Service Unavailable")),
        reads={200},
        writes={200},
    ),
    *(
        LiteLLMFault(f"LiteLLM acts on writes and {what}", _on_writes(fault), {200}, acts=True)
        for what, fault in (
            ("hangs", proxy.hang_after),
            ("hangs in the body", proxy.hang_in_body),
            ("resets", proxy.reset_after),
            ("resets in the body", proxy.reset_in_body),
            ("answers what is no HTTP", proxy.garbage),
            ("answers 200 and no JSON", proxy.no_json),
            ("a proxy answers 504", proxy.acted_and_answers("504 Gateway Timeout")),
        )
    ),
]


def under_litellm_fault(rig: Rig, fault: LiteLLMFault) -> Row:
    """Ask for everything before, during and after a fault of LiteLLM's."""
    with _measured(rig, fault.name) as row:
        log_before = len(rig.log)
        fault.start(rig)
        row.first = rig.ask_all(rig.routes)
        row.then = rig.ask_all(rig.routes)
        rig.litellm.mend()
        row.recovery = rig.recovery(KEYS)
        for answer in [*row.first, *row.then]:
            allowed = fault.writes if answer.route.writes else fault.reads
            _check(row, answer, allowed)
            if fault.acts and answer.route.writes:
                _check_says_so(row, answer)
        made = {
            answer.route.body["alias"]: answer.status == 200
            for answer in [*row.first, *row.then]
            if answer.route.path == "/keys/generate"
        }

        def nothing_left() -> bool:
            there = rig.aliases()
            return all((alias in there) == told for alias, told in made.items())

        if not rig.settled(nothing_left, within=30.0):
            row.wrong(f"keys told of {made}, keys there {rig.aliases()}")
    _check_log(rig, row, log_before)
    return row


def _check_says_so(row: Row, answer: Answer) -> None:
    if "does not answer at present" in answer.error:  # so that nothing was sent
        return
    if not any(part in answer.error for part in ("all the same", "was made", "turns up")):
        row.wrong(f"{answer.route} does not say that it may have been done: {answer.error}")


def _well(rig: Rig, row: Row) -> Counted:
    """Ask for everything, which must be well, and count what is open then."""
    routes = rig.routes
    deadline = time.monotonic() + 30
    while True:  # the breaker lets one request a second through until one is answered
        answers = rig.ask_all(routes)
        bad = [answer for answer in answers if answer.status != 200]
        if not bad:
            break
        if time.monotonic() > deadline:
            row.wrong(f"not well: {bad}")
            break
        routes = rig.routes
    time.sleep(0.1)  # for what is closed to be closed
    return rig.counted()


@contextmanager
def _measured(rig: Rig, name: str) -> Iterator[Row]:
    """Give a row to fill; before and after all must be well, and nothing more be open."""
    row = Row(name)
    row.before = _well(rig, row)
    yield row
    row.after = _well(rig, row)
    _check_leaks(row)


def _check(row: Row, answer: Answer, allowed: Collection[int]) -> None:
    if answer.status not in allowed:
        row.wrong(f"{answer.route}: {answer.status} {answer.error}")
    if answer.seconds > TOTAL + SLACK:
        row.wrong(f"{answer.route} took {answer.seconds:.2f} s")
    if MASTER_KEY in answer.text:
        row.wrong(f"{answer.route} tells the master key")
    if answer.status >= 400 and not answer.error:
        row.wrong(f"{answer.route} says nothing: {answer.text[:200]}")


def _check_leaks(row: Row) -> None:
    # A leak with each fault passes these limits well before the last fault; what was already
    # open before the fault is not its leak.
    assert row.before is not None
    assert row.after is not None
    if row.after.threads > max(MOST_THREADS, row.before.threads):
        row.wrong(f"threads: {row.before.threads}, then {row.after.threads}")
    if row.after.sockets > max(MOST_SOCKETS, row.before.sockets):
        row.wrong(f"sockets: {row.before.sockets}, then {row.after.sockets}")


def _check_log(rig: Rig, row: Row, since: int) -> None:
    said = rig.log[since:]
    if MASTER_KEY in said:
        row.wrong("the log has the master key")
    if "Traceback" in said:
        row.wrong(f"the log has a traceback: {said[-3000:]}")


# -- Backstage ---------------------------------------------------------------

CATALOG_AND_PERMISSIONS = [
    Route("POST", "/keys/generate", {"alias": "denied", "max_budget": 1}),
    Route("GET", "/teams/managed"),
    Route("GET", "/audit"),
    Route("POST", "/teams", {"team_alias": "denied", "models": ["gpt-4o"], "max_budget": 1}),
]


@dataclass(frozen=True)
class BackstageFault:
    """Backstage is out of order; whoever signed in before stays signed in."""

    name: str
    start: Start


def _permissions_only(fault: proxy.Fault) -> proxy.Fault:
    def choosing(exchange: proxy.Exchange) -> None:
        asked = exchange.asked.target.startswith("/api/permission")
        (fault if asked else proxy.none)(exchange)

    return choosing


BACKSTAGE = [
    BackstageFault("Backstage refuses connections", lambda rig: rig.backstage.refuse()),
    BackstageFault("Backstage hangs", lambda rig: rig.backstage.spoil(proxy.hang_before)),
    BackstageFault("Backstage resets", lambda rig: rig.backstage.spoil(proxy.reset_before)),
    BackstageFault("Backstage answers no JSON", lambda rig: rig.backstage.spoil(proxy.no_json)),
    BackstageFault(
        "Backstage answers 503",
        lambda rig: rig.backstage.spoil(proxy.answers("503 Service Unavailable")),
    ),
    BackstageFault(
        "the permission API answers 500",
        lambda rig: rig.backstage.spoil(_permissions_only(proxy.answers("500 No"))),
    ),
    BackstageFault(
        "the permission API hangs",
        lambda rig: rig.backstage.spoil(_permissions_only(proxy.hang_before)),
    ),
]


def under_backstage_fault(rig: Rig, fault: BackstageFault) -> Row:
    """Ask for what needs Backstage, and for what does not, while it is out of order."""
    with _measured(rig, fault.name) as row:
        there, teams = rig.aliases(), set(rig.litellm_stand_in.store.teams)
        fault.start(rig)
        permission_only = fault.name.startswith("the permission")
        needing = [
            route
            for route in CATALOG_AND_PERMISSIONS
            if not (permission_only and route.path == "/audit")
        ]
        row.first = rig.ask_all([*needing, KEYS])
        row.then = rig.ask_all([*needing, KEYS])
        rig.backstage.mend()
        row.recovery = rig.recovery(Route("GET", "/teams/managed"))
        for answer in [*row.first, *row.then]:
            _check(row, answer, {200} if answer.route == KEYS else {503})
        if rig.aliases() != there or set(rig.litellm_stand_in.store.teams) != teams:
            row.wrong("something was written")
    return row


def backstage_down_at_start(folder: Path) -> Row:
    """Start without Backstage, and ask; then let it come."""
    row = Row("Backstage is down when the service starts")
    with running(folder, backstage_down=True) as rig:
        row.first = rig.ask_all([KEYS, *CATALOG_AND_PERMISSIONS])
        row.then = rig.ask_all([KEYS, *CATALOG_AND_PERMISSIONS])
        for answer in [*row.first, *row.then]:
            _check(row, answer, {401, 503})
        rig.backstage.mend()
        row.recovery = rig.recovery(KEYS)
        row.before = _well(rig, row)
        row.after = _well(rig, row)
        _check_leaks(row)
    return row


def rotate(rig: Rig) -> None:
    """Let Backstage sign with a new key, and forget the old one."""
    rig.issuer._key = jwt.PrivateKey.generate()


def rotated(rig: Rig) -> Row:
    """A new key is taken at once; tokens of the old one end with it."""
    with _measured(rig, "Backstage's key is rotated") as row:
        old = rig.token
        rotate(rig)
        rig.token = rig.sign_in()
        row.first = [rig.ask(KEYS)]
        row.recovery = row.first[0].seconds
        row.then = [rig.ask(KEYS, old)]
        _check(row, row.first[0], {200})
        # It was verified a moment ago, and is remembered for a minute at most.
        _check(row, row.then[0], {200, 401})
    return row


def rotated_then_down(rig: Rig) -> Row:
    """Nobody can tell a token of the new key from a forged one; the old one holds on."""
    with _measured(rig, "Backstage's key is rotated, then it is down") as row:
        old = rig.token
        rotate(rig)
        new = rig.sign_in()
        rig.backstage.refuse()
        row.first = rig.ask_all([KEYS] * 4, new)
        row.then = rig.ask_all([KEYS] * 4, old)
        for answer in row.first:
            _check(row, answer, {401, 503})
        for answer in row.then:
            _check(row, answer, {200})
        rig.token = new
        rig.backstage.mend()
        row.recovery = rig.recovery(KEYS, new)
    return row


# -- clocks ------------------------------------------------------------------


def clocks(rig: Rig) -> Row:
    """Backstage's clock is not ours: it has no tolerance, and neither have we."""
    with _measured(rig, "Backstage's clock is ahead or behind") as row:
        cases = [
            # Seconds that Backstage's clock is ahead, life of the token, what must be answered.
            (30.0, 3600.0, 200),  # iat is in our future: taken, as Backstage does
            (-30.0, 3600.0, 200),
            (-30.0, 35.0, 200),  # five seconds are left
            (-30.0, 28.0, 401),  # over for two seconds
            (-3600.0, 3600.0, 401),  # over this very second
            (30.0, -32.0, 401),
            (30.0, -20.0, 200),  # over there, and not here
        ]
        for ahead, lifetime, wanted in cases:
            rig.clock.ahead = ahead
            answer = rig.ask(KEYS, rig.sign_in(lifetime=lifetime))
            row.first.append(answer)
            _check(row, answer, {wanted})
        # Our own tokens, which live for an hour, as Backstage reads them.
        for ahead, wanted in ((-1800.0, 200), (1800.0, 200), (7200.0, 503)):
            rig.clock.ahead = ahead
            token = rig.sign_in(lifetime=TOKEN_SECONDS - min(ahead, 0.0))
            answer = rig.ask(Route("GET", "/audit"), token)
            row.then.append(answer)
            _check(row, answer, {wanted})
        rig.clock.ahead = 0.0
        row.recovery = rig.recovery(Route("GET", "/audit"))
    return row


# -- Redis -------------------------------------------------------------------


def redis_gone(folder: Path) -> list[Row]:
    """Redis is killed, and hangs: the service does without."""
    if PROGRAM is None:
        return []
    rows = []
    with ExitStack() as stack:
        redis = RedisServer(folder / "redis")
        redis.start()
        stack.callback(redis.stop)
        cache = f"  cache: {{store: redis, connection: '{redis.url}'}}"
        rig = stack.enter_context(running(folder / "service", more="cacheSeconds: 3", cache=cache))
        for name, start, end in (
            ("Redis is gone", redis.kill, redis.start),
            ("Redis hangs", redis.freeze, redis.thaw),
        ):
            with _measured(rig, name) as row:
                start()
                row.first = rig.ask_all(rig.routes)
                row.then = rig.ask_all(rig.routes)
                end()
                row.recovery = rig.recovery(KEYS)
                for answer in [*row.first, *row.then]:
                    _check(row, answer, {200})
            rows.append(row)
    return rows
