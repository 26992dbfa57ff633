"""The plugin in somebody else's Flask application, with settings passed in code."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask, abort
from flask.typing import ResponseReturnValue

from litellm_plugin import create_blueprint
from litellm_plugin.config.settings import Discovery, Provisioning, Service, Settings


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """An application with routes and error handlers of its own, where there is no configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITELLM_PLUGIN_CONFIG", str(tmp_path / "not-there.yaml"))
    app = Flask("theirs")
    settings = Settings(
        base_url="http://litellm:4000",
        master_key="sk-somebodys",
        discovery=Discovery("https://backstage.example.com"),
        user_id_domain="example.com",
        permission_enabled=True,
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
