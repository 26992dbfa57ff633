"""The service's ``/bridge`` routes, asked with the tokens of the saved sign-in."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from litellm_plugin.developer import web
from litellm_plugin.developer.errors import CommandError, SignInAgain
from litellm_plugin.developer.keys import Order, kept, remaining, usable
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
        "user": tokens.user,
        "litellm_url": litellm_url,
        "keys": {},
        **_of_tokens(tokens),
    }


def same_user(before: Json, after: Json) -> bool:
    """Return whether two sign-ins, as :func:`site` returns them, are certainly one user's."""
    return after["user"] is not None and all(
        before.get(name) == after[name] for name in ("issuer", "user")
    )


def obtain(saved: Saved, url: str, order: Order, *, fresh: bool = False) -> Json:
    """Return a key, as :func:`kept` has it: the kept one, or a new one.

    Args:
        saved: Has the sign-in and the keys.
        url: The service's.
        order: What is asked for.
        fresh: Whether to make a key although a kept one could be used.

    Raises:
        SignInAgain: The sign-in has ended.
        CommandError: There is no sign-in, the service refuses, or is away.
    """
    with saved.lock():
        document = saved.read()
        signed_in = document.get("sites", {}).get(url)
        if signed_in is None:
            raise CommandError(
                f"You are not signed in at {url}. Sign in: litellm-plugin login --url {url}"
            )
        entry: Json | None = signed_in["keys"].get(order.slot)
        if entry is not None and not fresh and usable(entry, order, time.time()):
            return entry  # another process has made it while this one waited

        # A renewal is saved at once: the old refresh token may be good no more.
        access = _Access(signed_in, lambda: saved.write(document))
        answer = access.ask("POST", f"{url}/bridge/keys", order.body())
        if answer.status_code == 401:
            raise SignInAgain(f"The service does not accept the sign-in{_reason(answer)}.")
        if answer.status_code == 400 and "keys" not in health(url):
            raise CommandError(
                "The service makes no keys for tools: litellm.bridge.keys is not set there"
                f"{_reason(answer)}"
            )
        entry = _entry(answer, order, time.time())
        signed_in["keys"][order.slot] = entry
        saved.write(document)
        return entry


def sign_out(url: str, signed_in: Json) -> list[str]:
    """Delete the keys of a sign-in and revoke its refresh token.

    Returns:
        A sentence for each of them for which that failed.
    """
    problems, access = [], _Access(signed_in)
    for slot, entry in sorted(signed_in["keys"].items()):
        if remaining(entry, time.time()) > 0 and (failure := _deleted(url, entry, access)):
            end = datetime.fromtimestamp(entry["expires"], UTC)
            problems.append(
                f"The key of {slot} was not deleted ({failure}). If LiteLLM still has it, it "
                f"works until {end:%Y-%m-%d %H:%M} UTC."
            )
    try:
        revoked = signed_in["refresh_token"] is not None and access.issuer.revoke(
            signed_in["refresh_token"]
        )
        failure = None if revoked else "the identity provider can't revoke it"
    except CommandError as exc:
        failure = str(exc)
    return [*problems, f"The sign-in was not revoked ({failure})."] if failure else problems


def _deleted(url: str, entry: Mapping[str, Any], access: _Access) -> str | None:
    """Delete a key; return why it failed, or None."""
    try:
        answer = access.ask("DELETE", f"{url}/bridge/keys/{quote(entry['token'], safe='')}")
    except CommandError as exc:
        return str(exc)
    return None if answer.status_code == 200 else f"{answer.status_code}{_reason(answer)}"


def _of_tokens(tokens: Tokens) -> Json:
    return {
        "access_token": tokens.access_token,
        "until": tokens.until,
        "refresh_token": tokens.refresh_token,
    }


class _Access:
    """Asks the service with the access token of a sign-in, which is renewed where needed.

    Args:
        signed_in: What is saved of the sign-in; gets the new tokens.
        save: Saves it.
    """

    def __init__(self, signed_in: Json, save: Callable[[], None] = lambda: None) -> None:
        self._signed_in = signed_in
        self._save = save

    @functools.cached_property
    def issuer(self) -> Issuer:
        return Issuer.discover(self._signed_in["issuer"], self._signed_in["client_id"])

    def ask(self, method: str, url: str, body: Any = None) -> web.Answer:
        """Send a request; a 401 renews the access token once, as this host's clock may be wrong."""
        renewed = self._signed_in["until"] - _LEEWAY <= time.time()
        if renewed:
            self._renew()
        answer = self._send(method, url, body)
        if answer.status_code == 401 and not renewed:
            self._renew()
            answer = self._send(method, url, body)
        return answer

    def _send(self, method: str, url: str, body: Any) -> web.Answer:
        token = self._signed_in["access_token"]
        return web.request(method, url, _NAME, token=token, json=body)

    def _renew(self) -> None:
        token = self._signed_in["refresh_token"]
        if token is None:
            raise SignInAgain("The sign-in has ended; the identity provider gave no refresh token.")
        self._signed_in.update(_of_tokens(self.issuer.renew(token)))
        self._save()


def _entry(answer: web.Answer, order: Order, now: float) -> Json:
    if answer.status_code != 200:
        raise CommandError(f"The service made no key ({answer.status_code}){_reason(answer)}")
    made = web.json_object(answer, _NAME)
    key, expires = made.get("key"), _seconds(made.get("expires"))
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise CommandError("The service's answer has no readable key")
    if expires is None:
        raise CommandError("The service's answer has no readable time in the field expires")
    token = made.get("token")
    if not isinstance(token, str):
        raise CommandError("The service's answer has no readable token, the id of the key")
    return kept(key, token, order, expires=expires, date=web.date_of(answer) or now, now=now)


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
