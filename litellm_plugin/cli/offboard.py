"""``offboard``: blocks the keys of people who have left the catalog, and deletes accounts."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import click

from litellm_plugin.accounts.offboarding import Action, Offboarding, Plan, Step, refusal
from litellm_plugin.cli.job import Job, job, short_time
from litellm_plugin.cli.terminal import (
    FAILED,
    FAULTY,
    Page,
    json_option,
    settings_option,
    show,
    stop,
)
from litellm_plugin.config.settings import Settings
from litellm_plugin.config.values import seconds
from litellm_plugin.jobs import NOW
from litellm_plugin.store import runs
from litellm_plugin.store.leavers import LeaverTable, timestamp

NAME = "offboard"
OFF = (
    "litellm.offboarding.enabled is false: the service would let leavers unblock their keys. Set it"
    " to true for --apply."
)
REFUSED = 3  # exit status: a limit forbids the run


def _duration(_context: Any, _option: Any, value: str | None) -> timedelta | None:
    """Read a duration such as ``24h``, or ``0``."""
    if value is None:
        return None
    try:
        return timedelta(seconds=0.0 if value == "0" else seconds(value))
    except ValueError:
        text = f"{value!r} is no duration such as 24h (units: s, m, h, d, w)"
        raise click.BadParameter(text) from None


@click.command()
@click.option(
    "--apply", is_flag=True, help="Change LiteLLM. Without --apply, only show the changes."
)
@click.option(
    "--grace",
    callback=_duration,
    metavar="DURATION",
    help="How long an entity has to be missing. Default: litellm.offboarding.grace.",
)
@click.option(
    "--delete-after",
    callback=_duration,
    metavar="DURATION",
    help="Delete accounts that have been blocked for this long. Default: delete none.",
)
@click.option(
    "--force",
    type=click.IntRange(min=0),
    metavar="N",
    help="Run in spite of the limits, if exactly N accounts would be blocked or deleted.",
)
@settings_option
@json_option
def offboard(
    settings: Settings,
    *,
    apply: bool,
    grace: timedelta | None,
    delete_after: timedelta | None,
    force: int | None,
    as_json: bool,
) -> None:
    """Block the keys of people who have left the catalog.

    A person has left when two runs with --apply have seen the entity missing, at least --grace
    apart. Only accounts that provisioning made are blocked. When a person comes back, the keys
    that offboard blocked are unblocked.

    Without --apply nothing is changed. Ends with status 1 if something failed, 2 if the
    configuration is faulty or offboarding is off, 3 if a limit forbids the run, 75 if another
    process runs the job.
    """
    if apply and not settings.offboarding.enabled:
        stop(OFF, FAULTY)
    report: dict[str, Any] = {}
    try:
        with job(NAME, settings, dry_run=not apply) as running:
            plugin = running.plugin
            offboarding = Offboarding(
                plugin.litellm,
                plugin.directory,
                LeaverTable(running.store),
                settings,
                running.pace.wait,
                NOW,
                running.run.counts,
            )
            default = timedelta(seconds=settings.offboarding.grace)
            plan = offboarding.plan(default if grace is None else grace, delete_after)
            report = _report(running, offboarding, plan, force)
            running.run.problem = report["refused"]
            if apply and report["refused"] is None:
                offboarding.apply(plan, running.tell)
                if offboarding.failures:
                    running.run.problem = "LiteLLM refused some changes"
    finally:
        if report:
            show(report, _print, as_json=as_json)
    if report["refused"] is not None:
        sys.exit(REFUSED)
    if report["failures"]:
        sys.exit(FAILED)


def _report(
    running: Job, offboarding: Offboarding, plan: Plan, force: int | None
) -> dict[str, Any]:
    """Return what ``--json`` prints; ``counts`` and ``failures`` are filled by the run."""
    settings, run = running.plugin.settings.offboarding, running.run
    before = runs.last_counts(running.store, NAME).get("people")
    # The next run compares its number of people with this one.
    run.counts.update({"people": plan.people, "accounts": plan.accounts})
    return {
        "dry_run": run.dry_run,
        "enabled": settings.enabled,
        "people": plan.people,
        "people_before": before,
        "accounts": plan.accounts,
        "limit": plan.limit(settings.max_share),
        "hit": plan.hit,
        "refused": refusal(plan, before, settings.max_share, force),
        "counts": run.counts,
        "failures": offboarding.failures,
        "leavers": [_as_json(step) for step in plan.steps],
    }


def _as_json(step: Step) -> dict[str, Any]:
    row = step.leaver
    return {
        "user_id": row.user_id,
        "entity_ref": row.entity_ref,
        "action": step.action.value,
        "keys": step.keys,
        "missing_since": timestamp(row.missing_since),
        "runs_missing": row.runs_missing,
        "due": timestamp(step.due),
        "blocked_at": timestamp(row.blocked_at),
        "deleted_at": timestamp(row.deleted_at),
    }


def _print(page: Page, report: dict[str, Any]) -> None:
    page.line(
        f"{report['people']} people in the catalog, {report['accounts']} accounts that provisioning"
        f" made for people, {report['hit']} to block or delete (at most {report['limit']})"
    )
    page.line()
    if report["leavers"]:
        head = ("LiteLLM id", "entity", "missing since (UTC)", "keys", "action")
        page.table(head, [_cells(each) for each in report["leavers"]])
        page.line()
    for user_id, reason in report["failures"].items():
        page.line(f"{user_id}: LiteLLM refused: {reason}", "bold red")
    if not report["enabled"]:
        page.line(OFF, "yellow")
    if report["refused"] is not None:
        page.line(f"Refused: {report['refused']}", "bold red")
    elif report["dry_run"]:
        todo = "Nothing was changed. Run with --apply to do this."
        page.line(todo if report["leavers"] else "Nothing to do.")
    else:
        counts = report["counts"].items()
        done = [f"{name}: {n}" for name, n in counts if name not in {"people", "accounts"}]
        page.line(", ".join(done) or "Nothing to do at LiteLLM.")


def _cells(leaver: dict[str, Any]) -> tuple[Any, ...]:
    action, due = leaver["action"], leaver["due"]
    if action == Action.WAIT:
        action = f"missing; the first run after {short_time(due)} blocks the keys"
    elif action == Action.BLOCKED and due:
        action = f"blocked; the first run after {short_time(due)} deletes the account"
    elif action == Action.FORGET:
        action = "no leaver any more"
    keys = "?" if leaver["keys"] is None else leaver["keys"]
    return (
        leaver["user_id"],
        leaver["entity_ref"],
        short_time(leaver["missing_since"]),
        keys,
        action,
    )
