"""Notices about budgets and keys, seen where people see them: in the real Backstage."""

from __future__ import annotations

import base64
import hmac
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.live.kinds import Deploy, Person, Told
from tests.live.rigs import BackstageRig, LiteLLMRig
from tests.live.service import Service
from tests.live.web import Client, eventually, json_of

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ERIN, DAVE = "user:default/erin", "user:default/dave"


class Hook:
    """A webhook's receiver.

    Attributes:
        ids: The ids of the events that came, in order.
        victim: The process that is killed by the next event, once it has come whole.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.victim: subprocess.Popen[str] | None = None
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.came(dict(self.headers), body)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def came(self, headers: dict[str, str], body: bytes) -> None:
        named = {name.lower(): value for name, value in headers.items()}
        text = f"{named['webhook-id']}.{named['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        signed = base64.b64encode(hmac.digest(key, text, "sha256")).decode()
        assert named["webhook-signature"] == f"v1,{signed}"
        self.ids.append(named["webhook-id"])
        if self.victim is not None:
            os.kill(self.victim.pid, signal.SIGKILL)
            self.victim.wait(10)


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    thread = threading.Thread(target=hook.server.serve_forever)
    thread.start()
    yield hook
    hook.server.shutdown()
    thread.join()
    hook.server.server_close()


class Notify:
    """Runs ``notify`` as the service's user would, with a database of its own."""

    def __init__(self, deploy: Deploy, folder: Path, plugin_url: str, more: str = "") -> None:
        config = f"  notifications: {{enabled: true{more}}}\n"
        config += f"backend: {{database: {{connection: {{directory: {folder}}}}}}}\n"
        name = f"notify-{uuid4().hex[:8]}"
        self._service: Service = deploy(name, config, start=False, plugin_url=plugin_url)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return self._service.command("notify", *arguments)

    def __call__(self, *arguments: str, about: str) -> list[tuple[str, str, str]]:
        """Return recipient, threshold and state of the notices about one subject."""
        out, err = self.start(*arguments).communicate(timeout=120)
        assert out, err
        return [
            (each["to"], each["threshold"], each["state"])
            for each in json.loads(out)["notices"]
            if about in each["title"]
        ]


def notices_of(person: Client, about: str) -> list[dict[str, Any]]:
    """Return the notifications that a person has about one subject."""
    shown = json_of(person.get("/api/notifications/notifications", limit="1000"))
    return [each for each in shown["notifications"] if about in each["payload"]["title"]]


def spend(litellm: LiteLLMRig, user_id: str, dollars: float) -> None:
    json_of(litellm.admin.post("/user/update", {"user_id": user_id, "spend": dollars}))


@pytest.fixture
def account(litellm: LiteLLMRig) -> Iterator[str]:
    """A LiteLLM user of erin's, with a budget of 10 USD."""
    user_id = f"notify-{uuid4().hex[:8]}"
    body = {
        "user_id": user_id,
        "max_budget": 10,
        "budget_duration": "30d",
        "auto_create_key": False,
        "metadata": {"backstage_entity": ERIN},
    }
    json_of(litellm.admin.post("/user/new", body))
    yield user_id
    litellm.admin.post("/user/delete", {"user_ids": [user_id]})


@pytest.fixture
def reads(backstage: BackstageRig) -> Person:
    """Signs a person in to Backstage itself."""
    return lambda name: Client(backstage.url, backstage.sign_in(name))


