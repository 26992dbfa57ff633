"""The only way out: one pooled ``requests`` session per upstream.

Whatever a caller forgets is decided here: time-outs on connecting, on silence
and on the whole call, within the deadline of the request that is served; reads
tried again, and upstreams that are down left alone; no redirects, no cookies, no
proxies, netrc or CA bundle from the environment unless configured; answers
bounded in size.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Container, Iterator, Mapping
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
from cachetools import LRUCache
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.utils import default_headers, get_netrc_auth
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

from litellm_plugin.clients import deadline
from litellm_plugin.clients.circuit_breaker import CircuitBreaker
from litellm_plugin.config.settings import Timeouts
from litellm_plugin.errors import redact
from litellm_plugin.observability import metrics
from litellm_plugin.observability.context import passed_on

log = logging.getLogger(__name__)

POOL_SIZE = 64
# An upstream has a few, unless discovery puts the plugin's id into the host: tokens name those.
MOST_HOSTS = 64
PATIENCE = 2.0  # seconds to wait for a place among those who ask at once
READ_ATTEMPTS = 4
FIRST_PAUSE = 0.05  # seconds before the second attempt; doubled each time
# What stands in front of an upstream says so of one that is down, and sometimes it does itself.
NOBODY_THERE = frozenset({502, 503, 504})
MAX_BODY_BYTES = 64 * 1024 * 1024
# Uvicorn and Node close a connection that was idle for 5 seconds. One that is
# about to be closed is not used: a POST that meets the end can't be repeated.
IDLE_SECONDS = 4.0

_HEADERS = dict(default_headers())

# What requests raises is an OSError; urllib3's own errors and those about text
# that no header or URL can hold come through it now and then.
_FAILURES = (OSError, HTTPError, UnicodeError)
# Of those, what a connection that is refused or breaks comes as.
_BROKEN = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


class NoAnswerError(Exception):
    """The upstream could not be reached, was silent, or broke off.

    Attributes:
        sent: Whether the request may have reached it: False only where nothing
            was sent, so that nothing can have been acted upon.
        passing: Whether the next attempt may do better: a connection was refused, or broke.
        down: Whether it is the upstream that failed.
    """

    def __init__(
        self, message: str, *, sent: bool, passing: bool = False, down: bool = False
    ) -> None:
        super().__init__(message)
        self.sent = sent
        self.passing = passing
        self.down = down


@dataclass(frozen=True, slots=True)
class Answer:
    """What an upstream answered.

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
        """The body as text; bytes that are no UTF-8 are replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the decoded JSON.

        Raises:
            ValueError: It is no JSON, nested too deep, or has a number that is not finite.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            pass  # half a surrogate pair, which Python and JavaScript let through, is one reason
        try:
            return json.loads(self.body, parse_constant=_refuse_constant, parse_float=_finite)
        except RecursionError as exc:
            raise ValueError("nested too deep") from exc


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is out of range")
    return number


class _Breakers(LRUCache[str, CircuitBreaker]):
    """By scheme, host and port, of which one may be down alone."""

    def popitem(self) -> tuple[str, CircuitBreaker]:
        host, breaker = super().popitem()
        breaker.forget()
        return host, breaker


class Upstream:
    """One service that is asked over HTTP; any number of threads may ask at once.

    Args:
        name: For messages, such as ``LiteLLM``.
        setting: What says where it is, for the operator's log.
        at_once: How many threads may be asking at the same time; None: any number.
        timeouts: Limits of each call, in seconds, within the deadline of the request that
            is served. Names are resolved by the system, which has limits of its own.
        attempts: How often a GET is tried, where it fails for a moment.
        breaking: Whether a host that does not answer is asked now and then only.
        trust_environment: Take proxies, netrc and CA bundles from the environment.
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
        self._places = threading.BoundedSemaphore(at_once) if at_once else None
        self._timeouts = timeouts
        self._attempts = attempts
        self._breaking = breaking
        self._breakers = _Breakers(MOST_HOSTS)
        self._lock = threading.Lock()
        self._trust_environment = trust_environment
        # Given with each call, because REQUESTS_CA_BUNDLE beats the session's own.
        self._verify = True if ca_file is None else str(ca_file)
        self._open()

    def _open(self) -> None:
        session = _Session()
        session.trust_env = self._trust_environment
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
        again: Container[int] = NOBODY_THERE,
    ) -> Answer:
        """Ask, and read the whole answer.

        Args:
            method: HTTP method. Only a GET is tried again: anything else may have been acted on.
            url: Absolute URL, its path percent-encoded.
            params: Query; a space becomes ``%20``, because LiteLLM takes ``+`` literally.
            body: Sent as JSON unless None.
            headers: Request headers, the credentials among them.
            again: The statuses after which a GET is tried again.

        Raises:
            NoAnswerError: There was no complete answer within the time-outs.
        """
        breaker = self._breaker(url)
        if breaker is not None and not breaker.admits():
            raise NoAnswerError(f"{self.name} does not answer at present", sent=False)
        try:
            answer = self._tried(method, url, params, body, headers or {}, again)
        except NoAnswerError as exc:
            if breaker is not None and exc.down:
                breaker.failed()
            raise
        if breaker is not None:
            (breaker.failed if answer.status in NOBODY_THERE else breaker.answered)()
        return answer

    def _tried(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        body: Any,
        headers: Mapping[str, str],
        again: Container[int],
    ) -> Answer:
        for pause in _pauses(self._attempts if method == "GET" else 1):
            last = pause is None or pause >= deadline.left()
            try:
                answer = self._once(method, url, params, body, headers)
                if last or answer.status not in again:
                    return answer
            except NoAnswerError as exc:
                if last or not exc.passing:
                    raise
            time.sleep(pause or 0.0)
        raise AssertionError("the last attempt returns or raises")

    def _once(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        body: Any,
        headers: Mapping[str, str],
    ) -> Answer:
        patience = min(PATIENCE, deadline.left())
        if patience <= 0:
            raise NoAnswerError(f"There was no time left to ask {self.name}", sent=False)
        if self._places is not None and not self._places.acquire(timeout=patience):
            raise NoAnswerError(f"{self.name} is asked too much at once", sent=False)
        try:
            return self._measured(method, url, params, body, headers)
        finally:
            if self._places is not None:
                self._places.release()

    def _breaker(self, url: str) -> CircuitBreaker | None:
        if not self._breaking:
            return None
        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        with self._lock:
            breaker = self._breakers.get(host)
            if breaker is None:
                changed = partial(metrics.left_alone, self.name)
                breaker = CircuitBreaker(f"{self.name} at {host}", changed=changed)
                self._breakers[host] = breaker
        return breaker

    def _measured(self, method: str, *about: Any) -> Answer:
        with metrics.upstream_call(self.name, method) as answered:
            answer = self._request(method, *about)
            answered.append(answer.status)
            return answer

    def _request(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        body: Any,
        headers: Mapping[str, str],
    ) -> Answer:
        if self._process != os.getpid():
            # Two processes that read from one socket get each other's answers.
            self._open()
        limits = self._timeouts
        given = min(limits.total, deadline.left())
        call = _Call(time.monotonic() + given, limits.connect, limits.read)
        scope = _call.set(call)
        try:
            if params:
                url = f"{url}?{urlencode(params, quote_via=quote, safe='')}"
            try:
                return self._exchange(method, url, body, headers, call)
            except requests.ConnectionError:
                if method != "GET" or not call.met_the_end:
                    raise
            call.reuse = False
            return self._exchange(method, url, body, headers, call)
        except _FAILURES as exc:
            # A request that came with little time left says nothing about the upstream.
            fair = not _is_late(exc) or given >= limits.total / 2
            raise self._no_answer(exc, sent=call.sent, fair=fair) from exc
        finally:
            _call.reset(scope)

    def _exchange(
        self, method: str, url: str, body: Any, headers: Mapping[str, str], call: _Call
    ) -> Answer:
        request = self._prepared(method, url, body, headers)
        with self._session.send(
            request,
            timeout=(min(call.connecting, call.left), min(call.silence, call.left)),
            allow_redirects=False,
            **self._environment(request),
        ) as response:
            if response.status_code < 200:
                # The real answer is still to come, and must not become the next call's.
                raise NoAnswerError(f"{self.name} broke off", sent=True)
            reason, body = response.reason or "", self._bounded(response)
            return Answer(response.status_code, reason, body, response.headers)

    def _prepared(
        self, method: str, url: str, body: Any, headers: Mapping[str, str]
    ) -> requests.PreparedRequest:
        # What Session.request does besides, to merge settings that we do not have, and to
        # look at the same addresses again and again, costs as much as sending.
        base, question, query = url.partition("?")
        request = requests.PreparedRequest()
        request.prepare_method(method)
        request.url = f"{_normalized(base)}{question}{query}"
        request.prepare_headers({**_HEADERS, **passed_on(), **headers})
        request.prepare_body(None, None, json=body)
        if "Authorization" not in headers:  # or netrc, or a password in the URL, would beat it
            request.prepare_auth(get_netrc_auth(url) if self._trust_environment else None, url)
        return request

    def _environment(self, request: requests.PreparedRequest) -> Any:
        if not self._trust_environment:
            return {"stream": True, "verify": self._verify, "proxies": {}, "cert": None}
        return self._session.merge_environment_settings(
            request.url or "", {}, stream=True, verify=self._verify, cert=None
        )

    def _bounded(self, response: requests.Response) -> bytes:
        content = bytearray()
        for chunk in response.iter_content(64 * 1024):
            content += chunk
            if len(content) > MAX_BODY_BYTES:
                raise NoAnswerError(f"{self.name} sent too much", sent=True)
        return bytes(content)

    def _no_answer(self, exc: Exception, *, sent: bool, fair: bool) -> NoAnswerError:
        if sent:
            what = "did not answer in time" if _is_late(exc) else "broke off"
        else:
            what = "could not be reached" + (" in time" if _is_late(exc) else "")
        # An invalid header would be quoted, and may be the one with the credentials.
        secret = isinstance(exc, requests.exceptions.InvalidHeader)
        reason = type(exc).__name__ if secret else redact(str(exc))
        log.warning(
            "%s %s; check that it is up, and %s: %s", self.name, what, self._setting, reason
        )
        passing = isinstance(exc, _BROKEN) and not isinstance(exc, requests.exceptions.SSLError)
        return NoAnswerError(
            f"{self.name} {what}",
            sent=sent,
            passing=passing and not _is_late(exc),
            # A ValueError is about what was to be sent.
            down=fair and not isinstance(exc, ValueError),
        )


