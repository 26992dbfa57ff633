"""A stand-in for the part of LiteLLM's management API that the plugin uses.

Shapes, statuses and quirks are those observed on LiteLLM 1.106, except where the plugin neither
sends nor reads them. Unlike the real one, it writes an audit log without a licence, and has no
models to call.
"""

from __future__ import annotations

import hmac
import json
import math
import re
import time
import uuid
from collections.abc import Callable, Iterable
from copy import deepcopy
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from litellm_plugin.sandbox.activity import UsageRow, keys_of, page_of
from litellm_plugin.sandbox.refusals import (
    Json,
    RefusedError,
    checked,
    dates,
    detail,
    invalid,
    printed_error,
    proxy_error,
    whole_number,
)
from litellm_plugin.sandbox.store import (
    ADMIN,
    KEYS,
    SHAPES,
    TEAMS,
    USERS,
    Store,
    seconds,
    stamp,
    token_of,
)

VERSION = "1.106.2"
MAX_BODY_BYTES = 1024 * 1024

_ROLES = ("proxy_admin", "proxy_admin_viewer", "internal_user", "internal_user_viewer")
_KEY_ROUTES = {
    "default": [],
    "llm_api": ["llm_api_routes"],
    "management": ["management_routes"],
    "read_only": ["info_routes"],
}
_LIMITS = ("models", "metadata", "max_budget", "budget_duration", "tpm_limit", "rpm_limit")
_USER_FIELDS = (*_LIMITS, "user_email", "user_alias", "user_role", "max_parallel_requests")
_USER_V2_FIELDS = (
    *(*_LIMITS, "user_id", "user_email", "user_alias", "user_role", "sso_user_id", "teams"),
    *("spend", "budget_reset_at", "created_at", "updated_at", "object_permission"),
    "model_max_budget",
)
_TEAM_FIELDS = (*_LIMITS, "team_alias", "blocked", "max_parallel_requests")
_KEY_FIELDS = (
    *(*_LIMITS, "key_alias", "user_id", "team_id", "blocked", "max_parallel_requests"),
    "spend",
)
_TIMES = ("created_at", "updated_at", "settings_updated_at", "deleted_at", "budget_reset_at")
_NO_ID = "Value error, Either user id or user email must be provided"


