"""``prune``: deletes expired tool keys, and ends interrupted rotations."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from litellm_plugin.cli.job import Job, audited, job, print_table, short_time
from litellm_plugin.cli.terminal import (
    FAILED,
    FAULTY,
    Page,
    config_option,
    json_option,
    print_json,
    settings_of,
    stop,
)
from litellm_plugin.clients.litellm import rows_of_all_pages
from litellm_plugin.jobs import NOW
from litellm_plugin.keys.prune import Pruning, Step

NAME = "prune"


@click.command()
@click.option(
    "--apply", is_flag=True, help="Change LiteLLM. Without --apply, only show the changes."
)
@config_option
@json_option
def prune(*, apply: bool, files: Sequence[Path], as_json: bool) -> None:
    """Delete expired tool keys, and end interrupted rotations.

    Deletes tool keys (litellm.bridge.keys) that have expired, old keys of rotations after their
    grace, and new keys of rotations whose secret was never sent. Completes rotations whose worker
    was killed after it had sent the new secret. Other keys are never touched.

    Without --apply nothing is changed. Ends with status 1 if something failed, 2 if the
    configuration is faulty or no feature that is on has a store, 75 if another process runs the
    job.
    """
    settings = settings_of(files)
    if apply and not settings.uses_store:
        stop(
            "prune needs the store, and no enabled feature uses it: set litellm.bridge.keys or"
            " litellm.audit.store.",
            FAULTY,
        )
    with job(NAME, settings, dry_run=not apply) as running:
        plugin = running.plugin
        pruning = Pruning(
            plugin.litellm,
            plugin.rotations,
            plugin.settings,
            running.pace.wait,
            NOW,
            running.run.counts,
        )
        steps = _steps(running, pruning)
        if apply:
            with audited(NAME, plugin.settings):
                for number, step in enumerate(steps, 1):
                    running.tell(f"prune: {number} of {len(steps)} ...")
                    pruning.apply(step)
        if pruning.failures:
            running.run.problem = "LiteLLM refused some changes"
    report = {
        "applied": apply,
        "counts": dict(running.run.counts),
        "failures": pruning.failures,
        "keys": [_as_json(step) for step in steps],
    }
    if as_json:
        print_json(report)
    else:
        _print(report)
    if pruning.failures:
        sys.exit(FAILED)


def _steps(running: Job, pruning: Pruning) -> list[Step]:
    def before_page(page: int, pages: int) -> None:
        running.tell(f"prune: reading page {page} of {pages} of the keys ...")
        running.pace.wait()

    steps = pruning.steps(rows_of_all_pages(running.plugin.litellm.keys, before_page))
    running.run.counts["found"] = len(steps)
    return steps


def _as_json(step: Step) -> dict[str, Any]:
    key = step.key
    return {
        "action": step.action.value,
        "token": key["token"],
        "key_alias": key.get("key_alias"),
        "user_id": key.get("user_id"),
        "expires": key.get("expires"),
    }


def _print(report: dict[str, Any]) -> None:
    page = Page()
    if not report["keys"]:
        page.line("Nothing to do.")
        return
    head = ("LiteLLM id", "key", "expires (UTC)", "action")
    print_table(page, head, [_cells(each) for each in report["keys"]])
    page.line()
    for token, reason in report["failures"].items():
        page.line(f"{token[:12]}: LiteLLM refused: {reason}", "bold red")
    done = {name: n for name, n in report["counts"].items() if name != "found"}
    if report["applied"]:
        page.line(
            ", ".join(f"{name}: {n}" for name, n in done.items()) or "Nothing was left to do."
        )
    else:
        page.line("Nothing was changed. Run with --apply to do this.")


def _cells(key: dict[str, Any]) -> tuple[str, ...]:
    expires = short_time(key["expires"]) if key["expires"] else "-"
    return (key["user_id"] or "-", key["key_alias"] or key["token"][:12], expires, key["action"])
