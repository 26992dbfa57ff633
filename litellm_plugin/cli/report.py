"""``report``: usage of a period by day, team, user, key and model. It only reads."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from litellm_plugin import jobs
from litellm_plugin.cli.job import stopped
from litellm_plugin.cli.terminal import (
    Page,
    captured_log,
    config_option,
    csv_text,
    print_json,
    settings_of,
    write_out,
)
from litellm_plugin.cli.world import read_only_plugin
from litellm_plugin.clients.litellm import LiteLLM, rows_of_all_pages
from litellm_plugin.errors import PluginError
from litellm_plugin.plugin import Plugin
from litellm_plugin.shapes import Json
from litellm_plugin.usage.charges import DIMENSIONS, Activity, Names, Use, total, uses_of
from litellm_plugin.usage.periods import LATE
from litellm_plugin.usage.report import METRICS

COLUMNS: Mapping[str, Sequence[str]] = {
    "day": ("day",),
    "team": ("team_id", "team_alias"),
    "user": ("user_id", "user_email"),
    "key": ("key", "key_alias", "key_state", "key_alias_source"),
    "model": ("model",),
}
MAX_DAYS = 400
HASH_LENGTH = 64  # of a key's hash; LiteLLM has other names for calls of its own
DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def report() -> None:
    """Report what was used, such as for charge-back."""


def _dimensions(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in DIMENSIONS:
            known = ", ".join(DIMENSIONS)
            raise click.BadParameter(f"{name!r} is none of {known}")
    return names


@report.command()
@click.option(
    "--from", "first", required=True, type=DAY, metavar="DAY", help="The first day: 2026-11-01."
)
@click.option(
    "--to", "last", required=True, type=DAY, metavar="DAY", help="The last day: 2026-11-30."
)
@click.option(
    "--by",
    default="team",
    show_default=True,
    callback=_dimensions,
    metavar="NAMES",
    help="One row for each of: day, team, user, key, model, in any combination, such as team,user.",
)
@click.option("--team", metavar="ID", help="Only the usage of this team, by its id.")
@click.option("--user", metavar="ID", help="Only the usage of this LiteLLM id.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="csv and json have all digits.",
)
@config_option
def usage(
    files: Sequence[Path],
    first: datetime,
    last: datetime,
    by: tuple[str, ...],
    team: str | None,
    user: str | None,
    form: str,
) -> None:
    """Print what was used from one day to another, both included, as LiteLLM has it.

    Days are UTC days: LiteLLM adds usage up by them, and can't divide a day for another time zone.
    The rows add up to LiteLLM's own totals. Where LiteLLM does not tell which user used a key in
    which team, the command says so and prints no report.

    In CSV, a text that a spreadsheet would take for a formula begins with an apostrophe. Ends with
    status 1 if LiteLLM does not answer or does not tell a combination, 2 if an option or the
    configuration is faulty.
    """
    if last < first:
        raise click.BadParameter("it is before --from", param_hint="--to")
    if (last - first).days >= MAX_DAYS:
        raise click.BadParameter(f"a report has at most {MAX_DAYS} days", param_hint="--to")
    settings = settings_of(files)
    asked = Asked(first.date(), last.date(), by, team, user)
    with captured_log():
        plugin = read_only_plugin(settings)
        pace = jobs.Pace(settings.service.jobs.per_second)
        try:
            with Page(err=True).progress("report ...") as tell:
                found = _Reader(plugin, pace, tell).read(asked)
        except PluginError as exc:
            stopped("report", exc)
    {"table": _print_table, "csv": _print_csv, "json": _print_json}[form](asked, found)
    for note in found.notes:
        click.echo(note, err=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a report."""

    first: date
    last: date
    by: tuple[str, ...]
    team: str | None
    user: str | None

    @property
    def columns(self) -> list[str]:
        """The names of the columns before the figures."""
        return [column for name in self.by for column in COLUMNS[name]]

    def days(self) -> Iterator[str]:
        """Yield the days, ``YYYY-MM-DD``."""
        for number in range((self.last - self.first).days + 1):
            yield (self.first + timedelta(days=number)).isoformat()

    def wants(self, use: Use) -> bool:
        """Tell whether a use is of the team and the user that were asked for."""
        return (self.team is None or use.team == self.team) and (
            self.user is None or use.user == self.user
        )


@dataclass(frozen=True, slots=True)
class Report:
    """A report.

    Attributes:
        rows: Texts by column, and figures by name; spend in USD. Sorted by the columns.
        totals: The sums of the figures.
        final: Whether all days are over, so that LiteLLM adds nothing to them.
        notes: What the reader should know.
    """

    rows: list[Json]
    totals: Json
    final: bool
    notes: list[str]


