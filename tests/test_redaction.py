"""Which texts are taken for secrets, and which are kept."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_plugin.errors import BadRequest, UpstreamError
from litellm_plugin.redaction import redact
from tests.tokens import TokenFactory

HASH = "0123456789abcdef" * 4
B64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# Text of the kind that errors are made of, with nothing in it that looks like a secret.
words = st.text(
    alphabet=st.sampled_from("abcdefgh klmnostuvxyz ABCEFJ 0123456789 .,:;'\"{}[]()/\\%=&-_\n\tüß"),
    max_size=60,
).filter(lambda text: "sk-" not in text and "eyJ" not in text)
borders = st.sampled_from(["", " ", "=", '"', "'", "(", "%22", "%3D", "\\n", '\\"', ":", "Key "])

api_keys = st.text(B64URL, min_size=8, max_size=40).map("sk-".__add__)
bearers = st.text(B64URL + "._~+/", min_size=1, max_size=60).filter(lambda t: t[0] != "~")
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
jwts = st.builds(
    "eyJ{}.eyJ{}.{}".format,
    st.text(B64URL, min_size=1, max_size=30),
    st.text(B64URL, min_size=1, max_size=30),
    st.text(B64URL, max_size=30),
)


@given(words, borders, api_keys, borders)
def test_no_api_key_gets_through(before: str, left: str, key: str, right: str) -> None:
    assert key not in redact(before + left + key + right)


@given(words, borders, st.sampled_from([" ", "  ", "\t", "\n"]), bearers)
def test_no_bearer_token_gets_through(before: str, left: str, space: str, token: str) -> None:
    said = redact(f"{before}{left}Bearer{space}{token}")

    assert said.startswith(redact(before + left))
    assert re.search(r"Bearer \[redacted\](~.*)?$", said)


@given(words, borders, jwts, borders)
def test_no_jwt_gets_through(before: str, left: str, token: str, right: str) -> None:
    said = redact(before + left + token + right)

    assert "eyJ" not in said
    assert token.split(".")[1] not in said


@given(words.filter(lambda text: not text[-1:].isalnum()), borders, hashes, borders)
def test_no_key_hash_gets_through(before: str, left: str, key_hash: str, right: str) -> None:
    assert key_hash not in redact(before + left + key_hash + right)


@given(words)
def test_other_text_is_kept(text: str) -> None:
    assert redact(text) == text


@given(words, st.one_of(api_keys, hashes, jwts), words)
def test_what_surrounds_a_secret_is_kept(before: str, secret: str, after: str) -> None:
    said = redact(f"{before} {secret} {after}")

    assert said.startswith(before + " ")
    assert said.endswith(" " + after)


@given(st.lists(st.one_of(words, api_keys, hashes, jwts, bearers.map("Bearer ".__add__))))
def test_redacting_twice_changes_nothing_more(parts: list[str]) -> None:
    once = redact(" ".join(parts))

    assert redact(once) == once


@pytest.mark.parametrize("who", ["alice", "static", "obo:alice", "limited:alice"])
def test_real_tokens_do_not_get_through(tokens: TokenFactory, who: str) -> None:
    authorization = tokens.authorization(who)
    assert authorization is not None
    token = authorization.removeprefix("Bearer ")

    said = redact(f"Illegal token: {authorization} in header")

    assert token not in said
    assert said == "Illegal token: Bearer [redacted] in header"


@pytest.mark.parametrize(
    "kept",
    [
        "sk-...qRvQ",  # as LiteLLM masks a key
        "task-manager, disk-space, risk-averse",
        "the bearer of news",
        "0123456789abcdef" * 3,
        "f" * 65,
        "user:default/jane@example.com may not",
        "eyJ is how a token begins",
    ],
)
def test_what_only_resembles_a_secret_is_kept(kept: str) -> None:
    assert redact(kept) == kept


@pytest.mark.parametrize(
    "piece", ["eyJ", "eyJ.", "-eyJa", "sk-", "sk-a ", "Bearer ", "a" * 63 + "g", "://a:", "://"]
)
def test_the_longest_text_a_request_can_cause_is_read_at_once(piece: str) -> None:
    text = piece * (102_400 // len(piece))
    started = time.process_time()

    redact(text)

    assert time.process_time() - started < 5.0  # a quadratic search takes minutes


def test_no_password_in_a_url_gets_through() -> None:
    assert redact("redis://:hunter2@db/0, see https://x:8080/a@b") == (
        "redis://:[redacted]@db/0, see https://x:8080/a@b"
    )


def test_a_body_is_redacted() -> None:
    text = f"key sk-1234567890abcdef of {HASH} for Bearer abc.def"
    want = {"error": "key sk-[redacted] of [redacted] for Bearer [redacted]"}

    assert BadRequest(text).body("GET", "/") == want
    assert UpstreamError(text).body("GET", "/") == want


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "Authentication Error, LiteLLM Virtual Key expected. Received=rig-****ster, expected",
            "Authentication Error, LiteLLM Virtual Key expected. Received=[redacted], expected",
        ),
        (
            "Invalid proxy server token passed. Received API Key = sk-...c2Bw, Key Hash",
            "Invalid proxy server token passed. Received API Key = [redacted], Key Hash",
        ),
    ],
)
def test_the_ends_of_a_refused_master_key_are_not_shown(said: str, shown: str) -> None:
    assert redact(said) == shown
