"""``token``: shows the principal that a token proves, or why the service refuses it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from logging.handlers import BufferingHandler
from typing import Any, TextIO

import click

from litellm_plugin.cli.terminal import (
    FAULTY,
    Page,
    counted,
    json_option,
    printable,
    settings_option,
    show,
    stop,
)
from litellm_plugin.cli.world import read_only_plugin
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import PluginError
from litellm_plugin.identity.jwt import (
    BadSignature,
    Expired,
    NotYetValid,
    TokenError,
    audiences,
    parse,
)
from litellm_plugin.identity.key_sets import NoKeysError, UnknownKey
from litellm_plugin.identity.keycloak import realm_keys_url
from litellm_plugin.identity.plugin_token import OtherAudience, plugin_keys_url
from litellm_plugin.identity.principal import Principal, UserPrincipal
from litellm_plugin.identity.signing import PLUGIN_TYP
from litellm_plugin.identity.user_token import LIMITED_TYP, USER_TYP, is_user_token, user_keys_url
from litellm_plugin.plugin import Plugin
from litellm_plugin.redaction import redact

# Not printed: with one of these, a client can build a limited user token.
_SIGNATURES = frozenset({"uip", "obo"})
_TIMES = ("iat", "nbf", "exp")
_USER_KINDS = {
    USER_TYP: "a Backstage user's token",
    LIMITED_TYP: "a limited user token, as in Backstage's cookie",
}
_STATIC = "a static external-access token"
_BRIDGE = "a Keycloak token, for /bridge/*"


@dataclass(slots=True)
class Reading:
    """What the command prints about a token; docs/command-line.md describes the fields.

    ``no_token``, which is not printed, says why the text is no JSON Web Token; None if it is one.
    """

    kind: str
    keys: str | None = None
    header: Mapping[str, Any] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)
    who: str | None = None
    until: float | None = None
    refusal: str | None = None
    remedy: str | None = None
    notes: Sequence[str] = ()
    no_token: str | None = None


@click.command()
@click.argument("arguments", nargs=-1, metavar="", type=click.UNPROCESSED)
@click.option(
    "--file",
    "source",
    type=click.File("r"),
    help="Read the token from a file, instead of standard input or a prompt.",
)
@settings_option
@json_option
def token(
    arguments: Sequence[str], source: TextIO | None, settings: Settings, *, as_json: bool
) -> None:
    """Show the principal that a token proves, or why the service refuses it.

    The service's own checks decide. Ends with status 1 if the token is refused.
    """
    if arguments:
        raise click.UsageError(
            "A token is not taken from the command line, where every user of this host can see it "
            "(ps). Pass it on standard input, or with --file."
        )
    reading = _read(read_only_plugin(settings), credential(source))
    found = {"ok": reading.refusal is None, **asdict(reading)}
    found["claims"] |= dict.fromkeys(_SIGNATURES & reading.claims.keys(), "(not shown)")
    del found["no_token"]
    show(found, _print, as_json=as_json, failed=not found["ok"])


def credential(source: TextIO | None) -> str:
    """Return the token without ``Authorization:`` and ``Bearer``."""
    if source is not None:
        text = source.read()
    elif sys.stdin.isatty():
        text = click.prompt("Token", hide_input=True, err=True)
    else:
        text = sys.stdin.read()
    words = [word for word in text.split() if word.lower() not in {"authorization:", "bearer"}]
    if len(words) != 1:
        stop("The input is more than one word." if words else "The input has no token.", FAULTY)
    return words[0]


@contextmanager
def _log_of_the_check() -> Iterator[BufferingHandler]:
    """Collect the log records of the check."""
    log, records = logging.getLogger("litellm_plugin.identity"), BufferingHandler(capacity=1000)
    level = log.level
    log.addHandler(records)
    log.setLevel(logging.INFO)
    try:
        yield records
    finally:
        log.removeHandler(records)
        log.setLevel(level)


def _read(plugin: Plugin, text: str) -> Reading:
    settings, reading = plugin.settings, _unverified(plugin.settings, text)
    with _log_of_the_check() as log:
        try:
            principal = plugin.authenticator.authenticate(f"Bearer {text}")
            reading.who = _who(principal)
            if reading.no_token is not None:
                reading.kind = _STATIC
        except PluginError as exc:
            if reading.kind == _BRIDGE:
                log.flush()
                _read_bridge(plugin, text, reading)
            else:
                cause = exc.__cause__ if isinstance(exc.__cause__, TokenError) else None
                _refuse(settings, reading, exc, cause)
                if cause is not None and not isinstance(cause, NoKeysError):
                    log.flush()  # the messages repeat the refusal
            reading.notes = [redact(record.getMessage()) for record in log.buffer]
    if reading.who is not None:
        reading.until = reading.claims.get("exp")
    return reading


def _unverified(settings: Settings, text: str) -> Reading:
    """Return the token's own claims, unverified."""
    try:
        token = parse(text)
        claims = dict(token.unverified_claims)
    except TokenError as exc:
        kind = "a LiteLLM key" if text.startswith("sk-") else "no JSON Web Token"
        return Reading(kind, no_token=str(exc))
    keys = None
    if token.typ == PLUGIN_TYP:
        source = claims.get("sub")
        kind = f"a plugin token of {source}"
        if claims.get("obo"):
            kind += ", on behalf of a user"
        if source == settings.service.plugin_id:
            keys = "this service's own"
        elif isinstance(source, str):
            keys = plugin_keys_url(settings.discovery, source)
    # Before user tokens: an issuer may write the audience of Backstage's old user tokens.
    elif settings.bridge.issuer and claims.get("iss") == settings.bridge.issuer:
        kind, keys = _BRIDGE, realm_keys_url(settings.bridge.issuer)
    elif is_user_token(token):
        kind = _USER_KINDS.get(token.typ, "a Backstage user's token of the old kind")
        keys = user_keys_url(settings.discovery)
    else:
        kind = "a token of an external issuer"
    return Reading(kind, keys, dict(token.header), claims)


