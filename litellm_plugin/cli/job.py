"""Runs a command as a job: with a plugin, the store, a recorded run and progress."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from litellm_plugin import jobs
from litellm_plugin.cli.terminal import FAILED, FAULTY, Page, stop
from litellm_plugin.cli.world import read_only_plugin
from litellm_plugin.clients.litellm import rows_of_all_pages
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import BackstageUnavailable, PluginError, UpstreamError
from litellm_plugin.observability import journal
from litellm_plugin.plugin import Plugin, check_installed
from litellm_plugin.redaction import redact
from litellm_plugin.store.database import Store, StoreUnavailable

IS_RUNNING = 75  # exit status: another process runs the job; EX_TEMPFAIL of sysexits.h

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Job:
    """A running job.

    Attributes:
        plugin: A plugin without cache, rate limits and circuit breakers.
        store: The store.
        run: The record of the run.
        pace: Limits the rate of calls to LiteLLM.
        tell: Sets the text of the progress on a terminal.
    """

    plugin: Plugin
    store: Store
    run: jobs.Run
    pace: jobs.Pace
    tell: Callable[[str], None]

    def rows_of_all_pages(
        self, read: Callable[[int], tuple[list[R], int]], what: str
    ) -> Iterator[R]:
        """Yield the rows of a list of LiteLLM, at the job's pace; ``what`` is for the progress."""

        def before_page(page: int, pages: int) -> None:
            self.tell(f"{self.run.job} ... page {page} of {pages} of {what}")
            self.pace.wait()

        return rows_of_all_pages(read, before_page)


@contextmanager
def job(name: str, settings: Settings, *, dry_run: bool) -> Iterator[Job]:
    """Run a job, whose audit events go to standard error, too.

    Ends the command with status 1 if LiteLLM, Backstage or the store fails, and with 75 if another
    process runs the job.
    """
    plugin = read_only_plugin(settings)
    store = plugin.store or Store(settings.database)
    try:
        with (
            Page(err=True).progress(f"{name} ...") as tell,
            jobs.run(store, name, dry_run=dry_run) as run,
            _audited(name, settings),
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
def _audited(name: str, settings: Settings) -> Iterator[None]:
    """Write audit events with a job as actor, to standard error too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    journal.log.addHandler(handler)
    try:
        with journal.acting(f"litellm-plugin:{name}", settings):
            yield
    finally:
        journal.log.removeHandler(handler)


@contextmanager
def readable_store(settings: Settings, off: str) -> Iterator[Store]:
    """Yield the configured store, for a command that only reads it.

    Ends the command with status 1 if the store can't be read, and with 2 if a command can't read
    it at all: it is in memory, or no feature uses it, which the sentence ``off`` says.
    """
    if not settings.uses_store:
        stop(off, FAULTY)
    database = settings.database
    if database.client != "pg" and database.file is None:
        stop(
            "The store is in the memory of the service, where no command can read it. Configure a"
            " file or PostgreSQL in backend.database.",
            FAULTY,
        )
    check_installed(settings)
    store = Store(database)
    try:
        yield store
    except StoreUnavailable as exc:
        stop(f"The store can't be read: {redact(str(exc))}", FAILED)
    finally:
        store.close()


def short_time(stamp: str) -> str:
    """Return a time of the store for people: ``2026-11-30 09:30:00``, in UTC."""
    return stamp[:19].replace("T", " ")
