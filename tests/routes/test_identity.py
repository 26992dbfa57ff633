"""One account for each person: found by its e-mail, and not shared with somebody else."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.config.database import Database
from litellm_plugin.config.settings import ORIGINAL, UNAMBIGUOUS, Notifications
from litellm_plugin.store.adopted import AdoptedAccounts
from litellm_plugin.store.database import Store
from tests.client import PluginClient, Serve
from tests.fakes import FakeBackstage, FakeLiteLLM, People
from tests.routes.conftest import OWN_KEY
from tests.standin import TEAM_ADMINS
from tests.tokens import bridged

Json = dict[str, Any]

SSO = "0f6c-sso"
BOB = "bob@example.com"
CALLBACK = "/opencode/connect?redirect_uri=http%3A%2F%2Flocalhost%3A1%2Fcallback"


@pytest.fixture
def service(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Makes the client of a service: ``service(user_ids=UNAMBIGUOUS, cache_seconds=0)``."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # what others keep is not for here

    def service(**options: Any) -> PluginClient:
        return serve(service={"user_ids": ORIGINAL, "cache_seconds": None, **options})

    return service


@pytest.fixture
def sso(litellm: FakeLiteLLM, account: Any) -> Json:
    """LiteLLM has bob's e-mail under another id; returns that account's own row."""
    litellm.get("/user/info", query={"user_id": BOB}, status=404, json={})
    text = "{'error': 'User with email Bob@Example.com already exists'}"
    taken = {"error": {"message": text, "code": "409"}}
    litellm.post("/user/new", status=409, json=taken)
    row: Json = {"user_id": SSO, "user_email": " Bob@Example.com", "user_role": "internal_user"}
    other = {"user_id": "other", "user_email": "xbob@example.com"}
    listing = {"users": [row, other], "total_pages": 1}
    litellm.get("/user/list", query={"user_email": BOB}, json=listing)
    litellm.get("/user/info", query={"user_id": SSO}, json=account(SSO, user_info=row))
    litellm.get("/user/daily/activity/aggregated", json={"results": []})
    for path in ("/key/generate", "/key/update", "/key/block", "/key/delete"):
        litellm.post(path, json={"key": "sk-new"})
    return row


def _owned(*members: Json) -> Json:
    """Return LiteLLM's answer about a team of the team admins' group."""
    row = {"metadata": {"owning_group": TEAM_ADMINS}, "members_with_roles": [*members]}
    return {"team_id": "t1", "team_info": row}


@pytest.mark.parametrize("caching", [{}, {"cache_seconds": 0}], ids=["cached", "uncached"])
@pytest.mark.parametrize("user_ids", [ORIGINAL, UNAMBIGUOUS])
def test_an_account_with_the_callers_email_is_theirs_on_every_route(
    service: Serve, sso: Json, litellm: FakeLiteLLM, user_ids: str, caching: Json
) -> None:
    client = service(user_ids=user_ids, **caching)
    assert client.get("/user/info", who="bob").get_json()["user_id"] == SSO
    assert [key["token"] for key in client.get("/keys", who="bob").get_json()] == [OWN_KEY]
    assert client.get("/teams", who="bob").status_code == 200
    days = "start_date=2026-11-01&end_date=2026-11-02"
    assert client.get(f"/usage?{days}", who="bob").status_code == 200
    assert f"user_id={SSO}" in litellm.calls[-1].query
    sent = {"alias": "ci", "team_id": "t1"}
    assert client.post("/keys/generate", json=sent, who="bob").status_code == 200
    assert client.post(f"/keys/{OWN_KEY}/block", json={}, who="bob").status_code == 200
    assert client.get(CALLBACK, who="bob").status_code == 302
    bridge = bridged()
    assert len(client.get("/bridge/keys", who=bridge).get_json()) == 1
    assert client.post("/bridge/keys", json={"alias": "cli"}, who=bridge).status_code == 200
    made = [call.body["user_id"] for call in litellm.writes if call.path == "/key/generate"]
    assert made == [SSO] * 3


@pytest.mark.parametrize("away", [False, True])
def test_the_database_records_an_account_that_was_found_by_email(
    serve: Serve, sso: Json, tmp_path: Path, away: bool
) -> None:
    database = Database(file=tmp_path if away else tmp_path / "store.sqlite")  # a folder is no file
    client = serve(database=database, notifications=Notifications(enabled=True))
    assert client.get("/user/info", who="bob").get_json()["user_id"] == SSO
    if not away:
        owners = AdoptedAccounts(Store(database), partial(datetime.now, UTC)).owners()
        assert owners == {SSO: "user:default/bob"}


def test_a_key_is_found_to_be_theirs_without_a_page_before(service: Serve, sso: Json) -> None:
    path = f"/keys/{OWN_KEY}/block"
    assert service().post(path, json={}, who="bob").status_code == 200


def test_nobody_is_created_again_and_again(service: Serve, sso: Json, litellm: FakeLiteLLM) -> None:
    client = service()
    for _ in range(3):
        assert client.get("/keys", who="bob").status_code == 200
    assert litellm.writes == []
    assert sum(call.path == "/user/list" for call in litellm.reads) == 1


@pytest.mark.parametrize("variant", ["no-provisioning-teams"])
def test_an_adopted_account_stays_its_owners_where_nobody_is_provisioned_any_more(
    service: Serve, sso: Json, litellm: FakeLiteLLM
) -> None:
    """After a restart, by workers that have never served their owner."""
    litellm.get("/team/info", json=_owned())
    litellm.post("/team/member_add", json={})
    for method, path, sent, who in (
        ("GET", "/user/info", None, "bob"),
        ("GET", "/keys", None, "bob"),
        ("POST", "/keys/generate", {"alias": "ci"}, "bob"),
        ("POST", f"/keys/{OWN_KEY}/block", {}, "bob"),
        ("GET", "/bridge/keys", None, bridged()),
        ("POST", "/teams/t1/members", {"userEntityRef": "user:default/bob"}, "dave"),
    ):
        client = service()
        answer = client.request(method, path, json=sent or {}, who=who)
        assert answer.status_code == 200, (path, answer.text)
    assert litellm.writes[-1].body["member"]["user_id"] == SSO
    assert "/user/new" not in {call.path for call in litellm.writes}


@pytest.mark.parametrize("variant", ["no-provisioning"])
def test_somebody_whom_neither_id_nor_email_finds_is_unknown_without_provisioning(
    service: Serve, litellm: FakeLiteLLM
) -> None:
    litellm.get("/user/info", status=404, json={})
    litellm.get("/user/list", json={"users": [], "total_pages": 0})
    client = service()
    for _ in range(2):
        assert client.get("/keys", who="bob").status_code == 404
    assert sum(call.path == "/user/list" for call in litellm.reads) == 1


@pytest.mark.parametrize("variant", ["no-provisioning"])
def test_keys_of_an_id_without_a_user_do_not_matter(service: Serve, litellm: FakeLiteLLM) -> None:
    litellm.get("/user/info", status=404, json={})
    litellm.get("/user/list", json={"users": [], "total_pages": 0})
    litellm.get("/key/list", status=500, json={})
    answer = service().get("/keys", who="bob")
    assert answer.status_code == 404


def test_who_has_an_account_of_their_own_costs_no_further_call(
    service: Serve, known_bob: FakeLiteLLM, backstage: FakeBackstage
) -> None:
    assert service().get("/keys", who="bob").status_code == 200
    assert sorted(call.path for call in known_bob.calls) == ["/key/list", "/v2/user/info"]
    assert backstage.asked_of("catalog") == []


@pytest.mark.parametrize("made_for", ["user:default/alice", "rob@example.com"])
def test_an_account_that_may_be_another_persons_is_not_used(
    service: Serve, sso: Json, litellm: FakeLiteLLM, caplog: pytest.LogCaptureFixture, made_for: str
) -> None:
    sso["metadata"] = {"backstage_entity": made_for}
    client = service()
    for method, path in (
        ("GET", "/user/info"),
        ("GET", "/keys"),
        ("POST", f"/keys/{OWN_KEY}/block"),
        ("POST", "/keys/generate"),
        ("GET", CALLBACK),
    ):
        answer = client.request(method, path, json={"alias": "a"}, who="bob")
        assert answer.status_code == 409, path
        body = answer.get_json()
        assert "e-mail" in body["error"]
        assert "made for another" in body["hint"]
        assert SSO not in answer.text
    assert litellm.writes == []
    assert SSO in caplog.text


def test_an_account_made_for_the_caller_under_another_id_is_used(service: Serve, sso: Json) -> None:
    sso["metadata"] = {"backstage_entity": "user:default/bob"}
    assert service().get("/keys", who="bob").status_code == 200


def _another(name: str, email: str, namespace: str = "default") -> Json:
    return {
        "kind": "User",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"profile": {"email": email}, "memberOf": []},
    }


BOBS = _another("bob", BOB)


@pytest.mark.parametrize(
    ("people", "rows"),
    [
        ([BOBS, _another("mallory", "BOB@example.com")], [{"user_id": SSO}]),
        ([BOBS, _another(SSO, "x@example.com")], [{"user_id": f"{SSO}@example.com"}]),
        ([BOBS], [{"user_id": SSO}, {"user_id": "again"}]),
    ],
    ids=["two people have it", "the id is somebody's", "two accounts have it"],
)
def test_an_email_that_is_not_one_persons_and_one_accounts_counts_for_nobody(
    service: Serve,
    litellm: FakeLiteLLM,
    backstage: FakeBackstage,
    people: list[Json],
    rows: list[Json],
) -> None:
    backstage.people = People(people)
    litellm.get("/user/info", query={"user_id": BOB}, status=404, json={})
    taken = {"error": {"message": f"User with email {BOB} already exists"}}
    litellm.post("/user/new", status=409, json=taken)
    listed = [{"user_email": BOB, **row} for row in rows]
    litellm.get("/user/list", json={"users": listed, "total_pages": 1})
    assert service().get("/keys", who="bob").status_code == 409
    assert sum(call.path == "/v2/user/info" for call in litellm.reads) <= 2


def test_no_email_counts_while_the_catalog_can_not_vouch_for_it(
    service: Serve, sso: Json, litellm: FakeLiteLLM, backstage: FakeBackstage
) -> None:
    client = service()
    assert client.get("/health", who="bob").status_code == 200
    backstage.failures["catalog"] = 503
    assert client.get("/keys", who="bob").status_code == 503
    assert client.post(f"/keys/{OWN_KEY}/block", json={}, who="bob").status_code == 503
    assert litellm.writes == []


def test_the_email_of_a_bridge_token_counts_for_nothing(
    service: Serve, sso: Json, litellm: FakeLiteLLM
) -> None:
    """Somebody typed bob's e-mail in at Keycloak."""
    litellm.get("/user/info", query={"user_id": "noprofile@example.com"}, status=404, json={})
    answer = service().get("/bridge/keys", who=bridged("noprofile", "bob@example.com"))
    assert answer.status_code >= 400
    assert not any(SSO in call.query for call in litellm.calls)


