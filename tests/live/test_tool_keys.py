"""Tool keys, and their end: by a newer key, by time, by a rotation, by the job ``prune``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from litellm_plugin.config import load_settings
from litellm_plugin.keys.metadata import RotationRecord
from litellm_plugin.keys.prune import INTERRUPTED_AFTER, Action, Pruning
from litellm_plugin.plugin import build
from litellm_plugin.shapes import BRIDGE_KEY, ROTATION
from tests.live.kinds import Deploy, Told
from tests.live.rigs import BackstageRig, LiteLLMRig
from tests.live.service import Service
from tests.live.web import Client, eventually, json_of

CONFIG = """
  publicBaseUrl: https://llm.example.com
  bridge:
    keys:
      maxTtl: 12h
      perTool:
        - {tool: claude-code, maxBudget: 5, budgetDuration: 1d}
"""
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def site(deploy: Deploy) -> Service:
    """A service that makes tool keys."""
    service: Service = deploy("tools", CONFIG)
    return service


@dataclass
class Developer:
    """A person with a Keycloak token."""

    site: Service
    backstage: BackstageRig
    litellm: LiteLLMRig
    login: str = field(default_factory=lambda: f"tools-{uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.user_id = f"{self.login}@example.com"
        claims = {"preferred_username": self.login, "email": self.user_id, "name": "Tools"}
        self.client = Client(self.site.url, self.backstage.keycloak_token(**claims))

    def key(self, tool: str = "claude-code", machine: str = "laptop", **body: Any) -> Any:
        """Return the answer with a new key."""
        asked = {"tool": tool, "machine": machine, **body}
        return json_of(self.client.post("/bridge/keys", asked))

    @property
    def portal(self) -> Client:
        """The same person, signed in at Backstage."""
        ref = f"user:default/{self.login}"
        return Client(self.site.url, self.backstage.sign_in(ref, uncatalogued=True))

    def tokens(self) -> list[str]:
        return self.litellm.keys_of(self.user_id)

    def left_with(self, *made: Any) -> bool:
        """Tell whether LiteLLM has these keys of the person, and no other."""
        return self.tokens() == sorted(key["token"] for key in made)


@pytest.fixture
def dev(site: Service, backstage: BackstageRig, litellm: LiteLLMRig) -> Developer:
    return Developer(site, backstage, litellm)


def life_left(key: Any) -> timedelta:
    return datetime.fromisoformat(key["expires"]) - datetime.now(UTC)


def test_a_tool_has_one_key_on_each_machine(
    dev: Developer, litellm: LiteLLMRig, told: Told
) -> None:
    hand_made = json_of(
        litellm.admin.post(
            "/key/generate", {"user_id": dev.user_id, "key_alias": f"{dev.login}-by-hand"}
        )
    )
    desktop = dev.key(machine="desktop")
    first = dev.key()
    assert json_of(litellm.complete(first["key"]))
    second = dev.key()
    assert eventually(lambda: dev.left_with(hand_made, desktop, second))
    assert eventually(lambda: litellm.complete(first["key"]).status_code == 401)
    for key in (second, desktop):
        assert json_of(litellm.complete(key["key"]))
    row = litellm.key(second["token"])
    assert row["key_alias"].startswith("agent/claude-code@laptop.")
    assert row["metadata"][BRIDGE_KEY] == {"tool": "claude-code", "machine": "laptop"}
    assert abs(life_left(second) - 8 * HOUR) < HOUR / 60
    told(f"{dev.login}'s second key for a tool ended the first, and no other one")


def test_another_person_has_the_same_tool_and_machine(
    dev: Developer, site: Service, backstage: BackstageRig, litellm: LiteLLMRig
) -> None:
    other = Developer(site, backstage, litellm)
    keys = dev.key(), other.key()
    for key in keys:
        assert json_of(litellm.complete(key["key"]))
    answer = other.client.delete(f"/bridge/keys/{keys[0]['token']}")
    assert answer.status_code == 403
    assert json_of(dev.client.delete(f"/bridge/keys/{keys[0]['token']}")) == {"success": True}
    assert eventually(lambda: litellm.complete(keys[0]["key"]).status_code == 401)
    assert other.left_with(keys[1])


def test_no_key_outlives_the_limit(dev: Developer, litellm: LiteLLMRig) -> None:
    for duration in ("13h", "30d", None):
        body = {"tool": "aider", "machine": "laptop", "duration": duration}
        assert "at most 12h" in json_of(dev.client.post("/bridge/keys", body), 400)["error"]
    key = dev.key(duration="12h")
    assert abs(life_left(key) - 12 * HOUR) < HOUR / 60
    for longer in ("30d", None):
        change = dev.portal.post(f"/keys/{key['token']}/update", {"duration": longer})
        assert "at most 12h" in json_of(change, 400)["error"]
    assert abs(life_left(litellm.key(key["token"])) - 12 * HOUR) < HOUR / 60


def test_a_team_that_lets_keys_live_longer_is_overruled(
    dev: Developer, litellm: LiteLLMRig
) -> None:
    dev.key()  # the account
    team_id = f"team-{dev.login}"
    team = {"team_id": team_id, "metadata": {"team_member_key_duration": "30d"}}
    json_of(litellm.admin.post("/team/new", team))
    member = {"team_id": team_id, "member": {"user_id": dev.user_id, "role": "user"}}
    json_of(litellm.admin.post("/team/member_add", member))
    key = dev.key(team_id=team_id)
    assert life_left(litellm.key(key["token"])) < 12 * HOUR
    assert json_of(litellm.complete(key["key"]))


def test_a_new_key_has_what_is_left_of_the_budget(
    dev: Developer, litellm: LiteLLMRig, told: Told
) -> None:
    key = dev.key()
    body = {"tool": "claude-code", "machine": "laptop", "max_budget": 6}
    assert "at most 5 USD" in json_of(dev.client.post("/bridge/keys", body), 400)["error"]
    json_of(litellm.admin.post("/key/update", {"key": key["token"], "spend": 5.5}))
    row = litellm.key(dev.key()["token"])
    assert (row["spend"], row["max_budget"], row["budget_duration"]) == (5.5, 5, "1d")
    refused = litellm.complete(dev.key()["key"])
    assert refused.status_code in {400, 422, 429}
    assert "budget" in refused.text.lower()
    assert json_of(litellm.complete(dev.key(tool="aider")["key"]))
    told(f"{dev.login} had no new budget with a new key")


def test_of_two_requests_at_once_one_key_is_left(dev: Developer, litellm: LiteLLMRig) -> None:
    dev.key()
    with ThreadPoolExecutor(4) as pool:
        made = [each.result() for each in [pool.submit(dev.key) for _ in range(4)]]
    assert eventually(lambda: len(dev.tokens()) == 1)
    (left,) = (key for key in made if [key["token"]] == dev.tokens())
    assert json_of(litellm.complete(left["key"]))


def test_a_rotated_key_is_the_tools_until_its_next_key(dev: Developer, litellm: LiteLLMRig) -> None:
    old = dev.key()
    path = f"/bridge/keys/{old['token']}/rotate"
    new = json_of(dev.client.post(path, {"grace": "7d"}))
    row = litellm.key(new["token"])
    assert row["metadata"][BRIDGE_KEY] == {"tool": "claude-code", "machine": "laptop"}
    assert life_left(row) < 12 * HOUR
    assert life_left(litellm.key(old["token"])) < 8 * HOUR
    for key in (old, new):
        assert json_of(litellm.complete(key["key"]))
    next_one = dev.key()
    assert eventually(lambda: dev.left_with(next_one))


def test_a_client_configures_itself(site: Service, backstage: BackstageRig) -> None:
    health = json_of(Client(site.url).get("/bridge/health"))
    assert health["issuer"].endswith("/realms/rig")
    assert health["baseUrl"] == "https://llm.example.com"
    assert health["keys"] == {"defaultTtl": "8h", "maxTtl": "12h"}


def test_expired_keys_of_tools_are_pruned_and_no_others(
    dev: Developer, site: Service, litellm: LiteLLMRig, told: Told
) -> None:
    tool = dev.key(tool="aider")
    plain = json_of(dev.client.post("/bridge/keys", {"alias": dev.login}))
    by_hand = json_of(
        litellm.admin.post("/key/generate", {"user_id": dev.user_id, "metadata": {"tool": "aider"}})
    )
    alive = dev.key(tool="aider", machine="desktop")
    for key in (tool, plain, by_hand):
        json_of(litellm.admin.post("/key/update", {"key": key["token"], "duration": "1s"}))
    assert eventually(lambda: life_left(litellm.key(by_hand["token"])) < timedelta())
    mine = {"user_id": dev.user_id}.items()
    listed = [each for each in site.succeeds("prune")["keys"] if mine <= each.items()]
    assert [each["token"] for each in listed] == [tool["token"]]
    assert len(dev.tokens()) == 4  # a dry run
    assert site.succeeds("prune", "--apply")["failures"] == {}
    assert dev.left_with(plain, by_hand, alive)
    assert litellm.deleted(tool["token"])
    told("prune deleted the expired key of a tool, and left an expired one by hand")


@pytest.fixture
def pruning(site: Service) -> Callable[[timedelta], Pruning]:
    """Prunes as if it were later."""

    def pruning(later: timedelta) -> Pruning:
        files = [Path(file) for file in site.environ["LITELLM_PLUGIN_CONFIG"].split(",")]
        settings = load_settings(files, site.environ)
        plugin = build(settings)
        return Pruning(
            plugin.litellm,
            plugin.rotations,
            settings,
            lambda: None,
            lambda: datetime.now(UTC) + later,
        )

    return pruning


@pytest.mark.parametrize("delivered", [False, True])
def test_an_interrupted_rotation_is_ended(
    dev: Developer,
    litellm: LiteLLMRig,
    pruning: Callable[[timedelta], Pruning],
    delivered: bool,
) -> None:
    assert json_of(dev.client.get("/bridge/keys")) == []  # makes the account
    alias = f"{dev.login}-ci"
    named = {"user_id": dev.user_id, "duration": "30d"}
    old = json_of(litellm.admin.post("/key/generate", {**named, "key_alias": alias}))
    mark = RotationRecord((old["token"],), alias, delivered=delivered, grace="2h").as_json()
    temporary = {"key_alias": f"{alias}.rotation-{old['token'][:12]}", "metadata": {ROTATION: mark}}
    new = json_of(litellm.admin.post("/key/generate", {**named, **temporary}))

    def ended(later: timedelta) -> list[Action]:
        job = pruning(later)
        rows = litellm.admin.get(
            "/key/list", user_id=dev.user_id, return_full_object="true", size="100"
        )
        steps = job.steps(json_of(rows)["keys"])
        for step in steps:
            job.apply(step)
        assert job.failures == {}
        return [step.action for step in steps]

    assert ended(timedelta()) == []
    if not delivered:
        assert ended(INTERRUPTED_AFTER + HOUR / 60) == [Action.UNDELIVERED]
        assert dev.left_with(old)
        return
    assert ended(INTERRUPTED_AFTER + HOUR / 60) == [Action.FINISH]
    assert litellm.key(new["token"])["key_alias"] == alias
    row = litellm.key(old["token"])
    assert row["key_alias"].startswith(f"{alias}.rotated-")
    # As of the job's clock.
    assert abs(life_left(row) - 2 * HOUR) < HOUR / 2
    for key in (old, new):
        assert json_of(litellm.complete(key["key"]))
    assert ended(3 * HOUR) == [Action.ROTATED]
    assert dev.left_with(new)
