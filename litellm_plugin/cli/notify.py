"""``notify``: warns people before a budget is spent or a key ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from litellm_plugin.cli.job import Job, job
from litellm_plugin.cli.terminal import FAULTY, Page, json_option, settings_option, show, stop
from litellm_plugin.clients.webhook import Webhook
from litellm_plugin.clock import iso, stamp
from litellm_plugin.config.settings import Notifications, Settings
from litellm_plugin.jobs import NOW
from litellm_plugin.notifications.delivery import (
    Delivery,
    NotSent,
    Sender,
    due_notices,
    open_deliveries,
)
from litellm_plugin.notifications.recipients import Recipients
from litellm_plugin.plugin import upstream
from litellm_plugin.store import notices as store
from litellm_plugin.store.adopted import AdoptedAccounts

KEPT = timedelta(days=30)  # of a record, after the end of the budget's period or the key

DUE, SENT, FAILED_TO_SEND, NO_RECIPIENT = "due", "sent", "failed", "no_recipient"


@click.command()
@settings_option
@click.option("--apply", is_flag=True, help="Send the notices. Without it they are only listed.")
@json_option
def notify(settings: Settings, *, apply: bool, as_json: bool) -> None:
    """Warn people before a budget is spent or a key ends.

    Reads LiteLLM's users, teams and keys, and lists the notices that are due and were not sent
    before. With --apply they are sent to Backstage's notifications and to the webhook of
    litellm.notifications. Nothing is changed at LiteLLM.

    Ends with status 0 if every notice was sent, 1 if one was not, 2 if the configuration is faulty
    or notices are switched off, and 75 if another process runs the job.
    """
    _check(settings.notifications, apply=apply)
    with job("notify", settings, dry_run=not apply) as running:
        found = _run(running, apply=apply)
        counts = dict(running.run.counts)
        if counts[FAILED_TO_SEND]:
            running.run.problem = "some notices were not sent"
    report = {"applied": apply, "counts": counts, "notices": found}
    show(report, _print, as_json=as_json, failed=running.run.problem is not None)


def _check(settings: Notifications, *, apply: bool) -> None:
    if apply and not settings.enabled:
        stop("litellm.notifications.enabled is false: no notice is sent.", FAULTY)
    if not settings.backstage and settings.webhook is None:
        text = "litellm.notifications.backstage is false and there is no webhook"
        stop(f"{text}: no notice can be sent.", FAULTY)


def _run(running: Job, *, apply: bool) -> list[dict[str, Any]]:
    plugin, settings = running.plugin, running.plugin.settings
    counts = running.run.counts
    counts.update(dict.fromkeys((DUE, SENT, FAILED_TO_SEND, NO_RECIPIENT), 0))

    def before_page(what: str) -> None:
        running.tell(f"notify: reading {what} ...")
        running.pace.wait()

    running.tell("notify: reading the catalog ...")
    adopted = AdoptedAccounts(running.store, NOW).owners()
    people = plugin.directory.everyone()
    recipients = Recipients(people, settings, plugin.access.owns, adopted)
    due = due_notices(plugin.litellm, recipients, settings.notifications, NOW(), before_page)
    deliveries = open_deliveries(due, settings.notifications, running.store)
    sender = Sender(plugin.notifications, _webhook(settings))
    found = []
    for number, delivery in enumerate(deliveries, 1):
        state, error = DUE, None
        if delivery.to is None:
            state = NO_RECIPIENT
        elif apply:
            running.tell(f"notify: notice {number} of {len(deliveries)} ...")
            running.run.check()  # without the lock, another process may send the same notice
            state, error = _send(running, sender, delivery)
        counts[state] += 1
        found.append(_shown(delivery, state, error))
    if apply:
        store.prune(running.store, iso(NOW() - KEPT))
    return found


def _send(running: Job, sender: Sender, delivery: Delivery) -> tuple[str, str | None]:
    try:
        sender.send(delivery)
    except NotSent as exc:
        return FAILED_TO_SEND, str(exc)
    store.record(running.store, delivery.record, stamp(NOW))
    return SENT, None


def _webhook(settings: Settings) -> Webhook | None:
    webhook = settings.notifications.webhook
    if webhook is None:
        return None
    client = upstream(settings, "The webhook", "litellm.notifications.webhook.url")
    return Webhook(client, webhook.url, webhook.secret, NOW)


def _shown(delivery: Delivery, state: str, error: str | None) -> dict[str, Any]:
    notice = delivery.notice
    return {
        "to": delivery.to,
        "subject": notice.subject,
        "id": notice.shown_id,
        "threshold": notice.mark,
        "period": notice.period,
        "severity": notice.severity,
        "title": notice.title,
        "state": state,
        "error": error,
    }


def _print(page: Page, report: dict[str, Any]) -> None:
    if not report["notices"]:
        page.line("No notice is due, or all were sent before.")
        return
    rows = [
        (
            each["state"].replace("_", " "),
            each["to"] or "-",
            each["threshold"],
            each["title"] + (f"\n> {each['error']}" if each["error"] else ""),
        )
        for each in report["notices"]
    ]
    page.table(("state", "to", "threshold", "notice"), rows)
    if not report["applied"]:
        page.line()
        page.line("Nothing was sent; --apply sends the notices.")
