"""``login``, ``key`` and ``logout`` on a developer's machine, with keys of the real LiteLLM.

The rig's Keycloak has no page to sign in at. An issuer in front of it has one, and sends out the
rig's access tokens, which the service verifies with the rig's keys.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from tests.fakes import Asked, Reply
from tests.fakes.issuer import FakeIssuer
from tests.killed import served
from tests.live.kinds import Deploy, Told
from tests.live.rigs import KEYCLOAK_PORT, REPO, BackstageRig, LiteLLMRig
from tests.live.service import Service
from tests.live.web import eventually, json_of

CERTS = "/protocol/openid-connect/certs"
BROWSER = "import sys, requests; requests.get(sys.argv[1], timeout=30).raise_for_status()"
HOURS = 10 * 3600


class Front:
    """The issuer, with the rig's key set."""

    base_url = ""

    def __init__(self, backstage: BackstageRig) -> None:
        self._backstage = backstage
        self.login = f"login-{uuid4().hex[:8]}"
        self.issuer = FakeIssuer("", self._mint, user=self.login)

    def answer(self, asked: Asked) -> Reply:
        if asked.path == CERTS:
            url = f"http://127.0.0.1:{KEYCLOAK_PORT}/realms/rig{CERTS}"
            return Reply(json=requests.get(url, timeout=30).json())
        return self.issuer.answer(asked)

    def _mint(self, user: str) -> str:
        return self._backstage.keycloak_token(
            iss=self.issuer.base_url,
            preferred_username=user,
            email=f"{user}@example.com",
            exp=f"+{self.issuer.lives}",
        )


class Machine:
    """A developer's machine: a home folder, without a keyring."""

    def __init__(self, folder: Path, service: Service) -> None:
        self.service = service
        self._env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPO),
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            "BROWSER": f"{sys.executable} {folder / 'browser.py'} %s",
        }
        (folder / "browser.py").write_text(BROWSER)

    def start(self, *arguments: str, ahead: float = 0) -> subprocess.Popen[str]:
        """Start the command, on a clock that is some seconds ahead."""
        program = (
            f"import time; now = time.time; time.time = lambda: now() + {ahead}\n"
            "from litellm_plugin.cli import main; main()"
        )
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, ahead: float = 0) -> tuple[int, str, str]:
        """Return exit status, standard output and standard error."""
        process = self.start(*arguments, ahead=ahead)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def succeeds(self, *arguments: str, ahead: float = 0) -> str:
        status, out, err = self.run(*arguments, ahead=ahead)
        assert status == 0, err
        return out.removesuffix("\n")


@pytest.fixture(scope="module")
def front(backstage: BackstageRig) -> Iterator[Front]:
    front = Front(backstage)
    with served(front) as url:
        front.issuer.base_url = url
        yield front


@pytest.fixture(scope="module")
def tools(deploy: Deploy, front: Front, litellm: LiteLLMRig) -> Service:
    """A service with tool keys."""
    url = front.issuer.base_url
    return deploy(
        "login",
        f"  publicBaseUrl: {litellm.url}\n"
        f"  bridge: {{ enabled: true, issuer: '{url}', clientId: abby-cli, keys: {{}} }}\n",
    )


@pytest.fixture
def machine(tools: Service, front: Front, litellm: LiteLLMRig, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, tools)
    yield machine
    machine.run("logout")
    litellm.admin.post("/user/delete", {"user_ids": [f"{front.login}@example.com"]})


def test_both_sign_ins_give_keys_that_complete(
    machine: Machine, front: Front, litellm: LiteLLMRig, told: Told
) -> None:
    for flow in ([], ["--device"]):
        assert machine.succeeds("login", "--url", machine.service.url, *flow) == (
            f"Signed in as {front.login}"
        )
        key = machine.succeeds("key", "--tool", "claude-code")
        json_of(litellm.complete(key))
        assert machine.succeeds("key", "--tool", "claude-code") == key
        (token,) = litellm.keys_of(f"{front.login}@example.com")
        known = litellm.key(token)
        assert known["key_alias"].startswith("agent/claude-code@")
        assert known["expires"]
    lines = machine.succeeds("key", "--tool", "claude-code", "--env")
    shown = subprocess.run(
        ["/bin/sh", "-c", f'{lines}\necho "$OPENAI_API_KEY $OPENAI_BASE_URL"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == [key, f"{litellm.url}/v1"]
    assert machine.succeeds("logout") == "Signed out"
    assert litellm.complete(key).status_code == 401
    assert litellm.keys_of(f"{front.login}@example.com") == []
    told("signed in by browser and by device code; a key completed, and was deleted at logout")


def test_a_key_is_renewed_across_its_end(
    machine: Machine, front: Front, litellm: LiteLLMRig, told: Told
) -> None:
    machine.succeeds("login", "--url", machine.service.url)
    wanted = ("key", "--ttl", "8s")
    first = machine.succeeds(*wanted)
    json_of(litellm.complete(first))

    def renewed() -> str:
        key = machine.succeeds(*wanted)
        return key if key != first else ""

    second = eventually(renewed)
    json_of(litellm.complete(second))
    eventually(lambda: litellm.complete(first).status_code == 401)
    told("a key of 8 seconds was replaced in time, and the first one is gone")


def test_clocks_that_jump(machine: Machine, litellm: LiteLLMRig, told: Told) -> None:
    machine.succeeds("login", "--url", machine.service.url)
    first = machine.succeeds("key")
    asleep = machine.succeeds("key", ahead=HOURS)  # the access token has expired, too
    assert asleep != first
    json_of(litellm.complete(asleep))
    assert machine.succeeds("key", ahead=HOURS) == asleep
    back = machine.succeeds("key")
    assert back != asleep
    json_of(litellm.complete(back))
    assert machine.succeeds("key") == back
    told("the clock jumped ten hours ahead, and back: each time a new key completed")


def test_two_tools_at_once(machine: Machine, front: Front, litellm: LiteLLMRig, told: Told) -> None:
    machine.succeeds("login", "--url", machine.service.url)
    processes = [machine.start("key", ahead=1000) for _ in range(2)]  # both need a new token
    processes += [machine.start("key", "--tool", "aider", ahead=1000)]
    outs = [process.communicate(timeout=60)[0] for process in processes]
    assert outs[0] == outs[1] != outs[2]
    for key in outs[1:]:
        json_of(litellm.complete(key.strip()))
    assert len(litellm.keys_of(f"{front.login}@example.com")) == 2
    assert front.issuer.requests.count("refresh_token") >= 1
    told("two processes of one tool got one key, and another tool its own")


def test_a_revoked_sign_in(machine: Machine, front: Front, litellm: LiteLLMRig, told: Told) -> None:
    machine.succeeds("login", "--url", machine.service.url)
    key = machine.succeeds("key")
    front.issuer.revoke_all()
    assert machine.succeeds("key") == key
    status, out, err = machine.run("key", ahead=HOURS)
    assert (status, out) == (1, "")
    assert err.endswith("Sign in again: litellm-plugin login\n")
    told(f"after the sign-in was revoked, key said: {err.strip()}")
