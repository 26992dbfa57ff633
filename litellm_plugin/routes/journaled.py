"""What a request leaves in the audit journal; the only place that makes a line of one."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from flask import Response, request

from litellm_plugin.errors import UpstreamError
from litellm_plugin.identity.principal import Principal, ServicePrincipal
from litellm_plugin.observability import journal
from litellm_plugin.observability.journal import Event, Severity
from litellm_plugin.observability.request_id import REQUEST_ID
from litellm_plugin.plugin import Plugin
from litellm_plugin.routes.address import client_address
from litellm_plugin.shapes import present

# What may be told of a body: all that somebody may ask LiteLLM for, but metadata, where people
# keep what they like.
FIELDS = frozenset(
    {
        *("alias", "key_alias", "key_type", "team_alias", "team_id", "user_id"),
        *("models", "max_budget", "budget_duration", "duration", "tpm_limit", "rpm_limit"),
        *("blocked", "role", "userEntityRef", "maxBudgetInTeam", "expectedUpdatedAtIso"),
        *("vector_stores", "mcp_servers"),
    }
)
PARAMETERS = frozenset({"user_id", "userEntityRef", "team", "force"})


class Line:
    """The line of one request, for as long as it is served.

    Args:
        serving: The plugin.
        event: What the route does; None where it changes nothing.

    Attributes:
        event: As above.
        principal: Who asks, once that is known.
        name: Who asks, where that is no principal: a person behind the bridge.
        error: Why the request failed.
        notes: What else is to be told.
    """

    __slots__ = ("_serving", "error", "event", "name", "notes", "principal")

    def __init__(self, serving: Plugin, event: Event | None) -> None:
        self._serving = serving
        self.event = event
        self.principal: Principal | None = None
        self.name: str | None = None
        self.error: Exception | None = None
        self.notes: dict[str, Any] = {}

    def level(self, severity: Severity) -> int:
        """Return the level to log at, as ``backend.auditor`` has it."""
        return self._serving.settings.audit_levels[severity]

    def circumstances(self) -> dict[str, Any]:
        """Return who asks for what, and from where."""
        settings = self._serving.settings.service
        entry: dict[str, Any] = {
            "plugin": settings.plugin_id,
            "actor": {
                **self._actor(),
                "ip": client_address(request.environ, settings.trusted_proxies),
                "hostname": request.host.rpartition(":")[0] or request.host,
                **present(userAgent=request.headers.get("User-Agent")),
            },
            # Decoded, or a secret could hide behind a percent sign.
            "request": {"url": unquote(_target()), "method": request.method},
        }
        if REQUEST_ID in request.environ:
            entry["requestId"] = request.environ[REQUEST_ID]
        return entry

    def _actor(self) -> dict[str, str]:
        match self.principal:
            case None:
                return {} if self.name is None else {"actorId": self.name}
            case ServicePrincipal(subject=subject):
                return {"actorId": subject}
            case user:
                actor = {"actorId": user.entity_ref}
                return actor if user.actor is None else {**actor, "onBehalfBy": user.actor}

    def write(self, response: Response, body: Any) -> None:
        """Write the line, if there is something to tell: a write, or a denial.

        Args:
            response: The answer.
            body: The JSON of the request.
        """
        status = response.status_code
        event = self.event
        if event is None and not isinstance(self.error, UpstreamError):  # LiteLLM's 429 is none
            event = journal.DENIALS.get(status)
        if event is None:
            return
        error = self.error
        if error is None and status >= 400:
            error = RuntimeError(response.status)
        told = {} if self.event is None else _asked_for(body)
        journal.record(event, {"statusCode": status, **told, **self.notes}, error)


def _target() -> str:
    environ = request.environ
    return str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or request.full_path)


def _asked_for(body: Any) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, value in (request.view_args or {}).items():
        if name == "token":
            told["keyId"] = journal.key_id(value)
        else:
            told["teamId"] = value
    parameters = {name: request.args[name] for name in request.args if name in PARAMETERS}
    if parameters:
        told["parameters"] = parameters
    if isinstance(body, dict):
        fields = {name: body[name] for name in body if name in FIELDS}
        others = len(body) - len(fields)
        told["fields"] = fields if not others else {**fields, "others": others}
    return told
