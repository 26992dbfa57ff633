"""``notify``: who gets which notice, over HTTP, and that nobody gets one twice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.jobs import Run
from litellm_plugin.sandbox.litellm import LiteLLMStandIn
from litellm_plugin.store import notices
from litellm_plugin.store.database import Store, StoreUnavailable
from tests.cli.installation import Installation
from tests.fakes import Asked, Reply, connection_refused
from tests.standin import KEY, TEAM

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DOCS = Path(__file__).parents[2] / "docs" / "notifications.md"
ALICE, CAROL = "user:default/alice", "user:default/carol"


class Hook:
    """A webhook's receiver, which checks signatures by the code of the documentation."""

    base_url = "https://hooks.example.com/services/T0123/secret-of-the-hook"

    def __init__(self) -> None:
        (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
        defined: dict[str, Any] = {}
        exec(code, defined)
        self._verified: Callable[..., bool] = defined["verified"]
        self.status: int | Exception = 200
        self.events: list[tuple[str, dict[str, Any]]] = []

    def answer(self, asked: Asked) -> Reply:
        assert asked.method == "POST"
        assert asked.headers["Content-Type"] == "application/json"
        assert self._verified(asked.headers, asked.body, SECRET)
        assert not self._verified(asked.headers, asked.body + b" ", SECRET)
        if isinstance(self.status, Exception):
            raise self.status
        self.events.append((asked.headers["webhook-id"], asked.json))
        return Reply(self.status, headers={"Location": "https://elsewhere.example.com/"})


@pytest.fixture
def litellm(installation: Installation) -> LiteLLMStandIn:
    """LiteLLM, where nobody has spent anything yet."""
    litellm = installation.standin
    litellm.user_new({"user_id": "carol@example.com", "max_budget": 10, "auto_create_key": False})
    return litellm


@pytest.fixture
def hook(installation: Installation) -> Hook:
    hook = Hook()
    installation.network.hosts.append(hook)
    installation.settings["notifications"]["webhook"] = {"url": hook.base_url, "secret": SECRET}
    return hook


@pytest.fixture(autouse=True)
def _enabled(installation: Installation) -> None:
    installation.settings["notifications"] = {"enabled": True}


@pytest.fixture
def notify(installation: Installation) -> Callable[..., dict[str, Any]]:
    """Runs the command, and returns what it told."""

    return partial(installation.told, "notify")


Notify = Callable[..., dict[str, Any]]


def spend(litellm: LiteLLMStandIn, user_id: str, dollars: float, **fields: Any) -> None:
    litellm.store.users[user_id].update(spend=dollars, **fields)


def end_of(litellm: LiteLLMStandIn, **after: float) -> None:
    made = datetime.now(UTC) - timedelta(days=90)
    key = litellm.store.keys[KEY]
    key.update(
        expires=(datetime.now(UTC) + timedelta(**after)).isoformat(), created_at=made.isoformat()
    )


def shown(installation: Installation) -> dict[str, list[str]]:
    """Return the titles of the notifications that each person has."""
    found: dict[str, list[str]] = {}
    for (person, _scope), payload in installation.fake.notices.items():
        found.setdefault(person, []).append(payload["title"])
    return found


def test_the_owner_of_a_user_a_key_and_a_team_is_warned(
    installation: Installation, litellm: LiteLLMStandIn, notify: Notify
) -> None:
    spend(litellm, "carol@example.com", 8)
    end_of(litellm, days=5)
    litellm.store.teams[TEAM]["spend"] = 60.0
    assert notify()["counts"] == {"due": 3, "sent": 0, "failed": 0, "no_recipient": 0}
    assert shown(installation) == {}  # it was only listed

    told = notify("--apply")

    assert told["counts"] == {"due": 0, "sent": 3, "failed": 0, "no_recipient": 0}
    assert [(each["to"], each["threshold"]) for each in told["notices"]] == [
        (CAROL, "budget-80"),
        (ALICE, "budget-100"),
        (ALICE, "expiry-7d"),
    ]
    titles = shown(installation)
    assert titles[CAROL] == ["LiteLLM: 80 % of the budget of carol@example.com is spent"]
    assert titles[ALICE][0] == "LiteLLM: the budget of team Platform is spent"
    assert titles[ALICE][1].startswith("LiteLLM: key alice-laptop ends on ")
    # By pages, and nothing is written to LiteLLM.
    assert {each.method for each in installation.litellm.asked} == {"GET"}
    assert [each.path for each in installation.litellm.asked][:3] == [
        "/user/list",
        "/v2/team/list",
        "/key/list",
    ]


def test_a_table_is_printed(installation: Installation, litellm: LiteLLMStandIn) -> None:
    assert "No notice is due, or all were sent before." in installation.run("notify").stdout
    spend(litellm, "carol@example.com", 8)
    page = installation.run("notify").stdout
    assert re.search(rf"due +{CAROL} +budget-80 +LiteLLM: 80 % of the ", page)
    assert "Nothing was sent; --apply sends the notices." in page


def test_a_notice_is_sent_once_for_each_threshold_and_period(
    installation: Installation, litellm: LiteLLMStandIn, notify: Notify
) -> None:
    def sent() -> list[str]:
        return [each["threshold"] for each in notify("--apply")["notices"]]

    december, january = {"budget_reset_at": "2026-12-01T00:00:00Z"}, "2027-01-01T00:00:00Z"
    spend(litellm, "carol@example.com", 8.1, **december)
    assert sent() == ["budget-80"]
    assert sent() == []
    spend(litellm, "carol@example.com", 9.9, budget_reset_at="2026-12-01T00:00:00.000+00:00")
    assert sent() == []
    spend(litellm, "carol@example.com", 10.4)
    assert sent() == ["budget-100"]
    assert sent() == []
    # The person sees the newer notice in place of the older.
    assert shown(installation) == {CAROL: ["LiteLLM: the budget of carol@example.com is spent"]}
    spend(litellm, "carol@example.com", 0.5, budget_reset_at=january)
    assert sent() == []
    spend(litellm, "carol@example.com", 8.5)
    assert sent() == ["budget-80"]
    # LiteLLM has not renewed the budget for years.
    spend(litellm, "carol@example.com", 8.5, budget_reset_at="2020-01-01T00:00:00Z")
    assert sent() == ["budget-80"]
    assert sent() == []


def test_a_notice_without_a_recipient_is_listed_and_tried_again(
    installation: Installation, litellm: LiteLLMStandIn, notify: Notify
) -> None:
    user = {"user_id": "4711", "max_budget": 1, "auto_create_key": False}
    litellm.user_new({**user, "metadata": {"backstage_entity": "user:default/gone"}})
    spend(litellm, "4711", 1)
    for _ in range(2):
        (told,) = notify("--apply")["notices"]
        assert (told["to"], told["state"]) == (None, "no_recipient")
    litellm.store.users["4711"]["metadata"] = {"backstage_entity": CAROL}
    assert notify("--apply")["counts"]["sent"] == 1
    assert list(shown(installation)) == [CAROL]


@pytest.mark.parametrize("hidden", [False, True])
def test_hidden_amounts_of_a_team_stay_hidden(
    installation: Installation, litellm: LiteLLMStandIn, hook: Hook, notify: Notify, hidden: bool
) -> None:
    installation.settings["display"] = {"hideTeamBudgetForManagers": hidden}
    litellm.store.teams[TEAM]["spend"] = 43.21
    notify("--apply")
    (payload,) = installation.fake.notices.values()
    assert payload["title"] == "LiteLLM: 86 % of the budget of team Platform is spent"
    assert ("43.21 of 50.00 USD" in payload["description"]) is not hidden
    ((_, event),) = hook.events
    assert ("43.21" in json.dumps(event)) is not hidden
    assert ("max_budget" in event["data"]) is not hidden


def test_one_failure_does_not_stop_the_others_and_is_tried_in_the_next_run(
    installation: Installation, litellm: LiteLLMStandIn, hook: Hook, notify: Notify
) -> None:
    spend(litellm, "carol@example.com", 9)
    end_of(litellm, days=3)
    installation.fake.failures["notifications"] = 503
    told = notify("--apply", status=1)
    assert [(each["to"], each["state"]) for each in told["notices"]] == [
        (CAROL, "failed"),
        ("webhook", "sent"),
        (ALICE, "failed"),
        ("webhook", "sent"),
    ]
    assert "503" in told["notices"][0]["error"]
    page = installation.run("notify", "--apply").stdout
    assert "> Backstage failed (503)" in page

    installation.fake.failures.clear()
    told = notify("--apply")
    assert [each["to"] for each in told["notices"]] == [CAROL, ALICE]
    assert len(hook.events) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (410, "The webhook answered 410"),
        (302, "The webhook answered 302"),  # redirects are not followed
        (connection_refused(Hook.base_url), "The webhook broke off"),
    ],
)
def test_a_webhook_that_fails(
    installation: Installation,
    litellm: LiteLLMStandIn,
    hook: Hook,
    notify: Notify,
    answer: Any,
    error: str,
) -> None:
    installation.settings["notifications"]["backstage"] = False
    spend(litellm, "carol@example.com", 9)
    hook.status = answer
    (told,) = notify("--apply", status=1)["notices"]
    assert told["error"] == error
    assert installation.fake.asked_of("notifications") == []
    assert installation.network.strays == []
    result = installation.run("-v", "notify", "--apply")
    assert "secret-of-the-hook" not in result.output + result.stderr

    hook.status = 204
    assert notify("--apply")["counts"]["sent"] == 1
    assert notify("--apply")["notices"] == []


