"""Charge-back: daily usage by day, user, team, key and model, in any combination.

LiteLLM has two tables of daily usage: by user, key and model, and by team, key and model. Its
answers have sums for each key by user (or team), and sums for each key by model. This module joins
them into rows, which add up to LiteLLM's own totals. :class:`AmbiguousUsage` is raised where the
sums allow several combinations. Spend is in USD; days are UTC days, as LiteLLM has no others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from litellm_plugin.errors import PluginError, UpstreamError
from litellm_plugin.shapes import Json, as_object
from litellm_plugin.usage.report import METRICS, NOISE, entries, own_totals

Kind = Literal["user", "team"]
Figures = tuple[float, ...]  # in the order of METRICS

DIMENSIONS = ("day", "team", "user", "key", "model")
UNASSIGNED = "Unassigned"  # LiteLLM's name for usage without user, or without team
NONE: Figures = (0.0, *(0 for _ in METRICS[1:]))
ATTEMPTS = 3  # to read a day whose pages do not add up, because usage was written meanwhile
_FAILED = {METRICS.index("api_requests"), METRICS.index("failed_requests")}


class AmbiguousUsage(PluginError):
    """LiteLLM's sums do not say which user used a key in which team."""


@dataclass(frozen=True, slots=True)
class Use:
    """Usage of one key on one day."""

    key: str  # the hash; "" where LiteLLM names no key
    model: str  # the public name; "" without a model, or where models are not separated
    user: str | None  # LiteLLM id; None without a user, or where users are not separated
    team: str | None  # LiteLLM id; None without a team, or where teams are not separated
    figures: Figures


@dataclass(frozen=True, slots=True)
class Activity:
    """Reads daily activity from LiteLLM."""

    # Returns a page of a day and the number of pages, given kind, day, page number, and the id of a
    # user or team or None for all.
    page: Callable[[Kind, str, int, str | None], tuple[Any, int]]
    # Returns LiteLLM's own totals of a day, as the metadata of a page; None where this LiteLLM does
    # not have them.
    totals: Callable[[Kind, str], Json | None]


@dataclass(slots=True)
class Names:
    """What LiteLLM's usage says about users, teams and keys."""

    users: dict[str, str] = field(default_factory=dict)  # e-mails by user id
    teams: dict[str, str] = field(default_factory=dict)  # aliases by team id
    # LiteLLM's metadata by key hash: key_alias, and since 1.106 key_exists, user_id and user_email.
    keys: dict[str, Json] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # sentences for the reader of the report


def uses_of(day: str, separate: Iterable[str], activity: Activity, names: Names) -> list[Use]:
    """Return the usage of all keys on one day.

    Args:
        day: ``YYYY-MM-DD``.
        separate: Which of :data:`DIMENSIONS` to separate; keys always are.
        activity: Reads from LiteLLM.
        names: The names in LiteLLM's answers are added to this.

    Raises:
        AmbiguousUsage: LiteLLM does not say which user used a key in which team.
        UpstreamError: LiteLLM's answer can't be read, or does not add up.
    """
    wanted = set(separate)
    by_model = "model" in wanted
    of_users = _Day("user", day, activity, names, by_owner="user" in wanted)
    of_teams = _Day("team", day, activity, names, by_owner=True)
    # Teams are read first. Usage that is written between the two reads is then in the second answer
    # only, and counts once, without a team.
    teams = of_teams.read(by_model=by_model) if "team" in wanted else None
    users = of_users.read(by_model=by_model)
    if teams is None:
        return [
            Use(key, model, user, None, figures) for (key, model, user), figures in users.items()
        ]
    return list(_joined(day, users, teams, names.notes))


_Uses = dict[tuple[str, str, str | None], Figures]  # by key, model, and user or team


@dataclass(slots=True)
class _Sums:
    """The usage of one key on one day, by user or team, and by model."""

    owners: dict[str | None, Figures] = field(default_factory=dict)
    models: dict[str, Figures] = field(default_factory=dict)

    @property
    def ambiguous(self) -> bool:
        """Whether several users (or teams) used several models."""
        return len(self.owners) > 1 and len(self.models) > 1

    def combined(self) -> Iterator[tuple[str | None, str, Figures]]:
        """Yield the sums by user (or team) and model; they must not be ambiguous."""
        for owner, figures in self.owners.items():
            for model, of_model in self.models.items():
                yield owner, model, figures if len(self.models) == 1 else of_model


