"""``sync``: compares accounts with the roles of their owners, and removes the differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, cast

import click

from litellm_plugin.accounts.directory import Person
from litellm_plugin.accounts.known_owners import UNCLEAR, NoOwnerError, account_owner
from litellm_plugin.accounts.ownership import slim
from litellm_plugin.accounts.sync import (
    BUSY,
    CHANGED,
    DIFFERS,
    REFUSED,
    Outcome,
    Sync,
    without_owner,
)
from litellm_plugin.accounts.three_way import CHANGE, SCALARS
from litellm_plugin.cli.job import Job, job
from litellm_plugin.cli.terminal import (
    FAULTY,
    Page,
    full_ref,
    json_option,
    settings_option,
    show,
    stop,
)
from litellm_plugin.clients.litellm import Account
from litellm_plugin.config.settings import Settings
from litellm_plugin.store.grants import Grant

PATIENCE = 10.0  # seconds to wait while the service changes an account
OFF = "litellm.provisioning.sync.enabled is false. Set it to true; mode: report changes nothing."

# Counts of the last line and of --json, with their texts.
COUNTED = {
    "checked": "checked",
    "taken_in": "recorded as they are, for the first time",
    DIFFERS: "would be changed",
    CHANGED: "changed",
    "by_hand": "with values set by hand, which stay",
    REFUSED: "refused by LiteLLM",
    BUSY: "locked by another process",
    "missing": "not changed: the catalog does not have the person",
    UNCLEAR: "not changed: the owner is not certain",
    "nobody": "not changed: no person of the catalog is the owner",
}


@click.command()
@settings_option
@click.option("--dry-run", is_flag=True, help="Change nothing at LiteLLM; default in mode report.")
@click.option("--apply", is_flag=True, help="Remove the differences, in mode report too.")
@click.option("--user", "ref", metavar="REF", help="Only this person: user:default/jane, or jane.")
@click.option("--group", metavar="REF", help="Only direct members of this group.")
@json_option
def sync(
    settings: Settings,
    ref: str | None,
    group: str | None,
    *,
    dry_run: bool,
    apply: bool,
    as_json: bool,
) -> None:
    """Compare LiteLLM's accounts with the roles of their owners, and remove the differences.

    Writes budget, limits, models, user role and teams as the person's role grants them, and takes
    back what provisioning granted and the role does not grant any more. Values that were set by
    hand at LiteLLM stay, and are listed. When a person leaves a team, LiteLLM deletes the person's
    keys in that team.

    A dry run prints the differences and changes nothing at LiteLLM. It writes to the store: for an
    account without a record, the values that the role grants now. Ends with status 1 if something
    failed, 2 if the configuration is faulty, 75 if another process runs sync.
    """
    if dry_run and apply:
        raise click.UsageError("--dry-run and --apply exclude each other.")
    configured = settings.provisioning.sync
    if not configured.enabled:
        stop(OFF, FAULTY)
    applies = apply or (configured.applies and not dry_run)
    with job("sync", settings, dry_run=not applies) as running:
        outcomes = []
        running.run.partial = bool(ref or group)
        for outcome in _outcomes(running, ref, group, applies=applies):
            outcomes.append(outcome)
            running.run.counts.update(_counted(outcome))
            running.tell(f"sync ... {len(outcomes)} accounts checked")
        counts = dict(running.run.counts)
        if counts.get(REFUSED) or counts.get(BUSY):
            running.run.problem = "some accounts were not changed"
    found = {
        "applied": applies,
        "counts": {name: counts.get(name, 0) for name in COUNTED},
        "accounts": [asdict(each) for each in outcomes if each.notable],
    }
    show(found, _print, as_json=as_json, failed=running.run.problem is not None)


def _outcomes(
    running: Job, ref: str | None, group: str | None, *, applies: bool
) -> Iterator[Outcome]:
    sync = cast("Sync", running.plugin.sync)  # not None, as it is enabled
    sync.pace, sync.patience = running.pace.wait, PATIENCE
    owner: Callable[[Account], Person] = sync.owner
    ref = full_ref("user", ref).lower() if ref else None
    group = full_ref("group", group).lower() if group else None
    if group is not None and running.plugin.catalog.entity(group) is None:
        raise click.ClickException(f"The catalog has no {group}.")
    grants: dict[str, Grant] = {}
    if ref is None:
        # If a user is deleted meanwhile, a page may lack another one; the next run has that user.
        rows = running.rows_of_all_pages(running.plugin.litellm.accounts, "LiteLLM's users")
        accounts = {row.user_id: slim(row, (*SCALARS, "user_email")) for row in rows}
        owner, grants = _owners(running, accounts), sync.grants.all()
    elif account := sync.account_of(ref):
        accounts = {account.user_id: account}
    else:
        raise click.ClickException(f"LiteLLM has no account of {ref}.")
    for account in accounts.values():
        try:
            person = owner(account)
        except NoOwnerError as exc:
            if group is None:
                yield without_owner(account, exc)
            continue
        if ref is not None and person.ref != ref:
            text = f"{account.user_id} is the account of {person.ref}, not of {ref}."
            raise click.ClickException(text)
        if group is None or group in person.groups:
            known = grants.get(account.user_id)
            yield sync.compare(person, account, apply=applies, known=known)


def _owners(running: Job, accounts: Mapping[str, Account]) -> Callable[[Account], Person]:
    """Return a replacement of ``Sync.owner`` that uses ``accounts`` and one read of the catalog."""
    settings = running.plugin.settings
    people = running.plugin.directory.everyone()
    emails = Counter(str(each.info.get("user_email")).strip().lower() for each in accounts.values())

    def is_only(person: Person, email: str) -> bool:
        return person.user_id not in accounts and emails[email.strip().lower()] == 1

    return lambda account: account_owner(account, people, is_only, settings)


def _counted(outcome: Outcome) -> Iterator[str]:
    yield "checked"
    if outcome.taken_in:
        yield "taken_in"
    if outcome.by_hand:
        yield "by_hand"
    if outcome.status in COUNTED:
        yield outcome.status


def _print(page: Page, found: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = []
    for account in found["accounts"]:
        user = account["entity_ref"] or account["user_id"]
        change = "changed" if found["applied"] else "would be changed"
        if account["status"] == REFUSED:
            change = "changed or refused, see below"
        for each in account["differences"]:
            values = [_shown(each[name]) for name in ("granted", "now", "role")]
            action = change if each["action"] == CHANGE else "set by hand, stays"
            rows.append((user, each["field"], *values, action))
        rows += [
            (user, f"key {key['alias'] or key['key']}", "", "", "", key["action"])
            for key in account["keys"]
        ]
    if rows:
        page.table(("user", "field", "granted", "now", "role", "what happens"), rows)
        page.line()
    for account in found["accounts"]:
        for why in account["errors"]:
            page.line(f"{account['user_id']}: {account['status']}: {why}")
    counts = found["counts"]
    parts = [f"{counts[name]} {text}" for name, text in COUNTED.items() if counts[name]]
    page.line(f"Accounts: {', '.join(parts) or 'none'}.")
    if not found["applied"] and counts[DIFFERS]:
        page.line("Nothing was changed at LiteLLM. Run with --apply to do this.")


def _shown(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "member" if value else "no member"
        case []:
            return "all"
        case list():
            return ", ".join(map(str, value))
        case float():
            return f"{value:.15g}"
        case _:
            return str(value)