def test_a_person_sees_the_newest_notice_once(
    deploy: Deploy,
    service: Service,
    litellm: LiteLLMRig,
    account: str,
    reads: Person,
    tmp_path: Path,
    told: Told,
) -> None:
    notify, erin = Notify(deploy, tmp_path, service.url), reads("erin")
    spend(litellm, account, 8.5)
    assert notify(about=account) == [(ERIN, "budget-80", "due")]
    assert notices_of(erin, account) == []

    assert notify("--apply", about=account) == [(ERIN, "budget-80", "sent")]
    assert notify("--apply", about=account) == []
    (first,) = notices_of(erin, account)
    assert first["payload"]["title"] == f"LiteLLM: 85 % of the budget of {account} is spent"
    assert first["payload"]["description"].startswith("8.50 of 10.00 USD are spent.")
    assert (first["origin"], first["payload"]["severity"]) == ("plugin:litellm", "normal")

    spend(litellm, account, 12)
    assert notify("--apply", about=account) == [(ERIN, "budget-100", "sent")]
    assert notify("--apply", about=account) == []
    (second,) = notices_of(erin, account)
    assert second["id"] == first["id"]  # replaced
    assert second["payload"]["title"] == f"LiteLLM: the budget of {account} is spent"
    assert second["payload"]["severity"] == "critical"
    assert second.get("read") is None
    told(f"erin saw: {first['payload']['title']}; then: {second['payload']['title']}")


def test_a_key_s_end_is_its_owner_s_and_a_team_s_budget_its_managers(
    deploy: Deploy,
    service: Service,
    litellm: LiteLLMRig,
    account: str,
    person: Person,
    reads: Person,
    tmp_path: Path,
    told: Told,
) -> None:
    name, dave = f"notify-{uuid4().hex[:8]}", person("dave")
    ends = json_of(
        litellm.admin.post(
            "/key/generate", {"key_alias": f"{name}-key", "user_id": account, "duration": "1h"}
        )
    )
    team = {"team_alias": f"{name}-team", "models": ["gpt-4o"], "max_budget": 1e-7}
    team_id = json_of(dave.post("/teams", team))["team_id"]
    for ref in (DAVE, ERIN):
        json_of(dave.post(f"/teams/{team_id}/members", {"userEntityRef": ref}))
    key = json_of(litellm.admin.post("/key/generate", {"team_id": team_id}))["key"]
    assert litellm.complete(key, "gpt-4o").status_code == 200
    eventually(lambda: (litellm.team(team_id) or {})["spend"], within=90)

    notify = Notify(deploy, tmp_path, service.url, ", keyExpiry: [3598s]")
    found: set[tuple[str, str, str]] = set()

    def all_sent() -> bool:
        found.update(notify("--apply", about=name))
        return len(found) == 2

    eventually(all_sent, within=60)
    assert found == {(DAVE, "budget-100", "sent"), (ERIN, "expiry-3598s", "sent")}
    (of_team,) = notices_of(reads("dave"), name)
    (of_key,) = notices_of(reads("erin"), name)
    assert of_team["payload"]["title"] == f"LiteLLM: the budget of team {name}-team is spent"
    assert of_key["payload"]["title"].startswith(f"LiteLLM: key {name}-key ends on ")
    told(f"dave saw: {of_team['payload']['title']}; erin: {of_key['payload']['title']}")
    json_of(litellm.admin.post("/key/delete", {"keys": [ends["token"]]}))
    json_of(litellm.admin.post("/team/delete", {"team_ids": [team_id]}))


def test_a_killed_run_sends_again_and_loses_nothing(
    deploy: Deploy,
    service: Service,
    litellm: LiteLLMRig,
    account: str,
    hook: Hook,
    reads: Person,
    tmp_path: Path,
    told: Told,
) -> None:
    spend(litellm, account, 9)
    more = f", webhook: {{url: '{hook.url}', secret: {SECRET}}}"
    notify = Notify(deploy, tmp_path, service.url, more)
    hook.victim = process = notify.start("--apply")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    hook.victim = None
    killed_by = hook.ids[-1]

    notify("--apply", about=account)
    assert hook.ids.count(killed_by) == 2
    assert notify("--apply", about=account) == []
    assert len(hook.ids) == len(set(hook.ids)) + 1
    assert len(notices_of(reads("erin"), account)) == 1
    told(f"killed after the event {killed_by[:12]} had come: the next run sent it again, and all")
