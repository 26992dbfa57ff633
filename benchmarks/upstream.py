"""A stand-in for LiteLLM that is much faster than whoever asks it.

Every user id and every team id exists, nothing that is written is kept, and every answer has the
shape and the weight of the real one (``rows.py``). Bodies are made once, with gaps for the names,
so that a request costs little more than its bytes.

    python benchmarks/upstream.py --port 4407 --delay 20

Beside LiteLLM's paths, which want the master key, there are three of its own, which do not and
are neither counted nor delayed::

    GET  /__calls          {"total": 3, "paths": {"GET /user/info": 2, "GET /model/info": 1}}
    POST /__reset          counts from 0 again
    POST /__delay?ms=20    delays every answer from now on
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from functools import lru_cache, partial
from typing import Any
from urllib.parse import unquote

import rows
from rows import DIGEST, NAME, Json, Size

MASTER_KEY = "sk-rig-master"
KEPT_ANSWERS = 256
MAX_PAGE_SIZE = 1000

Query = Mapping[str, str]

_NAME, _DIGEST = NAME.encode(), DIGEST.encode()
_REASONS = {200: "OK", 401: "Unauthorized", 404: "Not Found", 422: "Unprocessable Entity"}


class Template:
    """A body with gaps where a name, or what stands for its hash, belongs."""

    def __init__(self, answer: Any) -> None:
        # Searching 40 KB for gaps with each request would cost more than sending them.
        self._pieces = re.split(b"(%b|%b)" % (_NAME, _DIGEST), _encoded(answer))
        self._gaps = self._pieces[1::2]

    def filled(self, name: str) -> bytes:
        """Return the body that is about ``name``."""
        digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        text = json.dumps(name, ensure_ascii=False)[1:-1]
        fill = {_NAME: text.encode(), _DIGEST: digest.encode()}
        pieces = self._pieces.copy()
        pieces[1::2] = [fill[gap] for gap in self._gaps]
        return b"".join(pieces)


class LiteLLM:
    """The answers.

    Args:
        size: What everybody has.
        sizes: By the beginning of a user id, who has something else.
    """

    def __init__(self, size: Size, sizes: Mapping[str, Size]) -> None:
        self._size = size
        self._sizes = sizes
        self._parts = {
            path: lru_cache(lambda size, make=make: Template(make(size)))
            for path, make in (
                ("/user/info", rows.user_info),
                ("/v2/user/info", rows.user_alone),
                ("/v2/team/list", rows.teams_alone),
            )
        }
        self._key_pages = lru_cache(maxsize=64)(lambda *page: Template(rows.keys_page(*page)))
        self._activity = lru_cache(maxsize=64)(self._make_activity)
        self._team_info = Template(rows.team_info(NAME, size, digest=DIGEST))
        self._team_list = _encoded(
            [rows.team_with_keys(id_, size) for id_ in rows.team_ids(size.teams)]
        )
        fixed: dict[str, Any] = {
            "/model/info": {"data": rows.models(size.models)},
            "/models": {"data": rows.model_names(size.models), "object": "list"},
            "/vector_store/list": {
                "object": "list",
                "data": [rows.VECTOR_STORE],
                "total_count": 1,
                "current_page": 1,
                "total_pages": 1,
            },
            "/v1/mcp/server": [rows.MCP_SERVER],
            # An endless stream in the real one, which the npm plugin waits for. Here it is
            # answered, so that its page load ends.
            "/mcp/server/list": [rows.MCP_SERVER],
            "/audit": {"audit_logs": [], "total": 0, "page": 1, "page_size": 25, "total_pages": 0},
            "/health/liveliness": "I'm alive!",
            "/health/readiness/details": {"status": "healthy", "litellm_version": "1.106.2"},
        }
        fixed["/v1/model/info"] = fixed["/model/info"]
        fixed["/v1/models"] = fixed["/models"]
        self._fixed = {path: _encoded(answer) for path, answer in fixed.items()}
        self._reads: dict[str, Callable[[Query], bytes]] = {
            **{path: partial(self._read_part, path) for path in self._parts},
            "/key/list": self._read_keys,
            "/team/info": lambda query: self._team_info.filled(query.get("team_id", "")),
            "/team/list": self._read_teams,
            "/user/daily/activity": self._read_activity,
            "/user/daily/activity/aggregated": partial(self._read_activity, paged=False),
            "/team/daily/activity": partial(self._read_activity, of="team_ids", rows_a_page=10),
            "/team/daily/activity/aggregated": partial(
                self._read_activity, of="team_ids", paged=False
            ),
        }
        self._writes: dict[str, Callable[[Json], Any]] = {
            "/user/new": lambda body: rows.created_user(str(body.get("user_id"))),
            "/user/update": lambda body: {
                "user_id": body.get("user_id"),
                "data": rows.user(str(body.get("user_id")), rows.team_ids(size.teams)),
            },
            "/key/generate": _generated_key,
            "/key/update": lambda body: {**_some_key(body), **body},
            "/key/block": lambda body: {**_some_key(body), "blocked": True},
            "/key/unblock": lambda body: {**_some_key(body), "blocked": False},
            "/key/delete": lambda body: {"deleted_keys": body.get("keys")},
            "/team/new": lambda body: {**rows.team("team-new", size), **body},
            "/team/update": lambda body: {
                "team_id": body.get("team_id"),
                "data": {**rows.team("", size), **body},
            },
            "/team/delete": lambda body: {"deleted_teams": body.get("team_ids")},
            "/team/member_add": lambda body: rows.team(str(body.get("team_id")), size),
            "/team/member_delete": lambda body: rows.team(str(body.get("team_id")), size),
        }

    def read(self, path: str, query: Query) -> bytes | None:
        """Return the JSON text of a ``GET``, or None for an unknown path."""
        answer = self._fixed.get(path)
        if answer is None and path in self._reads:
            answer = self._reads[path](query)
        return answer

    def write(self, path: str, body: Json) -> bytes | None:
        """Return the JSON text of a ``POST``, or None for an unknown path."""
        if path in self._writes:
            return _encoded(self._writes[path](body))
        if path.startswith("/key/") and path.endswith("/reset_spend"):
            token = path.split("/")[2]
            answer = {"key_hash": token, "spend": 0.0, "previous_spend": 1.0, "max_budget": 5.0}
            return _encoded({**answer, "budget_reset_at": rows.RESET})
        return None

    def _size_of(self, user_id: str) -> Size:
        return next((s for name, s in self._sizes.items() if user_id.startswith(name)), self._size)

    def _read_part(self, path: str, query: Query) -> bytes:
        user_id = query.get("user_id", "default_user_id")
        return self._parts[path](self._size_of(user_id)).filled(user_id)

    def _read_keys(self, query: Query) -> bytes:
        user_id = query["user_id"]
        page, size = int(query.get("page", "1")), int(query.get("size", "10"))
        return self._key_pages(self._size_of(user_id), page, size).filled(user_id)

    def _read_teams(self, query: Query) -> bytes:
        user_id = query.get("user_id")
        if user_id is None:
            return self._team_list
        size = self._size_of(user_id)
        teams = rows.team_ids(size.teams)
        return _encoded([rows.team_with_keys(id_, size, user_id) for id_ in teams])

    def _read_activity(
        self, query: Query, of: str = "user_id", rows_a_page: int = 50, *, paged: bool = True
    ) -> bytes:
        span = query["start_date"], query["end_date"]
        page = int(query.get("page", "1")) if paged else None
        rows_a_page = min(int(query.get("page_size", str(rows_a_page))), MAX_PAGE_SIZE)
        return self._activity(*span, page, rows_a_page).filled(query.get(of, "Unassigned"))

    def _make_activity(self, start: str, end: str, page: int | None, rows_a_page: int) -> Template:
        found = rows.activity_rows(date.fromisoformat(start), date.fromisoformat(end), self._size)
        if page is None:
            return Template(rows.activity(found))
        first = (page - 1) * rows_a_page
        pages = max(1, -(-len(found) // rows_a_page))
        return Template(rows.activity(found[first : first + rows_a_page], page, pages))


class Server:
    """What all connections share.

    Args:
        litellm: The answers.
        delay: Seconds before each of them.
    """

    def __init__(self, litellm: LiteLLM, delay: float) -> None:
        self._litellm = litellm
        self.delay = delay
        self._calls: Counter[str] = Counter()
        self._authorization = f"\r\nauthorization: bearer {MASTER_KEY}\r\n".encode()
        self._read = lru_cache(maxsize=KEPT_ANSWERS)(self._make_read)

    def respond(self, head: bytes, body: bytes) -> tuple[bytes, float]:
        """Return the response to one request, and the seconds to wait before sending it.

        Args:
            head: Request line and headers, with the empty line.
            body: What came after them.
        """
        method, target, _ = head[: head.index(b"\r\n")].split(b" ", 2)
        if target.startswith(b"/__"):
            return self._controlled(target.decode()), 0.0
        path = target.partition(b"?")[0].decode()
        self._calls[f"{method.decode()} {path}"] += 1
        if self._authorization not in head.lower():
            return _response(401, _refusal("Authentication Error", "401")), self.delay
        if method == b"GET":
            return self._read(target), self.delay
        answer = self._litellm.write(path, json.loads(body) if body else {})
        return _found(answer), self.delay

    def _make_read(self, target: bytes) -> bytes:
        path, _, text = target.decode().partition("?")
        # LiteLLM takes "+" literally, so parse_qs would read other names than it does.
        pairs = (pair.partition("=") for pair in text.split("&") if pair)
        query = {unquote(name): unquote(value) for name, _, value in pairs}
        try:
            return _found(self._litellm.read(path, query))
        except (KeyError, ValueError) as exc:
            return _response(422, _encoded({"detail": [{"type": "invalid", "msg": repr(exc)}]}))

    def _controlled(self, target: str) -> bytes:
        name, _, value = target.partition("?ms=")
        if name == "/__reset":
            self._calls.clear()
        elif name == "/__delay":
            self.delay = float(value) / 1000
        elif name != "/__calls":
            return _found(None)
        return _response(200, _encoded({"total": self._calls.total(), "paths": dict(self._calls)}))


class Connection(asyncio.Protocol):
    """One client's connection; requests on it come one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(b"\r\n\r\n") + 4) >= 4:
            head = buffer[:end]
            length = 0 if head.startswith(b"GET ") else _content_length(head)
            if len(buffer) < end + length:
                break
            response, delay = self._server.respond(head, buffer[end : end + length])
            if delay:
                asyncio.get_running_loop().call_later(delay, self._transport.write, response)
            else:
                self._transport.write(response)
            buffer = buffer[end + length :]
        self._buffer = buffer


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _refusal(message: str, code: str) -> bytes:
    error = {"message": message, "type": "auth_error", "param": "None", "code": code}
    return _encoded({"error": error})


