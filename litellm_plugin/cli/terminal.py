"""What all commands have in common: options, what they print, and how they end.

The only place that knows rich. Text for people goes through :class:`Page`, which takes
everything literally: a ``[`` in a value is no mark-up, and control characters are shown,
not obeyed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit, urlunsplit

import click
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from litellm_plugin.config import ConfigError, default_paths, load_settings
from litellm_plugin.config.settings import Settings
from litellm_plugin.redaction import redact

FAILED, FAULTY = 1, 2  # exit statuses: something is wrong; the configuration is

MASK = "********"  # of one length, whatever it hides

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}

F = TypeVar("F", bound=Callable[..., Any])
Row = Sequence[tuple[str, str]]  # cells: text and style

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def configured(command: F) -> F:
    """Add ``--config``: the configuration files, as ``files``."""
    return click.option(
        "--config",
        "files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Configuration file; may be given several times, later ones win.",
    )(command)


def for_machines(command: F) -> F:
    """Add ``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def paths_of(files: Sequence[Path]) -> list[Path]:
    """Return the configuration files: those given, else those that the service reads."""
    return list(files) or default_paths(os.environ, Path.cwd())


def settings_of(files: Sequence[Path]) -> Settings:
    """Return the settings, or end the command with status 2 and every problem listed."""
    with logged():
        try:
            return load_settings(paths_of(files), os.environ)
        except ConfigError as exc:
            end_faulty(exc)


def end_faulty(exc: ConfigError) -> NoReturn:
    """End the command as the service ends its start."""
    click.echo(f"The configuration is faulty:\n{exc}", err=True)
    sys.exit(FAULTY)


def print_json(value: Any) -> None:
    """Print ``value`` for machines."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(redact(record.getMessage()))


@contextmanager
def logged(name: str = "litellm_plugin") -> Iterator[list[str]]:
    """Keep what is logged below ``name`` from the terminal, and give it.

    What ``--verbose`` set up still shows it.
    """
    logger, kept = logging.getLogger(name), _Kept()
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    try:
        yield kept.lines
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)


def shown(value: Any) -> str:
    """Return ``value`` as text for people: JSON, but plain text as it is; no secrets in it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return redact(_without_password(text))


def _without_password(text: str) -> str:
    # Who may be in a URL, and its query, is nobody's business either.
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return MASK
    query = MASK if parts.query else ""
    if "@" not in parts.netloc:
        return urlunsplit(parts._replace(query=query))
    return urlunsplit(
        parts._replace(netloc=f"{MASK}@{parts.netloc.rpartition('@')[2]}", query=query)
    )


class Page:
    """Prints for people; without colours where they are not wanted.

    Args:
        err: Whether to print to standard error.
    """

    def __init__(self, *, err: bool = False) -> None:
        self._console = Console(stderr=err, highlight=False, emoji=False)

    def line(self, text: str = "", style: str = "", *, indent: int = 0) -> None:
        """Print one line, folded to the width of the terminal."""
        self._print(Padding(_text(text, style), (0, 0, 0, indent)))

    def heading(self, text: str) -> None:
        """Print an empty line and a heading."""
        self.line()
        self.line(text, "bold")

    def rows(self, rows: Sequence[Row], *, indent: int = 2, widths: Sequence[int] = ()) -> None:
        """Print rows of cells below each other; the last column takes what is left.

        Args:
            rows: The cells, each text and style.
            indent: Spaces in front.
            widths: Of the columns, in characters; those that are wanting fit their text.
        """
        if not rows:
            return
        grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        last = len(rows[0]) - 1
        for index in range(len(rows[0])):
            width = widths[index] if index < len(widths) else None
            grid.add_column(width=width, overflow="fold", no_wrap=index < last and width is None)
        for row in rows:
            grid.add_row(*(_text(text, style) for text, style in row))
        self._print(Padding(grid, (0, 0, 0, indent)))

    def _print(self, content: RenderableType) -> None:
        if self._console.is_terminal:
            self._console.print(content)
            return
        # Columns are filled up with spaces, which only get in the way in a file.
        with self._console.capture() as printed:
            self._console.print(content)
        for line in printed.get().splitlines():
            self._console.print(Text(line.rstrip()), soft_wrap=True)

    @property
    def width(self) -> int:
        """Characters in a line."""
        return self._console.width

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """Say what is going on for as long as it does; only where somebody looks on.

        Gives a function that replaces the text.
        """
        if not self._console.is_terminal:
            yield lambda _text: None
            return
        with self._console.status(_text(text)) as status:
            yield lambda later: status.update(_text(later))


def _text(text: str, style: str = "") -> Text:
    return Text(_CONTROL.sub(lambda found: repr(found[0])[1:-1], text), style)
