"""The report of a configuration: all problems and warnings at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TypeVar

from litellm_plugin.redaction import printable, safe_line

_logger = logging.getLogger(__name__)

KeyPath = tuple[str | int, ...]
T = TypeVar("T")


def dotted(path: KeyPath) -> str:
    """Return ``path`` as messages write it, such as ``litellm.provisioning.roles[0].group``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def deepest(path: KeyPath, notes: Mapping[KeyPath, T]) -> T | None:
    """Return the note on ``path``, else on the nearest key above it that has one."""
    prefixes = (path[:length] for length in range(len(path), 0, -1))
    return next((notes[prefix] for prefix in prefixes if prefix in notes), None)


class ConfigError(Exception):
    """The configuration is missing something or has errors.

    Attributes:
        problems: One line each, with key, file and value, and without secrets.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems)
        self.problems = list(map(printable, problems))

    def __str__(self) -> str:
        return "\n".join(self.problems)


class Report:
    """Collects problems, in the order in which they are found and without duplicates.

    Attributes:
        warnings: One line each; they are logged, too.
        incomplete: Whether a file can't be read, so that missing keys may be in it.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.incomplete = False
        self._lines: dict[str, None] = {}
        self._blamed: dict[KeyPath, bool] = {}

    def problem(self, path: KeyPath, text: str) -> None:
        """Add a problem of the key at ``path``."""
        self._blamed[path] = True
        self._add(f"{dotted(path)}: {text}")

    def missing(self, path: KeyPath, reason: str | None) -> None:
        """Add that the key at ``path`` is missing, unless another problem explains that."""
        if not deepest(path, self._blamed) and not self.incomplete:
            self.problem(path, f"missing ({reason})" if reason else "missing")

    def unreadable(self, source: str, text: str) -> None:
        """Add why the file ``source`` can't be read."""
        self.incomplete = True
        self._add(f"{source}: {text}")

    def warn(self, path: KeyPath, text: str) -> None:
        """Add and log a warning about the key at ``path``; ``text`` must not quote a secret."""
        line = safe_line(f"{dotted(path)}: {text}")
        _logger.warning("%s", line)
        self.warnings.append(line)

    @property
    def problems(self) -> list[str]:
        """One line each."""
        return list(self._lines)

    def _add(self, line: str) -> None:
        # A key may have a secret or a line break in it, where one was written by mistake.
        self._lines[safe_line(line)] = None
