"""A visit has the visitor's account compared with the role, in the background."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from litellm_plugin import create_app
from litellm_plugin.observability import logs
from litellm_plugin.plugin import Plugin
from litellm_plugin.store.database import StoreUnavailable
from tests.accounts.sync_world import Killed, World, with_sync, world
from tests.apps import Apps
from tests.client import HeadersOf, PluginClient, json_of
from tests.tokens import TokenFactory

BOB = "bob@example.com"


class Site(World):
    """An organisation, and the application that it uses."""

    client: PluginClient

    def grant(self, user_id: str) -> Any:
        """Return what is recorded as granted; None: nothing is."""
        assert self.plugin.sync is not None
        return self.plugin.sync.grants.of(user_id)

    def open_page(self, who: str, path: str = "/user/info") -> Any:
        """Ask as somebody, and wait for what happens in the background."""
        answer = self.client.get(path, who=who)
        assert self.plugin.visits is not None
        self.plugin.visits.wait()
        return answer


@pytest.fixture
def options() -> dict[str, Any]:
    return {}


@pytest.fixture
def site(
    apps: Apps, tokens: TokenFactory, headers_of: HeadersOf, options: dict[str, Any]
) -> Iterator[Site]:
    settings = with_sync(apps.settings(), **options)
    with world(settings, tokens, Site) as made:
        app = create_app(settings)
        made.client = PluginClient(app, headers_of=headers_of)
        made.plugin = app.extensions["litellm_plugin"]
        made.backstage.discovers("litellm", made.plugin.plugin_keys.public_jwks)
        made.person("bob")
        yield made


def test_what_a_first_visit_creates_is_recorded_as_granted(site: Site) -> None:
    assert site.open_page("bob").status_code == 200
    grant = site.grant(BOB)
    assert (grant.entity_ref, grant.origin, grant.pending) == ("user:default/bob", "created", None)
    assert grant.granted == {
        "max_budget": 10.0,
        "budget_duration": "30d",
        "models": [],
        "tpm_limit": 100,
        "rpm_limit": None,
        "user_role": "internal_user",
        "teams": ["team-guests"],
    }


@pytest.mark.parametrize("options", [{"visit_interval": 0.0}])
def test_who_moves_between_groups_gets_the_other_role_on_the_next_visit(site: Site) -> None:
    site.open_page("bob")
    site.person("bob", "plain")
    site.open_page("bob")
    assert site.user(BOB)["teams"] == ["team-plain"]
    assert site.open_page("bob", "/teams").json[0]["team_id"] == "team-plain"


def test_an_account_is_compared_once_in_an_interval_over_all_processes(site: Site) -> None:
    site.open_page("bob")
    site.person("bob", "plain")
    site.calls.clear()
    for _ in range(3):
        site.open_page("bob")
    # No process compares again what another one has just compared.
    assert site.plugin.visits is not None
    site.plugin.visits._seen.clear()
    site.open_page("bob")
    assert site.calls == ["GET /v2/user/info"] * 4
    assert site.user(BOB)["teams"] == ["team-guests"]


@pytest.mark.parametrize("options", [{"mode": "report", "visit_interval": 0.0}])
def test_in_mode_report_differences_are_logged_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.open_page("bob")
    site.person("bob", "plain")
    written = len(site.writes)
    with caplog.at_level(logging.INFO, "litellm_plugin"):
        site.open_page("bob")
        site.open_page("bob")
    assert len(site.writes) == written
    said = [r.message for r in caplog.records if "is not as its role grants it" in r.message]
    assert len(said) == 1
    events = [r.message for r in caplog.records if '"eventId":"user-sync-report"' in r.message]
    assert len(events) == 1


@pytest.mark.parametrize("options", [{"visit_interval": 0.0}])
@pytest.mark.parametrize("path", ["/v2/user/info", "/user/update", "/team/member_add"])
def test_a_failing_comparison_fails_no_request(
    site: Site, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.open_page("bob")
    site.person("bob", "plain")
    site.host.failures[path] = 500
    answer = site.open_page("bob")
    assert answer.status_code == (500 if path == "/v2/user/info" else 200)
    site.host.failures.clear()
    site.open_page("bob")
    assert site.user(BOB)["teams"] == ["team-plain"]


@pytest.mark.parametrize("options", [{"visit_interval": 0.0}])
def test_a_lost_store_fails_no_request_and_loses_no_account(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("SQLite: it is away")

    with monkeypatch.context() as patch:
        for method in ("write", "read", "lock"):
            patch.setattr(site.plugin.store, method, away)
        assert site.open_page("bob").status_code == 200
        assert site.open_page("bob").status_code == 200
    assert "can't be recorded now" in caplog.text
    assert site.user(BOB)["teams"] == ["team-guests"]
    site.open_page("bob")
    assert site.grant(BOB).origin == "taken-in"


def test_an_account_that_litellm_refuses_to_create_leaves_no_grant(site: Site) -> None:
    site.host.failures["/user/new"] = 400
    assert site.open_page("bob").status_code == 400
    assert site.grant(BOB) is None


@pytest.mark.parametrize("options", [{"visit_interval": 0.0}])
@pytest.mark.parametrize("fuse", range(11))
def test_a_first_visit_that_is_killed_loses_no_grant(site: Site, fuse: int) -> None:
    site.fuse = fuse
    with pytest.raises(Killed):
        site.client.get("/user/info", who="bob")
    site.fuse = None
    site.person("bob", "plain")
    site.open_page("bob")
    site.open_page("bob")
    user = site.user(BOB)
    assert (user["models"], user["teams"]) == (["gpt-4o-mini"], ["team-plain"])
    assert user["user_role"] == "internal_user_viewer"


def test_a_service_that_asks_about_a_user_compares_nothing(site: Site) -> None:
    site.account(BOB, max_budget=1)
    answer = site.open_page("plugin", f"/user/info?user_id={BOB}")
    assert answer.status_code == 200
    assert site.grant(BOB) is None


def _preview(site: Site, who: str, group: str) -> Any:
    told = json_of(site.open_page(who, f"/provisioning/preview?group={group}"))
    return told["sync"]


@pytest.mark.parametrize("options", [{"mode": "report"}])
def test_a_preview_shows_what_would_change_for_a_group(site: Site) -> None:
    site.open_page("bob")
    site.person("alice", "litellm-admins")
    site.person("bob", "plain")
    site.person("kim", "plain")  # who has no account
    written = len(site.writes)
    told = _preview(site, "alice", "group:default/plain")
    assert (told["mode"], told["members"], told["compared"]) == ("report", 2, 1)
    assert told["changes"][0] == {
        "user": "user:default/bob",
        "user_id": BOB,
        "field": "models",
        "granted": [],
        "now": [],
        "role": ["gpt-4o-mini"],
        "action": "change",
    }
    assert {each["field"] for each in told["changes"]} == {
        *("models", "user_role", "team team-guests", "team team-plain")
    }
    assert len(site.writes) == written
    assert _preview(site, "alice", "group:default/none")["changes"] == []


def test_a_preview_without_litellm_says_so(site: Site) -> None:
    site.person("alice", "litellm-admins")
    site.host.failures[""] = 500
    told = _preview(site, "alice", "group:default/litellm-admins")
    assert told.keys() == {"mode", "unavailable"}


def test_without_sync_there_is_no_store(apps: Apps) -> None:
    plugin: Plugin = apps.app().extensions["litellm_plugin"]
    assert (plugin.store, plugin.sync, plugin.visits) == (None, None, None)


def test_the_loggers_of_sync_are_guarded(site: Site) -> None:
    for name in ("sync", "visits"):
        filters = logging.getLogger(f"litellm_plugin.accounts.{name}").filters
        assert any(isinstance(each, logs.Printable) for each in filters)