def test_a_bridge_token_with_another_email_makes_no_second_account(
    service: Serve, sso: Json, litellm: FakeLiteLLM
) -> None:
    answer = service().get("/bridge/keys", who=bridged("bob", "bob@elsewhere.example"))
    assert [key["token"] for key in answer.get_json()] == [OWN_KEY]
    assert litellm.writes == []


def test_a_team_admin_adds_and_removes_whoever_has_an_account_under_another_id(
    service: Serve, sso: Json, litellm: FakeLiteLLM
) -> None:
    member = {"user_id": SSO, "user_email": "bob@example.com"}
    litellm.get("/team/info", json=_owned(member))
    litellm.post("/team/member_add", json={})
    litellm.post("/team/member_delete", json={})
    client = service()
    sent = {"userEntityRef": "user:default/bob"}
    assert client.post("/teams/t1/members", json=sent, who="dave").status_code == 200
    path = "/teams/t1/members?userEntityRef=user%3Adefault%2Fbob"
    assert client.delete(path, who="dave").status_code == 200
    assert litellm.writes[-2].body["member"]["user_id"] == SSO
    assert litellm.writes[-1].body["user_id"] == SSO


# -- several people, one id --------------------------------------------------


def _record(who: str | None, email: str | None = None) -> Json:
    record = {"backstage_entity": who, "backstage_email": email}
    return {name: value for name, value in record.items() if value}


