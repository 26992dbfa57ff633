"""Runs before and after every view: authentication, body, audit event, headers, metrics."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from flask import Blueprint, Response, request

from litellm_plugin.clients import deadline
from litellm_plugin.errors import BadRequest, NotFound
from litellm_plugin.identity.principal import ServicePrincipal
from litellm_plugin.observability import journal, metrics, request_id
from litellm_plugin.plugin import Plugin
from litellm_plugin.routes import bodies
from litellm_plugin.routes.address import client_network
from litellm_plugin.routes.request_state import STATE, RequestState
from litellm_plugin.routes.responses import CrossOrigin, add_etag, secured
from litellm_plugin.routes.routing import requested_route

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Pipeline:
    """Handles a blueprint's requests before and after their views.

    Paths in ``exempt``, and all below them, need no credentials.
    """

    def __init__(self, plugin: Plugin, mount: str, exempt: tuple[str, ...]) -> None:
        self._plugin = plugin
        self._mount = mount
        self._exempt = tuple(f"{path}/" for path in exempt)
        cors = plugin.settings.cors
        self._cross_origin = CrossOrigin(cors) if cors else None

    def install(self, blueprint: Blueprint) -> None:
        """Register the handlers on a blueprint."""
        blueprint.before_request(self.before)
        blueprint.after_request(self.after)
        blueprint.teardown_request(self.end)

    def before(self) -> Response | None:
        """Authenticate, check the path, count a change, read the body; answer CORS preflights."""
        started = time.perf_counter()
        environ = request.environ
        request_id.begin(environ)
        deadline.begin(self._plugin.settings.service.timeouts.total)
        route = requested_route()
        event = route.event if route else None
        environ[STATE] = state = RequestState(self._plugin, self._path(environ), event, started)
        state.journal_token = journal.begin(state)
        if self._cross_origin and (preflight := self._cross_origin.preflight(request)):
            return preflight
        if not self._is_exempt(state.path):
            header = request.headers.get("Authorization") or None
            state.principal = self._plugin.authenticator.authenticate(header, self._is_suspect)
        self._check_segments(state.path)
        if state.event is not None and (who := state.principal) is not None:
            service = isinstance(who, ServicePrincipal)
            name = who.subject if isinstance(who, ServicePrincipal) else who.entity_ref
            self._plugin.rate_limits.write(name, service=service)
        state.body = bodies.read(request)
        return None

    def after(self, answer: Response) -> Response:
        """Write the audit event, set the headers, count the answer."""
        deadline.end()  # the thread serves other requests later
        environ = request.environ
        state: RequestState | None = environ.get(STATE)
        if state is None:  # the application around the blueprint answered first
            return answer
        response = secured(answer)
        state.write_audit_event(response)
        if state.caller is not None and state.caller.stale_seconds is not None:
            response.headers["X-Stale-Seconds"] = str(int(state.caller.stale_seconds))
        if self._cross_origin is not None:
            self._cross_origin.finish(response, request)
        add_etag(response, request)
        rule = request.url_rule
        name = environ[request_id.ROUTE] = rule.rule if rule else "none"
        seconds = time.perf_counter() - state.started
        metrics.answered(request.method, name, response.status_code, seconds)
        request_id.end()
        return response

    @staticmethod
    def end(_: BaseException | None) -> None:
        """End the request's audit context, also for a view that was interrupted."""
        state: RequestState | None = request.environ.get(STATE)
        if state is not None and state.journal_token is not None:
            journal.end(state.journal_token)
            state.journal_token = None

    def _path(self, environ: WSGIEnvironment) -> str:
        """Return the path below the mount, as the client sent it.

        Where that does not decode to the path that Flask routes (``%2F`` in the mount, or a
        ``SCRIPT_NAME`` that a client made up), return the routed path, so that authentication and
        routing use the same path.
        """
        sent = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "").partition("?")[0]
        if not sent.startswith("/"):
            sent = urlsplit(sent).path
        above = (request.script_root + self._mount).strip("/")
        segments = above.count("/") + 1 if above else 0
        below = "/" + "/".join(sent.lstrip("/").split("/", segments)[segments:])
        routed = request.path.removeprefix(self._mount) or "/"
        return below if unquote(below) == routed else quote(routed)

    def _is_exempt(self, path: str) -> bool:
        # The slash at the end makes a prefix match whole segments.
        return f"{unquote(path).rstrip('/').lower()}/".startswith(self._exempt)

    def _is_suspect(self) -> bool:
        """Tell whether the client's network has sent too many invalid tokens."""
        return self._plugin.rate_limits.suspects(
            client_network(request.environ, self._plugin.settings.service.trusted_proxies)
        )

    def _check_segments(self, path: str) -> None:
        """Refuse a path that only looks like a route's after decoding.

        The router gets ``%2F`` as a slash, so it takes an id with a slash for two segments, or two
        segments for an id with a slash.
        """
        rule = request.url_rule
        if rule is None or rule.endpoint.endswith(".unknown_route"):
            return
        if _STRAY_PERCENT.search(path):
            raise BadRequest("The path is not percent-encoded as it should be")
        if path.lower().endswith("%2f"):  # the router ignores a slash at the end
            raise NotFound
        segments = rule.rule.removeprefix(self._mount).strip("/").count("/")
        if path.strip("/").count("/") != segments:
            raise NotFound
