"""``sandbox``: runs the service beside stand-ins for LiteLLM and Backstage."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import click

import litellm_plugin.sandbox
from litellm_plugin.cli.terminal import FAULTY, config_option, json_option, print_json, stop
from litellm_plugin.config import ConfigError
from litellm_plugin.identity.signing import KeyStoreError
from litellm_plugin.sandbox.launch import PORT, TOKEN_HOURS, Sandbox, SandboxRefusedError, running
from litellm_plugin.sandbox.page import Example, examples
from litellm_plugin.sandbox.people import BOB


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address.")
@click.option(
    "--port",
    type=int,
    help=f"Default: {PORT}, or a free port.",
)
@click.option(
    "--demo",
    type=click.Path(path_type=Path),
    help="Folder with the built demo, which 'make demo' builds and serves.",
)
@config_option
@json_option
def sandbox(
    files: Sequence[Path], host: str, port: int | None, demo: Path | None, *, as_json: bool
) -> None:
    """Run the service beside stand-ins for LiteLLM and Backstage.

    The service is the real one; the stand-ins hold made-up data in memory. Without --config
    it reads app-config.yaml of the working directory, or its own if there is none.
    """
    config = files or [_default_config()]
    try:
        with running(config, os.environ, host=host, port=port, demo=demo) as started:
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, signal.default_int_handler)
            if as_json:
                print_json(_told(started))
            else:
                click.echo(welcome(started, with_demo=demo is not None), nl=False)
            sys.stdout.flush()
            threading.Event().wait()
    except KeyboardInterrupt:
        click.echo("\nThe sandbox has ended.", err=as_json)
    except (SandboxRefusedError, ConfigError, KeyStoreError) as exc:
        problems = "\n  ".join(str(exc).splitlines())
        stop(f"The sandbox does not start:\n  {problems}", FAULTY)


def _told(started: Sandbox) -> dict[str, object]:
    """Return the fields of ``--json``."""
    return {
        "page": started.page,
        "url": started.url,
        "litellm": started.settings.base_url,
        "backstage": started.settings.discovery.backstage_url,
        "tokens": {person.entity_ref: token for person, token in started.tokens.items()},
        "config": [str(path) for path in started.config],
        "headers": {person.entity_ref: str(file) for person, file in started.headers.items()},
    }


def _default_config() -> Path:
    here = Path("app-config.yaml")
    own = Path(litellm_plugin.sandbox.__file__).with_name("app-config.yaml")
    return here if here.is_file() else own


def welcome(started: Sandbox, *, with_demo: bool = False) -> str:
    """Return the text for the user: addresses, and commands to try."""
    lines = [
        f"The sandbox is up: open {started.page}{'demo/' if with_demo else ''} in a browser.",
        "Its data is made up and lost when you press Ctrl-C.",
        "",
        f"  service    {started.url}",
        f"  LiteLLM    {started.settings.base_url}  (stand-in)",
        f"  Backstage  {started.settings.discovery.backstage_url}  (stand-in)",
        "",
        f"Commands to try in another terminal (the tokens of -H expire in {TOKEN_HOURS} hours):",
        *(
            f"\n  # {example.what}\n  {_curl(started, example)}"
            for example in examples(started.today)
        ),
        "",
        "Commands for operators:",
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
    """Return the path of the command, which need not be in ``PATH``."""
    script = Path(sys.executable).with_name("litellm-plugin")
    if not script.exists():
        return f"{sys.executable} -m litellm_plugin"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)


def _curl(started: Sandbox, example: Example) -> str:
    body, headers = example.body, started.headers[example.person]
    data = f"-H 'Content-Type: application/json' -d '{json.dumps(body)}' " if body else ""
    return f"curl -sS -w '\\n' -H @{headers} {data}'{started.url}{example.path}'"
