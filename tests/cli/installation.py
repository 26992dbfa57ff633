"""A set-up in which nothing is wrong, to be broken in one place."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from litellm_plugin.cli import main
from litellm_plugin.config import load_settings
from litellm_plugin.config.database import Database
from litellm_plugin.identity.signing import PluginKeys
from litellm_plugin.sandbox.litellm import LiteLLMStandIn
from tests.canaries import secrets_in
from tests.fakes import Asked, FakeBackstage, FakeKeycloak, Network, People, Reply
from tests.fakes.backstage import PEOPLE_FILE
from tests.fakes.litellm import BASE_URL, MASTER_KEY
from tests.fakes.network import Host
from tests.standin import TEAM, StandIn, furnished
from tests.tokens import TokenFactory

SERVICE = "http://litellm-plugin:5000"
JWKS = "/.backstage/auth/v1/jwks.json"
PAGE = Reply(text="<!doctype html><title>Sign in</title>", headers={"Content-Type": "text/html"})

CONFIG: dict[str, Any] = {
    "backend": {"baseUrl": "http://127.0.0.1:7007"},
    "permission": {"enabled": True},
    "discovery": {
        "endpoints": [{"target": f"{SERVICE}/api/litellm", "plugins": ["litellm"]}],
    },
    "litellm": {
        "baseUrl": BASE_URL,
        "masterKey": MASTER_KEY,
        "userIdDomain": "example.com",
        "provisioning": {
            "enabled": True,
            "defaults": {"teams": [TEAM]},
            "roles": [{"group": "group:default/ai-power-users", "models": ["gpt-4o-mini"]}],
        },
        "audit": {"group": "group:default/litellm-admins"},
        "teamAdmin": {
            "group": "group:default/litellm-team-admins",
            "allowedModels": ["gpt-4o-mini"],
            "allowedVectorStores": ["vs-docs"],
            "allowedMcpServers": ["docs"],
        },
        "bridge": {"enabled": True, "issuer": "http://127.0.0.1:7080/realms/rig"},
    },
}


class Broken:
    """A host that answers as another one does, but for what it is told.

    Attributes:
        replies: By path, what it answers instead, or what the connection fails with; ``*``
            stands for every other path.
        ahead: Seconds that its clock is ahead of this host's.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.replies: dict[str, Reply | Exception] = {}
        self.ahead = 0.0
        self.asked: list[Asked] = []

    @property
    def base_url(self) -> str:
        return self.host.base_url

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        reply = self.replies.get(asked.path, self.replies.get("*"))
        if isinstance(reply, Exception):
            raise reply
        reply = reply or self.host.answer(asked)
        date = formatdate(time.time() + self.ahead, usegmt=True)
        return replace(reply, headers={"Date": date, **reply.headers})


class Service:
    """The service, as far as others look at it: its key set."""

    base_url = f"{SERVICE}/api/litellm"

    def __init__(self) -> None:
        self.key_set: Any = {"keys": []}

    def answer(self, asked: Asked) -> Reply:
        return Reply(json=self.key_set) if asked.path == JWKS else Reply(404)


@dataclass
class Outcome:
    """What ``doctor --json`` told."""

    result: Result
    told: dict[str, Any]

    def __getitem__(self, check: str) -> dict[str, Any]:
        return next(dict(found) for found in self.told["checks"] if found["id"] == check)

    def with_status(self, status: str) -> set[str]:
        return {check["id"] for check in self.told["checks"] if check["status"] == status}


class Installation:
    """LiteLLM, Backstage, Keycloak and the service, each as it should be.

    Attributes:
        config: What the configuration file says.
        database: The database of the store.
        events: Audit events that :meth:`told` found on standard error.
    """

    def __init__(
        self, folder: Path, key_file: Path, tokens: TokenFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder = folder
        self.config = deepcopy(CONFIG)
        self.key_file = key_file
        jobs = {"perSecond": 100_000}
        self.config["litellm"]["service"] = {"keyFile": str(key_file), "jobs": jobs}
        self.database = Database(file=folder / "store.sqlite")
        block = {"client": "better-sqlite3", "connection": str(self.database.file)}
        self.config["backend"]["database"] = block
        self.fake = FakeBackstage(tokens, _people_apart())
        self.litellm = Broken(furnished())
        self.backstage = Broken(self.fake)
        self.keycloak = Broken(FakeKeycloak(tokens))
        self.service = Broken(Service())
        self.network = Network(self.litellm, self.service, self.backstage, self.keycloak)
        self.network.install(monkeypatch)
        self._environ = {"XDG_STATE_HOME": str(folder / "state")}
        self.publish(PluginKeys.load(load_settings([self.write()], {})).public_jwks())

    @property
    def settings(self) -> dict[str, Any]:
        """What is below ``litellm``."""
        return dict(self.config)["litellm"]  # type: ignore[no-any-return]

    @property
    def standin(self) -> LiteLLMStandIn:
        """The LiteLLM behind the stand-in's API."""
        assert isinstance(self.litellm.host, StandIn)
        return self.litellm.host.litellm

    def set(self, path: str, value: Any) -> None:
        """Put a value into the configuration; the path may have indices of lists."""
        *above, last = path.split(".")
        place: Any = self.config
        for part in above:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[last] = value

    def publish(self, key_set: Any) -> None:
        """Let the service have this key set, and Backstage find it there."""
        assert isinstance(self.service.host, Service)
        self.service.host.key_set = key_set
        self.fake.discovers("litellm", lambda: key_set)

    def write(self) -> Path:
        path = self.folder / "app-config.yaml"
        path.write_text(json.dumps(self.config))  # read much faster than YAML's own form
        return path

    def run(self, *arguments: str, stdin: str | None = None, environ: Any = None) -> Result:
        """Run the command; nothing it prints may hold a secret."""
        result = CliRunner().invoke(
            main,
            [*arguments, "--config", str(self.write())],
            input=stdin,
            env={**self._environ, **(environ or {})},
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        assert secrets_in(result.output + result.stderr) == []
        return result

    def told(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        """Run the command with ``--json``, and return what it prints."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == status, result.output
        lines = result.stderr.splitlines()
        self.events = [json.loads(line) for line in lines if line.startswith("{")]
        return dict(json.loads(result.stdout)) if result.stdout else {}

    def doctor(self, *arguments: str) -> Outcome:
        result = self.run("doctor", "--json", *arguments)
        return Outcome(result, json.loads(result.stdout))


def _people_apart() -> People:
    """Return the contract's people, each of them somebody else by name."""
    return People(
        entity
        for entity in _entities()
        if (entity["metadata"].get("namespace"), entity["metadata"]["name"])
        != ("contractors", "bob")
    )


@functools.cache
def _entities() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(PEOPLE_FILE.read_text("utf-8")))


Break = Callable[[Installation], None]
