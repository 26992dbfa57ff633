"""What a key can do at LiteLLM itself, whichever way it was made and whoever owns it.

``docs/security.md`` has the result as a table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from tests.live.kinds import Told
from tests.live.rigs import LITELLM_VERSION, STATIC_TOKEN, BackstageRig, LiteLLMRig
from tests.live.service import Service
from tests.live.test_opencode import connect
from tests.live.web import Client, json_of

# How LiteLLM's own routes of management begin. Routes of the same beginning that are for models
# or only list what a key may use are in NOT_MANAGEMENT.
MANAGEMENT = (
    *("/key/", "/v2/key/", "/user/", "/v2/user/", "/team/", "/v2/team/", "/organization/"),
    *("/v2/organization/", "/customer/", "/end_user/", "/budget/", "/project/", "/tag/"),
    *("/model/new", "/model/update", "/model/delete", "/model/{", "/credentials", "/access_group"),
    *("/v1/access_group", "/spend/", "/global/", "/config", "/cache/", "/audit", "/email/"),
    *("/callbacks/", "/router/", "/fallback", "/cost/", "/jwt/", "/invitation/", "/sso/", "/scim/"),
    *("/add/", "/update/", "/delete/", "/upload/", "/policy/", "/policies", "/prompts"),
    *("/guardrails", "/search_tools", "/vector_store/", "/v1/mcp/", "/management/"),
    *("/cloudzero/", "/vantage/", "/v1/agents", "/agents", "/claude-code/", "/lens"),
)
# Of these each pair of role and way is tried; of all others each role, and each way.
DEAREST = ("/key/", "/user/", "/team/", "/model/", "/v1/mcp/")
EVERY_PAIR = "LIVE_EVERY_PAIR" in os.environ  # or of all, which takes twice as long

NOT_MANAGEMENT = re.compile(
    r"GET /vector_store/list|GET /v1/mcp/.*|POST /guardrails/apply_guardrail"
)

ROLES = ("proxy_admin", "proxy_admin_viewer", "internal_user", "internal_user_viewer")
TEAM_ADMIN = "internal_user, admin of a team"

# What LiteLLM itself lets an administrator do with a key that is for models only.
OPEN = {("1.81.14", "proxy_admin"): {"POST /v1/mcp/server", "PUT /v1/mcp/server"}}
# Registries that LiteLLM counts as routes for models. Beyond lists, who may do what there is asked
# in test_registries_are_open_as_the_documentation_says.
REGISTRIES = ("/v1/agents", "/agents", "/claude-code/", "/lens")

NewKey = Callable[[str], str]


@pytest.fixture(scope="module")
def management(litellm: LiteLLMRig) -> list[str]:
    """The routes of LiteLLM's management API: ``POST /key/generate``."""
    paths = json_of(litellm.admin.get("/openapi.json"))["paths"]
    routes = [
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if path.startswith(MANAGEMENT)
    ]
    assert len(routes) > 200
    return [route for route in routes if not NOT_MANAGEMENT.fullmatch(route)]


@pytest.fixture(scope="module", params=[*ROLES, TEAM_ADMIN])
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def owner(role: str, litellm: LiteLLMRig) -> str:
    """The name of somebody who has that role at LiteLLM."""
    name = f"owner-{uuid4().hex[:8]}"
    user_id = f"{name}@example.com"
    user = {"user_id": user_id, "user_role": role.partition(",")[0], "auto_create_key": False}
    json_of(litellm.admin.post("/user/new", user))
    if role == TEAM_ADMIN:
        members = [{"role": "admin", "user_id": user_id}]
        json_of(litellm.admin.post("/team/new", {"members_with_roles": members}))
    return name


