"""Tokens as Backstage and Keycloak issue them, and broken ones, all really signed.

Nothing here uses the code under test: a token is put together by hand, so that
it may also be wrong in any way a test needs.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

USER_TYP = "vnd.backstage.user"
LIMITED_TYP = "vnd.backstage.limited-user"
PLUGIN_TYP = "vnd.backstage.plugin"

# What tests/contract/base.yaml has in backend.auth.externalAccess.
STATIC_TOKEN = "rig-static-full-access-token"
LEGACY_SECRET = b"rig-legacy-secret-0123456789"
# Those that are limited to something; callers of our own recordings.
RESTRICTED = {
    "static-catalog": "rig-static-catalog-only-token",
    "static-keycreate": "rig-static-litellm-keycreate-token",
    "static-read": "rig-static-litellm-read-token",
}


def b64url(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def segment(part: Any) -> str:
    """Return bytes as they are, and anything else as JSON, in base64url."""
    raw = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
    return b64url(raw)


@dataclass(frozen=True)
class SigningKey:
    """A throw-away key pair that signs by its header's ``alg``."""

    kid: str
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    alg: str

    @classmethod
    def ec(cls, kid: str, alg: str = "ES256") -> SigningKey:
        curve = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}[alg]
        return cls(kid, ec.generate_private_key(curve), alg)

    @classmethod
    def rsa(cls, kid: str, alg: str = "RS256") -> SigningKey:
        return cls(kid, _rsa_key(kid), alg)

    def jwk(self, **over: Any) -> dict[str, Any]:
        """Return the public JWK; ``over`` replaces members, None drops one."""
        public = self.private.public_key()
        members: dict[str, Any]
        if isinstance(public, ec.EllipticCurvePublicKey):
            point = public.public_numbers()
            size = (public.curve.key_size + 7) // 8
            members = {
                "kty": "EC",
                "crv": {256: "P-256", 384: "P-384", 521: "P-521"}[public.curve.key_size],
                "x": b64url(point.x.to_bytes(size, "big")),
                "y": b64url(point.y.to_bytes(size, "big")),
            }
        else:
            numbers = public.public_numbers()
            members = {
                "kty": "RSA",
                "n": b64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
                "e": b64url(numbers.e.to_bytes(3, "big")),
            }
        return _without_none({**members, "kid": self.kid, "alg": self.alg, **over})

    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def private_pem(self) -> bytes:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def signature(self, message: bytes, alg: str) -> bytes:
        """Sign as ``alg`` says, also where it is the attack: none, and HS* with the public PEM."""
        if alg == "none":
            return b""
        digest = f"sha{alg[2:]}"
        if alg.startswith("HS"):
            return hmac.new(self.public_pem(), message, digest).digest()
        hash_ = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hash_[digest])))
            size = (self.private.curve.key_size + 7) // 8
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if alg.startswith("PS"):
            pss = padding.PSS(padding.MGF1(hash_[digest]), hash_[digest].digest_size)
            return self.private.sign(message, pss, hash_[digest])
        return self.private.sign(message, padding.PKCS1v15(), hash_[digest])

    def token(self, header: Any, claims: Any) -> str:
        """Sign any header and payload; bytes are taken as they are."""
        message = f"{segment(header)}.{segment(claims)}"
        alg = header.get("alg", self.alg) if isinstance(header, Mapping) else self.alg
        return f"{message}.{b64url(self.signature(message.encode(), alg))}"


