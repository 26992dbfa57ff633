"""Tokens of all kinds, forged and true: nobody is believed whom nobody signed for.

An input is a letter and a text. The letter says what is made of the text:

====  ==================================================================================
``r``  an Authorization header, as it is
``m``  a line as long as the number of a true token, whose text is changed: lines of
       ``index:character``, ``-`` to take one out
``u``  a header and a payload, a line each, signed by Backstage's own key for users
``l``  the same, signed by another plugin's key
``c``  the same, signed by Keycloak's
``o``  the same, signed by Backstage; a plugin's token carries it as ``obo``
``x``  the same, signed by somebody else with the key id of Backstage
``h``  the same, signed by HMAC with public keys, and with the old shared secret's reverse
``j``  a member of a key set, as JSON; nothing but a public key may come of it
====  ==================================================================================
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from litellm_plugin.config.settings import (
    AccessRestriction,
    Bridge,
    Discovery,
    JwksAccess,
    LegacyAccess,
    Settings,
    StaticAccess,
)
from litellm_plugin.errors import BackstageUnavailable, NotAllowed, PluginError, Unauthenticated
from litellm_plugin.identity.authenticator import Authenticator
from litellm_plugin.identity.jwt import (
    ASYMMETRIC,
    KeyFormatError,
    PrivateKey,
    PublicKey,
    TokenError,
    parse,
)
from litellm_plugin.identity.keycloak import BridgeRefused, BridgeVerifier
from litellm_plugin.identity.principal import Principal, ServicePrincipal, UserPrincipal
from litellm_plugin.identity.signing import PluginKeys
from litellm_plugin.identity.token_cache import TokenCache
from tests.tokens import LEGACY_SECRET, STATIC_TOKEN, SigningKey, TokenFactory, b64url

NOW = 1_800_000_000.0
REALM = "http://127.0.0.1:7080/realms/rig"


class _SameKey(SigningKey):
    """A key that is the same each time, and so are its signatures: an input means the same."""

    @classmethod
    def of(cls, kid: str, secret: int) -> _SameKey:
        return cls(kid, ec.derive_private_key(secret, ec.SECP256R1()), "ES256")

    def signature(self, message: bytes, alg: str) -> bytes:
        """Sign by RFC 6979, whose nonce is made of the message."""
        if alg != self.alg:
            return super().signature(message, alg)
        assert isinstance(self.private, ec.EllipticCurvePrivateKey)
        how = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        r, s = decode_dss_signature(self.private.sign(message, how))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _factory() -> TokenFactory:
    factory = TokenFactory(clock=lambda: NOW, issuer=REALM)
    factory.user_key = _SameKey.of("rig-user-key", 0x5EED1)
    factory.plugin_key = _SameKey.of("rig-plugin-key", 0x5EED2)
    factory.stranger_key = _SameKey.of("rig-user-key", 0x5EED3)
    # An RSA key takes long to sign with; Keycloak may have one of these as well.
    factory.keycloak_key = _SameKey.of("keycloak-key", 0x5EED4)
    return factory


FACTORY = _factory()
KEY_SETS = FACTORY.jwks()


def _fetch(url: str) -> Any:
    if url in KEY_SETS:
        return KEY_SETS[url]
    raise BackstageUnavailable("Backstage answered 404")


SETTINGS = Settings(
    base_url="http://litellm.example",
    master_key="sk-master-of-the-fuzzer",
    discovery=Discovery(FACTORY.backstage),
    external_access=(
        StaticAccess(STATIC_TOKEN, "rig-full"),
        StaticAccess("rig-static-catalog-only", "rig-catalog", (AccessRestriction("catalog"),)),
        LegacyAccess(LEGACY_SECRET, "rig-legacy"),
        JwksAccess(
            f"{REALM}/protocol/openid-connect/certs",
            issuers=(REALM,),
            audiences=("backstage-external",),
            algorithms=("ES256",),
            subject_prefix="kc",
        ),
    ),
)


def _authenticator() -> Authenticator:
    keys = PluginKeys(PrivateKey.from_jwk(_private_jwk(_SameKey.of("own", 0x5EED5))))
    return Authenticator(SETTINGS, _fetch, keys, clock=lambda: NOW, timer=lambda: 0.0)


def _private_jwk(key: SigningKey) -> dict[str, Any]:
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    secret = key.private.private_numbers().private_value
    return key.jwk(d=b64url(secret.to_bytes(32, "big")))


AUTHENTICATOR = _authenticator()
REMEMBERED = TokenCache(AUTHENTICATOR, 60.0, clock=lambda: NOW)
BRIDGE = BridgeVerifier(
    Bridge(enabled=True, issuer=REALM), _fetch, clock=lambda: NOW, timer=lambda: 0.0
)
TRUE_TOKENS = (
    FACTORY.user(),
    FACTORY.on_behalf_of("bob"),
    FACTORY.limited(),
    FACTORY.plugin(),
    FACTORY.keycloak(),
    FACTORY.keycloak(aud="backstage-external", typ=None),
    FACTORY.legacy(),
)


def one_input(data: bytes) -> None:
    """Try one input.

    Raises:
        AssertionError: Somebody was believed, or was not told no as documented.
    """
    kind, text = data[:1].decode("latin-1"), data[1:].decode("utf-8", "surrogateescape")
    match kind:
        case "r":
            _nobody_signed(text)
        case "m":
            _changed(text)
        case "j":
            _key_set_member(text)
        case "x" | "h":
            for token in _forged(kind, text):
                _nobody_signed(f"Bearer {token}")
        case "u" | "l" | "c" | "o":
            _signed(kind, text)


# -- what is asked --------------------------------------------------------------


def _asked(authorization: str) -> Principal | None:
    """Return who is believed, or None; whatever else comes of it is a fault."""
    told: list[Principal | None] = []
    for limited in (False, True):
        try:
            told.append(AUTHENTICATOR.authenticate(authorization, allow_limited=limited))
        except (Unauthenticated, NotAllowed) as exc:
            assert exc.status in {401, 403}
            _quotes_nothing(exc, authorization)
            told.append(None)
    strict, lenient = told
    if strict is not None:
        assert strict == lenient, "a limited token will do, so others will no more"
    if strict is not None:
        assert _remembered(authorization) == _remembered(authorization) == strict
    return strict if strict is not None else lenient


def _remembered(authorization: str) -> Principal | None:
    try:
        return REMEMBERED.authenticate(authorization)
    except (Unauthenticated, NotAllowed):
        return None


def _bridge(authorization: str) -> Any:
    try:
        return BRIDGE.verify(authorization)
    except BridgeRefused as exc:
        assert exc.status == 401
        _quotes_nothing(exc, authorization)
        return None


def _quotes_nothing(exc: BaseException | None, authorization: str) -> None:
    secret = authorization.rpartition(".")[2]
    while exc is not None and len(secret) >= 16:
        if isinstance(exc, PluginError | TokenError):
            assert secret not in str(exc), "an error quotes a token"
        exc = exc.__cause__


def _nobody_signed(authorization: str) -> None:
    who = _asked(authorization)
    known = authorization.strip(" \t").rpartition(" ")[2]
    if who is not None:
        assert known in {STATIC_TOKEN, *TRUE_TOKENS}, f"believed without a signature: {who}"
    if _bridge(authorization) is not None:
        known = authorization.removeprefix("Bearer ").strip()
        assert known in TRUE_TOKENS, "the bridge believed without a signature"


def _changed(text: str) -> None:
    which, *edits = text.split("\n")
    true = TRUE_TOKENS[len(which) % len(TRUE_TOKENS)]
    characters = list(true)
    for edit in edits:
        place, _, character = edit.partition(":")
        if place.isdecimal() and len(place) < 6 and int(place) < len(characters):
            characters[int(place)] = "" if character == "-" else character
    changed = "".join(characters)
    if changed != true:
        _nobody_signed(f"Bearer {changed}")


def _parts(text: str) -> tuple[bytes, bytes]:
    header, _, payload = text.partition("\n")
    return header.encode("utf-8", "surrogateescape"), payload.encode("utf-8", "surrogateescape")


def _forged(kind: str, text: str) -> Iterator[str]:
    header, payload = _parts(text)
    if kind == "x":
        yield FACTORY.stranger_key.token(header, payload)
        return
    message = f"{b64url(header)}.{b64url(payload)}"
    keys = [key["keys"][0] for key in KEY_SETS.values()]
    secrets = [
        b"",
        LEGACY_SECRET[::-1],
        FACTORY.user_key.public_pem(),
        *(json.dumps(key).encode() for key in keys),
    ]
    for secret in secrets:
        mac = hmac.new(secret, message.encode(), hashlib.sha256).digest()
        yield f"{message}.{b64url(mac)}"
    yield f"{message}."


def _signed(kind: str, text: str) -> None:
    """Judge a token with a true signature by reading it once more, without the service's code."""
    header, payload = _parts(text)
    signer = {"u": FACTORY.user_key, "l": FACTORY.plugin_key, "c": FACTORY.keycloak_key}
    token = signer.get(kind, FACTORY.user_key).token(header, payload)
    said, claims = _read(header), _read(payload)
    if kind == "c":
        _judge_keycloak(token, said, claims)
        return
    if kind == "o":
        who = _asked(f"Bearer {FACTORY.plugin(obo=token)}")
        if who is not None:
            assert isinstance(who, UserPrincipal), "an obo that is none is no service's token"
            assert who.actor == "plugin:rig"
            assert who.token is None
    else:
        who = _asked(f"Bearer {token}")
    if who is None:
        return
    assert said is not None, "a header that is no JSON object is believed"
    assert claims is not None, "a payload that is no JSON object is believed"
    assert said.get("alg") == "ES256", "another algorithm than the key's is believed"
    assert "crit" not in said, "an extension is believed to be understood"
    _in_time(claims, required=("exp",) if kind != "l" else ("iat", "exp"))
    if isinstance(who, UserPrincipal) and not (kind == "l" and who.actor):
        assert kind in {"u", "o"}, "a plugin signs for a user"
        assert who.entity_ref == claims["sub"]
        assert who.entity_ref
        assert who.expires_at == claims["exp"]
        typ = said.get("typ")
        assert typ in {"vnd.backstage.user", "vnd.backstage.limited-user"} or (
            claims.get("aud") == "backstage"
        ), "a token that is no user's is taken for one"
        assert who.token is None or typ != "vnd.backstage.limited-user"
        _holds_limited(who)
    elif isinstance(who, ServicePrincipal):
        assert kind == "l", "Backstage's key for users signs for a service"
        assert who.subject == f"plugin:{claims['sub']}" == "plugin:rig"
        assert claims.get("obo") in {None, ""}, "a token on somebody's behalf is a service's"
        aud = claims.get("aud")
        assert "litellm" in (aud if isinstance(aud, list) else [aud])


