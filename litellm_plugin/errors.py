"""Every way a request can fail, and the answer each one gives.

A :class:`PluginError` knows its status and its JSON body; one handler in
``routes/`` turns any of them into a response. Two body shapes exist, because
the Backstage frontend and its plugins expect both: this plugin's own
``{"error": "text"}``, and the framework's ``{"error": {"name", "message"}}``
that Backstage itself sends from in front of a plugin.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

# Every run of characters is looked at once, from its beginning: "eyJeyJeyJ..." as long
# as a request's body would keep a plain eyJ\w+ busy for seconds.
_JWT = re.compile(
    r"(?<![A-Za-z0-9_\-])((?>[A-Za-z0-9_\-]*?(?=eyJ)))"
    r"eyJ[A-Za-z0-9_\-]*+\.[A-Za-z0-9_\-]++\.[A-Za-z0-9_\-]*+"
)
_HASH_DIGITS = 64
_DIGITS = re.compile(r"[0-9A-Fa-f]{64}")  # found or not found in a quarter of the time
# The D of a %3D in front is no digit of the hash.
_KEY_HASH = re.compile(
    r"(?:(?<![0-9A-Fa-f])|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4}))"
    r"[0-9A-Fa-f]{64}(?![0-9A-Fa-f])"
)
# Behind what each has in it: most texts have none of that, and all that is written is searched.
_SECRETS = (
    ("Bearer", re.compile(r"Bearer\s+[A-Za-z0-9._\-+/=]+"), "Bearer [redacted]"),
    ("sk-", re.compile(r"sk-[A-Za-z0-9_\-]{8,}"), "sk-[redacted]"),
    # LiteLLM quotes the ends of a master key that it refuses.
    (
        "Received",
        re.compile(r"(\bReceived(?: API Key)? ?= ?)[^\s,\"'\\]+"),
        r"\1[redacted]",
    ),
    ("eyJ", _JWT, r"\1[redacted]"),
)


# What this process was configured with, in whatever form; the longest first.
_LEAST = 6  # characters; what is shorter is no secret, and would be found in every other word
_configured: tuple[str, ...] = ()


def never_show(secrets: Iterable[str]) -> None:
    """Let :func:`redact` know secrets of the configuration; they may look like anything."""
    global _configured  # noqa: PLW0603 - one list for the process: so is everything that is written
    known = {secret for secret in secrets if len(secret) >= _LEAST}
    known |= {quote(secret, safe="") for secret in known}
    _configured = tuple(sorted(known.union(_configured), key=lambda each: (-len(each), each)))


def redact(text: str, *, hashes: bool = True) -> str:
    """Return ``text`` without configured secrets, bearer tokens, ``sk-`` keys, JWTs, key hashes.

    Args:
        text: To be shown to somebody.
        hashes: Whether key hashes go, too; who sent one may have it back.
    """
    for secret in _configured:
        text = text.replace(secret, "[redacted]")
    for part, pattern, replacement in _SECRETS:
        if part in text:
            text = pattern.sub(replacement, text)
    if hashes and len(text) >= _HASH_DIGITS and _DIGITS.search(text):
        text = _KEY_HASH.sub("[redacted]", text)
    return text


class PluginError(Exception):
    """A request that can't be served; the base of all of them."""

    status = 500

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(redact(message))  # what logs and tracebacks show
        self.message = message
        self.fields = fields

    def body(self, method: str, url: str) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Return the JSON body.

        Args:
            method: The HTTP method that was asked.
            url: Path and query below the plugin's mount.
        """
        return {"error": redact(self.message), **self.fields}


class BadRequest(PluginError):
    """The request itself is wrong; the message says how."""

    status = 400


class NotAuthenticated(PluginError):
    """The route needs a user, and the caller is none."""

    status = 401
    reason = "no-user"

    def __init__(self, message: str = "Authentication required", **fields: Any) -> None:
        super().__init__(message, **fields)


class Forbidden(PluginError):
    """The caller is known and may not.

    Attributes:
        reason: Why, for the metrics: one of a few words.
    """

    status = 403

    def __init__(self, message: str, *, reason: str = "other", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.reason = reason


class NotFound(PluginError):
    """There is no such thing, or not for this caller."""

    status = 404

    def __init__(self, message: str = "Not found", **fields: Any) -> None:
        super().__init__(message, **fields)


class Conflict(PluginError):
    """The thing has changed, or is in use."""

    status = 409


class RequestTimeout(PluginError):
    """The body did not come in time."""

    status = 408


class HungUp(PluginError):
    """The client has gone without waiting for its answer, which nobody will get to read."""

    status = 499  # as nginx has it in its log

    def __init__(self) -> None:
        super().__init__("You hung up before the key was made, so it was removed again")


class PayloadTooLarge(PluginError):
    """The body is over the limit."""

    status = 413


class UnsupportedMediaType(PluginError):
    """The body's charset or content encoding can't be read."""

    status = 415


class Busy(PluginError):
    """Other requests hold a lock that this request needs."""

    status = 503


class TooManyRequests(PluginError):
    """Somebody asks too often.

    Attributes:
        retry_after: Seconds from now on that they have to wait.
    """

    status = 429

    def __init__(self, message: str, *, retry_after: float) -> None:
        self.retry_after = max(math.ceil(retry_after), 1)
        super().__init__(f"{message}; try again in {self.retry_after} seconds")


class BackstageError(PluginError):
    """An answer of Backstage's HTTP layer, in its shape.

    Its frontend and plugins compare ``name``; see the table in
    https://backstage.io/docs/backend-system/core-services/http-router
    """

    name = "Error"

    def body(self, method: str, url: str) -> dict[str, Any]:
        """Return Backstage's error body: ``error``, ``request`` and ``response``."""
        return {
            "error": {"name": self.name, "message": self.message, **self.fields},
            "request": {"method": method, "url": redact(url, hashes=False)},
            "response": {"statusCode": self.status},
        }


