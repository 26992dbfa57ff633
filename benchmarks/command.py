"""What the benchmark programs have in common on the command line."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import sides
from sides import REPO, UnusableError


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what both programs take."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument(
        "--shared",
        type=Path,
        default=REPO.parent / "shared",
        metavar="DIR",
        help="the rigs; default %(default)s",
    )
    parser.add_argument(
        "--checkout",
        type=Path,
        default=REPO,
        metavar="DIR",
        help="whose service is measured; default this repository",
    )
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="one more configuration file for the service, such as with litellm.service.*",
    )
    parser.add_argument(
        "--python",
        default=sides.python,
        metavar="FILE",
        help="the interpreter that serves, with requirements/run.txt; default %(default)s",
    )
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep logs and tokens there")


@contextmanager
def ready(given: argparse.Namespace) -> Iterator[Path]:
    """Yield the folder for tokens and logs; what is started within ends with it.

    Args:
        given: The command line.
    """

    def end(number: int, frame: object) -> NoReturn:  # noqa: ARG001
        sys.exit(128 + number)

    sides.python = given.python
    # A polite kill, too, has to end what was started.
    signal.signal(signal.SIGTERM, end)
    say("starting ...")
    try:
        if given.logs is not None:
            given.logs.mkdir(parents=True, exist_ok=True)
            yield given.logs.resolve()
        else:
            with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
                yield Path(folder)
    except UnusableError as exc:
        sys.exit(str(exc))


def finish(given: argparse.Namespace, found: Mapping[str, Any], text: str) -> None:
    """Print the text, and write everything that was found where it was asked for."""
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    print(text)


def say(line: str) -> None:
    """Tell about the progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def environment(checkout: Path) -> dict[str, Any]:
    """Return where and of what the measurement is."""

    def said(*command: str) -> str:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": said(sides.python, "-c", "import platform; print(platform.python_version())"),
        "node": said("node", "--version"),
        "commit": said("git", "rev-parse", "--short", "HEAD"),
        "uncommitted": bool(said("git", "status", "--porcelain", "--", "app.py", "litellm_plugin")),
    }
