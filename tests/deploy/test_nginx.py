"""``deploy/nginx``, by a real nginx in front of two servers that say who was asked what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.deploy.ingress import Ingress, needs_nginx
from tests.deployed import free_port

pytestmark = needs_nginx


class _Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked, long enough to be compressed."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        port = self.connection.getsockname()[1]
        asked = {"port": port, "path": self.path, "headers": dict(self.headers), "pad": "x" * 2000}
        body = json.dumps(asked).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


@pytest.fixture
def service() -> Iterator[int]:
    yield from _serving()


@pytest.fixture
def backstage() -> Iterator[int]:
    yield from _serving()


def _serving() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def ingress(tmp_path: Path, service: int, backstage: int) -> Iterator[Ingress]:
    addresses = {"127.0.0.1:5000": service, "127.0.0.1:7007": backstage}
    nginx = Ingress(tmp_path, "litellm-plugin.conf", addresses)
    yield nginx
    nginx.stop()


def test_the_plugins_paths_go_to_the_service_and_all_others_to_backstage(
    ingress: Ingress, service: int, backstage: int
) -> None:
    def asked(path: str) -> tuple[int, str]:
        said = json.loads(ingress.ask(path)[1])
        return said["port"], said["path"]

    for path in ("/api/litellm/keys?a=b%2Fc", "/api/litellm/", "/api/litellm/teams/a%2Fb"):
        assert asked(path) == (service, path)
    for path in ("/", "/litellm", "/api/catalog/entities", "/api/litellm-other/x", "/livez"):
        assert asked(path) == (backstage, path)


def test_the_service_is_told_who_asks_and_under_what_id(ingress: Ingress) -> None:
    def heard(**headers: str) -> dict[str, str]:
        headers_heard: dict[str, str] = json.loads(ingress.ask("/api/litellm/keys", **headers)[1])[
            "headers"
        ]
        return headers_heard

    given = heard(Authorization="Bearer a.b.c", X_Request_Id="mine-1")
    assert given["Authorization"] == "Bearer a.b.c"
    assert given["X-Request-Id"] == "mine-1"
    assert given["X-Forwarded-For"] == "127.0.0.1"
    assert given["X-Forwarded-Proto"] == "http"
    assert len(heard()["X-Request-Id"]) == 32
    long = f"Bearer {'x' * 16_000}"
    assert heard(Authorization=long)["Authorization"] == long


def test_answers_are_compressed(ingress: Ingress) -> None:
    answer, body = ingress.ask("/api/litellm/keys", Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(body) < 1000
    assert "Content-Encoding" not in ingress.ask("/api/litellm/keys")[0].headers


def test_a_service_that_is_not_there_is_told_in_json(tmp_path: Path, backstage: int) -> None:
    addresses = {"127.0.0.1:5000": free_port(), "127.0.0.1:7007": backstage}
    nginx = Ingress(tmp_path, "litellm-plugin.conf", addresses)
    try:
        answer, body = nginx.ask("/api/litellm/keys")
    finally:
        nginx.stop()
    assert answer.status == 503
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"error": "The LiteLLM service is not reachable"}


def test_the_way_through_backstages_proxy(tmp_path: Path, backstage: int) -> None:
    nginx = Ingress(tmp_path, "through-backstage.conf", {"127.0.0.1:7007": backstage})
    try:
        path = "/api/litellm/teams/a%2Fb?c=d"
        said = json.loads(nginx.ask(path)[1])["path"]
        other = json.loads(nginx.ask("/api/catalog/entities")[1])["path"]
    finally:
        nginx.stop()
    assert said.startswith("/api/proxy/litellm/teams/a")
    assert said.endswith("?c=d")
    assert other == "/api/catalog/entities"