@functools.cache
def _rsa_key(kid: str) -> rsa.RSAPrivateKey:
    """Return one key per name and process: making one takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def bridged(name: str = "bob", email: str | None = "bob@example.com") -> str:
    """Return who comes over the bridge, with a token of Keycloak, as the contract names callers."""
    return "keycloak:" + json.dumps({"preferred_username": name, "email": email})


def entity_ref(person: str) -> str:
    """Return the user entity ref of ``bob``, ``contractors/bob`` or ``user:default/bob``."""
    kind, _, rest = person.rpartition(":")
    namespace, _, name = rest.rpartition("/")
    return f"{kind or 'user'}:{namespace or 'default'}/{name}".lower()


class TokenFactory:
    """Signs as one Backstage with one other plugin, and one Keycloak realm, would.

    Claims given by name replace the usual ones; None drops one.

    Args:
        clock: Unix time in seconds; tokens are issued now and live an hour.
        backstage: Base URL of Backstage.
        issuer: URL of the Keycloak realm.
        audience: Id of the plugin that is asked.
        plugin_id: Id of the plugin that asks.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        backstage: str = "http://127.0.0.1:7007",
        issuer: str = "http://127.0.0.1:7080/realms/rig",
        audience: str = "litellm",
        plugin_id: str = "rig",
    ) -> None:
        self.clock = clock
        self.backstage = backstage
        self.issuer = issuer
        self.audience = audience
        self.plugin_id = plugin_id
        self.user_key = SigningKey.ec("rig-user-key")
        self.plugin_key = SigningKey.ec("rig-plugin-key")
        self.stranger_key = SigningKey.ec("rig-user-key")  # the kid is claimed, not owned

    @functools.cached_property
    def keycloak_key(self) -> SigningKey:
        return SigningKey.rsa("keycloak-key")

    def user(
        self,
        ref: str = "user:default/bob",
        *,
        header: Mapping[str, Any] | None = None,
        key: SigningKey | None = None,
        **claims: Any,
    ) -> str:
        """Return a user token, with its proof of identity ``uip``."""
        key = key or self.user_key
        merged = {
            "iss": f"{self.backstage}/api/auth",
            "sub": entity_ref(ref),
            "aud": "backstage",
            **self._times(),
            **claims,
        }
        if "uip" not in claims:
            proof = {name: merged[name] for name in ("sub", "iat", "exp")}
            limited = {"typ": LIMITED_TYP, "alg": key.alg, "kid": key.kid}
            merged["uip"] = key.token(limited, proof).rpartition(".")[2]
        return key.token(self._header(USER_TYP, key, header), _without_none(merged))

    def limited(
        self,
        ref: str = "user:default/bob",
        *,
        header: Mapping[str, Any] | None = None,
        key: SigningKey | None = None,
        **claims: Any,
    ) -> str:
        """Return a limited user token."""
        key = key or self.user_key
        merged = _without_none({"sub": entity_ref(ref), **self._times(), **claims})
        return key.token(self._header(LIMITED_TYP, key, header), merged)

    def plugin(
        self,
        sub: str | None = None,
        aud: Any = None,
        obo: Any = None,
        *,
        header: Mapping[str, Any] | None = None,
        key: SigningKey | None = None,
        **claims: Any,
    ) -> str:
        """Return another plugin's token; ``obo`` is the limited token of a user."""
        key = key or self.plugin_key
        merged = {
            "sub": self.plugin_id if sub is None else sub,
            "aud": self.audience if aud is None else aud,
            **self._times(),
            "obo": obo,
            **claims,
        }
        return key.token(self._header(PLUGIN_TYP, key, header), _without_none(merged))

    def on_behalf_of(self, ref: str) -> str:
        """Return a plugin token that acts for the user ``ref``."""
        return self.plugin(obo=self.limited(ref))

    def expired(self, ref: str = "user:default/bob", ago: int = 1) -> str:
        end = int(self.clock()) - ago
        return self.user(ref, iat=end - 3600, exp=end)

    def alg_none(self, ref: str = "user:default/bob") -> str:
        return self.user(ref, header={"alg": "none"})

    def hs256(self, ref: str = "user:default/bob") -> str:
        """Return a user token whose HMAC is keyed with the public key, as PEM."""
        return self.user(ref, header={"alg": "HS256"})

    def wrong_aud(self, ref: str = "user:default/bob") -> str:
        return self.user(ref, aud="other")

    def wrong_typ(self, ref: str = "user:default/bob") -> str:
        return self.user(ref, header={"typ": "JWT"})

    def other_key(self, ref: str = "user:default/bob") -> str:
        return self.user(ref, key=self.stranger_key)

    def legacy(self, secret: bytes = LEGACY_SECRET, **claims: Any) -> str:
        """Return a token of the old shared secret, HS256."""
        merged = {"sub": "backstage-server", "exp": int(self.clock()) + 3600, **claims}
        message = f"{segment({'alg': 'HS256'})}.{segment(_without_none(merged))}"
        mac = hmac.new(secret, message.encode(), hashlib.sha256).digest()
        return f"{message}.{b64url(mac)}"

    def keycloak(
        self,
        *,
        header: Mapping[str, Any] | None = None,
        key: SigningKey | None = None,
        **claims: Any,
    ) -> str:
        """Return an access token of the Keycloak realm."""
        key = key or self.keycloak_key
        now = int(self.clock())
        merged = {
            "iss": self.issuer,
            "sub": "f3b1c2d4-0000-4000-8000-00000000000b",
            "aud": "account",
            "azp": "abby-cli",
            "typ": "Bearer",
            "preferred_username": "bob",
            "email": "bob@example.com",
            "name": "Bob Brown",
            "scope": "openid email profile",
            "iat": now,
            "exp": now + 300,
            **claims,
        }
        return key.token(self._header("JWT", key, header), _without_none(merged))

    def jwks(self) -> dict[str, dict[str, Any]]:
        """Return the key sets of everybody who signs here, by their URL."""
        return {
            f"{self.backstage}/api/auth/.well-known/jwks.json": {"keys": [self.user_key.jwk()]},
            f"{self.backstage}/api/{self.plugin_id}/.backstage/auth/v1/jwks.json": {
                "keys": [self.plugin_key.jwk()]
            },
            f"{self.issuer}/protocol/openid-connect/certs": {"keys": [self.keycloak_key.jwk()]},
        }

    def headers(self, who: str) -> dict[str, str]:
        """Return the request headers of ``who``."""
        authorization = self.authorization(who)
        return {} if authorization is None else {"Authorization": authorization}

    def authorization(self, who: str) -> str | None:
        """Return the Authorization header for ``who``, as the contract's ``as`` names callers."""
        kind, _, rest = who.partition(":")
        if who == "none":
            return None
        if kind == "raw":
            scheme, separator, person = rest.partition(" LOWER:")
            return f"{scheme} {self.user(person)}" if separator else rest
        return f"Bearer {self._token(who, kind, rest)}"

    def _token(self, who: str, kind: str, rest: str) -> str:
        if who == "static":
            return STATIC_TOKEN
        if who in RESTRICTED:
            return RESTRICTED[who]
        if who == "plugin":
            return self.plugin()
        if kind == "keycloak":
            return self.keycloak(**json.loads(rest))
        made: dict[str, Callable[[str], str]] = {
            "obo": self.on_behalf_of,
            "limited": self.limited,
            "expired": self.expired,
            "alg-none": self.alg_none,
            "hs256": self.hs256,
            "wrong-aud": self.wrong_aud,
            "wrong-typ": self.wrong_typ,
            "other-key": self.other_key,
            # Issued as it is given; a sign-in by the catalog spells the ref its own way.
            "uncatalogued": lambda ref: self.user(sub=ref),
        }
        return made[kind](rest) if kind in made else self.user(who)

    def _times(self) -> dict[str, int]:
        now = int(self.clock())
        return {"iat": now, "exp": now + 3600}

    @staticmethod
    def _header(typ: str, key: SigningKey, over: Mapping[str, Any] | None) -> dict[str, Any]:
        return _without_none({"typ": typ, "alg": key.alg, "kid": key.kid, **(over or {})})