def test_what_nobody_takes_is_not_tried_for_ever(
    installation: Installation, litellm: LiteLLMStandIn, notify: Notify
) -> None:
    for number in range(15):
        user_id = f"{number}@example.com"
        litellm.user_new(
            {
                "user_id": user_id,
                "max_budget": 1,
                "auto_create_key": False,
                "metadata": {"backstage_entity": CAROL},
            }
        )
        spend(litellm, user_id, 1)
    installation.fake.failures["notifications"] = 500
    told = notify("--apply", status=1)
    assert told["counts"]["failed"] == 15
    assert len(installation.fake.asked_of("notifications")) == 10
    assert told["notices"][-1]["error"] == "Not tried after 10 failures in a row"
    installation.fake.failures.clear()
    assert notify("--apply")["counts"]["sent"] == 15


def test_a_run_whose_lock_is_lost_sends_no_more(
    installation: Installation, litellm: LiteLLMStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[None] = []

    def check(_run: Run) -> None:
        checks.append(None)
        if len(checks) > 1:  # the first one is before the first page of LiteLLM
            raise StoreUnavailable("the lock was lost with its connection")

    spend(litellm, "carol@example.com", 9)
    monkeypatch.setattr(Run, "check", check)
    result = installation.run("notify", "--apply")
    assert result.stderr == "notify stopped: the lock was lost with its connection\n"
    assert shown(installation) == {}


def test_notices_that_have_nowhere_to_go(installation: Installation, notify: Notify) -> None:
    installation.settings["notifications"]["backstage"] = False
    result = installation.run("notify")
    assert result.exit_code == 2
    assert "there is no webhook" in result.stderr
    installation.settings["notifications"] = {"enabled": False}
    notify()  # shows the notices that would be sent


def test_old_records_of_past_periods_are_deleted(
    litellm: LiteLLMStandIn, store: Store, notify: Notify
) -> None:
    rows = [
        notices.SentNotice("user", "carol@example.com", "budget-80", period, CAROL)
        for period in ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "lifetime")
    ]
    for row in rows:
        notices.record(store, row, "2020-01-01T00:00:00.000Z")
    notify()
    assert notices.sent_about(store, ["carol@example.com"]) == set(rows)
    notify("--apply")
    assert notices.sent_about(store, ["carol@example.com"]) == set(rows[1:])
