"""LiteLLM as most route tests want it: bob has two keys and one team."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import FakeLiteLLM

OWN_KEY = "1" * 64
FOREIGN_KEY = "f" * 64

Account = Callable[..., dict[str, Any]]


@pytest.fixture
def account() -> Account:
    """Makes LiteLLM's ``/user/info`` of a user."""

    def account(user_id: str = "bob@example.com", **over: Any) -> dict[str, Any]:
        team = {"team_id": "t1", "members_with_roles": [{"user_id": user_id, "role": "user"}]}
        return {
            "user_id": user_id,
            "user_info": {"user_id": user_id, "teams": ["t1"], "spend": 1.5, "max_budget": 10},
            "keys": [{"token": OWN_KEY, "key_name": "sk-...aaaa", "created_at": "2026-11-01"}],
            "teams": [team],
            **over,
        }

    return account


@pytest.fixture
def known_bob(litellm: FakeLiteLLM, account: Account) -> FakeLiteLLM:
    """LiteLLM knows bob; ``/key/generate`` and ``/key/update`` succeed."""
    litellm.get("/user/info", query={"user_id": "bob@example.com"}, json=account())
    litellm.post("/key/generate", json={"key": "sk-canary-new-key", "token": "2" * 64})
    litellm.post("/key/update", json={"key": OWN_KEY})
    return litellm
