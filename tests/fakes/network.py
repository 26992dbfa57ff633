"""A network without sockets: every ``requests`` session asks the hosts given here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
import requests_mock
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError

NOTHING: Any = object()  # tells "no JSON" from JSON's null


@dataclass(frozen=True)
class Asked:
    """A request as a host receives it.

    Attributes:
        path: Below the host's base URL, percent-encoded as sent.
        query: As sent, without the question mark.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The decoded query."""
        return parse_qsl(self.query, keep_blank_values=True)

    @property
    def json(self) -> Any:
        """The decoded body; its text where it is no JSON, None where there is none."""
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            return self.body.decode("utf-8", "replace")

    @property
    def bearer(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None


@dataclass(frozen=True)
class Reply:
    """What a host answers: ``json`` where given, else ``text``."""

    status: int = 200
    json: Any = NOTHING
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request: requests_mock.Request) -> requests.Response:
        is_json = self.json is not NOTHING
        content = json.dumps(self.json) if is_json else self.text
        kind = "application/json" if is_json else "text/plain; charset=utf-8"
        return requests_mock.create_response(
            request,
            status_code=self.status,
            content=content.encode(),
            headers={"Content-Type": kind, **self.headers},
        )


class Host(Protocol):
    """Something that answers below one base URL."""

    @property
    def base_url(self) -> str: ...

    def answer(self, asked: Asked) -> Reply: ...


def dropped() -> requests.ConnectionError:
    """Return what ``requests`` raises when the other side hangs up without an answer."""
    return requests.ConnectionError(
        ProtocolError("Connection aborted.", ConnectionResetError(104, "reset by peer"))
    )


def connection_refused(url: str = "http://127.0.0.1:9") -> requests.ConnectionError:
    """Return what ``requests`` raises where nobody listens."""
    pool = HTTPConnectionPool("127.0.0.1", 9)
    refused = NewConnectionError(HTTPConnection("127.0.0.1", 9), "Connection refused")
    return requests.ConnectionError(MaxRetryError(pool, url, refused))


class Network:
    """The hosts there are; whatever else is asked refuses the connection.

    Unlike ``requests_mock.Mocker`` it holds no lock while a host answers, so that
    requests really run side by side.

    Attributes:
        strays: URLs outside all hosts that were asked.
    """

    def __init__(self, *hosts: Host) -> None:
        self.hosts = list(hosts)
        self.strays: list[str] = []
        self._adapter = requests_mock.Adapter(case_sensitive=True)
        self._adapter.add_matcher(self._answered)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put every session on this network, those that exist already too; none pauses."""
        adapter = self._adapter
        monkeypatch.setattr(requests.Session, "get_adapter", lambda _session, url: adapter)
        monkeypatch.setattr("litellm_plugin.clients.http.FIRST_PAUSE", 0.0)

    def _answered(self, request: requests_mock.Request) -> requests.Response:
        url: str = request.url
        for host in self.hosts:
            below = url.removeprefix(host.base_url)
            if below != url and below[:1] in {"", "/", "?"}:
                parts = urlsplit(below)
                # urlsplit() would take //x for a host name.
                path = below.partition("?")[0] if below.startswith("//") else parts.path
                return host.answer(
                    Asked(request.method, path, parts.query, request.headers, _bytes(request.body))
                ).response(request)
        self.strays.append(url)
        raise connection_refused(url)


def _bytes(body: Any) -> bytes:
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else bytes(body)
