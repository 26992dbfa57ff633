"""The data of the sandbox: people, groups, teams, keys, and 30 days of usage.

alice is an admin, bob a plain user, and carol a power user without a LiteLLM account yet.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from zlib import crc32

from litellm_plugin.sandbox.activity import UsageRow
from litellm_plugin.sandbox.litellm import LiteLLMStandIn

Json = dict[str, Any]

ADMINS = "group:default/platform-admins"
POWER_USERS = "group:default/ai-power-users"
SEARCH = "group:default/search"

USAGE_DAYS = 30
_FOUNDED = 40  # days ago


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the catalog."""

    name: str
    display_name: str
    groups: tuple[str, ...]  # full refs
    about: str

    @property
    def entity_ref(self) -> str:
        """The entity ref, which is the subject of the person's tokens."""
        return f"user:default/{self.name}"

    @property
    def email(self) -> str:
        """The e-mail of the profile."""
        return f"{self.name}@example.com"

    def entity(self) -> Json:
        """Return the catalog's entity."""
        profile = {"displayName": self.display_name, "email": self.email}
        members = [group.rpartition("/")[2] for group in self.groups]
        return _entity("User", self.name, {"profile": profile, "memberOf": members}, self.groups)


BOB = Person("bob", "Bob Brown", (SEARCH,), "a developer with keys, teams and a month of usage")
CAROL = Person(
    *("carol", "Carol Clark", (POWER_USERS,)),
    "new: her first visit creates her LiteLLM user, with her group's role",
)
ALICE = Person(
    *("alice", "Alice Adams", (ADMINS,)),
    "in the admin group: she creates teams and reads the audit log",
)
PEOPLE = (BOB, CAROL, ALICE)


def catalog() -> list[Json]:
    """Return the entities of all people and groups."""
    groups = [
        _entity("Group", ref.rpartition("/")[2], {"type": "team", "children": []})
        for ref in (ADMINS, POWER_USERS, SEARCH)
    ]
    return [*groups, *(person.entity() for person in PEOPLE)]


def _entity(kind: str, name: str, spec: Json, groups: Iterable[str] = ()) -> Json:
    uid = uuid.uuid5(uuid.NAMESPACE_URL, f"{kind}:default/{name}")
    return {
        "apiVersion": "backstage.io/v1alpha1",
        "kind": kind,
        "metadata": {
            "namespace": "default",
            "annotations": {},
            "name": name,
            "uid": str(uid),
            "etag": uid.hex,
        },
        "spec": spec,
        "relations": [{"type": "memberOf", "targetRef": group} for group in groups],
    }


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    deployment: str
    prompt_price: float  # USD per token
    completion_price: float
    most_input: int
    access_groups: tuple[str, ...] = ()
    mode: str = "chat"

    def row(self) -> Json:
        chat = self.mode == "chat"
        groups = {"access_groups": list(self.access_groups)} if self.access_groups else {}
        return {
            "model_name": self.name,
            "litellm_params": {"model": self.deployment},
            "model_info": {
                "mode": self.mode,
                "input_cost_per_token": self.prompt_price,
                "output_cost_per_token": self.completion_price,
                "max_input_tokens": self.most_input,
                "max_output_tokens": 16384 if chat else None,
                "supports_function_calling": chat,
                "supports_vision": "premium" in self.access_groups,
                **groups,
            },
        }


MODELS = (
    _Model("gpt-4o", "openai/gpt-4o", 2.5e-6, 1e-5, 128000, ("premium",)),
    _Model("gpt-4o-mini", "openai/gpt-4o-mini", 1.5e-7, 6e-7, 128000, ("everyone",)),
    _Model("claude-sonnet-4", "anthropic/claude-sonnet-4", 3e-6, 1.5e-5, 200000, ("premium",)),
    _Model("llama-3-8b", "ollama/llama-3-8b", 0.0, 0.0, 8192, ("everyone",)),
    _Model(
        "text-embedding-3-small",
        "openai/text-embedding-3-small",
        2e-8,
        0.0,
        8191,
        mode="embedding",
    ),
)

_TEAMS: tuple[tuple[Json, tuple[Person, ...]], ...] = (
    (
        {
            "team_id": "team-platform",
            "team_alias": "Platform",
            "max_budget": 50,
            "budget_duration": "30d",
            "models": ["gpt-4o", "gpt-4o-mini", "claude-sonnet-4"],
            "metadata": {"owning_group": ADMINS},
        },
        (ALICE, BOB),
    ),
    (
        {
            "team_id": "team-search",
            "team_alias": "Search",
            "max_budget": 25,
            "budget_duration": "30d",
            "tpm_limit": 50000,
            "metadata": {"owning_group": SEARCH},
        },
        (BOB,),
    ),
    ({"team_id": "team-power-users", "team_alias": "Power users"}, ()),
)


