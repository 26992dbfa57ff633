"""``jobs``: lists the last runs of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from litellm_plugin.cli.job import readable_store, short_time
from litellm_plugin.cli.terminal import Page, json_option, settings_option, show
from litellm_plugin.config.settings import Settings
from litellm_plugin.store import runs


@click.command()
@settings_option
@click.option(
    "--job",
    type=click.Choice(["sync", "offboard", "notify", "prune"]),
    help="Only runs of this job.",
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Number of runs."
)
@json_option
def jobs(settings: Settings, job: str | None, limit: int, *, as_json: bool) -> None:
    """List the last runs of sync, offboard, notify and prune, the newest first.

    Only reads. Ends with status 1 if the store can't be read, 2 if no feature that is on has one
    or it is in memory.
    """
    off = "No enabled feature uses the store, so no run is recorded."
    with readable_store(settings, off) as store:
        found = runs.recent(store, job, limit)
    show([_with_seconds(row) for row in found], _print, as_json=as_json)


def _with_seconds(row: Mapping[str, Any]) -> dict[str, Any]:
    seconds = None
    if row["ended_at"] is not None:
        started, ended = map(datetime.fromisoformat, (row["started_at"], row["ended_at"]))
        seconds = round((ended - started).total_seconds(), 3)
    return {**{name: value for name, value in row.items() if name != "id"}, "seconds": seconds}


def _print(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        page.line("No run is recorded.")
        return
    head = ("job", "started (UTC)", "seconds", "status", "dry run", "counts and error")
    page.table(head, [_cells(row) for row in rows])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = row["seconds"]
    counts = [f"{n} {word.replace('_', ' ')}" for word, n in row["counts"].items() if n]
    return (
        row["job"],
        short_time(row["started_at"]),
        "" if seconds is None else f"{seconds:.1f}",
        row["status"],
        "yes" if row["dry_run"] else "",
        "\n".join(filter(None, (", ".join(counts), row["error"]))),
    )
