from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.installation import Installation
from tests.tokens import TokenFactory


@pytest.fixture(scope="session")
def _key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli-plugin-key")


@pytest.fixture
def installation(
    tmp_path: Path, _key_folder: Path, tokens: TokenFactory, monkeypatch: pytest.MonkeyPatch
) -> Installation:
    """A set-up in which nothing is wrong."""
    return Installation(tmp_path, _key_folder / "key.json", tokens, monkeypatch)
