"""``jobs``: lists the last runs of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from litellm_plugin.cli.job import print_table, short_time
from litellm_plugin.cli.terminal import (
    FAILED,
    FAULTY,
    Page,
    captured_log,
    config_option,
    json_option,
    print_json,
    settings_of,
    stop,
)
from litellm_plugin.plugin import check_installed
from litellm_plugin.redaction import redact
from litellm_plugin.store import runs
from litellm_plugin.store.database import Store, StoreUnavailable


@click.command()
@config_option
@click.option(
    "--job",
    type=click.Choice(["sync", "offboard", "notify", "prune"]),
    help="Only runs of this job.",
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Number of runs."
)
@json_option
def jobs(files: Sequence[Path], job: str | None, limit: int, *, as_json: bool) -> None:
    """List the last runs of sync, offboard, notify and prune, the newest first.

    Only reads. Ends with status 1 if the store can't be read, 2 if no feature that is on has one.
    """
    settings = settings_of(files)
    if not settings.uses_store:
        stop("No enabled feature uses the store, so no run is recorded.", FAULTY)
    check_installed(settings)
    with captured_log():
        try:
            found = runs.recent(Store(settings.database), job, limit)
        except StoreUnavailable as exc:
            stop(f"The store can't be read: {redact(str(exc))}", FAILED)
    if as_json:
        print_json([_as_json(row) for row in found])
    elif not found:
        click.echo("No run is recorded.")
    else:
        head = ("job", "started (UTC)", "seconds", "status", "dry run", "counts and error")
        print_table(Page(), head, [_cells(row) for row in found])


def _as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if name != "id"}
    return {**shown, "seconds": _seconds(row)}


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = _seconds(row)
    counts = [f"{n} {word.replace('_', ' ')}" for word, n in row["counts"].items() if n]
    return (
        row["job"],
        short_time(row["started_at"]),
        "" if seconds is None else f"{seconds:.1f}",
        row["status"],
        "yes" if row["dry_run"] else "",
        "\n".join(filter(None, (", ".join(counts), row["error"]))),
    )


def _seconds(row: Mapping[str, Any]) -> float | None:
    if row["ended_at"] is None:
        return None
    started, ended = map(datetime.fromisoformat, (row["started_at"], row["ended_at"]))
    return round((ended - started).total_seconds(), 3)
