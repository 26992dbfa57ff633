"""JSON Web Tokens and keys; the only module that imports ``joserfc``.

:func:`parse` splits a token and proves nothing. The ``verify`` of a key proves the signature. Keys
have three types, so that no signature is checked with a key for another purpose.

joserfc accepts some things that are refused here: a member name that occurs twice, numbers that
are not finite and lone surrogates in JSON, the ``crit`` header, and RSA keys of less than 2048
bits.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jwk, jws
from joserfc.errors import JoseError
from joserfc.jwa import JWSAlgModel
from joserfc.util import base64_to_int, urlsafe_b64decode, urlsafe_b64encode

from litellm_plugin import strict_json

MAX_TOKEN_CHARS = 16 * 1024
MIN_RSA_BITS = 2048

ASYMMETRIC = frozenset(
    {f"{family}{bits}" for family in ("ES", "PS", "RS") for bits in (256, 384, 512)} | {"EdDSA"}
)

_LATEST_TIME = 253_402_300_799  # the end of the year 9999, the latest time of datetime
_PUBLIC_MEMBERS = {"EC": ("crv", "x", "y"), "RSA": ("n", "e"), "OKP": ("crv", "x")}

# The exceptions that joserfc raises for a malformed key.
_MALFORMED_KEY = (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm)

Claims = Mapping[str, Any]


class TokenError(Exception):
    """The text is not a token, or the token is not valid.

    The message quotes nothing from the token, so it may be logged and sent to clients.

    Attributes:
        in_obo: Whether the error is about the user token in a plugin token (``obo``).
    """

    in_obo = False


class Expired(TokenError):
    """The token has expired."""


class NotYetValid(TokenError):
    """``nbf`` is in the future."""


class BadSignature(TokenError):
    """The token was changed, or signed with another key."""


class KeyFormatError(Exception):
    """The key can't be used; the message says why."""


