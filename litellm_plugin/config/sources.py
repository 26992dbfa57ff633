"""The places configuration comes from, read as Backstage reads them.

Each becomes a :class:`~litellm_plugin.config.layers.Source`, with its variables filled
in and its includes in place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from litellm_plugin.config import javascript, yaml12
from litellm_plugin.config.layers import Source, deepest
from litellm_plugin.config.report import KeyPath, Report
from litellm_plugin.config.yaml12 import Value, YamlError

_PREFIX = "APP_CONFIG_"
_KEY_PART = re.compile(r"[a-z][a-z0-9]*(?:[-_:][a-z0-9]+)*", re.IGNORECASE | re.ASCII)
_NAME = re.compile(r"[a-z_][a-z0-9_]*", re.IGNORECASE | re.ASCII)
_PLACEHOLDER = re.compile(r"(\$?\$\{[^{}]*\})")
_INCLUDES = ("$file", "$env", "$include")
_PARSED = (".json", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Dropped:
    """Stands where a value would be that is left out."""

    reason: str


def default_paths(environ: Mapping[str, str], cwd: Path) -> list[Path]:
    """Return the configuration files to read, in order.

    Those of ``LITELLM_PLUGIN_CONFIG``, a list with commas. Without it, as Backstage does
    without ``--config``: ``app-config.yaml`` of ``cwd``, whether it is there or not, and
    the ``app-config.<env>.yaml`` for each of ``BACKSTAGE_ENV``, ``app-config.local.yaml``
    and ``app-config.<env>.local.yaml`` that are.
    """
    if listed := _words(environ.get("LITELLM_PLUGIN_CONFIG", "")):
        return [cwd / name for name in listed]
    envs = _words(environ.get("BACKSTAGE_ENV", ""))
    middles = [*envs, "local", *(f"{env}.local" for env in envs)]
    optional = [cwd / f"app-config.{middle}.yaml" for middle in middles]
    return [cwd / "app-config.yaml", *(path for path in optional if path.exists())]


def _words(text: str) -> list[str]:
    return [word for word in map(str.strip, text.split(",")) if word]


def read_sources(paths: Sequence[Path], environ: Mapping[str, str], report: Report) -> list[Source]:
    """Read the files in order, and ``APP_CONFIG_*`` after them.

    What can't be read is told to ``report`` and left out.
    """
    names = [path.name for path in paths]
    sources = []
    for path in paths:
        name = path.name if names.count(path.name) == 1 else str(path)
        if source := _read_file(path, name, environ, report):
            sources.append(source)
    filled: dict[KeyPath, str] = {}
    if data := _read_environment(environ, report, filled):
        sources.append(Source("env", data, filled=filled))
    return sources


def substitute(text: str, environ: Mapping[str, str]) -> str | Dropped:
    """Return ``text`` with each ``${X}`` and ``${X:-default}`` filled in, once.

    ``$${X}`` is the way to write ``${X}``. One variable that is not set drops the whole.
    """
    parts = _PLACEHOLDER.split(text)
    for index in range(1, len(parts), 2):
        part = parts[index]
        if part.startswith("$$"):
            parts[index] = part[1:]
            continue
        name, has_default, default = part[2:-1].partition(":-")
        name = javascript.trim(name)
        value = _variable(name, environ)
        if has_default and not value:
            value = javascript.trim(default) or None
        if value is None:
            return _not_set(name)
        parts[index] = value
    return "".join(parts)


def _variables(text: str, environ: Mapping[str, str]) -> str:
    """Return the variables that ``text`` takes in, as it writes them; "" for none."""
    names = []
    for part in _PLACEHOLDER.findall(text):
        name, has_default, _ = part[2:-1].partition(":-")
        name = javascript.trim(name)
        if part.startswith("$$") or not _NAME.fullmatch(name):
            continue
        unset = has_default and not _variable(name, environ)
        names.append(f"default of ${{{name}}}" if unset else f"${{{name}}}")
    return ", ".join(dict.fromkeys(names))


def _not_set(name: str) -> Dropped:
    # What is no variable's name may be a secret that got between the braces.
    return Dropped(f"{name if _NAME.fullmatch(name) else 'the variable it names'} is not set")


def _variable(name: str, environ: Mapping[str, str]) -> str | None:
    value = environ.get(name)
    return None if value is None else javascript.trim(value)


def _read_environment(
    environ: Mapping[str, str], report: Report, filled: dict[KeyPath, str]
) -> dict[str, Value]:
    data: dict[str, Value] = {}
    for variable, text in environ.items():
        if text and variable.startswith(_PREFIX):
            try:
                parts = variable.removeprefix(_PREFIX).split("_")
                _nest(data, parts, _json_or_text(text))
                filled[tuple(parts)] = variable
            except ValueError as exc:
                report.problem((variable,), str(exc))
    return data


def _nest(data: dict[str, Value], parts: list[str], value: Value) -> None:
    if not all(_KEY_PART.fullmatch(part) for part in parts):
        raise ValueError("no key of the configuration can be named like that")
    if value is None:
        raise ValueError("null has no meaning here; leave the variable out, or empty")
    for depth, part in enumerate(parts[:-1], start=1):
        below = data.setdefault(part, {})
        if not isinstance(below, dict):
            raise ValueError(f"{_PREFIX}{'_'.join(parts[:depth])} is set, and is no object")
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
    value: Value = json.loads(text, parse_constant=_no_constant)
    return value


def _no_constant(name: str) -> NoReturn:
    # JSON has no NaN and no Infinity; Python's reader lets them pass.
    raise ValueError(name)


def _read_file(path: Path, name: str, environ: Mapping[str, str], report: Report) -> Source | None:
    try:
        raw = yaml12.load(_text_of(path))
    except _Unreadable as exc:
        report.unreadable(str(path), str(exc))
        return None
    except YamlError as exc:
        report.unreadable(name, str(exc))
        return None
    if raw is None:
        return None
    transform = _Transform(name, environ, report)
    data = transform.value(raw, (), _Place(path.absolute().parent))
    if not isinstance(data, dict):
        report.unreadable(name, "expected an object at the root")
        return None
    return Source(name, data, transform.left_out, transform.included, transform.filled)


class _Unreadable(Exception):
    """A file can't be read; the message continues a sentence that begins with its name."""


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _Unreadable("does not exist") from None
    except UnicodeDecodeError:
        raise _Unreadable("is not text in UTF-8") from None
    except OSError as exc:
        raise _Unreadable(f"can't be read ({exc.strerror})") from None
    except ValueError:  # a name with a null byte in it
        raise _Unreadable("does not exist") from None


