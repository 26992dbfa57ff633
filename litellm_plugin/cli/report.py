"""``report usage``: usage of a period by day, team, user, key and model. Only reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import click

from litellm_plugin import jobs
from litellm_plugin.cli.job import stopped
from litellm_plugin.cli.terminal import (
    Page,
    csv_text,
    print_csv,
    print_json,
    settings_option,
    visible,
)
from litellm_plugin.cli.world import read_only_plugin
from litellm_plugin.clients.litellm import rows_of_all_pages
from litellm_plugin.config.settings import Settings
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
KEY_DIGITS = 12  # of a key's hash, in a table
DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def report() -> None:
    """Print reports, such as for charge-back."""


def _dimensions(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in DIMENSIONS:
            known = ", ".join(DIMENSIONS)
            raise click.BadParameter(f"got {name!r}, wanted names of {known}")
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
    help="What to separate: day, team, user, key and model, in any combination, such as team,user.",
)
@click.option("--team", metavar="ID", help="Only the usage of this team, by its id.")
@click.option("--user", metavar="ID", help="Only the usage of this LiteLLM id.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="table rounds; csv and json have all digits.",
)
@settings_option
def usage(
    settings: Settings,
    first: datetime,
    last: datetime,
    by: tuple[str, ...],
    team: str | None,
    user: str | None,
    form: str,
) -> None:
    """Print LiteLLM's usage from one day to another, both included.

    Days are UTC days, as LiteLLM has no others. The rows add up to LiteLLM's own totals. If LiteLLM
    does not say which user used a key in which team, there is no report by both.

    In CSV, a text that a spreadsheet would take for a formula begins with an apostrophe. Ends with
    status 1 if LiteLLM does not answer or can't separate the usage so, 2 if an option or the
    configuration is faulty.
    """
    if last < first:
        raise click.BadParameter("it is before --from", param_hint="--to")
    if (last - first).days >= MAX_DAYS:
        raise click.BadParameter(f"a report has at most {MAX_DAYS} days", param_hint="--to")
    plugin = read_only_plugin(settings)
    pace = jobs.Pace(settings.service.jobs.per_second)
    try:
        with Page(err=True).progress("report ...") as tell:
            found = _Reader(plugin, pace, tell).report(first.date(), last.date(), by, team, user)
    except PluginError as exc:
        stopped("report", exc)
    {"table": _print_table, "csv": _print_csv, "json": print_json}[form](found)
    for note in found["notes"]:
        click.echo(visible(note), err=True)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a report from LiteLLM, at the pace of jobs."""

    plugin: Plugin
    pace: jobs.Pace
    tell: Callable[[str], None]

    def report(
        self, first: date, last: date, by: tuple[str, ...], team: str | None, user: str | None
    ) -> Json:
        """Return what ``--format json`` prints; the parameters are the options of the command."""
        days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        names = Names()
        groups = self._grouped(days, by, team, user, names)
        columns = [
            self._columns(name, sorted({values[index] for values in groups}), names)
            for index, name in enumerate(by)
        ]
        rows = []
        for values in sorted(groups):
            row: Json = {}
            for of_value, value in zip(columns, values, strict=True):
                row |= of_value[value]
            rows.append(row | total(groups[values]))
        unfinished = (datetime.now(UTC) - LATE).date()
        notes = list(names.notes)
        if not groups and (team or user):
            notes.append("There is no usage with this --team or --user: both take LiteLLM's ids.")
        if last >= unfinished:
            notes.append(f"Figures from {max(first, unfinished)} on still change.")
        return {
            "from": first.isoformat(),
            "to": last.isoformat(),
            "by": list(by),
            "team": team,
            "user": user,
            "final": last < unfinished,
            "totals": total(use for group in groups.values() for use in group),
            "rows": rows,
            "notes": notes,
        }

    def _grouped(
        self,
        days: Sequence[date],
        by: Sequence[str],
        team: str | None,
        user: str | None,
        names: Names,
    ) -> dict[tuple[str, ...], list[Use]]:
        """Return the usage by the values of the dimensions ``by``; fills ``names``."""
        groups = defaultdict(list)
        filters = {name for name, value in (("team", team), ("user", user)) if value is not None}
        for day in map(date.isoformat, days):
            self.tell(f"report ... {day}")
            for use in uses_of(day, {*by, *filters}, Activity(self._page, self._totals), names):
                if (team is None or use.team == team) and (user is None or use.user == user):
                    place = {
                        "day": day,
                        "team": use.team or "",
                        "user": use.user or "",
                        "key": use.key,
                        "model": use.model,
                    }
                    groups[tuple(place[name] for name in by)].append(use)
        return groups

    def _page(self, kind: str, day: str, page: int, owner: str | None) -> tuple[Any, int]:
        self.pace.wait()
        return self.plugin.litellm.activity_page(kind, day, page, owner)

    def _totals(self, kind: str, day: str) -> Json | None:
        self.pace.wait()
        return self.plugin.litellm.activity_totals(kind, day)

    def _columns(self, name: str, values: Sequence[str], names: Names) -> dict[str, Json]:
        """Return the columns of a dimension by its value: a day, a model, or an id."""
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
            for row in rows_of_all_pages(self.plugin.litellm.users, self._before_page):
                if isinstance(email := row.get("user_email"), str):
                    emails[str(row.get("user_id"))] = email
        return emails

    def _keys(self, hashes: Sequence[str], known: Mapping[str, Json]) -> list[Json]:
        """Return name and state of each key.

        The usage of LiteLLM before 1.106 does not say which keys exist: there, all keys are read.
        """
        said = {token: known.get(token, {}) for token in hashes}
        present = {token for token, row in said.items() if row.get("key_exists")}
        if not any("key_exists" in row for row in said.values()) and any(hashes):
            rows = rows_of_all_pages(self.plugin.litellm.keys, self._before_page)
            present = {str(row.get("token")) for row in rows}
        nameless = [
            token
            for token, row in said.items()
            if len(token) == HASH_LENGTH and not row.get("key_alias")
        ]
        audit = self.plugin.audit_reader
        audited = audit.keys(nameless) if audit is not None and nameless else {}
        found = []
        for token, row in said.items():
            alias, ours = row.get("key_alias"), audited.get(token, {})
            source = "litellm" if alias else "audit" if "key_alias" in ours else ""
            recorded = alias or ours or row.get("user_id")
            state = "active" if token in present else "deleted" if recorded else "unknown"
            found.append(
                {
                    "key_alias": alias or ours.get("key_alias", ""),
                    "key_state": state,
                    "key_alias_source": source,
                }
            )
        return found

    def _before_page(self, page: int, pages: int) -> None:
        self.tell(f"report ... names, page {page} of {pages}")
        self.pace.wait()