@dataclass(frozen=True)
class UnverifiedToken:
    """A compact token whose signature has not been checked, and its decoded header."""

    text: str = field(repr=False)
    header: Mapping[str, Any]

    @property
    def typ(self) -> str:
        """The header's ``typ``; empty where it is missing or not a string."""
        return self._header_string("typ")

    @property
    def alg(self) -> str:
        """The header's ``alg``; empty where it is missing or not a string."""
        return self._header_string("alg")

    @cached_property
    def unverified_claims(self) -> Claims:
        """The decoded payload.

        Raises:
            TokenError: The payload is not a JSON object.
        """
        return _json_object(self.text.split(".")[1], "payload")

    def _header_string(self, name: str) -> str:
        value = self.header.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies asymmetric signatures."""

    kid: str | None
    _key: jwk.Key = field(repr=False)

    @classmethod
    def from_jwk(cls, members: Mapping[str, Any]) -> PublicKey:
        """Read one key of a JSON Web Key Set.

        Raises:
            KeyFormatError: The key is malformed, too short, private, or not for signatures.
        """
        kty = members.get("kty")
        required = _PUBLIC_MEMBERS.get(str(kty))
        if required is None:
            raise KeyFormatError(f"key type {kty!r} does not verify tokens")
        if "d" in members:
            raise KeyFormatError("the key set publishes a private key")
        # Certificates and their URLs are left out: they are neither trusted nor fetched.
        names = ("kty", *required, "kid", "alg", "use", "key_ops")
        public = {name: members[name] for name in names if members.get(name) is not None}
        try:
            # joserfc only warns about a short key.
            if kty == "RSA" and base64_to_int(public["n"]).bit_length() < MIN_RSA_BITS:
                raise KeyFormatError(f"the RSA key has less than {MIN_RSA_BITS} bits")
            key = jwk.JWKRegistry.import_key(public)
            key.check_use("sig")
            key.check_key_op("verify")
        except _MALFORMED_KEY as exc:
            raise KeyFormatError(f"the key can't be used: {exc}") from exc
        return cls(key.kid, key)

    @classmethod
    def from_pem(cls, pem: str, *, kid: str, algorithm: str) -> PublicKey:
        """Read a public key for ``algorithm`` from PEM (SPKI), or raise ``KeyFormatError``."""
        return cls(kid, _import_pem(pem, kid, algorithm, private=False))

    def fits(self, algorithm: str) -> bool:
        """Return whether the key may verify signatures of ``algorithm``."""
        models = {algorithm} & ASYMMETRIC
        return bool(jws.JWSRegistry.filter_algorithms(self._key, list(models)))

    def as_jwk(self) -> dict[str, Any]:
        """Return the JSON Web Key, public members only."""
        return dict(self._key.as_dict(private=False))

    def verify(self, token: UnverifiedToken, algorithms: Collection[str]) -> Claims:
        """Return the claims of a token with one of ``algorithms``, or raise ``TokenError``."""
        return _verify(token, self._key, ASYMMETRIC.intersection(algorithms))


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """A secret that the issuer shares; only for Backstage's legacy tokens."""

    _key: jwk.OctKey = field(repr=False)

    @classmethod
    def from_bytes(cls, secret: bytes) -> SharedSecret:
        """Make a key for HS256, or raise ``KeyFormatError`` for "", a public key or certificate."""
        try:
            return cls(jwk.OctKey.import_key(secret))
        except ValueError as exc:
            raise KeyFormatError(str(exc)) from exc

    def verify(self, token: UnverifiedToken) -> Claims:
        """Return the claims of a token with HS256, or raise ``TokenError``."""
        return _verify(token, self._key, {"HS256"})


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs, with an algorithm such as ``ES256``."""

    kid: str
    algorithm: str
    _key: jwk.Key = field(repr=False)

    @classmethod
    def generate(cls) -> PrivateKey:
        """Make a new ES256 key, whose id is its thumbprint."""
        key = jwk.ECKey.generate_key("P-256", {"alg": "ES256"}, auto_kid=True)
        return cls(key.thumbprint(), "ES256", key)

    @classmethod
    def from_jwk(cls, members: Mapping[str, Any]) -> PrivateKey:
        """Read the result of :meth:`as_jwk`, or raise ``KeyFormatError``."""
        try:
            key = jwk.ECKey.import_key(dict(members))
        except _MALFORMED_KEY as exc:
            raise KeyFormatError("not a JSON Web Key of an elliptic curve") from exc
        if not (key.is_private and key.kid and key.alg in ASYMMETRIC):
            raise KeyFormatError("the private part, kid or alg is missing")
        private = cls(key.kid, key.alg, key)
        if not private.public().fits(key.alg):
            raise KeyFormatError(f"the key's curve is not that of {key.alg}")
        return private

    @classmethod
    def from_pem(cls, pem: str, *, kid: str, algorithm: str) -> PrivateKey:
        """Read a private key for ``algorithm`` from PEM (PKCS #8), or raise ``KeyFormatError``."""
        return cls(kid, algorithm, _import_pem(pem, kid, algorithm, private=True))

    def as_jwk(self) -> dict[str, Any]:
        """Return the JSON Web Key with its private members."""
        return dict(self._key.as_dict(private=True))

    def public(self) -> PublicKey:
        """Return the key that verifies this key's signatures."""
        return PublicKey(self.kid, jwk.JWKRegistry.import_key(self._key.as_dict(private=False)))

    def sign(self, typ: str, claims: Claims) -> str:
        """Return a token with ``typ``, ``alg`` and ``kid`` in its header."""
        header = {"typ": typ, "alg": self.algorithm, "kid": self.kid}
        return jws.serialize_compact(header, _to_json(claims), self._key, registry=_REGISTRY)


def parse(text: str) -> UnverifiedToken:
    """Split a compact token of up to 16 KiB and decode its header.

    Raises:
        TokenError: The text does not have three segments, or the header is not a JSON object.
    """
    if len(text) > MAX_TOKEN_CHARS:
        raise TokenError(f"the token is longer than {MAX_TOKEN_CHARS} characters")
    if text.count(".") != 2:
        raise TokenError("the token does not have three segments")
    return UnverifiedToken(text, _json_object(text.partition(".")[0], "header"))


def check_times(claims: Claims, now: float, *, required: Collection[str] = ()) -> None:
    """Check ``iat``, ``nbf`` and ``exp`` without tolerance; ``iat`` may be in the future.

    Call this before a key is looked up, so that no key set is fetched for an expired token.

    Args:
        claims: The claims.
        now: Unix time in seconds.
        required: Which of the three claims must be present.

    Raises:
        TokenError: A claim is missing or not a time, or the token is not valid at ``now``.
    """
    for name in ("iat", "nbf", "exp"):
        if name not in claims:
            if name in required:
                raise TokenError(f"{name!r} is missing")
            continue
        value = claims[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TokenError(f"{name!r} is not a number")
        if not abs(value) <= _LATEST_TIME:  # NaN is not less than anything
            raise TokenError(f"{name!r} is not a time")
    if claims.get("nbf", now) > now:
        raise NotYetValid("the token is not valid yet")
    if "exp" in claims and claims["exp"] <= now:
        raise Expired("the token has expired")


def audiences(claims: Claims) -> frozenset[str]:
    """Return the strings in ``aud``, which may be a string or a list."""
    aud = claims.get("aud")
    named = aud if isinstance(aud, list) else [aud]
    return frozenset(name for name in named if isinstance(name, str))


def encode_segment(members: Mapping[str, Any]) -> str:
    """Return a header or payload as a segment of a token."""
    return urlsafe_b64encode(_to_json(members).encode()).decode()


class _Registry(jws.JWSRegistry):
    max_header_length = max_payload_length = max_signature_length = MAX_TOKEN_CHARS

    def get_alg(self, name: str) -> JWSAlgModel:
        # The callers check the name. joserfc's own check warns about EdDSA at each token.
        return self.algorithms[name]


_REGISTRY = _Registry(strict_check_header=False)


def _verify(token: UnverifiedToken, key: jwk.Key, algorithms: Collection[str]) -> Claims:
    if token.alg not in algorithms:
        raise TokenError("the algorithm is not allowed")
    # RFC 7515: a token with an extension that the recipient does not support is invalid.
    if "crit" in token.header:
        raise TokenError("the header has critical extensions, and none is supported")
    claims = token.unverified_claims
    try:
        jws.deserialize_compact(token.text, key, registry=_REGISTRY)
    except (JoseError, ValueError, TypeError) as exc:
        raise BadSignature("the signature is not valid") from exc
    return claims


def _json_object(segment: str, name: str) -> dict[str, Any]:
    try:
        text = urlsafe_b64decode(segment.encode("ascii")).decode()
        value = strict_json.loads(text)
        if "\\u" in text:  # only an escape can write a lone surrogate, which is not encodable
            _to_json(value).encode()
    except ValueError as exc:
        raise TokenError(f"the {name} is not readable") from exc
    if not isinstance(value, dict):
        raise TokenError(f"the {name} is not a JSON object")
    return value


def _to_json(value: Any) -> str:
    """Return JSON as ``JSON.stringify`` writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _import_pem(pem: str, kid: str, algorithm: str, *, private: bool) -> jwk.Key:
    if algorithm not in ASYMMETRIC:
        raise KeyFormatError(f"algorithm {algorithm!r} is not supported")
    model = jws.JWSRegistry.algorithms[algorithm]
    try:
        key: jwk.Key = jwk.JWKRegistry.import_key(
            pem, model.key_type, {"kid": kid, "alg": algorithm}
        )
        model.check_key(key)
    except _MALFORMED_KEY as exc:
        raise KeyFormatError(f"not a key in PEM for {algorithm}") from exc
    if key.is_private is not private:
        got, wanted = ("public", "private") if private else ("private", "public")
        raise KeyFormatError(f"this is the {got} key; the {wanted} one is wanted")
    return key
