"""The service as it is deployed, with a proxy to each of its upstreams.

``gunicorn app:app`` with one worker, so that its threads and connections can be counted from
outside; behind the proxies the sandbox's stand-ins, which keep what they are told.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from litellm_plugin.sandbox import people
from litellm_plugin.sandbox.backstage import BackstageStandIn
from litellm_plugin.sandbox.litellm import LiteLLMStandIn
from litellm_plugin.sandbox.tokens import Issuer
from tests.deployed import end, free_port, gunicorn
from tests.faults.proxy import Exchange, Proxy

MOUNT = "/api/litellm"

MASTER_KEY = "sk-faults-master-key-0123456789"
TOTAL = 1.5  # seconds; the deadline of a request where an upstream is to hang
UNHURRIED = 30.0  # seconds; the deadline where none is: a busy machine may take a while
SLACK = 3.0  # seconds that an answer may take beyond it, on a busy machine
STARTING = 60.0  # seconds
TOKEN_SECONDS = 3600

CONFIG = """\
backend:
  baseUrl: {backstage}
  listen: {{port: 1}}
{cache}
permission:
  enabled: true
discovery:
  endpoints:
    - target: {service}{mount}
      plugins: [litellm]
litellm:
  baseUrl: {litellm}
  masterKey: {master_key}
  userIdDomain: example.com
  provisioning:
    enabled: true
  audit:
    group: group:default/platform-admins
  keyGeneration:
    teamRequired: false
  teamAdmin:
    group: group:default/platform-admins
    allowedModels: [gpt-4o]
    allowTeamDelete: true
  service:
    keyFile: {folder}/plugin-key.json
    rateLimits: false
    timeouts: {{connect: 1, read: 30, total: {total}}}
    {more}
