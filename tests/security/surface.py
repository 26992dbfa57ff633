"""Every route there is, from the URL map: a new one is attacked without touching a test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flask import Flask
from werkzeug.routing import Rule

from litellm_plugin.routes.openapi import document
from tests.client import MOUNT
from tests.openapi import described
from tests.rig import CALLERS

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

# What anybody may read, without credentials.
PUBLIC = frozenset({"/.backstage/auth/v1/jwks.json", "/bridge/health", "/livez", "/readyz"})


@dataclass(frozen=True)
class Surface:
    """One method of one rule.

    Attributes:
        rule: Below the mount, its ids in angle brackets.
        names: Of its ids.
    """

    method: str
    rule: str
    names: frozenset[str]

    def __str__(self) -> str:
        return f"{self.method} {self.rule}"

    @property
    def bridged(self) -> bool:
        """Whether it is asked with a token of Keycloak."""
        return self.rule.startswith("/bridge/")

    @property
    def caller(self) -> str:
        """Somebody who may ask for it, as the contract names callers."""
        return CALLERS["keycloak"] if self.bridged else CALLERS["user"]

    def path(self, ids: Mapping[str, str]) -> str:
        """Return its path with ids filled in, percent-encoded."""
        path = self.rule
        for name in re.findall(r"<(?:\w+:)?(\w+)>", self.rule):
            start = path.index("<")
            path = path[:start] + quote(ids[name], safe="") + path[path.index(">") + 1 :]
        return path


def surfaces(app: Flask) -> list[Surface]:
    """Return every route of the plugin."""
    return sorted(_surfaces(app.url_map.iter_rules()), key=str)


def _surfaces(rules: Iterable[Rule]) -> Iterable[Surface]:
    for rule in rules:
        if rule.endpoint.endswith(".unknown_route"):
            continue
        for method in (rule.methods or set()) - {"OPTIONS"}:
            path = rule.rule.removeprefix(MOUNT).rstrip("/")
            yield Surface(method, path, frozenset(rule.arguments))


def is_closed(surface: Surface) -> bool:
    """Tell whether the document says that a route refuses any other field in its body."""
    operation = document()["paths"][_place(surface)][surface.method.lower()]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    schema = document()["components"]["schemas"].get(name, {})
    return schema.get("additionalProperties") is False


def body_of(surface: Surface) -> tuple[frozenset[str], dict[str, Any]] | None:
    """Return the documented fields of a route's body, and an example; None: it takes none."""
    judge = described()
    place = _place(surface).replace("/", "~1")
    operation = f"/paths/{place}/{surface.method.lower()}"
    if "requestBody" not in judge.at(operation):
        return None
    content = judge.resolved(f"{operation}/requestBody") + "/content/application~1json"
    schema = judge.at(judge.resolved(f"{content}/schema"))
    example = judge.at(content).get("example") or schema.get("example") or {}
    return frozenset(schema.get("properties", ())), example


def _place(surface: Surface) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", surface.rule)
