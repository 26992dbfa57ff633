from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from litellm_plugin.identity.jwt import (
    ASYMMETRIC,
    MAX_TOKEN_CHARS,
    KeyFormatError,
    PrivateKey,
    PublicKey,
    SharedSecret,
    TokenError,
    audiences,
    check_times,
    parse,
)
from tests.identity.doubles import numbered
from tests.tokens import SigningKey, b64url, segment

KEY = SigningKey.ec("k1")
RSA = SigningKey.rsa("r1")
HEADER = {"typ": "JWT", "alg": "ES256", "kid": "k1"}
CLAIMS = {"sub": "user:default/bob"}


def signing_key(algorithm: str) -> SigningKey:
    if algorithm.startswith("ES"):
        return SigningKey.ec("k1", algorithm)
    return SigningKey("k1", RSA.private, algorithm)


def public(key: SigningKey = KEY) -> PublicKey:
    return PublicKey.from_jwk(key.jwk())


class TestParsing:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            ".",
            "..",
            "garbage",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "e30.e30",
            "e30.e30.e30.e30",
            "e30=.e30.",
            "e31.e30.",  # the same bytes as e30, spelled with stray bits
            " e30.e30.",
            "é30.e30.",
        ],
    )
    def test_what_is_not_three_segments_of_strict_base64url_is_no_token(self, text: str) -> None:
        with pytest.raises(TokenError):
            parse(text)

    @pytest.mark.parametrize(
        "header",
        [
            b"",
            b"[]",
            b"null",
            b"{",
            b'{"alg": NaN}',
            b'{"alg": "none", "alg": "ES256"}',
            b"\xff\xfe{}",
            "{}".encode("utf-16"),
            "{}".encode("utf-8-sig"),
            b'{"kid": "\\ud800"}',
            b"[" * 10_000,
            b"9" * 5_000,
        ],
        ids=numbered,
    )
    def test_a_header_that_is_not_one_json_object_makes_no_token(self, header: bytes) -> None:
        with pytest.raises(TokenError):
            parse(f"{segment(header)}.e30.")

    def test_a_token_may_have_16_kib_and_no_more(self) -> None:
        start = f"{segment(HEADER)}."
        longest = start + "a" * (MAX_TOKEN_CHARS - len(start) - 1) + "."
        assert parse(longest).header == HEADER
        with pytest.raises(TokenError, match="longer"):
            parse(longest + "a")

    def test_a_token_is_not_shown_by_its_repr(self) -> None:
        text = KEY.token(HEADER, CLAIMS)
        assert text not in repr(parse(text))

    @pytest.mark.parametrize("value", [None, 5, ["JWT"], {}])
    def test_typ_and_alg_that_are_not_strings_count_as_missing(self, value: Any) -> None:
        token = parse(f"{segment({'typ': value, 'alg': value})}.e30.")
        assert (token.typ, token.alg) == ("", "")


class TestVerifying:
    @pytest.mark.parametrize("algorithm", sorted(ASYMMETRIC - {"EdDSA"}))
    def test_each_algorithm(self, algorithm: str) -> None:
        key = signing_key(algorithm)
        token = parse(key.token({**HEADER, "alg": algorithm}, CLAIMS))
        assert public(key).verify(token, ASYMMETRIC) == CLAIMS

    def test_eddsa(self) -> None:
        private = ed25519.Ed25519PrivateKey.generate()
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        key = PublicKey.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)})
        message = f"{segment({'alg': 'EdDSA'})}.{segment({'sub': 'bob'})}"
        token = parse(f"{message}.{b64url(private.sign(message.encode()))}")
        assert key.verify(token, ASYMMETRIC) == {"sub": "bob"}

    @pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "ES384", "nonsense", "es256"])
    def test_no_other_algorithm_than_the_keys(self, algorithm: str) -> None:
        message = f"{segment({**HEADER, 'alg': algorithm})}.{segment(CLAIMS)}"
        mac = hmac.new(KEY.public_pem(), message.encode(), hashlib.sha256).digest()
        for signature in (b"", mac, KEY.signature(message.encode(), "ES256")):
            token = parse(f"{message}.{b64url(signature)}")
            with pytest.raises(TokenError):
                public().verify(token, ASYMMETRIC | {algorithm})

    @pytest.mark.parametrize("allowed", [(), {"RS256"}, {"HS256"}])
    def test_no_other_algorithm_than_is_allowed(self, allowed: Collection[str]) -> None:
        with pytest.raises(TokenError, match="algorithm"):
            public().verify(parse(KEY.token(HEADER, CLAIMS)), allowed)

    @pytest.mark.parametrize(
        "header",
        [
            {"crit": ["exp"], "exp": 1},
            {"crit": []},
            {"crit": None},
            {"crit": ["b64"], "b64": False},
            {"b64": False},
            {"alg": None},
            {"alg": ["ES256"]},
            {"kid": 7},
        ],
    )
    def test_a_header_that_asks_for_more_than_is_understood(self, header: dict[str, Any]) -> None:
        message = f"{segment({**HEADER, **header})}.{segment(CLAIMS)}"
        token = parse(f"{message}.{b64url(KEY.signature(message.encode(), 'ES256'))}")
        with pytest.raises(TokenError):
            public().verify(token, ASYMMETRIC)


class TestSharedSecrets:
    def test_an_empty_secret_is_none(self) -> None:
        with pytest.raises(KeyFormatError):
            SharedSecret.from_bytes(b"")