class Unauthenticated(BackstageError):
    """The credentials are missing or do not hold.

    Attributes:
        kind: What they are, for the metrics: missing, user, plugin or external.
    """

    status = 401
    kind = "missing"
    name = "AuthenticationError"


class NotVerifiable(Unauthenticated):
    """Nobody knows whether the credentials hold: the keys to check them with can't be read."""


class NotAllowed(BackstageError):
    """The credentials hold, and are restricted to something else."""

    status = 403
    reason = "token-restriction"
    name = "NotAllowedError"


class InputRefused(BackstageError):
    """A body that Backstage's own plugin routes refuse."""

    status = 400
    name = "InputError"


class UpstreamError(PluginError):
    """LiteLLM answered with an error, with nonsense, or not at all.

    Attributes:
        answered: LiteLLM's status, or None where no answer could be read.
        param: The request field it blames, where it names one.
        relayed: Whether the route hands LiteLLM's status on.
        no_such_route: Whether LiteLLM's version does not know the path that was asked.
        unfinished: Whether LiteLLM may have acted on a write that we have no answer to.
    """

    def __init__(
        self,
        message: str,
        *,
        answered: int | None = None,
        param: str | None = None,
        no_such_route: bool = False,
    ) -> None:
        super().__init__(message)
        self.answered = answered
        self.param = param
        self.no_such_route = no_such_route
        self.relayed = False
        self.unfinished = False

    def unfinished_with(self, sentence: str) -> UpstreamError:
        """Return the same error of a write that LiteLLM may have acted on.

        Args:
            sentence: What to do about it; put behind the message.
        """
        message = f"{self.message.rstrip('.')}. {sentence}" if sentence else self.message
        error = UpstreamError(message, answered=self.answered, param=self.param)
        error.unfinished = True
        return error

    @property
    def down(self) -> bool:
        """Whether LiteLLM itself, or what is in front of it, is out of order."""
        return self.answered is None or self.answered in {502, 503, 504}

    @property
    def status(self) -> int:  # type: ignore[override]
        """500, or LiteLLM's own status on the routes that hand it on."""
        if not self.relayed or self.answered is None:
            return 500
        # LiteLLM's 401 or 403 is about our master key. Passed on, it would
        # make Backstage believe the user's session has ended. And a redirect,
        # which is never followed, is none that the browser could follow.
        return 502 if self.answered < 400 or self.answered in {401, 403} else self.answered

    def body(self, method: str, url: str) -> dict[str, Any]:
        """Return ``error``, and ``param`` where the status is handed on."""
        body = super().body(method, url)
        if self.relayed and self.param is not None:
            body["param"] = redact(self.param)
        return body


class UsageUnavailable(PluginError):
    """LiteLLM can't be asked for this usage: too much, or it would tell of others too."""

    status = 503


class BackstageUnavailable(PluginError):
    """The catalog, the permission API or a key set can't be asked: nothing is allowed.

    Attributes:
        answered: Backstage's status, or None where no answer could be read.
        told: What it said with it, redacted; for operators, and never answered.
    """

    status = 503

    def __init__(self, message: str, *, answered: int | None = None, told: str = "") -> None:
        super().__init__(message)
        self.answered = answered
        self.told = redact(told)
