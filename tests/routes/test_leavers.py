"""A leaver gets no account and no key back: not by an old token, the bridge or a service."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.accounts.leavers import HAS_LEFT, NOT_KNOWN
from litellm_plugin.config.database import Database
from litellm_plugin.config.settings import Offboarding
from litellm_plugin.sandbox.store import token_of
from litellm_plugin.store.database import Store, StoreUnavailable
from litellm_plugin.store.leavers import Leaver, LeaverTable
from tests.client import PluginClient, Serve
from tests.fakes import FakeBackstage, FakeKeycloak, Network, People
from tests.standin import StandIn, furnished
from tests.tokens import bridged

CAROL = "carol@example.com"
REF = "user:default/carol"
KEY = "sk-carol-of-the-leavers-0123456789"
TOKEN = token_of(KEY)
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
LEFT = Leaver(CAROL, CAROL, REF, NOW, 2, "carol.clark@example.com", blocked_at=NOW, passes=1)
CALLBACK = "redirect_uri=http%3A%2F%2Flocalhost%3A1%2Fcallback"
EVERYBODY = People.of()


@dataclass
class Office:
    """The service, and LiteLLM with carol's account, whose key offboarding has blocked."""

    client: PluginClient
    litellm: StandIn
    backstage: FakeBackstage
    database: Path

    def ask(self, who: str, method: str, path: str, body: Any = None) -> Any:
        sent = {} if body is None else {"json": body}
        return self.client.request(method, path, **sent, who=who)

    def refused(self, who: str, method: str, path: str, body: Any = None) -> None:
        """Ask for what a leaver must not get."""
        before = list(self.litellm.writes)
        answer = self.ask(who, method, path, body)
        assert (answer.status_code, answer.get_json()["error"]) == (403, HAS_LEFT), who
        assert self.litellm.writes == before

    @property
    def key(self) -> dict[str, Any]:
        return self.litellm.litellm.store.keys[TOKEN]

    def deletes_carol(self) -> None:
        self.litellm.litellm.user_delete({"user_ids": [CAROL]})


@pytest.fixture
def office(
    serve: Serve,
    backstage: FakeBackstage,
    keycloak: FakeKeycloak,
    network: Network,
    tmp_path: Path,
    enabled: bool,
) -> Office:
    litellm = furnished()
    network.hosts[:] = [litellm, backstage, keycloak]
    user = {"user_id": CAROL, "user_email": "carol.clark@example.com", "auto_create_key": False}
    litellm.litellm.user_new(user)
    litellm.litellm.key_generate({"key": KEY, "key_alias": "carol-laptop", "user_id": CAROL})
    litellm.litellm.key_block({"key": TOKEN})
    file = tmp_path / "store.sqlite"
    LeaverTable(Store(Database(file=file))).save([LEFT])
    client = serve(
        offboarding=Offboarding(enabled=enabled),
        database=Database(file=file),
        service={"cache_seconds": 0.0},
    )
    backstage.people = People(
        entity
        for kind in ("user", "group")
        for entity in EVERYBODY.of_kind(kind)
        if entity["metadata"]["name"] != "carol"
    )
    return Office(client, litellm, backstage, file)


@pytest.fixture
def enabled() -> bool:
    return True


