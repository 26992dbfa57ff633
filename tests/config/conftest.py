from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from litellm_plugin.config import ConfigError, load_settings
from litellm_plugin.config.report import Report
from litellm_plugin.config.settings import Settings
from litellm_plugin.config.sources import read_tree
from litellm_plugin.config.yaml12 import Value

REQUIRED = """\
litellm:
  baseUrl: http://litellm:4000
  masterKey: sk-master
backend:
  baseUrl: http://backstage:7007
"""


class Write(Protocol):
    def __call__(self, name: str, text: str) -> Path: ...


class Read(Protocol):
    """Reads files named 0.yaml, 1.yaml, ... and returns them merged."""

    def __call__(self, *texts: str, environ: Mapping[str, str] = ...) -> Value: ...


class Load(Protocol):
    """Loads ``REQUIRED`` as base.yaml and ``text``, if any, as app-config.yaml over it."""

    def __call__(self, text: str = "", *, environ: Mapping[str, str] = ...) -> Settings: ...


Problems = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def read(write: Write) -> Read:
    def read(*texts: str, environ: Mapping[str, str] | None = None) -> Value:
        paths = [write(f"{index}.yaml", text) for index, text in enumerate(texts)]
        report = Report()
        tree = read_tree(paths, environ or {}, report)
        if report.problems:
            raise ConfigError(report.problems)
        return tree.data

    return read


@pytest.fixture
def load(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.chdir(tmp_path)

    def load(text: str = "", *, environ: Mapping[str, str] | None = None) -> Settings:
        paths = [write("base.yaml", REQUIRED), write("app-config.yaml", text)]
        return load_settings(paths, environ or {})

    return load


@pytest.fixture
def problems(load: Load) -> Problems:
    """Return the problems that loading gives."""

    def problems(text: str = "", *, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            load(text, environ=environ or {})
        return raised.value.problems

    return problems
