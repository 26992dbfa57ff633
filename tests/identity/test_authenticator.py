from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from litellm_plugin.errors import Unauthenticated
from litellm_plugin.identity.key_sets import MAX_AGE
from litellm_plugin.identity.principal import UserPrincipal
from tests.identity.barrier import FACTORY, USER_KEYS, Barrier
from tests.identity.doubles import numbered
from tests.tokens import STATIC_TOKEN


class TestTheHeader:
    @pytest.mark.parametrize(
        "authorization",
        [
            None,
            "",
            "foo",
            "Basic x",
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer\ta",
            "Bearer \ta",
            "Bearer:a",
            "NotBearer a",
            f"Bearer {STATIC_TOKEN} x",
            STATIC_TOKEN,
        ],
    )
    def test_no_bearer_token_is_no_credentials(
        self, barrier: Barrier, authorization: str | None
    ) -> None:
        with pytest.raises(Unauthenticated, match=r"\AMissing credentials\Z"):
            barrier.authenticator.authenticate(authorization)

    @pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR   "])
    def test_the_scheme_may_have_any_case_and_several_spaces(
        self, barrier: Barrier, scheme: str
    ) -> None:
        who = barrier.authenticator.authenticate(scheme + FACTORY.user("carol"))
        assert isinstance(who, UserPrincipal)
        assert who.entity_ref == "user:default/carol"


ODD: tuple[Any, ...] = (None, True, 5, -1.5, 1e300, "x", "", [], ["a", None], {}, {"sub": "a"})


@pytest.mark.parametrize("claim", ["sub", "aud", "iss", "iat", "exp", "nbf", "obo", "uip"])
@pytest.mark.parametrize("token", [FACTORY.user, FACTORY.plugin])
def test_whatever_a_signed_token_claims_it_names_a_principal_or_is_refused(
    barrier: Barrier, token: Callable[..., str], claim: str
) -> None:
    for value in ODD:
        with suppress(Unauthenticated):
            who = barrier.admits(token(**{"uip": "x", claim: value}))
            assert who.entity_ref if isinstance(who, UserPrincipal) else who.subject


@pytest.mark.parametrize(
    "token",
    [FACTORY.user(), FACTORY.plugin(), FACTORY.on_behalf_of("bob"), FACTORY.legacy()],
    ids=numbered,
)
def test_a_token_with_any_character_changed_is_refused(barrier: Barrier, token: str) -> None:
    for place in range(0, len(token), 3):
        for other in "A-.":
            if token[place] != other:
                barrier.refusal(token[:place] + other + token[place + 1 :])


def test_backstage_is_reached_only_while_its_keys_can_be_fetched(barrier: Barrier) -> None:
    reached = barrier.authenticator.reaches_backstage
    assert reached(barrier.web)
    keys = barrier.web.documents.pop(USER_KEYS)
    barrier.timer.advance(MAX_AGE)  # known keys are to be refreshed
    assert not reached(barrier.web)
    barrier.web.documents[USER_KEYS] = keys
    assert reached(barrier.web)
