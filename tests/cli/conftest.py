from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from litellm_plugin.store.database import Store
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


@pytest.fixture
def store(installation: Installation) -> Iterator[Store]:
    """The store that the commands use."""
    store = Store(installation.database)
    yield store
    store.close()
