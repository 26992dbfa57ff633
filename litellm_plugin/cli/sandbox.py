"""``sandbox``: the service beside stand-ins for LiteLLM and Backstage, to be tried out."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import click

import litellm_plugin.sandbox
from litellm_plugin.cli.terminal import FAULTY, configured, for_machines, print_json
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


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", type=int, help=f"Default: {PORT}, or a free one.")
@configured
@for_machines
def sandbox(files: Sequence[Path], host: str, port: int | None, *, as_json: bool) -> None:
    """Run the service beside stand-ins for LiteLLM and Backstage.

    All of it is made up and held in memory, but the service is the one that is deployed.
    Without --config it takes app-config.yaml of the working directory, else its own.
    """
    try:
        with running(files or [_default_config()], os.environ, host=host, port=port) as started:
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, signal.default_int_handler)
            if as_json:
                print_json(_told(started))
            else:
                click.echo(welcome(started), nl=False)
            sys.stdout.flush()
            threading.Event().wait()
    except KeyboardInterrupt:
        click.echo("\nThe sandbox is gone.", err=as_json)
    except (SandboxRefusedError, ConfigError, KeyStoreError) as exc:
        problems = "\n  ".join(str(exc).splitlines())
        click.echo(f"The sandbox does not start:\n  {problems}", err=True)
        sys.exit(FAULTY)


def _told(started: Sandbox) -> dict[str, object]:
    """Return what :func:`welcome` tells, for machines."""
    return {
        "url": started.url,
        "litellm": started.settings.base_url,
        "backstage": started.settings.discovery.backstage_url,
        "tokens": {person.entity_ref: token for person, token in started.tokens.items()},
        "config": [str(path) for path in started.config],
        "headers": {person.entity_ref: str(file) for person, file in started.headers.items()},
    }


def _default_config() -> Path:
    here = Path("app-config.yaml")
    return (
        here
        if here.is_file()
        else Path(litellm_plugin.sandbox.__file__).with_name("app-config.yaml")
    )


def welcome(started: Sandbox) -> str:
    """Return what the user is told: addresses, tokens, and commands to try."""
    first_day = started.today - timedelta(days=USAGE_DAYS - 1)
    month = f"start_date={first_day}&end_date={started.today}"
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
        f"  service    {started.url}",
        f"  LiteLLM    {started.settings.base_url}  (stand-in)",
        f"  Backstage  {started.settings.discovery.backstage_url}  (stand-in)",
        "",
        f"Tokens, good for {TOKEN_HOURS} hours:",
        *(f"\n  {person.name}\n  {started.tokens[person]}" for person in shown),
        "",
        "Try, in another terminal (-H @FILE sends the token that is in FILE):",
        *(
            f"\n  # {what}\n  {_curl(started, person, path, body)}"
            for what, person, path, body in tried
        ),
        "",
        "And what an operator would ask:",
        "",
        f"  export LITELLM_PLUGIN_CONFIG={','.join(map(str, started.config))}",
        *(
            f"  {_program()} {arguments}"
            for arguments in (
                "doctor",
                "whoami carol",
                f"token --file {started.headers[BOB]}",
                "config check",
            )
        ),
        "",
        "",
    ]
    return "\n".join(lines)


def _program() -> str:
    """Return how to call the command: by its path, which need not be in ``PATH``."""
    script = Path(sys.executable).with_name("litellm-plugin")
    if not script.exists():
        return f"{sys.executable} -m litellm_plugin"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)


def _curl(started: Sandbox, person: Person, path: str, body: str | None) -> str:
    data = f"-H 'Content-Type: application/json' -d '{body}' " if body else ""
    return f"curl -sS -w '\\n' -H @{started.headers[person]} {data}'{started.url}{path}'"
