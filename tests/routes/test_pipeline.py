"""What every request passes, whatever it asks for."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from litellm_plugin.clients import deadline
from tests.client import PluginClient, json_of
from tests.fakes import FakeLiteLLM
from tests.routes.conftest import OWN_KEY

JSON = {"Content-Type": "application/json"}
LIMIT = 102_400

Headers = dict[str, str]


def _padded(size: int) -> str:
    frame = '{"alias":""}'
    return '{"alias":"' + "a" * (size - len(frame)) + '"}'


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ("{", JSON, 400),
        ('"text"', JSON, 400),
        ("5", JSON, 400),
        ("null", JSON, 400),
        ("   ", JSON, 400),
        ('{"alias":"a"} x', JSON, 400),
        (_padded(LIMIT + 1), JSON, 413),
        ("{}", {"Content-Type": "application/json; charset=iso-8859-1"}, 415),
        ("{}", {**JSON, "Content-Encoding": "br"}, 415),
        ("not gzip", {**JSON, "Content-Encoding": "gzip"}, 400),
        (
            gzip.compress(_padded(LIMIT + 1).encode(), mtime=0),
            {**JSON, "Content-Encoding": "gzip"},
            413,
        ),
        (gzip.compress(bytes(5_000_000), mtime=0), {**JSON, "Content-Encoding": "gzip"}, 413),
    ],
    ids=str,
)
def test_a_body_that_can_not_be_read_is_refused_and_nothing_is_written(
    client: PluginClient, known_bob: FakeLiteLLM, body: str | bytes, headers: Headers, status: int
) -> None:
    told = json_of(client.post("/keys/generate", raw=body, who="bob", headers=headers), status)
    assert isinstance(told["error"], str)
    assert known_bob.calls == []


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ("alias=mine", {"Content-Type": "application/x-www-form-urlencoded"}),
        ('{"alias":"mine"}', {"Content-Type": "text/plain"}),
        ('{"alias":"mine"}', {"Content-Type": "application/vnd.x+json"}),
        ("", JSON),
        ("[]", JSON),
    ],
)
def test_a_body_that_is_no_json_object_counts_as_an_empty_one(
    client: PluginClient, known_bob: FakeLiteLLM, body: str, headers: Headers
) -> None:
    told = json_of(client.post("/keys/generate", raw=body, who="bob", headers=headers), 400)
    assert told == {"error": "Missing required fields", "hint": "Required: alias"}


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_compressed_body_is_read(
    client: PluginClient, known_bob: FakeLiteLLM, compress: object
) -> None:
    assert callable(compress)
    encoding = "gzip" if compress is gzip.compress else "deflate"
    sent = compress(json.dumps({"alias": "mine"}).encode())
    headers = {**JSON, "Content-Encoding": encoding}
    assert client.post("/keys/generate", raw=sent, who="bob", headers=headers).status_code == 200


def test_a_delete_with_a_content_type_and_no_body_is_served(
    client: PluginClient, known_bob: FakeLiteLLM
) -> None:
    known_bob.post("/key/delete", json={"deleted_keys": [OWN_KEY]})
    answer = client.delete(f"/keys/{OWN_KEY}", who="bob", headers=JSON)
    assert answer.get_json() == {"success": True}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nope", 404),
        ("/", 404),
        ("", 404),
        ("/keys/a/b/update", 404),  # two segments, so another path than /keys/a%2Fb/update
        ("/keys/a%2Fb/update", 403),
        ("/keys/%zz/update", 400),
        ("/keys/..%2F..%2Fuser%2Fnew/update", 403),
        ("/keys/a;b/update", 403),
        ("/keys/%00/update", 403),
        ("/keys/" + "a" * 5000 + "/update", 403),
        ("/keys//update", 404),
    ],
)
def test_a_path_means_what_was_sent(
    client: PluginClient, known_bob: FakeLiteLLM, path: str, status: int
) -> None:
    assert isinstance(json_of(client.post(path, json={}, who="bob"), status)["error"], str)
    assert known_bob.writes == []


def test_an_unknown_path_wants_credentials_too(client: PluginClient) -> None:
    assert json_of(client.get("/nope?x=1"), 401)["request"] == {"method": "GET", "url": "/nope?x=1"}


def test_a_trailing_slash_does_not_matter(client: PluginClient, known_bob: FakeLiteLLM) -> None:
    assert client.get("/health/", who="bob").get_json()["status"] == "ok"
    known_bob.post("/key/block", json={})
    known_bob.post("/key/delete", json={"deleted_keys": [OWN_KEY]})
    for method, path in (("POST", f"/keys/{OWN_KEY}/block/"), ("DELETE", f"/keys/{OWN_KEY}/")):
        assert client.request(method, path, who="bob").get_json() == {"success": True}, path
    assert [call.body for call in known_bob.writes] == [{"key": OWN_KEY}, {"keys": [OWN_KEY]}]


@pytest.mark.parametrize("end", ["//", "%2F", "%2f", "%2F/"])
def test_one_slash_at_most_does_not_matter(
    client: PluginClient, known_bob: FakeLiteLLM, end: str
) -> None:
    known_bob.post("/key/delete", json={"deleted_keys": [OWN_KEY]})
    assert client.delete(f"/keys/{OWN_KEY}{end}", who="bob").status_code == 404
    assert known_bob.writes == []


def test_a_fault_of_ours_is_answered_in_json_and_tells_nothing(
    client: PluginClient, litellm: FakeLiteLLM, caplog: pytest.LogCaptureFixture
) -> None:
    litellm.get("/user/info", error=RuntimeError("sk-secret-inside-a-fault"))
    assert json_of(client.get("/keys", who="bob"), 500) == {"error": "Internal server error"}
    assert "GET" in caplog.text


@pytest.mark.parametrize(
    "path", ["/health", "/nowhere", "/keys", "/config/..;/x", "/bridge/health"]
)
def test_what_comes_after_a_request_has_no_deadline_of_its(client: PluginClient, path: str) -> None:
    client.get(path, who="bob")
    client.get(path)
    assert deadline.left() == float("inf")