class LiteLLMStandIn:
    """LiteLLM with its database in memory.

    A handler (``user_new``, ``key_generate``, ...) takes the body or the query of its endpoint
    and returns the answer, or raises RefusedError. Call handlers directly to fill the stand-in.
    HTTP requests are served one at a time.

    Args:
        master_key: The only key that is accepted.
        clock: Returns the Unix time, in seconds.

    Attributes:
        app: The WSGI application.
        store: The database.
    """

    def __init__(self, master_key: str, *, clock: Callable[[], float] = time.time) -> None:
        self._master_key = master_key.encode()
        self.store = Store(clock)
        self.app = Flask("litellm_plugin.sandbox.litellm", static_folder=None)
        self.app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
        healthy = {"status": "healthy", "db": "connected"}
        # Only a licensed LiteLLM writes the audit log that is served here.
        licence = {"has_license": True, "license_type": "made up", "expiration_date": None}
        for method, path, handler in (
            ("GET", "/user/info", self.user_info),
            ("GET", "/v2/user/info", self.user_info_v2),
            ("GET", "/user/list", self.user_list),
            ("POST", "/user/new", self.user_new),
            ("POST", "/user/update", self.user_update),
            ("POST", "/user/delete", self.user_delete),
            ("POST", "/key/generate", self.key_generate),
            ("POST", "/key/update", self.key_update),
            ("POST", "/key/block", self.key_block),
            ("POST", "/key/unblock", self.key_unblock),
            ("POST", "/key/<path:key>/reset_spend", self.key_reset_spend),
            ("POST", "/key/delete", self.key_delete),
            ("GET", "/key/info", self.key_info),
            ("GET", "/key/list", self.key_list),
            ("GET", "/models", self.model_names),
            ("GET", "/model/info", lambda _: {"data": self.store.models}),
            ("GET", "/team/info", self.team_info),
            ("GET", "/team/list", self.team_list),
            ("GET", "/v2/team/list", self.team_list_v2),
            ("POST", "/team/new", self.team_new),
            ("POST", "/team/update", self.team_update),
            ("POST", "/team/delete", self.team_delete),
            ("POST", "/team/member_add", self.team_member_add),
            ("POST", "/team/member_delete", self.team_member_delete),
            ("GET", "/user/daily/activity", partial(self.activity, "user", 50)),
            ("GET", "/user/daily/activity/aggregated", partial(self.activity, "user", None)),
            ("GET", "/team/daily/activity", partial(self.activity, "team", 10)),
            ("GET", "/team/daily/activity/aggregated", partial(self.activity, "team", None)),
            ("GET", "/user/daily/activity/aggregated/keys", partial(self.key_sums, "user")),
            ("GET", "/team/daily/activity/aggregated/keys", partial(self.key_sums, "team")),
            ("GET", "/audit", self.audit),
            ("GET", "/vector_store/list", lambda _: {"data": self.store.vector_stores}),
            ("GET", "/v1/mcp/server", lambda _: self.store.mcp_servers),
            ("GET", "/health/readiness/details", lambda _: healthy | {"litellm_version": VERSION}),
            ("GET", "/health/license", lambda _: licence),
        ):
            self.app.add_url_rule(path, path, self._view(handler), methods=[method])
        self.app.add_url_rule("/health/readiness", "health", lambda: _json(healthy))
        self.app.register_error_handler(RefusedError, lambda exc: _json(exc.body, exc.status))
        self.app.register_error_handler(
            HTTPException, lambda exc: _json({"detail": exc.name}, exc.code or 500)
        )

    # -- users ---------------------------------------------------------------

    def user_info(self, query: Json) -> Json:
        """``GET /user/info``."""
        user_id = query["user_id"]
        if user_id not in self.store.users:
            raise proxy_error(404, f"User {user_id} not found")
        user = self.store.users[user_id]
        info = {**user, "organization_memberships": []}
        keys = self.store.keys_of(user_id=user_id)
        return {
            "user_id": user_id,
            "user_info": info,
            "keys": [{**key, "team_alias": self._team_alias(key["team_id"])} for key in keys],
            "teams": [self._listed(team_id, user_id) for team_id in user["teams"]],
        }

    def user_info_v2(self, query: Json) -> Json:
        """``GET /v2/user/info``: the user's row alone."""
        user_id = query["user_id"]
        if user_id not in self.store.users:
            raise proxy_error(404, f"User not found: {user_id}")
        user = self.store.users[user_id]
        return {name: value for name, value in user.items() if name in _USER_V2_FIELDS}

    def user_list(self, query: Json) -> Json:
        """``GET /user/list``, by parts of ids and of e-mails, ignoring letter case.

        A "_" in an e-mail stands for any character.
        """
        email = re.escape(query.get("user_email", "")).replace("_", ".")
        ids = [part.strip().lower() for part in query.get("user_ids", "").split(",")]
        rows = [
            {**user, "key_count": len(self.store.keys_of(user_id=user["user_id"]))}
            for user in self.store.users.values()
            if re.search(email, user["user_email"] or "", re.IGNORECASE)
            and any(part in user["user_id"].lower() for part in ids)
        ]
        return _page(query, "users", rows, page_size=25)

    def user_new(self, body: Json) -> Json:
        """``POST /user/new``."""
        given = checked(body)
        _check_user(given)
        user_id, email = given.get("user_id") or str(uuid.uuid4()), given.get("user_email")
        if user_id in self.store.users:
            raise printed_error(409, f"User with id {user_id} already exists")
        wanted = (email or "").strip().lower()
        for user in self.store.users.values() if wanted else ():
            if (user["user_email"] or "").lower() == wanted:
                raise printed_error(409, f"User with email {user['user_email']} already exists")
        fields = _taken(given, _USER_FIELDS, "user")
        user = self.store.add_user(user_id, fields)
        # LiteLLM only logs a team that does not exist.
        for team_id in (team for team in given.get("teams") or [] if team in self.store.teams):
            self.store.add_member(self.store.teams[team_id], user_id)
        secret = ""
        if given.get("auto_create_key") is not False:
            secret, _ = self.store.add_key({"user_id": user_id}, made_by=None)
        return {**fields, "user_id": user_id, "teams": user["teams"] or None, "key": secret}

    def user_update(self, body: Json) -> Json:
        """``POST /user/update``; an unknown user is created."""
        given = checked(body)
        _check_user(given)
        user_id, changes = given["user_id"], _taken(given, _USER_FIELDS, "user")
        if not changes.get("models", True):
            del changes["models"]  # LiteLLM ignores an empty list
        if user_id in self.store.users:
            self.store.change(self.store.users[user_id], changes)
            self.store.record("updated", USERS, user_id, changes)
        else:
            self.store.add_user(user_id, changes)
        return {"user_id": user_id, "data": self.store.users[user_id]}

    def user_delete(self, body: Json) -> int:
        """``POST /user/delete``, with keys and memberships."""
        ids = body.get("user_ids") or []
        for user_id in ids:
            if user_id not in self.store.users:
                raise detail(404, f"User not found, passed user_id={user_id}")
        for user_id in ids:
            self.store.delete_user(user_id)
        return len(ids)

    # -- keys ----------------------------------------------------------------

    def key_generate(self, body: Json) -> Json:
        """``POST /key/generate``; user, team and models need not exist."""
        given = checked(body)
        kind, secret = given.get("key_type") or "default", given.get("key")
        if kind not in _KEY_ROUTES:
            message = "Input should be 'llm_api', 'management', 'read_only' or 'default'"
            raise invalid(["body", "key_type"], "enum", message)
        _check_budget(given)
        self._check_alias_free(given.get("key_alias"))
        try:
            expires = self._later(given.get("duration"))
        except ValueError as exc:
            raise proxy_error(500, str(exc)) from None
        fields = _taken(given, _KEY_FIELDS, "key")
        fields.update(key_type=kind, allowed_routes=_KEY_ROUTES[kind], expires=_offset(expires))
        secret, key = self.store.add_key(fields, secret=secret)
        precise = f"{expires:%Y-%m-%dT%H:%M:%S.%fZ}" if expires else None
        return {**key, "key": secret, "token_id": key["token"], "expires": precise}

    def key_update(self, body: Json) -> Json:
        """``POST /key/update``: changes only the given fields; metadata is replaced as a whole."""
        given = checked(body)
        key = self._key(given["key"])
        _check_budget(given, kind="auth_error", param="None")
        _check_models(given, 400, kind="auth_error", param="None")
        self._check_alias_free(given.get("key_alias"), but=key["token"])
        user_id, team_id = key["user_id"], given.get("team_id")
        if team_id and user_id and (team_id, user_id) not in self.store.memberships:
            message = f"User={user_id} is not a member of the team={team_id}."
            raise proxy_error(403, message, kind="auth_error", param="None")
        changes = _taken(given, _KEY_FIELDS, "key")
        if "duration" in given:
            try:
                changes["expires"] = _offset(self._later(given["duration"], endless="-1"))
            except ValueError as exc:
                message = f"Authentication Error, {exc}"
                raise proxy_error(400, message, kind="auth_error", param="None") from None
        before = {name: key[name] for name in changes}
        self.store.change(key, {**changes, "settings_updated_at": stamp(self.store.now())})
        self.store.record("updated", KEYS, key["token"], changes, before)
        return {"key": given["key"], **_with_offsets(key)}

    def key_block(self, body: Json) -> Json:
        """``POST /key/block``."""
        return self._set_blocked(body, blocked=True)

    def key_unblock(self, body: Json) -> Json:
        """``POST /key/unblock``."""
        return self._set_blocked(body, blocked=False)

    def key_reset_spend(self, body: Json, key: str) -> Json:
        """``POST /key/{key}/reset_spend``."""
        spend = checked(body, "reset_to")["reset_to"]
        row = self.store.keys.get(token_of(key))
        if row is None:
            raise detail(404, f"Key {key} not found.")
        before = row["spend"]
        self.store.change(row, {"spend": spend})
        return {"key_hash": row["token"], "spend": spend, "previous_spend": before}

    def key_delete(self, body: Json) -> Json:
        """``POST /key/delete``: needs one known key; the answer lists all keys of the request."""
        named = checked(body)["keys"]
        known = [token_of(key) for key in named if token_of(key) in self.store.keys]
        if not known:
            raise printed_error(404, "No keys found")
        self.store.delete_keys(known)
        return {"deleted_keys": named}

    def key_info(self, query: Json) -> Json:
        """``GET /key/info``; finds deleted keys too."""
        named = query.get("key", "")
        token = token_of(named)
        key = self.store.keys.get(token) or self.store.deleted_keys.get(token)
        if key is None:
            raise _key_not_found("Key not found in database")
        info = {name: value for name, value in _with_offsets(key).items() if name != "token"}
        return {"key": named, "info": {**info, "status": self.store.key_status(key)}}

    def key_list(self, query: Json) -> Json:
        """``GET /key/list`` of whole rows, by default the newest first."""
        oldest_first = query.get("sort_order") == "asc"
        rows = list(self.store.keys.values())
        keys = [
            {**key, "expires": _zulu(key["expires"])}
            for key in (rows if oldest_first else reversed(rows))
            if query.get("user_id") in {None, key["user_id"]}
            and query.get("key_alias") in {None, key["key_alias"]}
        ]
        return _page(query, "keys", keys, page_size=10, size_name="size")

    def _key(self, named: str) -> Json:
        key = self.store.keys.get(token_of(named))
        if key is None:
            raise _key_not_found("Key not found.")
        return key

    def _token_with(self, alias: str) -> str | None:
        return next((t for t, key in self.store.keys.items() if key["key_alias"] == alias), None)

    def _check_alias_free(self, alias: str | None, *, but: str | None = None) -> None:
        if alias and self._token_with(alias) not in {None, but}:
            message = f"Key with alias '{alias}' already exists. "
            message += "Unique key aliases across all keys are required."
            raise proxy_error(400, message, kind="bad_request_error", param="key_alias")

    def _later(self, duration: str | None, *, endless: str | None = None) -> datetime | None:
        if duration is None or duration == endless:
            return None
        return self.store.now() + timedelta(seconds=seconds(duration))

    def _set_blocked(self, body: Json, *, blocked: bool) -> Json:
        key = self._key(checked(body, "key")["key"])
        self.store.change(key, {"blocked": blocked})
        action = "blocked" if blocked else "unblocked"
        self.store.record(action, KEYS, key["token"], {"blocked": blocked})
        return {**key, "expires": _zulu(key["expires"])}

    # -- models --------------------------------------------------------------

    def model_names(self, _query: Json) -> Json:
        """``GET /models``."""
        common = {"object": "model", "created": 1677610602, "owned_by": "openai"}
        told = ("mode", "max_input_tokens", "max_output_tokens")
        rows = [
            {"id": row["model_name"], **common, **{n: row["model_info"].get(n) for n in told}}
            for row in self.store.models
        ]
        return {"data": rows, "object": "list"}

    # -- teams ---------------------------------------------------------------

    def team_info(self, query: Json) -> Json:
        """``GET /team/info``; the only read with a team's vector stores and MCP servers."""
        team_id = query["team_id"]
        if team_id not in self.store.teams:
            text = str({"message": f"Team not found, passed team id: {team_id}."})
            raise proxy_error(404, text, kind="auth_error", param="None")
        return {
            "team_id": team_id,
            "team_info": self._with_objects(self.store.teams[team_id]),
            "keys": self.store.keys_of(team_id=team_id),
            "team_memberships": self.store.memberships_of(team_id),
        }

    def team_list(self, query: Json) -> list[Json]:
        """``GET /team/list``."""
        user_id, memberships = query.get("user_id"), self.store.memberships
        ids = (id_ for id_ in self.store.teams if not user_id or (id_, user_id) in memberships)
        return [self._listed(team_id, user_id) for team_id in ids]

    def team_list_v2(self, query: Json) -> Json:
        """``GET /v2/team/list``, of a user, the newest first; without keys and memberships."""
        user_id = query.get("user_id")
        if user_id is not None and user_id not in self.store.users:
            raise detail(404, f"User not found, passed user_id={user_id}")
        rows = [
            team
            for team in reversed(self.store.teams.values())
            if user_id is None or team["team_id"] in self.store.users[user_id]["teams"]
        ]
        return _page(query, "teams", rows, page_size=10)

    def team_new(self, body: Json) -> Json:
        """``POST /team/new``; the owner of the master key becomes the team's admin."""
        given = checked(body)
        _check_budget(given)
        team_id = given.get("team_id") or str(uuid.uuid4())
        if team_id in self.store.teams:
            text = f"Team id = {team_id} already exists. Please use a different team id."
            raise printed_error(400, text)
        members = _members(body.get("members_with_roles") or [])
        team = self.store.add_team(team_id, _taken(given, _TEAM_FIELDS, "team"))
        for member in members:
            self.store.add_member(team, member["user_id"], member["role"])
        self.store.add_member(team, ADMIN, "admin")
        if given.get("object_permission") is not None:
            self.store.give_objects(team, given["object_permission"])
        return team

    def team_update(self, body: Json) -> Json:
        """``POST /team/update``; metadata is replaced as a whole."""
        given = checked(body, "team_id")
        team_id = given["team_id"]
        if team_id not in self.store.teams:
            raise printed_error(404, f"Team not found, passed team_id={team_id}")
        _check_budget(given)
        _check_models(given, 500)
        team, changes = self.store.teams[team_id], _taken(given, _TEAM_FIELDS, "team")
        before = {name: team[name] for name in changes}
        self.store.change(team, changes)
        if given.get("object_permission") is not None:
            self.store.give_objects(team, given["object_permission"])
        self.store.record("updated", TEAMS, team_id, changes, before)
        return {"team_id": team_id, "data": self._with_objects(team)}

    def team_delete(self, body: Json) -> Json:
        """``POST /team/delete``: deletes all given teams, or none."""
        team_ids = checked(body, "team_ids")["team_ids"] or []
        for team_id in team_ids:
            if team_id not in self.store.teams:
                raise detail(404, f"Team not found, passed team_id={team_id}")
        for team_id in dict.fromkeys(team_ids):
            self.store.delete_team(team_id)
        return {"deleted_teams": team_ids}

    def team_member_add(self, body: Json) -> Json:
        """``POST /team/member_add``; an unknown user is created."""
        given = checked(body, "team_id", "member")
        (member,) = _members([body["member"]])
        user_id = member["user_id"]
        team = self.store.teams.get(given["team_id"])
        if team is None:
            text = f"Team doesn't exist in db. Team={given['team_id']}. "
            raise detail(404, text + "Create team via `/team/new` call.")
        if member["role"] == "admin":
            raise detail(400, "Assigning team admins is a premium feature.")
        if (team["team_id"], user_id) in self.store.memberships:
            message = f"User already in team. Member: user_id={user_id}"
            raise proxy_error(400, message, kind="team_member_already_in_team", param="member")
        self.store.add_member(team, user_id, max_budget=given.get("max_budget_in_team"))
        self.store.record("updated", TEAMS, team["team_id"], {"members_added": [user_id]})
        return team

    def team_member_delete(self, body: Json) -> Json:
        """``POST /team/member_delete``; deletes the member's keys in the team too."""
        given = checked(body, "team_id")
        user_id, team = given["user_id"], self.store.teams.get(given["team_id"])
        if team is None:
            raise detail(400, f"Team id={given['team_id']} does not exist in db")
        if (team["team_id"], user_id) not in self.store.memberships:
            raise detail(400, "User not found in team")
        self.store.remove_member(team["team_id"], user_id)
        self.store.record("updated", TEAMS, team["team_id"], {"members_removed": [user_id]})
        return team

    def _with_objects(self, team: Json) -> Json:
        return {**team, "object_permission": self.store.objects.get(team["team_id"])}

    def _listed(self, team_id: str, user_id: str | None) -> Json:
        memberships = self.store.memberships_of(team_id)
        keys = self.store.keys_of(team_id=team_id)
        return {
            **self.store.teams[team_id],
            "team_memberships": [r for r in memberships if user_id in {None, r["user_id"]}],
            "keys": [{**key, "expires": _zulu(key["expires"])} for key in keys],
        }

    def _team_alias(self, team_id: str | None) -> str | None:
        # LiteLLM returns the text "None" for a key without a team.
        return self.store.teams.get(team_id, {}).get("team_alias") if team_id else "None"

    # -- usage and audit -----------------------------------------------------

    def activity(self, owner: str, page_size: int | None, query: Json) -> Json:
        """``GET /user/daily/activity`` or that of teams; ``/aggregated`` without ``page_size``."""
        page = 1
        if page_size is not None:
            page_size = whole_number(query, "page_size", page_size, most=1000)
            page = whole_number(query, "page", 1)
        return page_of(
            self._used(owner, query),
            page=page,
            page_size=page_size,
            key_limit=whole_number(query, "api_key_limit", 100, most=1000),
            entity=lambda row: getattr(row, f"{owner}_id") or "Unassigned",
            about_entity=self._about_user if owner == "user" else self._about_team,
            about_key=self._about_key,
        )

    def key_sums(self, owner: str, query: Json) -> Json:
        """``GET /user/daily/activity/aggregated/keys`` or that of teams."""
        return keys_of(
            self._used(owner, query),
            offset=int(query.get("offset", "0")),
            limit=whole_number(query, "limit", 50, most=100),
            about_key=self._about_key,
        )

    def _used(self, owner: str, query: Json) -> list[UsageRow]:
        first, last = dates(query)
        rows = [row for row in self.store.usage if first <= row.day <= last]
        if owner == "user":
            return [row for row in rows if query.get("user_id") in {None, row.user_id}]
        wanted = {id_ for id_ in query.get("team_ids", "").split(",") if id_}
        return [row for row in rows if row.team_id and row.team_id in (wanted or {row.team_id})]

    def audit(self, query: Json) -> Json:
        """``GET /audit``."""
        filters = ("changed_by", "action", "table_name", "object_id")
        wanted = {name: query[name] for name in filters if query.get(name)}
        entries = reversed(self.store.audit_log)
        rows = [row for row in entries if all(row[n] == value for n, value in wanted.items())]
        return _page(query, "audit_logs", rows, page_size=10)

    def _about_user(self, user_id: str) -> Json:
        user = self.store.users.get(user_id, {})
        return {name: user.get(name) for name in ("user_email", "user_alias")}

    def _about_team(self, team_id: str) -> Json:
        return {"team_alias": self._team_alias(team_id)}

    def _about_key(self, token: str) -> Json:
        key = self.store.keys.get(token) or self.store.deleted_keys.get(token) or {}
        about = {name: key.get(name) for name in ("key_alias", "team_id", "user_id")}
        email = self._about_user(key.get("user_id") or "")["user_email"]
        return {**about, "user_email": email, "key_exists": token in self.store.keys}

    # -- HTTP ----------------------------------------------------------------

    def _view(self, handler: Callable[..., Any]) -> Callable[..., Response]:
        def view(**parts: str) -> Response:
            self._authenticate()
            given = _body() if request.method == "POST" else _query()
            with self.store.lock:
                # Serialized under the lock, because the answer may hold stored rows.
                return _json(handler(given, **parts))

        return view

    def _authenticate(self) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        known = hmac.compare_digest(key.strip().encode(), self._master_key)
        if scheme.lower() != "bearer" or not known:
            message = "Authentication Error, Invalid proxy server token passed."
            raise proxy_error(401, message, kind="token_not_found_in_db", param="key")


