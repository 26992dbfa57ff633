"""The errors of a request, each with its status and JSON body.

One handler in ``routes/`` turns any :class:`PluginError` into a response. There are two body
shapes, because the Backstage frontend and its plugins expect both: this plugin's own
``{"error": "text"}``, and ``{"error": {"name", "message"}}`` of Backstage's HTTP layer.
"""

from __future__ import annotations

import math
from typing import Any

from litellm_plugin.redaction import redact


class PluginError(Exception):
    """A request that can't be served; the base class of all errors with a response.

    Attributes:
        message: What is wrong, for clients, logs, audit events and operators.
        advice: What the user should do, for clients only.
        fields: Further fields of the JSON body.
    """

    status = 500

    def __init__(self, message: str, *, advice: str = "", **fields: Any) -> None:
        super().__init__(redact(message))  # what logs and tracebacks show
        self.message = message
        self.advice = advice
        self.fields = fields

    @property
    def text(self) -> str:
        """The message and the advice."""
        return f"{self.message}; {self.advice}" if self.advice else self.message

    def body(self, method: str, url: str) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Return the JSON body.

        Args:
            method: The request's HTTP method.
            url: Its path and query below the plugin's mount.
        """
        return {"error": redact(self.text), **self.fields}


class BadRequest(PluginError):
    """The request itself is wrong; the message says how."""

    status = 400


class NotAuthenticated(PluginError):
    """The route needs a user, and the caller is a service."""

    status = 401
    reason = "no-user"

    def __init__(self, message: str = "Authentication required", **fields: Any) -> None:
        super().__init__(message, **fields)


class Forbidden(PluginError):
    """The caller is known, and is not allowed to do this.

    Attributes:
        reason: Why, for the metrics: one of ``metrics.REASONS``.
    """

    status = 403

    def __init__(self, message: str, *, reason: str = "other", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.reason = reason


class NotFound(PluginError):
    """The resource does not exist, or the caller may not know of it."""

    status = 404

    def __init__(self, message: str = "Not found", **fields: Any) -> None:
        super().__init__(message, **fields)


class Conflict(PluginError):
    """The resource has changed meanwhile, or is in use."""

    status = 409


class RequestTimeout(PluginError):
    """The request's body did not arrive in time."""

    status = 408


class HungUp(PluginError):
    """The client has closed the connection before the answer."""

    status = 499  # as in the log of nginx

    def __init__(self) -> None:
        super().__init__(
            "The client closed the connection before the answer, so the new key was removed"
        )


class PayloadTooLarge(PluginError):
    """The body is larger than allowed."""

    status = 413


class UnsupportedMediaType(PluginError):
    """The body's charset or content encoding is not supported."""

    status = 415


class Busy(PluginError):
    """Other requests hold a lock that this request needs."""

    status = 503


class TooManyRequests(PluginError):
    """A client has sent too many requests.

    Attributes:
        retry_after: Seconds that the client has to wait.
    """

    status = 429

    def __init__(self, message: str, *, retry_after: float) -> None:
        self.retry_after = max(math.ceil(retry_after), 1)
        super().__init__(f"{message}; try again in {self.retry_after} seconds")


class BackstageError(PluginError):
    """An error whose body has the shape of Backstage's HTTP layer.

    The frontend and plugins compare ``name``; see the table in
    https://backstage.io/docs/backend-system/core-services/http-router
    """

    name = "Error"

    def body(self, method: str, url: str) -> dict[str, Any]:
        """Return Backstage's error body: ``error``, ``request`` and ``response``."""
        return {
            "error": {"name": self.name, "message": self.text, **self.fields},
            "request": {"method": method, "url": redact(url, hashes=False)},
            "response": {"statusCode": self.status},
        }


class Unauthenticated(BackstageError):
    """The credentials are missing or not valid.

    Attributes:
        kind: Their kind, for the metrics: missing, user, plugin or external.
    """

    status = 401
    kind = "missing"
    name = "AuthenticationError"


class NotVerifiable(Unauthenticated):
    """The credentials can't be checked, because their key set can't be read."""


class NotAllowed(BackstageError):
    """The credentials are valid, and restricted to other plugins or actions."""

    status = 403
    reason = "token-restriction"
    name = "NotAllowedError"


class InputRefused(BackstageError):
    """The body of one of Backstage's own plugin routes is wrong."""

    status = 400
    name = "InputError"


class UpstreamError(PluginError):
    """LiteLLM answered with an error, with something unreadable, or not at all.

    Attributes:
        answered: LiteLLM's status, or None where no answer could be read.
        param: The request field that LiteLLM names as the cause, if any.
        write: Whether LiteLLM answered a change with this error.
        relayed: Whether the route answers with LiteLLM's status.
        unfinished: Whether a write got no answer, so that LiteLLM may have acted on it.
    """

    def __init__(
        self,
        message: str,
        *,
        advice: str = "",
        answered: int | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, advice=advice)
        self.answered = answered
        self.param = param
        self.write = False
        self.relayed = False
        self.unfinished = False

    def unfinished_with(self, sentence: str) -> UpstreamError:
        """Return the same error of a write that LiteLLM may have acted on.

        Args:
            sentence: What became of the write and what to do; added to the text.
        """
        message, advice = self.message, self.advice
        if sentence and advice:
            advice = f"{advice}. {sentence}"
        elif sentence:
            message = f"{message.rstrip('.')}. {sentence}"
        error = UpstreamError(message, advice=advice, answered=self.answered, param=self.param)
        error.unfinished = True
        return error

    @property
    def down(self) -> bool:
        """Whether LiteLLM, or a proxy in front of LiteLLM, is unavailable."""
        return self.answered is None or self.answered in {502, 503, 504}

    @property
    def status(self) -> int:  # type: ignore[override]
        """500, or LiteLLM's own status where ``relayed``."""
        if not self.relayed or self.answered is None:
            return 500
        # LiteLLM's 401 or 403 is about our master key; relayed, it would make Backstage believe
        # that the user's session has ended. The browser could not follow a redirect of LiteLLM.
        return 502 if self.answered < 400 or self.answered in {401, 403} else self.answered

    def body(self, method: str, url: str) -> dict[str, Any]:
        """Return ``error``, and ``param`` where ``relayed``."""
        body = super().body(method, url)
        if self.relayed and self.param is not None:
            body["param"] = redact(self.param)
        return body


class NoSuchRoute(UpstreamError):
    """This version of LiteLLM does not have the route."""


class UsageUnavailable(PluginError):
    """The usage can't be read from LiteLLM: it is too large, or includes other users' usage."""

    status = 503


class BackstageUnavailable(PluginError):
    """The catalog, the permission API or a key set can't be read, so access is denied.

    Attributes:
        answered: Backstage's status, or None where no answer could be read.
    """

    status = 503

    def __init__(self, message: str, *, advice: str = "", answered: int | None = None) -> None:
        super().__init__(message, advice=advice)
        self.answered = answered
