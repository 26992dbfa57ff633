"""Upstreams that are down, hang, or refuse the service: nothing is allowed, and it mends itself."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
import requests

from tests.deployed import free_port
from tests.faults.replica import BY_EACH_WORKER
from tests.live.kinds import Deploy, Person, Told
from tests.live.relay import Relay
from tests.live.rigs import (
    BACKSTAGE_PORT,
    LITELLM_PORT,
    STATIC_TOKEN,
    BackstageRig,
    LiteLLMRig,
)
from tests.live.service import Service
from tests.live.web import Client, days, eventually, json_of

IMPATIENT = "    timeouts: {connect: 1, read: 1, total: 2}\n"
CIRCUITS_OPEN = "litellm_plugin_upstream_left_alone{"
PATIENCE = 15.0  # seconds; what one answer may take then, with more than one call in it


@dataclass(frozen=True)
class Lines:
    """A service, and the lines between it and its upstreams."""

    service: Service
    litellm: Relay
    backstage: Relay
    metrics: str  # URL

    def circuits_open(self) -> float:
        """Return how many circuit breakers are open, over all workers and upstreams."""
        answer = requests.get(self.metrics, timeout=PATIENCE)
        rows = [row.split() for row in answer.text.splitlines()]
        return sum(float(row[1]) for row in rows if row[0].startswith(CIRCUITS_OPEN))

    def mend(self) -> None:
        self.litellm.mend()
        self.backstage.mend()

    def cut(self) -> None:
        self.litellm.cut()
        self.backstage.cut()


def laid(deploy: Deploy, main: Service) -> Lines:
    """Start a service of which all lines are cut."""
    litellm, backstage = Relay(LITELLM_PORT), Relay(BACKSTAGE_PORT)
    metrics = f"127.0.0.1:{free_port()}"
    service = deploy(
        f"relayed-{uuid4().hex[:4]}",
        f"    backstageUrl: {backstage.url}\n    metrics: {{bind: {metrics}}}\n{IMPATIENT}",
        plugin_url=main.url,
        env={"LITELLM_BASE_URL": litellm.url},
    )
    return Lines(service, litellm, backstage, f"http://{metrics}/metrics")


@pytest.fixture(scope="module")
def _laid(deploy: Deploy, service: Service) -> Iterator[Lines]:
    lines = laid(deploy, service)
    yield lines
    lines.cut()


@pytest.fixture
def lines(_laid: Lines, person: Person) -> Lines:
    """All lines are up, and every worker has noticed."""
    _laid.mend()
    alice = person("alice", at=_laid.service)

    def noticed() -> bool:
        # Each worker lets one request a second through to an upstream that was down. The first
        # of the routes asks LiteLLM, the second Backstage's permission API.
        for _ in range(4):
            alice.get("/user/info")
            alice.get("/teams/managed")
        return _laid.circuits_open() == 0

    eventually(noticed)
    return _laid


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    body: Any = None


WRITING = [
    Route("POST", "/keys/generate", {"alias": "outage"}),
    Route("POST", "/teams", {"team_alias": "outage", "models": ["gpt-4o"], "max_budget": 1}),
]
ROUTES = [
    *WRITING,
    Route("GET", "/user/info"),
    Route("GET", "/keys"),
    Route("GET", "/models"),
    Route("GET", "/teams"),
    Route("GET", "/teams/managed"),
    Route("GET", "/audit"),
    Route("GET", f"/usage?{urlencode(days())}"),
]


def routes_of_key(token: str) -> list[Route]:
    changes = ("update", "block", "unblock", "reset_spend")
    posts = [Route("POST", f"/keys/{token}/{change}", {}) for change in changes]
    return [*posts, Route("DELETE", f"/keys/{token}")]


def ask_all(client: Client, routes: list[Route]) -> list[tuple[int, str]]:
    """Ask for all at once; return the status and the error of each, which must come soon."""

    def ask(route: Route) -> tuple[int, str]:
        answer = client.ask(route.method, route.path, json=route.body, timeout=PATIENCE)
        error = answer.json()["error"]
        assert isinstance(error, str), error
        return answer.status_code, error

    with ThreadPoolExecutor(len(routes)) as pool:
        return list(pool.map(ask, routes))


def summed_up(answers: list[tuple[int, str]]) -> str:
    return "; ".join(sorted({f"{status} {error[:60]}" for status, error in answers}))


def test_a_service_that_starts_alone_serves_as_soon_as_the_others_are_up(
    deploy: Deploy, service: Service, backstage: BackstageRig, told: Told
) -> None:
    lines = laid(deploy, service)
    try:
        assert json_of(Client(lines.service.url, STATIC_TOKEN).get("/health"))["status"] == "ok"
        erin = Client(lines.service.url, backstage.sign_in("erin"))
        # No key of Backstage's is known, so nobody's token can be told from a forged one.
        assert erin.get("/user/info").status_code in {401, 503}
        lines.backstage.mend()
        error = eventually(lambda: error_of(erin.get("/user/info"), 500))
        assert "LiteLLM" in error
        lines.litellm.mend()
        eventually(lambda: erin.get("/user/info").status_code == 200)
    finally:
        lines.cut()
    told(f"started without LiteLLM and Backstage; with Backstage: {error!r}; with both: 200")


@pytest.mark.parametrize("how", ["cut", "silence"])
def test_without_litellm_every_answer_says_so_and_it_comes_back(
    lines: Lines, person: Person, how: str, told: Told
) -> None:
    alice = person("alice", at=lines.service)
    json_of(alice.get("/user/info"))
    getattr(lines.litellm, how)()
    answers = ask_all(alice, ROUTES)
    for status, error in answers:
        assert 500 <= status <= 504
        assert "LiteLLM" in error
    json_of(alice.get("/health"))
    lines.litellm.mend()
    eventually(lambda: alice.get("/user/info").status_code == 200)
    told(f"LiteLLM, {how}: {summed_up(answers)}; later 200 again")


@pytest.mark.parametrize("how", ["cut", "silence"])
def test_without_backstage_nothing_is_allowed_and_it_comes_back(
    lines: Lines,
    person: Person,
    backstage: BackstageRig,
    litellm: LiteLLMRig,
    stranger: str,
    how: str,
    told: Told,
) -> None:
    alice = person("alice", at=lines.service)
    key = json_of(alice.post("/keys/generate", {"alias": f"key-{uuid4().hex[:8]}"}))
    new = Client(lines.service.url, backstage.sign_in(stranger, uncatalogued=True))
    before = state(litellm)
    getattr(lines.backstage, how)()
    routes = [
        *WRITING,
        *routes_of_key(key["token"]),
        Route("GET", "/audit"),
        Route("GET", "/teams/managed"),
        Route("GET", "/opencode/connect?redirect_uri=http://localhost:1/callback"),
    ]
    answers = ask_all(alice, routes)
    assert {status for status, _ in answers} == {503}
    # A first visit needs a role; who can't be given one is not created.
    assert new.get("/user/info").status_code == 503
    assert state(litellm) == before
    assert litellm.user(f"{stranger.rpartition('/')[2]}@example.com") is None
    lines.backstage.mend()
    eventually(lambda: alice.delete(f"/keys/{key['token']}").status_code == 200)
    eventually(lambda: new.get("/user/info").status_code == 200)
    told(f"Backstage, {how}: {summed_up(answers)}, nothing written; later 200 again")


def test_backstage_restarts_under_the_service(
    service: Service, person: Person, backstage: BackstageRig, litellm: LiteLLMRig, told: Told
) -> None:
    erin = person("erin")
    for _ in range(BY_EACH_WORKER):  # each has read Backstage's keys by then
        json_of(erin.get("/user/info"))
    before = litellm.keys_of("erin@example.com")
    backstage.down()
    try:
        refused = erin.post("/keys/generate", {"alias": f"key-{uuid4().hex[:8]}"})
        error = json_of(refused, 503)["error"]
        assert litellm.keys_of("erin@example.com") == before
    finally:
        backstage.up()
    again = person("erin")

    def made() -> dict[str, Any]:
        answer = again.post("/keys/generate", {"alias": f"key-{uuid4().hex[:8]}"})
        return answer.json() if answer.status_code == 200 else {}

    assert eventually(made)["token"] in litellm.keys_of("erin@example.com")
    # Other tests ask the same service: no circuit breaker of its workers may be open any more.
    eventually(lambda: {_denied(again) for _ in range(BY_EACH_WORKER)} == {403})
    told(f"Backstage stopped: 503 {error!r}; started: erin makes keys again")


@pytest.mark.parametrize("master_key", ["sk-not-the-master-key", "not-even-a-key"])
def test_a_refused_master_key_is_the_operators_matter_and_no_end_of_a_session(
    deploy: Deploy, service: Service, person: Person, master_key: str, told: Told
) -> None:
    wrong = deploy(
        f"wrong-key-{uuid4().hex[:4]}",
        plugin_url=service.url,
        env={"LITELLM_MASTER_KEY": master_key},
    )
    alice = person("alice", at=wrong)
    answers = ask_all(alice, ROUTES)
    for status, error in answers:
        assert status in {500, 502, 503}  # 503: usage
        assert error
        assert master_key not in error
    assert "litellm.masterKey" in wrong.log
    assert master_key not in wrong.log
    hint = next(line for line in wrong.log.splitlines() if "litellm.masterKey" in line)
    told(f"a wrong master key: {summed_up(answers)}; the log: {hint!r}")


def _denied(client: Client) -> int:
    """Return the status of a request that asks Backstage for a permission, and changes nothing."""
    return client.delete("/keys/nobodys").status_code


def error_of(answer: Any, status: int) -> str:
    """Return the error of an answer with ``status``; "" where it has another."""
    return str(answer.json()["error"]) if answer.status_code == status else ""


def state(litellm: LiteLLMRig) -> Any:
    """Return what a write would change: every key and team there is."""
    keys = json_of(litellm.admin.get("/key/list", size="100", return_full_object="true"))
    volatile = ("spend", "total_spend", "updated_at", "last_active")
    rows = [{k: v for k, v in key.items() if k not in volatile} for key in keys["keys"]]
    teams = [team["team_id"] for team in json_of(litellm.admin.get("/team/list"))]
    return rows, sorted(teams)