def _found(answer: bytes | None) -> bytes:
    if answer is None:
        return _response(404, _encoded({"detail": "Not Found"}))
    return _response(200, answer)


def _response(status: int, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        "date: Mon, 23 Nov 2026 09:00:00 GMT\r\n"
        "server: uvicorn\r\n"
        f"content-length: {len(body)}\r\n"
        "content-type: application/json\r\n"
        "x-content-type-options: nosniff\r\n\r\n"
    )
    return head.encode() + body


def _generated_key(body: Json) -> Json:
    row = rows.key(body.get("user_id"), "a" * 16, 9999, body.get("team_id"))
    return {**row, **body, "key": "sk-0123456789abcdefghijkl", "token_id": row["token"]}


def _some_key(body: Json) -> Json:
    row = rows.key(None, "a" * 16, 0)
    return {**row, "token": body.get("key"), "key": body.get("key")}


def _other_size(text: str) -> tuple[str, int, int]:
    try:
        name, _, counts = text.partition("=")
        keys, teams = counts.split(",")
        return name, int(keys), int(teams)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: wanted NAME=KEYS,TEAMS") from None


async def serve(server: Server, port: int) -> None:
    """Serve on the loopback until cancelled."""
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: Connection(server), "127.0.0.1", port, backlog=1024
    )
    async with listening:
        await listening.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = Size()
    parser.add_argument("--port", type=int, default=4407)
    parser.add_argument("--delay", type=float, default=0, help="milliseconds; default %(default)s")
    parser.add_argument("--keys", type=int, default=size.keys, help="of a user; %(default)s")
    parser.add_argument("--teams", type=int, default=size.teams, help="of a user; %(default)s")
    parser.add_argument("--team-keys", type=int, default=size.team_keys, help="%(default)s")
    parser.add_argument("--models", type=int, default=size.models, help="%(default)s")
    parser.add_argument(
        "--size",
        type=_other_size,
        action="append",
        default=[],
        metavar="NAME=KEYS,TEAMS",
        help="what users have whose id begins with NAME; may be given several times",
    )
    given = parser.parse_args()
    size = replace(
        size,
        keys=given.keys,
        teams=given.teams,
        team_keys=given.team_keys,
        models=given.models,
    )
    sizes = {name: replace(size, keys=keys, teams=teams) for name, keys, teams in given.size}
    try:
        asyncio.run(serve(Server(LiteLLM(size, sizes), given.delay / 1000), given.port))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
