"""``login`` and ``logout``: a developer's sign-in at the company's identity provider."""

from __future__ import annotations

import webbrowser
from datetime import UTC, datetime

import click

from litellm_plugin.cli.key import open_saved
from litellm_plugin.developer import bridge
from litellm_plugin.developer.errors import CommandError
from litellm_plugin.developer.sign_in import Issuer
from litellm_plugin.developer.web import plain, secure_url


@click.command()
@click.option("--url", help="The service, such as https://backstage.example.com/api/litellm.")
@click.option("--device", is_flag=True, help="Print a code, to sign in with a browser on any host.")
@click.option("--issuer", help="The identity provider, if the service does not name it.")
@click.option("--client-id", help="The client at the identity provider, if not the service's.")
@click.option("--scope", help="OAuth scopes to ask for, separated by spaces.")
def login(
    *, url: str | None, device: bool, issuer: str | None, client_id: str | None, scope: str | None
) -> None:
    """Sign in, so that the command key can get keys.

    Without --url, sign in where you signed in last.
    """
    saved = open_saved()
    url = url or saved.read().get("current")
    if url is None:
        raise click.UsageError("Name the service: --url https://backstage.example.com/api/litellm")
    url = secure_url(url, "--url")
    health = bridge.health(url)
    issuer, client_id = issuer or health.get("issuer"), client_id or health.get("clientId")
    if not isinstance(issuer, str) or not isinstance(client_id, str):
        raise CommandError(
            "The service does not name its identity provider, because it has no "
            "litellm.bridge.keys. Ask its operator; or name it: --issuer and --client-id"
        )
    provider = Issuer.discover(issuer, client_id)
    scope = scope or provider.scope
    click.echo(f"Signing in at {plain(issuer)}", err=True)
    tokens = provider.by_device(scope, _show_code) if device else provider.by_browser(scope, _open)
    litellm_url = health.get("baseUrl")
    sign_in = bridge.new_sign_in(
        issuer, client_id, tokens, litellm_url if isinstance(litellm_url, str) else None
    )
    problems: list[str] = []
    with saved.lock():
        document = saved.read()
        sign_ins = document.setdefault("sign_ins", {})
        before = sign_ins.get(url)
        if before is not None and bridge.same_user(before, sign_in):
            sign_in["keys"] = before["keys"]
        elif before is not None:
            problems = bridge.sign_out(url, before)
        sign_ins[url] = sign_in
        saved.write(document | {"current": url})
    click.echo(f"Signed in as {tokens.user}" if tokens.user else "Signed in")
    for problem in problems:
        click.echo(f"Warning: of the sign-in before this one: {problem}", err=True)
    if tokens.refresh_token is None:
        click.echo(
            "The identity provider gave no refresh token: sign in again after "
            f"{datetime.fromtimestamp(tokens.until, UTC):%Y-%m-%d %H:%M} UTC",
            err=True,
        )


@click.command()
def logout() -> None:
    """Delete the keys, and revoke the sign-ins at the identity provider.

    Ends with status 1 if the service or the identity provider refuses or does not answer. Nothing
    stays saved in any case.
    """
    saved, problems = open_saved(), list[str]()
    with saved.lock():
        sign_ins = saved.read().get("sign_ins", {})
        for url, sign_in in sign_ins.items():
            problems += [f"{url}: {problem}" for problem in bridge.sign_out(url, sign_in)]
        saved.forget()
    click.echo("Signed out" if sign_ins else "Nobody was signed in")
    if problems:
        raise CommandError("\n".join(problems))


def _open(url: str) -> None:
    click.echo(f"If no browser opens, open this page on this host:\n{url}", err=True)
    webbrowser.open(url)


def _show_code(url: str, code: str, complete: str | None) -> None:
    click.echo(f"Open {url} in a browser and enter the code {code}", err=True)
    if complete is not None:
        click.echo(f"Or open {complete} and compare the code", err=True)