class _Reader:
    """Reads a report from LiteLLM, not faster than jobs may."""

    def __init__(self, plugin: Plugin, pace: jobs.Pace, tell: Callable[[str], None]) -> None:
        self._litellm: LiteLLM = plugin.litellm
        self._audit = plugin.audit_reader
        self._pace = pace
        self._tell = tell

    def read(self, asked: Asked) -> Report:
        filters = {"team": asked.team, "user": asked.user}
        apart = {*asked.by, *(name for name, value in filters.items() if value is not None)}
        names = Names()
        groups: defaultdict[tuple[str, ...], list[Use]] = defaultdict(list)
        for day in asked.days():
            self._tell(f"report ... {day}")
            for use in uses_of(day, apart, Activity(self._page, self._totals), names):
                if asked.wants(use):
                    place = {
                        "day": day,
                        "team": use.team or "",
                        "user": use.user or "",
                        "key": use.key,
                        "model": use.model,
                    }
                    groups[tuple(place[name] for name in asked.by)].append(use)
        named = {name: self._named(name, asked.by, groups, names) for name in asked.by}
        rows = []
        for values in sorted(groups):
            row: Json = {}
            for name, value in zip(asked.by, values, strict=True):
                row |= named[name][value]
            rows.append(row | total(groups[values]))
        unfinished = (datetime.now(UTC) - LATE).date()
        final = asked.last < unfinished
        notes = list(names.notes)
        if not groups and (asked.team or asked.user):
            notes.append("There is no usage with this --team or --user: both take LiteLLM's ids.")
        if not final:
            notes.append(f"Figures from {max(asked.first, unfinished)} on still change.")
        uses = [use for group in groups.values() for use in group]
        return Report(rows, total(uses), final, notes)

    def _page(self, kind: str, day: str, page: int, owner: str | None) -> tuple[Any, int]:
        self._pace.wait()
        return self._litellm.activity_page(kind, day, page, owner)

    def _totals(self, kind: str, day: str) -> Json | None:
        self._pace.wait()
        return self._litellm.activity_totals(kind, day)

    def _named(
        self, name: str, by: Sequence[str], groups: Mapping[tuple[str, ...], Any], names: Names
    ) -> dict[str, Json]:
        """Return the columns of each day, team, user, key or model that has usage."""
        values = sorted({place[by.index(name)] for place in groups})
        match name:
            case "team":
                found = [{"team_alias": names.teams.get(value, "")} for value in values]
            case "user":
                emails = self._emails(values, names.users)
                found = [{"user_email": emails.get(value, "")} for value in values]
            case "key":
                found = self._keys(values, names.keys)
            case _:
                found = [{} for _ in values]
        column = COLUMNS[name][0]
        return {value: {column: value, **more} for value, more in zip(values, found, strict=True)}

    def _emails(self, user_ids: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
        """Return e-mails by user id; all users are read where LiteLLM's usage lacks one."""
        emails = dict(known)
        if any(user_id and user_id not in emails for user_id in user_ids):
            for row in rows_of_all_pages(self._litellm.users, self._before_page):
                if isinstance(email := row.get("user_email"), str):
                    emails[str(row.get("user_id"))] = email
        return emails

    def _keys(self, hashes: Sequence[str], known: Mapping[str, Json]) -> list[Json]:
        """Return name and state of each key.

        LiteLLM before 1.106 does not tell which keys exist, so all keys are read there.
        """
        present = {token for token in hashes if known.get(token, {}).get("key_exists")}
        if not any("key_exists" in known.get(token, {}) for token in hashes) and any(hashes):
            rows = rows_of_all_pages(self._litellm.keys, self._before_page)
            present = {str(row.get("token")) for row in rows}
        nameless = [
            token
            for token in hashes
            if len(token) == HASH_LENGTH and not known.get(token, {}).get("key_alias")
        ]
        audited = self._audit.keys(nameless) if self._audit is not None and nameless else {}
        found = []
        for token in hashes:
            ours = audited.get(token, {})
            alias = known.get(token, {}).get("key_alias")
            source = "litellm" if alias else "audit" if "key_alias" in ours else ""
            recorded = bool(alias or ours or known.get(token, {}).get("user_id"))
            found.append(
                {
                    "key_alias": alias or ours.get("key_alias", ""),
                    "key_state": "active"
                    if token in present
                    else "deleted"
                    if recorded
                    else "unknown",
                    "key_alias_source": source,
                }
            )
        return found

    def _before_page(self, page: int, pages: int) -> None:
        self._tell(f"report ... names, page {page} of {pages}")
        self._pace.wait()


# -- output --------------------------------------------------------------------


def _print_table(asked: Asked, found: Report) -> None:
    columns = [column for column in asked.columns if column != "key_alias_source"]
    head = [column.replace("_", " ") for column in columns]
    rows = [
        [*(_short(column, row[column]) for column in columns), *_shown(row)] for row in found.rows
    ]
    total_row = ["total", *("" for _ in columns[1:]), *_shown(found.totals)]
    head += ["USD", "tokens", "requests", "failed"]
    # Figures that are folded can't be read.
    Page().lines(
        [
            [(text, "dim") for text in head],
            *([(text, "") for text in row] for row in (*rows, total_row)),
        ]
    )


def _short(column: str, value: str) -> str:
    return value[:12] if column == "key" else value


def _shown(figures: Json) -> list[str]:
    spend = Decimal(repr(figures["spend"])).quantize(Decimal("0.0001"))
    names = ("total_tokens", "api_requests", "failed_requests")
    return [f"{spend}", *(f"{figures[name]:.0f}" for name in names)]


def _print_csv(asked: Asked, found: Report) -> None:
    writer = csv.writer(write_out())
    writer.writerow([*asked.columns, *METRICS])
    for row in found.rows:
        texts = [csv_text(row[column]) for column in asked.columns]
        writer.writerow([*texts, *(_digits(row[name]) for name in METRICS)])


def _digits(number: float) -> str:
    """Return a number with all its digits and without an exponent."""
    return format(Decimal(repr(number)), "f")


def _print_json(asked: Asked, found: Report) -> None:
    print_json(
        {
            "from": asked.first.isoformat(),
            "to": asked.last.isoformat(),
            "by": list(asked.by),
            "team": asked.team,
            "user": asked.user,
            "final": found.final,
            "totals": found.totals,
            "rows": found.rows,
            "notes": found.notes,
        }
    )
