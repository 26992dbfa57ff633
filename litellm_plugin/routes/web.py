"""What every request passes: the barrier on the way in, JSON on the way out."""

from __future__ import annotations

import json
import logging
import re
import socket
import ssl
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Token
from dataclasses import dataclass
from datetime import date
from functools import wraps
from typing import Any, TypeVar, cast
from urllib.parse import quote, unquote, urlsplit

import orjson
from flask import Blueprint, Request, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy
from werkzeug.routing import PathConverter

from litellm_plugin.accounts.caller import Caller
from litellm_plugin.clients import deadline
from litellm_plugin.errors import (
    BadRequest,
    NotFound,
    NotVerifiable,
    PayloadTooLarge,
    PluginError,
    RequestTimeout,
    TooManyRequests,
    Unauthenticated,
    UpstreamError,
    UsageUnavailable,
    redact,
)
from litellm_plugin.identity.keycloak import BridgeNotVerifiable
from litellm_plugin.identity.principal import Principal, ServicePrincipal
from litellm_plugin.observability import context, journal, metrics
from litellm_plugin.observability.journal import Event
from litellm_plugin.plugin import Plugin
from litellm_plugin.routes import bodies
from litellm_plugin.routes.address import client_address, network_of
from litellm_plugin.routes.cors import CrossOrigin
from litellm_plugin.routes.headers import JSON, SecuredResponse, finish, secured
from litellm_plugin.routes.journaled import Line

log = logging.getLogger(__name__)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

View = Callable[..., Any]
V = TypeVar("V", bound=View)
Relays = bool | frozenset[int]


@dataclass(slots=True)
class State:
    """What is known of one request on its way in."""

    plugin: Plugin
    mount: str
    path: str  # below the mount, as it was sent
    line: Line  # in the audit journal
    begun: Token[Any]  # what the journal has to know to leave the request
    began: float  # on a clock that tells durations
    principal: Principal | None = None
    caller: Caller | None = None
    body: Any = None


_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_EVENT = "journal_event"  # of a view: its method and what the journal calls it
_KEY = "litellm_plugin.state"  # in the WSGI environment: a request's own, unlike flask.g


def _state() -> State:
    state: State = request.environ[_KEY]
    return state


def _itself() -> Request:
    # Each look at flask.request goes through a proxy, and every request has a score of them.
    return cast("LocalProxy[Request]", request)._get_current_object()  # noqa: SLF001 - documented


# The plugin that serves the present request.
plugin = cast("Plugin", LocalProxy(lambda: _state().plugin))


class IdConverter(PathConverter):
    """``<litellm_id:name>``: an id with whatever in it; ``path`` ends at a line break."""

    regex = r"[^/](?s:.)*?"


class Routes:
    """The routes of one module, to be put on a blueprint.

    Views return plain values, which become JSON; a trailing slash in the
    request is as good as none.
    """

    def __init__(self) -> None:
        self._routes: list[tuple[str, str, View]] = []

    def get(
        self, rule: str, *, relays: Relays = False, event: Event | None = None
    ) -> Callable[[V], V]:
        """Add a view for ``GET`` and ``HEAD``.

        Args:
            rule: The path below the mount.
            relays: Whether LiteLLM's error status is handed on, or which are; else it becomes 500.
            event: What the audit journal calls it; a route without one changes nothing.
        """
        return self._route("GET", rule, relays, event)

    def post(
        self, rule: str, *, relays: Relays = False, event: Event | None = None
    ) -> Callable[[V], V]:
        """Add a view for ``POST``."""
        return self._route("POST", rule, relays, event)

    def put(
        self, rule: str, *, relays: Relays = False, event: Event | None = None
    ) -> Callable[[V], V]:
        """Add a view for ``PUT``."""
        return self._route("PUT", rule, relays, event)

    def patch(
        self, rule: str, *, relays: Relays = False, event: Event | None = None
    ) -> Callable[[V], V]:
        """Add a view for ``PATCH``."""
        return self._route("PATCH", rule, relays, event)

    def delete(
        self, rule: str, *, relays: Relays = False, event: Event | None = None
    ) -> Callable[[V], V]:
        """Add a view for ``DELETE``."""
        return self._route("DELETE", rule, relays, event)

    def _route(
        self, method: str, rule: str, relays: Relays, event: Event | None
    ) -> Callable[[V], V]:
        def add(view: V) -> V:
            answer = _as_json(view, relays=relays)
            if event is not None:
                answer.__dict__[_EVENT] = method, event
            self._routes.append((method, rule, answer))
            return view

        return add

    def register(self, blueprint: Blueprint) -> None:
        """Put the routes on a blueprint."""
        for method, rule, view in self._routes:
            blueprint.add_url_rule(
                rule,
                endpoint=view.__name__,
                view_func=view,
                methods=[method],
                strict_slashes=False,
            )