def _refuse(
    settings: Settings, reading: Reading, exc: PluginError, cause: TokenError | None
) -> None:
    """Put into ``reading`` why the service refuses the token, and a remedy."""
    about, inside = reading, cause is not None and cause.in_obo
    if inside:
        about = _unverified(settings, reading.claims["obo"])
    refusal, remedy = _fault(settings, about, cause) if cause else _refusal(settings, about, exc)
    if inside:
        refusal = f"About the user's token inside (obo): {refusal}"
    if reading.no_token is not None:
        if exc.status == 403:
            reading.kind = _STATIC
        elif reading.kind == "a LiteLLM key":
            remedy = "LiteLLM itself takes such keys; this service needs a token of Backstage."
        elif cause is None:
            refusal += f" As a JSON Web Token: {reading.no_token}."
    reading.refusal, reading.remedy = refusal, remedy


def _read_bridge(plugin: Plugin, text: str, reading: Reading) -> None:
    """Put into ``reading`` how ``/bridge/*`` decides."""
    if plugin.bridge_tokens is None:
        reading.refusal = "The bridge is closed: litellm.bridge.enabled is false."
        reading.remedy = (
            "Set litellm.bridge.enabled: true to let command-line clients use such tokens."
        )
        return
    try:
        identity = plugin.bridge_tokens.verify(f"Bearer {text}")
        reading.who = f"{identity.login}, at /bridge/* only"
    except PluginError as exc:
        cause = exc.__cause__
        reading.refusal = (
            _fault(plugin.settings, reading, cause)[0]
            if isinstance(cause, TokenError)
            else _sentence(exc.fields.get("hint", exc.message))
        )
        reading.remedy = "Get a new one from the issuer, for the client of litellm.bridge.clientId."


