"""A token that held is believed for a while, and never longer than it holds."""

from __future__ import annotations

from typing import Any, cast

import pytest

from litellm_plugin.errors import Unauthenticated
from litellm_plugin.identity.authenticator import Authenticator
from litellm_plugin.identity.principal import Principal, ServicePrincipal, UserPrincipal
from litellm_plugin.identity.token_cache import MAX_SECONDS, TokenCache


class Verifier:
    """Counts what it is asked, and says what it is told to."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.suspected: list[bool] = []
        self.answer: Principal | Exception = _user(expires_at=10_000)
        self.user_keys = None

    def authenticate(self, authorization: str | None, *, suspect: bool) -> Principal:
        self.asked.append(authorization)
        self.suspected.append(suspect)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def _user(expires_at: float) -> UserPrincipal:
    return UserPrincipal("user:default/bob", "token", None, expires_at)


@pytest.fixture
def verifier() -> Verifier:
    return Verifier()


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def tokens(verifier: Verifier, now: list[float]) -> TokenCache:
    return TokenCache(cast("Authenticator", verifier), 1e9, lambda: now[0])


def test_a_users_token_is_verified_once_a_minute(
    tokens: TokenCache, verifier: Verifier, now: list[float]
) -> None:
    assert [tokens.authenticate("Bearer a") for _ in range(3)] == [verifier.answer] * 3
    assert len(verifier.asked) == 1
    now[0] += MAX_SECONDS
    tokens.authenticate("Bearer a")
    assert len(verifier.asked) == 2


def test_where_it_comes_from_matters_only_to_a_token_that_is_looked_at(
    tokens: TokenCache, verifier: Verifier
) -> None:
    asked: list[str] = []

    def suspect() -> bool:
        asked.append("")
        return True

    for _ in range(3):
        tokens.authenticate("Bearer a", suspect)
    assert (verifier.suspected, len(asked)) == ([True], 1)


def test_a_token_is_not_believed_past_its_end(
    tokens: TokenCache, verifier: Verifier, now: list[float]
) -> None:
    verifier.answer = _user(expires_at=1010)
    tokens.authenticate("Bearer a")
    verifier.answer = Unauthenticated("over")
    now[0] = 1009.9
    tokens.authenticate("Bearer a")
    now[0] = 1010.0
    with pytest.raises(Unauthenticated):
        tokens.authenticate("Bearer a")


def test_a_clock_that_is_put_back_makes_verify_again(
    tokens: TokenCache, verifier: Verifier, now: list[float]
) -> None:
    tokens.authenticate("Bearer a")
    now[0] -= 1
    tokens.authenticate("Bearer a")
    assert len(verifier.asked) == 2


@pytest.mark.parametrize("other", ["Bearer A", "Bearer a ", "bearer a", "Bearer b", "", None])
def test_another_header_is_another_token(
    tokens: TokenCache, verifier: Verifier, other: str | None
) -> None:
    tokens.authenticate("Bearer a")
    verifier.answer = Unauthenticated("no")
    with pytest.raises(Unauthenticated):
        tokens.authenticate(other)


@pytest.mark.parametrize("answer", [Unauthenticated("no"), ServicePrincipal("plugin:x")])
def test_refusals_and_services_are_not_remembered(
    tokens: TokenCache, verifier: Verifier, answer: Any
) -> None:
    verifier.answer = answer
    for _ in range(2):
        try:
            tokens.authenticate("Bearer a")
        except Unauthenticated:
            continue
    assert len(verifier.asked) == 2
