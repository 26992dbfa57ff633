"""The state of the request under way, and its audit fields."""

from __future__ import annotations

from contextvars import Token
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

from flask import Response, request
from werkzeug.local import LocalProxy

from litellm_plugin.accounts.caller import Caller
from litellm_plugin.errors import UpstreamError
from litellm_plugin.identity.principal import Principal, ServicePrincipal
from litellm_plugin.observability import journal
from litellm_plugin.observability.journal import Change, Event, Severity, Sink
from litellm_plugin.observability.request_id import REQUEST_ID
from litellm_plugin.plugin import Plugin
from litellm_plugin.routes.address import client_address
from litellm_plugin.shapes import present

STATE = "litellm_plugin.state"  # in the WSGI environment; flask.g may outlive a request

# Fields of a body that an audit event shows: all except metadata, which may have users' own data.
FIELDS = frozenset(
    {
        *("alias", "key_alias", "key_type", "team_alias", "team_id", "user_id"),
        *("models", "max_budget", "budget_duration", "duration", "tpm_limit", "rpm_limit"),
        *("blocked", "role", "userEntityRef", "maxBudgetInTeam", "expectedUpdatedAtIso"),
        *("vector_stores", "mcp_servers", "grace"),
    }
)
PARAMETERS = frozenset({"user_id", "userEntityRef", "team", "force"})


@dataclass(slots=True)
class RequestState:
    """The state of one request."""

    plugin: Plugin
    path: str  # below the mount, still percent-encoded
    event: Event | None  # None where the request changes nothing
    started: float  # time.perf_counter()
    journal_token: Token[Any] | None = None
    principal: Principal | None = None  # None until the credentials are verified
    actor: str | None = None  # the caller's name on a route that verifies its own tokens
    caller: Caller | None = None  # None until a view asks for the caller
    body: Any = None
    error: Exception | None = None
    notes: dict[str, Any] = field(default_factory=dict)  # audit fields that services add
    change: Change = field(default_factory=Change)

    @property
    def sink(self) -> Sink | None:
        """Where audit events go besides the log: ``litellm.audit.store``."""
        writer = self.plugin.audit_writer
        return None if writer is None else writer.add

    def level(self, severity: Severity) -> int:
        """Return the log level of an audit event, by ``backend.auditor``."""
        return self.plugin.settings.audit_levels[severity]

    def audit_fields(self) -> dict[str, Any]:
        """Return the audit fields of every event: plugin, actor, request and request id."""
        settings = self.plugin.settings.service
        environ = request.environ
        url = environ.get("RAW_URI") or environ.get("REQUEST_URI") or request.full_path
        return {
            "plugin": settings.plugin_id,
            "actor": {
                **self._actor(),
                "ip": client_address(environ, settings.trusted_proxies),
                "hostname": request.host.rpartition(":")[0] or request.host,
                **present(userAgent=request.headers.get("User-Agent")),
            },
            # Decoded, because redaction does not find percent-encoded secrets.
            "request": {"url": unquote(str(url)), "method": request.method},
            **present(requestId=environ.get(REQUEST_ID)),
        }

    def _actor(self) -> dict[str, str]:
        match self.principal:
            case None:
                return {} if self.actor is None else {"actorId": self.actor}
            case ServicePrincipal(subject=subject):
                return {"actorId": subject}
            case user:
                actor = {"actorId": user.entity_ref}
                return actor if user.actor is None else {**actor, "onBehalfBy": user.actor}

    def write_audit_event(self, response: Response) -> None:
        """Write the audit event of a change, or of a refused read."""
        status, event, error = response.status_code, self.event, self.error
        # LiteLLM's 429 or 403 is no denial by this service.
        if event is None and not isinstance(error, UpstreamError):
            event = journal.DENIALS.get(status)
        if event is None:
            return
        if error is None and status >= 400:
            error = RuntimeError(response.status)
        asked = _asked_for(self.body) if self.event else {}
        meta = {"statusCode": status, **asked, **self.notes}
        journal.record(event, meta, error, self.change)


def state() -> RequestState:
    """Return the state of the request under way."""
    known: RequestState = request.environ[STATE]
    return known


# The plugin that serves the request under way.
plugin = cast("Plugin", LocalProxy(lambda: state().plugin))


def _asked_for(body: Any) -> dict[str, Any]:
    """Return the audit fields for path, query and body."""
    asked: dict[str, Any] = {}
    for name, value in (request.view_args or {}).items():
        if name in {"token", "key"}:
            asked["keyId"] = journal.key_id(value)
        else:
            asked["teamId"] = value
    parameters = {name: request.args[name] for name in request.args if name in PARAMETERS}
    if parameters:
        asked["parameters"] = parameters
    if isinstance(body, dict):
        fields = {name: body[name] for name in body if name in FIELDS}
        others = len(body) - len(fields)
        asked["fields"] = fields if not others else {**fields, "others": others}
    return asked
