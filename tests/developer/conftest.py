from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import keyring
import pytest
import requests
from click.testing import CliRunner, Result
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

from litellm_plugin.cli import main
from tests.fakes import Asked, Network, Reply
from tests.fakes.issuer import CLIENT, FakeIssuer

SERVICE = "https://backstage.example.com/api/litellm"
ISSUER = "https://sso.example.com/realms/main"
LITELLM = "https://litellm.example.com"
HOUR = 3600


class Clock:
    """The time of this host, and how far the servers' clocks are ahead of it."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0
        self.ahead = 0.0

    def __call__(self) -> float:
        return self.now

    def there(self) -> float:
        return self.now + self.ahead


class FakeBridge:
    """The service, as far as the commands ask it.

    Attributes:
        bodies: Of the requests for keys.
        replies: What it answers to the next requests about keys, instead.
        deleted: Paths of the keys that were deleted.
    """

    base_url = SERVICE

    def __init__(self, issuer: FakeIssuer, clock: Clock) -> None:
        self._issuer = issuer
        self._clock = clock
        self._numbers = itertools.count(1)
        self.health: dict[str, Any] = {
            "status": "ok",
            "bridge": True,
            "clientId": CLIENT,
            "issuer": ISSUER,
            "baseUrl": LITELLM,
            "keys": {"defaultTtl": "8h", "maxTtl": "24h"},
        }
        self.bodies: list[dict[str, Any]] = []
        self.replies: list[Reply | Exception] = []
        self.deleted: list[str] = []

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/bridge/health":
            return Reply(json=self.health)
        if not self._issuer.accepts(asked.bearer):
            return Reply(401, {"error": "unauthorized", "hint": "the token has expired"})
        if self.replies:
            reply = self.replies.pop(0)
            if isinstance(reply, Exception):
                raise reply
            return reply
        if asked.method == "DELETE":
            self.deleted.append(asked.path)
            return Reply(json={"success": True})
        assert (asked.method, asked.path) == ("POST", "/bridge/keys")
        self.bodies.append(asked.json)
        hours = int(asked.json.get("duration", "8h").removesuffix("h"))
        now = self._clock.there()
        end = datetime.fromtimestamp(now + hours * HOUR, UTC)
        number = f"{next(self._numbers):08d}"
        return Reply(
            json={
                "key": f"sk-made-{number}",
                "token": number * 8,
                "expires": end.isoformat(),
            },
            headers={"Date": formatdate(now, usegmt=True)},
        )


class MemoryKeyring(KeyringBackend):
    """The system's keyring."""

    priority = 1

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}
        self.failure: Exception | None = None

    def get_password(self, service: str, username: str) -> str | None:
        if self.failure:
            raise self.failure
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.failure:
            raise self.failure
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.entries:
            raise PasswordDeleteError
        del self.entries[service, username]


@pytest.fixture
def system_keyring() -> Iterator[MemoryKeyring]:
    before, backend = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.time", clock)
    return clock


@pytest.fixture
def issuer(clock: Clock) -> FakeIssuer:
    numbers = itertools.count()
    return FakeIssuer(ISSUER, lambda user: f"access-{next(numbers)}-of-{user}", clock.there)


@pytest.fixture
def bridge(issuer: FakeIssuer, clock: Clock) -> FakeBridge:
    return FakeBridge(issuer, clock)


class Machine:
    """A developer's machine.

    Attributes:
        folder: The home folder.
        pages: The pages that a browser was opened for.
        browse: What the browser does with a page.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages: list[str] = []
        self.browse: Callable[[str], None] = follow

    def run(self, *arguments: str) -> Result:
        result = CliRunner().invoke(main, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        return result

    def login(self, *arguments: str) -> Result:
        result = self.run("login", "--url", SERVICE, *arguments)
        assert result.exit_code == 0, result.output
        return result

    def key(self, *arguments: str) -> str:
        result = self.run("key", *arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout.endswith("\n")
        return result.stdout.removesuffix("\n")

    def refused(self, *arguments: str) -> str:
        """Run a command that must fail, with nothing on standard output; return its message."""
        result = self.run(*arguments)
        assert result.exit_code == 1
        assert result.stdout == ""
        return result.stderr

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def open(self, url: str) -> bool:
        self.pages.append(url)
        self.browse(url)
        return True


def follow(url: str) -> None:
    """Ask the issuer, and follow its redirect to the loopback."""
    visit(requests.get(url, allow_redirects=False, timeout=10).headers["Location"])


def visit(url: str) -> int:
    """Send a real request, past the tests' network; return the status."""
    with suppress(HTTPError), urlopen(url, timeout=10) as answer:
        return int(answer.status)
    return 404


@pytest.fixture
def machine(
    tmp_path: Path,
    issuer: FakeIssuer,
    bridge: FakeBridge,
    system_keyring: MemoryKeyring,
    monkeypatch: pytest.MonkeyPatch,
) -> Machine:
    machine = Machine(tmp_path)
    Network(issuer, bridge).install(monkeypatch)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("webbrowser.open", machine.open)
    monkeypatch.setattr("socket.gethostname", lambda: "Alice's Laptop.example.com")
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    return machine
