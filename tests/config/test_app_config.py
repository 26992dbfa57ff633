"""The settings and the repo's ``app-config.yaml`` stay in step."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.configuration_page import commented, declared
from litellm_plugin.config import load_settings
from litellm_plugin.config.schema import Key, json_schema, walk
from tests.config import example
from tests.config.conftest import Load, Write

# What the examples can't show beside another form of the same key.
NOT_SHOWN = (
    "backend.auth.keys[].accessRestrictions[].",
    "backend.cache.connection.",
    "backend.database.connection",  # as a URL, or of another client
)


@pytest.fixture
def full(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in example.FILES:
        write(name, "")
    return write("app-config.yaml", example.everything_on())


def test_it_loads_as_it_is_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        settings = load_settings([example.PATH], {})
    assert settings.base_url == "http://127.0.0.1:4010"
    assert settings.master_key == "sk-sandbox-master-key"
    assert settings.team_management
    assert caplog.messages == []


def test_every_example_in_it_is_valid(full: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings([full], example.ENVIRON)
    assert len(settings.external_access) == 4
    assert len(settings.discovery.endpoints) == 2
    assert caplog.messages == []


def test_it_describes_every_key_as_it_is_declared() -> None:
    text = example.PATH.read_text(encoding="utf-8")
    with_comments, shown = commented(text)
    assert with_comments == text, "run make docs"
    keys = {path for path, key in declared().items() if key.type}
    assert {key for key in keys - shown.keys() if not key.startswith(NOT_SHOWN)} == set()


def test_a_default_that_is_written_out_changes_nothing(load: Load) -> None:
    told: dict[str, Any] = {}
    for key in walk(json_schema(), {}):
        if isinstance(key, Key) and key.schema.get("default") is not None:
            *above, last = map(str, key.path)
            place = told
            for part in above:
                place = place.setdefault(part, {})
            place[last] = key.schema["default"]
    assert told["litellm"]["service"]["rateLimits"]["writes"] == "3000/minute"  # so some are found
    assert load(yaml.safe_dump(told)) == load()
