"""Describes network errors and unexpected answers for people."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from litellm_plugin.clients.http import Answer

# Type of the error, what its text may say instead, and the reason in words.
_REASONS = (
    (socket.gaierror, None, "its name can't be resolved"),
    (ConnectionRefusedError, "refused", "nothing listens there (connection refused)"),
    (TimeoutError, "timed out", "it does not answer in time"),
    (ConnectionResetError, None, "it closed the connection"),
)


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def explained(exc: BaseException, setting: str) -> tuple[str, str]:
    """Return why a call failed, and how to fix it.

    Args:
        exc: The error of the client; the network's or TLS's is inside.
        setting: The key that configures the address.
    """
    causes = list(_causes(exc))
    tls = [cause for cause in causes if isinstance(cause, ssl.SSLError)]
    for cause in tls:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its TLS certificate is not trusted: {cause.verify_message}", (
                "Name the CA that signed it in litellm.service.caFile (or "
                "litellm.service.trustEnvironment: true with REQUESTS_CA_BUNDLE), or have the "
                "certificate renewed."
            )
    if tls:
        reason = (tls[0].reason or "").replace("_", " ").lower() or "the handshake failed"
        return f"TLS does not work: {reason}", f"Check http or https, and the port, in {setting}."
    reason = next(
        (
            reason
            for kind, text, reason in _REASONS
            for cause in causes
            if isinstance(cause, kind) or (text and text in str(cause).lower())
        ),
        str(exc),
    )
    return (
        reason,
        f"Start it, or correct {setting}; check that this host can reach it (DNS, firewall).",
    )


def explained_redis(fault: BaseException, setting: str) -> tuple[str, str]:
    """Return why Redis or Valkey can't be used, and how to fix it.

    Args:
        fault: The client's error. Its text is the server's, and holds no password.
        setting: The key that configures the address.
    """
    said = str(fault)
    if said.startswith(("WRONGPASS", "invalid username-password")):
        return "it does not accept user and password", f"Correct those in {setting}."
    if said.startswith(("NOAUTH", "Authentication required")):
        return "it needs a password", f"Add it to {setting}: redis://USER:PASSWORD@HOST:PORT."
    if said.startswith("NOPERM") or "has no permissions" in said:
        todo = "Its ACL has to allow reading and writing names with the prefix litellm-plugin:"
        return "the user may not read there", f"{todo} (~litellm-plugin:*)."
    return explained(fault, setting)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an error and all errors in it; requests and urllib3 wrap them in several ways."""
    seen: set[int] = set()
    pending: list[object] = [exc]
    while pending:
        found = pending.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        pending += [found.__cause__, found.__context__, getattr(found, "reason", None)]
        pending += found.args


def json_of(answer: Answer) -> Any:
    """Return the JSON of an answer; None if it has none."""
    try:
        return answer.json()
    except ValueError:
        return None


def is_page(answer: Answer) -> bool:
    """Return whether an answer is a web page."""
    kind = answer.headers.get("Content-Type", "").lower()
    return "html" in kind or answer.text.lstrip()[:15].lower().startswith(("<!doctype", "<html"))


def described(answer: Answer) -> str:
    """Return a description of an unexpected answer."""
    if location := answer.headers.get("Location"):
        return f"it redirects to {location} ({answer.status})"
    if is_page(answer):
        return f"it answers with a web page ({answer.status})"
    return f"it answers {answer.status}" + ("" if answer.body else " with an empty body")
