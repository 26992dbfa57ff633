"""How LiteLLM is read for notices: by pages, and never for one user alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

from litellm_plugin.accounts.directory import AllPeople
from litellm_plugin.clients.litellm import LiteLLM
from litellm_plugin.config.database import Database
from litellm_plugin.config.settings import Discovery, Notifications, Settings
from litellm_plugin.notifications.delivery import due_notices, open_deliveries
from litellm_plugin.notifications.recipients import Recipients
from litellm_plugin.notifications.rules import Notice
from litellm_plugin.store.database import Store

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SETTINGS = Settings(
    base_url="http://litellm", master_key="sk-x", discovery=Discovery("http://backstage")
)
ENABLED = Notifications(enabled=True)
Page = list[Any]
SPENT = {"spend": 1, "max_budget": 1}


class Rows:
    """A LiteLLM of pages, which notes what is asked and when a page is allowed."""

    def __init__(self, users: list[Page], teams: list[Page], keys: list[Page]) -> None:
        self.told: list[str] = []
        self.users = self._reader("users", users)
        self.team_rows = self._reader("teams", teams)
        self.keys = self._reader("keys", keys)

    def _reader(self, name: str, pages: list[Page]) -> Callable[[int], tuple[Page, int]]:
        def read(page: int) -> tuple[Page, int]:
            self.told.append(f"{name} {page}")
            if page > len(pages):
                return [], len(pages)  # of nothing LiteLLM has 0 pages
            return pages[page - 1], len(pages)

        return read

    def notices(self) -> Iterator[Notice]:
        recipients = Recipients(AllPeople((), None), SETTINGS, lambda _team: False, {})
        return due_notices(cast(LiteLLM, self), recipients, ENABLED, NOW, self.told.append)

    def due(self) -> list[str]:
        return [notice.subject_id for notice in self.notices()]


def test_each_page_is_read_once_and_waited_for() -> None:
    users = [[{"user_id": "a", **SPENT}], [{"user_id": "b", **SPENT}]]
    rows = Rows(users, [], [[{"token": "k", **SPENT}]])
    assert rows.due() == ["a", "b", "k"]
    assert rows.told == [
        *("users", "users 1", "users", "users 2"),
        *("teams", "teams 1"),
        *("keys", "keys 1"),
    ]


def test_a_row_on_two_pages_is_one_delivery() -> None:
    row = {"user_id": "a", **SPENT}
    found = Rows([[row], [row]], [], []).notices()
    assert len(open_deliveries(found, ENABLED, Store(Database()))) == 1


def test_rows_without_an_id_are_left_out() -> None:
    bad: list[dict[str, Any]] = [{}, {"user_id": None}, {"user_id": ""}, {"user_id": 5}]
    users = [{**SPENT, **row} for row in bad]
    rows = Rows([[*users, {"user_id": "a", **SPENT}]], [[{**SPENT}]], [[{**SPENT, "token": 5}]])
    assert rows.due() == ["a"]
