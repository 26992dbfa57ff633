"""Options, output and exit statuses of the operators' commands.

A command collects its result in one object. ``--json`` prints this object; the text for people is
made from it. Only this module imports rich.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

import click
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from litellm_plugin.config import ConfigError, default_paths, load_settings
from litellm_plugin.redaction import redact

FAILED, FAULTY = 1, 2  # exit statuses: something failed; the configuration is faulty

MASK = "********"  # the same for each secret, so that the length is not shown

# Beginnings of cells that spreadsheets evaluate as formulas; some accept full-width signs, too.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}

Row = Sequence[tuple[str, str]]  # cells: text and style

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


config_option = click.option(
    "--config",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration file. Repeat the option for several; later files win.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option ``--config``, and pass the configuration as ``settings``.

    Ends the command with status 2 if the configuration is faulty, or needs a Python package that
    is not installed.
    """

    @config_option
    @wraps(command)
    def wrapped(*, files: Sequence[Path], **options: Any) -> None:
        try:
            command(settings=load_settings(paths_of(files), os.environ), **options)
        except ConfigError as exc:
            stop(f"The configuration is faulty:\n{exc}", FAULTY)

    return wrapped


def paths_of(files: Sequence[Path]) -> list[Path]:
    """Return ``files``, or the service's configuration files if there are none."""
    return list(files) or default_paths(os.environ, Path.cwd())


def stop(text: str, status: int) -> NoReturn:
    """End the command with an exit status, and a text on standard error."""
    click.echo(visible(text), err=True)
    sys.exit(status)


def visible(text: str) -> str:
    """Return ``text`` with control characters as escapes, except for tabs and line ends.

    Names and errors come from other systems, and a terminal obeys control characters.
    """
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def counted(number: int, word: str) -> str:
    """Return ``number`` with ``word`` in singular or plural."""
    return f"{number} {word}" + ("" if number == 1 else "s")


def full_ref(kind: str, name: str) -> str:
    """Return the ref of an entity by its ref, or by its name in the default namespace."""
    return name if ":" in name else f"{kind}:default/{name}"


def show(
    found: Any, text: Callable[[Page, Any], None], *, as_json: bool, failed: bool = False
) -> None:
    """Print the result of a command as JSON, or for people by ``text``.

    Ends the command with status 1 if it ``failed``.
    """
    if as_json:
        print_json(found)
    else:
        text(Page(), found)
    if failed:
        sys.exit(FAILED)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as CSV."""
    writer = csv.writer(sys.stdout)
    writer.writerow(head)
    writer.writerows(rows)
    sys.stdout.flush()  # click handles a closed pipe here, and not when Python ends


def csv_text(text: str) -> str:
    """Return a cell of CSV, with an apostrophe before a text that a spreadsheet would evaluate."""
    return f"'{text}" if text.startswith(FORMULA) else text


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

    Takes a ``[`` literally, not as mark-up, and escapes control characters.

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

    def rows(self, rows: Sequence[Row], *, indent: int = 2, widths: Sequence[int] = ()) -> None:
        """Print a table.

        The first columns that fit into two thirds of the width are as wide as their text; the
        others are folded if the table is too wide.

        Args:
            rows: For each row its cells, as text and style.
            indent: Spaces in front.
            widths: Widths of the first columns in characters.
        """
        if not rows:
            return
        cells = [[_text(text, style) for text, style in row] for row in rows]
        grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        used = indent
        for index, column in enumerate(zip(*cells, strict=True)):
            width = widths[index] if index < len(widths) else None
            used += max(cell.cell_len for cell in column) + 2
            fits = width is None and used <= self.width * 2 / 3
            grid.add_column(width=width, overflow="fold", no_wrap=fits)
        for row in cells:
            grid.add_row(*row)
        self._print(Padding(grid, (0, 0, 0, indent)))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print a table with a heading for each column."""
        self.rows(_with_head(head, rows))

    def lines(self, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print a table with one line for each row, which may be wider than the terminal."""
        cells = [
            [_text(text.replace("\n", "\\n"), style) for text, style in row]
            for row in _with_head(head, rows)
        ]
        widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
        for row in cells:
            line = Text("  ")
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
    return Text(visible(text), style)


def _with_head(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Row]:
    return [[(text, "dim") for text in head], *([(str(cell), "") for cell in row] for row in rows)]
