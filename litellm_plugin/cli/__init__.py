"""The ``litellm-plugin`` command: what an operator asks from a terminal.

A module per command. They read what the service reads, and ask whom it asks by the same
clients; none of them writes anything, anywhere.
"""

from __future__ import annotations

import logging

import click

from litellm_plugin import __version__
from litellm_plugin.cli.config import config
from litellm_plugin.cli.doctor import doctor
from litellm_plugin.cli.sandbox import sandbox
from litellm_plugin.cli.token import token
from litellm_plugin.cli.whoami import whoami


@click.group(
    "litellm",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The configuration is what the service reads: the files of LITELLM_PLUGIN_CONFIG, "
    "else app-config.yaml and app-config.local.yaml of the working directory.",
)
@click.version_option(__version__, prog_name="litellm-plugin")
@click.option("-v", "--verbose", is_flag=True, help="Show what is logged on the way.")
def main(*, verbose: bool) -> None:
    """Look after the LiteLLM plugin: its configuration, its surroundings, its users."""
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


for command in (config, doctor, token, whoami, sandbox):
    main.add_command(command)
