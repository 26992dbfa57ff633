"""An application with ``litellm.audit.store``, between a LiteLLM with a memory and Backstage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin import create_app
from litellm_plugin.audit.writer import AuditWriter
from litellm_plugin.config.database import Database
from litellm_plugin.config.settings import Settings
from litellm_plugin.observability import journal
from litellm_plugin.plugin import Plugin
from litellm_plugin.store.audit import AuditEvent
from litellm_plugin.store.database import Store
from tests.apps import Apps
from tests.postgres import postgres
from tests.rig import Rig
from tests.tokens import TokenFactory

__all__ = ["postgres"]

Json = dict[str, Any]


@dataclass
class Audited:
    """An application that stores audit events, and what it stored."""

    rig: Rig
    plugin: Plugin

    @property
    def writer(self) -> AuditWriter:
        assert self.plugin.audit_writer is not None
        return self.plugin.audit_writer

    @property
    def store(self) -> Store:
        assert self.plugin.store is not None
        return self.plugin.store

    def answer(self, query: str = "", who: str = "alice") -> Json:
        """Return what ``GET /audit`` answers."""
        answer = self.rig.ask(who, "GET", f"/audit?{query}")
        assert answer.status_code == 200, answer.text
        return dict(json.loads(answer.text))

    def rows(self, query: str = "") -> list[Json]:
        """Return our rows, newest first, without those of the stand-in's own log."""
        return [row for row in self.answer(query)["audit_logs"] if row["changed_by_api_key"] == ""]


def event(**values: Any) -> AuditEvent:
    """Return the event of a team's change, with other ``values`` where they are given."""
    team: Json = {
        "at": "2026-11-01T12:00:00.000Z",
        "action": "updated",
        "table_name": "LiteLLM_TeamTable",
        "object_id": "team",
        "changed_by": "user:default/alice",
        "denied": False,
        "before_value": {"max_budget": 10.1},
        "updated_values": {"max_budget": 1e-7, "team_alias": "Grüße \U0001f600"},
        "event": {"eventId": "team-update"},
    }
    return AuditEvent(**{**team, **values})


def stored(settings: Settings, file: Path | None) -> Settings:
    """Return the settings with a store in ``file``, or in memory, that keeps audit events."""
    audit = replace(settings.audit, store=True)
    return replace(settings, audit=audit, database=Database(file=file))


@pytest.fixture
def audited_at(
    apps: Apps, tokens: TokenFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Path | None], Audited]]:
    """Makes an application with a store in a file, or in memory."""
    made: list[Audited] = []

    def make(file: Path | None) -> Audited:
        app = create_app(stored(apps.settings(), file))
        rig = Rig(app, tokens, monkeypatch)
        rig.litellm.litellm.store.audit_log.clear()
        made.append(Audited(rig, app.extensions["litellm_plugin"]))
        return made[-1]

    yield make
    journal.sink = None
    for each in made:
        each.writer.close()
        each.store.close()


@pytest.fixture
def audited(audited_at: Callable[[Path | None], Audited]) -> Audited:
    return audited_at(None)
