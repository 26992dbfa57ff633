"""The database of the LiteLLM stand-in: LiteLLM's rows, and how they change.

LiteLLM's own rules are here (which keys are deleted with a team, when budgets are reset); the
validation of requests is in ``litellm``.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import re
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from litellm_plugin.sandbox.activity import UsageRow
from litellm_plugin.sandbox.refusals import Json

ADMIN = "default_user_id"  # LiteLLM's user for the master key

SHAPES: dict[str, Json] = json.loads(Path(__file__).with_name("shapes.json").read_text("utf-8"))

KEYS, TEAMS, USERS = "LiteLLM_VerificationToken", "LiteLLM_TeamTable", "LiteLLM_UserTable"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "mo": 2592000}


class Store:
    """LiteLLM's database, in memory. Hold ``lock`` around operations that belong together.

    Args:
        clock: Returns the Unix time, in seconds.

    Attributes:
        users, teams: Rows by id.
        keys: Rows by the key's hash.
        deleted_keys: Rows of deleted keys, by hash.
        memberships: Rows by team id and user id.
        objects: The vector stores and MCP servers of teams, by team id.
        models, vector_stores, mcp_servers: Rows of their lists.
        usage: The usage of keys, by day.
        audit_log: Entries, oldest first.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._past = timedelta(0)
        self.lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Delete all rows."""
        with self.lock:
            self.users: dict[str, Json] = {}
            self.teams: dict[str, Json] = {}
            self.keys: dict[str, Json] = {}
            self.deleted_keys: dict[str, Json] = {}
            self.memberships: dict[tuple[str, str], Json] = {}
            self.objects: dict[str, Json] = {}
            self.models: list[Json] = []
            self.vector_stores: list[Json] = []
            self.mcp_servers: list[Json] = []
            self.usage: list[UsageRow] = []
            self.audit_log: list[Json] = []

    def now(self) -> datetime:
        """Return the present time of the store, in UTC."""
        return datetime.fromtimestamp(self._clock(), UTC) - self._past

    @contextmanager
    def days_ago(self, days: float) -> Iterator[None]:
        """Move the store's time ``days`` back inside the block, but not the resets of budgets."""
        with self.lock:
            self._past = timedelta(days=days)
            try:
                yield
            finally:
                self._past = timedelta(0)

    def change(self, row: Json, changes: Mapping[str, Any]) -> None:
        """Update a row."""
        row.update(changes)
        if "budget_duration" in changes:
            today = self.now() + self._past
            row["budget_reset_at"] = _next_reset(today, changes["budget_duration"])
        row["updated_at"] = stamp(self.now())

    def record(
        self, action: str, table: str, id_: str, changes: Json, before: Json | None = None
    ) -> None:
        """Write an entry of the audit log."""
        entry = {
            "id": str(uuid.uuid4()),
            "updated_at": stamp(self.now()),
            "changed_by": ADMIN,
            "changed_by_api_key": "litellm_proxy_master_key",
            "action": action,
            "table_name": table,
            "object_id": id_,
            "before_value": before,
            "updated_values": dict(changes),
        }
        self.audit_log.append(entry)

    # -- users ---------------------------------------------------------------

    def add_user(self, user_id: str, fields: Json) -> Json:
        """Create a user, and return the row."""
        user = self._add("user", self.users, user_id, {"user_id": user_id, **fields})
        self.record("created", USERS, user_id, fields)
        return user

    def delete_user(self, user_id: str) -> None:
        """Delete a user, with keys and memberships."""
        user = self.users[user_id]
        for team_id in list(user["teams"]):
            self.remove_member(team_id, user_id)
        self.delete_keys([key["token"] for key in self.keys_of(user_id=user_id)])
        del self.users[user_id]
        self.record("deleted", USERS, user_id, {}, user)

    # -- keys ----------------------------------------------------------------

    def add_key(
        self, fields: Json, *, secret: str | None = None, made_by: str | None = ADMIN
    ) -> tuple[str, Json]:
        """Create a key, and return its secret and its row."""
        secret = secret or f"sk-{secrets.token_urlsafe(16)}"
        token = token_of(secret)
        made = {"token": token, "key_name": f"sk-...{secret[-4:]}"}
        row = {**fields, **made, "created_by": made_by, "updated_by": made_by}
        key = self._add("key", self.keys, token, row)
        self.record("created", KEYS, token, fields)
        return secret, key

    def delete_keys(self, tokens: Iterable[str]) -> None:
        """Move keys to ``deleted_keys``; unknown keys are ignored."""
        for token in tokens:
            key = self.keys.pop(token, None)
            if key is None:
                continue
            gone = {"deleted_at": stamp(self.now()), "deleted_by": ADMIN}
            self.deleted_keys[token] = {**key, **gone}
            self.record("deleted", KEYS, token, {}, {"key_alias": key["key_alias"]})

    def keys_of(self, **wanted: str) -> list[Json]:
        """Return the keys of a user, a team, or both."""
        return [key for key in self.keys.values() if wanted.items() <= key.items()]

    def key_status(self, key: Json) -> str:
        """Return ``active``, ``expired``, ``revoked`` (blocked) or ``deleted``."""
        if "deleted_at" in key:
            return "deleted"
        if key["blocked"]:
            return "revoked"
        expires = key["expires"]
        expired = expires is not None and datetime.fromisoformat(expires) <= self.now()
        return "expired" if expired else "active"

    # -- teams ---------------------------------------------------------------

    def add_team(self, team_id: str, fields: Json) -> Json:
        """Create a team without members, and return the row."""
        team = self._add("team", self.teams, team_id, {"team_id": team_id, **fields})
        self.record("created", TEAMS, team_id, fields)
        return team

    def delete_team(self, team_id: str) -> None:
        """Delete a team, its memberships and its keys."""
        for member in list(self.teams[team_id]["members_with_roles"]):
            self.remove_member(team_id, member["user_id"])
        self.delete_keys([key["token"] for key in self.keys_of(team_id=team_id)])
        team = self.teams.pop(team_id)
        self.objects.pop(team_id, None)
        self.record("deleted", TEAMS, team_id, {}, {"team_alias": team["team_alias"]})

    def memberships_of(self, team_id: str) -> list[Json]:
        """Return the memberships of a team."""
        return [row for (team, _user), row in self.memberships.items() if team == team_id]

    def add_member(
        self, team: Json, user_id: str, role: str = "user", max_budget: float | None = None
    ) -> Json:
        """Add a member, create the user if unknown, and return the membership."""
        if user_id not in self.users and user_id != ADMIN:
            self.add_user(user_id, {"user_role": "internal_user"})
        user = self.users.get(user_id, {"user_email": None, "teams": []})
        member = {"user_id": user_id, "user_email": user["user_email"], "role": role}
        team["members_with_roles"].append(member)
        user["teams"].append(team["team_id"])
        self.change(team, {})
        budget = None
        if max_budget is not None:
            budget = {"budget_id": str(uuid.uuid4()), "max_budget": max_budget}
        membership = {
            "user_id": user_id,
            "team_id": team["team_id"],
            "budget_id": budget and budget["budget_id"],
            "spend": 0.0,
            "total_spend": 0.0,
            "litellm_budget_table": budget,
        }
        self.memberships[team["team_id"], user_id] = membership
        return membership

    def remove_member(self, team_id: str, user_id: str) -> None:
        """Remove a member from a team, and delete the member's keys in it."""
        team, user = self.teams[team_id], self.users.get(user_id)
        rest = [member for member in team["members_with_roles"] if member["user_id"] != user_id]
        self.change(team, {"members_with_roles": rest})
        self.memberships.pop((team_id, user_id), None)
        if user is not None:
            user["teams"] = [own for own in user["teams"] if own != team_id]
        own_keys = self.keys_of(team_id=team_id, user_id=user_id)
        self.delete_keys([key["token"] for key in own_keys])

    def give_objects(self, team: Json, objects: Json) -> None:
        """Set the vector stores and MCP servers of a team."""
        shape, team_id = SHAPES["object_permission"], team["team_id"]
        known = {name: value for name, value in objects.items() if name in shape}
        before = self.objects.get(team_id, deepcopy(shape))
        id_ = {"object_permission_id": before["object_permission_id"] or str(uuid.uuid4())}
        self.objects[team_id] = {**before, **known, **id_}
        # LiteLLM's row has only the id; lists and member calls answer with null.
        team.update(id_)

    # -- usage ---------------------------------------------------------------

    def add_usage(self, rows: Iterable[UsageRow]) -> None:
        """Add usage, and its spend to the keys, users and teams."""
        for row in rows:
            self.usage.append(row)
            if (key := self.keys.get(row.token)) is not None:
                key["spend"] += row.spend
                key["total_spend"] += row.spend
            for owner in (self.users.get(row.user_id or ""), self.teams.get(row.team_id or "")):
                if owner is not None:
                    owner["spend"] += row.spend

    def _add(self, kind: str, rows: dict[str, Json], id_: str, fields: Json) -> Json:
        row = deepcopy(SHAPES[kind])
        self.change(row, fields)
        row["created_at"] = row["updated_at"]
        rows[id_] = row
        return row


