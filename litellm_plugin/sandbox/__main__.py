"""``python -m litellm_plugin.sandbox``: starts the sandbox and tells what to try."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from litellm_plugin.config import ConfigError
from litellm_plugin.identity.signing import KeyStoreError
from litellm_plugin.sandbox.launch import (
    PORT,
    TOKEN_HOURS,
    Sandbox,
    SandboxRefusedError,
    running,
)
from litellm_plugin.sandbox.people import ALICE, BOB, CAROL, USAGE_DAYS, Person


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sandbox until it is interrupted.

    Args:
        arguments: The command line, without the program's name.

    Returns:
        0, or 2 where the sandbox refuses to start.
    """
    parser = argparse.ArgumentParser(
        prog="python -m litellm_plugin.sandbox",
        description="The LiteLLM plugin beside stand-ins for LiteLLM and Backstage.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, help=f"default: {PORT}, or a free one")
    parser.add_argument(
        "--config",
        action="append",
        type=Path,
        metavar="FILE",
        help="may be given several times, later files win "
        "(default: app-config.yaml here, else the sandbox's own)",
    )
    options = parser.parse_args(arguments)
    config = options.config or [_default_config()]
    try:
        with running(config, os.environ, host=options.host, port=options.port) as sandbox:
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, signal.default_int_handler)
            sys.stdout.write(welcome(sandbox))
            sys.stdout.flush()
            threading.Event().wait()
    except KeyboardInterrupt:
        sys.stdout.write("\nThe sandbox is gone.\n")
    except (SandboxRefusedError, ConfigError, KeyStoreError) as exc:
        problems = "\n  ".join(str(exc).splitlines())
        sys.stderr.write(f"The sandbox does not start:\n  {problems}\n")
        return 2
    return 0


def _default_config() -> Path:
    here = Path("app-config.yaml")
    return here if here.is_file() else Path(__file__).with_name("app-config.yaml")


def welcome(sandbox: Sandbox) -> str:
    """Return what the user is told: addresses, tokens, and commands to try."""
    first_day = sandbox.today - timedelta(days=USAGE_DAYS - 1)
    month = f"start_date={first_day}&end_date={sandbox.today}"
    key = '{"alias": "my-first-key", "models": ["gpt-4o-mini"], "duration": "7d", "max_budget": 5}'
    team = '{"team_alias": "Robots", "models": ["gpt-4o-mini"], "max_budget": 100}'
    tried = (
        ("bob's keys", BOB, "/keys", None),
        ("bob makes a key; its secret is told this once", BOB, "/keys/generate", key),
        (f"what bob used in the last {USAGE_DAYS} days", BOB, f"/usage?{month}", None),
        ("bob's teams", BOB, "/teams", None),
        ("carol's first visit: she becomes a user, by her group's role", CAROL, "/user/info", None),
        ("alice makes a team, because she is in the admin group", ALICE, "/teams", team),
        ("alice reads the audit log", ALICE, "/audit?page=1&page_size=5", None),
        ("bob may not", BOB, "/audit?page=1&page_size=5", None),
    )
    shown = (ALICE, BOB)
    lines = [
        "The sandbox is up. All of it is made up, and gone when you press Ctrl-C.",
        "",
        f"  service    {sandbox.url}",
        f"  LiteLLM    {sandbox.settings.base_url}  (stand-in)",
        f"  Backstage  {sandbox.settings.discovery.backstage_url}  (stand-in)",
        "",
        f"Tokens, good for {TOKEN_HOURS} hours:",
        *(f"\n  {person.name}\n  {sandbox.tokens[person]}" for person in shown),
        "",
        "Try, in another terminal (-H @FILE sends the token that is in FILE):",
        *(
            f"\n  # {what}\n  {_curl(sandbox, person, path, body)}"
            for what, person, path, body in tried
        ),
        "",
        "",
    ]
    return "\n".join(lines)


def _curl(sandbox: Sandbox, person: Person, path: str, body: str | None) -> str:
    data = f"-H 'Content-Type: application/json' -d '{body}' " if body else ""
    return f"curl -sS -w '\\n' -H @{sandbox.headers[person]} {data}'{sandbox.url}{path}'"


if __name__ == "__main__":
    sys.exit(main())