@dataclass(frozen=True, slots=True)
class _Day:
    """Reads one day of one of LiteLLM's tables.

    ``by_owner`` tells whether users (or teams) are separated; if not, all usage has owner None.
    """

    kind: Kind
    day: str
    activity: Activity
    names: Names
    by_owner: bool

    def read(self, *, by_model: bool) -> _Uses:
        """Return the sums by key, model, and user or team."""
        keys = self._keys(self._checked_pages(), by_model=by_model)
        ambiguous = {key: sums for key, sums in keys.items() if sums.ambiguous}
        uses = {
            (key, model, owner): figures
            for key, sums in keys.items()
            if key not in ambiguous
            for owner, model, figures in sums.combined()
        }
        return uses | (self._resolved(ambiguous) if ambiguous else {})

    def _resolved(self, ambiguous: Mapping[str, _Sums]) -> _Uses:
        """Return the uses of keys that several users (or teams) used with several models.

        The usage of each user is read by itself; what remains is usage without a user.
        """
        uses: _Uses = {}
        rest = {
            (key, model): each
            for key, own in ambiguous.items()
            for model, each in own.models.items()
        }
        for owner in sorted({each for own in ambiguous.values() for each in own.owners if each}):
            for key, sums in self._keys(self._pages(owner), by_model=True).items():
                for model, figures in sums.models.items():
                    if (key, model) in rest and any(figures):
                        uses[key, model, owner] = figures
                        rest[key, model] = self._rest(rest[key, model], [figures])
        for (key, model), figures in rest.items():
            if any(figures) and None not in ambiguous[key].owners:
                raise self._unequal()
            if any(figures):
                uses[key, model, None] = figures
        return uses

    def _keys(self, pages: Iterable[Any], *, by_model: bool) -> dict[str, _Sums]:
        """Return the sums of each key over all pages."""
        keys: defaultdict[str, _Sums] = defaultdict(_Sums)
        for row in (row for page in pages for row in _rows(page)):
            breakdown = as_object(row.get("breakdown"))
            self._note(breakdown)
            for owner, key, figures in self._owners(breakdown, _figures(row)):
                _add(keys[key].owners, owner, figures)
                if not by_model:
                    _add(keys[key].models, "", figures)
            if by_model:
                for key, model, figures in self._models(breakdown, _figures(row)):
                    _add(keys[key].models, model, figures)
        return keys

    def _owners(self, breakdown: Json, day: Figures) -> Iterator[tuple[str | None, str, Figures]]:
        """Yield the figures by user or team and key; they add up to the day's."""
        for name, entry in entries(breakdown.get("entities")):
            owner = name if self.by_owner and name != UNASSIGNED else None
            whole = _figures(entry)
            keys = _by_key(entry)
            for key, figures in keys.items():
                yield owner, key, figures
            yield owner, "", self._rest(whole, keys.values())
            day = self._rest(day, [whole])
        yield None, "", day

    def _models(self, breakdown: Json, day: Figures) -> Iterator[tuple[str, str, Figures]]:
        """Yield the figures by key and model; they add up to the day's.

        Models have their public names (``model_groups``), unless only ``models`` has all of a
        key's usage. Usage without a model, such as calls of MCP servers, has the model "".
        """
        sources = [
            {name: _by_key(entry) for name, entry in entries(breakdown.get(source))}
            for source in ("model_groups", "models")
        ]
        for key, use in entries(breakdown.get("api_keys")):
            whole = _figures(use)
            found = [
                {model: keys[key] for model, keys in source.items() if key in keys}
                for source in sources
            ]
            rests = [self._rest(whole, models.values()) for models in found]
            best = 1 if any(rests[0]) and not any(rests[1]) else 0
            for model, figures in found[best].items():
                yield key, model, figures
            yield key, "", rests[best]
            day = self._rest(day, [whole])
        yield "", "", day

    def _rest(self, whole: Figures, parts: Iterable[Figures]) -> Figures:
        """Return a sum minus its parts."""
        rest = _minus(whole, _sum(parts))
        if min(rest) < 0:
            raise self._unequal()
        return rest

    def _unequal(self) -> UpstreamError:
        return UpstreamError(
            f"LiteLLM's usage of {self.day} does not add up: usage is being written",
            advice="try again, or end with a day that is over",
        )

    def _note(self, breakdown: Json) -> None:
        """Add the names in a breakdown to ``names``."""
        field_name = "user_email" if self.kind == "user" else "team_alias"
        known = self.names.users if self.kind == "user" else self.names.teams
        for name, entry in entries(breakdown.get("entities")):
            text = as_object(entry.get("metadata")).get(field_name)
            if isinstance(text, str) and text:
                known[name] = text
            for key, use in entries(entry.get("api_key_breakdown")):
                about = as_object(use.get("metadata"))
                self.names.keys.setdefault(key, {}).update(
                    {name: value for name, value in about.items() if value is not None}
                )

    def _checked_pages(self) -> list[Any]:
        """Return all pages, which add up to LiteLLM's own totals.

        A single page is consistent. Rows may move between pages while usage is written, and in
        LiteLLM before 1.106 at any time.
        """
        for _ in range(ATTEMPTS):
            pages = list(self._pages(None))
            if len(pages) == 1:
                return pages
            totals = self.activity.totals(self.kind, self.day)
            if totals is None:
                raise UpstreamError(
                    f"This LiteLLM has no totals of {self.day} by {self.kind}, so"
                    f" {len(pages)} pages of usage can't be checked",
                    advice="update LiteLLM",
                )
            found = _sum(_figures(row) for page in pages for row in _rows(page))
            wanted = _figures({"metrics": own_totals(totals)})
            if not any(_minus(found, wanted)):
                return pages
        raise self._unequal()

    def _pages(self, owner: str | None) -> Iterator[Any]:
        number, count = 1, 1
        while number <= count:
            page, count = self.activity.page(self.kind, self.day, number, owner)
            yield page
            number += 1


