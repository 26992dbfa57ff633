"""``audit``: verifies and exports the audit events of the store. It changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from litellm_plugin import fields
from litellm_plugin.cli.job import readable_store
from litellm_plugin.cli.terminal import (
    Page,
    csv_text,
    json_option,
    print_csv,
    settings_option,
    show,
    visible,
)
from litellm_plugin.clock import iso
from litellm_plugin.config.settings import Settings
from litellm_plugin.store.audit import GENESIS, AuditEvents, Filter, digest

COLUMNS = (
    *("id", "updated_at", "changed_by", "action", "table_name", "object_id"),
    *("before_value", "updated_values", "chain", "sequence", "hash"),
)
OFF = "litellm.audit.store is false, and no other feature has a store."
LONGEST = 1e10  # seconds, 317 years; datetime has no time a longer retention ago


@click.group()
def audit() -> None:
    """Verify or export the audit events of litellm.audit.store."""


@dataclass
class _Verdict:
    """What ``verify`` found."""

    events: int = 0
    chains: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)  # by chain


@audit.command()
@click.option(
    "--save-heads",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the last hash of each chain to FILE. Keep it outside of the database.",
)
@click.option(
    "--heads",
    "kept",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Compare with the hashes that --save-heads wrote before.",
)
@settings_option
@json_option
def verify(
    settings: Settings, save_heads: Path | None, kept: Path | None, *, as_json: bool
) -> None:
    """Find events that are missing, changed, inserted or reordered.

    Each process of the service writes a chain of events, each with the hash of the one before. An
    administrator of the database can calculate a whole chain anew; --heads finds that for events
    that are older than the file of --save-heads.

    Ends with status 1 if a fault is found.
    """
    with readable_store(settings, OFF) as store:
        events = AuditEvents(store)
        verdict = _verified(events)
        if kept is not None:
            retention = min(settings.audit.retention, LONGEST)
            oldest = (datetime.now(UTC) - timedelta(seconds=retention)).isoformat()
            _compare(verdict, events, _read_heads(kept), oldest)
    if save_heads is not None:
        _write_heads(save_heads, verdict.heads)
    found = asdict(verdict)
    del found["heads"]
    show(found, _print, as_json=as_json, failed=bool(verdict.faults))


def _print(_page: Page, found: dict[str, Any]) -> None:
    for text in (*found["notes"], *found["faults"]):
        click.echo(visible(text))  # the names of hosts are texts of the database
    faults = len(found["faults"]) or "none"
    click.echo(f"{found['events']} events of {found['chains']} chains; faults: {faults}")


@audit.command()
@click.option("--since", required=True, metavar="7d|DATE", help="The oldest event.")
@click.option("--until", metavar="7d|DATE", help="The newest event; default: now.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="jsonl also has the event as it is in the log.",
)
@click.option("--include", type=click.Choice(["denied"]), help="Add denied requests.")
@settings_option
def export(
    settings: Settings, since: str, until: str | None, form: str, include: str | None
) -> None:
    """Print audit events, oldest first.

    In CSV, a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    wanted = Filter(
        start=_moment("--since", since),
        end=None if until is None else _moment("--until", until),
        denied=include is not None,
    )
    write = _csv if form == "csv" else _jsonl
    with readable_store(settings, OFF) as store:
        write(_exported(row) for row in AuditEvents(store).all(wanted))


# -- verify --------------------------------------------------------------------


def _verified(events: AuditEvents) -> _Verdict:
    verdict = _Verdict()
    # Chains are read before events: a running process may append events meanwhile.
    for head in events.heads():
        verdict.chains += 1
        verdict.heads[head.chain] = {"sequence": head.last_sequence, "hash": head.last_hash}
        _verify_chain(verdict, head, events)
    for chain in events.chains_without_row():
        verdict.faults.append(f"chain {chain}: inserted: it has events, and no row in audit_chains")
    return verdict


