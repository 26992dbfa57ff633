"""Calls of upstreams over HTTP: one pooled ``requests`` session for each upstream.

``requests`` sends. Added here is what it does not have: one deadline for a whole call, reads
that are retried, a circuit breaker for each host, answers of a bounded size, and pooled
connections that are not used when they are about to end. Redirects are not followed and cookies
not kept; proxies, netrc and CA bundle of the environment count only where that is configured.
"""

from __future__ import annotations

import io
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Container, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache, partial
from http.client import HTTPResponse, RemoteDisconnected
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson
import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.utils import default_headers, get_netrc_auth
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

from litellm_plugin import strict_json
from litellm_plugin.clients import deadline
from litellm_plugin.clients.circuit_breaker import CircuitBreaker
from litellm_plugin.config.settings import Timeouts
from litellm_plugin.observability import metrics, request_id
from litellm_plugin.redaction import redact

log = logging.getLogger(__name__)

POOL_SIZE = 64  # connections to one host that are kept
# Limit of circuit breakers: clients can invent plugin ids, which discovery may put in host names.
MOST_HOSTS = 64
UNLIMITED = 1 << 20  # calls under way at once
PATIENCE = 2.0  # seconds to wait while ``at_once`` calls are under way
READ_ATTEMPTS = 4
FIRST_PAUSE = 0.05  # seconds before the second attempt; doubled for each further one
UNAVAILABLE = frozenset({502, 503, 504})  # from a host that is down, or its reverse proxy
MAX_BODY_BYTES = 64 * 1024 * 1024
# Uvicorn and Node close a connection that was idle for 5 seconds. A POST that is sent at that
# moment can't be repeated, so connections are not used again after this time.
IDLE_SECONDS = 4.0

_HEADERS = dict(default_headers())

# The errors of requests are OSErrors. Sometimes it lets errors of urllib3 through, and those about
# text that no header or URL can hold.
_FAILURES = (OSError, HTTPError, UnicodeError)
_BROKEN = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


