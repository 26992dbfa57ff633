"""What Backstage is asked, and that nothing is allowed where it gives no clear answer."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import requests
from requests_mock import ANY, Mocker

from litellm_plugin.clients.backstage import (
    Catalog,
    Entity,
    Notifications,
    Permissions,
    key_set,
    split_ref,
)
from litellm_plugin.clients.http import Upstream
from litellm_plugin.config.settings import Discovery, DiscoveryEndpoint, Timeouts
from litellm_plugin.errors import BackstageUnavailable

URL = "http://backstage.example"
ENTITY = f"{URL}/api/catalog/entities/by-name/user/default/jane"
AUTHORIZE = f"{URL}/api/permission/authorize"

# Whatever else may come back, as requests_mock takes it.
FAILURES: dict[str, dict[str, Any]] = {
    "refused": {"exc": requests.ConnectionError},
    "no connection in time": {"exc": requests.ConnectTimeout},
    "silence": {"exc": requests.ReadTimeout},
    "redirect": {"status_code": 302, "headers": {"Location": f"{URL}/login"}},
    "400": {"status_code": 400, "json": {"error": {"name": "InputError"}}},
    "401": {"status_code": 401, "json": {"error": {"name": "AuthenticationError"}}},
    "403": {"status_code": 403, "json": {"error": {"name": "NotAllowedError"}}},
    "429": {"status_code": 429, "text": ""},
    "500": {"status_code": 500, "json": {"error": {"name": "Error"}}},
    "503": {"status_code": 503, "text": "<h1>Service Unavailable</h1>"},
    "no content": {"status_code": 204},
    "a login page": {"text": "<html>Sign in</html>"},
    "half an answer": {"text": '{"items": [{"id"'},
    "null": {"text": "null"},
    "a list": {"json": []},
    "a text": {"json": "ALLOW"},
    "true": {"text": "true"},
    "an empty object": {"json": {}},
}
ODD_JSON = {"null", "a list", "a text", "true", "an empty object"}
failures = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream("Backstage", timeouts=Timeouts())


@pytest.fixture
def catalog(upstream: Upstream) -> Catalog:
    return Catalog(upstream, Discovery(URL), lambda: "our-own-token")


@pytest.fixture
def permissions(upstream: Upstream) -> Permissions:
    return Permissions(upstream, Discovery(URL))


class TestSplitRef:
    @pytest.mark.parametrize(
        ("ref", "parts"),
        [
            ("user:default/jane", ("user", "default", "jane")),
            ("group:contractors/a.b-c_d", ("group", "contractors", "a.b-c_d")),
            ("User:Default/Jane", ("User", "Default", "Jane")),
            ("user:jane", ("user", "default", "jane")),
            ("user:default/jane@example.com", ("user", "default", "jane@example.com")),
            ("user:default/a b", ("user", "default", "a b")),
            ("user:default/..", ("user", "default", "..")),
            ("", None),
            ("jane", None),
            ("default/jane", None),
            (":default/jane", None),
            ("user:", None),
            ("user:/jane", None),
            ("user:default/", None),
            ("user:default/a/b", None),
            ("user:default/a:b", None),
            ("user:default//jane", None),
        ],
    )
    def test_table(self, ref: str, parts: tuple[str, str, str] | None) -> None:
        assert split_ref(ref) == parts


class TestCatalog:
    def test_it_is_asked_by_name_with_our_own_token(
        self, catalog: Catalog, requests_mock: Mocker
    ) -> None:
        requests_mock.get(ENTITY, json={"kind": "User"})

        catalog.entity("user:default/jane")

        (asked,) = requests_mock.request_history
        assert (asked.method, asked.url, asked.body) == ("GET", ENTITY, None)
        assert asked.headers["Authorization"] == "Bearer our-own-token"

    @pytest.mark.parametrize(
        ("ref", "path"),
        [
            ("user:jane", "user/default/jane"),
            ("User:Other/Jane", "User/Other/Jane"),
            ("user:default/jane@x.org", "user/default/jane%40x.org"),
            ("user:default/a b+c%2F?#", "user/default/a%20b%2Bc%252F%3F%23"),
            ("user:default/jürgen", "user/default/j%C3%BCrgen"),
            ("user:default/...", "user/default/..."),
        ],
    )
    def test_each_part_is_encoded(
        self, catalog: Catalog, requests_mock: Mocker, ref: str, path: str
    ) -> None:
        requests_mock.get(ANY, json={"kind": "User"})

        catalog.entity(ref)

        url: str = requests_mock.request_history[0].url
        assert url.removeprefix(f"{URL}/api/catalog/entities/by-name/") == path

    @pytest.mark.parametrize(
        "ref",
        ["", "jane", "user:", "user:default/", "user:default/..", "user:./jane", "..:default/jane",
         "user:default/a/b", "user:default/\ud800"],
    )  # fmt: skip
    def test_what_is_no_ref_is_nobody_and_not_asked_for(
        self, catalog: Catalog, requests_mock: Mocker, ref: str
    ) -> None:
        assert catalog.entity(ref) is None
        assert requests_mock.request_history == []

    def test_it_is_where_discovery_says(self, upstream: Upstream, requests_mock: Mocker) -> None:
        endpoint = DiscoveryEndpoint("http://catalog.internal/{{pluginId}}/", ("catalog",))
        requests_mock.get(ANY, json={"kind": "User"})

        Catalog(upstream, Discovery(URL, (endpoint,)), lambda: "").entity("user:default/jane")

        url = requests_mock.request_history[0].url
        assert url == "http://catalog.internal/catalog/entities/by-name/user/default/jane"

    def test_groups_are_the_relations_and_not_the_spec(
        self, catalog: Catalog, requests_mock: Mocker
    ) -> None:
        body = {
            "kind": "User",
            "spec": {
                "profile": {"displayName": "Jane", "email": "jane@example.com", "picture": "x"},
                "memberOf": ["admins"],
            },
            "relations": [
                {"type": "memberOf", "targetRef": "group:default/dev"},
                {"type": "memberOf", "targetRef": "group:other/ops"},
                {"type": "ownerOf", "targetRef": "group:default/owned"},
                {"type": "memberOf", "targetRef": None},
                {"type": "memberOf"},
                "memberOf",
            ],
        }
        requests_mock.get(ENTITY, json=body)

        assert catalog.entity("user:default/jane") == Entity(
            "User", frozenset({"group:default/dev", "group:other/ops"}), "Jane", "jane@example.com"
        )

    @pytest.mark.parametrize(
        "rest",
        [
            {},
            {"spec": None, "relations": None},
            {"spec": [], "relations": {}},
            {"spec": {"profile": None}, "relations": []},
            {"spec": {"profile": {"displayName": "", "email": 5}}},
        ],
    )
    def test_an_entity_may_say_little(
        self, catalog: Catalog, requests_mock: Mocker, rest: dict[str, Any]
    ) -> None:
        requests_mock.get(ENTITY, json={"kind": "User", **rest})

        assert catalog.entity("user:default/jane") == Entity("User")

    @pytest.mark.parametrize("text", ["", "<h1>Not Found</h1>", '{"error": {}}', "null"])
    def test_404_is_nobody_whatever_the_body(
        self, catalog: Catalog, requests_mock: Mocker, text: str
    ) -> None:
        requests_mock.get(ENTITY, status_code=404, text=text)

        assert catalog.entity("user:default/jane") is None

    @pytest.mark.parametrize(
        "failure",
        [*FAILURES.values(), *({"json": {"kind": kind}} for kind in (None, 5, ["User"]))],
    )
    def test_anything_else_is_no_answer_and_never_nobody(
        self, catalog: Catalog, requests_mock: Mocker, failure: dict[str, Any]
    ) -> None:
        requests_mock.get(ENTITY, **failure)

        with pytest.raises(BackstageUnavailable):
            catalog.entity("user:default/jane")
        assert len(requests_mock.request_history) == 1

    def test_the_operator_is_told_who_refused_and_no_secret(
        self, catalog: Catalog, requests_mock: Mocker, caplog: pytest.LogCaptureFixture
    ) -> None:
        text = "Illegal token Bearer our-own-token"
        requests_mock.get(ENTITY, status_code=401, text=text)

        with pytest.raises(BackstageUnavailable):
            catalog.entity("user:default/jane")

        assert f"GET {ENTITY} answered 401: Illegal token" in caplog.text
        assert "check discovery.endpoints in Backstage's configuration" in caplog.text
        assert "our-own-token" not in caplog.text


class TestPermissions:
    def test_one_basic_permission_is_asked_for_with_the_users_token(
        self, permissions: Permissions, requests_mock: Mocker
    ) -> None:
        requests_mock.post(AUTHORIZE, json=decided("ALLOW"))

        permissions.allowed("litellm.key.create", "create", "users-token")

        (asked,) = requests_mock.request_history
        (item,) = asked.json()["items"]
        assert uuid.UUID(item.pop("id"))
        assert item == {
            "permission": {
                "type": "basic",
                "name": "litellm.key.create",
                "attributes": {"action": "create"},
            }
        }
        assert asked.headers["Authorization"] == "Bearer users-token"

    @pytest.mark.parametrize(("result", "allowed"), [("ALLOW", True), ("DENY", False)])
    def test_the_policy_decides(
        self, permissions: Permissions, requests_mock: Mocker, result: str, allowed: bool
    ) -> None:
        requests_mock.post(AUTHORIZE, json=decided(result))

        assert ask(permissions) is allowed

    def test_an_answer_to_another_question_is_no_decision(
        self, permissions: Permissions, requests_mock: Mocker
    ) -> None:
        requests_mock.post(AUTHORIZE, json=decided("ALLOW"))
        ask(permissions)
        stale = requests_mock.request_history[0].json()["items"][0]["id"]
        requests_mock.post(AUTHORIZE, json={"items": [{"id": stale, "result": "ALLOW"}]})

        with pytest.raises(BackstageUnavailable):
            ask(permissions)

    @pytest.mark.parametrize(
        "items",
        [
            [{"result": "CONDITIONAL", "pluginId": "litellm", "conditions": {}}],
            *([{"result": odd}] for odd in ("allow", "ALLOWED", True, ["ALLOW"], None)),
            *([{"id": odd, "result": "ALLOW"}] for odd in ("", None, 5, ["x"])),
            *([{"result": "ALLOW"}] * count for count in (0, 2, 3)),
            *([{}], None, {}, "ALLOW", [None], ["ALLOW"], [[]]),
        ],
    )
    def test_anything_but_one_clear_word_is_no_decision(
        self, permissions: Permissions, requests_mock: Mocker, items: Any
    ) -> None:
        def body(asked: Any, _: Any) -> Any:
            own = {"id": id_of(asked)}
            rows = items if isinstance(items, list) else []
            whole = [{**own, **row} if isinstance(row, dict) else row for row in rows]
            return {"items": whole if isinstance(items, list) else items}

        requests_mock.post(AUTHORIZE, json=body)

        with pytest.raises(BackstageUnavailable):
            ask(permissions)

    @failures
    def test_nothing_is_allowed_on_any_failure(
        self, permissions: Permissions, requests_mock: Mocker, failure: dict[str, Any]
    ) -> None:
        requests_mock.post(AUTHORIZE, **failure)

        with pytest.raises(BackstageUnavailable):
            ask(permissions)
        assert len(requests_mock.request_history) == 1

    @pytest.mark.parametrize("status", [300, 400, 403, 404, 500])
    def test_an_error_that_says_allow_allows_nothing(
        self, permissions: Permissions, requests_mock: Mocker, status: int
    ) -> None:
        requests_mock.post(AUTHORIZE, status_code=status, json=decided("ALLOW"))

        with pytest.raises(BackstageUnavailable):
            ask(permissions)

    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            (404, '{"error": {}}',
             "Backstage does not know this sign-in any more; reload the page"),
            (404, "", "Backstage has no permission API here (404); ask your administrator"),
            (401, "{}",
             "Backstage does not accept this service's token (401); ask your administrator"),
            (400, "{}", "Backstage answers 400 where an API is expected; ask your administrator"),
            (500, "{}", "Backstage failed (500); try again in a minute, or ask your administrator"),
        ],
    )  # fmt: skip
    def test_an_error_tells_its_reader_what_to_do(
        self, permissions: Permissions, requests_mock: Mocker, status: int, body: str, error: str
    ) -> None:
        requests_mock.post(AUTHORIZE, status_code=status, text=body)

        with pytest.raises(BackstageUnavailable) as caught:
            ask(permissions)

        assert caught.value.text == error


class TestKeySets:
    def test_the_caller_logs_why_there_is_no_answer(
        self, upstream: Upstream, requests_mock: Mocker, caplog: pytest.LogCaptureFixture
    ) -> None:
        requests_mock.get(f"{URL}/jwks.json", exc=requests.ConnectionError("Connection refused"))

        with pytest.raises(BackstageUnavailable, match=r"check that it is up.*Connection refused"):
            key_set(upstream, f"{URL}/jwks.json")

        assert not [record for record in caplog.records if record.levelname == "WARNING"]

    def test_the_document_is_returned_as_it_is(
        self, upstream: Upstream, requests_mock: Mocker
    ) -> None:
        requests_mock.get(f"{URL}/jwks.json", json={"keys": [{"kid": "1"}]})

        assert key_set(upstream, f"{URL}/jwks.json") == {"keys": [{"kid": "1"}]}
        assert "Authorization" not in requests_mock.request_history[0].headers

    @pytest.mark.parametrize("name", sorted(FAILURES.keys() - ODD_JSON))
    def test_what_can_not_be_had_is_an_error(
        self, upstream: Upstream, requests_mock: Mocker, name: str
    ) -> None:
        requests_mock.get(f"{URL}/jwks.json", **FAILURES[name])

        with pytest.raises(BackstageUnavailable):
            key_set(upstream, f"{URL}/jwks.json")

    @pytest.mark.parametrize("url", ["", "jwks.json", "file:///etc/passwd", "http://", "http://[/"])
    def test_what_is_no_address_is_an_error(self, upstream: Upstream, url: str) -> None:
        with pytest.raises(BackstageUnavailable):
            key_set(upstream, url)

    @pytest.mark.parametrize("scheme", ["http+srv", "https+srv"])
    def test_a_dns_service_record_is_no_address(
        self, upstream: Upstream, requests_mock: Mocker, scheme: str
    ) -> None:
        with pytest.raises(BackstageUnavailable, match="give the plugin an external target"):
            key_set(upstream, f"{scheme}://search.service.consul/jwks.json")
        assert requests_mock.call_count == 0


def ask(permissions: Permissions) -> bool:
    return permissions.allowed("litellm.key.create", "create", "token")


def id_of(asked: Any) -> str:
    id_: str = json.loads(asked.body)["items"][0]["id"]
    return id_


def decided(result: str) -> Any:
    """Answer as the permission backend does."""
    return lambda asked, _: {"items": [{"id": id_of(asked), "result": result}]}


# -- notifications ---------------------------------------------------------------

NOTIFICATIONS = f"{URL}/api/notifications/notifications"


@pytest.fixture
def notifications(upstream: Upstream) -> Notifications:
    return Notifications(upstream, Discovery(URL), lambda: "our-own-token")


def test_a_notification_is_for_one_person(
    notifications: Notifications, requests_mock: Mocker
) -> None:
    requests_mock.post(NOTIFICATIONS, json=[])
    notifications.send("user:default/jane", {"title": "Hello"})
    (asked,) = requests_mock.request_history
    assert asked.headers["Authorization"] == "Bearer our-own-token"
    assert asked.json() == {
        "recipients": {"type": "entity", "entityRef": "user:default/jane"},
        "payload": {"title": "Hello"},
    }


def test_a_notification_that_is_not_taken_is_an_error_and_not_sent_again(
    notifications: Notifications, requests_mock: Mocker
) -> None:
    sent: list[dict[str, Any]] = [
        {"status_code": status} for status in (302, 400, 401, 403, 404, 500, 503)
    ]
    sent.append({"exc": requests.ReadTimeout})
    requests_mock.post(NOTIFICATIONS, sent)
    for _ in sent:
        with pytest.raises(BackstageUnavailable):
            notifications.send("user:default/jane", {"title": "Hello"})
    assert len(requests_mock.request_history) == len(sent)


# -- users by a field ------------------------------------------------------------

USERS = f"{URL}/api/catalog/entities"


def test_users_are_found_by_any_of_several_values(catalog: Catalog, requests_mock: Mocker) -> None:
    row = {
        "kind": "User",
        "metadata": {"name": "Jane", "namespace": "Ops"},
        "spec": {"profile": {"email": "jane@example.com"}},
        "relations": [{"type": "memberOf", "targetRef": "group:default/a"}],
    }
    bare = {"kind": "user", "metadata": {"name": "jane"}}
    requests_mock.get(USERS, json=[row, bare])
    assert catalog.users("metadata.name", ["jane", "jane@x", "a,kind=group", " jane", ""]) == [
        ("user:ops/jane", Entity("User", frozenset({"group:default/a"}), None, "jane@example.com")),
        ("user:default/jane", Entity("user")),
    ]
    (asked,) = requests_mock.request_history
    assert asked.qs["filter"] == ["kind=user,metadata.name=jane,metadata.name=jane@x"]
    assert asked.headers["Authorization"] == "Bearer our-own-token"


@pytest.mark.parametrize("value", ["", "a,b", "a b", "a\nb", "x" * 201])
def test_nobody_is_asked_for_by_what_no_filter_can_say(
    catalog: Catalog, requests_mock: Mocker, value: str
) -> None:
    requests_mock.get(ANY, json=[])
    assert catalog.users("metadata.name", [value]) == []
    assert requests_mock.request_history == []


@failures
def test_without_a_list_of_users_nobody_knows_who_there_is(
    catalog: Catalog, requests_mock: Mocker, failure: dict[str, Any]
) -> None:
    requests_mock.get(USERS, **failure)
    if failure == FAILURES["a list"]:
        assert catalog.users("metadata.name", ["jane"]) == []
        return
    with pytest.raises(BackstageUnavailable):
        catalog.users("metadata.name", ["jane"])


@pytest.mark.parametrize(
    "row", [{}, None, {"kind": "User"}, {"kind": "Group", "metadata": {"name": "jane"}}], ids=str
)
def test_what_is_no_user_is_no_answer(catalog: Catalog, requests_mock: Mocker, row: Any) -> None:
    requests_mock.get(USERS, json=[row])
    with pytest.raises(BackstageUnavailable):
        catalog.users("metadata.name", ["jane"])
