"""Sign-in at an OpenID Connect issuer, as a public client.

By authorization code with PKCE (RFC 8252, RFC 7636) or by device code (RFC 8628).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from authlib.integrations.requests_client import OAuth2Session, OAuthError
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from litellm_plugin.developer import web
from litellm_plugin.developer.callback import Callback
from litellm_plugin.developer.errors import CommandError, SignInAgain
from litellm_plugin.developer.web import plain, secure_url
from litellm_plugin.identity.jwt import (
    ASYMMETRIC,
    Claims,
    KeyFormatError,
    PublicKey,
    TokenError,
    audiences,
    parse,
)
from litellm_plugin.identity.key_sets import select

SIGN_IN_SECONDS = 300.0  # for the user to sign in by browser
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"

_NAME = "The identity provider"
_DEFAULT_INTERVAL = 5.0  # seconds between two polls, of RFC 8628
_DEFAULT_LIFE = 60.0  # seconds, for an access token without expires_in
_CENTURY = 36_525 * 86_400.0  # seconds
_CLOCK_SKEW = 300.0  # seconds by which the issuer's clock and this host's may differ


@dataclass(frozen=True, slots=True)
class Tokens:
    """The result of a sign-in or a renewal.

    Attributes:
        access_token: For the bridge.
        until: When the access token expires, in Unix seconds of this host's clock.
        refresh_token: None if the issuer gives none.
        user: The user's name from the ID token; None without an ID token, and after a renewal.
    """

    access_token: str = field(repr=False)
    until: float
    refresh_token: str | None = field(repr=False)
    user: str | None


class _RefusedError(CommandError):
    """The issuer answered with an error code of OAuth, such as ``access_denied``."""

    def __init__(self, error: Any, description: Any) -> None:
        text = f": {plain(str(description))}" if description else ""
        super().__init__(f"{_NAME} refused the sign-in ({plain(str(error))}){text}")
        self.error = error


class Issuer:
    """An issuer, and the client at this issuer that users sign in with.

    Args:
        metadata: The issuer's metadata (OpenID Connect Discovery 1.0).
        client_id: The client.
    """

    def __init__(self, metadata: Mapping[str, Any], client_id: str) -> None:
        self._metadata = metadata
        self._client_id = client_id

    @classmethod
    def discover(cls, issuer: str, client_id: str) -> Issuer:
        """Read the issuer's metadata.

        Raises:
            CommandError: There is none, or another issuer's.
        """
        url = secure_url(issuer, "issuer") + "/.well-known/openid-configuration"
        metadata = web.json_object(web.request("GET", url, _NAME), _NAME)
        named = metadata.get("issuer")
        if not isinstance(named, str) or named.rstrip("/") != issuer.rstrip("/"):
            raise CommandError(f"{url} is of another issuer: {plain(str(named))!r}")
        return cls(metadata, client_id)

    @property
    def scope(self) -> str:
        """The scopes to ask for: with ``offline_access`` where the issuer has it.

        Without it, Keycloak's refresh tokens end when the browser's session is idle.
        """
        supported = self._metadata.get("scopes_supported")
        offline = isinstance(supported, list) and "offline_access" in supported
        return "openid profile email" + (" offline_access" if offline else "")

    def by_browser(self, scope: str, show: Callable[[str], None]) -> Tokens:
        """Sign in by authorization code.

        Args:
            scope: The scopes to ask for.
            show: Shows the user the page to sign in at, by its URL.

        Raises:
            CommandError: The user or the issuer refuses, or the answer is not the issuer's.
        """
        endpoint = self._endpoint("authorization_endpoint")
        state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
        with Callback(state) as callback, self._session() as session:
            url, _ = session.create_authorization_url(
                endpoint,
                state=state,
                code_verifier=verifier,
                redirect_uri=callback.redirect_uri,
                scope=scope,
                nonce=nonce,
            )
            show(url)
            answer = callback.wait(SIGN_IN_SECONDS)
        if "error" in answer:
            raise _RefusedError(answer["error"], answer.get("error_description"))
        self._check_issuer(answer.get("iss"))
        if not answer.get("code"):
            raise CommandError(f"{_NAME} sent neither a code nor an error")
        return self._fetch(
            "authorization_code",
            nonce=nonce,
            code=answer["code"],
            code_verifier=verifier,
            redirect_uri=callback.redirect_uri,
        )

    def by_device(self, scope: str, show: Callable[[str, str, str | None], None]) -> Tokens:
        """Sign in by device code: the user signs in with any browser.

        Args:
            scope: The scopes to ask for.
            show: Shows the user a page's URL, the code to enter there, and a URL that has the
                code in it or None.

        Raises:
            CommandError: The user or the issuer refuses, or the code has expired.
        """
        endpoint = self._endpoint("device_authorization_endpoint")
        # RFC 8628 has no PKCE, but Keycloak requires it where the client is configured so.
        verifier = secrets.token_urlsafe(48)
        answer = web.request(
            "POST",
            endpoint,
            _NAME,
            form={
                "client_id": self._client_id,
                "scope": scope,
                "code_challenge": create_s256_code_challenge(verifier),
                "code_challenge_method": "S256",
            },
        )
        device = _device(answer)
        show(device["verification_uri"], device["user_code"], device["verification_uri_complete"])
        interval, end = device["interval"], time.monotonic() + device["expires_in"]
        while time.monotonic() < end:
            time.sleep(min(interval, device["expires_in"]))
            try:
                return self._fetch(
                    DEVICE_CODE, device_code=device["device_code"], code_verifier=verifier
                )
            except _RefusedError as exc:
                if exc.error == "expired_token":
                    break
                if exc.error == "slow_down":
                    interval += 5
                elif exc.error != "authorization_pending":
                    raise
        raise CommandError("The code has expired before anybody signed in with it")

    def renew(self, refresh_token: str) -> Tokens:
        """Return new tokens, with the old refresh token if the issuer sends no new one.

        Raises:
            SignInAgain: The refresh token is expired, used or revoked.
            CommandError: The issuer is away, or refuses for another reason.
        """
        try:
            return self._fetch("refresh_token", refresh_token=refresh_token)
        except _RefusedError as exc:
            if exc.error == "invalid_grant":
                raise SignInAgain("The sign-in has ended or was revoked.") from exc
            raise

    def revoke(self, refresh_token: str) -> bool:
        """Revoke a refresh token (RFC 7009); return False where the issuer can't.

        Raises:
            CommandError: The issuer refuses, or is away.
        """
        if "revocation_endpoint" not in self._metadata:
            return False
        endpoint = self._endpoint("revocation_endpoint")
        with self._session() as session, web.request_errors(_NAME, endpoint):
            answer = session.revoke_token(endpoint, token=refresh_token, **_OPTIONS)
        if answer.status_code != 200:
            raise CommandError(f"{_NAME} answered {answer.status_code} at {endpoint}")
        return True

    def _session(self) -> OAuth2Session:
        return OAuth2Session(self._client_id, code_challenge_method="S256")

    def _endpoint(self, name: str) -> str:
        if name not in self._metadata:
            raise CommandError(f"{_NAME} has no {name}")
        url = self._metadata[name]
        secure_url(url, name)
        return str(url)

    def _check_issuer(self, issuer: str | None) -> None:
        # RFC 9207: the code may be another issuer's (mix-up attack).
        required = self._metadata.get("authorization_response_iss_parameter_supported") is True
        if (issuer is not None or required) and issuer != self._metadata["issuer"]:
            raise CommandError("The answer of the sign-in is of another issuer")

    def _fetch(self, grant_type: str, *, nonce: str | None = None, **fields: str) -> Tokens:
        """Ask the token endpoint."""
        endpoint = self._endpoint("token_endpoint")
        asked = time.time()
        with self._session() as session, web.request_errors(_NAME, endpoint):
            try:
                answer = session.fetch_token(endpoint, grant_type=grant_type, **fields, **_OPTIONS)
            except OAuthError as exc:
                raise _RefusedError(exc.error, exc.description) from exc
            except _MALFORMED as exc:
                raise CommandError(f"{_NAME} answered no tokens at {endpoint}") from exc
        access_token, refresh_token = answer.get("access_token"), answer.get("refresh_token")
        if not _is_text(access_token) or str(answer.get("token_type")).lower() != "bearer":
            raise CommandError(f"{_NAME} gave no access token of the type Bearer")
        if not _is_text(refresh_token):
            refresh_token = fields.get("refresh_token")
        id_token = answer.get("id_token")
        shown = _is_text(id_token) and grant_type != "refresh_token"  # at a sign-in only
        return Tokens(
            access_token,
            asked + (_number(answer.get("expires_in")) or _DEFAULT_LIFE),
            refresh_token,
            self._user(id_token, nonce) if shown else None,
        )

    def _user(self, id_token: str, nonce: str | None) -> str | None:
        """Return the user's name (OpenID Connect Core 1.0, section 3.1.3.7)."""
        try:
            token = parse(id_token)
            claims = select(self._keys(), token).verify(token, ASYMMETRIC)
            self._check_claims(claims, nonce)
        except TokenError as exc:
            raise CommandError(f"{_NAME}'s ID token is refused: {exc}") from exc
        names = (claims.get(name) for name in ("preferred_username", "email", "sub"))
        return next((plain(name) for name in names if isinstance(name, str) and name), None)

    def _check_claims(self, claims: Claims, nonce: str | None) -> None:
        if claims.get("iss") != self._metadata["issuer"]:
            raise TokenError("it has another issuer")
        named = audiences(claims)
        if self._client_id not in named or claims.get("azp", self._client_id) != self._client_id:
            raise TokenError("it is for another client")
        ends = claims.get("exp")
        if not isinstance(ends, int | float) or not ends > time.time() - _CLOCK_SKEW:
            raise TokenError("it has expired, or this host's clock is wrong")
        if nonce is not None and claims.get("nonce") != nonce:
            raise TokenError("it has another nonce")

    def _keys(self) -> list[PublicKey]:
        answer = web.request("GET", self._endpoint("jwks_uri"), _NAME)
        keys = []
        found = web.json_object(answer, _NAME).get("keys")
        for members in found if isinstance(found, list) else ():
            try:
                keys.append(PublicKey.from_jwk(members))
            except (KeyFormatError, AttributeError):
                continue  # a key for another purpose
        return keys


