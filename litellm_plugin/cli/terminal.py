"""Options, output and exit statuses of all commands.

Only this module imports rich. :class:`Page` prints text for people: it takes a ``[`` literally,
not as mark-up, and escapes control characters.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
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

FAILED, FAULTY = 1, 2  # exit statuses: something failed; the configuration is faulty

MASK = "********"  # the same for each secret, so that the length is not shown

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how cells begin that a spreadsheet calculates

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}

F = TypeVar("F", bound=Callable[..., Any])
Row = Sequence[tuple[str, str]]  # cells: text and style

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def config_option(command: F) -> F:
    """Add the option ``--config``, whose files are passed as ``files``."""
    return click.option(
        "--config",
        "files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Configuration file. Repeat the option for several; later files win.",
    )(command)


def json_option(command: F) -> F:
    """Add the option ``--json``, passed as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def paths_of(files: Sequence[Path]) -> list[Path]:
    """Return ``files``, or the service's configuration files if there are none."""
    return list(files) or default_paths(os.environ, Path.cwd())


def settings_of(files: Sequence[Path]) -> Settings:
    """Return the settings. If they are faulty, list every fault and end with status 2."""
    with captured_log():
        try:
            return load_settings(paths_of(files), os.environ)
        except ConfigError as exc:
            stop(f"The configuration is faulty:\n{exc}", FAULTY)


def stop(text: str, status: int) -> NoReturn:
    """End the command with an exit status, and a text on standard error."""
    click.echo(text, err=True)
    sys.exit(status)


def full_ref(kind: str, name: str) -> str:
    """Return the ref of an entity by its ref, or by its name in the default namespace."""
    return name if ":" in name else f"{kind}:default/{name}"


def print_json(value: Any) -> None:
    """Print ``value`` as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def write_out() -> Any:
    """Return a file-like object for ``csv.writer``, which prints as the command does."""
    return SimpleNamespace(write=partial(click.echo, nl=False))


def csv_text(text: str) -> str:
    """Return a cell of CSV; an apostrophe is put before what a spreadsheet would calculate."""
    return f"'{text}" if text.startswith(FORMULA) else text


class _Capture(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(redact(record.getMessage()))


@contextmanager
def captured_log(name: str = "litellm_plugin") -> Iterator[list[str]]:
    """Collect the log messages of the logger ``name`` and below, redacted, in a list.

    They are printed only with ``--verbose``.
    """
    logger, handler = logging.getLogger(name), _Capture()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def printable(value: Any) -> str:
    """Return ``value`` as text without secrets: a string as it is, anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return redact(_without_password(text))


def _without_password(text: str) -> str:
    # The user name and the query of a URL may be secrets too.
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return MASK
    _, at, host = parts.netloc.rpartition("@")
    netloc, query = MASK + at + host if at else host, MASK if parts.query else ""
    return urlunsplit(parts._replace(netloc=netloc, query=query))


class Page:
    """Prints text for people, with colours on a terminal unless ``NO_COLOR`` is set.

    Args:
        err: Whether to print to standard error.
    """

    def __init__(self, *, err: bool = False) -> None:
        self._console = Console(stderr=err, highlight=False, emoji=False)

    def line(self, text: str = "", style: str = "", *, indent: int = 0) -> None:
        """Print a line, wrapped to the width of the terminal."""
        self._print(Padding(_text(text, style), (0, 0, 0, indent)))

    def heading(self, text: str) -> None:
        """Print an empty line and a heading."""
        self.line()
        self.line(text, "bold")

    def rows(
        self,
        rows: Sequence[Row],
        *,
        indent: int = 2,
        widths: Sequence[int] = (),
        folds: bool = False,
    ) -> None:
        """Print a table; the last column takes the rest of the width.

        Args:
            rows: For each row its cells, as text and style.
            indent: Spaces in front.
            widths: Widths of the first columns in characters; other columns fit their text.
            folds: Whether a table that is too wide folds all columns but those of the first ones
                that fit into two thirds of the width.
        """
        if not rows:
            return
        cells = [[_text(text, style) for text, style in row] for row in rows]
        grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        last = len(rows[0]) - 1
        used = indent
        for index, column in enumerate(zip(*cells, strict=True)):
            width = widths[index] if index < len(widths) else None
            used += max(cell.cell_len for cell in column) + 2
            whole = used <= self.width * 2 / 3 if folds else index < last
            grid.add_column(width=width, overflow="fold", no_wrap=whole and width is None)
        for row in cells:
            grid.add_row(*row)
        self._print(Padding(grid, (0, 0, 0, indent)))

    def lines(self, rows: Sequence[Row], *, indent: int = 2) -> None:
        """Print a table with one line for each row, which may be wider than the terminal."""
        cells = [[_text(text.replace("\n", "\\n"), style) for text, style in row] for row in rows]
        widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
        for row in cells:
            line = Text(" " * indent)
            for cell, width in zip(row, widths, strict=True):
                line.append_text(cell).append(" " * (width - cell.cell_len + 2))
            line.rstrip()
            self._console.print(line, soft_wrap=True)

    def pairs(self, rows: Mapping[str, Any]) -> None:
        """Print names with their values as :func:`printable`, without those that are None."""
        told = {name: value for name, value in rows.items() if value is not None}
        self.rows([((name, "dim"), (printable(value), "")) for name, value in told.items()])

    def _print(self, content: RenderableType) -> None:
        if self._console.is_terminal:
            self._console.print(content)
            return
        # A file gets no trailing spaces.
        with self._console.capture() as printed:
            self._console.print(content)
        for line in printed.get().splitlines():
            self._console.print(Text(line.rstrip()), soft_wrap=True)

    @property
    def width(self) -> int:
        """Width of a line in characters."""
        return self._console.width

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show ``text`` beside a spinner during the ``with`` block, on a terminal only.

        Yields a function that replaces the text.
        """
        if not self._console.is_terminal:
            yield lambda _text: None
            return
        with self._console.status(_text(text)) as status:
            yield lambda later: status.update(_text(later))


def _text(text: str, style: str = "") -> Text:
    return Text(_CONTROL.sub(lambda found: repr(found[0])[1:-1], text), style)
