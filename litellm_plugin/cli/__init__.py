"""The ``litellm-plugin`` command: a module for each subcommand, imported when it is run.

``login``, ``key`` and ``logout`` are for developers. The others are for operators: they read the
service's configuration and use its clients; all but ``sandbox``, and jobs that apply changes, only
read.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Any

import click

from litellm_plugin import __version__
from litellm_plugin.developer.errors import CommandError

# Each has a module of its name, but for logout.
COMMANDS = (
    "audit",
    "config",
    "doctor",
    "jobs",
    "key",
    "login",
    "logout",
    "notify",
    "offboard",
    "prune",
    "report",
    "sandbox",
    "sync",
    "token",
    "whoami",
)


class LazyGroup(click.Group):
    """Imports a command's module when it is needed: ``key`` is to be fast."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; print the message of a ``CommandError`` and end with status 1."""
        try:
            return super().invoke(ctx)
        except CommandError as exc:
            click.echo(str(exc), err=True)
            sys.exit(1)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        module = import_module(f"{__name__}.{'login' if name == 'logout' else name}")
        command: click.Command = getattr(module, name)
        return command


@click.group(
    "litellm",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="login, key and logout are for developers. The others read the service's configuration: "
    "the files of --config, else those of LITELLM_PLUGIN_CONFIG, else app-config.yaml and "
    "app-config.local.yaml of the working folder.",
)
@click.version_option(__version__, prog_name="litellm-plugin")
@click.option("-v", "--verbose", is_flag=True, help="Show log messages.")
@click.pass_context
def main(ctx: click.Context, *, verbose: bool) -> None:
    """Get keys for your tools, and inspect the LiteLLM plugin, its upstreams and users."""
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    elif ctx.invoked_subcommand != "sandbox":  # which logs as the service does
        # Without any handler, Python prints warnings to standard error.
        log, silent = logging.getLogger("litellm_plugin"), logging.NullHandler()
        log.addHandler(silent)
        ctx.call_on_close(lambda: log.removeHandler(silent))