class TestKeys:
    @pytest.mark.parametrize(
        "members",
        [
            {},
            {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"},
            {"kty": ["EC"]},
            {"kty": "AKP"},
            {"kty": "EC"},
            {"kty": "EC", "crv": "P-256", "x": 1, "y": 2},
            {"kty": "EC", "crv": "P-1", "x": "AQ", "y": "AQ"},
            {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
            {"kty": "RSA", "n": 5, "e": "AQAB"},
            {"kty": "OKP", "crv": "Ed25519", "x": "AQ"},
            KEY.jwk(use="enc"),
            KEY.jwk(use="other"),
            KEY.jwk(key_ops=["sign"]),
            KEY.jwk(key_ops=[1]),
            KEY.jwk(d="AQ"),
        ],
    )
    def test_what_is_no_key_to_verify_with_is_refused(self, members: dict[str, Any]) -> None:
        with pytest.raises(KeyFormatError):
            PublicKey.from_jwk(members)

    def test_a_key_fits_its_own_algorithm_only(self) -> None:
        named, unnamed = public(), PublicKey.from_jwk(RSA.jwk(alg=None))
        assert {a for a in ASYMMETRIC if named.fits(a)} == {"ES256"}
        assert {a for a in ASYMMETRIC if unnamed.fits(a)} == {
            a for a in ASYMMETRIC if a[:2] in {"RS", "PS"}
        }
        assert not any(unnamed.fits(algorithm) for algorithm in ("none", "HS256", ""))

    def test_a_new_key_signs_what_its_public_key_verifies(self) -> None:
        key = PrivateKey.generate()
        token = parse(key.sign("a.typ", {"sub": "Ö"}))
        assert token.header == {"typ": "a.typ", "alg": "ES256", "kid": key.kid}
        assert key.public().verify(token, {"ES256"}) == {"sub": "Ö"}
        assert set(key.public().as_jwk()) == {"kty", "crv", "x", "y", "kid", "alg"}
        assert str(key.as_jwk()["d"]) not in repr(key)

    @pytest.mark.parametrize(
        "members",
        [
            [],
            {},
            {"kty": "EC"},
            PrivateKey.generate().public().as_jwk(),
            {**PrivateKey.generate().as_jwk(), "kid": None},
            {**PrivateKey.generate().as_jwk(), "alg": "ES384"},
            {**PrivateKey.generate().as_jwk(), "alg": "none"},
            {**PrivateKey.generate().as_jwk(), "d": PrivateKey.generate().as_jwk()["d"]},
        ],
    )
    def test_a_stored_key_that_is_none_is_refused(self, members: Any) -> None:
        with pytest.raises(KeyFormatError):
            PrivateKey.from_jwk(members)

    @pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "RS256", "PS512"])
    def test_pem_files_of_every_algorithm(self, algorithm: str) -> None:
        key = signing_key(algorithm)
        private = PrivateKey.from_pem(key.private_pem().decode(), kid="k1", algorithm=algorithm)
        public = PublicKey.from_pem(key.public_pem().decode(), kid="k1", algorithm=algorithm)
        assert public.verify(parse(private.sign("t", CLAIMS)), {algorithm}) == CLAIMS
        assert public.as_jwk() == key.jwk()

    @pytest.mark.parametrize("algorithm", ["ES384", "RS256", "EdDSA", "HS256", "none", ""])
    def test_a_pem_of_another_kind_than_the_algorithm_is_refused(self, algorithm: str) -> None:
        for read, pem in (
            (PrivateKey.from_pem, KEY.private_pem()),
            (PublicKey.from_pem, KEY.public_pem()),
        ):
            with pytest.raises(KeyFormatError):
                read(pem.decode(), kid="k", algorithm=algorithm)

    def test_private_and_public_pems_are_not_mistaken_for_each_other(self) -> None:
        with pytest.raises(KeyFormatError, match="private one is wanted"):
            PrivateKey.from_pem(KEY.public_pem().decode(), kid="k", algorithm="ES256")
        with pytest.raises(KeyFormatError, match="public one is wanted"):
            PublicKey.from_pem(KEY.private_pem().decode(), kid="k", algorithm="ES256")
        with pytest.raises(KeyFormatError, match="PEM"):
            PublicKey.from_pem("junk", kid="k", algorithm="ES256")


class TestTimes:
    @pytest.mark.parametrize(
        "claims",
        [
            {},
            {"iat": 200},  # may lie in the future
            {"exp": 101, "nbf": 100},
            {"exp": 100.5, "nbf": 99.5, "iat": -1},
        ],
    )
    def test_holds_now(self, claims: dict[str, Any]) -> None:
        check_times(claims, 100, required=())

    @pytest.mark.parametrize(
        "claims",
        [
            {"exp": 100},
            {"exp": 99},
            {"exp": 0},
            {"nbf": 101},
            {"exp": "200"},
            {"exp": None},
            {"exp": True},
            {"exp": [200]},
            {"exp": float("inf")},
            {"exp": float("nan")},
            {"exp": 10**400},
            {"iat": "1"},
            {"nbf": {}},
        ],
    )
    def test_does_not_hold_now(self, claims: dict[str, Any]) -> None:
        with pytest.raises(TokenError):
            check_times(claims, 100, required=())

    @pytest.mark.parametrize("missing", ["iat", "exp", "nbf"])
    def test_what_is_required_must_be_there(self, missing: str) -> None:
        claims = {"iat": 1, "nbf": 1, "exp": 200}
        check_times(claims, 100, required=claims)
        del claims[missing]
        with pytest.raises(TokenError, match=missing):
            check_times(claims, 100, required=("iat", "nbf", "exp"))


@pytest.mark.parametrize(
    ("aud", "named"),
    [
        ("a", {"a"}),
        (["a", "b", 5, None, ["c"]], {"a", "b"}),
        (None, set()),
        ({"a": 1}, set()),
        ([], set()),
    ],
)
def test_audiences(aud: Any, named: set[str]) -> None:
    assert audiences({"aud": aud}) == named
