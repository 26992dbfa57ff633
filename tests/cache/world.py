"""Several workers of one host in one process, and a LiteLLM that keeps what it is told."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from werkzeug.test import TestResponse

from litellm_plugin import create_app
from litellm_plugin.config.settings import Settings
from litellm_plugin.sandbox.activity import UsageRow
from litellm_plugin.sandbox.litellm import LiteLLMStandIn
from tests.cache.turns import Turns
from tests.client import JWKS_PATH, PluginClient
from tests.fakes import Asked, FakeBackstage, FakeKeycloak, Network, People, Reply
from tests.fakes.litellm import BASE_URL, MASTER_KEY
from tests.tokens import TokenFactory

TEAM_ADMINS = "group:default/litellm-team-admins"
PERIOD = "start_date=2026-11-01&end_date=2099-12-31"  # goes on
DAY = date(2026, 11, 2)

Json = dict[str, Any]
Hook = Callable[["Call"], None]


@dataclass(frozen=True)
class Call:
    """A request that LiteLLM got."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    status: list[int] = field(default_factory=list, compare=False)  # empty until it is known

    @property
    def users(self) -> set[str]:
        """The LiteLLM ids of the users it is about."""
        body = self.body if isinstance(self.body, dict) else {}
        return {given["user_id"] for given in (self.query, body) if given.get("user_id")}


class LiteLLM:
    """The stand-in as a host of the network, with hooks around what it does.

    Attributes:
        stand_in: Keeps what it is told.
        calls: What was asked, in order.
        arriving: Called with each call before LiteLLM acts; what it raises is the answer.
        acted: Called when LiteLLM has acted, and its answer is not out yet; the same holds.
    """

    base_url = BASE_URL

    def __init__(self) -> None:
        self.stand_in = _stand_in()
        self.stand_in.store.reset()
        self.calls: list[Call] = []
        self.arriving: Hook = _nothing
        self.acted: Hook = _nothing
        self._client = PluginClient(self.stand_in.app, mount="")

    @property
    def reads(self) -> list[Call]:
        return [call for call in self.calls if call.method == "GET"]

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.method != "GET"]

    def read(self, path: str) -> list[Call]:
        return [call for call in self.reads if call.path == path]

    def answer(self, asked: Asked) -> Reply:
        call = Call(asked.method, asked.path, dict(parse_qsl(asked.query)), asked.json)
        self.calls.append(call)
        try:
            self.arriving(call)
            target = f"{asked.path}?{asked.query}" if asked.query else asked.path
            answer = self._client.request(
                asked.method, target, raw=asked.body, headers=asked.headers
            )
            call.status.append(answer.status_code)
            self.acted(call)
        except FailsError as exc:
            return Reply(exc.status, {"error": {"message": "told to fail", "code": exc.status}})
        kind = {"Content-Type": answer.content_type or ""}
        return Reply(answer.status_code, text=answer.text, headers=kind)


class FailsError(Exception):
    """Raised by a hook: LiteLLM answers with this status instead."""

    def __init__(self, status: int = 500) -> None:
        super().__init__(status)
        self.status = status


@functools.cache
def _stand_in() -> LiteLLMStandIn:
    return LiteLLMStandIn(MASTER_KEY)  # Flask takes its time to put the routes together


def _nothing(_call: Call) -> None:
    pass


class World:
    """Workers, LiteLLM and Backstage.

    A worker is an application of its own, with a memory of its own; like the processes of one
    host they share files, and nothing else.

    Args:
        settings: Of all workers.
        tokens: Signs.
        folder: Where the workers meet.
        monkeypatch: Puts the network and the folder in place.
        workers: How many there are.
        turns: Whose turn it is, if threads take turns; LiteLLM then parks each call when it
            has acted, before its answer is out.

    Attributes:
        workers: A client of each.
        headers: Makes the headers with which somebody asks.
    """

    def __init__(
        self,
        settings: Settings,
        tokens: TokenFactory,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        workers: int = 1,
        turns: Turns | None = None,
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        self.litellm = LiteLLM()
        self.turns = turns
        if turns is not None:
            turns.rule(monkeypatch)
            self.litellm.acted = lambda _call: turns.park()
        self.backstage = FakeBackstage(tokens, People(()))
        self.headers = functools.lru_cache(tokens.headers)
        self.workers: list[PluginClient] = []
        self.start(settings, workers)
        self.backstage.discovers("litellm", lambda: self.workers[0].get(JWKS_PATH).json)
        Network(self.litellm, self.backstage, FakeKeycloak(tokens)).install(monkeypatch)

    def start(self, settings: Settings, workers: int) -> None:
        """Start more workers."""
        self.workers += [
            PluginClient(create_app(settings), headers_of=self.headers) for _ in range(workers)
        ]

    def people(self, **groups: Iterable[str]) -> None:
        """Let these be the catalog's people, each by name with their groups."""
        self.backstage.people = People(person(name, of) for name, of in groups.items())

    def ask(
        self, who: str, method: str, target: str, *, worker: int = 0, **sent: Any
    ) -> TestResponse:
        """Send a request to a worker, with what :meth:`PluginClient.request` takes."""
        return self.workers[worker].request(method, target, who=who, **sent)

    def get(self, who: str, target: str, *, worker: int = 0) -> Any:
        """Return what a worker answers; it must be 200."""
        answer = self.ask(who, "GET", target, worker=worker)
        assert answer.status_code == 200, answer.text
        return answer.json


def person(name: str, groups: Iterable[str] = ()) -> Json:
    """Return a catalog entity."""
    return {
        "apiVersion": "backstage.io/v1alpha1",
        "kind": "User",
        "metadata": {"name": name},
        "spec": {"memberOf": list(groups)},
    }


def id_of(name: str) -> str:
    """Return somebody's LiteLLM id."""
    return f"{name}@example.com"


def caching(settings: Settings, seconds: float, stale: float = 0.0) -> Settings:
    """Return settings under which reads are kept for ``seconds``."""
    service = replace(settings.service, cache_seconds=seconds, stale_seconds=stale)
    return replace(settings, service=service)


def used(token: str, user_id: str, team_id: str | None = None, spend: float = 0.1) -> UsageRow:
    """Return a row of usage."""
    return UsageRow(
        day=DAY,
        token=token,
        user_id=user_id,
        team_id=team_id,
        model="gpt-4o-mini",
        deployment="openai/gpt-4o-mini",
        spend=spend,
        prompt_tokens=1,
        completion_tokens=1,
        successful_requests=1,
    )


class Hold:
    """A place where calls to LiteLLM stand still until the test, or enough of them, let them go.

    Args:
        wanted: Which calls.
        times: How many of them; later ones pass.
        together: Whether they go on by themselves once that many are there.
    """

    WAIT = 60.0  # seconds, at most

    def __init__(
        self, wanted: Callable[[Call], bool], times: int = 1, *, together: bool = False
    ) -> None:
        self._wanted = wanted
        self._lock = threading.Lock()
        self._left = times
        self._together = together
        self._there = threading.Semaphore(0)
        self._go = threading.Event()

    def __call__(self, call: Call) -> None:
        if not self._wanted(call):
            return
        with self._lock:
            if not self._left:
                return
            self._left -= 1
            if not self._left and self._together:
                self._go.set()
        self._there.release()
        assert self._go.wait(self.WAIT), "nobody let the call go"

    def reached(self) -> None:
        """Wait until one more call is there."""
        assert self._there.acquire(timeout=self.WAIT), "no call came"

    def let_go(self) -> None:
        """Hold nobody from now on."""
        self._left = 0
        self._go.set()
