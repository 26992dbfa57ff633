"""The audit log, for the audit group."""

from __future__ import annotations

import pytest

from tests.live.kinds import Deploy, Person, Policy, Told
from tests.live.rigs import LiteLLMRig
from tests.live.service import Service
from tests.live.web import json_of

# One worker, whose events are shown by itself even where the database is in its memory.
ALONE = {"WEB_CONCURRENCY": "1"}
STORE = "  audit:\n    store: true\n"


@pytest.fixture(scope="module")
def audited(deploy: Deploy) -> Service:
    """A service that stores audit events."""
    return deploy("audited", STORE, env=ALONE)


def test_an_open_source_litellm_has_an_audit_log_that_names_people(
    person: Person, audited: Service, litellm: LiteLLMRig, told: Told
) -> None:
    alice, erin = person("alice", at=audited), person("erin", at=audited)
    key = json_of(erin.post("/keys/generate", {"alias": "audited", "max_budget": 1}))
    json_of(erin.post(f"/keys/{key['token']}/update", {"max_budget": 2}))
    json_of(erin.delete(f"/keys/{key['token']}"))
    json_of(erin.get("/audit"), 403)
    assert json_of(litellm.admin.get("/audit"))["total"] == 0

    query = {"changed_by": "user:default/erin", "table_name": "LiteLLM_VerificationToken"}
    log = json_of(alice.get("/audit", **query))
    deleted, updated, created = log["audit_logs"]
    assert [row["action"] for row in (deleted, updated, created)] == [
        "deleted",
        "updated",
        "created",
    ]
    assert {row["object_id"] for row in (deleted, updated, created)} == {key["token"]}
    assert updated["before_value"] == {"max_budget": 1}
    assert updated["updated_values"] == {"max_budget": 2}
    assert deleted["before_value"]["key_alias"] == "audited"
    assert (log["total"], log["total_pages"]) == (3, 1)
    second = json_of(alice.get("/audit", **query, page="2", page_size="1"))
    assert (second["audit_logs"], second["total_pages"]) == ([updated], 3)
    denied = json_of(alice.get("/audit", **query, include="denied"))
    assert denied["total"] == 3
    denied = json_of(alice.get("/audit", changed_by="user:default/erin", include="denied"))
    assert "denied" in {row["action"] for row in denied["audit_logs"]}
    told(f"alice reads who changed what: {log['audit_logs']}")


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
