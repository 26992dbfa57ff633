"""The service's ``/bridge`` routes, asked with the tokens of the saved sign-in."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from litellm_plugin.developer import web
from litellm_plugin.developer.errors import CommandError, SignInAgain
from litellm_plugin.developer.keys import Order, kept, usable
from litellm_plugin.developer.saved import Saved
from litellm_plugin.developer.sign_in import Issuer, Tokens

_NAME = "The service"
_LEEWAY = 30.0  # seconds before its end that an access token is renewed
_KEY = re.compile(r"[\x21-\x7e]+")

Json = dict[str, Any]


def health(url: str) -> Json:
    """Return ``GET /bridge/health``.

    Raises:
        CommandError: The service is away, or its bridge is off.
    """
    answer = web.request("GET", f"{url}/bridge/health", _NAME)
    if answer.status_code == 404:
        raise CommandError(
            f"{url} has no bridge: the URL ends with /api/litellm, and the operator sets "
            "litellm.bridge.enabled"
        )
    return web.json_object(answer, _NAME)


def site(issuer: str, client_id: str, tokens: Tokens, litellm_url: str | None) -> Json:
    """Return what is saved of a sign-in."""
    return {
        "issuer": issuer,
        "client_id": client_id,
        "litellm_url": litellm_url,
        "keys": {},
        **_of_tokens(tokens),
    }


def obtain(saved: Saved, url: str, order: Order, *, fresh: bool = False) -> Json:
    """Return a key, as :func:`kept` has it: the kept one, or a new one.

    Args:
        saved: Has the sign-in and the keys.
        url: The service's.
        order: What is asked for.
        fresh: Whether to make a key although a kept one could be used.

    Raises:
        SignInAgain: There is no sign-in, or it has ended.
        CommandError: The service refuses, or is away.
    """
    with saved.lock():
        document = saved.read()
        signed_in = document.get("sites", {}).get(url)
        if signed_in is None:
            raise SignInAgain(f"Nobody is signed in at {url}.")
        entry: Json | None = signed_in["keys"].get(order.slot)
        if entry is not None and not fresh and usable(entry, order, time.time()):
            return entry  # another process has made it while this one waited

        def renew() -> str:
            tokens = _renewed(signed_in)
            signed_in.update(_of_tokens(tokens))
            saved.write(document)  # at once: the old refresh token may be good no more
            return tokens.access_token

        answer = _post(url, order, signed_in, renew)
        entry = _entry(answer, order, time.time())
        signed_in["keys"][order.slot] = entry
        saved.write(document)
        return entry


def sign_out(signed_in: Mapping[str, Any]) -> bool:
    """Revoke the refresh token of a sign-in; return whether the issuer can do that.

    Raises:
        CommandError: The issuer refuses, or is away.
    """
    if signed_in["refresh_token"] is None:
        return False
    issuer = Issuer.discover(signed_in["issuer"], signed_in["client_id"])
    return issuer.revoke(signed_in["refresh_token"])


def _of_tokens(tokens: Tokens) -> Json:
    found = {
        "access_token": tokens.access_token,
        "until": tokens.until,
        "refresh_token": tokens.refresh_token,
    }
    return found if tokens.user is None else found | {"user": tokens.user}


def _renewed(signed_in: Mapping[str, Any]) -> Tokens:
    if signed_in["refresh_token"] is None:
        raise SignInAgain("The sign-in has ended; the identity provider gave no refresh token.")
    issuer = Issuer.discover(signed_in["issuer"], signed_in["client_id"])
    return issuer.renew(signed_in["refresh_token"])


def _post(url: str, order: Order, signed_in: Json, renew: Callable[[], str]) -> web.Answer:
    """Ask for a key. On 401 the access token is renewed, once: this clock may be wrong."""

    def post(token: str) -> web.Answer:
        return web.request("POST", f"{url}/bridge/keys", _NAME, token=token, json=order.body())

    renewed = signed_in["until"] - _LEEWAY <= time.time()
    answer = post(renew() if renewed else signed_in["access_token"])
    if answer.status_code == 401 and not renewed:
        answer = post(renew())
    if answer.status_code == 401:
        raise SignInAgain(f"The service does not accept the sign-in{_reason(answer)}.")
    return answer


def _entry(answer: web.Answer, order: Order, now: float) -> Json:
    if answer.status_code == 400 and "tool" in _reason(answer):
        raise CommandError(
            "The service has no keys for tools: the operator configures litellm.bridge.keys"
            f"{_reason(answer)}"
        )
    if answer.status_code != 200:
        raise CommandError(f"The service made no key ({answer.status_code}){_reason(answer)}")
    made = web.json_object(answer, _NAME)
    key, expires = made.get("key"), _seconds(made.get("expires"))
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise CommandError("The service's answer has no readable key")
    if expires is None:
        raise CommandError("The service's answer has no readable time in the field expires")
    return kept(key, order, expires=expires, date=web.date_of(answer) or now, now=now)


def _reason(answer: web.Answer) -> str:
    """Return the texts of an error, after a colon."""
    told: Any = None
    with suppress(ValueError):
        told = answer.json()
    texts = [told.get(name) for name in ("error", "hint")] if isinstance(told, dict) else []
    found = ". ".join(web.plain(text).rstrip(".") for text in texts if isinstance(text, str))
    return f": {found}" if found else ""


def _seconds(expires: Any) -> float | None:
    try:
        end = datetime.fromisoformat(expires)
        return end.replace(tzinfo=end.tzinfo or UTC).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