def _as_json(view: View, *, relays: Relays) -> View:
    @wraps(view)
    def answer(**arguments: Any) -> Response:
        try:
            result = view(**arguments)
        except UpstreamError as exc:
            exc.relayed = relays if isinstance(relays, bool) else exc.answered in relays
            raise
        return result if isinstance(result, Response) else json_response(result)

    return answer


def event_of(view: View | None, method: str) -> Event | None:
    """Return what a view changes, as the audit journal calls it; None where that is nothing."""
    served, event = getattr(view, _EVENT, (None, None))
    return event if served == method else None


def json_response(
    value: Any, status: int = 200, *, kind: type[SecuredResponse] = SecuredResponse
) -> Response:
    """Return ``value`` as JSON text, as compact as JavaScript writes it.

    Args:
        value: JSON-like; or bytes, which are the text.
        status: HTTP status.
        kind: ``PublicResponse`` for a document that anybody may read and keep.
    """
    body = value if isinstance(value, bytes) else _text_of(value)
    return kind(body, status=status, content_type=JSON)


def _text_of(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # LiteLLM's JSON may hold half a surrogate pair, which can't be encoded otherwise.
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "backslashreplace")


def principal() -> Principal:
    """Return who is asking.

    Raises:
        Unauthenticated: The route is exempt from the barrier, so nobody is known.
    """
    known = _state().principal
    if known is None:
        raise Unauthenticated("Missing credentials")
    return known


def known_as(name: str) -> None:
    """Note who is asking on a route that is exempt from the barrier, and knows all the same.

    Raises:
        TooManyRequests: They change too much in a short time.
    """
    line = _state().line
    line.name = name
    if line.event is not None:
        plugin.rate_limits.write(name, service=False)


def current_caller() -> Caller:
    """Return the caller of this request; a service speaks for ``?user_id=``."""
    state = _state()
    if state.caller is None:
        who = principal()
        asked = query("user_id") if isinstance(who, ServicePrincipal) else ""
        state.caller = plugin.caller(who, asked or None)
    return state.caller


def body() -> dict[str, Any]:
    """Return the JSON object of the request; ``{}`` where there is none."""
    value = _state().body
    return value if isinstance(value, dict) else {}


def query(name: str) -> str:
    """Return a query parameter; "" where it is absent.

    Raises:
        BadRequest: It is given twice, so nobody knows which one is meant.
    """
    values = request.args.getlist(name)
    if len(values) > 1:
        raise BadRequest(f"{name} is given more than once")
    return values[0] if values else ""


def client_gone() -> bool:
    """Tell whether the client has hung up already; False where the server does not say.

    Whether an answer arrives can't be known: the client may hang up while it is under way.
    """
    sock = request.environ.get("gunicorn.socket")
    if not isinstance(sock, socket.socket) or isinstance(sock, ssl.SSLSocket):
        return False
    limit = sock.gettimeout()
    sock.settimeout(0)
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        with suppress(OSError):
            sock.settimeout(limit)


def queries() -> dict[str, str]:
    """Return every query parameter, each as :func:`query` does."""
    return {name: query(name) for name in request.args}


