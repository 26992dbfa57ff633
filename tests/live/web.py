"""Asks a server as one caller, and waits for what takes its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import requests

ANSWER = 60.0  # seconds; longer than any time-out on the way
POLL = 0.1  # seconds between two looks

T = TypeVar("T")


class Client:
    """Asks one server, always with the same credentials.

    Every request has a connection of its own, because the servers come and go.

    Args:
        base_url: What every path is put after.
        token: Sent as ``Authorization: Bearer``; None for no credentials.
    """

    def __init__(self, base_url: str, token: str | None = None) -> None:
        self.base_url = base_url
        self.token = token

    def get(self, path: str, **query: str) -> requests.Response:
        return self.ask("GET", path, params=query)

    def post(self, path: str, json: Any = None) -> requests.Response:
        return self.ask("POST", path, json={} if json is None else json)

    def put(self, path: str, json: Any) -> requests.Response:
        return self.ask("PUT", path, json=json)

    def patch(self, path: str, json: Any) -> requests.Response:
        return self.ask("PATCH", path, json=json)

    def delete(self, path: str, **query: str) -> requests.Response:
        """Delete as the frontend does: it names JSON, and sends none."""
        headers = {"Content-Type": "application/json"}
        return self.ask("DELETE", path, params=query, headers=headers)

    def ask(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Ask; ``kwargs`` are those of ``requests``."""
        headers = dict(kwargs.pop("headers", {}))
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        kwargs.setdefault("timeout", ANSWER)
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method, self.base_url + path, headers=headers, allow_redirects=False, **kwargs
            )


def json_of(response: requests.Response, status: int = 200) -> Any:
    """Return the JSON of an answer that must have ``status``."""
    assert response.status_code == status, f"{response.status_code}: {response.text[:500]}"
    return response.json()


def eventually(probe: Callable[[], T], *, within: float = 60.0) -> T:
    """Return the first result of ``probe`` that is not falsy, within some seconds."""
    deadline = time.monotonic() + within
    while True:
        result = probe()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {within} s; the last was {result!r}"
        time.sleep(POLL)


def days() -> dict[str, str]:
    """Return yesterday to tomorrow, so that no test is late at midnight."""
    today = datetime.now(UTC).date()
    one = timedelta(days=1)
    return {"start_date": str(today - one), "end_date": str(today + one)}
