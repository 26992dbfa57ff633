"""Notices about LiteLLM's users, keys and teams: when they are due, and their texts.

Pure functions. Money is USD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from litellm_plugin.clock import moment
from litellm_plugin.shapes import Json, amount, present

USER, KEY, TEAM = "user", "key", "team"
BUDGET, EXPIRY = "budget", "expiry"
LIFETIME = "lifetime"  # period of a budget that is never renewed

DAY = 86_400.0  # seconds
HIGH = 90.0  # percent of a budget; from there on the severity is high
MAX_PERCENT = 1_000_000
MAX_NAME = 100  # characters; Backstage keeps 255 of a title
SHOWN_DIGITS = 12  # of a key's hash, as in the audit log

_NAMES = {
    USER: ("user_id",),
    KEY: ("key_alias", "key_name", "token"),
    TEAM: ("team_alias", "team_id"),
}
_TABS = {USER: "", KEY: "?tab=keys", TEAM: "?tab=teams"}


@dataclass(frozen=True, slots=True)
class Audience:
    """The recipients of a notice.

    Attributes:
        people: Whether a person may see amounts, by full entity ref.
        amounts: Whether the webhook may get amounts.
    """

    people: Mapping[str, bool] = field(default_factory=dict)
    amounts: bool = True


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning about one LiteLLM user, key or team.

    Attributes:
        subject: ``user``, ``key`` or ``team``.
        subject_id: Its id at LiteLLM; of a key, the hash.
        name: Its name for people.
        kind: ``budget`` or ``expiry``.
        threshold: The threshold that is reached: percent of the budget, or seconds before the end.
        ends: The time when the budget is renewed or the key ends; None for a lifetime budget.
        audience: The recipients.
        spend: The amount that is spent; 0 where ``kind`` is ``expiry``.
        max_budget: The budget; 0 where ``kind`` is ``expiry``.
    """

    subject: str
    subject_id: str
    name: str
    kind: str
    threshold: float
    ends: datetime | None
    audience: Audience
    spend: float = 0.0
    max_budget: float = 0.0

    @property
    def mark(self) -> str:
        """The threshold's name in the store, such as ``budget-80`` or ``expiry-7d``."""
        if self.kind == BUDGET:
            return f"budget-{self.threshold:g}"
        sizes = {"d": 86_400, "h": 3600, "s": 1}
        unit = next(unit for unit, size in sizes.items() if self.threshold % size == 0)
        return f"expiry-{self.threshold / sizes[unit]:.0f}{unit}"

    @property
    def period(self) -> str:
        """The end of the budget's period, or of the key; ``lifetime`` without one."""
        if self.ends is None:
            return LIFETIME
        return self.ends.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    @property
    def percent(self) -> int:
        """Percent of the budget that is spent, rounded down; 0 where ``kind`` is ``expiry``.

        Rounded, so that people can't compute a hidden budget from it and their own spend.
        """
        if not self.max_budget:
            return 0
        # Of a budget such as 5e-324 USD the quotient is infinite.
        return int(min(self.spend * 100 / self.max_budget + 1e-9, MAX_PERCENT))

    @property
    def severity(self) -> str:
        """A severity of Backstage's notifications: ``normal``, ``high`` or ``critical``."""
        if self.kind == EXPIRY:
            return "high" if self.threshold <= DAY else "normal"
        if self.threshold >= 100:
            return "critical"
        return "high" if self.threshold >= HIGH else "normal"

    @property
    def shown_id(self) -> str:
        """The id; of a key, the first digits of the hash."""
        return self.subject_id[:SHOWN_DIGITS] if self.subject == KEY else self.subject_id

    @property
    def title(self) -> str:
        """One line for people, without amounts."""
        what = self.name if self.subject == USER else f"{self.subject} {self.name}"
        if self.kind == EXPIRY:
            return f"LiteLLM: {what} ends on {_date(self.ends)}"
        part = f"{self.percent} % of the" if self.percent < 100 else "the"
        return f"LiteLLM: {part} budget of {what} is spent"

    def description(self, *, amounts: bool) -> str:
        """Return the text below the title, with amounts of money if ``amounts``."""
        if self.kind == EXPIRY:
            return (
                "LiteLLM refuses the key from then on. Create another key and put it wherever this"
                " one is used."
            )
        spent = f"{self.spend:.2f} of {self.max_budget:.2f} USD are spent. " if amounts else ""
        refused = "LiteLLM refuses requests beyond the budget. " if self.threshold >= 100 else ""
        if self.ends is None:
            return f"{spent}{refused}The budget is not renewed; an administrator can raise it."
        return f"{spent}{refused}The budget is renewed on {_date(self.ends)}."

    def payload(self, ref: str) -> dict[str, str]:
        """Return the payload of the Backstage notification for one of the people.

        Backstage resolves the link against its ``app.baseUrl``. All thresholds and periods have
        the same scope, so that people see the newest notice only.
        """
        subject = sha256(self.subject_id.encode()).hexdigest()[:32]
        return {
            "title": self.title,
            "description": self.description(amounts=self.audience.people[ref]),
            "link": f"/litellm{_TABS[self.subject]}",
            "severity": self.severity,
            "topic": "litellm",
            "scope": f"litellm:{self.subject}:{self.kind}:{subject}",
        }

    def event(self) -> Json:
        """Return the body for the webhook without its time, as docs/notifications.md has it."""
        budget = self.kind == BUDGET
        # The receiver may forward the event to every recipient.
        amounts = budget and self.audience.amounts and all(self.audience.people.values())
        ends = None if self.ends is None else self.period
        return {
            "type": "litellm.budget.reached" if budget else "litellm.key.ending",
            "data": present(
                subject=self.subject,
                id=self.shown_id,
                name=self.name,
                threshold=self.threshold,
                percent=self.percent if budget else None,
                spend=self.spend if amounts else None,
                max_budget=self.max_budget if amounts else None,
                budget_reset_at=ends if budget else None,
                expires_at=None if budget else ends,
                severity=self.severity,
                title=self.title,
                description=self.description(amounts=amounts),
                recipients=sorted(self.audience.people),
            ),
        }

    @property
    def event_id(self) -> str:
        """The id of the webhook's event: the same each time that the notice is sent."""
        identity = (self.subject, self.subject_id, self.mark, self.period)
        return f"msg_{sha256(repr(identity).encode()).hexdigest()[:32]}"


