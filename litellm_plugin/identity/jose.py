"""JSON Web Tokens and keys; the only door to ``joserfc``.

A token is taken apart by :func:`parse`, which proves nothing, and believed by
:func:`verify`. Keys come in three kinds, so that no signature can be checked
with a key that was meant for another purpose: a :class:`PublicKey` verifies
asymmetric signatures, a :class:`SharedSecret` HS256 ones, a
:class:`PrivateKey` signs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jwk, jws
from joserfc.errors import JoseError
from joserfc.jwa import JWSAlgModel

MAX_TOKEN_CHARS = 16 * 1024
MIN_RSA_BITS = 2048

ASYMMETRIC = frozenset(
    {f"{kind}{bits}" for kind in ("ES", "PS", "RS") for bits in (256, 384, 512)} | {"EdDSA"}
)

_LATEST_TIME = 253_402_300_799  # the end of the year 9999, the last that datetime knows

_PUBLIC_MEMBERS = {
    "EC": ("crv", "x", "y"),
    "RSA": ("n", "e"),
    "OKP": ("crv", "x"),
}

# What joserfc lets through of a key it can't read.
_UNREADABLE = (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm)

Claims = Mapping[str, Any]


class TokenError(Exception):
    """The token is none, or does not hold.

    The text holds nothing of the token, so that it may be logged and answered.

    Attributes:
        in_obo: Whether it is about the user's token inside of a plugin token.
    """

    in_obo = False


class Expired(TokenError):
    """The token's time is over."""


class NotYetValid(TokenError):
    """The token's time has not come."""


class BadSignature(TokenError):
    """Another key has signed it, or it was changed."""


class KeyFormatError(Exception):
    """This is no key that can be used; the text says why."""


class _Registry(jws.JWSRegistry):
    """The algorithms that one verification allows, and no others.

    joserfc takes an empty list for its own recommendation, HS256 included, and
    warns of EdDSA because RFC 9864 has a new name for it.
    """

    max_header_length = max_payload_length = max_signature_length = MAX_TOKEN_CHARS

    def __init__(self, algorithms: Collection[str]) -> None:
        super().__init__(algorithms=frozenset(algorithms), strict_check_header=False)

    def get_alg(self, name: str) -> JWSAlgModel:
        if name not in (self.allowed or ()):
            raise TokenError("its algorithm is not allowed")
        return self.algorithms[name]


_ANY = _Registry(ASYMMETRIC)


