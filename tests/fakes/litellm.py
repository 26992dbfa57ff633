"""A LiteLLM proxy that answers by rules, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from tests.fakes.network import NOTHING, Asked, Reply, dropped

MASTER_KEY = "sk-contract-master-key"
BASE_URL = "http://127.0.0.1:4787"  # the recordings name it

OPEN_PATH = "/health/readiness"

RULE_FIELDS = frozenset({"method", "path", "query", "body", "status", "json", "text", "times"}) | {
    "drop"
}


@dataclass
class Rule:
    """One answer, and what it answers to; None stands for any.

    Attributes:
        path: As sent, percent-encoded, without the query.
        query: Parameters that must be there.
        body: What the JSON body must have: members of objects, at any depth.
        times: How often it may be used; None: always.
        error: Raised instead of an answer.
        meanwhile: Called before the answer goes out, to hold it back or to look around.
    """

    path: str | None = None
    reply: Reply = field(default_factory=lambda: Reply(json={}))
    method: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = NOTHING
    times: int | None = None
    error: Exception | None = None
    meanwhile: Callable[[], None] | None = None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Rule:
        """Read a rule as a contract case has it.

        Raises:
            ValueError: It has a field that no rule has.
        """
        if unknown := raw.keys() - RULE_FIELDS:
            raise ValueError(f"a rule has no {', '.join(sorted(unknown))}")
        content = NOTHING if "text" in raw else raw.get("json", NOTHING)
        return cls(
            path=raw.get("path"),
            reply=Reply(raw.get("status", 200), content, raw.get("text", "")),
            method=raw.get("method"),
            query=raw.get("query") or {},
            body=raw.get("body", NOTHING),
            times=raw.get("times"),
            error=dropped() if raw.get("drop") else None,
        )

    def fits(self, asked: Asked) -> bool:
        sent = asked.parameters
        return (
            self.times != 0
            and self.method in {None, asked.method}
            and self.path in {None, asked.path}
            and all((name, value) in sent for name, value in self.query.items())
            and (self.body is NOTHING or _has(asked.json, self.body))
        )


def _has(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(
            name in value and _has(value[name], member) for name, member in wanted.items()
        )
    return bool(value == wanted)


@dataclass(frozen=True)
class Call:
    """One request that LiteLLM got.

    Attributes:
        path: As sent, percent-encoded.
        query: As sent, without the question mark.
        body: Decoded JSON; None where there was no body.
        status: What was answered; None: the connection broke.
    """

    method: str
    path: str
    query: str = ""
    body: Any = None
    status: int | None = 200
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def failed(self) -> bool:
        """Whether a second attempt may do better."""
        return self.status is None or self.status == 429 or self.status >= 500

    def as_write(self) -> dict[str, Any]:
        """Return the call as a case's ``writes`` has it."""
        return {"method": self.method, "path": self.target, "body": self.body}


# What ``GET /user/info`` says is told by these too, each its part: by the parameter that names
# the user.
PARTS = {
    "/v2/user/info": "user_id",
    "/user/list": "user_ids",
    "/key/list": "user_id",
    "/v2/team/list": "user_id",
}


NOT_IN_V2 = {"user_info", "keys", "organization_id", "organization_memberships"}


def part_of(reply: Reply, path: str, user_id: str) -> Reply:
    """Return what a path of :data:`PARTS` answers where ``/user/info`` has ``reply``."""
    data = reply.json
    if reply.status != 404 and (reply.status >= 300 or not isinstance(data, dict)):
        return reply
    data = data if reply.status < 300 and isinstance(data, dict) else {}
    own = data.get("user_info", data)
    known = isinstance(own, dict) and bool(own.get("user_id"))
    keys = [key for key in data.get("keys") or () if isinstance(key, dict)]
    teams = data.get("teams") or []
    if path == "/key/list":
        pages = int(bool(keys))
        return Reply(json={"keys": keys, "total_count": len(keys), "total_pages": pages})
    if path == "/v2/team/list" and known:
        rows = [
            {
                name: value
                for name, value in team.items()
                if name not in {"keys", "team_memberships"}
            }
            # Rows from before LiteLLM told the memberships lack other fields as well.
            | ({"object_permission_id": None} if "object_permission_id" not in team else {})
            for team in teams
            if isinstance(team, dict) and "team_memberships" in team
        ]
        return Reply(json={"teams": rows, "total": len(rows), "total_pages": int(bool(rows))})
    if path == "/user/list":
        users = [{**own, "teams": teams, "key_count": len(keys)}] if known else []
        return Reply(json={"users": users, "total": len(users), "total_pages": len(users)})
    if not known:
        unknown = _error(404, f"User not found: {user_id}")
        detail = Reply(404, {"detail": {"error": f"User not found, passed user_id={user_id}"}})
        return detail if path == "/v2/team/list" else unknown
    ids = [team.get("team_id") if isinstance(team, dict) else team for team in teams]
    row = {**data, **own, "teams": ids}
    return Reply(json={name: row[name] for name in row.keys() - NOT_IN_V2})


