"""The service in processes of its own, as one would deploy it: ``gunicorn app:app``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tests.deployed import end, free_port, gunicorn
from tests.faults.proxy import Exchange, Proxy
from tests.live.rigs import (
    BACKSTAGE_PORT,
    KEYCLOAK_PORT,
    MASTER_KEY,
    REPO,
    SHARED,
    USER_ID_DOMAIN,
    LiteLLMRig,
    answers,
)

STARTING = 60.0  # seconds
STOPPING = 10.0  # seconds

MOUNT = "/api/litellm"
JWKS_PATH = "/.backstage/auth/v1/jwks.json"

# What Backstage itself reads, as it is.
CONFIG = ("app-config.yaml", "app-config.flask.yaml")


class Service:
    """One deployment: two workers, Backstage's own configuration files and one more.

    Args:
        name: Of its folder.
        folder: Where its configuration and its logs are put.
        config: YAML, merged over Backstage's.
        plugin_url: The address that Backstage's discovery has for the plugin.
        env: Variables that differ from what Backstage has.
        without: Variables that are not set at all.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        config: str,
        *,
        plugin_url: str | None = None,
        env: Mapping[str, str] | None = None,
        without: Collection[str] = (),
    ) -> None:
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}{MOUNT}"
        self._folder = folder / name
        self._folder.mkdir()
        overlay = self._folder / "app-config.service.yaml"
        overlay.write_text(config)
        files = [*(SHARED / "backstage" / file for file in CONFIG), overlay]
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "LITELLM_PLUGIN_BIND": address,
            "LITELLM_PLUGIN_CONFIG": ",".join(map(str, files)),
            "GUNICORN_CMD_ARGS": f"--access-logfile {self._folder / 'access.log'}",
            # As env.sh and up of the rig set them for Backstage.
            "RIG_SHARE": str(SHARED / "backstage"),
            "BACKSTAGE_PORT": str(BACKSTAGE_PORT),
            "KEYCLOAK_BASE": f"http://127.0.0.1:{KEYCLOAK_PORT}",
            "LITELLM_BASE_URL": LiteLLMRig.url,
            "LITELLM_MASTER_KEY": MASTER_KEY,
            "LITELLM_USER_ID_DOMAIN": USER_ID_DOMAIN,
            "LITELLM_FLASK_URL": plugin_url or self.url,
            **(env or {}),
        }
        self._env = {name: value for name, value in variables.items() if name not in without}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environ(self) -> dict[str, str]:
        """The variables it runs with."""
        return dict(self._env)

    @property
    def log(self) -> str:
        """What the service and gunicorn have said."""
        return (self._folder / "log").read_text(errors="replace")

    @property
    def access_log(self) -> str:
        """One line for each request that was answered."""
        return (self._folder / "access.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._spawn()
        deadline = time.monotonic() + STARTING
        while not answers(self.url + JWKS_PATH):
            assert self._process is not None
            assert self._process.poll() is None, f"the service ended:\n{self.log}"
            assert time.monotonic() < deadline, f"the service does not answer:\n{self.log}"
            time.sleep(0.05)

    def fail(self) -> int:
        """Start it, and return the exit status it must end with by itself."""
        try:
            return self._spawn().wait(STARTING)
        finally:
            self.stop()

    def stop(self) -> None:
        """End it, its workers too."""
        process, self._process = self._process, None
        if process is None:
            return
        end(process, STOPPING)

    def command(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start ``litellm-plugin`` with the service's configuration, and with ``--json``."""
        return subprocess.Popen(
            [sys.executable, "-m", "litellm_plugin", *arguments, "--json"],
            cwd=REPO,
            env={**self._env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def succeeds(self, *arguments: str) -> dict[str, Any]:
        """Run ``litellm-plugin``, which must succeed, and return what it printed."""
        process = self.command(*arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        return dict(json.loads(out))

    def killed_at(self, step: int, proxy: Proxy, *arguments: str) -> int:
        """Run ``litellm-plugin``, kill it at a step, and return the exit status.

        Args:
            step: Each call to LiteLLM has two steps: before and after LiteLLM acts.
            proxy: A proxy in front of LiteLLM.
            arguments: Of ``litellm-plugin``.
        """
        left = step
        process: subprocess.Popen[str] | None = None

        def burn() -> None:
            nonlocal left
            left -= 1
            if left < 0 and process is not None and process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()

        def fault(exchange: Exchange) -> None:
            burn()
            if left < 0:
                return
            answer = exchange.forward()
            burn()
            exchange.send(answer)

        proxy.spoil(fault)
        process = self.command(*arguments, LITELLM_BASE_URL=proxy.url)
        process.communicate(timeout=120)
        return process.returncode

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._process = gunicorn(self._env, self._folder / "log")
        return self._process
