"""The sandbox's LiteLLM as a host of the tests' network: it keeps what it is told."""

from __future__ import annotations

import functools
from datetime import date

from litellm_plugin.sandbox.activity import UsageRow
from litellm_plugin.sandbox.litellm import LiteLLMStandIn
from litellm_plugin.sandbox.store import token_of
from tests.fakes import Asked, Reply
from tests.fakes.litellm import BASE_URL, MASTER_KEY

TEAM_ADMINS = "group:default/litellm-team-admins"
SECRET = "sk-alice-laptop-0123456789"
KEY = token_of(SECRET)
TEAM = "team-platform"
TEAM_SECRET = "sk-platform-nightly-0123456789"
TEAM_KEY = token_of(TEAM_SECRET)
IDS = {"token": KEY, "team_id": TEAM, "key": TEAM_KEY}  # of the placeholders of paths


class StandIn:
    """A LiteLLM with a memory.

    Attributes:
        litellm: The stand-in; fill it by its handlers.
        failures: By path, the status it answers with instead, or what the connection fails
            with; "" stands for every other path.
        writes: Paths of the calls that were no reads, oldest first.
    """

    def __init__(self, base_url: str = BASE_URL, master_key: str = MASTER_KEY) -> None:
        self.base_url = base_url
        self.litellm = LiteLLMStandIn(master_key)
        self.failures: dict[str, int | Exception] = {}
        self.writes: list[str] = []
        self._client = self.litellm.app.test_client()

    def answer(self, asked: Asked) -> Reply:
        if asked.method != "GET":
            self.writes.append(asked.path)
        failure = self.failures.get(asked.path, self.failures.get(""))
        if isinstance(failure, Exception):
            raise failure
        if failure is not None:
            return Reply(failure, {"error": {"message": "told to fail", "code": str(failure)}})
        answer = self._client.open(
            asked.path,
            method=asked.method,
            query_string=asked.query,
            data=asked.body,
            headers=dict(asked.headers),
        )
        kind = {"Content-Type": answer.content_type or ""}
        return Reply(answer.status_code, text=answer.text, headers=kind)


@functools.cache
def _shared() -> StandIn:
    return StandIn()  # Flask takes its time to put the routes together


def furnished() -> StandIn:
    """Return one where alice and jane are in a team of the team admins', and alice has a key.

    It is the same one each time, as new.
    """
    host = _shared()
    host.failures.clear()
    host.writes.clear()
    litellm = host.litellm
    litellm.store.reset()
    for user_id in ("alice@example.com", "jane@example.com"):
        litellm.user_new({"user_id": user_id, "max_budget": 10, "auto_create_key": False})
    roles = [{"user_id": f"{name}@example.com", "role": "user"} for name in ("alice", "jane")]
    litellm.team_new(
        {
            "team_id": TEAM,
            "team_alias": "Platform",
            "max_budget": 50,
            "members_with_roles": roles,
            "metadata": {
                "owning_group": TEAM_ADMINS,
                "updated_at_iso": "2026-11-23T09:36:06.703Z",
            },
        }
    )
    litellm.key_generate(
        {"key": SECRET, "key_alias": "alice-laptop", "user_id": "alice@example.com"}
    )
    litellm.key_generate(
        {
            "key": TEAM_SECRET,
            "key_alias": "nightly",
            "team_id": TEAM,
            "key_type": "llm_api",
            "duration": "90d",
            "max_budget": 20,
            "metadata": {"backstage_team_key": True, "service_account_id": "nightly"},
        }
    )
    litellm.store.models.append({"model_name": "gpt-4o-mini", "model_info": {"mode": "chat"}})
    litellm.store.vector_stores.append({"vector_store_id": "vs-docs", "vector_store_name": "Docs"})
    litellm.store.mcp_servers.append({"server_id": "mcp-docs", "alias": "docs"})
    litellm.store.add_usage(
        [
            UsageRow(
                day=date(2026, 11, 2),
                token=KEY,
                user_id="alice@example.com",
                team_id=TEAM,
                model="gpt-4o-mini",
                deployment="openai/gpt-4o-mini",
                spend=0.4,
                prompt_tokens=400,
                completion_tokens=140,
                successful_requests=9,
                failed_requests=1,
            )
        ]
    )
    return host
