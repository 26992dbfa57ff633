"""Measures what ``litellm-plugin sync`` costs for many users: calls to LiteLLM, and time.

LiteLLM is the sandbox's stand-in, the catalog one that lists as many people. README.md says how
to read it.

    python benchmarks/sync.py --users 10000 --moved 1000
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from report import table
from werkzeug.serving import make_server

from litellm_plugin.sandbox.litellm import LiteLLMStandIn

MASTER_KEY = "sk-rig-master"
PER_SECOND = 20.0  # the default of litellm.service.jobs.perSecond
UNBOUNDED = 1_000_000
ROLE = {"group": "group:default/power", "maxBudget": 100, "teams": ["team-ml"]}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the command.

    Attributes:
        name: What had happened before it.
        seconds: From start to end, LiteLLM's calls not slowed down.
        calls: To LiteLLM.
        peak: MiB of memory.
        changed: Accounts.
    """

    name: str
    seconds: float
    calls: Counter[str]
    peak: float
    changed: int

    @property
    def minutes(self) -> float:
        """What the run takes at the default rate."""
        return max(self.seconds, self.calls.total() / PER_SECOND) / 60


class Catalog:
    """A catalog with one group; the first people are its members."""

    def __init__(self, people: int) -> None:
        self.people = people
        self.members = 0
        self.app = Flask("catalog")
        self.app.add_url_rule("/api/catalog/entities/by-query", view_func=self._page)
        self.app.add_url_rule(
            "/api/catalog/entities/by-name/user/default/<name>", view_func=self._entity
        )

    def _entity(self, name: str) -> Response:
        return jsonify(self._person(int(name.removeprefix("person-"))))

    def _page(self) -> Response:
        first, size = int(request.args.get("cursor", "0")), int(request.args["limit"])
        after = min(first + size, self.people)
        page = {"nextCursor": str(after)} if after < self.people else {}
        items = [self._person(number) for number in range(first, after)]
        return jsonify({"items": items, "totalItems": self.people, "pageInfo": page})

    def _person(self, number: int) -> dict[str, Any]:
        group = {"type": "memberOf", "targetRef": ROLE["group"]}
        return {
            "kind": "User",
            "metadata": {"namespace": "default", "name": f"person-{number}"},
            "spec": {"profile": {"email": f"person-{number}@corp.example"}},
            "relations": [group] if number < self.members else [],
        }


def litellm_with(users: int, calls: Counter[str]) -> LiteLLMStandIn:
    """Return a LiteLLM with so many users, as first visits make them; it counts its calls."""
    litellm = LiteLLMStandIn(MASTER_KEY)
    litellm.team_new({"team_id": "team-ml", "team_alias": "ML"})
    for number in range(users):
        litellm.user_new(
            {
                "user_id": f"person-{number}@example.com",
                "max_budget": 10,
                "budget_duration": "30d",
                "user_role": "internal_user",
                "auto_create_key": False,
                "metadata": {"backstage_entity": f"user:default/person-{number}"},
            }
        )
    litellm.app.before_request(lambda: calls.update([f"{request.method} {request.path}"]))
    return litellm


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """Serve an application on the loopback; yields its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def measured(name: str, config: Path, folder: Path, calls: Counter[str]) -> Run:
    """Run ``litellm-plugin sync --apply``."""
    calls.clear()
    command = [sys.executable, "-m", "litellm_plugin", "sync", "--apply", "--json"]
    environ = {**os.environ, "XDG_STATE_HOME": str(folder)}
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--config", str(config)],
        env=environ,
        stdout=subprocess.PIPE,
        check=True,
    )
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    changed = json.loads(done.stdout)["counts"]["changed"]
    return Run(name, seconds, Counter(calls), peak, changed)


def runs(users: int, moved: int, folder: Path) -> Iterator[Run]:
    """Measure the first run, one after which nothing has changed, and one after a move."""
    calls: Counter[str] = Counter()
    catalog, litellm = Catalog(users), litellm_with(users, calls)
    with served(catalog.app) as backstage_url, served(litellm.app) as litellm_url:
        config = folder / "app-config.yaml"
        settings = {
            "baseUrl": litellm_url,
            "masterKey": MASTER_KEY,
            "userIdDomain": "example.com",
            "provisioning": {"enabled": True, "roles": [ROLE], "sync": {"enabled": True}},
            "service": {
                "backstageToken": "a-static-token-of-the-catalog",
                "jobs": {"perSecond": UNBOUNDED},
            },
        }
        backend = {"baseUrl": backstage_url}
        config.write_text(json.dumps({"backend": backend, "litellm": settings}))

        def run(name: str) -> Run:
            return measured(name, config, folder, calls)

        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("first run: all are taken in", lambda: None),
            ("nothing has changed", lambda: None),
            (f"{moved} people have moved", lambda: setattr(catalog, "members", moved)),
        )
        for name, change in steps:
            change()
            yield run(name)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--moved", type=int, default=1000, help="who changes the group")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        found = list(runs(given.users, given.moved, Path(folder)))
    head = ("", "calls to LiteLLM", "changed", "seconds", "minutes at 20/s", "MiB")
    rows = [
        (
            each.name,
            f"{each.calls.total()}",
            f"{each.changed}",
            f"{each.seconds:.1f}",
            f"{each.minutes:.1f}",
            f"{each.peak:.0f}",
        )
        for each in found
    ]
    print(table(head, rows))
    if given.json:
        given.json.write_text(json.dumps([asdict(each) for each in found], indent=2))


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


if __name__ == "__main__":
    main()
