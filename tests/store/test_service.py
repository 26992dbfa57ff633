"""The service with a store: no request notices what becomes of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from litellm_plugin import create_app
from litellm_plugin.config import ConfigError
from litellm_plugin.config.database import Database
from litellm_plugin.config.settings import Settings
from tests.client import PluginClient
from tests.fakes import FakeLiteLLM
from tests.fakes.network import Network


@pytest.fixture
def stored(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "state" / "store.sqlite"
    return replace(
        settings, audit=replace(settings.audit, store=True), database=Database(file=file)
    )


def states(app: Flask, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr("litellm_plugin.observability.readiness.PATIENCE", 60.0)
    return dict(app.extensions["litellm_plugin"].readiness.report().checks)


def test_it_is_ready_when_the_service_starts(
    network: Network, stored: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(stored)
    assert stored.database.file is not None
    assert stored.database.file.exists()
    assert states(app, monkeypatch)["store"] == "ok"


def test_without_it_the_service_starts_and_answers(
    network: Network,
    stored: Settings,
    client_of: Callable[[Flask], PluginClient],
    litellm: FakeLiteLLM,
    bob: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "state").write_text("a file where the folder is to be")
    with caplog.at_level(logging.WARNING):
        app = create_app(stored)
    (message,) = caplog.messages
    assert message.startswith("The store can't be used, and is tried again when it is needed: ")
    litellm.get("/models", json={"data": [{"id": "gpt-4o"}]})
    assert client_of(app).get("/models", headers=bob).status_code == 200
    assert states(app, monkeypatch)["store"] == "down"


def test_postgresql_needs_a_package(
    network: Network, stored: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("psycopg", "litellm_plugin.store.postgres"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"install litellm-plugin\[postgres\]"):
        create_app(replace(stored, database=Database(client="pg", host="db", database="x")))


def test_without_a_feature_that_needs_it_nothing_of_it_is_made(
    network: Network, stored: Settings, settings: Settings
) -> None:
    app = create_app(replace(stored, audit=settings.audit))
    assert app.extensions["litellm_plugin"].store is None
    assert stored.database.file is not None
    assert not stored.database.file.parent.exists()