def _pauses(attempts: int) -> Iterator[float | None]:
    """Yield for each attempt how long to wait after it failed, in seconds; None: give up."""
    pause = FIRST_PAUSE
    for _ in range(attempts - 1):
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
        pause *= 2
    yield None


def _is_late(exc: BaseException) -> bool:
    if isinstance(exc, requests.Timeout):
        return True
    # Time-outs on sending, and within the body, come as a connection error around the cause.
    while exc.args and isinstance(exc.args[-1], Exception):
        exc = exc.args[-1]
    return isinstance(exc, TimeoutError | ReadTimeoutError)


@lru_cache(1024)
def _normalized(url: str) -> str:
    """Return an address without a query as ``requests`` sends it, an international name encoded."""
    request = requests.PreparedRequest()
    request.prepare_url(url, None)
    return request.url or url


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        # Even when it follows none, requests reads a redirect's body to its end.
        return None

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        _call.get().sent = True  # for all we know; our own adapter knows better
        return super().send(request, **kwargs)


@dataclass(slots=True)
class _Call:
    """What a call allows, and how far it has come."""

    deadline: float  # on the monotonic clock
    connecting: float  # seconds, for TCP and again for TLS
    silence: float  # seconds
    reuse: bool = True  # a connection of the pool will do
    connected: bool = False  # a new connection was made
    sent: bool = False
    reused: bool = False  # it was sent over a connection of the pool
    answered: bool = False  # a first byte has come back

    @property
    def left(self) -> float:
        """Seconds until the deadline; never 0, which a socket takes for "do not wait"."""
        return max(self.deadline - time.monotonic(), 0.001)

    @property
    def met_the_end(self) -> bool:
        """Whether a connection of the pool turned out to be closed."""
        return self.reused and not self.answered


