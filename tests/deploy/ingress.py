"""``deploy/nginx``, run by a real nginx."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from tests.deployed import free_port

CONFIGURATIONS = Path(__file__).parents[2] / "deploy" / "nginx"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Ingress:
    """An nginx of our own, with a configuration of the repository but for its addresses.

    Args:
        folder: Where its files are put.
        name: Of the configuration.
        addresses: By ``host:port`` of an ``upstream`` there, the port of the loopback to be asked
            instead; each is named once.
    """

    def __init__(self, folder: Path, name: str, addresses: dict[str, int]) -> None:
        self.port = free_port()
        text = (CONFIGURATIONS / name).read_text(encoding="utf-8")
        changes = {"listen 80;": f"listen 127.0.0.1:{self.port};"}
        changes |= {f"server {a};": f"server 127.0.0.1:{b};" for a, b in addresses.items()}
        for there, here in changes.items():
            assert text.count(there) == 1
            text = text.replace(there, here)
        paths = "".join(
            f"{kind}_temp_path {folder}/{kind}; "
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        file = folder / "nginx.conf"
        file.write_text(
            f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;\n"
            f"events {{}}\nhttp {{ access_log off; {paths}\n{text}}}\n"
        )
        command = [str(NGINX), "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log"]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr
        self._process = subprocess.Popen(command)
        while self._process.poll() is None:
            try:
                self.ask("/up")
                break
            except OSError:
                continue
        assert self._process.poll() is None

    @property
    def url(self) -> str:
        """Where browsers would find it."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", path, headers=sent)
            answer = connection.getresponse()
            return answer, answer.read()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