# What authlib raises for an answer of the token endpoint with values of wrong types.
_MALFORMED = (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError)
_OPTIONS = {"allow_redirects": False, "timeout": web.TIMEOUT}


def _device(answer: Any) -> dict[str, Any]:
    """Return the device authorization response, checked (RFC 8628, section 3.2)."""
    body = web.json_of(answer)
    if answer.status_code in {400, 401} and isinstance(body, dict) and "error" in body:
        raise _RefusedError(body["error"], body.get("error_description"))
    body = web.json_object(answer, _NAME)
    for name in ("device_code", "user_code", "verification_uri"):
        if not _is_text(body.get(name)):
            raise CommandError(f"{_NAME} sent no {name}")
    complete = body.get("verification_uri_complete")
    secure_url(body["verification_uri"], "verification_uri")
    if complete is not None:
        secure_url(complete, "verification_uri_complete")
    return {
        "device_code": body["device_code"],
        "user_code": plain(body["user_code"]),
        "verification_uri": plain(body["verification_uri"]),
        "verification_uri_complete": None if complete is None else plain(complete),
        "interval": _number(body.get("interval")) or _DEFAULT_INTERVAL,
        "expires_in": _number(body.get("expires_in")) or SIGN_IN_SECONDS,
    }


def _number(value: Any) -> float | None:
    """Return a positive number of seconds; None for anything else, and for more than a century.

    Some issuers write it as a string.
    """
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if 0 < number < _CENTURY else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
