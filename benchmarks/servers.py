"""What gunicorn's settings are worth: the service under each of several, with the same requests.

The ones that ``gunicorn.conf.py`` has come first, and the others are held against them. Every
variant is started anew in each round. LiteLLM is the stand-in of ``upstream.py``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import command
import load
import report
import sides
from sides import MOUNT, Backstage, Service, Upstream

ROUNDS = 3
SECONDS = 4.0
WARM_UP = 1.0
COLD_USERS = 40_000
WARM_USERS = ("bob", "carol", "erin", "noprofile")

# What a variant's settings begin with; it changes what it is about.
OURS = "exec(compile(open({path!r}).read(), {path!r}, 'exec'))"
WITHOUT_GEVENT = "import sys; sys.modules['gevent'] = None"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """Settings that are tried.

    Attributes:
        name: As the table has it.
        after: Lines of Python behind the repository's settings.
        before: Lines in front of them.
    """

    name: str
    after: str = ""
    before: str = ""

    def write(self, file: Path, settings: Path) -> Path:
        """Write them as a file for gunicorn, and return it."""
        file.write_text("\n".join((self.before, OURS.format(path=str(settings)), self.after)))
        return file


VARIANTS = (
    Variant("as they are: gevent, 2 workers"),
    Variant("1 worker", "workers = 1"),
    Variant("4 workers", "workers = 4"),
    Variant("gunicorn's own gevent worker", "worker_class = 'gevent'"),
    Variant("garbage collector as it is", "del post_fork"),
    Variant("no preload_app", "preload_app = False"),
    Variant("2 workers, 4 threads", "threads = 4", WITHOUT_GEVENT),
    Variant("2 workers, 16 threads", before=WITHOUT_GEVENT),
    Variant("2 workers, 64 threads", "threads = 64", WITHOUT_GEVENT),
    Variant("8 workers, sync", "worker_class = 'sync'; workers = 8", WITHOUT_GEVENT),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to ask for ``/keys``."""

    users: str
    delay: int
    connections: int

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{self.users} {self.delay} ms {self.connections} conn"


CELLS = (Cell("warm", 0, 32), Cell("cold", 0, 32), Cell("cold", 20, 32), Cell("cold", 20, 256))


@contextmanager
def rig(given: argparse.Namespace, folder: Path) -> Iterator[tuple[Upstream, Backstage]]:
    """Run what the service needs; the original in Backstage has nothing to do."""
    sides.check_tools(given.shared)
    with sides.upstream(folder) as upstream, sides.backstage(given.shared, folder) as backstage:
        yield upstream, backstage


def invite(backstage: Backstage, folder: Path) -> dict[str, Path]:
    """Get tokens for everybody who will ask, as files."""
    people = {
        "warm": backstage.sign_all_in(WARM_USERS),
        "cold": backstage.signed(f"load-{number:06d}" for number in range(COLD_USERS)),
    }
    files = {users: folder / f"{users}.tokens" for users in people}
    for users, tokens in people.items():
        files[users].write_text("".join(f"{token}\n" for token in tokens))
    return files


def measured(
    service: Service, upstream: Upstream, tokens: dict[str, Path], cell: Cell, first: int
) -> tuple[Json, int]:
    """Ask, and return what came of it and how many users have asked."""
    upstream.delay(cell.delay)
    asked = 0

    def ask(seconds: float) -> load.Load:
        nonlocal asked
        taken = load.wrk(
            service.url,
            f"{MOUNT}/keys",
            tokens[cell.users],
            first=(first + asked) % COLD_USERS,
            connections=cell.connections,
            seconds=seconds,
        )
        asked += taken.done + taken.unseen
        return taken

    ask(WARM_UP)
    before = sides.cpu_seconds(service.workers)
    taken = ask(SECONDS)
    spent = sides.cpu_seconds(service.workers) - before
    facts = {
        "rate": taken.rate,
        "p50": taken.p50,
        "p99": taken.p99,
        "cpu": 1000 * spent / (taken.done + taken.unseen),
        "failed": taken.failed,
    }
    return facts, asked


def one_round(
    given: argparse.Namespace,
    folder: Path,
    upstream: Upstream,
    backstage: Backstage,
    tokens: dict[str, Path],
) -> dict[str, dict[str, Json]]:
    """Start every variant once and ask it for everything."""
    found: dict[str, dict[str, Json]] = {}
    first = 0
    for variant in VARIANTS:
        command.say(variant.name)
        settings = variant.write(folder / "gunicorn.conf.py", given.checkout / "gunicorn.conf.py")
        arguments = ("-c", str(settings))
        with sides.service(
            given.shared, folder, given.checkout, given.config, arguments=arguments
        ) as service:
            sides.introduce(backstage, service)
            rows = found.setdefault(variant.name, {})
            rows["memory"] = {"pss": sides.memory(service.workers).pss}
            for cell in CELLS:
                rows[cell.name], asked = measured(service, upstream, tokens, cell, first)
                first += asked if cell.users == "cold" else 0
            rows["memory"]["pss_after"] = sides.memory(service.workers).pss
    return found


def medians(rounds: Sequence[dict[str, dict[str, Json]]]) -> dict[str, dict[str, Json]]:
    """Return the median of each figure over the rounds."""
    return {
        variant: {
            cell: {
                name: statistics.median(one[variant][cell][name] for one in rounds)
                for name in figures
            }
            for cell, figures in cells.items()
        }
        for variant, cells in rounds[0].items()
    }


def as_text(found: dict[str, dict[str, Json]]) -> str:
    """Return the tables that are printed."""
    first = found[VARIANTS[0].name]
    tables = []
    for cell in CELLS:
        head = [f"/keys {cell.name}", "/s", "to ours", "CPU ms", "p50", "p99", "failed"]
        body = []
        for variant, cells in found.items():
            row = cells[cell.name]
            figures = [
                f"{row['rate']:.0f}",
                report.times(row["rate"], first[cell.name]["rate"]),
                f"{row['cpu']:.2f}",
                f"{row['p50']:.1f}",
                f"{row['p99']:.1f}",
                f"{row['failed']:.0f}",
            ]
            body.append([variant, *figures])
        tables.append(report.table(head, body))
    head = ["memory of all workers, MiB (PSS)", "at first", "afterwards"]
    memory = [
        [variant, f"{cells['memory']['pss']:.0f}", f"{cells['memory']['pss_after']:.0f}"]
        for variant, cells in found.items()
    ]
    return "\n\n".join([*tables, report.table(head, memory)])


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default %(default)s")
    command.add_common(parser)
    given = parser.parse_args()
    begun = datetime.now(UTC)
    with command.ready(given) as folder, rig(given, folder) as (upstream, backstage):
        tokens = invite(backstage, folder)
        rounds = [
            one_round(given, folder, upstream, backstage, tokens) for _ in range(given.rounds)
        ]
    found = medians(rounds)
    facts = {"environment": command.environment(given.checkout), "rounds": rounds}
    took = (datetime.now(UTC) - begun).total_seconds()
    command.finish(given, facts, f"{as_text(found)}\n\n{given.rounds} rounds, {took:.0f} s")


if __name__ == "__main__":
    main()