def _holds_limited(who: UserPrincipal) -> None:
    """What is sent on behalf of a user says of whom and until when what the user's own says."""
    if who.limited_token is None or who.limited_token == who.token:
        return
    with suppress(TokenError):
        claims = parse(who.limited_token).unverified_claims
        assert claims["sub"] == who.entity_ref
        assert claims["exp"] == who.expires_at


def _judge_keycloak(token: str, said: Mapping[str, Any] | None, claims: Any) -> None:
    who, identity = _asked(f"Bearer {token}"), _bridge(f"Bearer {token}")
    if who is None and identity is None:
        return
    assert said is not None
    assert claims is not None
    assert said.get("alg") == "ES256"
    assert "crit" not in said
    assert claims.get("iss") == REALM, "another issuer's token is believed"
    _in_time(claims, required=())
    if who is not None:
        assert isinstance(who, ServicePrincipal)
        assert who.subject == f"external:kc:{claims['sub']}"
        aud = claims.get("aud")
        assert "backstage-external" in (aud if isinstance(aud, list) else [aud])
    if identity is not None:
        assert "exp" in claims, "the bridge believes for ever"
        assert identity.login
        assert identity.login in {
            claims.get(name) for name in ("preferred_username", "email", "sub")
        }
        assert str(claims.get("typ", "Bearer")).lower() == "bearer", "an ID token is believed"


