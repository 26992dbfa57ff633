"""What LiteLLM is asked, and what is made of its answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from requests_mock import ANY, Mocker
from requests_mock.request import _RequestObjectProxy as Sent

from litellm_plugin.clients import deadline
from litellm_plugin.clients import litellm as module
from litellm_plugin.clients.http import READ_ATTEMPTS, Upstream
from litellm_plugin.clients.litellm import (
    MAX_KEY_PAGES,
    MAX_PAGES,
    PAGE_SIZE,
    WITHOUT_V2,
    Account,
    LiteLLM,
)
from litellm_plugin.config.settings import Timeouts
from litellm_plugin.errors import UpstreamError, UsageUnavailable
from tests.clients.server import Peer, Server, answer

BASE = "http://litellm.example/below"
MASTER_KEY = "sk-0123456789-master"
HASH = "0123456789abcdef" * 4
DAYS = ("2026-11-01", "2026-11-30")
TIME = "start_date=2026-11-01&end_date=2026-11-30"

NEWEST = (
    "/key/list?return_full_object=true&size=100&page=1"
    "&user_id=a%20b&key_alias=c%26d&sort_by=created_at&sort_order=desc"
)

# What every public method sends: its arguments, path and query as sent, body.
DAY = "start_date=2026-11-01&end_date=2026-11-01"
CALLS: dict[str, tuple[tuple[Any, ...], str, Any]] = {
    "account": (("a b+c@x.org",), "/v2/user/info?user_id=a%20b%2Bc%40x.org", None),
    "whole_account": (("a b+c@x.org",), "/user/info?user_id=a%20b%2Bc%40x.org", None),
    "create_user": (({"user_id": "bob"},), "/user/new", {"user_id": "bob"}),
    "update_user": (({"user_id": "bob"},), "/user/update", {"user_id": "bob"}),
    "generate_key": (({"key_alias": "ci"},), "/key/generate", {"key_alias": "ci"}),
    "update_key": (({"key": HASH, "max_budget": None},), "/key/update",
                   {"key": HASH, "max_budget": None}),
    "block_key": ((HASH,), "/key/block", {"key": HASH}),
    "unblock_key": ((HASH,), "/key/unblock", {"key": HASH}),
    "reset_key_spend": (("sk/a b",), "/key/sk%2Fa%20b/reset_spend", {"reset_to": 0}),
    "delete_key": ((HASH,), "/key/delete", {"keys": [HASH]}),
    "newest_keys": (("a b", "c&d"), NEWEST, None),
    "license": ((), "/health/license", None),
    "users_with_email": (
        ("j+d@example.com",),
        "/user/list?user_email=j%2Bd%40example.com&page_size=100",
        None,
    ),
    "users": (
        (3,),
        "/user/list?page=3&page_size=100&sort_by=created_at&sort_order=asc",
        None,
    ),
    "accounts": (
        (3,),
        "/user/list?page=3&page_size=100&sort_by=created_at&sort_order=asc",
        None,
    ),
    "accounts_of": ((["bob"],), "/v2/user/info?user_id=bob", None),
    "keys": (
        (3,),
        "/key/list?page=3&return_full_object=true&size=100&sort_by=created_at&sort_order=asc",
        None,
    ),
    "team_rows": (
        (3,),
        "/v2/team/list?page=3&page_size=100&sort_by=created_at&sort_order=asc",
        None,
    ),
    "delete_user": (("bob",), "/user/delete", {"user_ids": ["bob"]}),
    "model_info": ((), "/model/info", None),
    "model_names": ((), "/models", None),
    "team": (("t 1&x=y",), "/team/info?team_id=t%201%26x%3Dy", None),
    "teams": ((["t1"],), "/team/info?team_id=t1", None),
    "all_teams": ((), "/team/list", None),
    "create_team": (({"team_alias": "x"},), "/team/new", {"team_alias": "x"}),
    "update_team": (({"team_id": "t1"},), "/team/update", {"team_id": "t1"}),
    "delete_team": (("t1",), "/team/delete", {"team_ids": ["t1"]}),
    "add_member": (("t1", "bob", 2.5), "/team/member_add",
                   {"team_id": "t1", "member": {"user_id": "bob", "role": "user"},
                    "max_budget_in_team": 2.5}),
    "remove_member": (("t1", "bob"), "/team/member_delete", {"team_id": "t1", "user_id": "bob"}),
    "vector_stores": ((), "/vector_store/list", None),
    "mcp_servers": ((), "/v1/mcp/server", None),
    "activity": (
        ("user", "bob", *DAYS),
        f"/user/daily/activity/aggregated?{TIME}&user_id=bob&api_key_limit=1000",
        None,
    ),
    "activity_page": (
        ("team", "2026-11-01", 2, "t1"),
        f"/team/daily/activity?{DAY}&team_ids=t1&page=2&page_size=1000",
        None,
    ),
    "audit_log": (({"page": "2", "action": "deleted"},), "/audit?page=2&action=deleted", None),
}  # fmt: skip

# The details of teams that can't be read are left out, or tried again after any 5xx.
ALONE = sorted(CALLS.keys() - {"team", "teams"})
WRITES = sorted(name for name, (_, _, body) in CALLS.items() if body is not None)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream("LiteLLM", timeouts=Timeouts(), attempts=READ_ATTEMPTS)


@pytest.fixture
def client(upstream: Upstream) -> LiteLLM:
    return LiteLLM(upstream, BASE, MASTER_KEY)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited each time, in seconds."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


def call(client: LiteLLM, name: str) -> Any:
    return getattr(client, name)(*CALLS[name][0])


def sent(requests_mock: Mocker) -> list[str]:
    """Return path and query of every request, as sent."""
    return [asked.url.removeprefix(BASE) for asked in requests_mock.request_history]


def account_of(client: LiteLLM, requests_mock: Mocker, **row: Any) -> Account:
    """Return the account that LiteLLM tells with this row."""
    requests_mock.get(f"{BASE}/v2/user/info", json={"user_id": "bob", **row})
    account = client.account("bob")
    assert account is not None
    return account


def error_of(client: LiteLLM, name: str = "model_info") -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        call(client, name)
    return caught.value


def errors_of(
    client: LiteLLM, requests_mock: Mocker, names: Iterable[str]
) -> Iterator[tuple[str, UpstreamError, int]]:
    """Yield each method's name, its error, and the number of requests that it sent."""
    for name in names:
        requests_mock.reset_mock()
        yield name, error_of(client, name), requests_mock.call_count