OTHER_BOB = "user:contractors/bob"
SHARED = [
    # who comes, whom the record is for, its e-mail, whether it is certainly theirs
    ("bob", "user:default/bob", None, True),
    ("bob", "user:Default/Bob", None, True),
    ("bob", OTHER_BOB, None, False),
    ("bob", "group:default/bob", None, False),
    ("bob", None, None, False),  # the catalog has two of that name
    (f"{OTHER_BOB}", OTHER_BOB, None, True),
    (f"{OTHER_BOB}", "user:default/bob", None, False),
    ("erin", None, None, True),  # and one of this
    ("erin", "erin@example.com", "erin@example.com", True),
    ("erin", "erin@example.com", "Erin@Example.com", True),
    ("erin", "erin@example.com", "erin@elsewhere.example", False),
    ("erin", "erin@example.com", "erin", True),
    ("bridge:erin", None, None, True),
    ("bridge:erin", "user:default/erin", "x@example.com", True),
    ("bridge:erin", "user:default/eric", None, False),
    ("bridge:Erin", None, None, False),  # only case tells it from the catalog's
    ("bridge:bob", None, None, False),
    ("bridge:bob", "user:default/bob", None, False),
    ("bridge:zoe", "zoe@example.com", None, True),
    ("bridge:zoe@example.com", None, None, True),
    ("bridge:zoe@a.example", "zoe@example.com", "zoe@a.example", True),
    ("bridge:zoe@b.example", "zoe@example.com", "zoe@a.example", False),
    ("bridge:zoe@b.example", None, None, False),
]


