"""First visits make one user, whoever else arrives meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.client import PluginClient
from tests.fakes import FakeBackstage, FakeLiteLLM

Headers = dict[str, str]
VISITORS = 12


class UserTable:
    """LiteLLM's users: ``/user/info`` knows those that ``/user/new`` made."""

    def __init__(self, litellm: FakeLiteLLM) -> None:
        self.made = 0
        self.all_asked = threading.Barrier(VISITORS)
        unknown = {"error": {"message": "User not found"}}
        litellm.get("/user/info", status=404, json=unknown, times=1)
        litellm.post("/user/new", json={})
        litellm.post("/user/update", json={})
        known = {"user_id": "bob@example.com", "user_info": {"user_id": "bob@example.com"}}
        litellm.get("/user/info", json=known)


def test_a_page_load_of_a_new_user_makes_one_user(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers
) -> None:
    UserTable(litellm)
    together = threading.Barrier(VISITORS)

    def visit(number: int) -> int:
        together.wait(60)
        path = ("/user/info", "/keys", "/teams")[number % 3]
        return client.get(path, headers=bob).status_code

    with ThreadPoolExecutor(VISITORS) as pool:
        assert set(pool.map(visit, range(VISITORS))) == {200}
    assert [write.path for write in litellm.writes] == ["/user/new", "/user/update"]


def test_nobody_is_provisioned_while_the_role_can_not_be_known(
    client: PluginClient, litellm: FakeLiteLLM, network: Any, backstage: FakeBackstage, bob: Headers
) -> None:
    UserTable(litellm)
    assert client.get("/health", headers=bob).status_code == 200  # the key set is known now
    network.hosts.remove(backstage)
    answer = client.get("/user/info", headers=bob)
    assert answer.status_code == 503
    assert litellm.writes == []


@pytest.mark.parametrize(
    ("path", "body"), [("/keys/generate", {"alias": "a"}), ("/teams", {"team_alias": "a"})]
)
def test_nothing_is_allowed_while_backstage_can_not_be_asked(
    client: PluginClient,
    litellm: FakeLiteLLM,
    network: Any,
    backstage: FakeBackstage,
    path: str,
    body: dict[str, str],
) -> None:
    assert client.get("/health", who="dave").status_code == 200
    network.hosts.remove(backstage)
    answer = client.post(path, json=body, who="dave")
    assert answer.status_code == 503
    assert litellm.calls == []
