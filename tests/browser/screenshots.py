"""Writes the pictures of the documentation, from the sandbox and the demo: ``make screenshots``."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from litellm_plugin.sandbox.launch import running
from tests.browser.conftest import CHROMIUM, NOWHERE, REPOSITORY

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = REPOSITORY / "docs" / "images"
TABS = (
    ("bob", "overview", "Daily Spend by Model"),
    ("bob", "keys", "bob-laptop"),
    ("alice", "teams", "Platform"),
    ("alice", "audit", "bob@example.com"),
)


def main() -> None:
    """Write a picture of the sandbox's page, and of four tabs of the plugin's."""
    FOLDER.mkdir(exist_ok=True)
    demo = REPOSITORY / "demo" / "dist"
    with (
        running([REPOSITORY / "app-config.yaml"], NOWHERE, port=0, demo=demo) as sandbox,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        # Dates and times in the pictures are those of UTC.
        context = browser.new_context(
            base_url=sandbox.page,
            locale="en-US",
            timezone_id="UTC",
            reduced_motion="reduce",
            viewport={"width": 1440, "height": 900},
        )
        page = context.new_page()
        page.goto("/")
        page.get_by_role("button", name="bob may not read it").click()
        page.locator("#answer").wait_for()
        page.set_viewport_size({"width": 1000, "height": 1370})
        _save(page, "sandbox")
        for person, tab, text in TABS:
            page = context.new_page()
            page.goto(f"/demo/litellm?tab={tab}")
            page.get_by_role("button", name=f"{person} ").click()
            page.mouse.move(1430, 890)
            page.get_by_text(text).first.wait_for()
            page.wait_for_load_state("networkidle")
            _save(page, tab)
        browser.close()


def _save(page: Page, name: str) -> None:
    # WebP is a third of the size of PNG; Playwright's own screenshots can't be WebP.
    chromium = page.context.new_cdp_session(page)
    picture, before = "", "none yet"
    while picture != before:  # the charts grow into their place
        before = picture
        shot = chromium.send("Page.captureScreenshot", {"format": "webp", "quality": 75})
        picture = shot["data"]
    (FOLDER / f"{name}.webp").write_bytes(b64decode(picture))


if __name__ == "__main__":
    main()
