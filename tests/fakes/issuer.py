"""An OpenID Connect issuer with authorization codes, device codes and rotating refresh tokens."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.fakes.network import Asked, Reply
from tests.tokens import SigningKey

CLIENT = "abby-cli"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass
class Grant:
    """What a code stands for."""

    user: str
    challenge: str | None
    redirect_uri: str | None = None
    nonce: str | None = None
    approved: bool = True


@dataclass
class FakeIssuer:
    """The issuer.

    Attributes:
        base_url: Its URL, which is the issuer's name.
        mint: Returns an access token for a user name.
        clock: Unix time in seconds.
        user: Signs in at once, on whatever page.
        metadata: Replaces members of the metadata; None drops one.
        redirected: Replaces parameters of the redirect; None drops one.
        claims: Replaces claims of the ID token; None drops one.
        lives: Seconds of an access token.
        rotates: Whether a refresh token is good once.
        answers: What the token endpoint answers next, instead of its own answer.
        device_errors: The errors of the next polls.
        requests: Grant types asked for, and "revoke".
    """

    base_url: str
    mint: Callable[[str], str]
    clock: Callable[[], float] = time.time
    user: str = "alice"
    metadata: dict[str, Any] = field(default_factory=dict)
    redirected: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    lives: int = 300
    rotates: bool = True
    refreshes: bool = True
    answers: list[Reply] = field(default_factory=list)
    device_errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    codes: dict[str, Grant] = field(default_factory=dict)
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    access_tokens: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key = SigningKey.ec("issuer-key")

    def answer(self, asked: Asked) -> Reply:
        form = dict(parse_qsl(asked.body.decode(), keep_blank_values=True))
        match asked.method, asked.path:
            case "GET", "/.well-known/openid-configuration":
                return Reply(json=self._metadata())
            case "GET", "/jwks":
                return Reply(json={"keys": [self.key.jwk()]})
            case "GET", "/authorize":
                return self._authorize(dict(asked.parameters))
            case "POST", "/token":
                self.requests.append(form.get("grant_type", ""))
                return self.answers.pop(0) if self.answers else self._token(form)
            case "POST", "/device":
                return self._device(form)
            case "POST", "/revoke":
                self.requests.append("revoke")
                self.refresh_tokens.pop(form.get("token", ""), None)
                return Reply(200)
        return Reply(404, {"error": "not_found"})

    def revoke_all(self) -> None:
        """End every sign-in, as an administrator does."""
        self.refresh_tokens.clear()
        self.access_tokens.clear()

    def accepts(self, token: str | None) -> bool:
        return self.access_tokens.get(token or "", 0) > self.clock()

    def _metadata(self) -> dict[str, Any]:
        endpoints = {
            "authorization_endpoint": "/authorize",
            "token_endpoint": "/token",
            "device_authorization_endpoint": "/device",
            "revocation_endpoint": "/revoke",
            "jwks_uri": "/jwks",
        }
        told: dict[str, Any] = {name: self.base_url + path for name, path in endpoints.items()}
        told["issuer"] = self.base_url
        return _without_none(
            {**told, "scopes_supported": ["openid", "offline_access"]}, self.metadata
        )

    def _authorize(self, query: dict[str, str]) -> Reply:
        assert query["client_id"] == CLIENT
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert query["redirect_uri"].startswith("http://127.0.0.1:")
        code = secrets.token_urlsafe(16)
        self.codes[code] = Grant(
            self.user, query["code_challenge"], query["redirect_uri"], query.get("nonce")
        )
        told = {"code": code, "state": query["state"], "iss": self.base_url}
        parameters = urlencode(_without_none(told, self.redirected))
        return Reply(302, headers={"Location": f"{query['redirect_uri']}?{parameters}"})

    def _device(self, form: dict[str, str]) -> Reply:
        assert form["client_id"] == CLIENT
        code = secrets.token_urlsafe(16)
        self.codes[code] = Grant(self.user, form.get("code_challenge"))
        page = f"{self.base_url}/activate"
        return Reply(
            json={
                "device_code": code,
                "user_code": "WDJB-MJHT",
                "verification_uri": page,
                "verification_uri_complete": f"{page}?user_code=WDJB-MJHT",
                "expires_in": 600,
                "interval": 2,
            }
        )

    def _token(self, form: dict[str, str]) -> Reply:
        if form.get("client_id") != CLIENT:
            return Reply(401, {"error": "invalid_client"})
        kind = form["grant_type"]
        if kind == DEVICE_CODE and self.device_errors:
            return Reply(400, {"error": self.device_errors.pop(0)})
        if kind == "refresh_token":
            user = self.refresh_tokens.get(form["refresh_token"])
            if user is None:
                return Reply(400, {"error": "invalid_grant", "error_description": "not active"})
            if self.rotates:
                del self.refresh_tokens[form["refresh_token"]]
            return self._tokens(user, None)
        grant = self.codes.pop(
            form["code"] if kind == "authorization_code" else form["device_code"], None
        )
        if grant is None or grant.redirect_uri != form.get("redirect_uri"):
            return Reply(400, {"error": "invalid_grant", "error_description": "Code not valid"})
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != grant.challenge:
            return Reply(400, {"error": "invalid_grant", "error_description": "PKCE failed"})
        return self._tokens(grant.user, grant.nonce)

    def _tokens(self, user: str, nonce: str | None) -> Reply:
        access = self.mint(user)
        self.access_tokens[access] = self.clock() + self.lives
        told: dict[str, Any] = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.lives,
            "id_token": self._id_token(user, nonce),
        }
        if self.refreshes:
            told["refresh_token"] = f"refresh-{secrets.token_urlsafe(16)}"
            self.refresh_tokens[told["refresh_token"]] = user
        return Reply(json=told)

    def _id_token(self, user: str, nonce: str | None) -> str:
        now = int(self.clock())
        claims = {
            "iss": self.base_url,
            "sub": f"id-of-{user}",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            "preferred_username": user,
        }
        header = {"alg": "ES256", "kid": self.key.kid, "typ": "JWT"}
        return self.key.token(header, _without_none(claims, self.claims))


def _without_none(members: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **over}.items() if value is not None}
