"""The frontend plugin's page, used as people use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from werkzeug.wrappers import Response

from litellm_plugin.sandbox.launch import Sandbox
from tests.browser.conftest import Surprises

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("demo")]

SignIn = Callable[[str, str], None]


@pytest.fixture
def sign_in(page: Page) -> SignIn:
    def sign_in(name: str, tab: str) -> None:
        page.goto(f"/demo/litellm?tab={tab}")
        page.get_by_role("button", name=f"{name} ").click()
        page.get_by_role("tab", name="Overview").wait_for()

    return sign_in


def says(page: Page, text: str) -> None:
    """Wait for a message in a dialog or in a snackbar, which a dialog hides from readers."""
    page.locator("[role=alert]").filter(has_text=text).first.wait_for()


def row(page: Page, text: str) -> Locator:
    return page.get_by_role("row").filter(has_text=text)


def choose(page: Page, field: Locator, text: str) -> None:
    field.fill(text)
    page.get_by_role("option", name=text).first.click()


def test_a_first_visit_makes_an_account(page: Page, sandbox: Sandbox, sign_in: SignIn) -> None:
    assert "carol@example.com" not in sandbox.litellm.store.users
    sign_in("carol", "overview")
    page.get_by_text("carol@example.com").first.wait_for()
    assert sandbox.litellm.store.users["carol@example.com"]["max_budget"] == 100


def test_a_key_is_made_shown_once_copied_limited_blocked_and_deleted(
    page: Page, sandbox: Sandbox, sign_in: SignIn
) -> None:
    sign_in("bob", "keys")
    page.get_by_role("button", name="Generate New Key").last.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Alias").fill("made-here")
    dialog.get_by_label("Max Budget (USD)").fill("5")
    dialog.get_by_role("button", name="Generate").click()
    says(page, "Key generated successfully")
    secret = dialog.locator("code").filter(has_text=re.compile("^sk-")).first
    key = secret.inner_text()
    secret.locator("xpath=../button").click()
    assert page.evaluate("navigator.clipboard.readText()") == key
    dialog.get_by_role("button", name="Done").click()
    row(page, "made-here").wait_for()
    assert key not in page.content()

    row(page, "made-here").get_by_title("Edit key").click()
    dialog.get_by_label("Max Budget (USD)").fill("3")
    dialog.get_by_role("button", name="Save").click()
    says(page, "Key updated successfully")
    row(page, "made-here").get_by_text("/ $3").wait_for()

    row(page, "made-here").get_by_title(re.compile("^Block key")).click()
    row(page, "made-here").get_by_text("Blocked").wait_for()

    row(page, "made-here").get_by_title("Revoke key").click()
    dialog.get_by_role("button", name="Revoke").click()
    says(page, "Key revoked successfully")
    row(page, "made-here").wait_for(state="hidden")
    aliases = {row["key_alias"] for row in sandbox.litellm.store.keys.values()}
    assert "made-here" not in aliases


def test_a_team_is_made_and_a_member_comes_and_goes(
    page: Page, sandbox: Sandbox, sign_in: SignIn
) -> None:
    sign_in("alice", "teams")
    page.get_by_role("button", name="Create Team").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Team Alias").fill("Robots")
    choose(page, dialog.get_by_label("Models"), "gpt-4o")
    dialog.get_by_label("Max Budget ($)").fill("50")
    dialog.get_by_role("button", name="Save").click()
    says(page, "Team saved")
    # The page reads the teams that alice manages once.
    page.reload()
    card = page.locator("[class*=MuiPaper-outlined]").filter(has_text="Robots").last
    card.get_by_role("button", name="Edit").click()
    choose(page, dialog.get_by_label("Add member"), "Carol")
    dialog.get_by_role("button", name="Add", exact=True).click()
    remove = dialog.get_by_label("remove carol@example.com")
    remove.wait_for()
    [team] = [t for t in sandbox.litellm.store.teams.values() if t["team_alias"] == "Robots"]
    assert "carol@example.com" in {m["user_id"] for m in team["members_with_roles"]}
    remove.click()
    remove.wait_for(state="hidden")
    assert "carol@example.com" not in {m["user_id"] for m in team["members_with_roles"]}


def test_knowledge_bases_and_mcp_servers_are_attached(
    page: Page, sandbox: Sandbox, sign_in: SignIn
) -> None:
    sign_in("alice", "teams")
    page.get_by_role("button", name="Edit").first.click()
    dialog = page.get_by_role("dialog")
    for field, option, button, message in (
        ("Attached knowledge bases", "Docs", "Save knowledge bases", "Knowledge bases updated"),
        ("Attached MCP servers", "tickets", "Save MCP servers", "MCP servers updated"),
    ):
        choose(page, dialog.get_by_label(field), option)
        dialog.get_by_role("button", name=button).click()
        says(page, message)
    objects = sandbox.litellm.store.objects["team-platform"]
    assert (objects["vector_stores"], objects["mcp_servers"]) == (["vs-docs"], ["mcp-tickets"])


def test_only_an_admin_has_the_audit_log(page: Page, sign_in: SignIn) -> None:
    sign_in("alice", "audit")
    row(page, "bob@example.com").wait_for()
    page.get_by_text("Change user").click()
    sign_in("bob", "overview")
    page.get_by_text("Usage Analytics").wait_for()
    assert page.get_by_role("tab", name="Audit Log").count() == 0


def test_a_refusal_is_read(page: Page, surprises: Surprises, sign_in: SignIn) -> None:
    surprises.refused.add("/api/litellm/teams")
    sign_in("bob", "teams")
    page.get_by_role("button", name="Create Team").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Team Alias").fill("Mine")
    choose(page, dialog.get_by_label("Models"), "gpt-4o")
    dialog.get_by_role("button", name="Save").click()
    says(page, "Access denied")


def test_litellm_may_be_away(
    page: Page,
    sandbox: Sandbox,
    surprises: Surprises,
    sign_in: SignIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sign_in("bob", "keys")
    row(page, "bob-laptop").wait_for()
    surprises.refused.add("/api/litellm/keys/generate")
    monkeypatch.setattr(sandbox.litellm.app, "wsgi_app", Response(status=503))
    page.get_by_role("button", name="Generate New Key").last.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Alias").fill("made-while-away")
    dialog.get_by_role("button", name="Generate").click()
    says(page, "Failed to generate key: ")