# -- output --------------------------------------------------------------------


def _text_columns(found: Json) -> list[str]:
    """Return the columns before the figures."""
    return [column for name in found["by"] for column in COLUMNS[name]]


def _print_table(found: Json) -> None:
    columns = [column for column in _text_columns(found) if column != "key_alias_source"]
    head = [column.replace("_", " ") for column in columns]
    rows = [
        [
            *(row[column][:KEY_DIGITS] if column == "key" else row[column] for column in columns),
            *_shown(row),
        ]
        for row in found["rows"]
    ]
    rows.append(["total", *("" for _ in columns[1:]), *_shown(found["totals"])])
    # Not wrapped to the terminal: wrapped figures can't be read.
    Page().lines([*head, "USD", "tokens", "requests", "failed"], rows)


def _shown(figures: Json) -> list[str]:
    spend = Decimal(repr(figures["spend"])).quantize(Decimal("0.0001"))
    names = ("total_tokens", "api_requests", "failed_requests")
    return [f"{spend}", *(f"{figures[name]:.0f}" for name in names)]


def _print_csv(found: Json) -> None:
    columns = _text_columns(found)
    rows = [
        [
            *(csv_text(row[column]) for column in columns),
            *(_digits(row[name]) for name in METRICS),
        ]
        for row in found["rows"]
    ]
    print_csv([*columns, *METRICS], rows)


def _digits(number: float) -> str:
    """Return a number with all its digits and without an exponent."""
    return format(Decimal(repr(number)), "f")
