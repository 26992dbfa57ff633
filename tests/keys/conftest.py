"""What tests of keys parametrize: the settings of the service that makes keys."""

from __future__ import annotations

import pytest

from litellm_plugin.config.settings import KeyGeneration, KeyPolicy


@pytest.fixture
def key_policy() -> KeyPolicy:
    return KeyPolicy()


@pytest.fixture
def key_generation() -> KeyGeneration:
    return KeyGeneration()
