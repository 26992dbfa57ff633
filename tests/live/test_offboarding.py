"""People leave the catalog of the real Backstage, and their keys end at the real LiteLLM.

A Backstage of its own, on a free port, has a catalog that people leave. The store is in PostgreSQL.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.proxy import Proxy
from tests.live.kinds import Deploy, Told
from tests.live.rigs import LITELLM_PORT, STATIC_TOKEN, LiteLLMRig, Organisation
from tests.live.service import Service
from tests.live.web import Client, json_of
from tests.postgres import OWNER, PASSWORD, Postgres

PEOPLE = ("off-ann", "off-ben")
# Each call to LiteLLM has two steps. One of two keys has been blocked, or unblocked, by then.
KILLED_AT = (5, 6)
NO_GRACE = ("--apply", "--grace", "0")

CONFIG = """\
    backstageToken: {token}
  offboarding: {{enabled: true}}
backend:
  database:
    client: pg
    prefix: offboarding_
    connection: {connection}
"""


@pytest.fixture(scope="module")
def org(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organisation]:
    rig = Organisation(tmp_path_factory.mktemp("organisation"))
    for name in PEOPLE:
        rig.has(name, "platform")
    rig.up()
    yield rig
    rig.down()


@pytest.fixture(scope="module")
def site(deploy: Deploy, litellm: LiteLLMRig, org: Organisation, postgres: Postgres) -> Service:
    """A service that keeps leavers out."""
    at = {"host": "127.0.0.1", "port": postgres.port, "user": OWNER, "password": PASSWORD}
    config = CONFIG.format(token=STATIC_TOKEN, connection=json.dumps(at))
    service: Service = deploy("offboarding", config, env={"BACKSTAGE_PORT": str(org.port)})
    # Other tests had people whom this catalog has never had.
    strangers = [each["user_id"] for each in _offboard(service)["leavers"]]
    if strangers:
        json_of(litellm.admin.post("/user/delete", {"user_ids": strangers}))
    return service


@dataclass(frozen=True)
class Leaver:
    """A person who is not in the catalog any more, with a token that still holds, and keys."""

    client: Client
    laptop: dict[str, Any]
    by_hand: dict[str, Any]  # was blocked by its owner before


@pytest.fixture(scope="module")
def leavers(site: Service, org: Organisation) -> dict[str, Leaver]:
    """The people, all of whom have left: the catalog takes half a minute to forget them."""
    found = {}
    for name in PEOPLE:
        client = Client(site.url, org.sign_in(name))
        found[name] = Leaver(client, *(_new_key(client, f"{name}-{n}") for n in range(2)))
        json_of(client.post(f"/keys/{found[name].by_hand['token']}/block"))
    org.loses(*PEOPLE)
    return found


def _offboard(site: Service, *arguments: str) -> dict[str, Any]:
    return site.succeeds("offboard", *arguments)


def _actions(told: dict[str, Any]) -> dict[str, str]:
    return {each["user_id"].partition("@")[0]: each["action"] for each in told["leavers"]}


def _new_key(person: Client, alias: str) -> dict[str, Any]:
    made = json_of(person.post("/keys/generate", {"alias": alias, "max_budget": 1}))
    return {"secret": made["key"], "token": made.get("token") or made["token_id"]}


def _works(litellm: LiteLLMRig, secret: str) -> bool:
    return litellm.complete(secret).status_code == 200


def test_a_person_leaves_and_comes_back(
    site: Service, org: Organisation, litellm: LiteLLMRig, leavers: dict[str, Leaver], told: Told
) -> None:
    ann, laptop = leavers["off-ann"].client, leavers["off-ann"].laptop
    assert _works(litellm, laptop["secret"])
    assert _actions(_offboard(site, "--grace", "0"))["off-ann"] == "missing"
    assert _actions(_offboard(site, *NO_GRACE))["off-ann"] == "missing"
    assert _works(litellm, laptop["secret"])
    assert _actions(_offboard(site, *NO_GRACE))["off-ann"] == "block"
    refused = litellm.complete(laptop["secret"])
    assert refused.status_code == 401
    assert "blocked" in refused.text
    told("the key of a person who had left the catalog was 401 at LiteLLM after the second run")

    # The token of the person has not expired.
    assert ann.post(f"/keys/{laptop['token']}/unblock").status_code == 403
    assert ann.post("/keys/generate", {"alias": "off-x", "max_budget": 1}).status_code == 403
    assert len(json_of(ann.get("/keys"))) == 2
    assert litellm.complete(laptop["secret"]).status_code == 401

    org.has("off-ann", "platform")
    assert _actions(_offboard(site, *NO_GRACE))["off-ann"] == "unblock"
    assert _works(litellm, laptop["secret"])
    assert litellm.key(leavers["off-ann"].by_hand["token"])["blocked"] is True
    told("back in the catalog, the person's key worked again, and a key blocked by hand did not")


def test_an_account_is_deleted_and_not_made_again(
    site: Service, org: Organisation, litellm: LiteLLMRig, leavers: dict[str, Leaver], told: Told
) -> None:
    ben = leavers["off-ben"].client
    for _ in range(2):
        _offboard(site, *NO_GRACE)
    deleted = _offboard(site, *NO_GRACE, "--delete-after", "0")
    assert _actions(deleted)["off-ben"] == "delete"
    assert litellm.user("off-ben@example.com") is None
    assert litellm.deleted(leavers["off-ben"].laptop["token"])
    service = Client(site.url, STATIC_TOKEN)
    for asked in (
        ben.get("/user/info"),
        ben.post("/keys/generate", {"alias": "off-y", "max_budget": 1}),
        service.get("/user/info", user_id="off-ben@example.com"),
    ):
        assert asked.status_code == 403
    assert litellm.user("off-ben@example.com") is None
    org.has("off-ben", "platform")
    assert json_of(ben.get("/keys")) == []
    told(
        "a deleted account was not made again by an old token nor by a service, until the person"
        " was back in the catalog"
    )


@pytest.mark.parametrize("step", KILLED_AT)
def test_a_run_that_is_killed_is_finished_by_the_next(
    site: Service, litellm: LiteLLMRig, told: Told, step: int
) -> None:
    # tests/cli/test_killed.py has all the steps.
    proxy = Proxy(LITELLM_PORT)
    account = _Account(litellm, f"off-killed-{step}")
    try:
        _offboard(site, *NO_GRACE)  # the first run to see the entity missing
        assert site.killed_at(step, proxy, "offboard", *NO_GRACE) == -signal.SIGKILL
        assert len(account.blocked) == 2
        _offboard(site, *NO_GRACE)
        assert account.blocked == {0, 1, 2}
        account.returns()
        assert site.killed_at(step, proxy, "offboard", *NO_GRACE) == -signal.SIGKILL
        assert len(account.blocked) == 2
        _offboard(site, *NO_GRACE)
        assert account.blocked == {2}
    finally:
        proxy.stop()
        account.delete()
    told(f"offboard was killed at step {step}, there and back, and the next run finished it")


class _Account:
    """An account that provisioning could have made, with three keys; the last is blocked by hand.

    The catalog has never had its owner: Backstage takes half a minute to forget an entity.
    """

    def __init__(self, litellm: LiteLLMRig, name: str) -> None:
        self._litellm, self._id = litellm, f"{name}@example.com"
        metadata = {"provisioned_by": "backstage", "backstage_entity": f"user:default/{name}"}
        self._post("/user/new", metadata=metadata, auto_create_key=False)
        self._keys = [self._post("/key/generate")["token_id"] for _ in range(3)]
        json_of(litellm.admin.post("/key/block", {"key": self._keys[2]}))

    def returns(self) -> None:
        """Let the owner be a person of the catalog, by e-mail."""
        self._post("/user/update", user_email="bob@example.com")

    def delete(self) -> None:
        json_of(self._litellm.admin.post("/user/delete", {"user_ids": [self._id]}))

    @property
    def blocked(self) -> set[int]:
        """Numbers of the blocked keys."""
        keys = enumerate(self._keys)
        return {number for number, token in keys if self._litellm.key(token)["blocked"] is True}

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        return dict(json_of(self._litellm.admin.post(path, {"user_id": self._id, **body})))
