"""HTTP requests of the developer's commands, and the errors of these commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests

from litellm_plugin import __version__
from litellm_plugin.developer.errors import CommandError
from litellm_plugin.redaction import redact

Answer = requests.Response

TIMEOUT = 30.0  # seconds, to connect and between two bytes

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_QUOTED = 300  # characters of a server's text


def secure_url(url: Any, name: str) -> str:
    """Return ``url`` without a trailing slash.

    Args:
        url: An ``https`` URL, or an ``http`` URL of this host.
        name: The option or field with the URL, for the error.

    Raises:
        CommandError: The URL is of another kind.
    """
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    wanted = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    # URLs are printed, and urlsplit ignores some of the control characters in them.
    visible = str(url).isprintable() and " " not in str(url)
    if not (wanted and visible and host) or parts.username is not None or parts.fragment:
        raise CommandError(
            f"{name}: got {plain(str(url))!r}, wanted a URL that begins with https:// "
            "(http:// is for this host only)"
        )
    return str(url).rstrip("/")


def request(
    method: str,
    url: str,
    name: str,
    *,
    token: str | None = None,
    json: Any = None,
    form: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request to the server that errors call ``name``; redirects are not followed.

    Raises:
        CommandError: There is no answer.
    """
    headers = {"Accept": "application/json", "User-Agent": f"litellm-plugin/{__version__}"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    with request_errors(name, url):
        return requests.request(
            method,
            url,
            auth=lambda prepared: prepared,  # or requests would send a password of .netrc
            json=json,
            data=form,
            headers=headers,
            timeout=TIMEOUT,
            allow_redirects=False,
        )


@contextmanager
def request_errors(name: str, url: str) -> Iterator[None]:
    """Raise a ``CommandError`` in place of an error of ``requests`` in the block."""
    where = plain(url)  # the id of a key may be in it
    try:
        yield
    except requests.exceptions.SSLError as exc:
        raise CommandError(
            f"{name}: the certificate of {where} can't be verified. REQUESTS_CA_BUNDLE names a "
            "file with your company's certificates."
        ) from exc
    except requests.RequestException as exc:
        if exc.response is not None:
            raise CommandError(f"{name} answered {exc.response.status_code} at {where}") from exc
        raise CommandError(f"{name} did not answer at {where} ({type(exc).__name__})") from exc
    except ValueError as exc:  # of urllib3, such as for the host "a..b"
        raise CommandError(f"{name} can't be asked: {where} has no valid host name") from exc


def json_of(answer: Answer) -> Any:
    """Return the JSON of an answer; None where it is no JSON."""
    try:
        return answer.json()
    except (ValueError, RecursionError):  # the latter where it is nested too deeply
        return None


def json_object(answer: Answer, name: str) -> dict[str, Any]:
    """Return the JSON object of an answer with status 200.

    Raises:
        CommandError: It has another status, or no JSON object.
    """
    body = json_of(answer)
    if answer.status_code != 200 or not isinstance(body, dict):
        what = str(answer.status_code) if answer.status_code != 200 else "no JSON object"
        raise CommandError(f"{name} answered {what} at {plain(answer.url)}")
    return body


def date_of(answer: Answer) -> float | None:
    """Return the time in the ``Date`` header, in Unix seconds; None without the header."""
    try:
        # The header is rounded down to a second.
        return parsedate_to_datetime(answer.headers.get("Date", "")).timestamp() + 0.5
    except ValueError:
        return None


def plain(text: str) -> str:
    """Return a server's text for the terminal: cut, without secrets and control characters."""
    return redact("".join(each if each.isprintable() else " " for each in text))[:_QUOTED]
