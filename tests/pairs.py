"""Every write on one team and one key, in pairs that are sent at once, and what must come of them.

Of two writes at once LiteLLM must have the sum, or one of them is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from litellm_plugin.sandbox.litellm import LiteLLMStandIn
from litellm_plugin.sandbox.store import token_of

Json = dict[str, Any]

BASED_ON = "2026-11-23T09:36:06.703Z"
STORE, SERVER = "vs-docs", "mcp-docs"
REFUSED = frozenset({400, 404, 409, 503})


@dataclass(frozen=True)
class Thing:
    """The team or the key that both write to, as LiteLLM has it: empty where it is gone."""

    row: Json
    objects: Json
    members: frozenset[str]


@dataclass(frozen=True)
class Write:
    """A request, and how to see that it was carried out.

    Attributes:
        path: Below ``/teams/:id`` or ``/keys/:id``.
        done: Tells it, where the team or the key is still there.
        deletes: Whether nothing is left after it.
        based: Whether it is refused after any other write.
    """

    name: str
    method: str
    path: str
    body: Json | None
    done: Callable[[Thing], bool]
    deletes: bool = False
    based: bool = False

    def __str__(self) -> str:
        return self.name


def _sets(name: str, method: str = "PATCH", path: str = "", **body: Any) -> Write:
    return Write(
        name,
        method,
        path,
        body,
        lambda thing: all(
            thing.row[field] == value
            for field, value in body.items()
            if field != "expectedUpdatedAtIso"
        ),
        based="expectedUpdatedAtIso" in body,
    )


TEAM_WRITES = (
    _sets("rename", team_alias="After"),
    _sets("models", models=["gpt-4o-mini"]),
    _sets("budget", max_budget=7, budget_duration="7d"),
    _sets("block", blocked=True),
    _sets("based-tpm", tpm_limit=5, expectedUpdatedAtIso=BASED_ON),
    _sets("based-rpm", rpm_limit=6, expectedUpdatedAtIso=BASED_ON),
    Write(
        "stores",
        "PUT",
        "/knowledge-bases",
        {"vector_stores": [STORE]},
        lambda team: team.objects.get("vector_stores") == [STORE],
    ),
    Write(
        "servers",
        "PUT",
        "/mcp-servers",
        {"mcp_servers": [SERVER]},
        lambda team: team.objects.get("mcp_servers") == [SERVER],
    ),
    Write(
        "add",
        "POST",
        "/members",
        {"userEntityRef": "user:default/bob"},
        lambda team: "bob@example.com" in team.members,
    ),
    Write(
        "remove",
        "DELETE",
        "/members?userEntityRef=carol%40example.com",
        None,
        lambda team: "carol@example.com" not in team.members,
    ),
    Write("delete", "DELETE", "?force=true", None, lambda _: False, deletes=True),
)
KEY_WRITES = (
    _sets("key-rename", "POST", "/update", key_alias="after"),
    _sets("key-models", "POST", "/update", models=["gpt-4o-mini"]),
    _sets("key-budget", "POST", "/update", max_budget=7),
    _sets("key-limits", "POST", "/update", tpm_limit=5, rpm_limit=6),
    Write("key-block", "POST", "/block", {}, lambda key: key.row["blocked"] is True),
    Write("key-spend", "POST", "/reset_spend", {}, lambda key: key.row["spend"] == 0),
    Write("key-delete", "DELETE", "", None, lambda _: False, deletes=True),
)
PAIRS = (
    *itertools.combinations_with_replacement(TEAM_WRITES, 2),
    *itertools.combinations_with_replacement(KEY_WRITES, 2),
)

# Each write with itself, and with the next one.
SOME = tuple(
    pair
    for writes in (TEAM_WRITES, KEY_WRITES)
    for pair in (*zip(writes, writes, strict=True), *itertools.pairwise(writes))
)

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Target:
    """A team or a key of Alice's that no other pair writes to.

    Attributes:
        path: ``/teams/:id`` or ``/keys/:id``.
    """

    litellm: LiteLLMStandIn
    path: str

    @property
    def id(self) -> str:
        return self.path.rpartition("/")[2]

    def now(self) -> Thing:
        """Return what is left of it."""
        store = self.litellm.store
        members = frozenset(user for team, user in store.memberships if team == self.id)
        row = {**store.teams, **store.keys}.get(self.id, {})
        return Thing(dict(row), store.objects.get(self.id) or {}, members)


def furnish(litellm: LiteLLMStandIn) -> None:
    """Let a stand-in know Alice, Bob, Carol, and what a team may be given."""
    for name in ("alice", "bob", "carol"):
        if f"{name}@example.com" not in litellm.store.users:
            litellm.user_new({"user_id": f"{name}@example.com", "auto_create_key": False})
    if SERVER not in {row["server_id"] for row in litellm.store.mcp_servers}:
        litellm.store.mcp_servers.append({"server_id": SERVER, "alias": "docs"})


def target(litellm: LiteLLMStandIn, write: Write, owner: str) -> Target:
    """Make what a pair writes to.

    Args:
        litellm: Where.
        write: One of the pair.
        owner: The team admins' group.
    """
    number = next(_numbers)
    if write in KEY_WRITES:
        litellm.store.keys.clear()  # an earlier pair's key has the name that this one is given
        secret = f"sk-pair-{number:020}"
        litellm.key_generate(
            {"key": secret, "key_alias": f"pair-{number}", "user_id": "alice@example.com"}
        )
        token = token_of(secret)
        litellm.store.keys[token]["spend"] = 1.5
        return Target(litellm, f"/keys/{token}")
    team_id = f"pair-{number}"
    metadata = {"owning_group": owner, "updated_at_iso": BASED_ON, "kept": ["as it is"]}
    carol = {"user_id": "carol@example.com", "role": "user"}
    litellm.team_new(
        {"team_id": team_id, "team_alias": "Before", "max_budget": 5, "models": ["gpt-4o"]}
        | {"metadata": metadata, "members_with_roles": [carol]}
    )
    return Target(litellm, f"/teams/{team_id}")


def faults(pair: tuple[Write, Write], statuses: tuple[int, int], thing: Thing) -> Iterator[str]:
    """Yield what is not as it must be after a pair.

    Args:
        pair: What was asked.
        statuses: What was answered.
        thing: What LiteLLM has then.
    """
    done = [write for write, status in zip(pair, statuses, strict=True) if status == 200]
    if not done:
        yield f"both were refused: {statuses}"
    # LiteLLM's 404 for a key that has just been deleted is this service's 500.
    refused = REFUSED | {500} if any(write.deletes for write in done) else REFUSED
    for status in statuses:
        if status != 200 and status not in refused:
            yield f"answered {status}"
    if all(write.based for write in pair) and len(done) > 1:
        yield "both were based on the same state, and neither was refused"
    if any(write.deletes for write in done):
        if thing.row:
            yield "it was deleted, and is there"
        return
    for write in done:
        if not write.done(thing):
            yield f"{write} was answered 200 and is lost"
    metadata = thing.row.get("metadata") or {}
    if pair[0] in TEAM_WRITES and metadata.get("kept") != ["as it is"]:
        yield f"metadata is lost: {metadata}"