class FakeLiteLLM:
    """Answers with the first rule that fits and is not used up, else 599.

    A rule for ``GET /user/info`` holds for the paths of :data:`PARTS` as well, for each as often
    as for itself, unless they have rules of their own. Whoever comes without the master key gets
    LiteLLM's 401, but for its health.
    """

    def __init__(self, base_url: str = BASE_URL, master_key: str = MASTER_KEY) -> None:
        self.base_url = base_url
        self.master_key = master_key
        self.rules: list[Rule] = []
        self.calls: list[Call] = []
        self._derived: dict[tuple[int, str, str], Rule] = {}
        self._lock = threading.Lock()

    def script(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Add rules as a contract case has them."""
        self.rules += [Rule.from_json(rule) for rule in rules]

    def on(
        self,
        method: str | None,
        path: str,
        *,
        json: Any = NOTHING,
        text: str | None = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Any = NOTHING,
        times: int | None = None,
        error: Exception | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Add a rule; it answers ``{}`` where neither ``json`` nor ``text`` is given."""
        content = {} if json is NOTHING and text is None else json
        self.rules.append(
            Rule(
                path=path,
                reply=Reply(status, content, text or "", headers or {}),
                method=method,
                query=query or {},
                body=body,
                times=times,
                error=error,
                meanwhile=meanwhile,
            )
        )

    def get(self, path: str, **rule: Any) -> None:
        self.on("GET", path, **rule)

    def post(self, path: str, **rule: Any) -> None:
        self.on("POST", path, **rule)

    def forget(self) -> None:
        """Drop all rules and calls."""
        self.rules.clear()
        self.calls.clear()
        self._derived.clear()

    @property
    def reads(self) -> list[Call]:
        return [call for call in self.calls if call.method == "GET"]

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.method != "GET"]

    def answer(self, asked: Asked) -> Reply:
        with self._lock:
            rule = self._rule(asked)
            if rule.times is not None:
                rule.times -= 1
            self.calls.append(
                Call(
                    method=asked.method,
                    path=asked.path,
                    query=asked.query,
                    body=asked.json,
                    status=rule.reply.status if rule.error is None else None,
                    headers=dict(asked.headers),
                )
            )
        if rule.meanwhile is not None:
            rule.meanwhile()
        if rule.error is not None:
            raise rule.error
        return rule.reply

    def _rule(self, asked: Asked) -> Rule:
        if asked.bearer != self.master_key and asked.path != OPEN_PATH:
            refusal = _error(401, "Authentication Error, Invalid proxy server token passed.")
            return Rule(asked.path, refusal)
        for rule in self.rules:
            if rule.fits(asked):
                return rule
        if asked.method == "GET" and asked.path in PARTS:
            rules = list(self._of_account(asked))
            if asked.path in {"/key/list", "/v2/team/list"}:
                # They are asked once the user is known.
                known = [rule for rule in rules if rule.reply.status != 404 and rule.reply.json]
                rules = known or rules
            if rules:
                return rules[0]
        return Rule(asked.path, _error(599, f"no rule for {asked.method} {asked.path}"))

    def _of_account(self, asked: Asked) -> Iterator[Rule]:
        """Yield what rules for ``GET /user/info`` make of a question for a part of an account."""
        user_id = dict(asked.parameters).get(PARTS[asked.path])
        if not user_id:
            return
        whole = replace(asked, path="/user/info", query=urlencode({"user_id": user_id}))
        for rule in self.rules:
            name = (id(rule), asked.path, user_id)
            if name not in self._derived:
                if rule.path != "/user/info" or not rule.fits(whole):
                    continue
                part = part_of(rule.reply, asked.path, user_id)
                self._derived[name] = replace(rule, path=None, query={}, reply=part)
            if self._derived[name].times != 0:
                yield self._derived[name]


def _error(status: int, message: str) -> Reply:
    error = {"message": message, "type": "auth_error", "param": "None", "code": str(status)}
    return Reply(status, {"error": error})