def _in_time(claims: Mapping[str, Any], required: tuple[str, ...]) -> None:
    for name in ("iat", "nbf", "exp"):
        if name in claims or name in required:
            assert isinstance(claims[name], int | float)
            assert not isinstance(claims[name], bool)
    assert claims.get("exp", NOW + 1) > NOW, "a token that has expired is believed"
    assert claims.get("nbf", NOW) <= NOW, "a token is believed before its time"


def _read(raw: bytes) -> dict[str, Any] | None:
    """Return a JSON object without doubtful parts, or None."""
    doubtful = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            doubtful.append("a name twice")
        return dict(pairs)

    try:
        value = json.loads(raw.decode(), object_pairs_hook=unique, parse_constant=doubtful.append)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not doubtful else None


# -- keys -----------------------------------------------------------------------


def _key_set_member(text: str) -> None:
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(members, dict):
        return
    try:
        key = PublicKey.from_jwk(members)
    except KeyFormatError as exc:
        assert str(exc)
        return
    assert members["kty"] in {"EC", "RSA", "OKP"}
    public = key.as_jwk()
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & public.keys(), "a private part is published"
    assert members.get("use", "sig") == "sig" or not isinstance(members["use"], str)
    fitting = {name for name in (*ASYMMETRIC, "HS256", "none", "") if key.fits(name)}
    assert fitting <= ASYMMETRIC
    if members["kty"] == "RSA":
        modulus = base64.urlsafe_b64decode(public["n"] + "==")
        assert int.from_bytes(modulus, "big").bit_length() >= 2048, "a short key is taken"
    for token in TRUE_TOKENS[:2]:
        with suppress(TokenError):
            key.verify(parse(token), ASYMMETRIC)
            own = {"x": public.get("x"), "y": public.get("y")}
            signers = (FACTORY.user_key.jwk(), FACTORY.plugin_key.jwk())
            assert any(own.items() <= signer.items() for signer in signers), "another's key holds"