def budget_notice(
    subject: str, row: Json, thresholds: Sequence[float], audience: Audience
) -> Notice | None:
    """Return the notice for the highest threshold of a budget that is reached, or None.

    ``row`` is a user, key or team with an id; ``thresholds`` are percent of its budget.
    """
    spend, budget = amount(row.get("spend")), amount(row.get("max_budget"))
    if row.get("blocked") or budget <= 0:
        return None
    reached = [each for each in thresholds if spend * 100 >= each * budget]
    if not reached:
        return None
    return Notice(
        subject,
        row[_NAMES[subject][-1]],
        _name(subject, row),
        BUDGET,
        max(reached),
        moment(row.get("budget_reset_at")),
        audience,
        spend,
        budget,
    )


def key_notices(
    row: Json,
    thresholds: Sequence[float],
    spans: Sequence[float],
    now: datetime,
    audience: Audience,
) -> list[Notice]:
    """Return the notices for a key: for its budget, and for the shortest time before its end.

    There are none for a key that is blocked or has ended. Times that are not shorter than the
    key's whole life are ignored.

    ``row`` is a key with a hash. ``thresholds`` are percent of its budget, ``spans`` seconds
    before its end.
    """
    ends, made = moment(row.get("expires")), moment(row.get("created_at"))
    if row.get("blocked") or (ends is not None and ends <= now):
        return []
    spent = budget_notice(KEY, row, thresholds, audience)
    notices = [] if spent is None else [spent]
    if ends is not None:
        left = (ends - now).total_seconds()
        life = None if made is None else (ends - made).total_seconds()
        reached = [each for each in spans if left <= each and (life is None or each < life)]
        if reached:
            name = _name(KEY, row)
            notices.append(Notice(KEY, row["token"], name, EXPIRY, min(reached), ends, audience))
    return notices


def _name(subject: str, row: Json) -> str:
    names = (row.get(name) for name in _NAMES[subject])
    name: str = next(name for name in names if isinstance(name, str) and name)
    # LiteLLM accepts any characters in an alias, such as line breaks and bidirectional controls.
    name = "".join(char if char.isprintable() else " " for char in name)
    return name[: SHOWN_DIGITS if name == row.get("token") else MAX_NAME]


def _date(time: datetime | None) -> str:
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
