"""The service between a LiteLLM that remembers and Backstage, for attackers."""

from __future__ import annotations

import pytest

from tests.apps import Apps
from tests.fakes import Asked, Reply
from tests.rig import Rig
from tests.tokens import TokenFactory


@pytest.fixture
def rig(apps: Apps, tokens: TokenFactory, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Alice is in the audit group and a team admin; bob is nobody special."""
    return Rig(apps.whole, tokens, monkeypatch)


@pytest.fixture
def asked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What LiteLLM is asked, in order."""
    calls: list[Asked] = []
    answer = rig.litellm.answer

    def answer_and_note(request: Asked) -> Reply:
        calls.append(request)
        return answer(request)

    monkeypatch.setattr(rig.litellm, "answer", answer_and_note)
    return calls