NEW = {"alias": "new", "max_budget": 5}
WRITES = [
    ("POST", "/keys/generate", NEW),
    ("POST", f"/keys/{TOKEN}/unblock", None),
    ("GET", f"/opencode/connect?{CALLBACK}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
@pytest.mark.parametrize("who", ["carol", f"obo:{REF}"])
def test_a_token_that_has_not_expired_makes_no_key_and_unblocks_none(
    office: Office, who: str, method: str, path: str, body: Any
) -> None:
    office.refused(who, method, path, body)
    assert office.key["blocked"] is True


def test_an_expired_key_is_not_extended(office: Office) -> None:
    office.key.update(blocked=False, expires="2026-01-01T00:00:00Z")
    office.refused("carol", "POST", f"/keys/{TOKEN}/update", {"duration": "10d"})


@pytest.mark.parametrize("who", ["carol", bridged("carol", None)])
def test_a_key_that_an_administrator_unblocked_is_not_rotated(office: Office, who: str) -> None:
    office.key.update(blocked=False)
    path = f"/keys/{TOKEN}/rotate"
    office.refused(who, "POST", path if who == "carol" else f"/bridge{path}")


def test_the_bridge_makes_no_key(office: Office) -> None:
    office.refused(bridged("carol", None), "POST", "/bridge/keys", {"alias": "cli"})


@pytest.mark.parametrize("who", ["static", "static-keycreate", "plugin"])
@pytest.mark.parametrize(
    "user_id",
    [CAROL, "Carol@Example.com", "carol", "user:default/Carol", "carol.clark@example.com"],
)
def test_a_service_makes_no_key_for_a_leaver(office: Office, who: str, user_id: str) -> None:
    if who == "static-keycreate" and user_id != CAROL:
        return  # its token is refused before: LiteLLM has no such user
    office.refused(who, "POST", "/keys/generate", {**NEW, "user_id": user_id})


def test_only_a_service_whose_token_is_not_restricted_unblocks_a_leaver_s_key(
    office: Office,
) -> None:
    path = f"/keys/{TOKEN}/unblock?user_id={CAROL}"
    assert office.ask("static-keycreate", "POST", path).status_code == 403
    assert office.ask("alice", "POST", path).status_code == 403
    assert office.key["blocked"] is True
    assert office.ask("static", "POST", path).status_code == 200
    assert office.key["blocked"] is False


def test_reads_go_on_and_keys_may_be_blocked_and_deleted(office: Office) -> None:
    assert office.ask("carol", "GET", "/user/info").status_code == 200
    assert len(office.ask("carol", "GET", "/keys").get_json()) == 1
    assert office.ask(bridged("carol", None), "GET", "/bridge/keys").status_code == 200
    assert office.ask("carol", "POST", f"/keys/{TOKEN}/block").status_code == 200
    assert office.ask("carol", "DELETE", f"/keys/{TOKEN}").status_code == 200


@pytest.mark.parametrize(
    ("who", "path"),
    [
        ("carol", "/user/info"),
        ("carol", "/keys"),
        (f"obo:{REF}", "/teams"),
        (bridged("carol", None), "/bridge/keys"),
        (bridged("Carol", None), "/bridge/keys"),
        (bridged("c.clark", "Carol.Clark@example.com"), "/bridge/keys"),
        ("static", f"/user/info?user_id={CAROL}"),
        ("static", "/user/info?user_id=CAROL@example.com"),
        ("plugin", f"/user/info?user_id={CAROL}"),
    ],
)
def test_a_deleted_account_is_not_made_again(office: Office, who: str, path: str) -> None:
    office.deletes_carol()
    office.refused(who, "GET", path)
    assert CAROL not in office.litellm.litellm.store.users


def test_a_key_is_made_for_no_deleted_account(office: Office) -> None:
    office.deletes_carol()
    for who, path, body in (
        ("carol", "/keys/generate", NEW),
        (bridged("carol", None), "/bridge/keys", {"alias": "cli"}),
        ("static", "/keys/generate", {**NEW, "user_id": CAROL}),
    ):
        office.refused(who, "POST", path, body)


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_who_is_back_in_the_catalog_is_served_before_the_next_run(
    office: Office, method: str, path: str, body: Any
) -> None:
    office.backstage.people = EVERYBODY
    assert office.ask("carol", method, path, body).status_code in {200, 302}


def test_who_is_back_gets_a_new_account_in_place_of_a_deleted_one(office: Office) -> None:
    office.deletes_carol()
    office.backstage.people = EVERYBODY
    assert office.ask(bridged("carol", None), "GET", "/bridge/keys").status_code == 200


def test_others_are_served(office: Office) -> None:
    assert office.ask("alice", "POST", "/keys/generate", NEW).status_code == 200
    assert office.ask("dave", "POST", "/keys/generate", {**NEW, "alias": "d"}).status_code == 200
    ci = {**NEW, "alias": "c", "user_id": "ci-bot"}
    assert office.ask("static", "POST", "/keys/generate", ci).status_code == 200


def test_in_the_grace_a_leaver_still_makes_keys(office: Office) -> None:
    waits = replace(LEFT, blocked_at=None, runs_missing=1, passes=0)
    LeaverTable(Store(Database(file=office.database))).save([waits])
    assert office.ask("carol", "POST", "/keys/generate", NEW).status_code == 200


def test_without_the_store_the_catalog_decides(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_store: Store) -> Any:
        raise StoreUnavailable("disk I/O error")

    monkeypatch.setattr(Store, "read", read)
    assert office.ask("alice", "POST", "/keys/generate", NEW).status_code == 200
    for who, body in (("carol", NEW), ("static", {**NEW, "user_id": "ci-bot"})):
        answer = office.ask(who, "POST", "/keys/generate", body)
        assert (answer.status_code, answer.get_json()["error"]) == (503, NOT_KNOWN)
    office.backstage.failures["catalog"] = 500
    answer = office.ask("alice", "POST", "/keys/generate", {**NEW, "alias": "again"})
    assert answer.status_code == 503
    assert office.ask("alice", "GET", "/keys").status_code == 200


def test_while_the_catalog_is_down_a_leaver_gets_nothing(office: Office) -> None:
    office.backstage.failures["catalog"] = 500
    for method, path, body in WRITES:
        assert office.ask("carol", method, path, body).status_code == 503


def test_an_audit_event_says_why_a_leaver_is_refused(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "litellm_plugin.audit")
    office.refused("carol", "POST", "/keys/generate", NEW)
    monkeypatch.setattr(LeaverTable, "shut_out_if_known", lambda *_: None)
    assert office.ask("carol", "POST", "/keys/generate", NEW).status_code == 503
    events = [vars(record)["audit"] for record in caplog.records if hasattr(record, "audit")]
    assert [event["error"]["name"] for event in events] == ["HasLeft", "LeaversUnknown"]


@pytest.mark.parametrize("enabled", [False])
def test_where_offboarding_is_off_nothing_is_refused(office: Office) -> None:
    assert office.ask("carol", "POST", f"/keys/{TOKEN}/unblock").status_code == 200
