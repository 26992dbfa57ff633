"""The checks of ``doctor``, how they run, and their results.

A check is a function that only reads. Checks run in parallel; one that needs a failed check is
skipped, so that a failure is a cause and not a consequence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from graphlib import TopologicalSorter
from typing import Any

from litellm_plugin.errors import PluginError
from litellm_plugin.redaction import redact

log = logging.getLogger(__name__)


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found.

    Attributes:
        found: The finding, in words.
        remedy: How to fix it; None if there is nothing to fix.
        because: For a skipped check the ids of the checks that it needs and that did not pass.
    """

    status: Status
    found: str
    remedy: str | None = None
    because: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether checks that need this one can run."""
        return self.status in {Status.OK, Status.WARNING}


def ok(found: str) -> Result:
    """Return the result of a check that passed."""
    return Result(Status.OK, found)


def warning(found: str, remedy: str) -> Result:
    """Return a result that does not change the exit status; secrets are redacted."""
    return Result(Status.WARNING, redact(found), remedy)


def failed(found: str, remedy: str) -> Result:
    """Return the result of a check that failed; secrets are redacted."""
    return Result(Status.FAILED, redact(found), remedy)


def skipped(found: str, *because: str) -> Result:
    """Return the result of a check that had nothing to check."""
    return Result(Status.SKIPPED, found, because=because)


class CheckEndedError(Exception):
    """Ends a check with ``result``."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.found)
        self.result = result


@dataclass(frozen=True, slots=True)
class Check:
    """A check, and its place in the order.

    Attributes:
        id: The name in ``--json``.
        title: The name in the text.
        function: Runs the check; gets the :class:`~litellm_plugin.cli.world.World`.
        needs: Ids of the checks that have to pass first (ok or warning).
        after: Ids of the checks that have to end first, with any result.
    """

    id: str
    title: str
    function: Callable[[Any], Result]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def run(checks: Sequence[Check], world: Any) -> Iterator[tuple[Check, Result]]:
    """Run the checks in parallel, and yield each with its result when it ends."""
    by_id = {check.id: check for check in checks}
    order = TopologicalSorter({check.id: check.needs + check.after for check in checks})
    order.prepare()
    running: dict[Future[Result], Check] = {}
    results: dict[str, Result] = {}
    with ThreadPoolExecutor(len(checks), thread_name_prefix="check") as pool:
        while order.is_active():
            for name in order.get_ready():
                check = by_id[name]
                missing = [by_id[need] for need in check.needs if not results[need].passed]
                running[pool.submit(_result_of, check, world, missing)] = check
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                check = running.pop(future)
                results[check.id] = future.result()
                order.done(check.id)
                yield check, results[check.id]


def _result_of(check: Check, world: Any, missing: Sequence[Check]) -> Result:
    """Run a check, unless checks that it needs did not pass."""
    if missing:
        titles = " and ".join(f"“{need.title}”" for need in missing)
        return skipped(f"{titles} did not pass", *(need.id for need in missing))
    try:
        return check.function(world)
    except CheckEndedError as exc:
        return exc.result
    except PluginError as exc:
        return failed(exc.message, "Try again; if it fails again, run with --verbose.")
    except Exception as exc:
        # Caught, so that the other checks run.
        log.exception("the check %s crashed", check.id)
        return failed(
            f"The check itself crashed ({type(exc).__name__}).",
            "Report this fault of litellm-plugin with the output of --verbose.",
        )
