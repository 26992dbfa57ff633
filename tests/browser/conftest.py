"""Chromium, and the sandbox with the demo; a page that any surprise fails.

Without Chromium or the driver these tests are skipped, and those of the demo without Node.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from litellm_plugin.sandbox.launch import Sandbox, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request, Response

REPOSITORY = Path(__file__).parents[2]
PICTURES = Path(__file__).with_name("failed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
NOWHERE = {"LITELLM_BASE_URL": "http://127.0.0.1:0", "BACKSTAGE_URL": "http://127.0.0.1:0"}

API = "/api/litellm"
# The plugin asks for these whoever the user is, and shows nothing where they are refused.
OF_TEAM_ADMINS = {
    f"{API}/{name}": 403 for name in ("teams/managed", "vector-stores", "mcp-servers")
}

passed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[passed] = report.passed
    return report


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with driver.sync_playwright() as playwright:
        # Its own sandbox does not work for root, nor in most containers.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def demo() -> Path:
    node = shutil.which("npm") and shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v").partition(".")[0]) < 20:
        pytest.skip(f"Node 20 or later is not installed; this is {version}")
    subprocess.run(["make", "demo/dist/index.html"], cwd=REPOSITORY, check=True)
    return REPOSITORY / "demo" / "dist"


@pytest.fixture
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sandbox]:
    """The sandbox; its parameter, if there is one, is a configuration on top."""
    demo = request.getfixturevalue("demo") if "demo" in request.fixturenames else None
    on_top = tmp_path / "on-top.yaml"
    on_top.write_text(json.dumps(getattr(request, "param", {})))
    with running([REPOSITORY / "app-config.yaml", on_top], NOWHERE, port=0, demo=demo) as sandbox:
        yield sandbox


class Surprises(list[str]):
    """What the page did that no page should do.

    Attributes:
        refused: Paths whose requests may be refused, and the status; 0 for no answer at all.
    """

    def __init__(self, page: Page, origin: str) -> None:
        self._origin = origin
        self.refused = dict(OF_TEAM_ADMINS)
        page.on("pageerror", lambda error: self.append(f"uncaught: {error}"))
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("request", lambda request: self._request(request.url))
        page.on("response", self._response)
        page.on("requestfailed", self._failed)

    def _console(self, kind: str, text: str) -> None:
        # The browser's own line for a request that _response or _failed judges.
        if kind == "error" and not text.startswith("Failed to load resource"):
            self.append(f"console: {text}")

    def _request(self, url: str) -> None:
        if not url.startswith((f"{self._origin}/", "data:", "blob:")):
            self.append(f"asked another origin: {url}")

    def _response(self, response: Response) -> None:
        expected = self.refused.get(urlsplit(response.url).path)
        if response.status >= 400 and response.status != expected:
            self.append(f"{response.status} {response.request.method} {response.url}")

    def _failed(self, request: Request) -> None:
        # A page that is left ends its requests.
        if request.failure != "net::ERR_ABORTED" and urlsplit(request.url).path not in self.refused:
            self.append(f"{request.failure} {request.method} {request.url}")


@pytest.fixture
def page(chromium: Browser, sandbox: Sandbox, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A window of its own, which leaves a picture behind if the test fails."""
    origin = sandbox.page.rstrip("/")
    context = chromium.new_context(
        base_url=origin, locale="en-US", viewport={"width": 1280, "height": 900}
    )
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=origin)
    page = context.new_page()
    page.set_default_timeout(30_000)  # milliseconds; the machine may be busy
    yield page
    if not request.node.stash.get(passed, False):
        PICTURES.mkdir(exist_ok=True)
        page.screenshot(path=PICTURES / f"{request.node.name}.png", full_page=True)
    context.close()


@pytest.fixture(autouse=True)
def surprises(page: Page, sandbox: Sandbox, request: pytest.FixtureRequest) -> Iterator[Surprises]:
    """Fail the test if the page makes an error, or asks anything of another origin."""
    surprises = Surprises(page, sandbox.page.rstrip("/"))
    yield surprises
    if surprises:
        request.node.stash[passed] = False
    assert surprises == []