"""


@dataclass(frozen=True)
class Route:
    """What is asked."""

    method: str
    path: str
    body: Any = None

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    def __str__(self) -> str:
        return f"{self.method} {self.path.partition('?')[0]}"


@dataclass(frozen=True)
class Answer:
    """What came of it.

    Attributes:
        status: 0 where there was no answer.
        seconds: How long it took.
        error: The ``error`` of its body; "" where there is none.
    """

    route: Route
    status: int
    seconds: float
    error: str = ""
    text: str = ""


@dataclass(frozen=True)
class Counted:
    """What the worker has open.

    Attributes:
        threads: Threads of the system.
        sockets: Sockets of any kind.
        asking: Connections to the proxies.
    """

    threads: int
    sockets: int
    asking: int


class _Silent(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@contextmanager
def serving(app: Flask) -> Iterator[int]:
    """Serve a stand-in, a thread for each request; yields its port."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Clock:
    """A clock that is ahead of this host's, or behind."""

    ahead: float = 0.0  # seconds

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Rig:
    """One deployment.

    Attributes:
        url: Of the service, its mount included.
        issuer: Signs as Backstage.
        clock: Backstage's.
        token: alice's.
        key: The hash of a key of hers.
    """

    url: str
    folder: Path
    litellm_stand_in: LiteLLMStandIn
    backstage_stand_in: BackstageStandIn
    issuer: Issuer
    clock: Clock
    litellm: Proxy
    backstage: Proxy
    process: subprocess.Popen[bytes]
    token: str = ""
    key: str = ""

    @property
    def routes(self) -> list[Route]:
        """One of each kind."""
        return [
            Route("GET", "/user/info"),
            Route("GET", "/keys"),
            Route("GET", "/models"),
            Route("GET", "/teams"),
            Route("GET", "/teams/managed"),
            Route("GET", "/audit"),
            Route("GET", "/usage?start_date=2026-11-01&end_date=2026-11-02"),
            Route(
                "POST", "/keys/generate", {"alias": f"key-{os.urandom(4).hex()}", "max_budget": 1}
            ),
            Route("POST", f"/keys/{self.key}/block", {}),
            Route("PATCH", "/teams/team-platform", {"team_alias": "Platform"}),
            Route(
                "POST",
                "/teams",
                {"team_alias": "made", "models": ["gpt-4o"], "max_budget": 1},
            ),
        ]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def worker(self) -> int:
        """The worker's process id."""
        tasks = Path("/proc", str(self.process.pid), "task")
        children = [
            int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()
        ]
        # The metrics have a process of their own.
        (worker,) = (
            pid for pid in children if b"exporter" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        return worker

    def counted(self) -> Counted:
        folder = Path("/proc", str(self.worker))
        links = []
        for entry in (folder / "fd").iterdir():
            with suppress(OSError):
                links.append(str(entry.readlink()))
        return Counted(
            threads=len(list((folder / "task").iterdir())),
            sockets=sum(link.startswith("socket:") for link in links),
            asking=self.litellm.connections + self.backstage.connections,
        )

    def sign_in(self, name: str = "alice", lifetime: float = TOKEN_SECONDS) -> str:
        return self.issuer.user_token(f"user:default/{name}", lifetime=lifetime)

    def ask(self, route: Route, token: str | None = None, *, limit: float = 20.0) -> Answer:
        """Ask, on a connection of its own."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        began = time.monotonic()
        try:
            with requests.Session() as session:
                session.trust_env = False
                answer = session.request(
                    route.method,
                    self.url + route.path,
                    json=route.body,
                    headers=headers,
                    timeout=limit,
                    allow_redirects=False,
                )
        except requests.RequestException as exc:
            return Answer(route, 0, time.monotonic() - began, repr(exc))
        seconds = time.monotonic() - began
        try:
            body = answer.json()
        except ValueError:
            body = {}
        error = body.get("error", "") if isinstance(body, dict) else ""
        if isinstance(error, dict):
            error = str(error.get("message"))
        return Answer(route, answer.status_code, seconds, error, answer.text)

    def ask_all(self, routes: list[Route], token: str | None = None) -> list[Answer]:
        """Ask for all at once."""
        found: list[Answer | None] = [None] * len(routes)

        def ask(number: int) -> None:
            found[number] = self.ask(routes[number], token)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(routes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answer for answer in found if answer is not None]

    @contextmanager
    def held(
        self, path: str, body: Any, token: str | None = None
    ) -> Iterator[tuple[socket.socket, threading.Event]]:
        """Post, and hold the answer back once LiteLLM has made a key.

        Yields the client's end of the connection, and an event that lets the answer go.
        """
        made, goes_on = threading.Event(), threading.Event()

        def hold(exchange: Exchange) -> None:
            answer = exchange.forward()
            if exchange.asked.target == "/key/generate":
                made.set()
                goes_on.wait(30)
            exchange.send(answer)

        self.litellm.spoil(hold)
        content, at = json.dumps(body), urlsplit(self.url)
        with socket.create_connection((at.hostname, at.port), timeout=20) as client:
            head = f"POST {MOUNT}{path} HTTP/1.1\r\nHost: {at.hostname}\r\n"
            head += "Content-Type: application/json\r\n"
            head += f"Authorization: Bearer {token or self.token}\r\n"
            head += f"Content-Length: {len(content)}\r\n\r\n"
            client.sendall((head + content).encode())
            assert made.wait(20)
            yield client, goes_on
        self.litellm.mend()

    def recovery(self, route: Route, token: str | None = None, *, within: float = 30.0) -> float:
        """Return the seconds until a route is answered with 200 again."""
        began = time.monotonic()
        while True:
            answer = self.ask(route, token)
            took = time.monotonic() - began
            if answer.status == 200:
                return took
            assert took < within, f"not well after {took:.1f} s: {answer}"
            time.sleep(0.02)

    def settled(self, probe: Callable[[], bool], *, within: float = 30.0) -> bool:
        """Wait until something is so; tell whether it came to be."""
        deadline = time.monotonic() + within
        while not probe():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def aliases(self) -> set[str]:
        """The names of all keys that LiteLLM has."""
        return {key["key_alias"] for key in list(self.litellm_stand_in.store.keys.values())}


@contextmanager
def running(
    folder: Path,
    *,
    more: str = "cacheSeconds: 0",
    cache: str = "",
    over: Mapping[str, Any] | None = None,
    backstage_down: bool = False,
    served: str = "app:app",
    total: float = TOTAL,
) -> Iterator[Rig]:
    """Run a deployment.

    Args:
        folder: For its files; made where it is not there.
        more: A line below ``litellm.service``.
        cache: Lines below ``backend``.
        over: Merged over the configuration.
        backstage_down: Whether Backstage is to be mended later.
        served: What gunicorn serves.
        total: Deadline of a request, in seconds.
    """
    folder.mkdir(exist_ok=True)
    clock = Clock()
    issuer = Issuer(clock=clock)
    litellm = LiteLLMStandIn(MASTER_KEY)
    port = free_port()
    url = f"http://127.0.0.1:{port}{MOUNT}"
    backstage = BackstageStandIn(issuer, people.catalog(), discovery={"litellm": url}, clock=clock)
    furnish(litellm)
    with ExitStack() as stack:
        proxies = []
        for app in (litellm.app, backstage.app):
            proxies.append(Proxy(stack.enter_context(serving(app))))
            stack.callback(proxies[-1].stop)
        if backstage_down:
            proxies[1].refuse()
        config = folder / "app-config.yaml"
        config.write_text(
            CONFIG.format(
                backstage=proxies[1].url,
                litellm=proxies[0].url,
                service=f"http://127.0.0.1:{port}",
                mount=MOUNT,
                master_key=MASTER_KEY,
                folder=folder,
                total=total,
                cache=cache,
                more=more,
            )
        )
        overlay = folder / "app-config.over.yaml"
        overlay.write_text(json.dumps(over or {}))
        process = stack.enter_context(_gunicorn(folder, f"{config},{overlay}", port, served))
        rig = Rig(
            url,
            folder,
            litellm,
            backstage,
            issuer,
            clock,
            litellm=proxies[0],
            backstage=proxies[1],
            process=process,
        )
        rig.token = rig.sign_in()
        row = litellm.key_generate({"key_alias": "held", "user_id": "alice@example.com"})
        rig.key = row["token_id"]
        yield rig


def furnish(litellm: LiteLLMStandIn) -> None:
    """Put a user with a team, and a model, into the stand-in."""
    litellm.user_new({"user_id": "alice@example.com", "max_budget": 10, "auto_create_key": False})
    litellm.team_new(
        {
            "team_id": "team-platform",
            "team_alias": "Platform",
            "members_with_roles": [{"user_id": "alice@example.com", "role": "user"}],
            "metadata": {"owning_group": "group:default/platform-admins"},
        }
    )
    litellm.store.models.append({"model_name": "gpt-4o", "model_info": {"mode": "chat"}})


@contextmanager
def _gunicorn(
    folder: Path, config: str, port: int, served: str
) -> Iterator[subprocess.Popen[bytes]]:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LITELLM_PLUGIN_BIND": f"127.0.0.1:{port}",
        "LITELLM_PLUGIN_CONFIG": config,
        "WEB_CONCURRENCY": "1",
    }
    process = gunicorn(env, folder / "log", served)
    try:
        deadline = time.monotonic() + STARTING
        while not _up(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield process
    finally:
        end(process, 10)


def _up(port: int) -> bool:
    try:
        url = f"http://127.0.0.1:{port}{MOUNT}/.backstage/auth/v1/jwks.json"
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False
