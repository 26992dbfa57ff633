"""Collects every text that a route can answer as ``error``, from the source.

A text that depends on the request has ``{name}`` where its value stands.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litellm_plugin
from litellm_plugin.errors import PluginError

PACKAGE = Path(litellm_plugin.__file__).parent
# Rooms that answer no request: commands, the stand-ins, and what runs before the first request.
ELSEWHERE = frozenset({"cli", "sandbox", "config", "server", "gunicorn_conf", "wsgi"})


def texts() -> set[str]:
    """Return the texts of all errors that the package raises."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages([str(PACKAGE)], "litellm_plugin.")
        if module.name.split(".")[1] not in ELSEWHERE and not module.name.endswith("__main__")
    ]
    names = {kind.__name__ for kind in _subclasses(PluginError)}
    found: set[str] = set()
    for module in modules:
        tree = ast.parse(Path(str(module.__file__)).read_text())
        found.update(_texts(tree, names, vars(module)))
    return found


def _subclasses(kind: type) -> Iterator[type]:
    child: type
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _texts(tree: ast.AST, names: set[str], known: dict[str, Any]) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in names:
                yield from _of_call(node, known)
            case ast.ClassDef(name=name, body=body) if name in names:
                yield from _of_class(body, known)


def _of_class(body: list[ast.stmt], known: dict[str, Any]) -> Iterator[str]:
    """Yield the default of ``message``, and the text that the class gives to its base."""
    for node in ast.walk(ast.Module(body, [])):
        match node:
            case ast.Call(func=ast.Attribute(attr="__init__"), args=[_, *_]):
                yield from _of_call(node, known)
            case ast.FunctionDef(name="__init__", args=arguments):
                for default in arguments.defaults:
                    yield from _words(default, known)


def _of_call(call: ast.Call, known: dict[str, Any]) -> Iterator[str]:
    """Yield the text of an error, with its advice if that is written out."""
    advice = ""
    for word in call.keywords:
        match word:
            case ast.keyword(arg="advice", value=ast.Constant(value=str(words))):
                advice = f"; {words}"
    for text in call.args[:1]:
        yield from (words + advice for words in _words(text, known))


def _words(node: ast.expr, known: dict[str, Any]) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)) if text:
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"{{{_name(part)}}}"
                for part in parts
            )
        case ast.Name(id=name) if isinstance(known.get(name), str):
            yield known[name]
        case ast.IfExp(body=one, orelse=other):
            yield from _words(one, known)
            yield from _words(other, known)
        case ast.Constant():
            pass
        case _:
            yield f"{{{ast.unparse(node)}}}"


def _name(part: ast.expr) -> str:
    assert isinstance(part, ast.FormattedValue)
    return ast.unparse(part.value)
