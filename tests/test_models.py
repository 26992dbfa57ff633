"""Names of models in lists of what is allowed, as tables."""

from __future__ import annotations

import pytest

from litellm_plugin.models import allows


@pytest.mark.parametrize(
    ("allowed", "name"),
    [
        (["gpt-4o"], "gpt-4o"),
        (["openai/*"], "openai/gpt-4o"),
        (["openai/*"], "openai/org/gpt-4o"),
        (["gpt-4o", "openai/*"], "openai/o3"),
        (["bedrock/us.*"], "bedrock/us.amazon.nova-micro-v1:0"),
        (["*-mini"], "gpt-4o-mini"),
        (["a*b*c"], "aXbYc"),
        (["a*b*c"], "abc"),
        (["*"], "gpt-4o"),
        (["*"], "all-proxy-models"),
        (["all-team-models"], "all-team-models"),
        (["openai/*"], "openai/*"),
        (["*"], "openai/*"),
        (["openai/*"], "openai/gpt-*"),
        (["openai/*"], "openai/gpt-4.1*"),
        (["openai/a|b*"], "openai/a|b*"),
        (["bedrock/*"], "bedrock/us.*"),
    ],
)
def test_what_a_list_has_in_it(allowed: list[str], name: str) -> None:
    assert allows(allowed, name)


@pytest.mark.parametrize(
    ("allowed", "name"),
    [
        ([], "gpt-4o"),
        (["gpt-4o"], "gpt-4o-mini"),
        (["gpt-4o"], "gpt-4*"),
        (["gpt-4o"], "*"),
        (["openai/*"], "openai2/gpt-4o"),
        (["openai/*"], "gpt-4o"),
        (["openai/*"], "xopenai/gpt-4o"),
        (["openai/*"], "OpenAI/gpt-4o"),
        (["openai/*"], "openai"),
        (["openai/*"], "*"),
        (["openai/*"], "open*"),
        (["openai/*"], ""),
        (["bedrock/us.*"], "bedrock/eu.amazon.nova-micro-v1:0"),
        (["bedrock/us.*"], "bedrock/usX"),
        (["bedrock/us.*"], "bedrock/*"),
        (["a*b*c"], "acb"),
        (["aa*aa"], "aaa"),
        (["a*"], "all-proxy-models"),
        (["a*"], "all-team-models"),
        (["?*"], "gpt-4o"),
        # What LiteLLM would make every model of.
        (["openai/*"], "openai/*|.*"),
        (["openai/*"], "openai/x|.*"),
        (["openai/*"], "openai/(*"),
        (["*a"], "[^/]*a"),
    ],
)
def test_what_a_list_does_not_have_in_it(allowed: list[str], name: str) -> None:
    assert not allows(allowed, name)


def test_a_name_is_read_once_for_each_wildcard() -> None:
    # As a regular expression this would take longer than the universe has.
    assert not allows(["*a" * 30 + "*b"], "a" * 512)