def _verify_chain(verdict: _Verdict, head: Any, events: AuditEvents) -> None:
    name = f"chain {head.chain} of {head.host}"
    sequence, previous = head.first_sequence - 1, head.first_previous
    if head.first_sequence == 1 and previous != GENESIS:
        verdict.faults.append(f"{name}: its beginning was changed")
    for row in events.of_chain(head.chain):
        verdict.events += 1
        fault = _fault(row, sequence, previous)
        if row.sequence == head.last_sequence and row.hash != head.last_hash:
            fault = "its hash is not that of the chain's row"
        if fault is not None:
            verdict.faults.append(f"{name}, event {row.sequence}: {fault}")
        sequence, previous = row.sequence, row.hash
        verdict.heads[head.chain]["at"] = row.at
    if sequence < head.last_sequence:
        missing = _missing(sequence + 1, head.last_sequence)
        verdict.faults.append(f"{name}: {missing} at the end")
    elif sequence > events.last_sequence(head.chain):
        verdict.faults.append(f"{name}: events were inserted at the end")
    if head.ended_at is None:
        verdict.notes.append(
            f"{name}: not closed: its process runs or was killed. If it was killed, events after"
            f" {sequence} may be in the log only."
        )
    if head.lost:
        verdict.notes.append(
            f"{name}: {head.lost} events are in the log only: the store was unavailable"
        )


def _fault(row: Any, sequence: int, previous: str) -> str | None:
    """Return what is wrong with an event that comes after ``sequence``."""
    if row.hash != digest(row._mapping):  # noqa: SLF001 - SQLAlchemy's way to all columns
        return "changed"
    if row.sequence <= sequence:
        return "inserted"
    if row.sequence != sequence + 1:
        return f"{_missing(sequence + 1, row.sequence - 1)} before it"
    return None if row.previous == previous else "does not follow the one before"


def _missing(first: int, last: int) -> str:
    return f"event {first} is missing" if first == last else f"events {first} to {last} are missing"


def _compare(verdict: _Verdict, events: AuditEvents, kept: dict[str, Any], oldest: str) -> None:
    """Compare chains with the last hashes that --save-heads wrote.

    ``oldest`` is the time before which retention deletes events.
    """
    rows = {head.chain: head for head in events.heads()}
    for chain, was in kept.items():
        head, sequence = rows.get(chain), was["sequence"]
        if head is not None and sequence >= head.first_sequence:
            found = events.event(chain, sequence)
            if found is None or found.hash != was["hash"]:
                verdict.faults.append(f"chain {chain}, event {sequence}: differs from --heads")
        elif was["at"] >= oldest:
            verdict.faults.append(
                f"chain {chain}, event {sequence}: was deleted, and is not older than"
                " litellm.audit.retention"
            )
        elif head is None:
            verdict.notes.append(
                f"chain {chain}: missing. That is right if all its events are older than"
                " litellm.audit.retention."
            )


def _write_heads(file: Path, heads: dict[str, Any]) -> None:
    try:
        file.write_text(json.dumps(heads, indent=1) + "\n")
    except OSError as exc:
        raise click.BadParameter(
            f"{file} can't be written: {exc.strerror}", param_hint="--save-heads"
        ) from None


def _read_heads(file: Path) -> dict[str, Any]:
    try:
        kept = json.loads(file.read_text())
        return {
            # A head without a time is of a chain that had no event left.
            chain: {"sequence": int(was["sequence"]), "hash": was["hash"], "at": was.get("at", "")}
            for chain, was in kept.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise click.BadParameter(
            f"{file} is no file that --save-heads wrote", param_hint="--heads"
        ) from None


# -- export --------------------------------------------------------------------


def _moment(option: str, text: str) -> str:
    """Return the stored form of a time; ``text`` is a time span ago, a day, or a time."""
    span = fields.seconds(text)
    try:
        if span is not None:
            moment = datetime.now(UTC) - timedelta(seconds=span)
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return iso(moment)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither a time span such as 7d nor a date such as 2026-11-30",
            param_hint=option,
        ) from None


def _exported(row: Any) -> dict[str, Any]:
    return {
        "id": f"{row.chain}-{row.sequence}",
        "updated_at": row.at,
        **{name: getattr(row, name) for name in (*COLUMNS[2:], "event")},
    }


def _jsonl(rows: Iterator[dict[str, Any]]) -> None:
    for row in rows:
        click.echo(json.dumps(row, separators=(",", ":")))


def _csv(rows: Iterator[dict[str, Any]]) -> None:
    print_csv(COLUMNS, ([_cell(row[name]) for name in COLUMNS] for row in rows))


def _cell(value: Any) -> str:
    return csv_text(value if isinstance(value, str) else json.dumps(value))
