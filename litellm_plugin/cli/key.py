"""``key``: prints a key for a tool; and what the developer's commands share."""

from __future__ import annotations

import functools
import math
import re
import shlex
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from litellm_plugin.developer.errors import CommandError
from litellm_plugin.developer.keys import Order, usable
from litellm_plugin.developer.saved import Saved

FAILED = 1

F = TypeVar("F", bound=Callable[..., Any])


def fails_plainly(command: F) -> F:
    """Print the message of a ``CommandError``, without a traceback, and end with status 1."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except CommandError as exc:
            click.echo(str(exc), err=True)
            sys.exit(FAILED)

    return wrapped  # type: ignore[return-value]


def saved_here() -> Saved:
    """Return what this user's commands have saved."""
    folder = Path(click.get_app_dir("litellm-plugin"))
    return Saved(folder, lambda text: click.echo(f"Warning: {text}", err=True))


@click.command()
@click.option("--tool", default="cli", show_default=True, help="The tool that uses the key.")
@click.option("--ttl", help="How long the key lives, such as 8h; default: the service's.")
@click.option("--models", help="The only models that the key is for, such as gpt-4o,gpt-4o-mini.")
@click.option("--team", help="Id of the team that the key belongs to.")
@click.option("--budget", type=float, help="What the key may spend, in USD.")
@click.option("--env", is_flag=True, help="Print lines for a shell to evaluate.")
@click.option("--litellm-url", help="LiteLLM's address for --env, if not the service's.")
@click.option("--url", help="The service, if you are signed in at several.")
@click.option("--fresh", is_flag=True, help="Get a new key, though the last one has not expired.")
@fails_plainly
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

    The same one until a tenth of its life is left. Ends with status 1 if there is none.
    """
    if budget is not None and not 0 < budget < math.inf:
        raise click.BadParameter("wanted a positive number", param_hint="--budget")
    names = tuple(name for each in (models or "").split(",") if (name := each.strip()))
    if models is not None and not names:  # such as an empty variable of a script
        raise click.BadParameter("wanted names, such as gpt-4o,gpt-4o-mini", param_hint="--models")
    order = Order(tool, _machine(), ttl, names, team, budget)
    saved = saved_here()
    document = saved.read()
    url = url.rstrip("/") if url else document.get("current")
    if url is None:
        raise CommandError(
            "You are not signed in. Sign in: litellm-plugin login --url "
            "https://backstage.example.com/api/litellm, with the address of your service"
        )
    site = document.get("sites", {}).get(url, {})
    if env:
        litellm_url = _litellm_url(litellm_url, site)
    entry = site.get("keys", {}).get(order.slot)
    if fresh or not usable(entry, order, time.time()):
        # Imports libraries that are not needed until then.
        from litellm_plugin.developer import bridge  # noqa: PLC0415

        entry = bridge.obtain(saved, url, order, fresh=fresh)
    click.echo(_exports(entry["key"], litellm_url) if env and litellm_url else entry["key"])


def _machine() -> str:
    """Return the short name of this host, in the letters that names of keys may have."""
    name = socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:64] or "unknown"


def _litellm_url(given: str | None, site: dict[str, Any]) -> str:
    from litellm_plugin.developer.web import secure_url  # noqa: PLC0415

    found = given or site.get("litellm_url")
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
