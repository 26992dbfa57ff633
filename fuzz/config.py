"""Configuration files and environments: read, or every fault told, and no secret quoted.

An input is a text of several parts. The first is ``app-config.yaml``; a line ``%% NAME`` begins
another file, and ``%% env`` the environment, ``NAME=VALUE`` in lines. Nothing is read from disk.

The canary stands for every secret. It comes from the environment (``TOKEN``) and from a file
(``secret.txt``), never from the text itself, where it might be a key's name.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any
from unittest.mock import patch

from litellm_plugin.config import ConfigError, load_settings, yaml12
from litellm_plugin.config.settings import Settings
from litellm_plugin.config.yaml12 import YamlError
from tests.config import example

ROOT = Path(__file__).parent.parent
VARIANTS = ROOT / "tests" / "contract"

CANARY = "canary-of-the-fuzzer"
HOME = Path("/fuzz")
FILES = {
    "secret.txt": f"{CANARY}\n",
    "secret.yaml": f"value: {CANARY}\nlist: [{CANARY}]\n",
    "secret.json": json.dumps({"value": CANARY, "number": 5}),
}
ENVIRON = {"TOKEN": CANARY, "NUMBER": "5", "EMPTY": "", **example.ENVIRON}

_MAX_BYTES = 8_000
_SHORT = 1_000  # bytes of what is read several times: YAML takes its time


class _Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def one_input(data: bytes) -> None:
    """Try one input.

    Raises:
        AssertionError: Something was taken that is no setting, or a secret was quoted.
    """
    if len(data) > _MAX_BYTES or CANARY.encode() in data:
        return
    files, environ = _parts(data)
    if len(data) <= _SHORT:
        _yaml(files[0][1])
    # An anchor's aliases may be aliases, too: kept small, for there are few operators who attack
    # themselves.
    if data.count(b"*") > 20:
        return
    disk = {name: content for name, content in files if name} | {
        name: text.encode() for name, text in FILES.items()
    }
    paths = [HOME / name for name, _ in files if name.startswith("app-config") or not name]
    disk["app-config.yaml"] = files[0][1]
    paths[0] = HOME / "app-config.yaml"
    first = _loaded(paths, environ, disk)
    if len(data) <= _SHORT:
        assert _loaded(paths, environ, disk) == first, "the same files are read otherwise"
    if isinstance(first, Settings):
        _sane(first)


def _parts(data: bytes) -> tuple[list[tuple[str, bytes]], dict[str, str]]:
    files, environ = [], dict(ENVIRON)
    first, *rest = (b"\n" + data).split(b"\n%% ")
    files.append(("", first.removeprefix(b"\n")))
    for part in rest:
        name, _, content = part.partition(b"\n")
        if name == b"env":
            for line in content.decode("utf-8", "replace").split("\n"):
                variable, equals, value = line.partition("=")
                if equals and "\0" not in line:
                    environ.setdefault(variable, value)
        else:
            files.append((name.decode("utf-8", "replace"), content))
    return files, environ


def _loaded(
    paths: list[Path], environ: Mapping[str, str], disk: Mapping[str, bytes]
) -> Settings | str:
    """Return the settings, or what the operator is told."""

    def read_text(path: Path, encoding: str) -> str:
        name = str(PurePath(path)).removeprefix(f"{HOME}/")
        if "\0" in name:
            raise ValueError("embedded null byte")
        if name not in disk:
            raise FileNotFoundError(name)
        return disk[name].decode(encoding)

    heard = _Heard()
    logger = logging.getLogger("litellm_plugin.config")
    logger.addHandler(heard)
    logger.propagate = False
    told: Settings | str
    try:
        with patch.object(Path, "read_text", read_text):
            told = load_settings(paths, environ)
    except ConfigError as exc:
        told = str(exc)
        assert exc.problems, "it is refused, and nobody knows why"
        assert all(problem and "\n" not in problem for problem in exc.problems)
        assert len(set(exc.problems)) == len(exc.problems)
        assert exc.__cause__ is None
        assert exc.__context__ is None, "a traceback would show what is below"
        _quotes_nothing("".join(traceback.format_exception_only(exc)) + repr(exc))
    finally:
        logger.removeHandler(heard)
    assert all("\n" not in line for line in heard.lines)
    _quotes_nothing("\n".join(heard.lines))
    return told


def _quotes_nothing(text: str) -> None:
    assert CANARY not in text, "a secret is quoted"


def _sane(settings: Settings) -> None:
    assert _is_url(settings.base_url)
    assert not settings.base_url.endswith("/")
    assert settings.master_key
    assert settings.master_key.isascii()
    assert settings.master_key.isprintable()
    assert " " not in settings.master_key
    assert _is_url(settings.discovery.backstage_url)
    for entry in settings.external_access:
        assert entry.restrictions is None or entry.restrictions, "no limit is no limit"
    for name, value in _leaves(dataclasses.asdict(settings)):
        if isinstance(value, float):
            assert math.isfinite(value), f"{name} is no number"
            assert value >= 0, f"{name} is negative"
    timeouts = settings.service.timeouts
    assert min(timeouts.connect, timeouts.read, timeouts.total) > 0
    shown = repr(dataclasses.replace(settings, master_key=CANARY))
    assert CANARY not in shown or CANARY in repr(dataclasses.replace(settings, master_key="x"))


def _is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if name.endswith("metadata"):  # may hold anything
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner, f"{name}[]")
    else:
        yield name, value


def _yaml(raw: bytes) -> None:
    """What is read of YAML is what JSON can say, and is read again of that."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    if text.count("*") > 20:
        return
    try:
        value = yaml12.load(text)
    except YamlError as exc:
        assert exc.line >= 1
        return
    _plain(value)
    try:
        again = yaml12.load(json.dumps(value, ensure_ascii=False))
    except (YamlError, ValueError, RecursionError):
        return  # a character that YAML wants escaped
    assert _same(again, value), "JSON is YAML, and says something else"


