"""The ``app-config.yaml`` of the repo, with its keys behind ``#`` switched on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from litellm_plugin.config.reader import general
from litellm_plugin.config.report import KeyPath
from litellm_plugin.config.yaml12 import Value

PATH = Path(__file__).parents[2] / "app-config.yaml"

_OFF = re.compile(r"^( *)#(?=\S)", re.MULTILINE)
_OFF_WITH_DEFAULT = re.compile(r"^( *)#(?=\S.*  # [a-z ]+, default;)", re.MULTILINE)

# What the examples in it refer to.
ENVIRON = {
    "BACKSTAGE_TOKEN": "a-backstage-token",
    "EXTERNAL_TOKEN": "an-external-token",
    "EXTERNAL_SECRET": "c2VjcmV0",
    "BACKEND_SECRET": "c2VjcmV0",
}
FILES = ("keys/litellm.pub.pem", "keys/litellm.pem")


def everything_on() -> str:
    """Return its text with every key on; its files are looked for where the test is."""
    return _OFF.sub(r"\1", PATH.read_text(encoding="utf-8")).replace("/etc/ssl/", "keys/")


def defaults_on() -> str:
    """Return its text with those keys on of which the comment says that it is the default."""
    return _OFF_WITH_DEFAULT.sub(r"\1", PATH.read_text(encoding="utf-8"))


def leaves(value: Value, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Value]]:
    """Yield what ``value`` has apart from objects and lists of objects, and where."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path, value


def known(path: KeyPath, keys: set[str]) -> str:
    """Return the key that ``path`` belongs to: one of ``keys``, if it or one above it is."""
    above = (general(path[:length]) for length in range(len(path), 0, -1))
    return next((key for key in above if key in keys), general(path))