@dataclass(frozen=True)
class UnverifiedToken:
    """A token in its parts, none of them proven.

    Attributes:
        text: The token itself.
        header: Its header.
    """

    text: str = field(repr=False)
    header: Mapping[str, Any]

    @property
    def typ(self) -> str:
        """The header's ``typ``; empty where it is no text."""
        return self._text("typ")

    @property
    def alg(self) -> str:
        """The header's ``alg``; empty where it is no text."""
        return self._text("alg")

    @cached_property
    def unverified_claims(self) -> Claims:
        """The payload.

        Raises:
            TokenError: It is no JSON object.
        """
        return _json_object(self.text.split(".")[1], "payload")

    def _text(self, name: str) -> str:
        value = self.header.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies asymmetric signatures.

    Attributes:
        kid: Its id, where it has one.
    """

    kid: str | None
    _key: jwk.Key = field(repr=False)

    @classmethod
    def from_jwk(cls, members: Mapping[str, Any]) -> PublicKey:
        """Read a member of a JSON Web Key Set.

        Raises:
            KeyFormatError: It is not understood, too short, for another use, or no public key.
        """
        kty = members.get("kty")
        public = _PUBLIC_MEMBERS.get(kty) if isinstance(kty, str) else None
        if public is None:
            raise KeyFormatError(f"key type {kty!r} does not verify tokens")
        if "d" in members:
            raise KeyFormatError("a private key has been published")
        # Certificates and the like are left out: nothing here follows or trusts them.
        names = (*public, *(name for name in ("kid", "alg", "use") if _is_text(members, name)))
        wanted = {"kty": kty, **{name: members.get(name) for name in names}}
        if isinstance(members.get("key_ops"), list):
            wanted["key_ops"] = members["key_ops"]
        return cls._imported(wanted)

    @classmethod
    def from_pem(cls, pem: str, *, kid: str, algorithm: str) -> PublicKey:
        """Read a public key from PEM (SPKI).

        Raises:
            KeyFormatError: It is no such key, or not one for ``algorithm``.
        """
        key = _import_pem(pem, kid=kid, algorithm=algorithm)
        if key.is_private:
            raise KeyFormatError("it is a private key, where the public one is wanted")
        return cls(kid, key)

    @classmethod
    def _imported(cls, members: dict[str, Any]) -> PublicKey:
        try:
            if members["kty"] == "RSA" and _bits(members["n"]) < MIN_RSA_BITS:
                raise KeyFormatError(f"the RSA key has less than {MIN_RSA_BITS} bits")
            key = jwk.JWKRegistry.import_key(members)
            key.check_use("sig")
            key.check_key_op("verify")
        except _UNREADABLE as exc:
            raise KeyFormatError(f"it can't be read: {exc}") from exc
        return cls(key.kid, key)

    def fits(self, algorithm: str) -> bool:
        """Return whether the key may verify signatures of ``algorithm``."""
        if algorithm not in ASYMMETRIC:
            return False
        try:
            _ANY.get_alg(algorithm).check_key(self._key)
        except JoseError:
            return False
        return True

    def as_jwk(self) -> dict[str, Any]:
        """Return the JSON Web Key, public members only."""
        return dict(self._key.as_dict(private=False))

    def verify(self, token: UnverifiedToken, algorithms: Collection[str]) -> Claims:
        """Return the claims of ``token``, now proven; see :func:`verify`."""
        return _verify(token, self._key, ASYMMETRIC.intersection(algorithms))


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """A secret that both sides have; for Backstage's legacy tokens only."""

    _key: jwk.OctKey = field(repr=False)

    @classmethod
    def from_bytes(cls, secret: bytes) -> SharedSecret:
        """Take ``secret`` for HS256.

        Raises:
            KeyFormatError: It is empty, or plainly something else.
        """
        try:
            return cls(jwk.OctKey.import_key(secret))
        except ValueError as exc:
            raise KeyFormatError(str(exc)) from exc

    def verify(self, token: UnverifiedToken) -> Claims:
        """Return the claims of ``token``, now proven.

        Raises:
            TokenError: It is not an HS256 token of this secret.
        """
        return _verify(token, self._key, {"HS256"})


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs.

    Attributes:
        kid: Its id.
        algorithm: What it signs with.
    """

    kid: str
    algorithm: str
    _key: jwk.Key = field(repr=False)

    @classmethod
    def generate(cls) -> PrivateKey:
        """Make a new ES256 key; its thumbprint is its id."""
        key = jwk.ECKey.generate_key("P-256", {"alg": "ES256"}, auto_kid=True)
        return cls(key.thumbprint(), "ES256", key)

    @classmethod
    def from_jwk(cls, members: Mapping[str, Any]) -> PrivateKey:
        """Read what :meth:`as_jwk` gave.

        Raises:
            KeyFormatError: It is anything else.
        """
        try:
            key = jwk.ECKey.import_key(dict(members))
        except _UNREADABLE as exc:
            raise KeyFormatError("it is no JSON Web Key of an elliptic curve") from exc
        if not (key.is_private and key.kid and key.alg in ASYMMETRIC):
            raise KeyFormatError("it lacks its private part, kid or alg")
        private = cls(key.kid, key.alg, key)
        if not private.public().fits(key.alg):
            raise KeyFormatError(f"it is not one for {key.alg}")
        return private

    @classmethod
    def from_pem(cls, pem: str, *, kid: str, algorithm: str) -> PrivateKey:
        """Read a private key from PEM (PKCS #8).

        Raises:
            KeyFormatError: It is no such key, or not one for ``algorithm``.
        """
        key = _import_pem(pem, kid=kid, algorithm=algorithm)
        if not key.is_private:
            raise KeyFormatError("it is a public key, where the private one is wanted")
        return cls(kid, algorithm, key)

    def as_jwk(self) -> dict[str, Any]:
        """Return the JSON Web Key, the private part too."""
        return dict(self._key.as_dict(private=True))

    def public(self) -> PublicKey:
        """Return the key that verifies what this one signs."""
        return PublicKey(self.kid, jwk.JWKRegistry.import_key(self._key.as_dict(private=False)))

    def sign(self, typ: str, claims: Claims) -> str:
        """Return a token with ``typ``, ``alg`` and ``kid`` in its header."""
        return jws.serialize_compact(
            {"typ": typ, "alg": self.algorithm, "kid": self.kid},
            encode_json(claims),
            self._key,
            registry=_Registry({self.algorithm}),
        )


def parse(text: str) -> UnverifiedToken:
    """Take a compact token apart.

    Args:
        text: Up to 16 KiB.

    Raises:
        TokenError: It is no token: not three segments, or no JSON object as its header.
    """
    if len(text) > MAX_TOKEN_CHARS:
        raise TokenError(f"it is longer than {MAX_TOKEN_CHARS} characters")
    if text.count(".") != 2:
        raise TokenError("it does not have three segments")
    return UnverifiedToken(text, _json_object(text.partition(".")[0], "header"))


def check_times(claims: Claims, now: float, *, required: Collection[str]) -> None:
    """Check ``iat``, ``nbf`` and ``exp``, without any tolerance.

    Args:
        claims: The claims.
        now: Unix time in seconds.
        required: Which of the three must be there.

    Raises:
        TokenError: One is missing, no time, or says that the token does not hold now.
    """
    times = {}
    for name in ("iat", "nbf", "exp"):
        if name in claims:
            times[name] = _time(name, claims[name])
        elif name in required:
            raise TokenError(f"{name!r} is missing")
    if times.get("nbf", now) > now:
        raise NotYetValid("it does not hold yet")
    if "exp" in times and times["exp"] <= now:
        raise Expired("it has expired")


def audiences(claims: Claims) -> frozenset[str]:
    """Return what ``aud`` names, be it one text or a list."""
    aud = claims.get("aud")
    named = aud if isinstance(aud, list) else [aud]
    return frozenset(name for name in named if isinstance(name, str))


def encode_json(value: Any) -> str:
    """Return JSON as JavaScript writes it: compact, and not escaped to ASCII."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def b64url(text: str) -> str:
    """Return ``text`` in base64url without padding, as the segments of a token are."""
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _verify(token: UnverifiedToken, key: jwk.Key, algorithms: Collection[str]) -> Claims:
    # An extension that must be understood is not: none is known here.
    if "crit" in token.header:
        raise TokenError("it has a critical header, and none is understood")
    claims = token.unverified_claims
    try:
        jws.deserialize_compact(token.text, key, registry=_Registry(algorithms))
    except (JoseError, ValueError, TypeError) as exc:
        raise BadSignature("its signature does not hold") from exc
    return claims


def _json_object(segment: str, name: str) -> dict[str, Any]:
    try:
        raw = _decode(segment).decode()
        value = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse)
        # A lone surrogate, which only an escape can write, is a text nobody can encode.
        if "\\u" in raw:
            encode_json(value).encode()
    except (ValueError, RecursionError) as exc:
        raise TokenError(f"its {name} is not readable") from exc
    if not isinstance(value, dict):
        raise TokenError(f"its {name} is no JSON object")
    return value


def _decode(segment: str) -> bytes:
    raw = segment.encode("ascii")
    decoded = base64.urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    # Python skips what is not in the alphabet; only one spelling of a token may pass.
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != raw:
        raise ValueError("not base64url")
    return decoded


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name occurs twice")
    return members


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _time(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenError(f"{name!r} is no number")
    if not abs(value) <= _LATEST_TIME:
        raise TokenError(f"{name!r} is no time")
    return value


def _is_text(members: Mapping[str, Any], name: str) -> bool:
    return isinstance(members.get(name), str)


def _bits(modulus: Any) -> int:
    return int.from_bytes(_decode(modulus)).bit_length() if isinstance(modulus, str) else 0


def _import_pem(pem: str, *, kid: str, algorithm: str) -> jwk.Key:
    if algorithm not in ASYMMETRIC:
        raise KeyFormatError(f"algorithm {algorithm!r} is not supported")
    model = _ANY.get_alg(algorithm)
    try:
        key: jwk.Key = jwk.JWKRegistry.import_key(
            pem, model.key_type, {"kid": kid, "alg": algorithm}
        )
        model.check_key(key)
    except _UNREADABLE as exc:
        raise KeyFormatError(f"it is no key in PEM for {algorithm}") from exc
    return key
