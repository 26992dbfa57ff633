"""The OpenAPI document: prose, schemas and examples from ``openapi.yaml``, the rest from routes.

``openapi.yaml`` has operations by the names of their views. This module adds path, method, and the
responses that follow from a route's attributes, and writes out the short forms of the file:

- In ``parameters``, ``requestBody``, ``responses``, ``links`` and ``security``, a name stands for
  the component of that name; the security ``nobody`` means that no credentials are needed.
- ``json: Error`` is a JSON body of that schema, ``json: [Error, UserError]`` of any of these.
- ``keyFields`` has a schema for each field of a key; ``NewKey``, ``NewBridgeKey``, ``NewTeamKey``
  and ``KeyChange`` have only what differs: another schema, or another description.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

from flask import request

import litellm_plugin
from litellm_plugin.config import yaml12
from litellm_plugin.config.settings import KeyGeneration
from litellm_plugin.keys.requests import key_fields, team_key_fields
from litellm_plugin.routes.routing import Route, routes

PATH = "/openapi.json"

Json = dict[str, Any]


@routes.get(PATH)
def openapi_document() -> Json:
    mount = (request.script_root + request.path).rpartition(PATH)[0]
    return {**document(), "servers": [{"url": mount}]}


@cache
def document() -> Json:
    """Return the document; only ``servers`` is missing.

    Raises:
        KeyError: ``openapi.yaml`` has an operation that is no route.
    """
    written: Any = yaml12.load(files(__package__).joinpath("openapi.yaml").read_text("utf-8"))
    operations, key_schemas = written.pop("operations"), written.pop("keyFields")
    by_name = {route.name: route for route in routes}
    paths: Json = {}
    for name, operation in operations.items():
        route = by_name[name]
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.rule)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, operation)
    components = written["components"]
    for kind in ("responses", "requestBodies"):
        components[kind] = {name: _content(one) for name, one in components[kind].items()}
    schemas = components["schemas"]
    table = key_fields(KeyGeneration())
    for name, fields in (
        ("NewKey", {field.created_as: field.name for field in table}),
        ("NewBridgeKey", {field.created_as: field.name for field in table}),
        ("NewTeamKey", {field.created_as: field.name for field in team_key_fields()}),
        ("KeyChange", {field.name: field.name for field in table if field.changes}),
    ):
        properties = {own: key_schemas[shared] for own, shared in fields.items()}
        for own, differs in schemas[name]["properties"].items():
            described = isinstance(differs, str)
            properties[own] = properties[own] | {"description": differs} if described else differs
        schemas[name] |= {"properties": properties, "additionalProperties": False}
    info = {**written["info"], "version": litellm_plugin.__version__}
    security = _security(written["security"])
    return {**written, "info": info, "security": security, "paths": paths}


def _operation(route: Route, written: Json) -> Json:
    responses = {**_common_responses(route, written), **written["responses"]}
    operation = {**written, "operationId": route.name}
    operation["responses"] = {
        str(code): _reference("responses", one) for code, one in responses.items()
    }
    if "parameters" in written:
        operation["parameters"] = [_reference("parameters", one) for one in written["parameters"]]
    if "requestBody" in written:
        operation["requestBody"] = _reference("requestBodies", written["requestBody"])
    if "security" in written:
        operation["security"] = _security(written["security"])
    return operation


def _common_responses(route: Route, written: Json) -> dict[str, str]:
    """Return the responses that follow from a route's attributes, by status."""
    answers: dict[str, str] = {}
    callers = written.get("security", ["user", "onBehalfOf", "service"])
    if route.method == "GET" and route.event is None:
        answers["304"] = "NotModified"
    if route.method in {"POST", "PUT", "PATCH"}:
        answers |= {"413": "BodyTooLarge", "415": "BodyUnreadable"}
    if "keycloak" in callers:
        answers |= {"401": "BridgeRefused", "403": "Forbidden", "404": "NoBridge"}
    elif "service" in callers:
        answers |= {"401": "Unauthenticated", "403": "Forbidden" if route.event else "NotAllowed"}
    elif "user" in callers:
        answers |= {"401": "NoUserSignedIn", "403": "Forbidden"}
    if "401" in answers:
        answers["429"] = "TooManyHereOrThere" if route.relays is True else "TooManyRequests"
    if route.relays is True:
        answers |= dict.fromkeys(("4XX", "500", "502", "503", "5XX"), "LiteLLMRefused")
    elif route.relays:
        answers |= {"400": "BadKeyChange", "500": "LiteLLMFailed", "503": "BackstageUnavailable"}
    return answers


def _security(schemes: list[str]) -> list[Json]:
    return [{} if scheme == "nobody" else {scheme: []} for scheme in schemes]


def _reference(kind: str, written: Any) -> Any:
    return (
        {"$ref": f"#/components/{kind}/{written}"}
        if isinstance(written, str)
        else _content(written)
    )


def _content(written: Json) -> Json:
    """Return a response or a request body with ``json`` and ``links`` written out."""
    whole = dict(written)
    if "links" in whole:
        whole["links"] = {name: _reference("links", link) for name, link in whole["links"].items()}
    if "json" in whole:
        schema = whole.pop("json")
        if isinstance(schema, list):
            schema = {"anyOf": [_reference("schemas", one) for one in schema]}
        content = {"schema": _reference("schemas", schema)}
        if "example" in whole:
            content["example"] = whole.pop("example")
        whole["content"] = {"application/json": content}
    return whole
