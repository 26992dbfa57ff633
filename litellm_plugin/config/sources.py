"""Reads configuration files and ``APP_CONFIG_*``, and merges them like Backstage.

The result is a :class:`Tree`, with the origin of each value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litellm_plugin.config import yaml12
from litellm_plugin.config.report import KeyPath, Report, deepest
from litellm_plugin.config.yaml12 import Value, YamlError, finite

_PREFIX = "APP_CONFIG_"
_KEY_PART = re.compile(r"[a-z][a-z0-9]*(?:[-_:][a-z0-9]+)*", re.IGNORECASE | re.ASCII)
_NAME = re.compile(r"[a-z_][a-z0-9_]*", re.IGNORECASE | re.ASCII)
_PLACEHOLDER = re.compile(r"(\$?\$\{[^{}]*\})")
INCLUDES = ("$file", "$env", "$include")
_PARSED = (".json", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Dropped:
    """Takes the place of a value that is left out, for ``reason``."""

    reason: str


def default_paths(environ: Mapping[str, str], cwd: Path) -> list[Path]:
    """Return the configuration files to read, in order.

    These are the files in ``LITELLM_PLUGIN_CONFIG``, separated by commas. Without it, they are
    those of Backstage without ``--config``: ``app-config.yaml`` in ``cwd``, and, where they
    exist, ``app-config.<env>.yaml`` for each of ``BACKSTAGE_ENV``, ``app-config.local.yaml``
    and ``app-config.<env>.local.yaml``.
    """
    if listed := _words(environ.get("LITELLM_PLUGIN_CONFIG", "")):
        return [cwd / name for name in listed]
    envs = _words(environ.get("BACKSTAGE_ENV", ""))
    middles = [*envs, "local", *(f"{env}.local" for env in envs)]
    optional = [cwd / f"app-config.{middle}.yaml" for middle in middles]
    return [cwd / "app-config.yaml", *(path for path in optional if path.exists())]


def _words(text: str) -> list[str]:
    return [word for word in map(str.strip, text.split(",")) if word]


@dataclass(slots=True)
class Tree:
    """The merged configuration of all sources.

    Objects are merged deeply, other values are replaced, and null removes a key.
    """

    data: dict[str, Value] = field(default_factory=dict)
    # The file of each value that is not an object, or `env`.
    origins: dict[KeyPath, str] = field(default_factory=dict)
    # For a value, other than an object, from a variable or an included file: its source, such as
    # `${X}`, `default of ${X}` or `$file name`.
    filled: dict[KeyPath, str] = field(default_factory=dict)
    # Keys that are written but missing from `data`, and the reason.
    left_out: dict[KeyPath, str] = field(default_factory=dict)
    # For each list with entries that are left out, the reason for each of these entries.
    lost: dict[KeyPath, list[str]] = field(default_factory=dict)

    def at(self, *path: str | int) -> Value:
        """Return the value at ``path``; None where there is none."""
        value: Value = self.data
        for part in path:
            if isinstance(value, dict):
                value = value.get(str(part))
            elif isinstance(value, list) and isinstance(part, int):
                value = value[part]
            else:
                return None
        return value

    def origins_of(self, path: KeyPath) -> list[str]:
        """Return the files that have a value at ``path``; the last one overrides the others."""
        below = [name for place, name in self.origins.items() if place[: len(path)] == path]
        above = deepest(path, self.origins)
        return list(dict.fromkeys(below or filter(None, [above])))

    def forget(self, path: KeyPath) -> None:
        """Drop origins and other notes of ``path`` and of everything below it."""
        for notes in (self.origins, self.filled, self.left_out, self.lost):
            for place in [place for place in notes if place[: len(path)] == path]:
                del notes[place]


def read_tree(paths: Sequence[Path], environ: Mapping[str, str], report: Report) -> Tree:
    """Read the files in order, and ``APP_CONFIG_*`` after them.

    Sources that can't be read are added to ``report`` and left out.
    """
    names = [path.name for path in paths]
    tree = Tree()
    for path in paths:
        name = path.name if names.count(path.name) == 1 else str(path)
        _read_file(path, name, environ, tree, report)
    data, variables = _read_environment(environ, report)
    _Layer(tree, environ, report, variables).add(data, _Place("env", Path()))
    return tree


def substitute(text: str, environ: Mapping[str, str]) -> tuple[str | Dropped, str | None]:
    """Replace ``${X}`` and ``${X:-default}``; return the text and the variables used.

    Replaced text is not searched again. ``$${X}`` becomes ``${X}``. If a variable is not set, the
    whole text is dropped.
    """
    parts = _PLACEHOLDER.split(text)
    filled: dict[str, None] = {}
    for index in range(1, len(parts), 2):
        part = parts[index]
        if part.startswith("$$"):
            parts[index] = part[1:]
            continue
        name, has_default, default = part[2:-1].partition(":-")
        name = name.strip()
        value = _variable(name, environ)
        uses_default = has_default and not value
        if uses_default:
            value = default.strip() or None
        if value is None:
            return _not_set(name), None
        parts[index] = value
        if _NAME.fullmatch(name):
            filled[f"default of ${{{name}}}" if uses_default else f"${{{name}}}"] = None
    return "".join(parts), ", ".join(filled) or None


def _not_set(name: str) -> Dropped:
    # A text that can't be a variable's name may be a secret, so it is not shown.
    return Dropped(f"{name if _NAME.fullmatch(name) else 'the variable it names'} is not set")


def _variable(name: str, environ: Mapping[str, str]) -> str | None:
    value = environ.get(name)
    return None if value is None else value.strip()


def _read_environment(
    environ: Mapping[str, str], report: Report
) -> tuple[dict[str, Value], dict[KeyPath, str]]:
    """Return the configuration in ``APP_CONFIG_*``, and the variable that sets each key."""
    data: dict[str, Value] = {}
    variables: dict[KeyPath, str] = {}
    for variable, text in environ.items():
        if text and variable.startswith(_PREFIX):
            try:
                parts = variable.removeprefix(_PREFIX).split("_")
                _nest(data, parts, _json_or_text(text))
                variables[tuple(parts)] = variable
            except ValueError as exc:
                report.problem((variable,), str(exc))
    return data, variables


def _nest(data: dict[str, Value], parts: list[str], value: Value) -> None:
    if not all(_KEY_PART.fullmatch(part) for part in parts):
        raise ValueError("not the name of a configuration key")
    if value is None:
        raise ValueError("null is not allowed; leave the variable out, or empty")
    for depth, part in enumerate(parts[:-1], start=1):
        below = data.setdefault(part, {})
        if not isinstance(below, dict):
            raise ValueError(f"{_PREFIX}{'_'.join(parts[:depth])} has a value that is no object")
        data = below
    if parts[-1] in data:
        raise ValueError("another variable sets this key already")
    data[parts[-1]] = value


def _json_or_text(text: str) -> Value:
    try:
        return _parse_json(text)
    except (ValueError, RecursionError):
        return text


def _parse_json(text: str) -> Value:
    # json.loads accepts NaN and Infinity, which JSON does not have.
    value: Value = json.loads(text, parse_constant=finite, parse_float=finite)
    return value


def _read_file(
    path: Path, name: str, environ: Mapping[str, str], tree: Tree, report: Report
) -> None:
    try:
        raw = yaml12.load(_text_of(path))
    except _Unreadable as exc:
        report.unreadable(str(path), str(exc))
    except YamlError as exc:
        report.unreadable(name, str(exc))
    else:
        _Layer(tree, environ, report).add(raw, _Place(name, path.absolute().parent))


class _Unreadable(Exception):
    """A file can't be read; the message follows the file's name in a sentence."""


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise _Unreadable("is not text in UTF-8") from None
    except (FileNotFoundError, ValueError):  # a ValueError where its name has a null byte
        raise _Unreadable("does not exist") from None
    except OSError as exc:
        raise _Unreadable(f"can't be read ({exc.strerror})") from None


class _IncludeError(Exception):
    """An include fails; the message does not quote the included text."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of a value: its file, folder, and the includes that led to the file."""

    name: str
    folder: Path
    includes: tuple[tuple[Path, str], ...] = ()  # file, and path inside the file