# -- where to begin -------------------------------------------------------------


def seeds() -> Iterator[bytes]:
    """Yield inputs of every kind, made of tokens as Backstage and Keycloak issue them."""
    made = {
        "u": (FACTORY.user(), FACTORY.limited(), FACTORY.wrong_typ(), FACTORY.expired()),
        "l": (FACTORY.plugin(), FACTORY.on_behalf_of("bob"), FACTORY.plugin(aud=["a", "litellm"])),
        "c": (FACTORY.keycloak(), FACTORY.keycloak(aud="backstage-external", typ=None)),
        "o": (FACTORY.limited(), FACTORY.user()),
        "x": (FACTORY.user(), FACTORY.plugin(), FACTORY.keycloak(), FACTORY.legacy()),
        "h": (FACTORY.user(header={"alg": "HS256"}), FACTORY.legacy()),
    }
    for kind, tokens in made.items():
        for token in tokens:
            yield kind.encode() + b"\n".join(_segments(token)[:2])
    attacks = (
        {"alg": "none"},
        {"crit": ["exp"]},
        {"jku": "http://127.0.0.1:9/jwks"},
        {"x5u": "http://127.0.0.1:9/cert", "x5c": ["MIIB"]},
        {"jwk": FACTORY.stranger_key.jwk()},
        {"kid": "../../dev/null"},
        {"zip": "DEF", "cty": "JWT", "b64": False},
    )
    for over in attacks:
        token = FACTORY.user(header=over, key=FACTORY.user_key)
        yield b"u" + b"\n".join(_segments(token)[:2])
        yield b"x" + b"\n".join(_segments(token)[:2])
    for who in (
        "bob",
        "obo:bob",
        "limited:bob",
        "static",
        "plugin",
        "alg-none:bob",
        "other-key:bob",
    ):
        yield f"r{FACTORY.authorization(who)}".encode()
    yield b"rbearer  \t" + FACTORY.user().encode()
    yield b"rBasic YTpi"
    for number in range(len(TRUE_TOKENS)):
        yield b"m" + b"." * number + b"\n5:A\n100:-"
        yield b"m" + b"." * number + b"\n70:=\n3:.\n200:B"
    for key in (FACTORY.user_key, FACTORY.keycloak_key, SigningKey.rsa("rsa")):
        yield b"j" + json.dumps(key.jwk(use="sig", key_ops=["verify"])).encode()
    okp = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    yield b"j" + json.dumps(okp).encode()


def _segments(token: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]


WORDS = (
    *('"typ":"', '"alg":"', '"kid":"', '"sub":"', '"aud":"', '"exp":', '"iat":', '"nbf":'),
    *('"obo":"', '"uip":"', '"azp":"', '"iss":"', '"crit":[', "ES256", "HS256", "none", "RS256"),
    *("vnd.backstage.user", "vnd.backstage.limited-user", "vnd.backstage.plugin", "backstage"),
    *("litellm", "rig-user-key", "rig-plugin-key", "keycloak-key", "abby-cli", "Bearer "),
    *("1e999", "NaN", "-0", "null", "true", "[[", "\\ud800", "1800000000", "1800003600", "kty"),
)
