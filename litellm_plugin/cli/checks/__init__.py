"""What ``doctor`` looks at: small functions, each with a name, a result and a remedy.

They only read. Those that depend on nothing run side by side; one whose foundation is
not there is skipped, and says so, instead of blaming something else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from litellm_plugin.errors import PluginError
from litellm_plugin.redaction import redact

log = logging.getLogger(__name__)

SIDE_BY_SIDE = 8

W = TypeVar("W")


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
        found: What was seen, in words.
        remedy: What to do about it; None where nothing is to be done.
        because: The ids of the checks that would have had to be well first.
    """

    status: Status
    found: str
    remedy: str | None = None
    because: tuple[str, ...] = ()


def ok(found: str) -> Result:
    """Return that all is well."""
    return Result(Status.OK, found)


def warning(found: str, remedy: str) -> Result:
    """Return that something may be wrong."""
    return Result(Status.WARNING, redact(found), remedy)


def failed(found: str, remedy: str) -> Result:
    """Return that something is wrong."""
    return Result(Status.FAILED, redact(found), remedy)


def skipped(found: str, *because: str) -> Result:
    """Return that there was nothing to look at."""
    return Result(Status.SKIPPED, found, because=because)


@dataclass(frozen=True, slots=True)
class Check(Generic[W]):
    """One thing to look at.

    Attributes:
        id: What it is called for machines.
        title: What it is called for people.
        look: Looks.
        needs: Ids of the checks that have to be well first.
        after: Ids of the checks that have to be over first, however they ended.
    """

    id: str
    title: str
    look: Callable[[W], Result]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def run(checks: Sequence[Check[W]], world: W) -> Iterator[tuple[Check[W], Result]]:
    """Run the checks, side by side where they can be, and yield each as it ends.

    Args:
        checks: In the order of the table; each comes behind those that it waits for.
        world: What they look at.
    """
    titles = {check.id: check.title for check in checks}
    results: dict[str, Result] = {}
    waiting, running = list(checks), dict[Future[Result], Check[W]]()
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="check") as pool:
        while waiting or running:
            for check in list(waiting):
                if not results.keys() >= {*check.needs, *check.after}:
                    continue
                waiting.remove(check)
                unwell = tuple(name for name in check.needs if not _well(results[name]))
                if unwell:
                    reason = " and ".join(f"“{titles[name]}”" for name in unwell)
                    verb = "is" if len(unwell) == 1 else "are"
                    results[check.id] = skipped(f"{reason} {verb} not well", *unwell)
                    yield check, results[check.id]
                    break  # others may be waiting for this one
                running[pool.submit(_looked, check, world)] = check
            else:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    check = running.pop(future)
                    results[check.id] = future.result()
                    yield check, results[check.id]


def _well(result: Result) -> bool:
    return result.status in {Status.OK, Status.WARNING}


def _looked(check: Check[Any], world: Any) -> Result:
    try:
        return check.look(world)
    except PluginError as exc:
        return failed(redact(exc.message), "Try again; if it stays, run with --verbose.")
    except Exception as exc:
        # The others shall be seen all the same.
        log.exception("the check %s broke off", check.id)
        return failed(
            f"This check itself broke off ({type(exc).__name__}).",
            "Report it, with the output of --verbose.",
        )
