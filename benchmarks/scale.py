"""Measures what many users, and one very large one, do to the service.

Ten thousand users with twenty keys each come again and again, then users with 2,000 keys and 200
teams. Told are the memory of the workers after each step, and how long answers take beyond
LiteLLM's own time, next to the same for small users. README.md says how to read it.

    python benchmarks/scale.py --json scale.json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import command
import load
import sides
from report import table, times
from sides import MASTER_KEY, MOUNT, Backstage, Memory, Service, Upstream

SMALL = (5, 5)  # keys and teams
CROWD_TEAMS = 5
CONNECTIONS = 32
RATE = 50.0  # requests a second, of small users and of the crowd
HUGE_RATE = 2.0  # of very large users, each of whose answers is megabytes of LiteLLM's
SECONDS = 6.0
HUGE_SECONDS = 15.0
FILL = ("/keys", "/user/info")  # what everybody of the crowd asks for in each pass
PATHS = ("/keys", "/user/info", "/teams")
AIM = 2.0  # times the small user's

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """Users of one size.

    Attributes:
        name: Their names begin with it.
        tokens: One for each of them.
        rate: How many requests a second they send together.
        seconds: How long.
    """

    name: str
    tokens: list[str]
    rate: float = RATE
    seconds: float = SECONDS

    def few(self, count: int) -> Group:
        """Return a group of the first few of them."""
        return Group(self.name, self.tokens[:count], self.rate, self.seconds)


@contextmanager
def running(
    given: argparse.Namespace, folder: Path
) -> Iterator[tuple[Upstream, Backstage, Service]]:
    """Run the service and what it needs; the original is there, but not asked."""
    sides.check_tools(given.shared)
    small, huge = SMALL, given.huge
    sizes = [
        *("--keys", str(given.keys), "--teams", str(CROWD_TEAMS)),
        *("--size", f"small-={small[0]},{small[1]}", "--size", f"huge-={huge[0]},{huge[1]}"),
    ]
    with ExitStack() as stack:
        upstream = stack.enter_context(sides.upstream(folder, *sizes))
        backstage = stack.enter_context(sides.backstage(given.shared, folder))
        service = stack.enter_context(
            sides.service(given.shared, folder, given.checkout, given.config)
        )
        sides.introduce(backstage, service)
        yield upstream, backstage, service


def timed(service: Service, group: Group, path: str, first: int = 0) -> Json:
    """Ask for a path at a fixed rate, as one user after the other, and LiteLLM for its part."""
    workers = [
        load.Requests(load.Connection(service.url), MOUNT + path, group.tokens)
        for _ in range(CONNECTIONS)
    ]
    ours = load.at_rate(workers, group.rate, first=first, seconds=group.seconds)
    litellm = f"http://127.0.0.1:{sides.PORTS.upstream}"
    asked = f"/user/info?user_id={group.name}0@{sides.USER_ID_DOMAIN}"
    workers = [
        load.Requests(load.Connection(litellm), asked, [MASTER_KEY]) for _ in range(CONNECTIONS)
    ]
    direct = load.at_rate(workers, group.rate, first=0, seconds=group.seconds / 2)
    return {
        "p50": ours.p50,
        "p99": ours.p99,
        "litellm": direct.p50,
        "beyond": max(ours.p99 - direct.p50, 0.0),
        "failed": ours.failed,
    }


def fill(service: Service, crowd: Group) -> int:
    """Let everybody of a group come once; returns how many requests failed."""
    failed = 0
    for path in FILL:
        workers = [
            load.Requests(load.Connection(service.url), MOUNT + path, crowd.tokens)
            for _ in range(CONNECTIONS)
        ]
        failed += load.full_speed(workers, first=0, jobs=len(crowd.tokens)).failed
    return failed


def measure(
    given: argparse.Namespace, upstream: Upstream, backstage: Backstage, service: Service
) -> Json:
    """Measure everything and return it, as ``--json`` writes it."""
    upstream.delay(0)
    command.say("getting tokens ...")

    def group(name: str, count: int, rate: float = RATE, seconds: float = SECONDS) -> Group:
        tokens = backstage.signed(f"{name}{number}" for number in range(count))
        return Group(name, tokens, rate, seconds)

    small, crowd = group("small-", 2000), group("crowd-", given.users)
    # Each request of a cold group is another user's, the unmeasured first ones included.
    huge = group("huge-", CONNECTIONS + int(HUGE_RATE * HUGE_SECONDS), HUGE_RATE, HUGE_SECONDS)
    memory: list[tuple[str, Memory]] = []
    latency: dict[str, dict[str, Json]] = {}

    def weigh(after: str) -> None:
        memory.append((after, sides.memory(service.workers)))

    def time_all(name: str, who: Group) -> None:
        command.say(name)
        latency[name] = {
            path: timed(service, who, path, first=nth * len(who.tokens) // len(PATHS))
            for nth, path in enumerate(PATHS)
        }

    weigh("start")
    time_all("small, cold", small)
    time_all("small, warm", small.few(4))
    weigh("small users")
    failed = 0
    for number in range(1, given.passes + 1):
        command.say(f"{given.users} users, pass {number}")
        failed += fill(service, crowd)
        weigh(f"{given.users} users, pass {number}")
    time_all("crowd, cold", crowd)
    time_all("huge, cold", huge)
    time_all("huge, warm", huge.few(1))
    weigh("huge users")
    return {
        "memory": [{"after": after, **asdict(taken)} for after, taken in memory],
        "latency": latency,
        "failed": failed,
    }


COMPARED = (
    ("small, cold", None),
    ("small, warm", None),
    ("crowd, cold", "small, cold"),
    ("huge, cold", "small, cold"),
    ("huge, warm", "small, warm"),
)


def told(found: Json) -> str:
    """Return what was found as text."""
    memory = [
        [row["after"], *(f"{row[name]:.0f}" for name in ("rss", "pss", "peak"))]
        for row in found["memory"]
    ]
    body = []
    for name, other in COMPARED:
        for path, taken in found["latency"][name].items():
            small = found["latency"][other][path]["beyond"] if other else 0.0
            ratio = times(taken["beyond"], small)
            met = "" if not small else "yes" if taken["beyond"] <= AIM * small else "NO"
            figures = [f"{taken[key]:.1f}" for key in ("p50", "p99", "litellm", "beyond")]
            body.append([f"{path} {name}", *figures, ratio, met, str(taken["failed"])])
    head = ["ms", "p50", "p99", "LiteLLM p50", "p99 beyond it", "to small", f"<= {AIM:g}", "failed"]
    return "\n\n".join(
        [
            table(["memory of the workers, MiB, after", "RSS", "PSS", "peak"], memory),
            table(head, body),
            f"Requests of the crowd that failed: {found['failed']}",
        ]
    )


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--keys", type=int, default=20, help="of each; default %(default)s")
    parser.add_argument(
        "--huge",
        type=_two,
        default=(2000, 200),
        metavar="KEYS,TEAMS",
        help="what very large users have; default 2000,200",
    )
    parser.add_argument("--passes", type=int, default=3, help="of the crowd; default %(default)s")
    command.add_common(parser)
    given = parser.parse_args()
    with command.ready(given) as folder:
        found: Json = {"environment": command.environment(given.checkout)}
        with running(given, folder) as rig:
            found |= measure(given, *rig)
    command.finish(given, found, told(found))


def _two(text: str) -> tuple[int, int]:
    try:
        keys, teams = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: wanted KEYS,TEAMS") from None
    return keys, teams


if __name__ == "__main__":
    main()
