"""The ``litellm-plugin`` command: a module for each subcommand.

They read the service's configuration and use its clients. All but ``sandbox``, and jobs that
apply changes, only read.
"""

from __future__ import annotations

import logging

import click

from litellm_plugin import __version__
from litellm_plugin.cli.audit import audit
from litellm_plugin.cli.config import config
from litellm_plugin.cli.doctor import doctor
from litellm_plugin.cli.jobs import jobs
from litellm_plugin.cli.notify import notify
from litellm_plugin.cli.offboard import offboard
from litellm_plugin.cli.report import report
from litellm_plugin.cli.sandbox import sandbox
from litellm_plugin.cli.sync import sync
from litellm_plugin.cli.token import token
from litellm_plugin.cli.whoami import whoami


@click.group(
    "litellm",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The commands read the service's configuration: the files of --config, else those of "
    "LITELLM_PLUGIN_CONFIG, else app-config.yaml and app-config.local.yaml of the working folder.",
)
@click.version_option(__version__, prog_name="litellm-plugin")
@click.option("-v", "--verbose", is_flag=True, help="Show log messages.")
def main(*, verbose: bool) -> None:
    """Inspect the LiteLLM plugin: its configuration, its upstreams, its users."""
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


for command in (
    config,
    doctor,
    token,
    whoami,
    audit,
    sync,
    offboard,
    notify,
    jobs,
    report,
    sandbox,
):
    main.add_command(command)
