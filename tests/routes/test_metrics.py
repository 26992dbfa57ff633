"""What is counted: over HTTP, as Prometheus would read it."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

import pytest
from prometheus_client import REGISTRY

from litellm_plugin.cache.cache import Cache
from litellm_plugin.errors import UpstreamError
from tests.client import PluginClient
from tests.fakes import FakeBackstage, FakeLiteLLM, connection_refused
from tests.fakes.backstage import Policy
from tests.routes.conftest import FOREIGN_KEY, Account

Grown = Callable[..., float]

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
def grown() -> Grown:
    """Tells by how much a sample has grown since the test began."""
    before = _samples()

    def grown(name: str, **labels: str) -> float:
        name = f"litellm_plugin_{name}"
        was = before.get((name, tuple(sorted(labels.items()))), 0.0)
        return _samples(name).get((name, tuple(sorted(labels.items()))), 0.0) - was

    return grown


def _samples(name: str | None = None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what there is by name and labels; of one name, or of all."""
    registry = REGISTRY.restricted_registry([name]) if name else REGISTRY
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def requests(grown: Grown, route: str, status: int, method: str = "GET") -> float:
    route = f"/api/litellm{route}"
    count = "request_duration_seconds_count"
    return grown(count, method=method, route=route, status=str(status))


def test_requests_are_counted_by_route_and_status(client: PluginClient, grown: Grown) -> None:
    client.get("/health", who="bob")
    client.get("/health")
    client.request("HEAD", "/health", who="bob")
    client.post(f"/keys/{FOREIGN_KEY}/block", who="bob")
    client.get("/nowhere", who="bob")
    assert requests(grown, "/health", 200) == 1
    assert requests(grown, "/health", 401) == 1
    assert requests(grown, "/health", 200, "HEAD") == 1
    assert requests(grown, "/keys/<litellm_id:token>/block", 500, "POST") == 1
    assert requests(grown, "/<litellm_id:_path>", 404) == 1


def test_calls_to_upstreams_are_counted(
    client: PluginClient, litellm: FakeLiteLLM, account: Account, grown: Grown
) -> None:
    litellm.get("/user/info", json=account(), times=1)
    client.get("/user/info", who="bob")
    litellm.get("/models", error=connection_refused())
    litellm.get("/model/info", error=connection_refused())
    client.get("/models", who="bob")
    count = "upstream_duration_seconds_count"
    assert grown(count, upstream="litellm", method="GET", status="2xx") == 1
    assert grown(count, upstream="litellm", method="GET", status="none") >= 1
    assert grown(count, upstream="backstage", method="GET", status="2xx") >= 1  # its keys


def test_reads_are_counted_by_whether_upstreams_were_asked(grown: Grown) -> None:
    now = 0.0
    cache = Cache(10, 100, clock=lambda: 1000 + now)

    def read(load: Callable[[], int]) -> int:
        return cache.read(("thing", "a"), (), load, stale=lambda _: None)

    def down() -> int:
        raise UpstreamError("LiteLLM could not be reached")

    assert (read(lambda: 1), read(lambda: 2)) == (1, 1)
    now = 50
    assert read(down) == 1
    counted = {
        result: grown("cache_reads_total", kind="thing", result=result)
        for result in ("hit", "miss", "stale", "shared")
    }
    assert counted == {"hit": 1, "miss": 2, "stale": 1, "shared": 0}


@pytest.mark.parametrize("kind", ["vector-stores", "mcp-servers"])
def test_reads_of_what_teams_may_have_are_counted_as_their_routes_are_named(
    client: PluginClient, litellm: FakeLiteLLM, grown: Grown, kind: str
) -> None:
    litellm.get("/vector_store/list", json={"data": []})
    litellm.get("/v1/mcp/server", json=[])
    assert client.get(f"/{kind}", who="dave").status_code == 200
    assert grown("cache_reads_total", kind=kind, result="miss") == 1


def test_reads_that_share_one_under_way_are_counted(grown: Grown, joined: Semaphore) -> None:
    cache = Cache(0)

    def load() -> int:
        assert joined.acquire(timeout=60)
        return 1

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(cache.read, ("other", "a"), (), load) for _ in range(2)]
        assert [read.result() for read in both] == [1, 1]
    assert grown("cache_reads_total", kind="other", result="shared") == 1
    assert grown("cache_reads_total", kind="other", result="miss") == 1


def test_a_first_visit_is_counted(
    client: PluginClient, litellm: FakeLiteLLM, account: Account, grown: Grown
) -> None:
    litellm.get("/user/info", status=404, json={}, times=1)
    litellm.post("/user/new", json={})
    litellm.post("/user/update", json={})
    litellm.get("/user/info", json=account("carol@example.com"))
    assert client.get("/user/info", who="carol").status_code == 200
    assert grown("provisioning_total", result="created") == 1


def test_a_first_visit_that_fails_is_counted(
    client: PluginClient, litellm: FakeLiteLLM, grown: Grown
) -> None:
    litellm.get("/user/info", status=404, json={})
    litellm.post("/user/new", status=400, json={"error": {"message": "no"}})
    assert client.get("/user/info", who="carol").status_code == 400
    assert grown("provisioning_total", result="failed") == 1


@pytest.mark.parametrize(
    ("who", "kind"),
    [
        ("none", "missing"),
        ("raw:Basic x", "missing"),
        ("raw:Bearer nonsense", "external"),
        ("expired:bob", "user"),
        ("limited:bob", "user"),
        ("other-key:bob", "user"),
    ],
)
def test_credentials_that_do_not_hold_are_counted_by_kind(
    client: PluginClient, grown: Grown, who: str, kind: str
) -> None:
    assert client.get("/health", who=who).status_code == 401
    assert grown("token_failures_total", kind=kind) == 1


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("POST", f"/keys/{FOREIGN_KEY}/block", "ownership"),
        ("GET", "/audit", "group"),
        ("GET", "/teams/t9/usage?start_date=2026-01-01&end_date=2026-01-02", "membership"),
    ],
)
def test_denials_are_counted_by_reason(
    client: PluginClient, known_bob: FakeLiteLLM, grown: Grown, method: str, path: str, reason: str
) -> None:
    known_bob.get("/team/info", json={"team_info": {"team_id": "t9"}})
    assert client.request(method, path, who="bob").status_code == 403
    assert grown("denials_total", reason=reason) == 1


def test_what_the_policy_denies_is_counted(
    client: PluginClient, known_bob: FakeLiteLLM, backstage: FakeBackstage, grown: Grown
) -> None:
    backstage.policy = Policy("litellm.key.create@bob")
    assert client.post("/keys/generate", json={"alias": "a"}, who="bob").status_code == 403
    assert grown("denials_total", reason="permission") == 1


def test_nobody_and_no_key_is_named_in_a_label(
    client: PluginClient, known_bob: FakeLiteLLM
) -> None:
    before = _samples()  # other tests leave labels of theirs
    client.get("/user/info", who="bob")
    client.post(f"/keys/{FOREIGN_KEY}/block", who="bob")
    client.get("/some/path/of/mine", who="bob")
    grown = [key for key, value in _samples().items() if value != before.get(key)]
    values = {value for _name, labels in grown for _label, value in labels}
    assert "GET" in values
    for name in ("bob", FOREIGN_KEY, "mine"):
        assert not any(name in value for value in values)


def test_every_metric_is_in_the_documentation_and_no_other() -> None:
    ours = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in REGISTRY.collect()
        if metric.name.startswith("litellm_plugin_")
    }
    documented = re.findall(r"^\| `(litellm_plugin_\w+)`", PAGE.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(ours)