def _plain(value: Any) -> None:
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        for inner in value.values():
            _plain(inner)
    elif isinstance(value, list):
        for inner in value:
            _plain(inner)
    else:
        assert value is None or isinstance(value, str | int | float)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


# -- where to begin ------------------------------------------------------------


def seeds() -> Iterator[bytes]:
    """Yield the documented file, the contract's settings, and small files for each rule."""
    documented = example.everything_on().splitlines(keepends=True)
    for start in range(0, len(documented), 20):
        yield "".join(documented[start : start + 30]).encode()
    for file in sorted(VARIANTS.glob("variants/*.yaml")):
        yield file.read_bytes()
    yield b"\n%% app-config.local.yaml\n".join(
        (VARIANTS / name).read_bytes() for name in ("base.yaml", "overlay.yaml")
    )
    least = "litellm: {baseUrl: 'http://l:1', masterKey: '${TOKEN}'}\nbackend: {baseUrl: 'http://b:1'}\n"
    yield least.encode()
    for line in (
        "litellm: {masterKey: {$env: TOKEN}}",
        "litellm: {masterKey: {$file: secret.txt}}",
        "litellm: {service: {backstageToken: {$include: 'secret.yaml#value'}}}",
        "litellm: {service: {timeouts: {$include: a.yaml}}}\n%% a.yaml\n{read: ${NUMBER}}",
        "litellm: {provisioning: {roles: {$include: 'secret.json#number'}}}",
        "litellm: {userIdDomain: '${UNSET:-${TOKEN}}', masterKey: $${TOKEN}}",
        "litellm: &a {masterKey: *a}",
        "a: &x [1, 2]\nb: *x\nc: [*x, *x]",
        "litellm:\n  masterKey: |-\n    ${TOKEN}\n    x\n",
        "? [a]\n: b",
        "litellm: {display: {hideTeamBudgetForMembers: 'yes'}, opencode: {maxBudget: .inf}}",
        "backend: {auth: {externalAccess: [{type: static, options: {token: '${TOKEN}'}}]}}",
        "backend: {auth: {externalAccess: [{type: jwks, options: {url: 'http://x/?k=${TOKEN}'}}]}}",
        "backend: {auth: {keys: [{secret: '${TOKEN}'}]}}",
        "backend: {cache: {store: redis, connection: 'redis://u:${TOKEN}@r:6379/0'}}",
        "backend: {cors: {origin: ['*'], methods: 'GET, POST'}}",
        "discovery: {endpoints: [{target: {internal: 'http://${TOKEN}/'}, plugins: [a]}]}",
        "\n%% env\nAPP_CONFIG_litellm_masterKey=a\nAPP_CONFIG_litellm_service_cacheSeconds=1e999",
        '\n%% env\nAPP_CONFIG_litellm={"masterKey": [1]}\nAPP_CONFIG_litellm_a_b=NaN',
    ):
        yield line.encode()
        yield f"{least}%% app-config.local.yaml\n{line}".encode()


WORDS = (
    *("litellm:", "masterKey:", "baseUrl:", "service:", "provisioning:", "roles:", "metadata:"),
    *("teamAdmin:", "externalAccess:", "accessRestrictions:", "permissionAttribute:"),
    *("options:", "backend:", "auth:", "cache:", "connection:", "cors:", "discovery:"),
    *("endpoints:", "target:", "${TOKEN}", "${UNSET:-", "$${", "$env:", "$file:", "$include:"),
    *("secret.txt", "secret.yaml", "\n%% env\n", "APP_CONFIG_litellm_", "\n  ", "\n    - ", "- "),
    *("\n%% app-config.local.yaml\n", "http://", "redis://", ".inf", ".nan", "0x", "0o", "1e999"),
    *("null", "~", "true", "|-\n", ">\n", "&a ", "*a", "!!str ", "!!float ", "? ", "<<: "),
    *("{", "}", "[", "]", "\t", "\\u2028", "'", '"'),
)
