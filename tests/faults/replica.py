"""A gunicorn with two workers, beside the sandbox's LiteLLM and Backstage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import requests

import litellm_plugin.sandbox
from litellm_plugin.sandbox import people
from litellm_plugin.sandbox.launch import Sandbox
from tests.deployed import free_port, gunicorn

CONFIG = Path(litellm_plugin.sandbox.__file__).with_name("app-config.yaml")
NOWHERE = {"LITELLM_BASE_URL": "http://127.0.0.1:0", "BACKSTAGE_URL": "http://127.0.0.1:0"}
SERVICE_TOKEN = "static-token-for-the-catalog"

# After so many answers in a row, each of two workers has given one: that one of them has given all
# happens once in thirty thousand times.
BY_EACH_WORKER = 16
PATIENCE = 60.0  # seconds, at most; a busy machine takes a while to start two of them


class Replica:
    """One gunicorn with two workers, and a home of its own; it ends with the context.

    Args:
        folder: Its home.
        sandbox: Where LiteLLM and Backstage are.
        config: Put over the sandbox's.
    """

    def __init__(self, folder: Path, sandbox: Sandbox, config: dict[str, Any]) -> None:
        folder.mkdir()
        self._folder = folder
        self._tokens = sandbox.tokens
        address = f"127.0.0.1:{free_port()}"
        self._url = f"http://{address}/api/litellm"
        file = folder / "app-config.yaml"
        file.write_text(json.dumps(config))
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "WEB_CONCURRENCY": "2",
            "LITELLM_PLUGIN_BIND": address,
            "LITELLM_PLUGIN_CONFIG": f"{CONFIG},{file}",
            "LITELLM_BASE_URL": sandbox.settings.base_url,
            "BACKSTAGE_URL": sandbox.settings.discovery.backstage_url,
        }
        self._process = gunicorn(environ, folder / "log", new_session=True)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def wait(self) -> None:
        """Wait until it answers."""
        until = time.monotonic() + PATIENCE
        while True:
            assert self._process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            try:
                self.ask(people.BOB, "GET", "/health")
            except requests.ConnectionError:
                time.sleep(0.02)
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def send(self, who: people.Person, method: str, path: str, body: Any) -> requests.Response:
        """Send a request over a connection of its own: to any of its workers."""
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method,
                self._url + path,
                json=body,
                headers={"Authorization": f"Bearer {self._tokens[who]}"},
                timeout=PATIENCE,
            )

    def ask(self, who: people.Person, method: str, path: str, body: Any = None) -> Any:
        """Return what it answers."""
        answer = self.send(who, method, path, body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def aliases(self) -> set[str]:
        """Return the names of Bob's keys."""
        return {key["key_alias"] for key in self.ask(people.BOB, "GET", "/keys")}

    def make(self, alias: str) -> Any:
        """Make a key for Bob."""
        key = {"alias": alias, "models": ["gpt-4o-mini"], "duration": "7d", "max_budget": 5}
        return self.ask(people.BOB, "POST", "/keys/generate", key)