@dataclass(frozen=True, slots=True)
class _Key:
    alias: str
    owner: Person | None
    uses: dict[str, int]  # requests on a quiet day, by model
    fields: Json = field(default_factory=dict)
    last_used: int = 0  # days ago
    blocked: bool = False


_KEYS = (
    _Key("alice-laptop", ALICE, {"gpt-4o": 8, "claude-sonnet-4": 6}),
    _Key("bob-laptop", BOB, {"gpt-4o": 6, "gpt-4o-mini": 14, "llama-3-8b": 4}),
    _Key(
        "bob-ci",
        BOB,
        {"gpt-4o-mini": 30},
        {"max_budget": 5, "budget_duration": "30d", "models": ["gpt-4o-mini"], "duration": "90d"},
    ),
    _Key("bob-platform", BOB, {"claude-sonnet-4": 5}, {"team_id": "team-platform"}),
    _Key("bob-hackathon", BOB, {"gpt-4o": 5}, {"duration": "28d"}, last_used=12),  # has expired
    _Key("bob-lost", BOB, {"gpt-4o-mini": 2}, last_used=6, blocked=True),
    _Key(
        "search-indexer",
        None,
        {"text-embedding-3-small": 90, "gpt-4o": 30},
        {"team_id": "team-search", "key_type": "llm_api", "rpm_limit": 600},
    ),
)


def fill(litellm: LiteLLMStandIn, *, user_id_domain: str | None, today: date) -> None:
    """Put models, users, teams, keys and their usage into an empty LiteLLM.

    Args:
        litellm: The stand-in.
        user_id_domain: ``litellm.userIdDomain``, the domain of LiteLLM ids.
        today: The last day of usage, in UTC.
    """
    ids = {p: f"{p.name}@{user_id_domain}" if user_id_domain else p.name for p in PEOPLE}
    with litellm.store.days_ago(_FOUNDED):
        litellm.store.models.extend(model.row() for model in MODELS)
        _fill_objects(litellm)
        for person, max_budget in ((ALICE, 100), (BOB, 20)):
            user: Json = {"user_id": ids[person], "user_email": person.email}
            user |= {"user_alias": person.display_name, "user_role": "internal_user"}
            user |= {"max_budget": max_budget, "budget_duration": "30d"}
            litellm.user_new({**user, "auto_create_key": False})
        for team, members in _TEAMS:
            roles = [{"role": "user", "user_id": ids[member]} for member in members]
            litellm.team_new({**team, "members_with_roles": roles})
    for days_later, key in enumerate(_KEYS):
        with litellm.store.days_ago(_FOUNDED - days_later):
            _fill_key(litellm, key, ids.get(key.owner) if key.owner else None, today)


def _fill_key(litellm: LiteLLMStandIn, key: _Key, user_id: str | None, today: date) -> None:
    # These keys need not be secret: every sandbox has the same.
    body = {"key": f"sk-sandbox-{key.alias}", "key_alias": key.alias, "user_id": user_id}
    row = litellm.key_generate({**body, "metadata": {"created_via": "sandbox"}, **key.fields})
    litellm.store.add_usage(_usage(key, row["token"], user_id, today))
    if key.blocked:
        litellm.key_block({"key": row["token"]})


def _usage(key: _Key, token: str, user_id: str | None, today: date) -> Iterator[UsageRow]:
    models = {model.name: model for model in MODELS}
    for ago in range(key.last_used, USAGE_DAYS):
        for name, quiet in key.uses.items():
            model = models[name]
            noise = crc32(f"{key.alias} {name} {ago}".encode())
            requests = quiet + noise % (2 * quiet)
            prompt, completion = requests * (1800 + noise % 1031), requests * (420 + noise % 527)
            completion = completion if model.mode == "chat" else 0
            failed = noise % 17 // 16
            yield UsageRow(
                day=today - timedelta(days=ago),
                token=token,
                user_id=user_id,
                team_id=key.fields.get("team_id"),
                model=name,
                deployment=model.deployment,
                spend=prompt * model.prompt_price + completion * model.completion_price,
                prompt_tokens=prompt,
                completion_tokens=completion,
                successful_requests=requests - failed,
                failed_requests=failed,
            )


def _fill_objects(litellm: LiteLLMStandIn) -> None:
    for name in ("docs", "runbooks"):
        store = {"vector_store_id": f"vs-{name}", "vector_store_name": name.capitalize()}
        litellm.store.vector_stores.append(store)
    server = {"server_id": "mcp-tickets", "alias": "tickets", "url": "http://127.0.0.1:9/mcp"}
    litellm.store.mcp_servers.append(server)
