"""``prune``: deletes expired tool keys, and ends interrupted rotations."""

from __future__ import annotations

from typing import Any

import click

from litellm_plugin.cli.job import job, short_time
from litellm_plugin.cli.terminal import FAULTY, Page, json_option, settings_option, show, stop
from litellm_plugin.config.settings import Settings
from litellm_plugin.jobs import NOW
from litellm_plugin.keys.prune import Pruning, Step

NAME = "prune"


@click.command()
@click.option(
    "--apply", is_flag=True, help="Change LiteLLM. Without --apply, only show the changes."
)
@settings_option
@json_option
def prune(settings: Settings, *, apply: bool, as_json: bool) -> None:
    """Delete expired tool keys, and end interrupted rotations.

    Deletes tool keys (litellm.bridge.keys) that have expired, old keys of rotations after their
    grace, and new keys of rotations whose secret was never sent. Completes rotations whose worker
    was killed after it had sent the new secret. Other keys are never touched.

    Without --apply nothing is changed. Ends with status 1 if something failed, 2 if the
    configuration is faulty or no feature that is on has a store, 75 if another process runs the
    job.
    """
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
        steps = pruning.steps(running.rows_of_all_pages(plugin.litellm.keys, "LiteLLM's keys"))
        running.run.counts["found"] = len(steps)
        if apply:
            for number, step in enumerate(steps, 1):
                running.tell(f"prune ... {number} of {len(steps)}")
                pruning.apply(step)
        if pruning.failures:
            running.run.problem = "LiteLLM refused some changes"
    report = {
        "applied": apply,
        "counts": dict(running.run.counts),
        "failures": pruning.failures,
        "keys": [_as_json(step) for step in steps],
    }
    show(report, _print, as_json=as_json, failed=bool(pruning.failures))


def _as_json(step: Step) -> dict[str, Any]:
    key = step.key
    return {
        "action": step.action.value,
        "token": key["token"],
        "key_alias": key.get("key_alias"),
        "user_id": key.get("user_id"),
        "expires": key.get("expires"),
    }


def _print(page: Page, report: dict[str, Any]) -> None:
    if not report["keys"]:
        page.line("Nothing to do.")
        return
    head = ("LiteLLM id", "key", "expires (UTC)", "action")
    page.table(head, [_cells(each) for each in report["keys"]])
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
