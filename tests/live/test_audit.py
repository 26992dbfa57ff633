"""The audit log, for the audit group."""

from __future__ import annotations

import pytest

from tests.live.kinds import Person, Policy, Told
from tests.live.rigs import LiteLLMRig
from tests.live.web import json_of


def test_auditors_read_the_log_as_litellm_has_it(
    person: Person, litellm: LiteLLMRig, told: Told
) -> None:
    shown = json_of(person("alice").get("/audit", page="1", page_size="10"))
    assert shown == json_of(litellm.admin.get("/audit", page="1", page_size="10"))
    told(f"alice reads the audit log: {shown}")


def test_auditors_see_what_a_group_would_get(person: Person) -> None:
    group = "group:default/ai-power-users"
    preview = json_of(person("alice").get("/provisioning/preview", group=group))
    assert preview["matched_role"] == group
    assert preview["effective_defaults"]["maxBudget"] == 100


@pytest.mark.parametrize("path", ["/audit", "/provisioning/preview?group=group:default/platform"])
def test_nobody_else_does(person: Person, path: str) -> None:
    for name in ("dave", "erin"):
        assert "audit group" in json_of(person(name).get(path), 403)["error"]


def test_a_policy_binds_auditors_too(person: Person, policy: Policy) -> None:
    policy("litellm.audit.read@alice")
    assert "litellm.audit.read" in json_of(person("alice").get("/audit"), 403)["error"]
