"""What was measured, as text: tables, ratios, and how they compare with what is aimed at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]
Judged = tuple[str, float, str, bool]  # what, how much it is, what is wanted, whether it is met

# What the service is to reach, and by which figure of a row it is judged.
THROUGHPUT = {"warm": 6.0, "cold": 1.0}  # times the original's
PAGE_THROUGHPUT = {"warm": 8.0, "cold": 3.5}
HEALTH_CPU = 1.3  # times a bare Flask route's
HEAVY = 0.25  # share of the CPU
THROUGHPUT_OF = ("keys", "user-info", "usage", "page")


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return an aligned table; the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

    def line(texts: Sequence[str]) -> str:
        first, *others = texts
        cells = [first.ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, body)])


def compared(found: Row) -> str:
    """Return everything that ``compare.py`` prints."""
    parts = [
        _environment(found["environment"]),
        _full_speed(found["full_speed"]),
        _at_rate(found["at_rate"]),
        _page_calls(found["page_calls"]),
        _answers(found["differences"]),
        _aims(found),
    ]
    return "\n\n".join(part for part in parts if part)


def times(one: float, other: float) -> str:
    """Return ``one`` as a multiple of ``other``."""
    return f"{one / other:.2f}x" if other else "-"


def _environment(facts: Row) -> str:
    commit = facts["commit"] or "unknown"
    if facts["uncommitted"]:
        commit += " with uncommitted changes"
    text = (
        f"{facts['when']}  {facts['cores']} cores  Python {facts['python']}  "
        f"node {facts['node']}  commit {commit}"
    )
    if facts["load_before"] > 0.5:
        text += (
            f"\nThe machine was not idle at the start (load {facts['load_before']:.1f}): "
            "not figures to keep."
        )
    return text


def _name(row: Row) -> str:
    return f"{row['scenario']} {row['users']}"


def _full_speed(rows: Sequence[Row]) -> str:
    head = ["full speed", "delay", "conn", "orig/s", "ours/s", "ratio", "orig ms", "ours ms"]
    head += ["service", "ratio", "orig p50", "ours p50", "orig p99", "ours p99", "calls", "ours"]
    head += ["failed"]
    body = []
    for row in rows:
        original, ours = row["original"], row["ours"]
        body.append(
            [
                _name(row),
                f"{row['delay_ms']}",
                f"{row['connections']}",
                f"{original['rate']:.1f}",
                f"{ours['rate']:.1f}",
                times(ours["rate"], original["rate"]),
                f"{original['cpu']:.2f}",
                f"{ours['cpu']:.2f}",
                f"{ours['cpu_of']['service']:.2f}",
                times(original["cpu"], ours["cpu"]),
                f"{original['p50']:.1f}",
                f"{ours['p50']:.1f}",
                f"{original['p99']:.1f}",
                f"{ours['p99']:.1f}",
                f"{original['calls']:.1f}",
                f"{ours['calls']:.1f}",
                f"{original['failed']}/{ours['failed']}",
            ]
        )
    legend = (
        "/s: jobs a second (a job is a request; of page, a page). ms: CPU for one job, ours with\n"
        "what Backstage does for it; service: without. ratio: how many times better ours is.\n"
        "p50, p99: ms, each side at its own full speed. calls: to LiteLLM for one job."
    )
    return f"{table(head, body)}\n{legend}"


def _at_rate(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    head = ["same load", "delay", "offered/s", "orig p50", "ours p50", "ours/orig"]
    head += ["orig p99", "ours p99", "ours/orig", "LiteLLM p50", "ours/LiteLLM", "failed"]
    body = []
    for row in rows:
        original, ours, direct = row["original"], row["ours"], row.get("direct")
        body.append(
            [
                _name(row),
                f"{row['delay_ms']}",
                f"{row['offered']:.1f}",
                f"{original['p50']:.2f}",
                f"{ours['p50']:.2f}",
                times(ours["p50"], original["p50"]),
                f"{original['p99']:.1f}",
                f"{ours['p99']:.1f}",
                times(ours["p99"], original["p99"]),
                f"{direct['p50']:.2f}" if direct else "",
                times(ours["p50"], direct["p50"]) if direct else "",
                f"{original['failed']}/{ours['failed']}",
            ]
        )
    legend = "Both are offered half of what the original can do; times in ms, lower is better."
    return f"{table(head, body)}\n{legend}"


def _page_calls(counted: dict[str, dict[str, dict[str, int]]]) -> str:
    if not counted:
        return ""
    head = ["calls to LiteLLM per page, five teams", "orig", "ours"]
    body = [
        [who, *(str(sum(calls[side].values())) for side in ("original", "ours"))]
        for who, calls in counted.items()
    ]
    first = counted["plain, first"]["ours"]
    detail = ", ".join(f"{path} {n}" for path, n in sorted(first.items()))
    return f"{table(head, body)}\nplain, first, of ours: {detail}"


def _answers(differences: Sequence[str]) -> str:
    if not differences:
        return "Both sides give the same JSON for every path."
    return "Answers that are not the same JSON: " + "; ".join(differences)


def _aims(found: Row) -> str:
    judged = [
        *_throughput_aims(found["full_speed"]),
        *_health_aims(found["full_speed"]),
        *_latency_aims(found["at_rate"]),
    ]
    body = [
        [what, f"{is_:.2f}", wanted, "yes" if met else "NO"] for what, is_, wanted, met in judged
    ]
    return table(["aim", "is", "wanted", "met"], body) + _held_back(found["full_speed"])


def _throughput_aims(rows: Sequence[Row]) -> Iterator[Judged]:
    for users in ("warm", "cold"):
        for name in THROUGHPUT_OF:
            aim = (PAGE_THROUGHPUT if name == "page" else THROUGHPUT)[users]
            ratios = [
                row["ours"]["rate"] / row["original"]["rate"] for row in _rows(rows, name, users)
            ]
            if ratios:
                what = f"throughput, {name} {users}, worst row"
                yield what, min(ratios), f">= {aim:g}", min(ratios) >= aim


def _health_aims(rows: Sequence[Row]) -> Iterator[Judged]:
    for users in ("warm", "cold"):
        for row in _rows(rows, "health", users):
            ratio = row["ours"]["cpu"] / row["bare"]["cpu"]
            what = f"CPU of /health {users}, {row['connections']} conn, to a bare route's"
            yield what, ratio, f"<= {HEALTH_CPU}", ratio <= HEALTH_CPU


def _latency_aims(rows: Sequence[Row]) -> Iterator[Judged]:
    for which in ("p50", "p99"):
        ratios = [row["ours"][which] / row["original"][which] for row in rows]
        if ratios:
            yield f"{which} at the same load, worst row", max(ratios), "<= 1", max(ratios) <= 1


def _rows(rows: Sequence[Row], scenario: str, users: str) -> list[Row]:
    return [row for row in rows if row["scenario"] == scenario and row["users"] == users]


def _held_back(rows: Sequence[Row]) -> str:
    """Tell of rows where the stand-in and the load had so much CPU that they set the pace."""

    def share(ours: Row) -> float:
        others = ours["cpu_of"]["upstream"] + ours["cpu_of"]["load"]
        return float(others / (others + ours["cpu"]))

    heavy = [
        f"{_name(row)} ({row['delay_ms']} ms, {row['connections']}): {share(row['ours']):.0%}"
        for row in rows
        if share(row["ours"]) > HEAVY
    ]
    if not heavy:
        return ""
    return "\n\nOurs was held back by the stand-in and the load; their share of the CPU:\n" + (
        "; ".join(heavy)
    )
