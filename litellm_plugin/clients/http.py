"""The only way out: one pooled ``requests`` session per upstream.

Whatever a caller forgets is decided here: time-outs on connecting, on silence
and on the whole call; no redirects, no cookies, no proxies, netrc or CA bundle
from the environment unless configured; answers bounded in size.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from litellm_plugin.config.settings import Timeouts

if TYPE_CHECKING:
    import socket

POOL_SIZE = 64
MAX_BODY_BYTES = 64 * 1024 * 1024

_deadline: ContextVar[tuple[float, float] | None] = ContextVar("deadline", default=None)


class NoAnswerError(Exception):
    """The upstream could not be reached, was silent, or broke off.

    Attributes:
        sent: Whether the request may have reached it: False only where no
            connection was made, so that nothing can have been acted upon.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Answer:
    """What an upstream answered.

    Attributes:
        status: HTTP status.
        reason: Reason phrase of the status line.
        body: The decoded body, complete.
    """

    status: int
    reason: str
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text; bytes that are no UTF-8 are replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the decoded JSON.

        Raises:
            ValueError: It is no JSON, nested too deep, or NaN and its like.
        """
        try:
            return json.loads(self.body, parse_constant=_refuse_constant)
        except RecursionError as exc:
            raise ValueError("nested too deep") from exc


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class Upstream:
    """One service that is asked over HTTP.

    Args:
        name: For messages, such as ``LiteLLM``.
        timeouts: Limits of each call, in seconds.
        trust_environment: Take proxies, netrc and CA bundles from the environment.
        ca_file: CA bundle to check the upstream's certificate with.
    """

    def __init__(
        self,
        name: str,
        *,
        timeouts: Timeouts,
        trust_environment: bool = False,
        ca_file: Path | None = None,
    ) -> None:
        self.name = name
        self._timeouts = timeouts
        self._session = requests.Session()
        self._session.trust_env = trust_environment
        if ca_file is not None:
            self._session.verify = str(ca_file)
        self._session.cookies = RequestsCookieJar(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _DeadlineAdapter(pool_maxsize=POOL_SIZE))

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask, and read the whole answer.

        Args:
            method: HTTP method.
            url: Absolute URL, its path percent-encoded.
            params: Query; a space becomes ``%20``, because LiteLLM takes ``+`` literally.
            body: Sent as JSON unless None.
            headers: Request headers, the credentials among them.

        Raises:
            NoAnswerError: There was no complete answer within the time-outs.
        """
        if params:
            url = f"{url}?{urlencode(params, quote_via=quote, safe='')}"
        total = self._timeouts.total
        scope = _deadline.set((time.monotonic() + total, self._timeouts.read))
        try:
            with self._session.request(
                method,
                url,
                json=body,
                headers=dict(headers or {}),
                timeout=(min(self._timeouts.connect, total), min(self._timeouts.read, total)),
                allow_redirects=False,
                stream=True,
            ) as response:
                content = self._bounded(response)
                return Answer(response.status_code, response.reason or "", content)
        except requests.ConnectTimeout as exc:
            raise NoAnswerError(f"{self.name} could not be reached in time", sent=False) from exc
        except requests.Timeout as exc:
            raise NoAnswerError(f"{self.name} did not answer in time", sent=True) from exc
        except requests.RequestException as exc:
            sent = not _never_connected(exc)
            what = "broke off" if sent else "could not be reached"
            raise NoAnswerError(f"{self.name} {what}", sent=sent) from exc
        finally:
            _deadline.reset(scope)

    def _bounded(self, response: requests.Response) -> bytes:
        content = bytearray()
        for chunk in response.iter_content(64 * 1024):
            content += chunk
            if len(content) > MAX_BODY_BYTES:
                raise NoAnswerError(f"{self.name} sent too much", sent=True)
        return bytes(content)


def _never_connected(exc: requests.RequestException) -> bool:
    # urllib3 wraps twice: MaxRetryError(reason=NewConnectionError(...)).
    reason = getattr(exc.args[0], "reason", None) if exc.args else None
    return type(reason).__name__ in {"NewConnectionError", "NameResolutionError"}


class _DeadlineReader(io.RawIOBase):
    """A socket's reading side that stops at the deadline of the whole call.

    A time-out on a socket limits one silence only, so an upstream that sends a
    byte now and then, in its headers too, could hold a thread for ever.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        limits = _deadline.get()
        if limits is not None:
            deadline, silence = limits
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(min(silence, left))
        return self._raw.readinto(buffer)  # type: ignore[attr-defined,no-any-return]

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock))  # type: ignore[attr-defined]


class _HTTPConnection(HTTPConnection):
    response_class = _DeadlineResponse


class _HTTPSConnection(HTTPSConnection):
    response_class = _DeadlineResponse


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _DeadlineAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
