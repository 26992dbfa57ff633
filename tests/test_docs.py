"""The documentation and what it describes stay in step."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.configuration_page import MARK, PAGE, SOURCE, keys, tables
from litellm_plugin.config.layers import Layers
from litellm_plugin.config.loader import read_settings
from litellm_plugin.config.reader import Reader
from litellm_plugin.config.report import Report
from litellm_plugin.config.sources import read_sources
from tests.config import example


def test_the_configuration_page_is_that_of_app_config() -> None:
    _, mark, written = PAGE.read_text(encoding="utf-8").partition(MARK)
    assert mark
    assert written == tables(SOURCE.read_text(encoding="utf-8")), "run make docs"


def test_the_configuration_page_has_every_key_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    full = tmp_path / "app-config.yaml"
    full.write_text(example.everything_on(), encoding="utf-8")
    report = Report()
    reader = Reader(Layers(read_sources([full], example.ENVIRON, report)), report)
    read_settings(reader)
    page = PAGE.read_text(encoding="utf-8")
    assert [key for key in reader.asked if f"| `{key}` |" not in page] == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\n", "says nothing about a"),
        ("a: 1  # a number\n", "wanted 'type, default; meaning' for a"),
        ("? a\n", "line 1: not understood"),
    ],
)
def test_a_key_that_is_not_described_stops_the_page(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        keys(text)
