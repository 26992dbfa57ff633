"""The frontend plugin's page, used as people use it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import requests
from werkzeug.wrappers import Response

from litellm_plugin.sandbox.launch import Sandbox
from litellm_plugin.sandbox.people import BOB
from tests.browser.conftest import API, Surprises

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("demo")]

AWAY = Response(status=503)


# -- what a person does and sees ----------------------------------------------


def sign_in(page: Page, name: str, tab: str) -> None:
    page.goto(f"/demo/litellm?tab={tab}")
    page.get_by_role("button", name=f"{name} ").click()
    page.get_by_role("tab", name="Overview").wait_for()


def change_user(page: Page, name: str, tab: str) -> None:
    page.get_by_text("Change user").click()
    page.get_by_text("Who are you?").wait_for()
    sign_in(page, name, tab)


def reads(page: Page, text: str) -> None:
    """Wait for a message in a dialog or in a snackbar, which a dialog hides from readers."""
    page.locator("[role=alert]").filter(has_text=text).first.wait_for()


def row(page: Page, text: str) -> Locator:
    return page.get_by_role("row").filter(has_text=text)


def card(page: Page, team: str) -> Locator:
    return page.locator("[class*=MuiPaper-outlined]").filter(has_text=team).last


def choose(page: Page, field: Locator, text: str) -> None:
    field.fill(text)
    page.get_by_role("option", name=text).first.click()


def generate_key(page: Page, alias: str, budget: str = "5") -> Locator:
    """Return the dialog, which shows the key."""
    page.get_by_role("button", name="Generate New Key").last.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Alias").fill(alias)
    dialog.get_by_label("Max Budget (USD)").fill(budget)
    dialog.get_by_role("button", name="Generate").click()
    return dialog


def limit_key(page: Page, alias: str, label: str, limit: str) -> None:
    row(page, alias).get_by_title("Edit key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Advanced").click()
    dialog.get_by_label(label).fill(limit)
    dialog.get_by_role("button", name="Save").click()


def block_key(page: Page, alias: str) -> None:
    row(page, alias).get_by_title(re.compile("^Block key")).click()


def delete_key(page: Page, alias: str) -> None:
    row(page, alias).get_by_title("Revoke key").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()


def create_team(page: Page, alias: str) -> None:
    page.get_by_role("button", name="Create Team").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Team Alias").fill(alias)
    choose(page, dialog.get_by_label("Models"), "gpt-4o")
    dialog.get_by_label("Max Budget ($)").fill("50")
    dialog.get_by_role("button", name="Save").click()


def only(rows: dict[str, dict[str, Any]], field: str, value: str) -> dict[str, Any]:
    [found] = [row for row in rows.values() if row[field] == value]
    return found


# -- keys ----------------------------------------------------------------------


def test_a_first_visit_makes_an_account(page: Page, sandbox: Sandbox) -> None:
    assert "carol@example.com" not in sandbox.litellm.store.users
    page.goto("/")
    page.get_by_role("link", name="The plugin's page in Backstage").click()
    page.get_by_role("button", name="carol ").click()
    page.get_by_role("link", name="LiteLLM").click()
    page.get_by_text("carol@example.com").first.wait_for()
    assert sandbox.litellm.store.users["carol@example.com"]["max_budget"] == 100


def test_a_key_is_shown_once_and_copied(page: Page) -> None:
    sign_in(page, "bob", "keys")
    dialog = generate_key(page, "made-here")
    reads(page, "Key generated successfully")
    secret = dialog.locator("code").filter(has_text=re.compile("^sk-")).first
    key = secret.inner_text()
    secret.locator("xpath=../button").click()
    assert page.evaluate("navigator.clipboard.readText()") == key
    dialog.get_by_role("button", name="Done").click()
    row(page, "made-here").get_by_text("/ $5").wait_for()
    assert key not in page.content()
    page.reload()
    row(page, "made-here").wait_for()
    assert key not in page.content()


def test_a_key_is_limited_blocked_unblocked_and_deleted(page: Page, sandbox: Sandbox) -> None:
    sign_in(page, "bob", "keys")
    key = only(sandbox.litellm.store.keys, "key_alias", "bob-ci")
    limit_key(page, "bob-ci", "Max Budget (USD)", "3")
    reads(page, "Key updated successfully")
    row(page, "bob-ci").get_by_text("/ $3").wait_for()
    limit_key(page, "bob-ci", "RPM Limit", "60")
    row(page, "bob-ci").get_by_text("60").wait_for()
    assert (key["max_budget"], key["rpm_limit"]) == (3, 60)

    block_key(page, "bob-ci")
    reads(page, "Key blocked")
    row(page, "bob-ci").get_by_text("Blocked").wait_for()
    row(page, "bob-ci").get_by_title("Unblock key").click()
    reads(page, "Key unblocked")
    row(page, "bob-ci").get_by_text("Blocked").wait_for(state="hidden")

    delete_key(page, "bob-ci")
    reads(page, "Key revoked successfully")
    row(page, "bob-ci").wait_for(state="hidden")
    assert "bob-ci" not in {one["key_alias"] for one in sandbox.litellm.store.keys.values()}


# -- teams ---------------------------------------------------------------------


def test_a_team_is_made_and_a_member_comes_and_goes(page: Page, sandbox: Sandbox) -> None:
    sign_in(page, "alice", "teams")
    create_team(page, "Robots")
    reads(page, "Team saved")
    # The page reads the teams that alice manages once.
    page.reload()
    card(page, "Robots").get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog")
    choose(page, dialog.get_by_label("Add member"), "Carol")
    dialog.get_by_role("button", name="Add", exact=True).click()
    remove = dialog.get_by_label("remove carol@example.com")
    remove.wait_for()
    team = only(sandbox.litellm.store.teams, "team_alias", "Robots")
    assert "carol@example.com" in {member["user_id"] for member in team["members_with_roles"]}
    remove.click()
    remove.wait_for(state="hidden")
    assert "carol@example.com" not in {member["user_id"] for member in team["members_with_roles"]}


def test_knowledge_bases_and_mcp_servers_are_attached(page: Page, sandbox: Sandbox) -> None:
    sign_in(page, "alice", "teams")
    page.get_by_role("button", name="Edit").first.click()
    dialog = page.get_by_role("dialog")
    for field, option, button, message in (
        ("Attached knowledge bases", "Docs", "Save knowledge bases", "Knowledge bases updated"),
        ("Attached MCP servers", "tickets", "Save MCP servers", "MCP servers updated"),
    ):
        choose(page, dialog.get_by_label(field), option)
        dialog.get_by_role("button", name=button).click()
        reads(page, message)
    objects = sandbox.litellm.store.objects["team-platform"]
    assert (objects["vector_stores"], objects["mcp_servers"]) == (["vs-docs"], ["mcp-tickets"])


@pytest.mark.parametrize(
    "sandbox", [{"litellm": {"display": {"hideTeamBudgetForMembers": True}}}], indirect=True
)
def test_budgets_are_hidden_from_members(page: Page) -> None:
    with page.expect_response(f"**{API}/teams") as answer:
        sign_in(page, "bob", "teams")
    platform = card(page, "team-platform")
    platform.get_by_text("% used").wait_for()
    assert "$" not in platform.inner_text()
    for team in answer.value.json():
        assert ("max_budget" in team, team["spend"]) == (False, 0)


# -- the audit log -------------------------------------------------------------


def test_only_an_admin_has_the_audit_log(page: Page, sandbox: Sandbox) -> None:
    key = only(sandbox.litellm.store.keys, "key_alias", "bob-laptop")
    sign_in(page, "bob", "keys")
    block_key(page, "bob-laptop")
    reads(page, "Key blocked")
    assert page.get_by_role("tab", name="Audit Log").count() == 0

    change_user(page, "alice", "audit")
    for field, option in (("Action", "Blocked"), ("Table", "Key")):
        page.get_by_label(field).click()
        page.get_by_role("option", name=option, exact=True).click()
    row(page, "created").first.wait_for(state="hidden")
    # LiteLLM's own log knows the master key only; ours names bob.
    row(page, "user:default/bob").get_by_text("blocked").wait_for()
    by = page.get_by_label("Changed by")
    by.fill("user:default/bob")
    row(page, "default_user_id").first.wait_for(state="hidden")
    row(page, "user:default/bob").filter(has_text=key["token"][:20]).wait_for()
    page.get_by_text("1\N{EN DASH}1 of 1").wait_for()
    by.fill("user:default/nobody")
    row(page, "user:default/bob").wait_for(state="hidden")


def test_the_audit_log_has_pages(page: Page, sandbox: Sandbox) -> None:
    key = only(sandbox.litellm.store.keys, "key_alias", "bob-laptop")
    as_bob = {"Authorization": f"Bearer {sandbox.tokens[BOB]}"}
    for _ in range(13):
        for change in ("block", "unblock"):
            url = f"{sandbox.url}/keys/{key['token']}/{change}"
            assert requests.post(url, headers=as_bob, timeout=30).status_code == 200
    sign_in(page, "alice", "audit")
    page.get_by_label("Changed by").fill("user:default/bob")
    page.get_by_text("26 events").wait_for()
    page.get_by_text("1\N{EN DASH}25 of 26").wait_for()
    page.get_by_label("Next page").click()
    page.get_by_text("26\N{EN DASH}26 of 26").wait_for()
    row(page, "user:default/bob").get_by_text("blocked").wait_for()
    assert row(page, "user:default/bob").count() == 1


# -- refusals, and upstreams that are away -------------------------------------


def test_a_refusal_is_read(page: Page, surprises: Surprises) -> None:
    surprises.refused[f"{API}/teams"] = 403
    sign_in(page, "bob", "teams")
    create_team(page, "Mine")
    reads(page, "Access denied: not a member of group:default/platform-admins")


@pytest.mark.parametrize("sandbox", [{"litellm": {"keyPolicy": {"maxBudget": 10}}}], indirect=True)
def test_a_ceiling_of_the_key_policy_is_read(page: Page, surprises: Surprises) -> None:
    surprises.refused[f"{API}/keys/generate"] = 400
    sign_in(page, "bob", "keys")
    generate_key(page, "too-much", budget="11")
    reads(page, "max_budget must be at most 10 USD for everybody")


def test_a_change_while_backstage_is_away_can_be_repeated(
    page: Page, sandbox: Sandbox, surprises: Surprises, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = only(sandbox.litellm.store.keys, "key_alias", "bob-ci")
    surprises.refused[f"{API}/keys/{key['token']}/block"] = 503
    sign_in(page, "bob", "keys")
    row(page, "bob-ci").wait_for()
    with monkeypatch.context() as patch:
        patch.setattr(sandbox.backstage.app, "wsgi_app", AWAY)
        block_key(page, "bob-ci")
        reads(page, "Failed to block key: Backstage failed (503); try again in a minute")
    assert not key.get("blocked")
    block_key(page, "bob-ci")
    reads(page, "Key blocked")


def test_a_restarted_backstage_wants_the_page_reloaded(
    page: Page, sandbox: Sandbox, surprises: Surprises
) -> None:
    key = only(sandbox.litellm.store.keys, "key_alias", "bob-ci")
    surprises.refused[f"{API}/keys/{key['token']}/block"] = 503
    sign_in(page, "bob", "keys")
    row(page, "bob-ci").wait_for()
    bob = sandbox.backstage.entities.pop(BOB.entity_ref)
    block_key(page, "bob-ci")
    reads(page, "Backstage does not know this sign-in any more; reload the page")
    sandbox.backstage.entities[BOB.entity_ref] = bob
    page.reload()
    block_key(page, "bob-ci")
    reads(page, "Key blocked")


def test_a_change_while_litellm_is_away_can_be_repeated(
    page: Page, sandbox: Sandbox, surprises: Surprises, monkeypatch: pytest.MonkeyPatch
) -> None:
    surprises.refused[f"{API}/keys/generate"] = 503
    sign_in(page, "bob", "keys")
    row(page, "bob-laptop").wait_for()
    with monkeypatch.context() as patch:
        patch.setattr(sandbox.litellm.app, "wsgi_app", AWAY)
        dialog = generate_key(page, "made-later")
        reads(page, "Failed to generate key: LiteLLM API error: 503")
    dialog.get_by_role("button", name="Generate").click()
    reads(page, "Key generated successfully")


def test_a_visit_while_litellm_is_away_succeeds_later(
    page: Page, sandbox: Sandbox, surprises: Surprises, monkeypatch: pytest.MonkeyPatch
) -> None:
    surprises.refused |= {f"{API}/{name}": 500 for name in ("user/info", "teams", "keys", "models")}
    surprises.refused[f"{API}/usage"] = 503
    with monkeypatch.context() as patch:
        patch.setattr(sandbox.litellm.app, "wsgi_app", AWAY)
        page.goto("/demo/litellm?tab=keys")
        page.get_by_role("button", name="bob ").click()
        page.get_by_text("Account not provisioned").wait_for()
    page.reload()
    row(page, "bob-laptop").wait_for()
