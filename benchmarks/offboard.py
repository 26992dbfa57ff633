"""Time and calls of ``litellm-plugin offboard`` with 10,000 users, of whom 100 leave and come back.

LiteLLM and the catalog are one stand-in in a process of its own, which answers at once: what is
measured is the command's own work. With a real LiteLLM its answers, and ``perSecond``, decide.

    .venv/bin/python benchmarks/offboard.py [--users 10000] [--leavers 100]
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

from litellm_plugin.accounts.offboarding import Offboarding
from litellm_plugin.cli.world import read_only_plugin
from litellm_plugin.config import load_settings
from litellm_plugin.config.database import Database
from litellm_plugin.jobs import Pace, run
from litellm_plugin.store.database import Store
from litellm_plugin.store.leavers import LeaverTable

GRACE = timedelta(hours=24)
START = datetime(2026, 11, 27, 12, tzinfo=UTC)
PER_SECOND = 20  # the default of litellm.service.jobs.perSecond


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # headers and body in one packet
    users = 0
    left: range = range(0)
    blocked: ClassVar[set[str]] = set()
    calls: ClassVar[Counter[str]] = Counter()

    def log_message(self, *_arguments: object) -> None:
        """Write nothing."""

    def do_GET(self) -> None:
        """Answer a page of users, an account, a page of the catalog, or what was counted."""
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/calls":
            self._answer(dict(self.calls))
            self.calls.clear()
            return
        if url.path == "/leavers":
            type(self).left = range(int(query["count"]))
            self._answer({})
            return
        self.calls[url.path.partition("/by-name/")[0]] += 1
        if url.path == "/user/list":
            first, size = (int(query["page"]) - 1) * 100, int(query["page_size"])
            rows = [self._user(number) for number in range(first, min(first + size, self.users))]
            self._answer({"users": rows, "total_pages": -(-self.users // size)})
        elif url.path == "/user/info":
            user_id = query["user_id"]
            key = {"token": _token(user_id), "blocked": _token(user_id) in self.blocked}
            row = self._user(int(user_id.partition("@")[0].removeprefix("user-")))
            self._answer({"user_id": user_id, "user_info": row, "keys": [key], "teams": []})
        elif url.path.endswith("/by-query"):
            first = int(query.get("cursor", len(self.left)))
            last = min(first + 500, self.users)
            page = {"nextCursor": str(last)} if last < self.users else {}
            rows = [_entity(number) for number in range(first, last)]
            self._answer({"items": rows, "pageInfo": page})
        elif url.path.endswith("/entities"):
            self._answer([])  # it is asked about leavers, whose names and e-mails nobody has
        else:
            number = int(url.path.rpartition("-")[2])
            self._answer(_entity(number), 404 if number in self.left else 200)

    def do_POST(self) -> None:
        """Block or unblock a key."""
        self.calls[self.path] += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        change = self.blocked.add if self.path == "/key/block" else self.blocked.discard
        change(body["key"])
        self._answer({})

    def _user(self, number: int) -> dict[str, Any]:
        ref = f"user:default/user-{number}"
        return {
            "user_id": f"user-{number}@example.com",
            "user_email": f"user-{number}@example.com",
            "user_role": "internal_user",
            "metadata": {"provisioned_by": "backstage", "backstage_entity": ref},
            "key_count": 1,
        }

    def _answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _token(user_id: str) -> str:
    return sha256(user_id.encode()).hexdigest()


def _entity(number: int) -> dict[str, Any]:
    profile = {"email": f"user-{number}@example.com"}
    metadata = {"namespace": "default", "name": f"user-{number}"}
    return {"kind": "User", "metadata": metadata, "relations": [], "spec": {"profile": profile}}


def _serve(users: int, pipe: Any) -> None:
    _Handler.users = users
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    pipe.send(server.server_address[1])
    server.serve_forever()


def _measured(url: str, folder: Path, title: str, now: datetime) -> None:
    config = folder / "app-config.yaml"
    config.write_text(
        json.dumps(
            {
                "backend": {"baseUrl": url},
                "litellm": {
                    "baseUrl": url,
                    "masterKey": "sk-benchmark",
                    "userIdDomain": "example.com",
                    "service": {"backstageToken": "benchmark", "keyFile": str(folder / "key.json")},
                },
            }
        )
    )
    settings = load_settings([config], {})
    plugin, store = read_only_plugin(settings), Store(Database(file=folder / "store.sqlite"))
    started = time.perf_counter()
    with run(store, "offboard", dry_run=False) as record:
        work = Offboarding(
            plugin.litellm,
            plugin.directory,
            LeaverTable(store),
            settings,
            Pace(1e6).wait,
            lambda: now,
            record.counts,
        )
        work.apply(work.plan(GRACE, None))
    seconds = time.perf_counter() - started
    with urlopen(f"{url}/calls") as answer:
        calls: dict[str, int] = json.load(answer)
    asked = sum(n for path, n in calls.items() if not path.startswith("/api/"))
    paced = seconds + asked / PER_SECOND
    told = ", ".join(f"{path} {number}" for path, number in sorted(calls.items()))
    print(f"{title}: {seconds:.1f} s; {paced:.0f} s with {PER_SECOND} calls a second; {told}")


def main() -> None:
    """Measure four runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--leavers", type=int, default=100)
    options = parser.parse_args()
    logging.getLogger("litellm_plugin.audit").setLevel(logging.WARNING)  # no events
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(options.users, there), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    with tempfile.TemporaryDirectory() as folder:
        place, now = Path(folder), START
        _measured(url, place, "nobody has left", now)
        for count, titles in (
            (options.leavers, ("some have left", "their keys are blocked", "nothing new")),
            (0, ("all are back",)),
        ):
            with urlopen(f"{url}/leavers?count={count}"):
                pass
            for title in titles:
                now += GRACE
                _measured(url, place, title, now)
    server.terminate()


if __name__ == "__main__":
    main()