@pytest.mark.parametrize(("who", "made_for", "email", "certain"), SHARED)
def test_an_account_that_may_be_somebody_elses_is_refused_where_that_is_asked_for(
    service: Serve,
    litellm: FakeLiteLLM,
    account: Any,
    caplog: pytest.LogCaptureFixture,
    who: str,
    made_for: str | None,
    email: str | None,
    *,
    certain: bool,
) -> None:
    bridge = who.startswith("bridge:")
    name = who.removeprefix("bridge:")
    who = bridged(name, None) if bridge else who
    user_id = f"{name.rpartition('/')[2].partition('@')[0]}@example.com"
    info = {"user_id": user_id, "metadata": _record(made_for, email)}
    litellm.get("/user/info", query={"user_id": user_id}, json=account(user_id, user_info=info))
    path = "/bridge/keys" if bridge else "/keys"
    assert service().get(path, who=who).status_code == 200
    answer = service(user_ids=UNAMBIGUOUS, cache_seconds=0).get(path, who=who)
    assert answer.status_code == (200 if certain else 409)
    if not certain:
        assert answer.get_json()["error"] == (
            "This LiteLLM account may belong to another person; ask an administrator of LiteLLM"
        )
        assert "backstage_entity" in answer.get_json()["hint"]
    assert litellm.writes == []


