"""The OpenAPI document as a judge of requests and answers, and as a source of requests."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from werkzeug.test import TestResponse

from litellm_plugin.routes.openapi import document
from litellm_plugin.routes.routing import Route, routes
from tests.fakes.network import NOTHING
from tests.rig import CALLERS
from tests.standin import IDS

METHODS = frozenset({"get", "put", "post", "patch", "delete"})

# For a body that can't be read, on routes that take none as well: said once, for all of them.
UNREADABLE = frozenset({400, 408, 413, 415})

_URI = "urn:openapi"
_JSON = "application/json"


@functools.cache
def described() -> Described:
    """Return the judge by our own document."""
    return Described(document())


class Described:
    """Judges by a document, and more strictly than it says: no field may be undocumented.

    Places in the document are JSON pointers.

    Args:
        document: OpenAPI 3.1.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = _closed(document)
        resource = DRAFT202012.create_resource(self._document)
        self._registry: Registry[Any] = Registry().with_resource(_URI, resource)
        self._validators: dict[str, Draft202012Validator] = {}
        # A path without parameters goes before one with them, as in the URL map.
        self._paths = sorted(self._document["paths"], key=lambda path: path.count("{"))

    def answer_faults(
        self, method: str, target: str, answer: TestResponse, *, body_sent: bool = False
    ) -> Iterator[str]:
        """Tell in what an answer is not as documented.

        Args:
            method: HTTP method.
            target: Path and query below the mount, as sent.
            answer: What came back.
            body_sent: Whether the request had a body.
        """
        status = answer.status_code
        operation = self._operation(method, target)
        if operation is None:
            if method != "OPTIONS" and not 400 <= status < 500:
                yield f"{status}, and no operation is documented"
            return
        if body_sent and status in UNREADABLE and "requestBody" not in self.at(operation):
            return
        response = self._response(operation, status)
        if response is None:
            yield f"{status} is not documented"
            return
        for header, said in self.at(response).get("headers", {}).items():
            if said.get("required") and header not in answer.headers:
                yield f"{status}: there is no {header}"
        if method != "HEAD":
            yield from (f"{status}: {fault}" for fault in self._content_faults(response, answer))

    def _content_faults(self, response: str, answer: TestResponse) -> Iterator[str]:
        contents = self.at(response).get("content", {})
        if not contents:
            if answer.data:
                yield "no body is documented, but there is one"
        elif answer.mimetype not in contents:
            yield f"{answer.mimetype or 'no media type'} is not documented"
        elif answer.mimetype == _JSON:
            yield from self.faults(_schema_of(response), answer.json)

    def request_faults(self, method: str, target: str, body: Any) -> Iterator[str]:
        """Tell in what a JSON body is not as documented; a path that is not has no faults."""
        operation = self._operation(method, target)
        if operation is None:
            return
        if "requestBody" not in self.at(operation):
            yield "no body is documented"
            return
        yield from self.faults(_schema_of(self.resolved(f"{operation}/requestBody")), body)

    def faults(self, schema: str, value: Any) -> Iterator[str]:
        """Tell in what a value is not as a schema has it."""
        if schema not in self._validators:
            self._validators[schema] = Draft202012Validator(
                {"$ref": f"{_URI}#{schema}"},
                registry=self._registry,
                format_checker=Draft202012Validator.FORMAT_CHECKER,
            )
        error = best_match(self._validators[schema].iter_errors(value))
        if error is not None:
            yield f"{error.json_path}: {error.message[:300]}"

    def resolved(self, place: str) -> str:
        """Follow references."""
        while "$ref" in self.at(place):
            place = self.at(place)["$ref"].removeprefix("#")
        return place

    def at(self, place: str) -> Any:
        """Return what is there."""
        value: Any = self._document
        for step in place.split("/")[1:]:
            value = value[step.replace("~1", "/").replace("~0", "~")]
        return value

    def _operation(self, method: str, target: str) -> str | None:
        path = target.partition("?")[0].rstrip("/")
        segments = [unquote(part) for part in path.split("/")]
        name = "get" if method == "HEAD" else method.lower()
        for template in self._paths:
            if _fits(template.split("/"), segments) and name in self._document["paths"][template]:
                return f"/paths/{_escaped(template)}/{name}"
        return None

    def _response(self, operation: str, status: int) -> str | None:
        documented = self.at(operation)["responses"]
        for code in (str(status), f"{status // 100}XX"):
            if code in documented:
                return self.resolved(f"{operation}/responses/{code}")
        return None


@dataclass(frozen=True)
class Operation:
    """One operation of the document, and the request that its examples make."""

    path: str
    method: str
    said: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def schemes(self) -> set[str]:
        """The security schemes of which any will do; "" stands for no credentials."""
        wanted = self.said.get("security", described().at("/security"))
        return {scheme for one in wanted for scheme in one or {""}}

    @property
    def caller(self) -> str:
        """A caller who may do it, as the contract names callers."""
        return next((who for name, who in CALLERS.items() if name in self.schemes), "none")

    @property
    def codes(self) -> set[str]:
        return set(self.said["responses"])

    @property
    def route(self) -> Route:
        return next(route for route in routes if route.name == self.said["operationId"])

    @property
    def target(self) -> str:
        path = re.sub(r"\{(\w+)\}", lambda name: IDS[name[1]], self.path)
        return "&".join([f"{path}?", *self._query()]).replace("?&", "?").rstrip("?")

    def _query(self) -> Iterator[str]:
        for parameter in map(resolved, self.said.get("parameters", ())):
            examples = [one["value"] for one in parameter.get("examples", {}).values()]
            if parameter["in"] == "query" and (examples or "example" in parameter):
                yield f"{parameter['name']}={parameter.get('example') or examples[0]}"

    @property
    def body_schema(self) -> Any:
        """The schema of the JSON body; None where there is no body."""
        if "requestBody" not in self.said:
            return None
        return resolved(self._body["schema"])

    @property
    def body(self) -> Any:
        """The example of a JSON body; NOTHING where there is no body."""
        if "requestBody" not in self.said:
            return NOTHING
        return copy.deepcopy(self._body.get("example") or self.body_schema.get("example") or {})

    @property
    def _body(self) -> Any:
        return resolved(self.said["requestBody"])["content"]["application/json"]


def resolved(value: Any) -> Any:
    """Return what a reference stands for; any other value as it is."""
    judge = described()
    return judge.at(judge.resolved(value["$ref"].removeprefix("#"))) if "$ref" in value else value


def operations() -> list[Operation]:
    """Return every operation of the document."""
    return [
        Operation(path, method.upper(), said)
        for path, item in described().at("/paths").items()
        for method, said in item.items()
        if method in METHODS
    ]


def _fits(template: list[str], segments: list[str]) -> bool:
    return len(template) == len(segments) and all(
        part == segment or part.startswith("{")
        for part, segment in zip(template, segments, strict=True)
    )


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def _schema_of(place: str) -> str:
    return f"{place}/content/{_escaped(_JSON)}/schema"


def _closed(value: Any) -> Any:
    """Return a copy in which objects have no other properties than those documented."""
    if isinstance(value, list):
        return [_closed(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    copy = {name: _closed(member) for name, member in value.items()}
    if isinstance(value.get("properties"), Mapping):
        copy.setdefault("additionalProperties", False)
    return copy
