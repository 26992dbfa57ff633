"""Runs a command as a job: with a plugin, the store, a recorded run and progress."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from litellm_plugin import jobs
from litellm_plugin.cli.terminal import FAILED, Page, captured_log, stop
from litellm_plugin.cli.world import read_only_plugin
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import BackstageUnavailable, PluginError, UpstreamError
from litellm_plugin.observability import journal
from litellm_plugin.plugin import Plugin
from litellm_plugin.redaction import redact
from litellm_plugin.store.database import Store, StoreUnavailable

IS_RUNNING = 75  # exit status: another process runs the job; EX_TEMPFAIL of sysexits.h


@dataclass(frozen=True, slots=True)
class Job:
    """A running job.

    Attributes:
        plugin: A plugin without cache, rate limits and circuit breakers.
        store: The store.
        run: The record of the run.
        pace: To wait before each call to LiteLLM.
        tell: Sets the text of the progress on a terminal.
    """

    plugin: Plugin
    store: Store
    run: jobs.Run
    pace: jobs.Pace
    tell: Callable[[str], None]


@contextmanager
def job(name: str, settings: Settings, *, dry_run: bool) -> Iterator[Job]:
    """Run a job.

    Ends the command with status 1 if LiteLLM, Backstage or the store fails, and with 75 if another
    process runs the job.
    """
    with captured_log():
        plugin = read_only_plugin(settings)
        store = plugin.store or Store(settings.database)
        try:
            with (
                Page(err=True).progress(f"{name} ...") as tell,
                jobs.run(store, name, dry_run=dry_run) as run,
            ):
                pace = jobs.Pace(settings.service.jobs.per_second, run.check)
                yield Job(plugin, store, run, pace, tell)
        except jobs.JobIsRunning:
            stop(f"Another process runs {name}.", IS_RUNNING)
        except (PluginError, StoreUnavailable) as exc:
            stopped(name, exc)
        finally:
            if plugin.audit_writer is not None:
                plugin.audit_writer.flush()


def stopped(name: str, exc: PluginError | StoreUnavailable) -> NoReturn:
    """End the command with status 1, and the reason on standard error."""
    text = exc.text if isinstance(exc, PluginError) else str(exc)
    remedy = (
        "; run litellm-plugin doctor"
        if isinstance(exc, UpstreamError | BackstageUnavailable)
        else ""
    )
    stop(f"{name} stopped: {redact(text)}{remedy}", FAILED)


@contextmanager
def audited(name: str, settings: Settings) -> Iterator[None]:
    """Write audit events with a command as actor, to standard error too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    journal.log.addHandler(handler)
    try:
        with journal.acting(f"litellm-plugin:{name}", settings):
            yield
    finally:
        journal.log.removeHandler(handler)


def short_time(stamp: str) -> str:
    """Return a time of the store for people: ``2026-11-30 09:30:00``, in UTC."""
    return stamp[:19].replace("T", " ")


def print_table(page: Page, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table with a heading for each column."""
    page.rows(
        [
            tuple((text, "dim") for text in head),
            *(tuple((str(cell), "") for cell in row) for row in rows),
        ],
        folds=True,
    )
