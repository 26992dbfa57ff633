"""Calls of the service's ``/bridge`` routes, with the tokens of a saved sign-in."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from litellm_plugin.developer import web
from litellm_plugin.developer.errors import CommandError, SignInAgain
from litellm_plugin.developer.keys import KeyRequest, remaining, usable
from litellm_plugin.developer.saved import Saved
from litellm_plugin.developer.sign_in import Issuer, Tokens

_NAME = "The service"
_LEEWAY = 30.0  # an access token is renewed this many seconds before it expires
_KEY = re.compile(r"[\x21-\x7e]+")

Json = dict[str, Any]


def health(url: str) -> Json:
    """Return ``GET /bridge/health``.

    Raises:
        CommandError: The service does not answer, or its bridge is off.
    """
    answer = web.request("GET", f"{url}/bridge/health", _NAME)
    if answer.status_code == 404:
        raise CommandError(
            f"{url} has no bridge. Check the URL, which ends with /api/litellm, or ask the "
            "operator to set litellm.bridge.enabled and issuer"
        )
    return web.json_object(answer, _NAME)


def new_sign_in(issuer: str, client_id: str, tokens: Tokens, litellm_url: str | None) -> Json:
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
    """Return whether two saved sign-ins are certainly those of one user."""
    return after["user"] is not None and all(
        before.get(name) == after[name] for name in ("issuer", "user")
    )


def obtain(saved: Saved, url: str, wanted: KeyRequest, *, fresh: bool = False) -> Json:
    """Return the saved key, or save and return a new one; its fields are those of ``keys``.

    Args:
        saved: The saved sign-ins and keys.
        url: The service's.
        wanted: The request.
        fresh: Whether to get a new key although the saved one could be used.

    Raises:
        SignInAgain: The sign-in has ended.
        CommandError: There is no sign-in, or the service refuses or does not answer.
    """
    with saved.lock():
        document = saved.read()
        sign_in = document.get("sign_ins", {}).get(url)
        if sign_in is None:
            raise CommandError(
                f"You are not signed in at {url}. Sign in: litellm-plugin login --url {url}"
            )
        entry: Json | None = sign_in["keys"].get(wanted.slot)
        if entry is not None and not fresh and usable(entry, wanted, time.time()):
            return entry  # another process has got the key while this one waited for the lock

        # Renewed tokens are saved at once, as the old refresh token may no longer be valid.
        access = _Access(sign_in, lambda: saved.write(document))
        answer = access.ask("POST", f"{url}/bridge/keys", wanted.body())
        if answer.status_code == 401:
            raise SignInAgain(f"The service does not accept the sign-in{_reason(answer)}.")
        if answer.status_code == 400 and "keys" not in health(url):
            raise CommandError(
                "The service makes no tool keys: litellm.bridge.keys is not set there"
                f"{_reason(answer)}"
            )
        entry = _entry(answer, wanted, time.time())
        sign_in["keys"][wanted.slot] = entry
        saved.write(document)
        return entry


def sign_out(url: str, sign_in: Json) -> list[str]:
    """Delete the keys of a sign-in and revoke its refresh token.

    Returns:
        A sentence for each that failed.
    """
    problems, access = [], _Access(sign_in)
    for slot, entry in sorted(sign_in["keys"].items()):
        if remaining(entry, time.time()) > 0 and (failure := _delete(url, entry, access)):
            end = datetime.fromtimestamp(entry["expires"], UTC)
            problems.append(
                f"The key of {slot} was not deleted ({failure}). If LiteLLM still has it, it "
                f"works until {end:%Y-%m-%d %H:%M} UTC."
            )
    try:
        revoked = sign_in["refresh_token"] is not None and access.issuer.revoke(
            sign_in["refresh_token"]
        )
        failure = None if revoked else "the identity provider can't revoke it"
    except CommandError as exc:
        failure = str(exc)
    return [*problems, f"The sign-in was not revoked ({failure})."] if failure else problems


def _delete(url: str, entry: Mapping[str, Any], access: _Access) -> str | None:
    """Delete a key; return the reason if that failed, else None."""
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
    """Sends requests to the service with the access token of a sign-in, and renews the token.

    Args:
        sign_in: The saved sign-in; renewed tokens are written to it.
        save: Called after that.
    """

    def __init__(self, sign_in: Json, save: Callable[[], None] = lambda: None) -> None:
        self._signed_in = sign_in
        self._save = save

    @functools.cached_property
    def issuer(self) -> Issuer:
        return Issuer.discover(self._signed_in["issuer"], self._signed_in["client_id"])

    def ask(self, method: str, url: str, body: Any = None) -> web.Answer:
        """Send a request; after a 401, renew the access token and try again, once.

        This host's clock may be wrong, so the expiry alone does not decide.
        """
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


def _entry(answer: web.Answer, wanted: KeyRequest, now: float) -> Json:
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
    created = web.date_of(answer) or now
    return {
        "key": key,
        "token": token,
        "request": wanted.body(),
        "expires": expires,
        "created": created,
        "ahead": created - now,
    }


def _reason(answer: web.Answer) -> str:
    """Return the error and hint of an answer, after a colon; "" without them."""
    body = web.json_of(answer)
    texts = [body.get(name) for name in ("error", "hint")] if isinstance(body, dict) else []
    found = ". ".join(web.plain(text).rstrip(".") for text in texts if isinstance(text, str))
    return f": {found}" if found else ""


def _seconds(expires: Any) -> float | None:
    try:
        end = datetime.fromisoformat(expires)
        seconds = end.replace(tzinfo=end.tzinfo or UTC).timestamp()
        datetime.fromtimestamp(seconds, UTC)  # as logout shows it
        return seconds
    except (TypeError, ValueError, OverflowError):
        return None
