"""Finds the notices that are due, and sends each one once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from litellm_plugin.clients.backstage import Notifications
from litellm_plugin.clients.litellm import Json, LiteLLM, rows_of_all_pages
from litellm_plugin.clients.webhook import Webhook, WebhookFailed
from litellm_plugin.config.settings import Notifications as NotificationSettings
from litellm_plugin.errors import BackstageUnavailable
from litellm_plugin.notifications.recipients import Recipients
from litellm_plugin.notifications.rules import TEAM, USER, Notice, budget_notice, key_notices
from litellm_plugin.redaction import redact
from litellm_plugin.store.database import Store
from litellm_plugin.store.notices import SentNotice, sent_about

WEBHOOK = "webhook"  # in the store, in place of a person

MAX_ID = 512  # characters of an id in the store
MAX_FAILURES = 10  # failures in a row after which a run no longer uses a channel


class NotSent(Exception):
    """A notice was not sent; the message says why."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notice for one recipient.

    Attributes:
        notice: The notice.
        to: Entity ref of a person, or ``webhook``; None if the notice has no recipient.
    """

    notice: Notice
    to: str | None

    @property
    def record(self) -> SentNotice:
        """The row of the store that records the delivery."""
        notice = self.notice
        id_, to = notice.subject_id[:MAX_ID], self.to or ""
        return SentNotice(notice.subject, id_, notice.mark, notice.period, to)


def due_notices(
    litellm: LiteLLM,
    recipients: Recipients,
    settings: NotificationSettings,
    now: datetime,
    before_page: Callable[[str], None],
) -> Iterator[Notice]:
    """Yield the notices that are due, including those that were sent before.

    Reads the pages of LiteLLM's users, then of its teams, then of its keys. ``before_page`` is
    called before each page, with ``users``, ``teams`` or ``keys``.

    Raises:
        UpstreamError: LiteLLM failed.
    """
    thresholds = settings.budget_thresholds
    for row in _rows(litellm.users, "user_id", lambda: before_page("users")):
        if notice := budget_notice(USER, row, thresholds, recipients.of_user(row)):
            yield notice
    for row in _rows(litellm.team_rows, "team_id", lambda: before_page("teams")):
        if notice := budget_notice(TEAM, row, thresholds, recipients.of_team(row)):
            yield notice
    for row in _rows(litellm.keys, "token", lambda: before_page("keys")):
        audience = recipients.of_key(row)
        yield from key_notices(row, thresholds, settings.key_expiry, now, audience)


def _rows(
    read: Callable[[int], tuple[list[Json], int]], id_: str, before_page: Callable[[], None]
) -> Iterator[Json]:
    """Yield the rows of all pages that have an id."""
    rows = rows_of_all_pages(read, lambda _page, _pages: before_page())
    return (row for row in rows if isinstance(row.get(id_), str) and row[id_])


def open_deliveries(
    notices: Iterable[Notice], settings: NotificationSettings, store: Store
) -> list[Delivery]:
    """Return the deliveries that were not made before, including those without a recipient.

    Raises:
        StoreUnavailable: The database can't be used.
    """
    wanted: dict[SentNotice, Delivery] = {}  # an insertion at LiteLLM may put a row on two pages
    for notice in notices:
        people: list[str | None] = [*sorted(notice.audience.people)] or [None]
        recipients = (people if settings.backstage else []) + [WEBHOOK] * bool(settings.webhook)
        for to in recipients:
            delivery = Delivery(notice, to)
            wanted.setdefault(delivery.record, delivery)
    sent = sent_about(store, (record.subject_id for record in wanted))
    return [delivery for record, delivery in wanted.items() if record not in sent]


class Sender:
    """Sends notices to Backstage and the webhook.

    Args:
        notifications: Backstage's notifications API.
        webhook: The webhook; None where none is configured.
    """

    def __init__(self, notifications: Notifications, webhook: Webhook | None) -> None:
        self._notifications = notifications
        self._webhook = webhook
        self._failures = Counter[bool]()  # in a row, of the webhook (True) and of Backstage (False)

    def send(self, delivery: Delivery) -> None:
        """Send a notice.

        If a notice is sent twice, Backstage replaces the first one, which has the same scope, and
        the webhook's receiver gets the same id again.

        Raises:
            NotSent: The channel refused the notice, or has failed too often in this run.
        """
        notice, to = delivery.notice, delivery.to
        to_webhook = to == WEBHOOK
        if self._failures[to_webhook] >= MAX_FAILURES:
            raise NotSent(f"Not tried after {MAX_FAILURES} failures in a row")
        try:
            if to_webhook and self._webhook is not None:
                self._webhook.send(notice.event_id, notice.event())
            elif to is not None:
                self._notifications.send(to, notice.payload(to))
        except (BackstageUnavailable, WebhookFailed) as exc:
            self._failures[to_webhook] += 1
            raise NotSent(redact(str(exc))) from exc
        self._failures[to_webhook] = 0