def _joined(day: str, users: _Uses, teams: _Uses, notes: list[str]) -> Iterator[Use]:
    """Yield uses with user and team, from uses with one of the two."""
    by_user, by_team = _by_cell(users), _by_cell(teams)
    for cell in {**by_user, **by_team}:
        key, model = cell
        own_users, own_teams = by_user.get(cell, {}), by_team.get(cell, {})
        rest = _minus(_sum(own_users.values()), _sum(own_teams.values()))
        if any(figure > 0 for figure in rest):
            without = own_teams.get(None, NONE)
            own_teams[None] = _sum([without, tuple(max(figure, 0) for figure in rest)])
        if any(figure < 0 for figure in rest):
            # LiteLLM failed to write to one of its two tables.
            lacking = tuple(max(-figure, 0) for figure in rest)
            own_users[None] = _sum([own_users.get(None, NONE), lacking])
            notes.append(
                f"{day}: LiteLLM counts {lacking[0]} USD and {lacking[4]:.0f} requests of the key"
                f" {key} for a team and for no user; they are in this report."
            )
        refused = own_users.get(None)
        if (
            refused is not None
            and len(own_users) > 1
            and len(own_teams) > 1
            and own_teams.get(None) == refused
            and not any(figure for at, figure in enumerate(refused) if at not in _FAILED)
        ):
            # Refused requests of a deleted key have neither user nor team, because LiteLLM takes
            # both from the key.
            yield Use(key, model, None, None, refused)
            del own_users[None], own_teams[None]
        if len(own_users) > 1 and len(own_teams) > 1:
            raise AmbiguousUsage(
                f"LiteLLM does not say which of {len(own_users)} users used the key"
                f" {key or 'without a hash'} in which of {len(own_teams)} teams on {day}",
                advice="leave user or team out of --by",
            )
        for user, figures in own_users.items():
            for team, team_figures in own_teams.items():
                yield Use(key, model, user, team, team_figures if len(own_users) == 1 else figures)


def _by_cell(uses: _Uses) -> dict[tuple[str, str], dict[str | None, Figures]]:
    cells: defaultdict[tuple[str, str], dict[str | None, Figures]] = defaultdict(dict)
    for (key, model, owner), figures in uses.items():
        cells[key, model][owner] = figures
    return dict(cells)


def _by_key(entry: Json) -> dict[str, Figures]:
    return {key: _figures(use) for key, use in entries(entry.get("api_key_breakdown"))}


def _add(sums: dict[Any, Figures], name: str | None, figures: Figures) -> None:
    if any(figures):
        sums[name] = _sum([sums.get(name, NONE), figures])


def _rows(page: Any) -> list[Json]:
    results = as_object(page).get("results")
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        raise UpstreamError("LiteLLM's usage has no list of days")
    return results


def _figures(entry: Json) -> Figures:
    """Return the figures of one of LiteLLM's entries; a value that is no number is an error."""
    metrics = as_object(entry.get("metrics"))
    figures: list[float] = []
    for name in METRICS:
        match metrics.get(name):
            case bool():
                pass
            case int() | float() as figure if math.isfinite(figure):
                figures.append(figure)
                continue
        found = str(metrics.get(name))[:50]
        raise UpstreamError(f"LiteLLM's usage has {found} for {name}, which is no number")
    return tuple(figures)


def _minus(one: Figures, other: Figures) -> Figures:
    spend, *counts = (a - b for a, b in zip(one, other, strict=True))
    return (0.0 if abs(spend) <= NOISE else spend, *counts)


def _sum(figures: Iterable[Figures]) -> Figures:
    listed: Sequence[Figures] = list(figures)
    if not listed:
        return NONE
    spend, *counts = zip(*listed, strict=True)
    return (math.fsum(spend), *map(sum, counts))


def total(uses: Iterable[Use]) -> Json:
    """Return the sums of uses, by the names of :data:`METRICS`."""
    return dict(zip(METRICS, _sum(use.figures for use in uses), strict=True))