class NoAnswerError(Exception):
    """The upstream could not be reached, did not answer in time, or broke the connection off.

    Attributes:
        sent: Whether the upstream may have received the request, and acted on it.
        retryable: Whether another attempt may succeed: a connection was refused, or broke.
        down: Whether the circuit breaker counts it as a failure of the upstream.
        advice: What the operator should check, and the cause, for the log; may be empty.
    """

    def __init__(
        self,
        message: str,
        *,
        sent: bool,
        retryable: bool = False,
        down: bool = False,
        advice: str = "",
    ) -> None:
        super().__init__(message)
        self.sent = sent
        self.retryable = retryable
        self.down = down
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of an upstream.

    Attributes:
        status: HTTP status.
        reason: Reason phrase of the status line.
        body: The decoded body, complete.
        headers: By name, in any case.
    """

    status: int
    reason: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the decoded JSON.

        Raises:
            ValueError: It is not JSON, nested too deep, or has a number that is not finite.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            # orjson refuses lone surrogates, which Python and JavaScript accept.
            return strict_json.loads(self.body)


class Upstream:
    """A service that is called over HTTP. Safe to share between threads.

    Args:
        name: For messages, such as ``LiteLLM``.
        setting: Name of the setting with its address, for the log.
        at_once: How many calls may be under way at once; None: any number.
        timeouts: Limits of each call, in seconds, within the deadline of the request that
            is served. Names are resolved by the system, which has limits of its own.
        attempts: How often a GET is tried.
        breaking: Whether each host has a circuit breaker.
        trust_environment: Whether to use proxies, netrc and CA bundle of the environment.
        ca_file: CA bundle to check the upstream's certificate with.
    """

    def __init__(
        self,
        name: str,
        *,
        timeouts: Timeouts,
        setting: str = "its address",
        at_once: int | None = None,
        attempts: int = 1,
        breaking: bool = False,
        trust_environment: bool = False,
        ca_file: Path | None = None,
    ) -> None:
        self.name = name
        self._setting = setting
        self._places = threading.BoundedSemaphore(at_once or UNLIMITED)
        self._timeouts = timeouts
        self._attempts = attempts
        self._breaking = breaking
        # By scheme, host and port; the least recently used is the first.
        self._breakers: dict[str, CircuitBreaker] = {}
        self._lock = threading.Lock()  # never held during a call
        self._trust_environment = trust_environment
        self._ca_file = ca_file
        self._open()

    def _open(self) -> None:
        session = _Session()
        session.trust_env = self._trust_environment
        session.stream = True
        # Session.send() reads proxies from the environment, but not the CA bundle.
        bundles = [os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
        trusted = next(filter(None, bundles), True) if self._trust_environment else True
        session.verify = str(self._ca_file) if self._ca_file else trusted
        session.cookies = RequestsCookieJar(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(pool_maxsize=POOL_SIZE))
        self._session, self._process = session, os.getpid()

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        again: Container[int] = UNAVAILABLE,
        logs_failure: bool = True,
    ) -> Answer:
        """Send a request, and read the whole answer.

        Args:
            method: HTTP method. Only a GET is retried: anything else may have been acted on.
            url: Absolute URL, its path percent-encoded.
            params: Query; a space becomes ``%20``, because LiteLLM takes ``+`` literally.
            body: Sent as JSON unless None; bytes are sent as they are.
            headers: Request headers, the credentials among them.
            again: The statuses after which a GET is retried.
            logs_failure: Whether a warning is logged where there is no answer.

        Raises:
            NoAnswerError: There was no complete answer within the time-outs.
        """
        breaker = self._breaker(url) if self._breaking else None
        if breaker is not None and not breaker.admits():
            raise NoAnswerError(f"{self.name} does not answer at present", sent=False)
        try:
            request = self._prepared(method, url, params, body, headers or {})
            answer = self._with_retries(request, again)
        except NoAnswerError as exc:
            if logs_failure and exc.advice:
                log.warning("%s; %s", exc, exc.advice)
            if breaker is not None and exc.down:
                breaker.failed()
            raise
        if breaker is not None:
            (breaker.failed if answer.status in UNAVAILABLE else breaker.succeeded)()
        return answer

    def _breaker(self, url: str) -> CircuitBreaker:
        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        with self._lock:
            breaker = self._breakers.pop(host, None)
            if breaker is None:
                changed = partial(metrics.circuit_open, self.name)
                breaker = CircuitBreaker(f"{self.name} at {host}", changed=changed)
            self._breakers[host] = breaker
            if len(self._breakers) > MOST_HOSTS:
                self._breakers.pop(next(iter(self._breakers))).retire()
        return breaker

    def _prepared(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        body: Any,
        headers: Mapping[str, str],
    ) -> requests.PreparedRequest:
        # Session.prepare_request() merges settings of the session, which has none, and
        # PreparedRequest.prepare() parses each URL again: both take longer than sending.
        request = requests.PreparedRequest()
        try:
            request.prepare_method(method)
            request.url = _normalized(url)
            if params:
                request.url += f"?{urlencode(params, quote_via=quote, safe='')}"
            request.prepare_headers({**_HEADERS, **request_id.headers(), **headers})
            content = body if isinstance(body, bytes) else None
            request.prepare_body(content, None, json=None if content else body)
            if "Authorization" not in headers:  # netrc and a password in the URL would replace it
                request.prepare_auth(get_netrc_auth(url) if self._trust_environment else None, url)
        except _FAILURES as exc:
            raise self._no_answer(exc, sent=False, fair=True) from exc
        return request

    def _with_retries(self, request: requests.PreparedRequest, again: Container[int]) -> Answer:
        attempts = self._attempts if request.method == "GET" else 1
        for turn in range(attempts):
            pause = FIRST_PAUSE * 2**turn * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            last = turn == attempts - 1 or pause >= deadline.left()
            try:
                answer = self._attempt(request)
                if last or answer.status not in again:
                    return answer
            except NoAnswerError as exc:
                if last or not exc.retryable:
                    raise
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, request: requests.PreparedRequest) -> Answer:
        if self._process != os.getpid():
            # A forked process with its parent's sockets would read its parent's answers.
            self._open()
        patience = min(PATIENCE, deadline.left())
        if patience <= 0:
            raise NoAnswerError(f"There was no time left to call {self.name}", sent=False)
        if not self._places.acquire(timeout=patience):
            raise NoAnswerError(f"Too many calls to {self.name} are under way", sent=False)
        began, status = time.perf_counter(), None
        limits = self._timeouts
        budget = min(limits.total, deadline.left())
        call = _Call(time.monotonic() + budget, limits.connect, limits.read)
        _call.set(call)
        try:
            try:
                answer = self._send(request, call)
            except requests.ConnectionError:
                # A connection from the pool may turn out to be closed.
                if request.method != "GET" or not call.reused or call.answered:
                    raise
                call.reuse = False
                answer = self._send(request, call)
            status = answer.status
            return answer
        except _FAILURES as exc:
            # A time-out of a call that had little time left says nothing about the upstream.
            fair = not _is_late(exc) or budget >= limits.total / 2
            raise self._no_answer(exc, sent=call.sent, fair=fair) from exc
        finally:
            self._places.release()
            seconds = time.perf_counter() - began
            metrics.upstream_call(self.name, request.method or "", status, seconds)

    def _send(self, request: requests.PreparedRequest, call: _Call) -> Answer:
        timeout = (call.within(call.connect), call.within(call.read))
        with self._session.send(request, timeout=timeout, allow_redirects=False) as response:
            if response.status_code < 200:
                # The real answer is still to come; the next call would read it as its own.
                raise NoAnswerError(f"{self.name} broke off", sent=True)
            content = bytearray()
            for chunk in response.iter_content(64 * 1024):
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    raise NoAnswerError(f"{self.name} sent too much", sent=True)
            status, reason = response.status_code, response.reason or ""
            return Answer(status, reason, bytes(content), response.headers)

    def _no_answer(self, exc: Exception, *, sent: bool, fair: bool) -> NoAnswerError:
        late = _is_late(exc)
        if sent:
            what = "did not answer in time" if late else "broke off"
        else:
            what = "could not be reached in time" if late else "could not be reached"
        # An invalid header would be quoted, and may be the one with the credentials.
        secret = isinstance(exc, requests.exceptions.InvalidHeader)
        reason = type(exc).__name__ if secret else redact(str(exc))
        broken = isinstance(exc, _BROKEN) and not isinstance(exc, requests.exceptions.SSLError)
        return NoAnswerError(
            f"{self.name} {what}",
            sent=sent,
            retryable=broken and not late,
            # A ValueError is about what was to be sent.
            down=fair and not isinstance(exc, ValueError),
            advice=f"check that it is up, and {self._setting}: {reason}",
        )


@lru_cache(1024)
def _normalized(url: str) -> str:
    """Return a URL without a query as ``requests`` sends it, an international host encoded."""
    request = requests.PreparedRequest()
    request.prepare_url(url, None)
    return request.url or url


def _is_late(exc: BaseException) -> bool:
    if isinstance(exc, requests.Timeout):
        return True
    # Time-outs on sending, and within the body, come as a connection error around the cause.
    while exc.args and isinstance(exc.args[-1], Exception):
        exc = exc.args[-1]
    return isinstance(exc, TimeoutError | ReadTimeoutError)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        # Even when it follows none, requests reads a redirect's body to its end.
        return None


@dataclass(slots=True)
class _Call:
    """Limits and progress of this thread's call, which its connection reads and sets.

    Attributes:
        deadline: End of the whole call, on the monotonic clock.
        connect: Limit, in seconds, of TCP, and again of TLS.
        read: Limit, in seconds, of each silence.
        reuse: Whether to take a connection from the pool.
        sent: Whether the upstream may have received anything.
        reused: Whether the request was sent over a connection from the pool.
        answered: Whether a first byte has come back.
    """

    deadline: float
    connect: float
    read: float
    reuse: bool = True
    sent: bool = True  # assumed until a connection below is used, which sets it
    reused: bool = False
    answered: bool = False

    def within(self, seconds: float) -> float:
        """Return the time-out for a step that may take some seconds: not beyond the deadline."""
        # Never 0, which a socket takes for "do not wait".
        return max(min(seconds, self.deadline - time.monotonic()), 0.001)


_call: ContextVar[_Call] = ContextVar("call")


class _TimedReader(io.RawIOBase):
    """The reading side of a socket; it stops at the deadline of the whole call.

    A socket's own time-out limits each read, so an upstream that sends a byte now and then could
    hold a thread for ever, even within its headers.

    Attributes:
        ended: Whether the other side has closed the connection.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        call = _call.get()
        if time.monotonic() >= call.deadline:
            raise TimeoutError("timed out")
        self._sock.settimeout(call.within(call.read))
        count: int | None = self._raw.readinto(buffer)
        if count:
            call.answered = True
        self.ended = count == 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = _TimedReader(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        if self._reader.ended:
            # http.client takes the end of the stream for that of the headers: an empty body.
            raise RemoteDisconnected("Remote end closed connection within the headers")


class _HTTPConnection(HTTPConnection):
    response_class = _Response
    _used_at: float | None = None  # when it was last sent something; None: it is new

    @property
    def is_connected(self) -> bool:
        """Whether the pool may hand it out again."""
        rested = time.monotonic() - (self._used_at or 0.0)
        return _call.get().reuse and rested < IDLE_SECONDS and super().is_connected

    def _new_conn(self) -> socket.socket:
        self._used_at = None
        sock = super()._new_conn()
        call = _call.get()
        sock.settimeout(call.within(call.connect))  # for TLS, which begins now
        return sock

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        call = _call.get()
        call.sent, call.reused = True, self._used_at is not None
        self.sock.settimeout(call.within(call.read))
        super().send(data)

    def getresponse(self) -> Any:
        self._used_at = time.monotonic()
        return super().getresponse()


class _HTTPSConnection(_HTTPConnection, HTTPSConnection):
    pass


_TIMED = {HTTPConnection: _HTTPConnection, HTTPSConnection: _HTTPSConnection}


class _Adapter(HTTPAdapter):
    """Connects through the classes above, also to and through HTTP proxies."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _TIMED.get(pool.ConnectionCls, pool.ConnectionCls)
        # urllib3's connection to a SOCKS proxy does not record whether it has sent anything.
        _call.get().sent = not issubclass(pool.ConnectionCls, _HTTPConnection)
        return pool
