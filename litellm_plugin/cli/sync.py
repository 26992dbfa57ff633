"""``sync``: compares all accounts with the roles of their owners, and removes the differences."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

from litellm_plugin.accounts.directory import Person
from litellm_plugin.accounts.known_owners import UNCLEAR, Everybody, NoOwnerError, account_owner
from litellm_plugin.accounts.sync import (
    BUSY,
    CHANGED,
    DIFFERS,
    REFUSED,
    Outcome,
    Sync,
    without_owner,
)
from litellm_plugin.accounts.three_way import CHANGE
from litellm_plugin.cli.job import Job, job, print_table
from litellm_plugin.cli.terminal import (
    FAILED,
    FAULTY,
    Page,
    config_option,
    json_option,
    print_json,
    settings_of,
)
from litellm_plugin.clients.litellm import Account

PATIENCE = 10.0  # seconds to wait while the service changes an account
OFF = "litellm.provisioning.sync.enabled is false. Set it to true; mode: report changes nothing."

# How the last line calls the outcomes, in this order.
COUNTED = {
    "checked": "checked",
    "taken_in": "taken in as they are",
    DIFFERS: "would be changed",
    CHANGED: "changed",
    "by_hand": "with values set by hand, which stay",
    REFUSED: "refused by LiteLLM",
    BUSY: "being changed by the service now",
    "missing": "of people whom the catalog does not have, left alone",
    UNCLEAR: "whose owner is not clear, left alone",
    "nobody": "of nobody in the catalog, left alone",
}


@click.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Change nothing at LiteLLM; default in mode report.")
@click.option("--apply", is_flag=True, help="Remove the differences, in mode report too.")
@click.option("--user", "ref", metavar="REF", help="Only this person: user:default/jane, or jane.")
@click.option("--group", metavar="REF", help="Only direct members of this group.")
@json_option
def sync(
    files: Sequence[Path],
    ref: str | None,
    group: str | None,
    *,
    dry_run: bool,
    apply: bool,
    as_json: bool,
) -> None:
    """Compare LiteLLM's accounts with the roles of their owners, and remove the differences.

    What a role grants is given, and what provisioning granted and the role does not grant any
    more is taken back: budget, limits, models, role and teams. What was set by hand at LiteLLM
    stays, and is listed. LiteLLM deletes the keys that a person has in a team with the membership.

    A dry run prints the differences and changes nothing at LiteLLM; for an account without a
    record it records in the store what its role grants now. Ends with status 0, or 1 if LiteLLM
    refused something, 2 if the configuration is faulty, 75 if another process runs sync.
    """
    if dry_run and apply:
        raise click.UsageError("--dry-run and --apply exclude each other.")
    configured = settings_of(files).provisioning.sync
    if not configured.enabled:
        click.echo(OFF, err=True)
        sys.exit(FAULTY)
    applies = apply or (configured.applies and not dry_run)
    with job("sync", files, dry_run=not applies) as under_way:
        outcomes = []
        for outcome in _outcomes(under_way, ref, group, applies=applies):
            outcomes.append(outcome)
            under_way.run.counts.update(_counted(outcome))
            under_way.tell(f"sync ... {len(outcomes)} accounts checked")
        counts = dict(under_way.run.counts)
        if counts.get(REFUSED) or counts.get(BUSY):
            under_way.run.problem = "some accounts were not changed"
    if as_json:
        print_json(
            {
                "applied": applies,
                "counts": {name: counts.get(name, 0) for name in COUNTED},
                "accounts": [asdict(each) for each in outcomes if each.notable],
            }
        )
    else:
        _print(outcomes, counts, applied=applies)
    if under_way.run.problem:
        sys.exit(FAILED)


def _outcomes(
    under_way: Job, ref: str | None, group: str | None, *, applies: bool
) -> Iterator[Outcome]:
    pace = under_way.pace.wait
    found = cast("Sync", under_way.plugin.sync)  # as it is enabled
    if ref is not None:
        ref = _full("user", ref)
        account = found.account_of(ref)
        if account is None:
            raise click.ClickException(f"LiteLLM has no account of {ref}.")
        yield found.check(account, apply=applies, pace=pace, patience=PATIENCE)
        return
    if group is not None:
        group = _full("group", group)
        if under_way.plugin.catalog.entity(group) is None:
            raise click.ClickException(f"The catalog has no {group}.")
    yield from _of_all(under_way, found, group, applies=applies)


def _full(kind: str, name: str) -> str:
    """Return the ref of an entity by its ref, or by its name in the default namespace."""
    return (name if ":" in name else f"{kind}:default/{name}").lower()


def _of_all(under_way: Job, found: Sync, group: str | None, *, applies: bool) -> Iterator[Outcome]:
    """Compare the pages of LiteLLM's user list with the pages of the catalog."""
    plugin, pace = under_way.plugin, under_way.pace.wait
    domain = plugin.settings.user_id_domain
    people = Everybody(plugin.catalog.people(), domain)
    accounts: dict[str, Account] = {}
    page, pages = 1, 1
    while page <= pages:
        pace()
        rows, pages = plugin.litellm.accounts(page)
        # A user who is deleted meanwhile moves others to the page before; the next run has them.
        accounts |= {row.user_id: found.slim(row) for row in rows}
        under_way.tell(f"sync ... page {page} of {pages} of LiteLLM's users")
        page += 1
    emails = Counter(str(each.info.get("user_email")).strip().lower() for each in accounts.values())

    def is_only(person: Person, email: str) -> bool:
        return person.user_id not in accounts and emails[email.strip().lower()] == 1

    grants = found.grants.all()
    for account in accounts.values():
        try:
            person = account_owner(account, people, is_only, plugin.settings)
        except NoOwnerError as exc:
            if group is None:
                yield without_owner(account, exc)
            continue
        if group is None or group in person.groups:
            grant = grants.get(account.user_id)
            yield found.examine(person, account, grant, apply=applies, pace=pace, patience=PATIENCE)


def _counted(outcome: Outcome) -> Iterator[str]:
    yield "checked"
    if outcome.taken_in:
        yield "taken_in"
    if outcome.by_hand:
        yield "by_hand"
    if outcome.status in COUNTED:
        yield outcome.status


def _print(outcomes: Sequence[Outcome], counts: dict[str, int], *, applied: bool) -> None:
    page = Page()
    rows: list[Sequence[Any]] = []
    for outcome in outcomes:
        user = outcome.entity_ref or outcome.user_id
        change = "changed" if applied else "would be changed"
        if outcome.status == REFUSED:
            change = "to be changed, see below"
        rows += [
            (
                user,
                each.field,
                _shown(each.granted),
                _shown(each.now),
                _shown(each.role),
                change if each.action == CHANGE else "set by hand: stays",
            )
            for each in outcome.differences
        ]
        rows += [
            (user, f"key {key.alias or key.key}", "", "", "", key.action) for key in outcome.keys
        ]
    if rows:
        head = ("user", "field", "granted", "now", "role", "what happens")
        print_table(page, head, rows)
        page.line()
    for outcome in outcomes:
        for why in outcome.errors:
            page.line(f"{outcome.user_id}: {outcome.status}: {why}")
    told = [f"{counts[name]} {words}" for name, words in COUNTED.items() if counts.get(name)]
    page.line(f"Accounts: {', '.join(told) or 'none'}.")
    if not applied and counts.get(DIFFERS):
        page.line("Nothing was changed at LiteLLM; --apply changes it.")


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