def _who(principal: Principal) -> str:
    if isinstance(principal, UserPrincipal):
        actor = f", through {principal.actor}" if principal.actor else ""
        return f"{principal.entity_ref}{actor}"
    if principal.restrictions is None:
        return f"the service {principal.subject}"
    limits = [
        limit
        for each in principal.restrictions
        for limit in (sorted(each.permissions), [f"action {name}" for name in sorted(each.actions)])
        if limit
    ]
    told = " and ".join(" or ".join(limit) for limit in limits) or "this plugin"
    return f"the service {principal.subject}, restricted to {told}"


# -- why a token is refused -----------------------------------------------------------


def _refusal(settings: Settings, reading: Reading, exc: PluginError) -> tuple[str, str]:
    """Return why a token is refused although no ``TokenError`` was raised, and a remedy."""
    plugin_id, typ = settings.service.plugin_id, reading.header.get("typ")
    if exc.status == 403:
        remedy = (
            f"Give its entry in backend.auth.externalAccess an accessRestriction for {plugin_id}."
        )
    elif typ == LIMITED_TYP:
        remedy = "Use the user's token itself; limited ones count inside plugin tokens only."
    elif typ in (USER_TYP, PLUGIN_TYP):
        remedy = "Get a new one from Backstage."
    else:
        remedy = (
            "It is neither a user's nor a plugin's token, and none of the "
            f"{len(settings.external_access)} entries of backend.auth.externalAccess accepts it."
        )
    return _sentence(redact(exc.message)), remedy


def _fault(settings: Settings, reading: Reading, cause: TokenError) -> tuple[str, str]:
    """Return the meaning of a ``TokenError``, and a remedy."""
    now, claims, keys = time.time(), reading.claims, reading.keys
    other_key = (
        "It is of another Backstage, or its key was replaced: sign in again, or correct "
        "litellm.service.backstageUrl, backend.baseUrl or discovery.endpoints."
    )
    match cause:
        case OtherAudience():
            plugin_id, named = settings.service.plugin_id, ", ".join(sorted(audiences(claims)))
            return (
                f"It is for the plugin {named or '(none)'}, and this service is {plugin_id}.",
                f"The caller needs a token for {plugin_id}; or correct litellm.service.pluginId.",
            )
        case Expired():
            return (
                f"It expired {_ago(now - claims['exp'])} ago.",
                "Get a new one; Backstage's live an hour. If it is new, compare the clocks.",
            )
        case NotYetValid():
            return (
                f"It becomes valid in {_ago(claims['nbf'] - now)}.",
                "Compare the clocks of this host and the issuer.",
            )
        case NoKeysError():
            return (
                f"The keys that verify it can't be read: {keys}.",
                "Check that this host can reach the key set (litellm-plugin doctor).",
            )
        case UnknownKey():
            return f"It is signed by a key that {keys} does not publish.", other_key
        case BadSignature():
            same = f"the key that {keys} publishes under its kid"
            return f"Its signature is not that of {same}.", other_key
    return _sentence(str(cause)), other_key


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _ago(seconds: float) -> str:
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return counted(int(seconds // size), word)
    return f"{max(int(seconds), 1)} s"


# -- output -------------------------------------------------------------


def _time(value: Any) -> str:
    try:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (TypeError, ValueError, OverflowError, OSError):
        return printable(value)


def _print(page: Page, found: dict[str, Any]) -> None:
    rows = [("It is", found["kind"], "")]
    if found["ok"]:
        rows.append(("Accepted as", found["who"], "green"))
        if (until := found["until"]) is not None:
            rows.append(("Until", f"{_time(until)} ({_ago(until - time.time())} left)", ""))
    else:
        rows += [("REFUSED", found["refusal"], "bold red"), ("Remedy", found["remedy"], "")]
    if found["keys"]:
        rows.append(("Key set", found["keys"], ""))
    page.rows([((name, ""), (text, style)) for name, text, style in rows], indent=0, widths=(11,))
    for part in ("header", "claims"):
        if found[part]:
            page.heading(part.capitalize())
            page.pairs(
                {
                    printable(name): _time(value) if name in _TIMES else printable(value)
                    for name, value in found[part].items()
                }
            )
    if found["notes"]:
        page.heading("Log messages")
        for note in found["notes"]:
            page.line(note, "dim", indent=2)
