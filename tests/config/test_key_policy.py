"""Limits of keys in the configuration: each that is meant is there, or the start ends."""

from __future__ import annotations

import pytest
import yaml

from litellm_plugin.config.settings import KeyPolicy
from tests.config.conftest import Load, Problems

EVERYTHING = """
maxDuration: 2w
maxBudget: 12.5
minBudgetDuration: 1mo
maxTpmLimit: "1000"
maxRpmLimit: 10
allowedModels: [gpt-4o, premium]
maxActiveKeys: 0
"""
READ = {
    "max_duration": "2w",
    "max_budget": 12.5,
    "min_budget_duration": "1mo",
    "max_tpm_limit": 1000,
    "max_rpm_limit": 10,
    "allowed_models": ("gpt-4o", "premium"),
    "max_active_keys": 0,
}


def _common(policy: str) -> str:
    return yaml.safe_dump({"litellm": {"keyPolicy": yaml.safe_load(policy)}})


def _of_role(policy: str) -> str:
    role = {"group": "group:default/a", "keyPolicy": yaml.safe_load(policy)}
    return yaml.safe_dump({"litellm": {"provisioning": {"roles": [role]}}})


def test_limits_arrive_and_without_any_there_are_none(load: Load) -> None:
    assert load().key_policy == KeyPolicy()
    assert load(_common(EVERYTHING)).key_policy == KeyPolicy(**READ)  # type: ignore[arg-type]
    (role,) = load(_of_role(EVERYTHING)).provisioning.roles
    assert role.key_policy == READ
    (role,) = load(_of_role("maxBudget: 1")).provisioning.roles
    assert role.key_policy == {"max_budget": 1}


def test_a_role_lifts_limits_in_so_many_words(load: Load) -> None:
    lifted = "".join(f"{key}: unlimited\n" for key in yaml.safe_load(EVERYTHING))
    (role,) = load(_of_role(lifted)).provisioning.roles
    assert role.key_policy == {**dict.fromkeys(READ), "min_budget_duration": "0s"}


@pytest.mark.parametrize("where", [_common, _of_role])
@pytest.mark.parametrize(
    "policy",
    [
        "maxDuration: 30",
        "maxDuration: monthly",
        "maxDuration: 0d",
        "maxDuration: 30 d",
        "maxDuration: none",
        "maxBudget: lots",
        "maxBudget: 0",
        "maxBudget: -1",
        "maxBudget: .inf",
        "minBudgetDuration: daily",
        "maxTpmLimit: 0",
        "maxTpmLimit: 1.5",
        "maxRpmLimit: -1",
        "allowedModels: gpt-4o",
        "allowedModels: []",
        "allowedModels: [1]",
        "maxActiveKeys: several",
        "maxActiveKeys: -1",
        "maxBugdet: 5",
        "max_budget: 5",
        "maxBudget: ${NOT_SET}",
        "allowedModels: ['${NOT_SET}']",
    ],
)
def test_a_limit_that_is_not_understood_ends_the_start(
    problems: Problems, where: object, policy: str
) -> None:
    found = problems(where(policy))  # type: ignore[operator]
    key = policy.partition(":")[0]
    assert any(f"keyPolicy.{key}" in line for line in found), found


@pytest.mark.parametrize("policy", ["5", "text", "[maxBudget]"])
def test_a_policy_that_is_no_object_ends_the_start(problems: Problems, policy: str) -> None:
    assert any("keyPolicy" in line for line in problems(_common(policy)))