class _IncludeError(Exception):
    """An include that can't be followed; the message has no part of what it would give."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands: a folder, and the includes that led to it."""

    folder: Path
    includes: tuple[tuple[Path, str], ...] = ()  # file, and the path inside of it


class _Transform:
    """Fills the variables of one file in, and follows its includes."""

    def __init__(self, name: str, environ: Mapping[str, str], report: Report) -> None:
        self._name = name
        self._environ = environ
        self._report = report
        self.left_out: dict[KeyPath, str] = {}
        self.included: dict[KeyPath, str] = {}
        self.filled: dict[KeyPath, str] = {}

    def value(self, raw: Value, path: KeyPath, place: _Place) -> Value | Dropped:
        """Return what ``raw`` stands for, all the way down."""
        if isinstance(raw, dict) and any(key in _INCLUDES for key in raw):
            try:
                found, place = self._included(raw, path, place)
            except _IncludeError as exc:
                self._fault(path, str(exc))
                return Dropped(str(exc))
        elif isinstance(raw, str):
            found = substitute(raw, self._environ)
            if variables := _variables(raw, self._environ):
                self.filled[path] = variables
        else:
            found = raw
        if isinstance(found, Dropped):
            self.left_out[path] = found.reason
            return found
        if isinstance(found, list):
            return self._list(found, path, place)
        if isinstance(found, dict):
            # What an include gives is no include itself, so this does not go back to the top.
            return dict(self._items(found, path, place))
        return found

    def _list(self, raw: list[Value], path: KeyPath, place: _Place) -> list[Value]:
        result: list[Value] = []
        for item in raw:
            value = self.value(item, (*path, len(result)), place)
            if not isinstance(value, Dropped):
                result.append(value)
        return result

    def _items(
        self, raw: dict[str, Value], path: KeyPath, place: _Place
    ) -> Iterator[tuple[str, Value]]:
        for key, item in raw.items():
            value = self.value(item, (*path, key), place)
            if not isinstance(value, Dropped):
                yield key, value

    def _fault(self, path: KeyPath, text: str) -> None:
        if path:
            self._report.problem(path, text)
        else:
            self._report.unreadable(self._name, text)

    def _included(
        self, raw: dict[str, Value], path: KeyPath, place: _Place
    ) -> tuple[Value | Dropped, _Place]:
        """Return what an include gives, and where that stands.

        Raises:
            _IncludeError: It is none, or what it names can't be had.
        """
        where = deepest(path, self.included) or self._name
        keyword = next(key for key in raw if key in _INCLUDES)
        if len(raw) != 1:
            raise _IncludeError(f"{keyword} in {where} stands beside other keys")
        written = raw[keyword]
        if not isinstance(written, str):
            raise _IncludeError(f"{keyword} in {where} wants a string")
        target = substitute(written, self._environ)
        if isinstance(target, Dropped):
            raise _IncludeError(f"{keyword} in {where} names a variable that is not set")
        # Messages show names as they were written. Filled in, one may be a secret: who writes
        # {$file: "${TOKEN}"} for {$env: TOKEN} has the token for a file's name.
        shown = f"{keyword} {written} in {where}"
        if keyword == "$env":
            value = _variable(target, self._environ)
            self.filled[path] = f"$env {written}" if _NAME.fullmatch(written) else "$env"
            return (_not_set(written) if value is None else value), place
        try:
            if keyword == "$file":
                self.filled[path] = "$file" if "${" in written else f"$file {written}"
                return javascript.trim_end(_text_of(place.folder / target)), place
            return self._data_of(target, path, place, shown)
        except _Unreadable as exc:
            raise _IncludeError(f"{shown} {exc}; looked in {place.folder}") from None

    def _data_of(
        self, target: str, path: KeyPath, place: _Place, shown: str
    ) -> tuple[Value | Dropped, _Place]:
        name, _, inside = target.partition("#")
        file = place.folder / name
        if file.suffix not in _PARSED:
            raise _IncludeError(f"{shown} wants a file named .yaml, .yml or .json")
        step = (file, inside)
        if step in place.includes:
            raise _IncludeError(f"{shown} includes itself")
        try:
            parse = _parse_json if file.suffix == ".json" else yaml12.load
            value = parse(_text_of(file))
        except YamlError as exc:
            raise _IncludeError(f"{shown}: {exc}") from None
        except json.JSONDecodeError as exc:
            raise _IncludeError(f"{shown}: line {exc.lineno}: no JSON") from None
        except (ValueError, RecursionError):
            raise _IncludeError(f"{shown}: no JSON") from None
        self.included[path] = file.name
        found: Value | Dropped = value
        for part in inside.split(".") if inside else ():
            if not isinstance(found, dict):
                raise _IncludeError(f"{shown}: there is no object on the way to that path")
            found = found.get(part, Dropped(f"{shown} gives nothing"))
        if isinstance(found, str):
            found = substitute(found, self._environ)
        return found, _Place(file.parent, (*place.includes, step))
