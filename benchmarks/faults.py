"""Runs the fault suite's scenarios and prints what was measured, as a table for docs/faults.md.

A deployment with one worker, proxies to its upstreams, and one fault after the other; it takes two
minutes. What each fault is, and what must be answered, is in tests/faults.

    python benchmarks/faults.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import command

sys.path.insert(0, str(Path(__file__).parent.parent))  # the scenarios are among the tests

from tests.faults import scenarios
from tests.faults.rig import TOTAL, Counted, running
from tests.faults.scenarios import BACKSTAGE, LITELLM, Row

HEAD = [
    "fault",
    "answers",
    "at first: p50, max",
    "then: p50, max",
    "well again after",
    "threads",
    "sockets",
]


def rows(folder: Path) -> Iterator[Row]:
    """Run everything."""
    with running(folder / "one") as rig:
        for fault in LITELLM:
            yield scenarios.under_litellm_fault(rig, fault)
        for other in BACKSTAGE:
            yield scenarios.under_backstage_fault(rig, other)
        yield scenarios.rotated(rig)
        yield scenarios.rotated_then_down(rig)
        yield scenarios.clocks(rig)
    yield scenarios.backstage_down_at_start(folder / "two")
    (folder / "three").mkdir()
    yield from scenarios.redis_gone(folder / "three")


def cells(row: Row) -> list[str]:
    """Return the figures of one fault, as the table has them."""
    (first, first_most), (then, then_most) = row.seconds(row.first), row.seconds(row.then)
    before, after = row.before or Counted(0, 0, 0), row.after or Counted(0, 0, 0)
    return [
        row.fault,
        row.statuses,
        f"{first:.2f}, {first_most:.2f} s",
        f"{then:.2f}, {then_most:.2f} s",
        f"{row.recovery:.2f} s",
        f"{before.threads} → {after.threads}",
        f"{before.sockets} → {after.sockets}",
    ]


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    rule = ["---", "---", *["--:"] * (len(head) - 2)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def main() -> None:
    """Run, print, and fail where something was not as it must be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        for row in rows(Path(folder)):
            command.say(row.fault)
            found.append(row)
    print(markdown(HEAD, [cells(row) for row in found]))
    print(f"\nThe deadline is {TOTAL} s.")
    problems = [f"{row.fault}: {problem}" for row in found for problem in row.problems]
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
