"""Registers views as routes, each with the attributes that other modules use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Blueprint, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import PathConverter

from litellm_plugin.errors import UpstreamError
from litellm_plugin.observability.journal import Event
from litellm_plugin.routes.responses import json_response

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Route:
    """A view and how it is served; Flask calls the route in place of the view.

    Authentication, audit log, OpenAPI document and tests use these attributes.

    Attributes:
        method: HTTP method; a ``GET`` route answers ``HEAD``, too.
        rule: Path below the mount, with Flask's placeholders.
        view: Returns a response, or a plain value that becomes JSON.
        relays: Which error statuses of LiteLLM are passed on: all (True), none (False), or those
            in a set, after a write. Others become 500.
        event: Audit event of each request; None where the route changes nothing.
        exempt: Whether the route is served without Backstage credentials.
    """

    method: str
    rule: str
    view: Callable[..., Any]
    relays: bool | frozenset[int]
    event: Event | None
    exempt: bool

    @property
    def name(self) -> str:
        """The view's name: Flask's endpoint, and ``operationId`` in the OpenAPI document."""
        return self.view.__name__

    def __call__(self, **arguments: Any) -> Response:
        """Serve a request."""
        try:
            result = self.view(**arguments)
        except UpstreamError as exc:
            relays = self.relays
            exc.relayed = (
                relays if isinstance(relays, bool) else exc.write and exc.answered in relays
            )
            raise
        return result if isinstance(result, Response) else json_response(result)


class Routes(list[Route]):
    """All routes, in the order in which their modules are imported."""

    def add(
        self,
        method: str,
        rule: str,
        *,
        relays: bool | frozenset[int] = False,
        event: Event | None = None,
        exempt: bool = False,
    ) -> Callable[[View], View]:
        """Return a decorator that adds a view; the arguments are as in :class:`Route`."""

        def decorate(view: View) -> View:
            self.append(Route(method, rule, view, relays, event, exempt))
            return view

        return decorate

    def get(self, rule: str, **attributes: Any) -> Callable[[View], View]:
        """Add a view for ``GET`` and ``HEAD``."""
        return self.add("GET", rule, **attributes)

    def post(self, rule: str, **attributes: Any) -> Callable[[View], View]:
        """Add a view for ``POST``."""
        return self.add("POST", rule, **attributes)

    def put(self, rule: str, **attributes: Any) -> Callable[[View], View]:
        """Add a view for ``PUT``."""
        return self.add("PUT", rule, **attributes)

    def patch(self, rule: str, **attributes: Any) -> Callable[[View], View]:
        """Add a view for ``PATCH``."""
        return self.add("PATCH", rule, **attributes)

    def delete(self, rule: str, **attributes: Any) -> Callable[[View], View]:
        """Add a view for ``DELETE``."""
        return self.add("DELETE", rule, **attributes)

    def register(self, blueprint: Blueprint) -> None:
        """Put the routes on a blueprint; a trailing slash in a request makes no difference."""
        blueprint.record(lambda setup: setup.app.url_map.converters.update(litellm_id=LiteLLMId))
        for route in self:
            # Unless the rule ends in a slash, werkzeug takes one after an id for a part of the id.
            rule = f"{route.rule}/" if "<" in route.rule else route.rule
            blueprint.add_url_rule(
                rule,
                endpoint=route.name,
                view_func=route,
                methods=[route.method],
                strict_slashes=False,
            )
        blueprint.record(_drop_slashes)


def _drop_slashes(setup: BlueprintSetupState) -> None:
    """Name the routes in metrics, logs and spans without the slash that only helps to match."""
    for rule in setup.app.url_map.iter_rules():
        if isinstance(setup.app.view_functions.get(rule.endpoint), Route):
            rule.rule = rule.rule.rstrip("/")


routes = Routes()


class LiteLLMId(PathConverter):
    """``<litellm_id:name>``: any text, with slashes and line breaks."""

    regex = r"[^/](?s:.)*?"


def requested_route() -> Route | None:
    """Return the route of this request; None for an unknown path or another method.

    ``HEAD`` and ``OPTIONS`` on a route have no audit event.
    """
    view = current_app.view_functions.get(request.endpoint or "")
    return view if isinstance(view, Route) and view.method == request.method else None
