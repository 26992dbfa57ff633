"""Keys of the configuration, read from layers, with all complaints in one report.

Nothing here raises. What is wrong goes to the :class:`~litellm_plugin.config.report.Report`
and None comes back, as for a key that is not there; so one run finds every problem, and
nothing may be made of the values if there was one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from litellm_plugin.config.convert import Wrong, kind, text
from litellm_plugin.config.layers import Found, Layers, NotAnObject
from litellm_plugin.config.report import KeyPath, Report, dotted
from litellm_plugin.config.yaml12 import Value

_SEPARATOR = re.compile("[ ,]")
_INDEX = re.compile(r"\[\d+\]")

_NO_LIMIT = Wrong("something; leave the key out if there is to be no limit", got="nothing")

T = TypeVar("T")


def general(path: KeyPath) -> str:
    """Return ``path`` with ``[]`` for every index: ``litellm.provisioning.roles[].group``."""
    return _INDEX.sub("[]", dotted(path))


@dataclass(frozen=True, slots=True)
class Asked:
    """A key that was read, and what was found.

    Attributes:
        found: The value in each source that counts, the last one winning; none: not set.
        value: The value, merged where it is an object; None where there is none.
        secret: Whether the value may be shown to nobody.
    """

    path: KeyPath
    found: tuple[Found, ...]
    value: Value = field(repr=False)
    secret: bool


class Reader:
    """Reads the keys below one place of the configuration.

    Args:
        layers: The sources.
        report: Takes the problems.
        path: The place; none is the root.
        log: Takes every key that is read, in order.
    """

    def __init__(
        self, layers: Layers, report: Report, path: KeyPath = (), log: list[Asked] | None = None
    ) -> None:
        self._layers = layers
        self._report = report
        self._path = path
        self.log: list[Asked] = [] if log is None else log

    @property
    def asked(self) -> set[str]:
        """Every key that was read, as :func:`general` writes it."""
        return {general(asked.path) for asked in self.log}

    def at(self, key: str) -> Reader:
        """Return a reader for the object at ``key``, which need not be there."""
        return Reader(self._layers, self._report, self._full(key), self.log)

    # Complaints

    def require(self, *keys: str) -> None:
        """Report each of ``keys`` that is missing, if nothing explains it already."""
        for path in map(self._full, keys):
            # Nobody knows what an unreadable file says.
            if self._find(path) or self._report.blames(path) or self._report.incomplete:
                continue
            reason = self._layers.why_missing(path)
            self._report.problem(path, f"missing ({reason})" if reason else "missing")

    def refuse_left_out(self, key: str) -> None:
        """Report ``key`` if it was written and is left out, such as for want of a variable."""
        path = self._full(key)
        if not self._report.blames(path) and self._layers.why_missing(path):
            self.require(key)

    def problem(self, key: str, text: str) -> None:
        """Report what is wrong with ``key``; ``text`` must not quote its value."""
        self._report.problem(self._full(key), text)

    def warn(self, key: str, text: str) -> None:
        """Log what is odd about ``key``; ``text`` must not quote its value."""
        self._report.warn(self._full(key), text)

    # Values

    def has(self, key: str) -> bool:
        """Return whether there is a value at ``key``."""
        return self._find(self._full(key)) is not None

    def peek(self, key: str) -> Value:
        """Return the value at ``key`` as it is; None where there is none."""
        found = self._find(self._full(key))
        return found.value if found else None

    def get(self, key: str, convert: Callable[[Value], T], *, secret: bool = False) -> T | None:
        """Return the value at ``key``, converted; a ``secret`` is never shown."""
        found = self._ask(key, secret=secret)
        return self._converted(found, convert) if found else None

    def texts(self, key: str, *, empty_is_all: bool = False) -> tuple[str, ...] | None:
        """Return the list of strings at ``key``.

        With ``empty_is_all``, a list that is empty only because its entries are left out
        is a problem: it would allow everything where somebody meant to allow little.
        """
        found = self._ask(key)
        if found is None:
            return None
        if not isinstance(found.value, list):
            self._complain(found, Wrong("list of strings"))
            return None
        left_out = found.source.left_out.items()
        lost = [reason for path, reason in left_out if path[:-1] == found.path]
        for reason in lost:
            self.warn(key, f"an entry is left out, {reason}")
        if lost and not found.value and empty_is_all:
            wanted = "one that is not, as an empty list means everything"
            self._complain(found, Wrong(wanted, got="only entries that are left out"))
        return self._texts(found, found.value)

    def text_or_texts(self, key: str) -> tuple[str, ...] | None:
        """Return the string, or the strings of the list, at ``key``."""
        found = self._ask(key)
        if found is None:
            return None
        if isinstance(found.value, list):
            return self._texts(found, found.value)
        if isinstance(found.value, str):
            return (found.value,)
        self._complain(found, Wrong("string or list of strings"))
        return None

    def limit(self, key: str) -> tuple[str, ...]:
        """Return the words at ``key``: a list, or text with commas or spaces between them.

        They limit what a token can do, so that none at all is no limit. A key that is given
        without a word is a problem, and so is one that was written and is left out.
        """
        texts = self.text_or_texts(key)
        words = [word for text in texts or () for word in _SEPARATOR.split(text) if word]
        found = self._find(self._full(key))
        if found is None:
            self.refuse_left_out(key)
        elif texts is not None and not words:
            self._complain(found, _NO_LIMIT)
        return tuple(dict.fromkeys(words))

    def mapping(self, key: str) -> dict[str, Value] | None:
        """Return the object at ``key``, merged over all sources; it may hold anything."""
        found = self._ask(key)
        if found is None:
            return None
        # Inside of a list there is nothing to merge, and nulls stay.
        in_list = any(isinstance(part, int) for part in found.path)
        value = found.value
        if not in_list:
            value = self._merged(found.path)
            found_all = tuple(self._layers.all_found(found.path))
            self.log[-1] = Asked(found.path, found_all, value, secret=False)
        if not isinstance(value, dict):
            self._complain(found, Wrong("object"))
            return None
        for path, number in _floats(value, found.path):
            if not math.isfinite(number):  # JSON has no way to write it
                self._complain(Found(path, number, found.source), Wrong("number"))
        return value

    def elements(self, key: str, *, limits: bool = False) -> list[Reader] | None:
        """Return a reader for each object of the list at ``key``.

        Args:
            key: The key.
            limits: Whether the list limits something, so that none at all is no limit. An
                empty one is a problem then, and so is one that was written and is left out.
        """
        found = self._find(self._full(key))
        if found is None:
            if limits:
                self.refuse_left_out(key)
            return None
        if not isinstance(found.value, list):
            self._complain(found, Wrong("list of objects"))
            return None
        if limits and not found.value:
            self._complain(found, _NO_LIMIT)
        # Lists replace each other: an element is from one source, nothing lies below it.
        layers = Layers([found.source])
        readers = []
        for index, value in enumerate(found.value):
            path = (*found.path, index)
            if isinstance(value, dict):
                readers.append(Reader(layers, self._report, path, self.log))
            else:
                self._complain(Found(path, value, found.source), Wrong("object"))
        return readers

    def everything(self) -> dict[str, Value]:
        """Return the object at this place, merged over all sources; empty if there is none."""
        value = self._merged(self._path)
        return value if isinstance(value, dict) else {}

    # Inside

    def _full(self, key: str) -> KeyPath:
        return (*self._path, *key.split("."))

    def _ask(self, key: str, *, secret: bool = False) -> Found | None:
        path = self._full(key)
        found = self._find(path)
        value = found.value if found else None
        self.log.append(Asked(path, (found,) if found else (), value, secret))
        return found

    def _find(self, path: KeyPath) -> Found | None:
        try:
            return self._layers.find(path)
        except NotAnObject as exc:
            self._complain(exc.found, Wrong("object"))
            return None

    def _merged(self, path: KeyPath) -> Value:
        try:
            return self._layers.merged(path)
        except NotAnObject as exc:
            self._complain(exc.found, Wrong("object"))
            return None

    def _complain(self, found: Found, wrong: Wrong) -> None:
        got = wrong.got or kind(found.value)
        self._report.problem(found.path, f"got {got} in {found.origin}, wanted {wrong.wanted}")

    def _converted(self, found: Found, convert: Callable[[Value], T]) -> T | None:
        try:
            return convert(found.value)
        except Wrong as wrong:
            self._complain(found, wrong)
            return None

    def _texts(self, found: Found, values: list[Value]) -> tuple[str, ...]:
        elements = (Found((*found.path, i), value, found.source) for i, value in enumerate(values))
        texts = [self._converted(element, text) for element in elements]
        return tuple(text for text in texts if text is not None)


def _floats(value: Value, path: KeyPath) -> Iterator[tuple[KeyPath, float]]:
    """Yield every fraction in ``value``, and where it is."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _floats(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _floats(item, (*path, key))