@pytest.fixture(scope="module")
def ways(owner: str, service: Service, backstage: BackstageRig) -> dict[str, NewKey]:
    """Each way to a key: a function of the model that it is for, which returns the secret."""
    token = backstage.sign_in(f"user:default/{owner}", uncatalogued=True)
    on_behalf = Client(backstage.url, token).get("/api/rig/plugin-token", target="litellm", obo="1")
    bridge_token = backstage.keycloak_token(preferred_username=owner, email=f"{owner}@example.com")

    dave = Client(service.url, backstage.sign_in("dave"))
    team = {"team_alias": f"Team of {owner}", "models": ["gpt-4o", "gpt-4o-mini"], "max_budget": 9}
    team_path = f"/teams/{json_of(dave.post('/teams', team))['team_id']}/keys"

    def generate(token: str, path: str = "/keys/generate", **more: str) -> NewKey:
        def made(model: str) -> str:
            body = {"alias": f"key-{uuid4().hex}", "models": [model], "max_budget": 1, **more}
            return str(json_of(Client(service.url, token).post(path, body))["key"])

        return made

    return {
        "`POST /keys/generate`, by a user": generate(token),
        "`POST /keys/generate`, by a service": generate(
            STATIC_TOKEN, user_id=f"{owner}@example.com"
        ),
        "`POST /keys/generate`, by a plugin on behalf of a user": generate(
            str(json_of(on_behalf)["token"])
        ),
        "`POST /bridge/keys`": generate(bridge_token, "/bridge/keys"),
        "`POST /teams/:id/keys`": generate(str(dave.token), team_path, duration="1h"),
        "`GET /opencode/connect`": lambda _: connect(Client(service.url, token))["key"],
    }


@pytest.fixture(autouse=True)
def _no_server_is_left(litellm: LiteLLMRig) -> Iterator[None]:
    yield
    for server in json_of(litellm.admin.get("/v1/mcp/server")):
        if server["server_id"] != "rig_tools":
            litellm.admin.delete(f"/v1/mcp/server/{server['server_id']}")


def test_a_key_manages_nothing_and_makes_no_other(
    litellm: LiteLLMRig, management: list[str], role: str, ways: dict[str, NewKey], told: Told
) -> None:
    dearest = [route for route in management if route.split()[1].startswith(DEAREST)]
    for number, (way, new_key) in enumerate(ways.items()):
        whole = EVERY_PAIR or role == "proxy_admin" or number == 0
        secret = new_key("gpt-4o-mini")
        assert litellm.complete(secret).status_code == 200, way
        client = Client(litellm.url, secret)

        def status(route: str, client: Client = client) -> tuple[str, int]:
            method, path = re.sub(r"\{[^}]*\}", "nope", route).split()
            body: Any = None if method == "GET" else {"server_id": "nope"}
            return route, client.ask(method, path, json=body).status_code

        with ThreadPoolExecutor(8) as pool:
            statuses = dict(pool.map(status, management if whole else dearest))
        answered = {route for route, code in statuses.items() if code not in {401, 403}}
        managing = {route for route in answered if not route.split()[1].startswith(REGISTRIES)}
        assert managing <= OPEN.get((LITELLM_VERSION, role), set()), way
        assert "POST /key/generate" in statuses
        told(f"{role}, {way}: {len(statuses) - len(answered)} of {len(statuses)} routes refused")


def test_a_key_asks_no_other_model_than_it_is_for(
    litellm: LiteLLMRig, ways: dict[str, NewKey]
) -> None:
    for way, new_key in ways.items():
        if "opencode" not in way:  # its keys are for whatever the owner may ask
            secret = new_key("gpt-4o-mini")
            assert litellm.complete(secret, "gpt-4o-mini").status_code == 200, way
            assert litellm.refuses_model(secret, "gpt-4o"), way


def test_registries_are_open_as_the_documentation_says(
    litellm: LiteLLMRig, role: str, ways: dict[str, NewKey], told: Told
) -> None:
    name = f"agent-{uuid4().hex[:8]}"
    card = {"name": name, "description": "d", "url": "http://127.0.0.1:9/", "version": "1"}
    agent = {
        "agent_name": name,
        "agent_card_params": {
            **card,
            "protocolVersion": "1.0",
            "capabilities": {"streaming": True},
            "skills": [],
            "defaultInputModes": ["text"],
            "defaultOutputModes": ["text"],
        },
        "litellm_params": {},
    }
    plugin = {"name": name, "source": {"source": "github", "repo": "a/b"}}
    secret = next(iter(ways.values()))("gpt-4o-mini")
    key = Client(litellm.url, secret)
    made = {
        "agent": key.post("/v1/agents", agent).status_code,
        "plugin": key.post("/claude-code/plugins", plugin).status_code,
    }
    for row in json_of(litellm.admin.get("/v1/agents")):
        if row["agent_name"] == name:
            litellm.admin.delete(f"/v1/agents/{row['agent_id']}")
    litellm.admin.delete(f"/claude-code/plugins/{name}")
    anybody = LITELLM_VERSION == "1.81.14"
    assert (made["agent"] < 300) is (anybody or role == "proxy_admin"), made
    assert made["plugin"] >= 400 or role == "proxy_admin", made
    told(f"{role}: POST /v1/agents {made['agent']}, POST /claude-code/plugins {made['plugin']}")
