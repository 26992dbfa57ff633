"""Sources on top of each other, asked from the last one down.

They are not merged beforehand: so the file that a value is from is known, and a wrong
type in a later file is an error even where an earlier one is right, as in Backstage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from litellm_plugin.config.report import KeyPath
from litellm_plugin.config.yaml12 import Value


class _Absent(Enum):
    ABSENT = 0


_ABSENT = _Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Source:
    """What one file, or the environment, says.

    Attributes:
        name: What messages call it: the file's name, or ``env``.
        data: Its objects, lists and scalars. Null removes what earlier sources say.
        left_out: Keys that were written and are not there, and why.
            For an element of a list, the index where it would be.
        included: Keys whose value is from another file, and that file's name.
        filled: Keys whose value is from a variable or a file of its own, and which: such as
            ``${X}``, or ``default of ${X}``.
    """

    name: str
    data: dict[str, Value] = field(repr=False)
    left_out: Mapping[KeyPath, str] = field(default_factory=dict)
    included: Mapping[KeyPath, str] = field(default_factory=dict)
    filled: Mapping[KeyPath, str] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> str:
        """Return the name of the file that the value at ``path`` was written in."""
        return deepest(path, self.included) or self.name

    def at(self, path: KeyPath) -> Value | _Absent:
        """Return the value at ``path``; None too where a null stands above it.

        Raises:
            NotAnObject: Something above it is neither an object nor null.
        """
        value: Value = self.data
        for depth, part in enumerate(path):
            if value is None:
                return None
            if isinstance(value, list) and isinstance(part, int):
                value = value[part]
            elif not isinstance(value, dict):
                raise NotAnObject(Found(path[:depth], value, self))
            elif part not in value:
                return _ABSENT
            else:
                value = value[str(part)]
        return value


@dataclass(frozen=True, slots=True)
class Found:
    """A value, and where it was found."""

    path: KeyPath
    value: Value = field(repr=False)
    source: Source = field(repr=False)

    @property
    def origin(self) -> str:
        """The name of the file it was written in."""
        return self.source.origin(self.path)

    @property
    def filled(self) -> str | None:
        """The variable or file that the value is from, as it was written; None: neither."""
        return deepest(self.path, self.source.filled)


class NotAnObject(Exception):
    """Something has to be an object to hold a key, and is none."""

    def __init__(self, found: Found) -> None:
        super().__init__(found)
        self.found = found


class Layers:
    """Several sources, the earliest first."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def find(self, path: KeyPath) -> Found | None:
        """Return the value of the last source that has ``path``.

        Returns:
            None where there is none, or a null on top.

        Raises:
            NotAnObject: Something above ``path`` is in the way.
        """
        return next(self._found(path), None)

    def all_found(self, path: KeyPath) -> list[Found]:
        """Return what each source has at ``path`` that counts where objects are merged.

        Raises:
            NotAnObject: Something above ``path`` is in the way.
        """
        return list(reversed(list(self._found(path))))

    def merged(self, path: KeyPath) -> Value:
        """Return the value at ``path``, an object laid over those of earlier sources.

        Raises:
            NotAnObject: Something above ``path`` is in the way.
        """
        value: Value = None
        for found in self.all_found(path):
            value = merge(found.value, value)
        return value

    def why_missing(self, path: KeyPath) -> str | None:
        """Return why ``path``, or what holds it, was written and is not there.

        Raises:
            NotAnObject: Something above ``path`` is in the way.
        """
        for source in reversed(self._sources):
            if reason := deepest(path, source.left_out):
                return reason
            if source.at(path) is None:
                return f"null in {source.name}"
        return None

    def _found(self, path: KeyPath) -> Iterator[Found]:
        """Yield what the sources have at ``path``, the last first, down to a null."""
        for source in reversed(self._sources):
            value = source.at(path)
            if value is None:
                return
            if value is not _ABSENT:
                yield Found(path, value, source)


def deepest(path: KeyPath, notes: Mapping[KeyPath, str]) -> str | None:
    """Return the note on ``path``, else on the nearest key above it that has one."""
    prefixes = (path[:length] for length in range(len(path), 0, -1))
    return next((notes[prefix] for prefix in prefixes if prefix in notes), None)


def merge(later: Value, earlier: Value) -> Value:
    """Return ``later`` laid over ``earlier``.

    Objects are merged deeply, anything else is replaced, and a null in ``later`` takes
    a key away. Lists are left as they are, the nulls in them too.
    """
    if not isinstance(later, dict):
        return later
    below = earlier if isinstance(earlier, dict) else {}
    merged = {key: merge(later.get(key, value), value) for key, value in below.items()}
    merged |= {key: merge(value, None) for key, value in later.items() if key not in below}
    return {key: value for key, value in merged.items() if value is not None}
