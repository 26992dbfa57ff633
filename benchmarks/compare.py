"""Compares the service with the original, side by side: ratios of one run, not figures of two.

Starts the stand-in for LiteLLM, a real Backstage with the npm plugin, our service beside it and a
bare Flask route, asks them in turns (A B A B …), and prints medians. README.md says how to read it.

    python benchmarks/compare.py --quick
    python benchmarks/compare.py --only keys --json after.json
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import command
import report
import sides
from bench import COLD, ORIGINAL, WARM, Bench, Cell, Plan, Scenario, summary

RATE_SHARE = 0.5  # of what the original can do: the load that both are offered
RATE_CONNECTIONS = 32
DELAYED = ("keys", "user-info", "usage", "page")
QUICK_DELAYED = ("keys",)
QUICK_RATED = ("keys", "page")

FULL = Plan(
    rounds=3,
    seconds=3,
    delays=(0, 20),
    connections=(32, 256),
    rate_rounds=2,
    rate_seconds=2.0,
    cold_users=30_000,
    page_users=1_500,
    thorough=True,
)
QUICK = replace(
    FULL,
    seconds=1,
    connections=(32,),
    rate_rounds=1,
    rate_seconds=1.5,
    cold_users=20_000,
    page_users=1_000,
    thorough=False,
)


SCENARIOS = (
    Scenario("keys", "/keys"),
    Scenario("user-info", "/user/info"),
    Scenario("usage", "/usage"),
    Scenario("models", "/models"),
    Scenario("health", "/health"),
    Scenario("page", ""),
)


def cells(plan: Plan, only: Sequence[str]) -> Iterator[Cell]:
    """Yield the rows of the table.

    Args:
        plan: How much is measured.
        only: Names of scenarios; empty for all.
    """
    for scenario in SCENARIOS:
        if only and scenario.name not in only:
            continue
        for delay in plan.delays:
            if delay and scenario.name not in (DELAYED if plan.thorough else QUICK_DELAYED):
                continue
            for users in (WARM, COLD):
                for connections in plan.connections:
                    yield Cell(scenario, users, delay, connections)


def measure(bench: Bench, only: Sequence[str]) -> dict[str, Any]:
    """Measure everything and return it, as ``--json`` writes it."""
    bench.say("getting tokens ...")
    bench.invite()
    full_speed, at_rate = [], []
    for cell in cells(bench.plan, only):
        facts = cell.facts()
        bench.say(" ".join(f"{name}={value}" for name, value in facts.items()))
        taken = bench.full_speed(cell)
        full_speed.append({**facts, **{name: summary(runs) for name, runs in taken.items()}})
        rated = bench.plan.thorough or cell.scenario.name in QUICK_RATED
        if rated and cell.connections == RATE_CONNECTIONS:
            rate = RATE_SHARE * statistics.median(run.rate for run in taken[ORIGINAL])
            timed = bench.at_rate(cell, rate)
            runs_of = {name: summary(runs) for name, runs in timed.items()}
            at_rate.append({**facts, "offered": rate, **runs_of})
    return {
        "differences": bench.differences(),
        "page_calls": bench.page_calls() if not only or "page" in only else {},
        "full_speed": full_speed,
        "at_rate": at_rate,
    }


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="4 minutes instead of 25")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[scenario.name for scenario in SCENARIOS],
        help="measure that scenario; may be given several times",
    )
    command.add_common(parser)
    given = parser.parse_args()
    plan = QUICK if given.quick else FULL
    with command.ready(given) as folder:
        found = {"environment": command.environment(given.checkout), "plan": asdict(plan)}
        with sides.everything(given.shared, folder, given.checkout, given.config) as rig:
            found |= measure(Bench(rig, plan, folder, command.say), given.only)
    command.finish(given, found, report.compared(found))


if __name__ == "__main__":
    main()