class TestKey:
    def test_a_key_is_found_by_its_hash(self, client: LiteLLM, requests_mock: Mocker) -> None:
        info = {"key_alias": "ci", "status": "active"}
        requests_mock.get(f"{BASE}/key/info?key={HASH}", json={"key": HASH, "info": info})
        assert client.key(HASH) == {**info, "token": HASH}

    def test_an_unknown_or_deleted_key_is_none(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        info = {"key": HASH, "info": {"status": "deleted"}}
        unknown = {"error": {"message": "Key not found in database", "code": "404"}}
        requests_mock.get(
            f"{BASE}/key/info", [{"json": info}, {"json": unknown, "status_code": 404}]
        )
        assert client.key(HASH) is None
        assert client.key(HASH) is None

    def test_a_missing_route_is_no_unknown_key(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        missing = {"json": {"detail": "Not Found"}, "status_code": 404}
        requests_mock.get(f"{BASE}/key/info", [missing])
        with pytest.raises(UpstreamError):
            client.key(HASH)


class TestWhatIsSent:
    def test_every_method_is_looked_at(self) -> None:
        # These look at what comes back, and have tests of their own.
        public = {name for name in vars(LiteLLM) if not name.startswith("_")}
        own = {"works", "version", "own_key", "key", "keys_of", "teams_of", "activity_totals"}
        assert CALLS.keys() == public - own - {"key_sums"}

    @pytest.mark.parametrize("name", CALLS)
    def test_path_query_body_and_key(
        self, client: LiteLLM, requests_mock: Mocker, name: str
    ) -> None:
        requests_mock.register_uri(ANY, ANY, json={"users": [], "keys": [], "teams": []})

        call(client, name)

        _, target, body = CALLS[name]
        assert sent(requests_mock) == [target]
        (asked,) = requests_mock.request_history
        assert asked.method == ("GET" if body is None else "POST")
        assert (asked.json() if asked.body else None) == body
        assert asked.headers["Authorization"] == f"Bearer {MASTER_KEY}"

    @pytest.mark.parametrize("budget", [None, 0.0])
    def test_a_member_has_a_budget_only_where_it_is_given(
        self, client: LiteLLM, requests_mock: Mocker, budget: float | None
    ) -> None:
        requests_mock.post(f"{BASE}/team/member_add", json={})

        client.add_member("t1", "bob", budget)

        body = requests_mock.request_history[0].json()
        assert body.get("max_budget_in_team") == budget
        assert ("max_budget_in_team" in body) == (budget is not None)

    def test_the_key_does_not_follow_a_redirect(
        self, client: LiteLLM, requests_mock: Mocker, pauses: list[float]
    ) -> None:
        headers = {"Location": "http://elsewhere.example/"}
        requests_mock.register_uri(ANY, ANY, status_code=307, headers=headers)

        assert call(client, "teams") == []
        for name, error, _ in errors_of(client, requests_mock, CALLS.keys() - {"teams"}):
            assert error.answered == 307, name
            hosts = {asked.hostname for asked in requests_mock.request_history}
            assert hosts == {"litellm.example"}, name


class TestErrors:
    @pytest.mark.parametrize(
        ("body", "message", "param"),
        [
            ({"error": {"message": "Key with alias 'x' exists", "param": "key_alias"}},
             "Key with alias 'x' exists", "key_alias"),
            ({"error": {"message": "no", "param": "None", "code": "400"}}, "no", None),
            ({"error": {"message": "no", "param": None}}, "no", None),
            ({"error": {"message": "no", "param": ["x"]}}, "no", None),
            ({"message": "top level", "param": "p"}, "top level", "p"),
            ({"error": None, "message": "top level"}, "top level", None),
            ({"error": {"message": "{'error': 'No keys found'}", "param": "None"}},
             "No keys found", None),
            ({"detail": {"error": "Team not found"}}, "Team not found", None),
            ({"detail": [{"loc": ["body", "max_budget"], "msg": "no number"}]},
             "max_budget: no number", None),
            ({"detail": "Not Found"}, "Not Found", None),
            ({"error": {"message": 5}}, "LiteLLM API error: 400 Bad Request", None),
            ([], "LiteLLM API error: 400 Bad Request", None),
            (None, "LiteLLM API error: 400 Bad Request", None),
        ],
    )  # fmt: skip
    def test_every_shape_is_read(
        self, client: LiteLLM, requests_mock: Mocker, body: Any, message: str, param: str | None
    ) -> None:
        text = json.dumps(body)
        requests_mock.get(f"{BASE}/model/info", status_code=400, reason="Bad Request", text=text)

        error = error_of(client)

        assert (error.message, error.answered, error.param) == (message, 400, param)

    @pytest.mark.parametrize(
        ("body", "shown"),
        [(b"", ""), (b"<h1>boom</h1>", "<h1>boom</h1>"), (b"\xff", "\N{REPLACEMENT CHARACTER}")],
    )
    def test_what_is_no_json_is_shown_as_it_came(
        self, client: LiteLLM, requests_mock: Mocker, body: bytes, shown: str
    ) -> None:
        requests_mock.get(f"{BASE}/model/info", status_code=502, reason="Bad", content=body)

        assert error_of(client).message == f"LiteLLM API error: 502 Bad - {shown}"

    @pytest.mark.parametrize("body", ["x" * 100_000, '{"message": "%s"}' % ("x" * 100_000)])
    def test_a_long_text_is_cut(self, client: LiteLLM, requests_mock: Mocker, body: str) -> None:
        requests_mock.get(f"{BASE}/model/info", status_code=500, text=body)

        assert len(error_of(client).message) == module.MAX_TEXT

    @pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
    def test_every_method_tells_what_was_answered(
        self, client: LiteLLM, requests_mock: Mocker, pauses: list[float], status: int
    ) -> None:
        requests_mock.register_uri(ANY, ANY, status_code=status, json={"message": "no"})

        for name, error, asked in errors_of(client, requests_mock, ALONE):
            told = (error.answered, error.message, error.unfinished)
            assert told == (status, "no", False), name
            again = status == 503 and name not in WRITES
            assert asked == (READ_ATTEMPTS if again else 1), name

    @pytest.mark.parametrize(
        ("failure", "passing"),
        [
            (requests.ConnectionError, True),
            (requests.exceptions.ChunkedEncodingError, True),
            (requests.ConnectTimeout, False),
            (requests.ReadTimeout, False),
            (requests.exceptions.SSLError, False),
            (requests.exceptions.ContentDecodingError, False),
        ],
    )
    def test_only_a_read_whose_connection_broke_is_tried_again(
        self,
        client: LiteLLM,
        requests_mock: Mocker,
        pauses: list[float],
        failure: type[Exception],
        passing: bool,
    ) -> None:
        requests_mock.register_uri(ANY, ANY, exc=failure)

        for name, error, asked in errors_of(client, requests_mock, ALONE):
            assert error.answered is None, name
            again = passing and name not in WRITES
            assert asked == (READ_ATTEMPTS if again else 1), name

    @pytest.mark.parametrize(
        "cut_off",
        [
            {"exc": requests.ReadTimeout},
            {"exc": requests.ConnectionError},
            {"status_code": 502, "text": "<h1>Bad Gateway</h1>"},
            {"status_code": 503, "text": "upstream connect error"},
            {"status_code": 504, "json": {"message": "Endpoint request timed out"}},
            {"text": "not json"},
            {"text": ""},
        ],
    )
    def test_a_write_that_was_cut_off_says_that_it_may_have_been_done(
        self, client: LiteLLM, requests_mock: Mocker, cut_off: Any
    ) -> None:
        requests_mock.register_uri(ANY, ANY, **cut_off)

        for name, error, asked in errors_of(client, requests_mock, WRITES):
            assert error.unfinished, name
            # Of keys it is told by who looks for them.
            sentence = {"generate_key": "", "create_user": "the next visit finds it"}
            assert sentence.get(name, "look before you try again") in error.text, name
            assert asked == 1, name

    @pytest.mark.parametrize("text", ["", "not json", "[1e999]"])
    def test_a_success_that_is_no_json_is_an_error(
        self, client: LiteLLM, requests_mock: Mocker, text: str
    ) -> None:
        requests_mock.register_uri(ANY, ANY, text=text)

        for name, error, _ in errors_of(client, requests_mock, ALONE):
            assert error.answered is None, name
            assert error.message.startswith("LiteLLM's answer is not valid JSON"), name

    @pytest.mark.parametrize("odd", [[], None, "text", 5])
    def test_a_write_is_answered_with_an_object(
        self, client: LiteLLM, requests_mock: Mocker, odd: Any
    ) -> None:
        requests_mock.register_uri(ANY, ANY, text=json.dumps(odd))

        names = ("generate_key", "create_team", "update_team")
        for name, error, _ in errors_of(client, requests_mock, names):
            assert error.message.startswith("LiteLLM's answer is not an object"), name
            assert error.unfinished, name

    def test_a_refused_master_key_is_told_to_the_operator_by_its_setting(
        self, client: LiteLLM, requests_mock: Mocker, caplog: pytest.LogCaptureFixture
    ) -> None:
        requests_mock.get(f"{BASE}/model/info", status_code=401, json={"message": "no"})

        error_of(client)

        assert "litellm.masterKey" in caplog.text
        assert MASTER_KEY not in caplog.text

    @pytest.mark.parametrize("name", ["license", "users_with_email"])
    def test_a_read_that_is_no_object_is_not_said_to_have_changed_anything(
        self, client: LiteLLM, requests_mock: Mocker, name: str
    ) -> None:
        requests_mock.get(ANY, json=[])

        error = error_of(client, name)

        assert error.text == "LiteLLM's answer is not an object; ask your administrator"
        assert not error.unfinished

    @pytest.mark.parametrize("text", ["", "Not Found", "<h1>404 Not Found</h1>"])
    def test_a_spend_is_not_reset_another_way_where_a_reverse_proxy_refuses_the_path(
        self, client: LiteLLM, requests_mock: Mocker, text: str
    ) -> None:
        requests_mock.post(f"{BASE}/key/sk%2Fa%20b/reset_spend", status_code=404, text=text)
        update = requests_mock.post(f"{BASE}/key/update", json={})

        assert error_of(client, "reset_key_spend").answered == 404
        assert not update.called


LOOKED_UP = {"account": "/v2/user/info", "whole_account": "/user/info"}


@pytest.mark.parametrize(("method", "path"), LOOKED_UP.items())
class TestEitherAccount:
    @pytest.mark.parametrize(
        "body",
        [
            {"user_id": "bob", "user_info": None, "keys": [], "teams": []},
            {"user_id": "bob", "user_info": {}, "keys": [], "teams": []},
            {"user_id": "bob", "user_info": None},
            {"user_info": [], "keys": None, "teams": None},
            {"user_id": "bob", "user_info": {"spend": 0}, "keys": [], "teams": []},
            {"user_id": "bob", "user_info": {"spend": 1.5, "max_budget": None}},
            {"user_id": "bob", "user_info": {}, "keys": [{"token": HASH}], "teams": ["t1"]},
            {"user_id": "bob", "user_info": None, "teams": [{"team_id": "t1"}]},
            {"user_id": "bob", "user_info": {"user_id": None, "spend": 0}, "keys": []},
            {"keys": [], "teams": []},
            {},
        ],
    )
    def test_an_answer_whose_user_has_no_id_means_an_unknown_user(
        self, client: LiteLLM, requests_mock: Mocker, method: str, path: str, body: Any
    ) -> None:
        requests_mock.get(BASE + path, json=body)

        assert getattr(client, method)("bob") is None

    def test_404_means_an_unknown_user(
        self, client: LiteLLM, requests_mock: Mocker, method: str, path: str
    ) -> None:
        body = {"error": {"message": "User not found: bob", "code": "404"}}
        requests_mock.get(BASE + path, status_code=404, json=body)

        assert getattr(client, method)("bob") is None
        assert sent(requests_mock) == [f"{path}?user_id=bob"]

    @pytest.mark.parametrize("status", [400, 401, 403, 410, 429, 500, 503])
    def test_no_other_error_means_an_unknown_user(
        self, client: LiteLLM, requests_mock: Mocker, method: str, path: str, status: int
    ) -> None:
        body = {"error": {"message": "User bob not found"}}
        requests_mock.get(BASE + path, status_code=status, json=body)

        assert error_of(client, method).answered == status

    @pytest.mark.parametrize("body", [None, [], "bob", 5, True])
    def test_nonsense_is_an_error_and_no_unknown_user(
        self, client: LiteLLM, requests_mock: Mocker, method: str, path: str, body: Any
    ) -> None:
        requests_mock.get(BASE + path, text=json.dumps(body))

        assert error_of(client, method).text == (
            "LiteLLM's answer about the user is not an object; ask your administrator"
        )


class TestAccounts:
    def test_a_page_of_users_is_a_page_of_accounts(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        row = {"user_id": "bob", "max_budget": 10, "tpm_limit": None, "teams": ["t1"]}
        requests_mock.get(f"{BASE}/user/list", json={"users": [row], "total_pages": 7})
        (account,), pages = client.accounts(2)
        assert (account.user_id, account.team_ids, pages) == ("bob", ["t1"], 7)
        assert account.info["max_budget"] == 10

    def test_users_whom_litellm_does_not_have_are_left_out(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        requests_mock.get(f"{BASE}/v2/user/info?user_id=bob", json={"user_id": "bob"})
        unknown = {"error": {"message": "User not found: eve"}}
        requests_mock.get(f"{BASE}/v2/user/info?user_id=eve", status_code=404, json=unknown)
        assert [account.user_id for account in client.accounts_of(["eve", "bob"])] == ["bob"]


def rows_of(*ids: str, pages: int = 1) -> dict[str, Any]:
    """Return a page of ``/user/list``."""
    return {"users": [{"user_id": id_, "spend": 1.0} for id_ in ids], "total_pages": pages}


MISSING: dict[str, Any] = {"status_code": 404, "json": {"detail": "Not Found"}}
PROXY: dict[str, Any] = {"status_code": 404, "text": "<h1>404 Not Found</h1>"}


class TestAccount:
    def test_the_users_own_row_is_enough(self, client: LiteLLM, requests_mock: Mocker) -> None:
        account = account_of(client, requests_mock, max_budget=20.0, spend=0.5, teams=["t1", "t2"])

        assert (account.user_id, account.team_ids) == ("bob", ["t1", "t2"])
        assert {"max_budget": 20.0, "spend": 0.5}.items() <= account.info.items()

    def test_all_that_is_told_is_in_the_whole_account(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        own = {"user_id": "bob", "spend": 0.5, "organization_memberships": [{"user_role": "x"}]}
        body = {"user_info": own, "keys": [{"token": HASH}], "teams": [{"team_id": "t1"}, "t2"]}
        requests_mock.get(f"{BASE}/user/info", json=body)

        account = client.whole_account("bob")

        assert account is not None
        assert account.team_ids == ["t1", "t2"]
        assert account.info["keys"] == [{"token": HASH}]
        assert own.items() <= account.info.items()

    def test_team_ids_come_from_rows_and_from_bare_ids(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        teams = [{"team_id": "t2"}, "t1", {"x": 1}, None, 5, {"team_id": None}]

        assert account_of(client, requests_mock, teams=teams).team_ids == ["t2", "t1"]

    @pytest.mark.parametrize(
        ("teams", "member"),
        [
            ([{"team_id": "t1"}], True),
            (["t0", "t1"], True),
            (["t10", {"team_id": "T1"}, {"team_alias": "t1"}, None, ["t1"]], False),
            ("t1", False),
            ([], False),
        ],
    )
    def test_membership_is_in_the_teams(
        self, client: LiteLLM, requests_mock: Mocker, teams: Any, member: bool
    ) -> None:
        assert account_of(client, requests_mock, teams=teams).in_team("t1") is member

    @pytest.mark.parametrize("missing", [MISSING, PROXY], ids=["LiteLLM", "a reverse proxy"])
    def test_a_missing_route_is_no_unknown_user_and_is_not_asked_for_again(
        self, client: LiteLLM, requests_mock: Mocker, missing: Any
    ) -> None:
        requests_mock.get(f"{BASE}/v2/user/info", **missing)
        requests_mock.get(f"{BASE}/user/list", json=rows_of("bob"))

        for _ in range(2):
            account = client.account("bob")
            assert account is not None
            assert account.info["spend"] == 1.0

        listed = "/user/list?user_ids=bob&page_size=100"
        assert sent(requests_mock) == ["/v2/user/info?user_id=bob", listed, listed]

    def test_the_missing_route_is_looked_for_again_after_minutes(
        self, client: LiteLLM, requests_mock: Mocker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        requests_mock.get(f"{BASE}/v2/user/info", **MISSING)
        requests_mock.get(f"{BASE}/user/list", json=rows_of())
        assert client.account("bob") is None
        later = time.monotonic() + WITHOUT_V2
        monkeypatch.setattr("time.monotonic", lambda: later)

        assert account_of(client, requests_mock).user_id == "bob"

    def test_only_the_id_itself_is_the_user(self, client: LiteLLM, requests_mock: Mocker) -> None:
        requests_mock.get(f"{BASE}/v2/user/info", **MISSING)
        requests_mock.get(f"{BASE}/user/list", json=rows_of("Bob", "bob@example.com", "bobby"))

        assert client.account("bob") is None

    @pytest.mark.parametrize("user_id", ["bob", "bob,eve"])
    def test_what_the_list_cannot_tell_the_dear_read_does(
        self, client: LiteLLM, requests_mock: Mocker, user_id: str
    ) -> None:
        requests_mock.get(f"{BASE}/v2/user/info", **MISSING)
        requests_mock.get(f"{BASE}/user/list", json=rows_of("bobby", pages=2))
        requests_mock.get(f"{BASE}/user/info", json={"user_info": {"user_id": user_id}})

        account = client.account(user_id)

        assert account is not None
        assert account.user_id == user_id

    def test_a_list_that_fails_makes_nobody_unknown(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        requests_mock.get(f"{BASE}/v2/user/info", **MISSING)
        requests_mock.get(f"{BASE}/user/list", status_code=500, json={"detail": "no"})

        assert error_of(client, "account").answered == 500

    def test_where_the_lighter_routes_are_missing_the_account_is_read_whole(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        for path in ("/v2/user/info", "/user/list", "/key/list"):
            requests_mock.get(f"{BASE}{path}", **MISSING)
        whole = {"user_info": {"user_id": "bob"}, "keys": [{"token": "t"}], "teams": []}
        requests_mock.get(f"{BASE}/user/info", json=whole)

        account = client.account("bob")

        assert account is not None
        assert client.keys_of(account.user_id) == [{"token": "t"}]


PARTS = {
    "keys_of": ("/key/list", "keys", "token"),
    "teams_of": ("/v2/team/list", "teams", "team_id"),
}


@pytest.mark.parametrize(("method", "part"), PARTS.items())
class TestParts:
    def test_all_pages_are_read_in_their_order(
        self, client: LiteLLM, requests_mock: Mocker, method: str, part: tuple[str, str, str]
    ) -> None:
        path, name, id_ = part

        def page(asked: Any, _: Any) -> Any:
            number = asked.qs.get("page", ["1"])[0]
            row = {id_: number, "object_permission_id": None}
            return {name: [row], "total_pages": 3}

        requests_mock.get(BASE + path, json=page)

        assert [row[id_] for row in getattr(client, method)("a b")] == ["1", "2", "3"]
        assert all("user_id=a%20b" in asked for asked in sent(requests_mock))

    @pytest.mark.parametrize("body", [{}, [], None, {"rows": []}, {"keys": None}, {"keys": ["x"]}])
    def test_an_answer_without_rows_is_an_error_and_not_none(
        self,
        client: LiteLLM,
        requests_mock: Mocker,
        method: str,
        part: tuple[str, str, str],
        body: Any,
    ) -> None:
        requests_mock.get(BASE + part[0], text=json.dumps(body))

        with pytest.raises(UpstreamError, match="has no list of"):
            getattr(client, method)("bob")

    @pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
    def test_a_part_that_fails_is_an_error_and_not_none(
        self,
        client: LiteLLM,
        requests_mock: Mocker,
        method: str,
        part: tuple[str, str, str],
        status: int,
    ) -> None:
        def page(asked: Any, context: Any) -> Any:
            if "page" in asked.qs:
                context.status_code = status
                return {"detail": {"error": "no"}}
            return {part[1]: [], "total_pages": 2}

        requests_mock.get(BASE + part[0], json=page)

        with pytest.raises(UpstreamError) as caught:
            getattr(client, method)("bob")
        assert caught.value.answered == status


class TestKeysOfAUser:
    def test_thousands_are_read_at_once(self, client: LiteLLM, requests_mock: Mocker) -> None:
        first = {"keys": [{"token": "first"}], "total_pages": MAX_KEY_PAGES + 1}
        requests_mock.get(f"{BASE}/key/list", json=first)
        rows = [{"token": str(number)} for number in range(600)]
        body = {"user_info": {"user_id": "bob"}, "keys": rows}
        requests_mock.get(f"{BASE}/user/info", json=body)

        assert client.keys_of("bob") == rows
        assert len(requests_mock.request_history) == 2


class TestTeamsOfAUser:
    def test_rows_that_leave_object_permissions_out_are_not_whole(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        rows = [
            {"team_id": "none", "object_permission": None, "object_permission_id": None},
            {"team_id": "told", "object_permission": {"vector_stores": []}},
            {"team_id": "left out", "object_permission": None, "object_permission_id": "o1"},
            {"team_id": "not said"},
            {"object_permission_id": None},
        ]
        requests_mock.get(f"{BASE}/v2/team/list", json={"teams": rows, "total_pages": 1})

        assert [row["team_id"] for row in client.teams_of("bob")] == ["none", "told"]

    def test_without_the_route_no_row_is_whole(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        requests_mock.get(f"{BASE}/v2/team/list", **MISSING)

        assert client.teams_of("bob") == []


class TestLists:
    @pytest.mark.parametrize(
        ("name", "wrappers"),
        [
            ("model_info", ["data"]),
            ("model_names", ["data"]),
            ("all_teams", ["", "teams", "data"]),
            ("vector_stores", ["", "data", "vector_stores"]),
            ("mcp_servers", ["", "servers", "data"]),
        ],
    )
    def test_rows_are_found_wherever_a_version_has_them(
        self, client: LiteLLM, requests_mock: Mocker, name: str, wrappers: list[str]
    ) -> None:
        rows = [{"id": 1}, {"id": 2}]
        for wrapper in wrappers:
            body = {wrapper: [*rows, None, "x"]} if wrapper else [*rows, None, "x"]
            requests_mock.get(ANY, json=body)

            assert call(client, name) == rows

    @pytest.mark.parametrize("body", [{}, [], None, 5, {"data": None}, {"data": {}}])
    def test_without_rows_the_list_is_empty(
        self, client: LiteLLM, requests_mock: Mocker, body: Any
    ) -> None:
        requests_mock.get(ANY, text=json.dumps(body))

        for name in ("all_teams", "model_info", "vector_stores", "mcp_servers"):
            assert call(client, name) == [], name


PASSING = [
    {"status_code": 500},
    {"status_code": 503},
    {"exc": requests.ConnectionError},
]


class TestTeamDetails:
    def test_they_come_in_the_order_asked_for(self, client: LiteLLM, requests_mock: Mocker) -> None:
        ids = [f"t{number}" for number in range(30)]
        requests_mock.get(f"{BASE}/team/info", json=lambda asked, _: {"team_id": asked.qs})

        assert [team_id for team_id, _ in client.teams(ids)] == ids

    def test_they_are_read_side_by_side(
        self, upstream: Upstream, serve: Callable[..., Server]
    ) -> None:
        together = threading.Barrier(4)

        def script(peer: Peer) -> None:
            together.wait(60)
            peer.send(answer())

        client = LiteLLM(upstream, serve(script).url, MASTER_KEY)

        assert len(client.teams(["t1", "t2", "t3", "t4"])) == 4

    def test_requests_that_come_together_share_a_few_threads(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        names = set()

        def body(_asked: Sent, _context: Any) -> Any:
            names.add(threading.current_thread().name)
            return {}

        requests_mock.get(f"{BASE}/team/info", json=body)
        ids = [f"t{number}" for number in range(20)]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(client.teams, [ids] * 4))

        assert len(names) <= module.SIDE_BY_SIDE

    @pytest.mark.parametrize("failure", PASSING)
    def test_a_passing_failure_is_tried_again(
        self, client: LiteLLM, requests_mock: Mocker, pauses: list[float], failure: Any
    ) -> None:
        team = {"json": {"team_id": "t1"}}
        failures = [failure] * (READ_ATTEMPTS - 1)
        requests_mock.get(f"{BASE}/team/info", [*failures, team, *failures, team])

        assert client.teams(["t1"]) == [("t1", {"team_id": "t1"})]
        assert client.team("t1") == {"team_id": "t1"}
        assert len(pauses) == 2 * (READ_ATTEMPTS - 1)

    def test_a_lasting_failure_leaves_the_team_out(
        self, client: LiteLLM, requests_mock: Mocker, pauses: list[float]
    ) -> None:
        requests_mock.get(f"{BASE}/team/info?team_id=t1", json={"team_id": "t1"})
        requests_mock.get(f"{BASE}/team/info?team_id=t2", status_code=500, json={})

        assert [team_id for team_id, _ in client.teams(["t2", "t1"])] == ["t1"]
        assert sent(requests_mock).count("/team/info?team_id=t2") == READ_ATTEMPTS

    @pytest.mark.parametrize("failure", PASSING)
    def test_a_lasting_failure_of_the_only_team_is_an_error(
        self, client: LiteLLM, requests_mock: Mocker, pauses: list[float], failure: Any
    ) -> None:
        requests_mock.get(f"{BASE}/team/info", **failure)

        assert error_of(client, "team").answered == failure.get("status_code")
        assert len(requests_mock.request_history) == READ_ATTEMPTS

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 408, 422, 429])
    def test_a_refusal_is_not_tried_again(
        self, client: LiteLLM, requests_mock: Mocker, pauses: list[float], status: int
    ) -> None:
        requests_mock.get(f"{BASE}/team/info", status_code=status, json={"message": "no"})

        assert client.teams(["t1"]) == []
        assert error_of(client, "team").answered == status
        assert (len(requests_mock.request_history), pauses) == (2, [])

    def test_the_deadline_holds_side_by_side_too(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        requests_mock.get(f"{BASE}/team/info", json={})
        deadline.begin(-1.0)
        try:
            assert client.teams(["t1", "t2"]) == []
        finally:
            deadline.end()
        assert requests_mock.request_history == []

    def test_why_one_is_left_out_is_logged_without_secrets(
        self, client: LiteLLM, requests_mock: Mocker, caplog: pytest.LogCaptureFixture
    ) -> None:
        text = f"Invalid token {MASTER_KEY}, hash {HASH}"
        requests_mock.get(f"{BASE}/team/info", status_code=401, json={"message": text})

        client.teams(["t1"])

        assert "team t1 could not be read: Invalid token" in caplog.text
        assert MASTER_KEY not in caplog.text
        assert HASH not in caplog.text

    def test_no_teams_need_no_call(self, client: LiteLLM, requests_mock: Mocker) -> None:
        assert client.teams([]) == []
        assert requests_mock.request_history == []


AGGREGATED = f"{BASE}/user/daily/activity/aggregated"


def page_of(total: Any) -> Callable[[Sent, Any], Any]:
    """Answer with the number of the page, as one of ``total``."""
    return lambda asked, _: {
        "results": [asked.qs["page"][0]],
        "metadata": {"total_pages": total, "page": int(asked.qs["page"][0])},
    }


class TestKeysUsed:
    @pytest.fixture(params=["user", "team"])
    def key_sums(
        self, request: pytest.FixtureRequest, client: LiteLLM
    ) -> tuple[Callable[[], list[Any]], str]:
        """What reads the keys of a user or a team, and LiteLLM's path for it."""
        kind = request.param
        path = f"{BASE}/{kind}/daily/activity/aggregated/keys"
        return (lambda: client.key_sums(kind, "x", *DAYS)), path

    @pytest.mark.parametrize("total", [0, 1, 100, 101, 1000])
    def test_all_pages_are_read(
        self, key_sums: tuple[Callable[[], list[Any]], str], requests_mock: Mocker, total: int
    ) -> None:
        ask, path = key_sums
        rows = [{"api_key": str(number)} for number in range(total)]

        def page(asked: Any, _: Any) -> Any:
            first, size = int(asked.qs["offset"][0]), int(asked.qs["limit"][0])
            return {"api_keys": rows[first:][:size], "total_api_keys": total}

        requests_mock.get(path, json=page)
        assert ask() == rows
        assert len(requests_mock.request_history) == max(1, -(-total // 100))
        whose = "user_id=x" if "/user/" in path else "team_ids=x"
        assert all(whose in asked.url and TIME in asked.url for asked in
                   requests_mock.request_history)  # fmt: skip

    @pytest.mark.parametrize(
        "answer",
        [
            [],
            {},
            {"api_keys": [{}]},
            {"api_keys": [], "total_api_keys": 1},
            {"api_keys": [{}, {}], "total_api_keys": 1},
            {"api_keys": [], "total_api_keys": 1001},
        ],
    )
    def test_an_incomplete_answer_is_refused(
        self, key_sums: tuple[Callable[[], list[Any]], str], requests_mock: Mocker, answer: Any
    ) -> None:
        ask, path = key_sums
        requests_mock.get(path, json=answer)
        with pytest.raises(UsageUnavailable):
            ask()


class TestActivity:
    @pytest.fixture(params=["user", "team"])
    def activity(
        self, request: pytest.FixtureRequest, client: LiteLLM, requests_mock: Mocker
    ) -> tuple[Callable[[], list[Any]], str]:
        """One that comes in pages, and its path."""
        path = f"{BASE}/{request.param}/daily/activity"
        requests_mock.get(f"{path}/aggregated", status_code=404, json={"detail": "Not Found"})
        return lambda: client.activity(request.param, "x", *DAYS), path

    @pytest.mark.parametrize("total", [1, 2, 3, 20])
    def test_all_pages_are_read_in_order(
        self, activity: tuple[Callable[[], list[Any]], str], requests_mock: Mocker, total: int
    ) -> None:
        ask, path = activity
        requests_mock.get(path, json=page_of(total))

        pages = ask()

        assert [page["results"] for page in pages] == [[str(n + 1)] for n in range(total)]
        paged = [
            asked for asked in requests_mock.request_history if asked.url.startswith(path + "?")
        ]
        assert {asked.qs["page_size"][0] for asked in paged} == {str(PAGE_SIZE)}
        assert len(paged) == total

    @pytest.mark.parametrize(
        "body",
        [{}, [], None, {"metadata": None}, {"metadata": {}}, {"metadata": {"total_pages": "3"}},
         {"metadata": {"total_pages": 0}}, {"metadata": {"total_pages": -1}}],
    )  # fmt: skip
    def test_without_a_number_of_pages_there_is_one(
        self, activity: tuple[Callable[[], list[Any]], str], requests_mock: Mocker, body: Any
    ) -> None:
        ask, path = activity
        requests_mock.get(path, text=json.dumps(body))

        assert ask() == [body]

    @pytest.mark.parametrize("failure", [{"status_code": 500}, {"exc": requests.ReadTimeout}])
    def test_a_page_that_fails_fails_the_whole(
        self, activity: tuple[Callable[[], list[Any]], str], requests_mock: Mocker, failure: Any
    ) -> None:
        ask, path = activity
        requests_mock.get(path, json=page_of(5))
        requests_mock.get(f"{path}?page=3", **failure)

        with pytest.raises(UpstreamError):
            ask()

    @pytest.mark.parametrize("total", [MAX_PAGES + 1, 1329, 10**12])
    def test_too_many_pages_are_refused_and_not_read(
        self, activity: tuple[Callable[[], list[Any]], str], requests_mock: Mocker, total: int
    ) -> None:
        ask, path = activity
        requests_mock.get(path, json=page_of(total))

        with pytest.raises(UsageUnavailable, match="too many pages"):
            ask()
        assert len(requests_mock.request_history) == 2  # the aggregated answer and page 1

    def test_the_aggregated_answer_is_enough(self, client: LiteLLM, requests_mock: Mocker) -> None:
        body = {"results": [], "metadata": {"api_key_limit": 100, "total_api_keys": 100}}
        requests_mock.get(ANY, json=body)

        assert client.activity("user", "bob", *DAYS) == [body]
        assert client.activity("team", "t1", *DAYS) == [body]
        target = f"/team/daily/activity/aggregated?{TIME}&team_ids=t1&api_key_limit=1000"
        assert sent(requests_mock)[1] == target

    def test_an_aggregated_answer_without_all_keys_is_not(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        body = {"results": [], "metadata": {"api_key_limit": 100, "total_api_keys": 101}}
        requests_mock.get(AGGREGATED, json=body)
        requests_mock.get(f"{BASE}/user/daily/activity", json=page_of(2))

        assert len(client.activity("user", "bob", *DAYS)) == 2

    @pytest.mark.parametrize("status", [404, 405])
    def test_versions_without_it_are_asked_page_by_page(
        self, client: LiteLLM, requests_mock: Mocker, status: int
    ) -> None:
        requests_mock.get(AGGREGATED, status_code=status, json={"detail": "Not Found"})
        requests_mock.get(f"{BASE}/user/daily/activity", json=page_of(1))

        assert len(client.activity("user", "bob", *DAYS)) == 1

    def test_a_page_of_one_day_comes_with_the_number_of_pages(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        requests_mock.get(f"{BASE}/user/daily/activity", json=page_of(3))
        assert client.activity_page("user", "2026-11-01")[1] == 3
        page, pages = client.activity_page("user", "2026-11-01", 2, "bob")
        assert (page["results"], pages) == (["2"], 3)
        assert "user_id" not in sent(requests_mock)[0]
        assert sent(requests_mock)[1].endswith("user_id=bob&page=2&page_size=1000")
        with pytest.raises(UsageUnavailable, match="comma"):
            client.activity_page("team", "2026-11-01", 1, "t1,t2")

    def test_the_totals_of_a_day_are_those_of_the_aggregated_answer(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        teams = f"{BASE}/team/daily/activity/aggregated"
        requests_mock.get(teams, json={"results": [], "metadata": {"total_spend": 0.5}})
        assert client.activity_totals("team", "2026-11-01") == {"total_spend": 0.5}
        requests_mock.get(teams, status_code=404, json={"detail": "Not Found"})
        assert client.activity_totals("team", "2026-11-01") is None
        requests_mock.get(teams, status_code=500, json={"error": {"message": "db"}})
        with pytest.raises(UpstreamError):
            client.activity_totals("team", "2026-11-01")

    def test_nobody_named_means_everybody(self, client: LiteLLM, requests_mock: Mocker) -> None:
        requests_mock.get(AGGREGATED, status_code=404, json={"detail": "Not Found"})
        requests_mock.get(f"{BASE}/user/daily/activity", json=page_of(2))

        client.activity("user", None, *DAYS)

        assert not any("user_id" in target for target in sent(requests_mock))

    def test_a_nameless_user_is_not_everybody(self, client: LiteLLM, requests_mock: Mocker) -> None:
        requests_mock.get(AGGREGATED, json={})

        client.activity("user", "", *DAYS)

        assert "&user_id=&" in sent(requests_mock)[0]

    def test_a_comma_does_not_make_two_teams_of_one(
        self, client: LiteLLM, requests_mock: Mocker
    ) -> None:
        with pytest.raises(UsageUnavailable, match="comma"):
            client.activity("team", "mine,theirs", *DAYS)
        assert requests_mock.request_history == []


# -- users by e-mail -----------------------------------------------------------


def test_users_are_listed_as_long_as_one_page_has_all(
    client: LiteLLM, requests_mock: Mocker
) -> None:
    address = f"{BASE}/user/list"
    requests_mock.get(address, json={"users": [{"user_id": "1"}, "odd"], "total_pages": 1})
    assert client.users_with_email("jane@example.com") == [{"user_id": "1"}]
    requests_mock.get(address, json={"users": [], "total_pages": 0})
    assert client.users_with_email("jane@example.com") == []
    requests_mock.get(address, json={"users": [{"user_id": "1"}], "total_pages": 2})
    with pytest.raises(UpstreamError):
        client.users_with_email("jane@example.com")
