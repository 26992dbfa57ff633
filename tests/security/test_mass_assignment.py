"""Fields of LiteLLM that a caller has no right to set, on every route that writes.

All of it would be sent with the master key, which may set anything.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from litellm_plugin.keys.metadata import FAMILIES, SETTINGS
from litellm_plugin.sandbox.store import SHAPES
from litellm_plugin.shapes import TEAM_KEY
from tests.fakes import Asked
from tests.rig import CALLERS, Rig
from tests.security.surface import WRITES, Surface, body_of, is_closed, surfaces
from tests.standin import IDS, furnished

CANARY = "canary-4711"

# Of LiteLLM's rows and answers, and what its endpoints take besides.
FIELDS = sorted(
    {name for shape in SHAPES.values() for name in shape}
    | {
        "admins",
        "allowed_cache_controls",
        "auto_create_key",
        "budget_id",
        "config",
        "enforced_params",
        "guardrails",
        "internal_user_budget",
        "invite",
        "key_aliases",
        "keys",
        "max_budget_in_team",
        "member",
        "new_master_key",
        "organization_id",
        "owning_group",
        "password",
        "reset_to",
        "role",
        "send_invite_email",
        "service_account_id",
        "team_alias",
        "team_ids",
        "team_member_budget",
        "team_member_budget_duration",
        "team_member_rpm_limit",
        "team_member_tpm_limit",
        "user_ids",
        "users",
        "__proto__",
        "constructor",
    }
)


def _callers(route: Surface) -> list[str]:
    return [route.caller] if route.bridged else [route.caller, "obo:alice", "static"]


def _ask(rig: Rig, who: str, route: Surface, body: dict[str, Any], query: str = "") -> Any:
    furnished()
    path = f"{route.path(IDS)}?{query}"
    return rig.ask(who, route.method, path, json=body)


def _written(asked: list[Asked]) -> str:
    return " ".join(f"{call.path}?{call.query} {call.body!r}" for call in asked)


@pytest.fixture
def writing(rig: Rig) -> list[Surface]:
    routes = [route for route in surfaces(rig.app) if route.method in WRITES]
    assert len(routes) > 15
    return routes


def test_no_route_passes_on_a_field_that_it_does_not_document(
    rig: Rig, asked: list[Asked], writing: list[Surface]
) -> None:
    for route in writing:
        known, example = body_of(route) or (frozenset(), {})
        foreign = {name: CANARY for name in FIELDS if name not in known}
        for who in _callers(route):
            _ask(rig, who, route, {**example, **foreign})
            # Whom a service speaks for is in the query.
            _ask(rig, who, route, example, urlencode({**foreign, "user_id": "x"}))
            assert CANARY not in _written(asked), f"{route} as {who}"
            asked.clear()


def test_each_field_is_refused_by_its_name_where_any_is(
    rig: Rig, asked: list[Asked], writing: list[Surface]
) -> None:
    strict = []
    for route in writing:
        known, example = body_of(route) or (frozenset(), {})
        (who, *_) = _callers(route)
        answer = _ask(rig, who, route, {**example, "no_such_field": 1})
        if answer.status_code != 400 or "no_such_field" not in answer.text:
            continue
        strict.append(route)
        asked.clear()
        foreign = sorted(set(FIELDS) - known)
        for some in (foreign[at : at + 10] for at in range(0, len(foreign), 10)):
            body = {**example, **dict.fromkeys(some, CANARY)}
            answer = rig.ask(who, route.method, route.path(IDS), json=body)
            assert answer.status_code == 400, f"{route}: {some}"
            assert all(f'"{name}"' in answer.get_json()["error"] for name in some)
        assert [call.path for call in asked if call.method != "GET"] == []
    assert strict == [route for route in writing if is_closed(route)]
    assert len(strict) >= 3  # keys/generate, keys/:id/update and bridge/keys at least


@pytest.mark.parametrize(
    "metadata",
    [
        *({name: CANARY} for name in sorted(SETTINGS)),
        *({f"{family}x": CANARY} for family in FAMILIES),
        {"temp_budget_increase": 10**6, "temp_budget_expiry": "2099-01-01T00:00:00"},
        {"allow_client_pricing_override": True},
        {"note": "os.environ/LITELLM_MASTER_KEY"},
        {"note": [{"deep": ["see os.environ/DATABASE_URL"]}]},
        {"os.environ/X": 1},
    ],
    ids=lambda metadata: next(iter(metadata)),
)
def test_no_key_gets_metadata_that_litellm_acts_on(
    rig: Rig, asked: list[Asked], metadata: dict[str, Any]
) -> None:
    for who, path in (
        ("alice", "/keys/generate"),
        ("static", "/keys/generate"),
        (CALLERS["keycloak"], "/bridge/keys"),
    ):
        answer = rig.ask(who, "POST", path, json={"alias": "a", "metadata": metadata})
        assert answer.status_code == 400, f"{path} as {who}"
        assert "metadata" in answer.get_json()["error"]
    assert asked == []


def test_ownership_can_not_be_forged(rig: Rig) -> None:
    forged = {
        "created_by": "root",
        "created_by_backstage_user": "user:default/bob",
        "created_via": "x",
        "created_at_iso": "1970",
        "backstage_entity": "user:default/bob",
        TEAM_KEY: True,
        "cost_center": "4711",
    }
    body = {"alias": "a", "user_id": "bob@example.com", "metadata": forged}
    rig.ask("alice", "POST", "/keys/generate", json=body)
    rows = rig.litellm.litellm.store.keys.values()
    (made,) = (row for row in rows if row["token"] not in IDS.values())
    assert made["user_id"] == "alice@example.com"
    assert made["metadata"].pop("cost_center") == "4711"
    assert made["metadata"].pop("created_by_backstage_user") == "user:default/alice"
    assert not {"created_by", "backstage_entity", TEAM_KEY} & made["metadata"].keys()
    assert "root" not in made["metadata"].values()