@contextmanager
def dates() -> Iterator[tuple[str, str]]:
    """Give ``start_date`` and ``end_date`` to what asks LiteLLM.

    Raises:
        BadRequest: One is missing, or is no day and LiteLLM refused it.
        UsageUnavailable: LiteLLM is down.
    """
    start, end = query("start_date"), query("end_date")
    if not start or not end:
        raise BadRequest("start_date and end_date are required")
    try:
        yield start, end
    except UpstreamError as exc:
        # What a day is, is LiteLLM's to say; only what it refused was wrong.
        if exc.answered in {400, 422} and not (_is_day(start) and _is_day(end)):
            raise BadRequest("start_date and end_date must be days, YYYY-MM-DD") from exc
        if exc.down:
            raise UsageUnavailable(f"LiteLLM can't be asked for the usage: {exc.message}") from exc
        raise


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def url_below_mount() -> str:
    """Return path and query below the plugin's mount, as they were sent."""
    path, query_string = _state().path, request.query_string.decode("latin-1")
    return f"{path}?{query_string}" if query_string else path


def _path_below(mount: str, asked: Request) -> str:
    """Return the path below the mount as it was sent.

    Only where it decodes to the one that is routed: with %2F in the mount, or with a
    SCRIPT_NAME that a client made up, the barrier would look at another path than the
    route that is served.
    """
    environ = asked.environ
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    sent = str(raw or "").partition("?")[0]
    routed = asked.path.removeprefix(mount) or "/"
    if sent == asked.path and sent.startswith(mount):
        return routed  # nothing in it is escaped
    if not sent.startswith("/"):
        sent = urlsplit(sent).path
    above = (asked.script_root + mount).strip("/")
    segments = above.count("/") + 1 if above else 0
    below = "/" + "/".join(sent.lstrip("/").split("/", segments)[segments:])
    return below if unquote(below) == routed else quote(routed)


def install(blueprint: Blueprint, serving: Plugin, open_paths: tuple[str, ...]) -> None:
    """Put on a blueprint what every request passes on its way in and out.

    Args:
        blueprint: The plugin's.
        serving: What the routes work with.
        open_paths: Path prefixes, of whole segments, that nobody is asked for credentials on.
    """
    mount = blueprint.url_prefix or ""
    blueprint.record(lambda setup: setup.app.url_map.converters.update(litellm_id=IdConverter))
    open_below = tuple(f"{path}/" for path in open_paths)
    cross_origin = CrossOrigin(serving.settings.cors) if serving.settings.cors else None

    def arrive() -> Response | None:
        began = time.perf_counter()
        asked = _itself()
        environ = asked.environ
        context.begin(environ)
        deadline.begin(serving.settings.service.timeouts.total)
        view = current_app.view_functions.get(asked.endpoint or "")
        line = Line(serving, event_of(view, asked.method))
        begun = journal.begin(line)
        state = State(serving, mount, _path_below(mount, asked), line, begun, began)
        environ[_KEY] = state
        preflight = cross_origin.preflight(asked) if cross_origin else None
        if preflight is not None:
            return preflight
        if not _is_open(state.path, open_below):
            header = environ.get("HTTP_AUTHORIZATION")
            who = serving.authenticator.authenticate(header or None, _suspect)
            line.principal = state.principal = who
        _refuse_other_paths(state, asked)
        if line.event is not None and state.principal is not None:
            _count_write(state.principal)
        state.body = _parsed_body(asked)
        return None

    def leave(response: Response) -> Response:
        deadline.end()  # the thread goes on to somebody else's request
        asked = _itself()
        state: State | None = asked.environ.get(_KEY)
        # The application around us may have answered before we were asked.
        return response if state is None else _finished(response, state, asked, cross_origin)

    blueprint.before_request(arrive)
    blueprint.after_request(leave)
    blueprint.register_error_handler(PluginError, _refused)
    blueprint.register_error_handler(HTTPException, not_served)
    blueprint.register_error_handler(Exception, _broken)
    for rule in ("/", "/<litellm_id:_path>"):
        blueprint.add_url_rule(
            rule,
            view_func=unknown_route,
            methods=METHODS,
            provide_automatic_options=False,
            strict_slashes=False,
        )


def _count(response: Response, state: State, asked: Request) -> None:
    rule = asked.url_rule
    route = asked.environ[context.ROUTE] = rule.rule if rule else "none"
    seconds = time.perf_counter() - state.began
    metrics.answered(asked.method, route, response.status_code, seconds)


