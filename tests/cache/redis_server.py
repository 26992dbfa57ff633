"""A real Redis on a port of its own, which goes away and comes back."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from redis import Redis

from tests.deployed import free_port

PROGRAM = shutil.which("redis-server")

needs_redis = pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed")

STOPPING = 10.0  # seconds


class RedisServer:
    """One server with a port and a folder; it keeps on disk what it is told to :meth:`save`.

    Args:
        folder: Its own.
        password: What it asks of its clients.

    Attributes:
        url: Where it is, password included.
    """

    def __init__(self, folder: Path, password: str | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._password = password
        self._port = free_port()
        self.url = f"redis://:{password or ''}@127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[str] | None = None
        # For the tests themselves: patient, and told what they look at.
        self.redis: Redis = Redis(port=self._port, password=password)

    def start(self) -> None:
        """Start it with what was saved last, and wait until it answers."""
        assert PROGRAM is not None
        options = {
            "port": self._port,
            "bind": "127.0.0.1",
            "dir": self._folder,
            "save": "",
            "appendonly": "no",
            **({"requirepass": self._password} if self._password else {}),
        }
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            [PROGRAM, *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ready to accept connections" in line:
                return
        pytest.fail(f"redis-server ended:\n{''.join(said)}")

    def save(self) -> None:
        """Let the next start begin with what there is now."""
        self.redis.save()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self.redis.close()
        if self._process is not None:
            self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it accept connections and say nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def names(self, part: str = "") -> list[bytes]:
        """Return the names in it that have ``part`` in them."""
        return [name for name in self.redis.scan_iter() if part.encode() in name]

    def everything(self) -> bytes:
        """Return all names and values."""
        values = [self.redis.get(name) for name in self.names()]
        return b"\n".join([*self.names(), *(each for each in values if isinstance(each, bytes))])

    def forget(self, part: str) -> None:
        """Lose what has ``part`` in its name."""
        for name in self.names(part):
            self.redis.delete(name)

    def _end(self, signum: signal.Signals) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(signum)
        process.wait(STOPPING)
        assert process.stdout is not None
        process.stdout.close()
