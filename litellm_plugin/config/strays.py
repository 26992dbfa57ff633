"""Keys in the configuration that nothing reads: slips of the pen, mostly."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from litellm_plugin.config.reader import general
from litellm_plugin.config.report import KeyPath
from litellm_plugin.config.yaml12 import Value

_ALIKE = 0.75  # of 1; "masterkey", "base_url" and "rolls" are, "title" and "theme" are not


@dataclass(frozen=True, slots=True)
class Stray:
    """A key that nothing reads, and the name of the key that may be meant."""

    path: KeyPath
    meant: str | None


def strays(value: Value, path: KeyPath, asked: Collection[str]) -> Iterator[Stray]:
    """Yield the topmost keys below ``path`` that were not asked for.

    Args:
        value: What the configuration has there.
        path: The place, from the root.
        asked: The keys that were, as :func:`~litellm_plugin.config.reader.general` writes them.
    """
    place = general(path)
    if place in asked:
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from strays(item, (*path, index), asked)
    elif isinstance(value, dict):
        known = _below(place, asked)
        for name, inner in value.items():
            if name in known:
                yield from strays(inner, (*path, name), asked)
            else:
                yield Stray((*path, name), _closest(name, known))


def _below(place: str, keys: Collection[str]) -> set[str]:
    """Return the names of the known keys directly below ``place``."""
    start = f"{place}."
    return {
        key.removeprefix(start).partition(".")[0].removesuffix("[]")
        for key in keys
        if key.startswith(start)
    }


def _closest(name: str, known: Collection[str]) -> str | None:
    by_plain_name = {_plain(other): other for other in known}
    close = difflib.get_close_matches(_plain(name), by_plain_name, n=1, cutoff=_ALIKE)
    return by_plain_name[close[0]] if close else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
