"""The hosts in memory behave as the real ones were seen to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import requests
from werkzeug.wrappers import Request, Response

from tests.client import PluginClient
from tests.fakes import (
    FakeBackstage,
    FakeKeycloak,
    FakeLiteLLM,
    Network,
    People,
    Policy,
    connection_refused,
    dropped,
)
from tests.fakes.litellm import MASTER_KEY, Rule
from tests.tokens import STATIC_TOKEN, SigningKey, TokenFactory

LITELLM = "http://127.0.0.1:4787"
BACKSTAGE = "http://127.0.0.1:7007/api"
ADMIN = {"Authorization": f"Bearer {MASTER_KEY}"}
OUR_KEY = SigningKey.ec("our-key")
AUTHORIZE = f"{BACKSTAGE}/permission/authorize"


@pytest.fixture
def session(network: Network) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# -- LiteLLM -------------------------------------------------------------------


def test_the_first_rule_that_fits_answers(litellm: FakeLiteLLM, session: requests.Session) -> None:
    litellm.script(
        [
            {"method": "POST", "path": "/x", "json": 0},
            {"path": "/x", "query": {"page": "2"}, "json": 2},
            {"path": "/x", "query": {"page": "3", "size": "1"}, "json": 3},
            {"path": "/x", "body": {"a": {"b": 1}}, "json": 4},
            {"path": "/x", "json": None, "status": 404},
        ]
    )

    def ask(query: str = "", method: str = "GET", body: Any = None) -> tuple[int, Any]:
        url = f"{LITELLM}/x{query}"
        answer = session.request(method, url, json=body, headers=ADMIN)
        return answer.status_code, answer.json()

    assert ask(method="POST") == (200, 0)
    assert ask("?user=a&page=2") == (200, 2)
    assert ask("?page=3") == (404, None)
    assert ask("?size=1&page=3") == (200, 3)
    assert ask(body={"a": {"b": 1, "c": 2}, "d": 3}) == (200, 4)
    assert ask(body={"a": {"b": 2}}) == (404, None)


def test_a_rule_is_used_up(litellm: FakeLiteLLM, session: requests.Session) -> None:
    litellm.script([{"path": "/x", "status": 503, "times": 2}, {"path": "/x", "text": "OK"}])
    answers = [session.get(f"{LITELLM}/x", headers=ADMIN) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 200, 200]
    assert answers[2].text == "OK"


def test_what_no_rule_fits_is_answered_599(litellm: FakeLiteLLM, session: requests.Session) -> None:
    litellm.get("/known")
    assert session.get(f"{LITELLM}/unknown", headers=ADMIN).status_code == 599
    assert session.post(f"{LITELLM}/known", headers=ADMIN).status_code == 599


def test_a_dropped_connection_is_a_connection_error(
    litellm: FakeLiteLLM, session: requests.Session
) -> None:
    litellm.script([{"path": "/x", "drop": True}])
    with pytest.raises(requests.ConnectionError):
        session.get(f"{LITELLM}/x", headers=ADMIN)
    assert [(call.status, call.failed) for call in litellm.calls] == [(None, True)]


@pytest.mark.parametrize("headers", [{}, bearer("sk-other"), {"Authorization": MASTER_KEY}])
def test_litellm_refuses_whoever_has_not_its_master_key(
    litellm: FakeLiteLLM, session: requests.Session, headers: dict[str, str]
) -> None:
    litellm.get("/x")
    assert session.get(f"{LITELLM}/x", headers=headers).status_code == 401


def test_calls_are_kept_in_order_and_as_sent(
    litellm: FakeLiteLLM, session: requests.Session
) -> None:
    litellm.on(None, "/a%2Fb%20c", json={})
    session.get(f"{LITELLM}/a%2Fb%20c?user_id=a%2Bb%40c", headers=ADMIN)
    session.post(f"{LITELLM}/a%2Fb%20c", json={"n": 1}, headers=ADMIN)
    session.post(f"{LITELLM}/a/b c?d=e", data="text", headers=ADMIN)
    assert [call.target for call in litellm.reads] == ["/a%2Fb%20c?user_id=a%2Bb%40c"]
    assert [call.as_write() for call in litellm.writes] == [
        {"method": "POST", "path": "/a%2Fb%20c", "body": {"n": 1}},
        {"method": "POST", "path": "/a/b%20c?d=e", "body": "text"},
    ]
    assert litellm.calls[-1].status == 599


def test_a_rule_with_a_field_that_nobody_reads_is_refused() -> None:
    with pytest.raises(ValueError, match="a rule has no queries"):
        Rule.from_json({"path": "/x", "queries": {}})


def test_requests_are_answered_side_by_side(
    litellm: FakeLiteLLM, session: requests.Session
) -> None:
    together = threading.Barrier(2, timeout=60)
    litellm.get("/x", meanwhile=together.wait)

    def ask() -> None:
        with requests.Session() as other:
            other.get(f"{LITELLM}/x", headers=ADMIN)

    second = threading.Thread(target=ask)
    second.start()
    session.get(f"{LITELLM}/x", headers=ADMIN)
    second.join()
    assert len(litellm.calls) == 2


# -- the network ---------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x", f"{LITELLM}0/x", "http://127.0.0.1:4787@evil.example/x"]
)
def test_a_host_that_is_not_there_can_not_be_reached(
    network: Network, session: requests.Session, url: str
) -> None:
    with pytest.raises(requests.ConnectionError, match="refused"):
        session.get(url)
    assert network.strays == [url]


def test_a_session_made_before_is_on_the_network_too(
    monkeypatch: pytest.MonkeyPatch, litellm: FakeLiteLLM
) -> None:
    with requests.Session() as session:
        Network(litellm).install(monkeypatch)
        litellm.get("/x", json=[1])
        assert session.get(f"{LITELLM}/x", headers=ADMIN, stream=True).json() == [1]


def test_failures_look_like_those_of_requests() -> None:
    # The HTTP client tells by this whether anything can have been sent.
    assert type(connection_refused().args[0].reason).__name__ == "NewConnectionError"
    assert not hasattr(dropped().args[0], "reason")


# -- the catalog ---------------------------------------------------------------


def entity(session: requests.Session, ref: str, token: str = STATIC_TOKEN) -> requests.Response:
    kind, _, rest = ref.partition(":")
    return session.get(f"{BACKSTAGE}/catalog/entities/by-name/{kind}/{rest}", headers=bearer(token))


@pytest.mark.parametrize(
    ("ref", "groups"),
    [
        ("user:default/alice", ["litellm-admins", "litellm-team-admins", "platform"]),
        ("user:default/bob", ["platform-ai"]),
        ("USER:Contractors/BOB", ["litellm-admins"]),
        ("user:contractors/heidi", ["ai-power-users"]),
        ("user:default/erin", ["litellm-team-leads"]),
        ("user:default/grace.hopper", ["litellm-admins"]),
        ("user:default/frank%40corp.example.com", ["platform"]),
        ("user:default/noprofile", []),
    ],
)
def test_the_catalog_knows_direct_memberships_by_full_ref(
    session: requests.Session, ref: str, groups: list[str]
) -> None:
    relations = entity(session, ref).json()["relations"]
    assert relations == [
        {"type": "memberOf", "targetRef": f"group:default/{name}"} for name in groups
    ]


def test_short_group_names_belong_to_the_users_namespace() -> None:
    user = {
        "kind": "User",
        "metadata": {"name": "Zoe", "namespace": "Sales"},
        "spec": {"memberOf": ["A", "default/b", "group:c", "group:default/D"]},
    }
    assert People([user]).groups("user:sales/zoe") == [
        "group:default/b",
        "group:default/d",
        "group:sales/a",
        "group:sales/c",
    ]


def test_an_unknown_entity_is_not_found(session: requests.Session) -> None:
    answer = entity(session, "user:default/nobody")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": {
            "name": "NotFoundError",
            "message": "No entity named 'nobody' found, with kind 'user' in namespace 'default'",
        },
        "request": {"method": "GET", "url": "/entities/by-name/user/default/nobody"},
        "response": {"statusCode": 404},
    }


def test_the_catalog_hides_from_a_user_what_the_policy_denies(
    session: requests.Session, backstage: FakeBackstage, tokens: TokenFactory
) -> None:
    backstage.policy = Policy("catalog.entity.read@bob")
    assert entity(session, "user:default/bob", tokens.user("carol")).status_code == 200
    assert entity(session, "user:default/bob", tokens.user("bob")).status_code == 404
    assert entity(session, "user:default/bob").status_code == 200


# -- credentials ---------------------------------------------------------------


def our_token(tokens: TokenFactory, aud: Any = "catalog", **claims: Any) -> str:
    return tokens.plugin("litellm", aud, key=claims.pop("key", OUR_KEY), **claims)


@pytest.fixture
def discovered(backstage: FakeBackstage) -> list[int]:
    """Backstage knows where our keys are; the list grows with each look."""
    looks: list[int] = []

    def key_set() -> dict[str, Any]:
        looks.append(1)
        return {"keys": [OUR_KEY.jwk()]}

    backstage.discovers("litellm", key_set)
    return looks


def test_our_own_token_is_checked_against_the_keys_we_publish(
    session: requests.Session, tokens: TokenFactory, discovered: list[int]
) -> None:
    assert entity(session, "user:default/bob", our_token(tokens)).status_code == 200
    assert entity(session, "user:default/bob", our_token(tokens, ["catalog"])).status_code == 200
    assert len(discovered) == 1
    entity(session, "user:default/bob", our_token(tokens, key=SigningKey.ec("unknown")))
    assert len(discovered) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: our_token(t, key=t.stranger_key), "Failed plugin token verification"),
        (lambda t: our_token(t, "permission"), "Failed plugin token verification"),
        (lambda t: our_token(t, exp=1), "Failed plugin token verification"),
        (lambda t: our_token(t, exp=None), "Failed plugin token verification"),
        (lambda t: our_token(t, iat=None), "Failed plugin token verification"),
        (lambda t: our_token(t, header={"alg": "none"}), "Failed plugin token verification"),
        (lambda t: our_token(t, header={"alg": "HS256"}), "Failed plugin token verification"),
        (lambda t: our_token(t, obo="x"), "Invalid user token in plugin token obo claim"),
        (
            lambda t: our_token(t, obo=t.limited(key=t.stranger_key)),
            "Failed user token verification",
        ),
        (lambda t: our_token(t, obo=t.limited(exp=1)), "Failed user token verification"),
        (lambda t: t.plugin("other", "catalog"), "unexpectedly does not have a JWKS endpoint"),
        (lambda t: t.expired(), "Failed user token verification"),
        (lambda t: t.other_key(), "Failed user token verification"),
        (lambda t: t.limited(), "Illegal limited user token"),
        (lambda t: t.keycloak(), "Illegal token"),
        (lambda t: "garbage", "Illegal token"),
        (lambda t: "", "Missing credentials"),
    ],
)
def test_a_token_that_does_not_hold_is_refused(
    session: requests.Session,
    tokens: TokenFactory,
    discovered: list[int],
    make: Callable[[TokenFactory], str],
    message: str,
) -> None:
    answer = entity(session, "user:default/bob", make(tokens))
    assert (answer.status_code, answer.json()["error"]["name"]) == (401, "AuthenticationError")
    assert message in answer.json()["error"]["message"]


def test_our_token_does_not_hold_where_nobody_told_backstage_about_us(
    session: requests.Session, tokens: TokenFactory
) -> None:
    assert entity(session, "user:default/bob", our_token(tokens)).status_code == 401


# -- permissions ---------------------------------------------------------------


def items(*names: str) -> dict[str, Any]:
    return {
        "items": [
            {"id": name, "permission": {"type": "basic", "name": name, "attributes": {}}}
            for name in names
        ]
    }


def test_users_are_decided_on_by_the_policy(
    session: requests.Session, backstage: FakeBackstage, tokens: TokenFactory, discovered: list[int]
) -> None:
    backstage.policy = Policy("litellm.key.create@bob")
    for token in (
        tokens.user("bob"),
        our_token(tokens, "permission", obo=tokens.limited("bob")),
        our_token(tokens, "permission", obo=tokens.user("bob")),
    ):
        answer = session.post(
            AUTHORIZE, json=items("litellm.key.create", "litellm.x"), headers=bearer(token)
        )
        assert answer.json() == {
            "items": [
                {"id": "litellm.key.create", "result": "DENY"},
                {"id": "litellm.x", "result": "ALLOW"},
            ]
        }


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda _: STATIC_TOKEN, 403),
        (lambda t: our_token(t, "permission"), 403),
        (lambda t: t.plugin(aud="permission"), 403),
        (lambda t: t.limited("bob"), 401),
        (lambda _: "", 401),
    ],
)
def test_services_are_not_decided_on(
    session: requests.Session,
    tokens: TokenFactory,
    discovered: list[int],
    make: Callable[[TokenFactory], str],
    status: int,
) -> None:
    answer = session.post(AUTHORIZE, json=items("x"), headers=bearer(make(tokens)))
    assert answer.status_code == status


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"items": [{"id": "a"}]},
        {"items": [{"id": "a", "permission": {"type": "basic", "name": "x"}}]},
        {"items": [{"permission": {"type": "basic", "name": "x", "attributes": {}}}]},
    ],
)
def test_a_question_of_another_form_is_refused(
    session: requests.Session, tokens: TokenFactory, body: Any
) -> None:
    answer = session.post(AUTHORIZE, json=body, headers=bearer(tokens.user()))
    assert (answer.status_code, answer.json()["error"]["name"]) == (400, "InputError")


def test_a_policy_that_throws_is_no_decision(
    session: requests.Session, backstage: FakeBackstage, tokens: TokenFactory
) -> None:
    backstage.policy = Policy("x@*=THROW")
    answer = session.post(AUTHORIZE, json=items("x"), headers=bearer(tokens.user()))
    assert answer.status_code == 500


def test_someone_who_never_signed_in_is_not_decided_on(
    session: requests.Session, backstage: FakeBackstage, tokens: TokenFactory
) -> None:
    backstage.never_signed_in.add("user:default/bob")
    answer = session.post(AUTHORIZE, json=items("x"), headers=bearer(tokens.user("bob")))
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("policy", "permission", "decision"),
    [
        ("", "a.b", "ALLOW"),
        ("a.b@bob", "a.b", "DENY"),
        ("a.b@bob", "a.c", "ALLOW"),
        ("a.b@alice,bob", "a.b", "DENY"),
        ("a.b@alice", "a.b", "ALLOW"),
        ("a.c,a.b@bob", "a.b", "DENY"),
        ("a.*@bob", "a.b", "DENY"),
        ("a.*@*", "b.a", "ALLOW"),
        ("*@*", "a.b", "DENY"),
        ("a.b@user:default/bob", "a.b", "DENY"),
        ("a.b@group:default/g", "a.b", "DENY"),
        ("a.b@group:default/h", "a.b", "ALLOW"),
        ("a.b@bob=ALLOW;a.*@*", "a.b", "ALLOW"),
        ("a.b@bob=ALLOW;a.*@*", "a.c", "DENY"),
    ],
)
def test_the_policy_is_read_as_the_rigs(policy: str, permission: str, decision: str) -> None:
    refs = ["user:default/bob", "group:default/g"]
    assert Policy(policy).decide(permission, refs) == decision


@pytest.mark.parametrize("text", ["a.b", "a.b@bob=NO"])
def test_a_policy_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no policy rule"):
        Policy(text)


# -- key sets and failures -----------------------------------------------------


def test_key_sets_are_published(
    session: requests.Session, tokens: TokenFactory, keycloak: FakeKeycloak
) -> None:
    for url, keys in tokens.jwks().items():
        assert session.get(url).json() == keys
    assert session.get(f"{BACKSTAGE}/other/.backstage/auth/v1/jwks.json").status_code == 404
    assert session.get(f"{keycloak.base_url}/realms/other/certs").status_code == 404


def test_parts_of_backstage_can_be_down(
    session: requests.Session, backstage: FakeBackstage, tokens: TokenFactory
) -> None:
    backstage.failures = {"catalog": 500, "permission": dropped()}
    assert entity(session, "user:default/bob").status_code == 500
    with pytest.raises(requests.ConnectionError):
        session.post(AUTHORIZE, json=items("x"), headers=bearer(tokens.user()))
    assert [call.path for call in backstage.asked_of("permission")] == ["/authorize"]


# -- the client ----------------------------------------------------------------


@pytest.fixture
def echo() -> PluginClient:
    def app(environ: Any, start: Any) -> Iterable[bytes]:
        request = Request(environ)
        heard = {
            "path": request.path,
            "raw": environ["RAW_URI"],
            "query": request.query_string.decode(),
            "type": request.headers.get("Content-Type"),
            "length": request.headers.get("Content-Length"),
            "authorization": request.headers.get("Authorization"),
            "body": request.get_data(as_text=True),
        }
        return Response(json.dumps(heard), mimetype="application/json")(environ, start)

    return PluginClient(app)


@pytest.mark.parametrize(
    ("sent", "decoded"),
    [
        ("/keys/a%2Fb%20c", "/keys/a/b c"),
        ("//health", "//health"),
        ("/a/../b", "/a/../b"),
        ("/keys/%C3%B6", "/keys/ö"),
        ("/keys/%zz", "/keys/%zz"),
    ],
)
def test_a_path_arrives_as_sent(echo: PluginClient, sent: str, decoded: str) -> None:
    heard = echo.get(f"{sent}?x=%2F&y=a+b").get_json()
    assert heard["raw"] == f"/api/litellm{sent}?x=%2F&y=a+b"
    assert heard["path"] == f"/api/litellm{decoded}"
    assert heard["query"] == "x=%2F&y=a+b"


def test_bytes_that_are_no_text_arrive_as_sent() -> None:
    seen = []

    def app(environ: Any, start: Any) -> list[bytes]:
        seen.append(Request(environ).environ["PATH_INFO"])
        start("204 No Content", [])
        return []

    PluginClient(app, mount="").get("/%ff\u00f6")
    assert seen == ["/\xff\xc3\xb6"]


def test_bodies_arrive_as_sent(echo: PluginClient) -> None:
    heard = echo.post("/x", json=None).get_json()
    assert (heard["body"], heard["type"], heard["length"]) == ("null", "application/json", "4")
    heard = echo.post("/x", raw="{", headers={"content-type": "text/x"}).get_json()
    assert (heard["body"], heard["type"], heard["length"]) == ("{", "text/x", "1")
    heard = echo.get("/x", headers={"Authorization": "Bearer "}).get_json()
    assert (heard["body"], heard["type"], heard["length"]) == ("", None, None)
    assert heard["authorization"] == "Bearer "
