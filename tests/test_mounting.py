"""The plugin in somebody else's Flask application, with settings passed in code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import Headers

from litellm_plugin import create_blueprint
from litellm_plugin.config.settings import Cors, Discovery, Provisioning, Service, Settings
from litellm_plugin.routes.responses import SECURITY


@pytest.fixture
def theirs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Flask:
    """An application with routes and error handlers of its own, where there is no configuration.

    A parameter is ``backend.cors``.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITELLM_PLUGIN_CONFIG", str(tmp_path / "not-there.yaml"))
    app = Flask("theirs")
    settings = Settings(
        base_url="http://litellm:4000",
        master_key="sk-somebodys",
        discovery=Discovery("https://backstage.example.com"),
        user_id_domain="example.com",
        permission_enabled=True,
        cors=getattr(request, "param", None),
        provisioning=Provisioning(enabled=True),
        service=Service(cache_seconds=0, key_file=tmp_path / "key.json"),
    )
    app.register_blueprint(create_blueprint(settings))

    @app.get("/")
    def home() -> str:
        return "theirs"

    @app.get("/broken")
    def broken() -> ResponseReturnValue:
        abort(418)

    @app.errorhandler(404)
    def not_found(_: Exception) -> ResponseReturnValue:
        return "no such page", 404

    return app


def test_the_plugin_is_below_its_mount_and_the_rest_is_theirs(theirs: Flask) -> None:
    client = theirs.test_client()
    refused = client.get("/api/litellm/keys")
    assert refused.status_code == 401
    assert refused.json
    assert refused.json["error"]["message"] == "Missing credentials"
    assert client.get("/api/litellm/.backstage/auth/v1/jwks.json").status_code == 200
    home = client.get("/")
    assert (home.status_code, home.text) == (200, "theirs")
    assert client.get("/broken").status_code == 418
    missing = client.get("/nosuch")
    assert (missing.status_code, missing.text) == (404, "no such page")


def test_paths_below_the_mount_that_are_not_there_are_the_plugins(theirs: Flask) -> None:
    assert theirs.test_client().get("/api/litellm/nosuch").status_code == 401


def test_nothing_of_the_plugin_is_put_on_their_answers(theirs: Flask) -> None:
    client = theirs.test_client()
    home = dict(client.get("/").headers)
    assert set(home) == {"Content-Type", "Content-Length"}


def test_an_application_may_answer_before_the_plugin_is_asked(theirs: Flask) -> None:
    theirs.before_request(lambda: ("closed for today", 503))
    answer = theirs.test_client().get("/api/litellm/keys")
    assert (answer.status_code, answer.text) == (503, "closed for today")


THEIRS = {
    "Content-Security-Policy": "default-src 'none'",
    "Referrer-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=63072000; preload",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "on",
    "X-Download-Options": "open",
    "X-Frame-Options": "DENY",
    "X-Permitted-Cross-Domain-Policies": "all",
    "X-XSS-Protection": "1",
    "X-Request-Id": "theirs",
}
PATHS = ("/keys", "/nosuch", "/.backstage/auth/v1/jwks.json")


def _sent(app: Flask, path: str, **headers: str) -> list[tuple[str, str]]:
    return list(app.test_client().get(f"/api/litellm{path}", headers=headers).headers)


def _change(app: Flask, change: Callable[[Headers], object]) -> None:
    """Let the application change the headers of each answer."""

    def after(response: Response) -> Response:
        change(response.headers)
        return response

    app.after_request(after)


@pytest.mark.parametrize("spelt", [str.title, str.lower, str.upper])
def test_a_header_that_they_set_is_sent_as_theirs_and_once(
    theirs: Flask, spelt: Callable[[str], str]
) -> None:
    header = {"name": "", "value": ""}
    _change(theirs, lambda headers: headers.set(header["name"], header["value"]))
    for (name, value), path in itertools.product(THEIRS.items(), PATHS):
        header.update(name=spelt(name), value=value)
        sent = _sent(theirs, path)
        assert [other for each, other in sent if each.lower() == name.lower()] == [value], name
        others = [each for each in SECURITY if each != name]
        assert {each.lower() for each in others} <= {each.lower() for each, _ in sent}, name


def test_what_may_hold_a_key_is_kept_by_nobody_whatever_they_set(theirs: Flask) -> None:
    _change(theirs, lambda headers: headers.set("Cache-Control", "public, max-age=60"))
    kept = [
        [value for name, value in _sent(theirs, path) if name == "Cache-Control"] for path in PATHS
    ]
    assert kept == [["no-store"], ["no-store"], ["public, max-age=60"]]


def test_two_policies_of_theirs_are_both_sent(theirs: Flask) -> None:
    both = ["default-src 'none'", "frame-ancestors 'none'"]
    _change(theirs, lambda headers: headers.setlist("Content-Security-Policy", both))
    sent = [value for name, value in _sent(theirs, "/keys") if name == "Content-Security-Policy"]
    assert sent == both


@pytest.mark.parametrize("theirs", [Cors(("http://page.example",))], indirect=True)
@pytest.mark.parametrize("vary", ["Cookie", "cookie, origin", "Accept-Encoding, Cookie"])
@pytest.mark.parametrize("way", ["set", "add"])
def test_an_answer_varies_by_what_either_says(theirs: Flask, vary: str, way: str) -> None:
    _change(theirs, lambda headers: getattr(headers, way)("Vary", vary))
    sent = _sent(theirs, "/keys", Origin="http://page.example")
    (varied,) = [value for name, value in sent if name == "Vary"]
    names = [part.strip().lower() for part in varied.split(",")]
    assert sorted(names) == sorted({*vary.lower().split(", "), "origin"})
    assert ("Access-Control-Allow-Origin", "http://page.example") in sent


def test_the_page_about_mounting_runs_when_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-somebodys")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = tmp_path / "app-config.yaml"
    config.write_text(
        "backend: {baseUrl: https://backstage.example.com}\n"
        "litellm: {baseUrl: http://litellm:4000, masterKey: x, userIdDomain: example.com}\n"
    )
    monkeypatch.setenv("LITELLM_PLUGIN_CONFIG", str(config))
    page = (Path(__file__).parents[1] / "docs" / "mounting.md").read_text("utf-8")
    pasted: dict[str, Any] = {"__name__": "__main__"}
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 3
    for snippet in snippets:
        exec(snippet, pasted)
        client = pasted["app"].test_client()
        assert client.get("/api/litellm/.backstage/auth/v1/jwks.json").status_code == 200
    assert client.get("/tools/api/litellm/keys").status_code == 401
    assert client.get("/tools/api/litellm/.backstage/auth/v1/jwks.json").status_code == 200
