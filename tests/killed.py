"""Processes that kill themselves at a step of choice, with nothing left to run in them.

A process is forked from one that has imported the package, which takes a tenth of the time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any

import requests

from litellm_plugin.accounts import sync
from litellm_plugin.cli import main, notify, offboard
from litellm_plugin.cli import sync as sync_command
from litellm_plugin.config import schema
from litellm_plugin.store import postgres
from litellm_plugin.store.database import Store
from tests.fakes import Asked
from tests.fakes.network import NOTHING, Host

# What a run takes longest for: modules that are imported when they are needed, and the schema.
NEEDED = (notify, offboard, sync_command, sync, postgres, schema.json_schema())

_processes = get_context("forkserver")
_processes.set_forkserver_preload([__name__])

LIMIT = 60.0  # seconds; what a run may take on a busy machine


def _command(arguments: Sequence[str], killed_at: int | None, out: str) -> None:
    """Run the command in this process, which is the test's own."""
    left = killed_at

    def step() -> None:
        nonlocal left
        if left is not None:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    send, write = requests.Session.send, Store.write

    def sends(self: Any, request: Any, **options: Any) -> Any:
        if request.method != "GET":
            step()
        return send(self, request, **options)

    def writes(self: Any) -> Any:
        step()
        return write(self)

    requests.Session.send = sends  # type: ignore[method-assign]
    Store.write = writes  # type: ignore[method-assign]
    with Path(out).open("w") as file, contextlib.redirect_stdout(file):
        main(list(arguments), prog_name="litellm-plugin")


def command(
    *arguments: str, out: Path, killed_at: int | None = None
) -> tuple[int, dict[str, Any] | None]:
    """Run ``litellm-plugin``; return its exit status, and the JSON that it has printed.

    Args:
        arguments: Its own.
        out: A file for what it prints.
        killed_at: Number of the change before which it is killed: a call over HTTP other than GET,
            or a transaction. What it does between two of them, nobody else sees.
    """
    process = _processes.Process(target=_command, args=(arguments, killed_at, str(out)))
    process.start()
    process.join(LIMIT)
    status = process.exitcode
    assert status is not None, "the command does not end"
    process.close()
    text = out.read_text()
    return status, json.loads(text) if text else None


@contextlib.contextmanager
def served(host: Host) -> Iterator[str]:
    """Let a host of the tests' network answer over HTTP; yields its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = host.answer(Asked(self.command, path, query, dict(self.headers), body))
            is_json = reply.json is not NOTHING
            content = (json.dumps(reply.json) if is_json else reply.text).encode()
            self.send_response(reply.status)
            kind = "application/json" if is_json else "text/plain"
            for name, value in {"Content-Type": kind, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - the names it looks for

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