def _page(
    query: Json, name: str, rows: list[Json], *, page_size: int, size_name: str = "page_size"
) -> Json:
    """Return one page of rows; ``page_size`` is LiteLLM's default."""
    page = whole_number(query, "page", 1)
    page_size = whole_number(query, size_name, page_size, most=100)
    return {
        name: rows[(page - 1) * page_size :][:page_size],
        "total": len(rows),
        "page": page,
        "page_size": page_size,
        "total_pages": -(-len(rows) // page_size),
    }


def _query() -> Json:
    text = request.query_string.decode("latin-1")
    if request.path == "/user/info":
        text = text.replace("+", "%2B")  # LiteLLM reads a plus as a plus there, not as a space
    return dict(parse_qsl(text, keep_blank_values=True))


def _body() -> Json:
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise invalid(["body"], "model_attributes_type", message)
    return body


def _json(answer: Any, status: int = 200) -> Response:
    return Response(json.dumps(answer), status, mimetype="application/json")


def _taken(given: Json, fields: Iterable[str], shape: str) -> Json:
    # For lists and objects null means that the field was not sent.
    default = SHAPES[shape]
    return {
        name: deepcopy(default[name]) if given[name] is None else given[name]
        for name in fields
        if name in given
    }


def _members(rows: Iterable[Any]) -> list[Json]:
    members = []
    for row in rows:
        member = checked(row) if isinstance(row, dict) else {}
        if not member.get("user_id"):
            raise invalid(["body"], "value_error", _NO_ID)
        members.append({"user_id": member["user_id"], "role": row.get("role") or "user"})
    return members


def _check_user(given: Json) -> None:
    if given.get("user_role") is not None and given["user_role"] not in _ROLES:
        message = "Input should be " + " or ".join(repr(role) for role in _ROLES)
        raise invalid(["body", "user_role"], "literal_error", message)
    # LiteLLM accepts a negative budget of a user.
    budget = given.get("max_budget")
    _check_budget({**given, "max_budget": budget and abs(budget)})


def _check_budget(given: Json, **fields: str) -> None:
    budget, duration = given.get("max_budget"), given.get("budget_duration")
    if budget is not None and not (math.isfinite(budget) and budget >= 0):
        text = f"max_budget must be a non-negative finite number. Received: {budget}"
        raise printed_error(400, text, **fields)
    if duration is not None:
        try:
            seconds(duration)
        except ValueError:
            text = f"Invalid budget_duration '{duration}'. "
            text += "Use a format like '1h', '24h', '7d', or '30d'."
            raise printed_error(400, text, **fields) from None


def _check_models(given: Json, status: int, **fields: str) -> None:
    # An update accepts null for other fields, but not for a list.
    if "models" in given and given["models"] is None:
        message = "Unable to match input value to any allowed input type for the field."
        raise proxy_error(status, message, **fields)


def _key_not_found(message: str) -> RefusedError:
    return proxy_error(404, message, kind="not_found_error", param="key")


def _offset(moment: datetime | None) -> str | None:
    return None if moment is None else stamp(moment).replace("Z", "+00:00")


def _zulu(text: str | None) -> str | None:
    return text.replace("+00:00", "Z") if text else text


def _with_offsets(key: Json) -> Json:
    return {
        name: value.replace("Z", "+00:00") if name in _TIMES and value else value
        for name, value in key.items()
    }
