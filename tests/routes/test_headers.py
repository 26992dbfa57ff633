"""Security headers, ETags and cross-origin answers, as Backstage gives them."""

from __future__ import annotations

import pytest

from litellm_plugin.routes.headers import SECURITY
from tests.client import PluginClient

Headers = dict[str, str]

ORIGIN = "http://localhost:3000"  # backend.cors.origin of the base settings


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/nope", 404), ("/usage", 400)])
def test_every_answer_has_the_security_headers(
    client: PluginClient, bob: Headers, path: str, status: int
) -> None:
    answer = client.get(path, headers=bob)
    assert answer.status_code == status
    assert SECURITY.items() <= dict(answer.headers).items()


def test_an_answer_that_did_not_change_is_not_sent_again(
    client: PluginClient, bob: Headers
) -> None:
    first = client.get("/config", headers=bob)
    etag = first.headers["ETag"]
    assert etag.startswith('W/"')
    for known in (etag, etag.removeprefix("W/"), f'"x", {etag}', "*"):
        again = client.get("/config", headers=bob | {"If-None-Match": known})
        assert (again.status_code, again.data) == (304, b"")
        assert "Content-Type" not in again.headers
        assert SECURITY.items() <= dict(again.headers).items()


def test_a_changed_answer_an_error_and_a_reload_are_sent_whole(
    client: PluginClient, bob: Headers
) -> None:
    etag = client.get("/config", headers=bob).headers["ETag"]
    assert client.get("/health", headers=bob | {"If-None-Match": etag}).status_code == 200
    reload = {"If-None-Match": etag, "Cache-Control": "no-cache"}
    assert client.get("/config", headers=bob | reload).status_code == 200
    missing = client.get("/nope", headers=bob).headers["ETag"]
    assert client.get("/nope", headers=bob | {"If-None-Match": missing}).status_code == 404


@pytest.mark.parametrize("path", ["/health", "/keys/generate", "/nope"])
def test_a_preflight_of_an_allowed_origin_needs_no_credentials(
    client: PluginClient, path: str
) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Headers": "authorization,content-type"}
    answer = client.request("OPTIONS", path, headers=asked)
    assert (answer.status_code, answer.data) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Allow-Methods"] == "GET,HEAD,PATCH,POST,PUT,DELETE"
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
    assert set(answer.vary) == {"Origin", "Access-Control-Request-Headers"}


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:30000", "null", ""])
def test_another_origin_gets_no_leave(client: PluginClient, bob: Headers, origin: str) -> None:
    preflight = client.request("OPTIONS", "/health", headers={"Origin": origin})
    simple = client.get("/health", headers=bob | {"Origin": origin})
    assert (preflight.status_code, simple.status_code) == (401, 200)
    for answer in (preflight, simple):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(("path", "status"), [("/health", 401), ("/nope", 401)])
def test_an_allowed_origin_may_read_refusals_too(
    client: PluginClient, path: str, status: int
) -> None:
    answer = client.get(path, headers={"Origin": ORIGIN})
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