ROUTES = [
    ("GET", "/user/info", None),
    ("GET", "/keys", None),
    ("GET", "/teams", None),
    ("GET", "/usage?start_date=2026-11-01&end_date=2026-11-02", None),
    ("GET", "/teams/t1/usage?start_date=2026-11-01&end_date=2026-11-02", None),
    ("GET", CALLBACK, None),
    ("POST", "/keys/generate", {"alias": "a"}),
    ("POST", f"/keys/{OWN_KEY}/update", {"key_alias": "a"}),
    ("POST", f"/keys/{OWN_KEY}/block", {}),
    ("POST", f"/keys/{OWN_KEY}/unblock", {}),
    ("POST", f"/keys/{OWN_KEY}/reset_spend", {}),
    ("DELETE", f"/keys/{OWN_KEY}", None),
]


def test_no_route_touches_an_account_of_somebody_else(
    service: Serve, litellm: FakeLiteLLM, account: Any
) -> None:
    info = {"user_id": BOB, "metadata": _record(OTHER_BOB)}
    litellm.get("/user/info", query={"user_id": BOB}, json=account(user_info=info))
    litellm.get("/user/info", json=account("dave@example.com"))
    litellm.get("/team/info", json=_owned({"user_id": BOB}))
    client = service(user_ids=UNAMBIGUOUS)
    for method, path, sent in ROUTES:
        answer = client.request(method, path, json=sent or {}, who="bob")
        assert answer.status_code == 409, (method, path, answer.text)
    sent = {"userEntityRef": "user:default/bob"}
    assert client.post("/teams/t1/members", json=sent, who="dave").status_code == 409
    path = "/teams/t1/members?userEntityRef=user%3Adefault%2Fbob"
    assert client.delete(path, who="dave").status_code == 409
    assert litellm.writes == []


def test_nobody_is_created_under_an_id_that_two_people_have(
    service: Serve, litellm: FakeLiteLLM
) -> None:
    litellm.get("/user/info", status=404, json={})
    litellm.get("/user/list", json={"users": [], "total_pages": 0})
    assert service(user_ids=UNAMBIGUOUS).get("/keys", who="bob").status_code == 409
    assert litellm.writes == []


def test_what_can_not_be_certain_without_the_catalog_waits_for_it(
    service: Serve, litellm: FakeLiteLLM, account: Any, backstage: FakeBackstage
) -> None:
    client, erin = service(user_ids=UNAMBIGUOUS, cache_seconds=0), "erin"
    assert client.get("/health", who=erin).status_code == 200
    backstage.failures["catalog"] = 503
    litellm.get("/user/info", json=account("erin@example.com"), times=1)
    assert client.get("/keys", who=erin).status_code == 503
    info = {"user_id": "erin@example.com", "metadata": _record("user:default/erin")}
    litellm.get("/user/info", json=account("erin@example.com", user_info=info))
    assert client.get("/teams", who=erin).status_code == 200


def test_an_account_of_somebody_else_is_logged_once(
    service: Serve, litellm: FakeLiteLLM, account: Any, caplog: pytest.LogCaptureFixture
) -> None:
    info = {"user_id": BOB, "metadata": _record(OTHER_BOB)}
    litellm.get("/user/info", json=account(user_info=info))
    client = service()
    with caplog.at_level(logging.WARNING):
        for path in ("/user/info", "/keys", "/keys"):
            assert client.get(path, who="bob").status_code == 200
    (said,) = [line for line in caplog.messages if OTHER_BOB in line]
    assert "user:default/bob" in said
    assert BOB in said


def test_keys_of_an_account_that_is_refused_are_never_in_an_answer(
    service: Serve, litellm: FakeLiteLLM, account: Any
) -> None:
    """They may be in the cache, as they are read together with the account."""
    row = {"user_id": BOB, "metadata": {"backstage_entity": OTHER_BOB}}
    litellm.get("/user/info", query={"user_id": BOB}, json=account(BOB, user_info=row))
    client = service(user_ids=UNAMBIGUOUS, cache_seconds=3600)
    for _ in range(3):
        answer = client.get("/keys", who="bob")
        assert answer.status_code == 409
        assert OWN_KEY not in answer.text
