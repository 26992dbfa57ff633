"""The sandbox's own page, which works without Node."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from litellm_plugin.sandbox import people
from litellm_plugin.sandbox.launch import Sandbox
from litellm_plugin.sandbox.page import examples
from tests.browser.conftest import API, Surprises

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def test_a_visitor_reads_who_there_is_and_what_to_start(page: Page) -> None:
    page.goto("/")
    for person in people.PEOPLE:
        row = page.get_by_role("row").filter(has_text=person.display_name)
        row.get_by_text(person.about).wait_for()
    page.get_by_text("Run make demo to see the plugin's page").wait_for()
    assert page.get_by_role("link", name="The plugin's page").count() == 0
    page.get_by_role("link", name="Quick start").click()
    page.get_by_text("make sandbox").first.wait_for()


def test_each_request_is_sent_and_its_answer_shown(
    page: Page, sandbox: Sandbox, surprises: Surprises
) -> None:
    surprises.refused[f"{API}/audit"] = 403
    page.goto("/")
    for example in examples(sandbox.today):
        page.get_by_role("button", name=example.what, exact=True).click()
        status = 403 if "403" in example.what else 200
        line = (
            f"{'POST' if example.body else 'GET'} {example.path} as {example.person.name}: {status}"
        )
        page.locator("#answer strong").filter(has_text=line).wait_for()
        answer = json.loads(page.locator("#answer pre").inner_text())
        assert ("error" in answer) == (status == 403)


def test_a_request_of_ones_own_is_sent(page: Page) -> None:
    page.goto("/")
    form = page.locator("#request")
    form.get_by_label("User").select_option("alice")
    form.get_by_label("Method").select_option("PATCH")
    form.get_by_label("Path").fill("/teams/team-platform")
    form.get_by_label("JSON body").fill('{"max_budget": 60}')
    form.get_by_role("button", name="Send").click()
    page.locator("#answer strong").filter(
        has_text="PATCH /teams/team-platform as alice: 200"
    ).wait_for()
    assert json.loads(page.locator("#answer pre").inner_text())["max_budget"] == 60


def test_a_sandbox_that_has_ended_is_told(page: Page, surprises: Surprises) -> None:
    surprises.refused[f"{API}/keys"] = 0
    page.goto("/")
    page.get_by_role(
        "img", name=re.compile("in 30 days")
    ).wait_for()  # the last request of the page
    page.context.set_offline(True)
    page.get_by_role("button", name="bob's keys", exact=True).click()
    page.locator("#answer").filter(has_text="Does the sandbox still run?").wait_for()


def test_the_chart_has_a_bar_for_each_day(page: Page) -> None:
    page.goto("/")
    chart = page.get_by_role("img", name=re.compile(r"^\$\d+\.\d\d in 30 days"))
    chart.wait_for()
    days = {title[:10] for title in chart.locator("rect title").all_text_contents()}
    assert len(days) == people.USAGE_DAYS
    page.locator("#usage-of").select_option("carol")
    page.get_by_text("No usage in 30 days.").wait_for()


@pytest.mark.parametrize("path", ["/", "/sandbox/reference.html"])
def test_no_page_is_wider_than_a_phone(page: Page, path: str) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(path)
    page.locator("li, summary").first.wait_for()
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_the_reference_describes_each_route(page: Page, sandbox: Sandbox) -> None:
    page.goto("/")
    page.get_by_role("link", name="API reference").click()
    page.get_by_text("POST /keys/generate").click()
    shown = page.locator("details", has_text="POST /keys/generate")
    shown.get_by_text("budget_duration").first.wait_for()
    paths = page.locator("summary code").all_inner_texts()
    assert len(set(paths)) == len(paths) > 30