@dataclass(frozen=True, slots=True)
class _Layer:
    """Merges one source into a tree, with variables and includes replaced."""

    tree: Tree  # receives the values and their origins
    environ: Mapping[str, str]
    report: Report  # receives the problems
    # The variable that sets each key, where the source is APP_CONFIG_*. Its values are used as they
    # are, without variables and includes.
    variables: Mapping[KeyPath, str] | None = None

    def add(self, raw: Value, place: _Place) -> None:
        """Merge the source into the tree."""
        found, place, _ = self._resolved(raw, (), place)
        if isinstance(found, dict):
            self.tree.data = self._object(found, self.tree.data, (), place)
        elif found is not None and not isinstance(found, Dropped):
            self.report.unreadable(place.name, "expected an object at the root")

    def _object(
        self, raw: dict[str, Value], below: Value, path: KeyPath, place: _Place
    ) -> dict[str, Value]:
        """Return ``raw`` merged into ``below``, the value of earlier sources at ``path``."""
        merged = dict(below) if isinstance(below, dict) else {}
        # Null removes a key, except in the metadata of an entry of a list.
        null_is_kept = "metadata" in path and any(isinstance(part, int) for part in path)
        for key, item in raw.items():
            inner = (*path, key)
            found, at, filled = self._resolved(item, inner, place)
            if isinstance(found, Dropped):  # the value of an earlier source stays
                self.tree.left_out[inner] = found.reason
            elif found is None and not null_is_kept:
                merged.pop(key, None)
                self.tree.forget(inner)
                self.tree.left_out[inner] = f"null in {at.name}"
            else:
                merged[key] = self._laid(found, merged.get(key), inner, at, filled)
        return merged

    def _laid(
        self, found: Value, below: Value, path: KeyPath, place: _Place, filled: str | None
    ) -> Value:
        """Return ``found`` merged into ``below``, and record its origin."""
        if below is not None and not (isinstance(found, dict) and isinstance(below, dict)):
            self.tree.forget(path)
        self.tree.left_out.pop(path, None)
        if filled:
            self.tree.filled[path] = filled
        if not isinstance(found, dict) or not found:
            self.tree.origins[path] = place.name
        if isinstance(found, dict):
            return self._object(found, below, path, place)
        if not isinstance(found, list):
            return found
        items: list[Value] = []
        for raw in found:
            inner = (*path, len(items))
            item, at, filled = self._resolved(raw, inner, place)
            if isinstance(item, Dropped):
                self.tree.lost.setdefault(path, []).append(item.reason)
            else:
                items.append(self._laid(item, None, inner, at, filled))
        return items

    def _resolved(
        self, raw: Value, path: KeyPath, place: _Place
    ) -> tuple[Value | Dropped, _Place, str | None]:
        """Return the value of ``raw``, its place, and the variable or file that it is from.

        Only ``raw`` itself is resolved, not values inside it, and an included value is not
        resolved again.
        """
        if self.variables is not None:
            return raw, place, deepest(path, self.variables)
        if isinstance(raw, str):
            found, filled = substitute(raw, self.environ)
            return found, place, filled
        if isinstance(raw, dict) and any(key in INCLUDES for key in raw):
            try:
                return self._included(raw, place)
            except _IncludeError as exc:
                if path:
                    self.report.problem(path, str(exc))
                else:
                    self.report.unreadable(place.name, str(exc))
                return Dropped(str(exc)), place, None
        return raw, place, None

    def _included(
        self, raw: dict[str, Value], place: _Place
    ) -> tuple[Value | Dropped, _Place, str | None]:
        """Return the value of an include, as :meth:`_resolved` does.

        Raises:
            _IncludeError: The include is malformed, or its source can't be read.
        """
        keyword = next(key for key in raw if key in INCLUDES)
        if len(raw) != 1:
            raise _IncludeError(f"{keyword} in {place.name} stands beside other keys")
        written = raw[keyword]
        if not isinstance(written, str):
            raise _IncludeError(f"{keyword} in {place.name} must be a string")
        target, _ = substitute(written, self.environ)
        if isinstance(target, Dropped):
            raise _IncludeError(f"{keyword} in {place.name}: {target.reason}")
        # Messages show a name as it is written. With variables replaced it may be a secret, as
        # in {$file: "${TOKEN}"}, written by mistake for {$env: TOKEN}.
        shown = f"{keyword} {written} in {place.name}"
        if keyword == "$env":
            value = _variable(target, self.environ)
            filled = f"$env {written}" if _NAME.fullmatch(written) else "$env"
            return (_not_set(written) if value is None else value), place, filled
        try:
            if keyword == "$file":
                filled = "$file" if "${" in written else f"$file {written}"
                return _text_of(place.folder / target).rstrip(), place, filled
            found, at = self._data_of(target, place, shown)
            filled = "$include" if "${" in written else f"$include {written}"
            return found, at, None if isinstance(found, dict) else filled
        except _Unreadable as exc:
            raise _IncludeError(f"{shown} {exc}; looked in {place.folder}") from None

    def _data_of(self, target: str, place: _Place, shown: str) -> tuple[Value | Dropped, _Place]:
        name, _, inside = target.partition("#")
        file = place.folder / name
        if file.suffix not in _PARSED:
            raise _IncludeError(f"{shown} must name a .yaml, .yml or .json file")
        step = (file, inside)
        if step in place.includes:
            raise _IncludeError(f"{shown} includes itself")
        try:
            parse = _parse_json if file.suffix == ".json" else yaml12.load
            value = parse(_text_of(file))
        except YamlError as exc:
            raise _IncludeError(f"{shown}: {exc}") from None
        except json.JSONDecodeError as exc:
            raise _IncludeError(f"{shown}: line {exc.lineno}: not JSON") from None
        except (ValueError, RecursionError):
            raise _IncludeError(f"{shown}: not JSON") from None
        found: Value | Dropped = value
        for part in inside.split(".") if inside else ():
            if not isinstance(found, dict):
                raise _IncludeError(f"{shown}: the path leads through a value that is no object")
            found = found.get(part, Dropped(f"{shown} has no value"))
        if isinstance(found, str):
            found, _ = substitute(found, self.environ)
        return found, _Place(file.name, file.parent, (*place.includes, step))