def token_of(key: str) -> str:
    """Return the hash of a key; ``key`` is its secret or the hash itself."""
    return hashlib.sha256(key.encode()).hexdigest() if key.startswith("sk-") else key


def seconds(duration: str) -> int:
    """Return the seconds of ``30s``, ``1h``, ``30d`` or ``1mo``.

    Raises:
        ValueError: ``duration`` is invalid; the message is LiteLLM's.
    """
    match = re.fullmatch(r"(\d{1,9})([a-z]+)", duration)
    if match is None:
        raise ValueError("Invalid duration format")
    if match[2] not in _UNITS:
        raise ValueError(f"Unsupported duration unit, passed duration: {duration}")
    return int(match[1]) * _UNITS[match[2]]


def stamp(moment: datetime) -> str:
    """Return a time in LiteLLM's usual format: UTC, whole milliseconds, six digits, Z."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}000Z"


def _next_reset(now: datetime, duration: str | None) -> str | None:
    # LiteLLM aligns budgets to hours, days, weeks and months.
    if duration is None:
        return None
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    length = timedelta(seconds=seconds(duration))
    if duration in {"30d", "1mo"}:
        days = calendar.monthrange(now.year, now.month)[1] + 1 - now.day
        reset = midnight + timedelta(days=days)
    elif duration == "7d":
        reset = midnight + timedelta(days=7 - now.weekday())
    elif length % timedelta(days=1):
        reset = now.replace(minute=0, second=0, microsecond=0) + length
    else:
        reset = midnight + length
    return f"{reset:%Y-%m-%dT%H:%M:%SZ}"
