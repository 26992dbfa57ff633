"""The settings and the repo's ``app-config.yaml`` stay in step."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from litellm_plugin.config import load_settings, yaml12
from litellm_plugin.config.layers import Layers
from litellm_plugin.config.loader import read_settings
from litellm_plugin.config.reader import Reader
from litellm_plugin.config.report import Report
from litellm_plugin.config.sources import read_sources
from tests.config import example
from tests.config.conftest import Write


@pytest.fixture
def full(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (*example.FILES, "keys/company-ca.pem"):
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


def test_every_key_in_it_is_read_and_every_key_that_is_read_is_in_it(full: Path) -> None:
    report = Report()
    reader = Reader(Layers(read_sources([full], example.ENVIRON, report)), report)
    read_settings(reader)
    report.raise_problems()
    value = yaml12.load(full.read_text(encoding="utf-8"))
    documented = {example.known(path, reader.asked) for path, _ in example.leaves(value)}
    assert documented == reader.asked


def test_what_it_calls_a_default_is_one(write: Write) -> None:
    text = example.defaults_on()
    assert "\n      maxBudget: 10  #" in text  # so some are found
    with_defaults = load_settings([write("app-config.yaml", text)], {})
    assert with_defaults == load_settings([example.PATH], {})