_call: ContextVar[_Call] = ContextVar("call")


class _BoundedReader(io.RawIOBase):
    """A socket's reading side that stops at the deadline of the whole call.

    A time-out on a socket limits one silence only, so an upstream that sends a
    byte now and then, in its headers too, could hold a thread for ever.

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
        self._sock.settimeout(min(call.silence, call.left))
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
        self._reader = _BoundedReader(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        if self._reader.ended:
            # http.client takes it for the end of the headers, and so for an empty body.
            raise RemoteDisconnected("Remote end closed connection within the headers")


class _HTTPConnection(HTTPConnection):
    response_class = _Response
    _used_at = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether the pool may hand it out again."""
        rested = time.monotonic() - self._used_at
        if not _call.get().reuse or rested >= IDLE_SECONDS:
            return False
        if self.sock is None or isinstance(self.sock, ssl.SSLSocket):
            return super().is_connected
        # The same without a poll, for which gevent sets up a watcher and a timer: it is
        # quiet if the other side has neither closed it nor sent what nobody asked for.
        self.sock.settimeout(0)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def connect(self) -> None:
        super().connect()
        _call.get().connected = True

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        call = _call.get()
        sock.settimeout(min(call.connecting, call.left))  # for TLS, which begins now
        return sock

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        call = _call.get()
        call.sent, call.reused = True, not call.connected
        self.sock.settimeout(min(call.silence, call.left))
        super().send(data)

    def getresponse(self) -> Any:
        self._used_at = time.monotonic()
        return super().getresponse()


class _HTTPSConnection(_HTTPConnection, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    """Connects through the classes above, also to and through proxies."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        _call.get().sent = False  # until a connection does
        return super().send(*args, **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # those connect in their own way
            manager.pool_classes_by_scheme = _POOLS
        return manager
