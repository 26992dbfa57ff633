"""``key``: prints a key for a tool."""

from __future__ import annotations

import math
import re
import shlex
import socket
import time
from pathlib import Path
from typing import Any

import click

from litellm_plugin.developer.errors import CommandError
from litellm_plugin.developer.keys import KeyRequest, usable
from litellm_plugin.developer.saved import Saved


def open_saved() -> Saved:
    """Return the saved sign-ins and keys of this user."""
    folder = Path(click.get_app_dir("litellm-plugin"))
    return Saved(folder, lambda text: click.echo(f"Warning: {text}", err=True))


@click.command()
@click.option("--tool", default="cli", show_default=True, help="The tool that uses the key.")
@click.option("--ttl", help="Lifetime of the key, such as 8h; default: the service's.")
@click.option("--models", help="Models that the key is limited to, such as gpt-4o,gpt-4o-mini.")
@click.option("--team", help="Id of the team that the key belongs to.")
@click.option("--budget", type=float, help="Budget of the key, in USD.")
@click.option("--env", is_flag=True, help="Print lines for a shell to evaluate.")
@click.option("--litellm-url", help="LiteLLM's address for --env, if not the service's.")
@click.option("--url", help="The service, if you are signed in at several.")
@click.option("--fresh", is_flag=True, help="Get a new key, though the last one has not expired.")
def key(
    *,
    tool: str,
    ttl: str | None,
    models: str | None,
    team: str | None,
    budget: float | None,
    env: bool,
    litellm_url: str | None,
    url: str | None,
    fresh: bool,
) -> None:
    """Print a key for a tool, and nothing else.

    Prints the same key until a tenth of its life is left, then a new one. Ends with status 1 if
    there is no key.
    """
    if budget is not None and not 0 < budget < math.inf:
        raise click.BadParameter("wanted a positive number", param_hint="--budget")
    names = tuple(name for each in (models or "").split(",") if (name := each.strip()))
    if models is not None and not names:  # such as an empty variable of a script
        raise click.BadParameter("wanted names, such as gpt-4o,gpt-4o-mini", param_hint="--models")
    wanted = KeyRequest(tool, _machine(), ttl, names, team, budget)
    saved = open_saved()
    document = saved.read()
    url = url.rstrip("/") if url else document.get("current")
    if url is None:
        raise CommandError(
            "You are not signed in. Sign in: litellm-plugin login --url "
            "https://backstage.example.com/api/litellm, with the address of your service"
        )
    sign_in = document.get("sign_ins", {}).get(url, {})
    if env:
        litellm_url = _litellm_url(litellm_url, sign_in)
    entry = sign_in.get("keys", {}).get(wanted.slot)
    if fresh or not usable(entry, wanted, time.time()):
        # Its libraries would make printing a saved key slow.
        from litellm_plugin.developer import bridge  # noqa: PLC0415

        entry = bridge.obtain(saved, url, wanted, fresh=fresh)
    click.echo(_exports(entry["key"], litellm_url) if env and litellm_url else entry["key"])


def _machine() -> str:
    """Return the short name of this host, with "-" for characters that aliases may not have."""
    name = socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:64] or "unknown"


def _litellm_url(given: str | None, sign_in: dict[str, Any]) -> str:
    from litellm_plugin.developer.web import secure_url  # noqa: PLC0415

    found = given or sign_in.get("litellm_url")
    if found is None:
        raise CommandError("The service does not tell LiteLLM's address. Name it: --litellm-url")
    return secure_url(found, "--litellm-url")


def _exports(secret: str, litellm_url: str) -> str:
    """Return lines for a POSIX shell."""
    variables = {
        "ANTHROPIC_AUTH_TOKEN": secret,
        "ANTHROPIC_BASE_URL": litellm_url,
        "OPENAI_API_KEY": secret,
        "OPENAI_BASE_URL": f"{litellm_url}/v1",
        "OPENAI_API_BASE": f"{litellm_url}/v1",  # an older name, which aider reads
    }
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
