"""The pages of the sandbox, and what they ask Backstage's stand-in, as browsers do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from litellm_plugin.sandbox import people
from litellm_plugin.sandbox.backstage import BackstageStandIn
from litellm_plugin.sandbox.page import WEB, examples, pages
from litellm_plugin.sandbox.tokens import Issuer

TODAY = date(2026, 11, 23)
BOBS = {"X-Sandbox-User": "user:default/bob"}


class Closing(FlaskClient):
    """Reads each answer at once, so that its file is closed."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        return super().open(*args, buffered=True, **kwargs)


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("the demo")
    (tmp_path / "index.js").write_text("its script")
    return tmp_path


@pytest.fixture
def client(demo: Path) -> Iterator[FlaskClient]:
    app = Flask("front")
    app.test_client_class = Closing
    backstage = BackstageStandIn(Issuer(), people.catalog(), discovery={})
    app.register_blueprint(pages(backstage, TODAY, demo))
    with app.test_client() as client:
        yield client


def test_the_page_tells_who_there_is_and_what_to_try(client: FlaskClient) -> None:
    assert client.get("/").mimetype == "text/html"
    data: Any = client.get("/sandbox/data.json").json
    assert [person["name"] for person in data["people"]] == ["bob", "carol", "alice"]
    assert [one["what"] for one in data["examples"]] == [one.what for one in examples(TODAY)]
    assert data["demo"] is True


def test_each_document_is_there_to_be_read(client: FlaskClient) -> None:
    data: Any = client.get("/sandbox/data.json").json
    assert "quick-start.md" in {doc["file"] for doc in data["docs"]}
    for doc in data["docs"]:
        answer = client.get(f"/docs/{doc['file']}")
        assert (answer.status_code, answer.mimetype) == (200, "text/plain")
        assert doc["title"] in answer.text


@pytest.mark.parametrize("file", [*WEB.iterdir()], ids=lambda file: file.name)
def test_no_file_of_the_page_loads_anything_from_elsewhere(file: Path, client: FlaskClient) -> None:
    answer = client.get("/" if file.name == "index.html" else f"/sandbox/{file.name}")
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert set(re.findall(r"\w+://[^/\"']*", answer.text)) <= {"http://www.w3.org"}  # namespaces
    assert not re.search(r"<script(?! type=\"module\" src=)|<style|\sstyle=|\son\w+=", answer.text)


@pytest.mark.parametrize("path", ["/demo/", "/demo/litellm", "/demo/catalog/a/b", "/demo/../../x"])
def test_the_demo_answers_its_page_for_all_of_its_paths(path: str, client: FlaskClient) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (200, "the demo")


def test_the_demo_answers_its_files(client: FlaskClient) -> None:
    answer = client.get("/demo/index.js")
    assert (answer.text, answer.mimetype) == ("its script", "text/javascript")
    assert "script-src 'self' 'unsafe-eval';" in answer.headers["Content-Security-Policy"]


def test_a_visitor_is_signed_in_as_the_person_of_the_header(client: FlaskClient) -> None:
    session: Any = client.get("/api/auth/sandbox/refresh", headers=BOBS).json
    assert session["profile"]["email"] == "bob@example.com"
    identity = session["backstageIdentity"]["identity"]
    assert identity["ownershipEntityRefs"] == ["user:default/bob", people.SEARCH]
    bearer = {"Authorization": f"Bearer {session['backstageIdentity']['token']}"}
    users: Any = client.get("/api/catalog/entities?filter=kind%3DUser", headers=bearer).json
    assert {user["metadata"]["name"] for user in users} == {"alice", "bob", "carol"}
    query = {"type": "basic", "name": "litellm.team.create", "attributes": {}}
    answer: Any = client.post(
        "/api/permission/authorize",
        json={"items": [{"id": "1", "permission": query}]},
        headers=bearer,
    ).json
    assert answer["items"] == [{"id": "1", "result": "ALLOW"}]


@pytest.mark.parametrize("named", ["", "bob", "user:default/nobody", people.SEARCH])
def test_nobody_else_is_signed_in(named: str, client: FlaskClient) -> None:
    answer = client.get("/api/auth/sandbox/refresh", headers={"X-Sandbox-User": named})
    assert answer.status_code == 401
    assert repr(named) in answer.text


def test_a_missing_file_of_the_demo_is_not_its_page(client: FlaskClient) -> None:
    assert client.get("/demo/static/gone.js").status_code == 404
    assert client.get("/demo/litellm").text == "the demo"
