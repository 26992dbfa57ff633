"""How many may ask Backstage at once."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from litellm_plugin import create_app
from litellm_plugin.config.settings import Settings
from litellm_plugin.plugin import BACKSTAGE_AT_ONCE
from tests.fakes import Asked, FakeBackstage, Reply
from tests.fakes.network import Network

MANY = 2 * BACKSTAGE_AT_ONCE


def test_greenlets_may_all_ask_backstage_at_the_same_time(
    settings: Settings,
    network: Network,
    backstage: FakeBackstage,
    client_of: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patched = SimpleNamespace(is_module_patched=lambda name: name == "threading")
    monkeypatch.setitem(sys.modules, "gevent.monkey", patched)
    app = create_app(settings)
    client_of(app)  # type: ignore[operator]
    together, answer = threading.Barrier(MANY, timeout=60), backstage.answer

    def meet(asked: Asked) -> Reply:
        if "/by-name/" in asked.path:
            together.wait()  # breaks where not all of them come this far
        return answer(asked)

    monkeypatch.setattr(backstage, "answer", meet)
    entity = app.extensions["litellm_plugin"].catalog.entity
    with ThreadPoolExecutor(MANY) as pool:
        found = list(pool.map(entity, [f"user:default/nobody{n}" for n in range(MANY)]))
    assert found == [None] * MANY
