"""``offboard``: blocks the keys of people who have left the catalog, and deletes their accounts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from litellm_plugin.accounts.offboarding import Action, Offboarding, Plan, Step, refusal
from litellm_plugin.cli.job import Job, job, print_table, short_time
from litellm_plugin.cli.terminal import (
    FAILED,
    FAULTY,
    Page,
    config_option,
    json_option,
    print_json,
    settings_of,
)
from litellm_plugin.clock import stamp
from litellm_plugin.config.settings import Settings
from litellm_plugin.config.values import seconds
from litellm_plugin.jobs import NOW, JobRefused
from litellm_plugin.observability import journal
from litellm_plugin.store.leavers import LeaverTable

NAME = "offboard"
OFF = (
    "litellm.offboarding.enabled is false: the service would let leavers unblock their keys. Set it"
    " to true for --apply."
)
REFUSED = 3  # exit status: a limit forbids the run


class _Duration(click.ParamType):  # type: ignore[type-arg]
    """A duration such as ``24h``; 0 is none."""

    name = "DURATION"

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        """Return the duration."""
        if isinstance(value, timedelta):
            return value
        try:
            return timedelta(seconds=0.0 if value == "0" else seconds(value))
        except ValueError:
            self.fail(f"{value!r} is no duration like 24h (s, m, h, d, w)", param, ctx)


@click.command()
@click.option("--apply", is_flag=True, help="Change LiteLLM. Without it, only show what would be.")
@click.option(
    "--grace",
    type=_Duration(),
    help="How long an entity has to be missing, instead of litellm.offboarding.grace.",
)
@click.option(
    "--delete-after",
    type=_Duration(),
    help="Delete accounts that have been blocked for so long; without it none is deleted.",
)
@click.option(
    "--force",
    type=click.IntRange(min=0),
    metavar="N",
    help="Pass the limits where exactly N accounts would be blocked or deleted.",
)
@config_option
@json_option
def offboard(
    *,
    apply: bool,
    grace: timedelta | None,
    delete_after: timedelta | None,
    force: int | None,
    files: Sequence[Path],
    as_json: bool,
) -> None:
    """Block the keys of people who have left the catalog.

    A person has left whose entity two runs with --apply have seen missing, and whose entity has
    been missing for the time of --grace. Only accounts that provisioning made are concerned. The
    keys of people who are back are unblocked, as far as offboarding has blocked them.

    Changes nothing without --apply. Ends with status 1 if something failed, 2 if the configuration
    is faulty or offboarding is off, 3 if a limit forbids the run, 75 if another process runs the
    job.
    """
    if apply and not settings_of(files).offboarding.enabled:
        click.echo(OFF, err=True)
        sys.exit(FAULTY)
    told: dict[str, Any] = {}
    try:
        with job(NAME, files, dry_run=not apply) as under_way:
            work = _offboarding(under_way)
            plan = _planned(under_way, work, told, grace, delete_after, force)
            if told["refused"] is not None:
                raise JobRefused(told["refused"])
            if apply:
                with _audited(under_way.plugin.settings):
                    work.carry_out(plan, under_way.tell)
                told["failures"] = work.failures
                if work.failures:
                    under_way.run.problem = "LiteLLM refused something"
    except JobRefused:
        pass
    finally:
        if told:
            _report(told, as_json=as_json)
    if told["refused"] is not None:
        sys.exit(REFUSED)
    if told["failures"]:
        sys.exit(FAILED)


def _offboarding(under_way: Job) -> Offboarding:
    plugin = under_way.plugin
    return Offboarding(
        plugin.litellm,
        plugin.catalog,
        LeaverTable(under_way.store),
        plugin.settings,
        under_way.pace.wait,
        NOW,
        under_way.run.counts,
    )


def _planned(
    under_way: Job,
    work: Offboarding,
    told: dict[str, Any],
    grace: timedelta | None,
    delete_after: timedelta | None,
    force: int | None,
) -> Plan:
    """Make the plan, and put what ``--json`` prints into ``told``."""
    settings = under_way.plugin.settings.offboarding
    before = work.table.people_of_last_run(NAME)
    plan = work.plan(timedelta(seconds=settings.grace) if grace is None else grace, delete_after)
    # The next run compares its number of people with that of this one.
    under_way.run.counts.update({"people": plan.people, "accounts": plan.accounts})
    told.update(
        dry_run=under_way.run.dry_run,
        enabled=settings.enabled,
        people=plan.people,
        people_before=before,
        accounts=plan.accounts,
        limit=plan.limit(settings.max_share),
        hit=plan.hit,
        refused=refusal(plan, before, settings.max_share, force),
        counts=under_way.run.counts,
        failures={},
        leavers=[_as_json(step) for step in plan.steps],
    )
    return plan


@contextmanager
def _audited(settings: Settings) -> Iterator[None]:
    """Write audit events as this command's, to standard error too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    actor = f"litellm-plugin:{NAME}"
    token = journal.begin(journal.Command(settings.service.plugin_id, actor, settings.audit_levels))
    journal.log.addHandler(handler)
    try:
        yield
    finally:
        journal.log.removeHandler(handler)
        journal.end(token)


def _as_json(step: Step) -> dict[str, Any]:
    row = step.leaver
    return {
        "user_id": row.user_id,
        "entity_ref": row.entity_ref,
        "action": step.action.value,
        "keys": step.keys,
        "missing_since": _text(row.missing_since),
        "runs_missing": row.runs_missing,
        "due": _text(step.due),
        "blocked_at": _text(row.blocked_at),
        "deleted_at": _text(row.deleted_at),
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else stamp(lambda: moment)


def _report(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({**told, "counts": dict(told["counts"])})
        return
    page = Page()
    page.line(
        f"{told['people']} people in the catalog, {told['accounts']} accounts that provisioning"
        f" made for people, {told['hit']} to block or delete (at most {told['limit']})"
    )
    page.line()
    if told["leavers"]:
        head = ("LiteLLM id", "entity", "missing since (UTC)", "keys", "what")
        print_table(page, head, [_cells(each) for each in told["leavers"]])
        page.line()
    for user_id, reason in told["failures"].items():
        page.line(f"{user_id}: LiteLLM refused: {reason}", "bold red")
    if not told["enabled"]:
        page.line(OFF, "yellow")
    if told["refused"] is not None:
        page.line(f"Refused: {told['refused']}", "bold red")
    elif told["dry_run"]:
        todo = "Nothing was changed. Run with --apply to do this."
        page.line(todo if told["leavers"] else "Nothing to do.")
    else:
        done = {name: n for name, n in told["counts"].items() if name not in {"people", "accounts"}}
        page.line(
            ", ".join(f"{name}: {n}" for name, n in done.items()) or "Nothing to do at LiteLLM."
        )


def _cells(leaver: dict[str, Any]) -> tuple[Any, ...]:
    what, due = leaver["action"], leaver["due"]
    if what == Action.WAIT:
        what = f"missing; the first run after {short_time(due)} blocks the keys"
    elif what == Action.BLOCKED and due:
        what = f"blocked; the first run after {short_time(due)} deletes the account"
    elif what == Action.FORGET:
        what = "no leaver any more"
    keys = "?" if leaver["keys"] is None else leaver["keys"]
    since = short_time(leaver["missing_since"])
    return leaver["user_id"], leaver["entity_ref"], since, keys, what