def _finished(
    answer: Response, state: State, asked: Request, cross_origin: CrossOrigin | None
) -> Response:
    response = secured(answer)
    state.line.write(response, state.body)
    journal.end(state.begun)
    caller = state.caller
    if caller is not None and caller.stale_seconds is not None:
        response.headers["X-Stale-Seconds"] = str(int(caller.stale_seconds))
    if cross_origin is not None:
        cross_origin.finish(response, asked)
    finish(response, asked)
    _count(response, state, asked)
    context.end()
    return response


def unknown_route(_path: str = "") -> Response:
    """Answer whatever no route is for, behind the barrier like everything."""
    raise NotFound


def not_served(error: HTTPException) -> Response:
    """Answer what Flask itself refuses, in JSON."""
    return json_response({"error": error.name}, error.code or 500)


def _refused(error: PluginError) -> Response:
    line = _state().line
    if _is_failed_token(error, line):
        try:
            plugin.rate_limits.failed_token(_network())
        except TooManyRequests as exc:
            error = exc
    line.error = error
    metrics.refused(error)
    response = json_response(error.body(request.method, url_below_mount()), error.status)
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _is_failed_token(error: PluginError, line: Line) -> bool:
    """Tell whether there was a token that does not hold; none at all is no guess."""
    if error.status != 401 or line.principal is not None or line.name is not None:
        return False
    if isinstance(error, NotVerifiable | BridgeNotVerifiable):
        return False
    return bool(request.headers.get("Authorization", "").strip())


def _network() -> str:
    """Return where the request comes from, as tokens that do not hold are counted."""
    hops = plugin.settings.service.trusted_proxies
    return network_of(client_address(request.environ, hops))


def _suspect() -> bool:
    return plugin.rate_limits.suspects(_network())


def _count_write(who: Principal) -> None:
    match who:
        case ServicePrincipal(subject=subject):
            plugin.rate_limits.write(subject, service=True)
        case user:
            plugin.rate_limits.write(user.entity_ref, service=False)


def _broken(error: Exception) -> Response:
    _state().line.error = error
    # Not exc_info: a traceback ends with the text of the error, and that may quote anything.
    trace = redact("".join(traceback.format_exception(error)))
    log.error("%s %s failed\n%s", request.method, request.url_rule, trace.rstrip())
    return json_response({"error": "Internal server error"}, 500)


def _refuse_other_paths(state: State, asked: Request) -> None:
    # %2F in a path arrives decoded, so an id with a slash looks like two
    # segments; what was sent as two is another path.
    rule = asked.url_rule
    if rule is None or rule.endpoint.endswith(".unknown_route"):
        return
    if _STRAY_PERCENT.search(state.path):
        raise BadRequest("The path is not percent-encoded as it should be")
    segments = rule.rule.removeprefix(state.mount).strip("/").count("/")
    if state.path.strip("/").count("/") != segments:
        raise NotFound


def _is_open(path: str, prefixes: tuple[str, ...]) -> bool:
    # They end with a slash, so that they are of whole segments.
    return f"{unquote(path).rstrip('/').lower()}/".startswith(prefixes)


def _parsed_body(asked: Request) -> Any:
    if "CONTENT_TYPE" not in asked.environ or asked.mimetype != "application/json":
        return None
    length = asked.content_length
    if length is not None and length > bodies.MAX_BODY:
        raise PayloadTooLarge("request entity too large")
    try:
        data = asked.stream.read(bodies.MAX_BODY + 1)
    except TimeoutError as exc:
        raise RequestTimeout("The request body took too long") from exc
    except Exception as exc:  # the server's own, of chunks that are none
        raise BadRequest("The request body can't be read") from exc
    if len(data) > bodies.MAX_BODY:
        raise PayloadTooLarge("request entity too large")
    data = bodies.decompressed(data, asked.headers.get("Content-Encoding", ""))
    if not data:
        return None
    return bodies.decoded(data, asked.mimetype_params.get("charset", "utf-8"))
