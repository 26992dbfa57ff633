from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from litellm_plugin.errors import BackstageUnavailable
from litellm_plugin.identity.jwt import TokenError, UnverifiedToken, parse
from litellm_plugin.identity.key_sets import KeySet, NoKeysError
from tests.identity.doubles import Clock, Web
from tests.tokens import SigningKey, segment

URL = "http://backstage.example/api/auth/.well-known/jwks.json"
KEYS = [SigningKey.ec(f"k{number}") for number in range(14)]


def published(*keys: SigningKey) -> dict[str, Any]:
    return {"keys": [key.jwk() for key in keys]}


def token(key: SigningKey = KEYS[0], **header: Any) -> UnverifiedToken:
    return parse(f"{segment({'alg': key.alg, 'kid': key.kid, **header})}.e30.")


@pytest.fixture
def web() -> Web:
    return Web({URL: published(KEYS[0])})


@pytest.fixture
def timer() -> Clock:
    return Clock(0)


@pytest.fixture
def key_set(web: Web, timer: Clock) -> KeySet:
    return KeySet(URL, web, setting="discovery.endpoints", timer=timer)


def known(key_set: KeySet, key: SigningKey) -> bool:
    try:
        return key_set.key_for(token(key)).kid == key.kid
    except TokenError:
        return False


class TestCaching:
    def test_nothing_is_fetched_before_it_is_needed(self, key_set: KeySet, web: Web) -> None:
        assert web.asked == []

    def test_keys_are_kept_for_ten_minutes(self, key_set: KeySet, web: Web, timer: Clock) -> None:
        assert known(key_set, KEYS[0])
        timer.advance(599)
        assert known(key_set, KEYS[0])
        assert len(web.asked) == 1
        timer.advance(1)
        assert known(key_set, KEYS[0])
        assert len(web.asked) == 2

    def test_a_withdrawn_key_is_forgotten_with_the_next_fetch(
        self, key_set: KeySet, web: Web, timer: Clock
    ) -> None:
        assert known(key_set, KEYS[0])
        web.documents[URL] = published(KEYS[1])
        timer.advance(600)
        assert not known(key_set, KEYS[0])
        assert known(key_set, KEYS[1])


class TestRotation:
    def test_an_unknown_kid_is_looked_for_at_once(self, key_set: KeySet, web: Web) -> None:
        assert known(key_set, KEYS[0])
        web.documents[URL] = published(*KEYS[:2])
        assert known(key_set, KEYS[1])
        assert known(key_set, KEYS[0])
        assert len(web.asked) == 2

    def test_a_fresh_set_is_not_fetched_again_for_an_unknown_kid(
        self, key_set: KeySet, web: Web, timer: Clock
    ) -> None:
        assert not known(key_set, KEYS[1])
        assert len(web.asked) == 1
        timer.advance(600)
        assert not known(key_set, KEYS[1])
        assert len(web.asked) == 2

    def test_ten_rotations_a_minute_are_followed_and_the_eleventh_is_not(
        self, key_set: KeySet, web: Web, timer: Clock
    ) -> None:
        assert known(key_set, KEYS[0])
        for key in KEYS[1:11]:
            web.documents[URL] = published(key)
            assert known(key_set, key)
        web.documents[URL] = published(KEYS[11])
        assert not known(key_set, KEYS[11])
        assert len(web.asked) == 11
        timer.advance(60)
        assert known(key_set, KEYS[11])

    def test_rotations_that_are_not_that_frequent_are_all_followed(
        self, key_set: KeySet, web: Web, timer: Clock
    ) -> None:
        for number in range(30):
            key = KEYS[number % len(KEYS)]
            web.documents[URL] = published(key)
            assert known(key_set, key)
            timer.advance(7)

    def test_made_up_kids_cause_a_dozen_fetches_a_minute_at_most(
        self, key_set: KeySet, web: Web, timer: Clock
    ) -> None:
        assert known(key_set, KEYS[0])
        for number in range(600):
            assert not known(
                key_set, SigningKey("made-up-" + str(number), KEYS[1].private, "ES256")
            )
            timer.advance(0.1)
        assert len(web.asked) <= 1 + 12
        assert known(key_set, KEYS[0])

    @pytest.mark.parametrize("alg", ["none", "HS256", "", None, "ES256K"])
    def test_no_fetch_for_an_algorithm_that_can_never_hold(
        self, key_set: KeySet, web: Web, alg: str | None
    ) -> None:
        with pytest.raises(TokenError, match="algorithm"):
            key_set.key_for(token(KEYS[1], alg=alg))
        assert web.asked == []


class TestChoosing:
    @pytest.mark.parametrize(("kids", "kid"), [(("k0", "k1"), None), (("k0", "k0"), "k0")])
    def test_none_of_several_fitting_keys_is_guessed(
        self, key_set: KeySet, web: Web, kids: tuple[str, str], kid: str | None
    ) -> None:
        pairs = zip(KEYS, kids, strict=False)
        web.documents[URL] = {"keys": [key.jwk(kid=name) for key, name in pairs]}
        with pytest.raises(TokenError, match="several"):
            key_set.key_for(token(KEYS[0], kid=kid))

    @pytest.mark.parametrize("kid", [5, ["k0"], {"a": 1}, True])
    def test_a_kid_that_is_no_text_is_refused(self, key_set: KeySet, kid: Any) -> None:
        with pytest.raises(TokenError):
            key_set.key_for(token(KEYS[0], kid=kid))

    def test_a_key_without_kid_is_none_that_a_kid_names(self, key_set: KeySet, web: Web) -> None:
        web.documents[URL] = {"keys": [KEYS[0].jwk(kid=None)]}
        assert not known(key_set, KEYS[0])
        assert key_set.key_for(token(KEYS[0], kid=None))

    def test_a_key_of_another_algorithm_does_not_count(self, key_set: KeySet, web: Web) -> None:
        web.documents[URL] = {"keys": [KEYS[0].jwk(alg="ES384")]}
        assert not known(key_set, KEYS[0])

    def test_members_that_are_not_understood_are_passed_over(
        self, key_set: KeySet, web: Web
    ) -> None:
        odd: list[Any] = [{"kty": "AKP"}, {}, {"kty": "oct", "k": "AQ"}, {"kty": "EC", "crv": 5}]
        web.documents[URL] = {"keys": [*odd, KEYS[0].jwk()]}
        assert known(key_set, KEYS[0])


class TestFailure:
    def test_without_any_keys_nothing_holds_and_each_request_asks_again(
        self, key_set: KeySet, web: Web
    ) -> None:
        web.documents.clear()
        for _ in range(2):
            with pytest.raises(NoKeysError):
                key_set.key_for(token())
        assert len(web.asked) == 2
        web.documents[URL] = published(KEYS[0])
        assert known(key_set, KEYS[0])

    def test_old_keys_are_kept_when_a_refresh_fails(
        self, key_set: KeySet, web: Web, timer: Clock
    ) -> None:
        assert known(key_set, KEYS[0])
        web.documents.clear()
        for _ in range(10):
            timer.advance(600)
            assert known(key_set, KEYS[0])

    def test_a_host_that_is_down_is_asked_twice_a_minute(
        self, key_set: KeySet, web: Web, timer: Clock
    ) -> None:
        assert known(key_set, KEYS[0])
        web.documents.clear()
        timer.advance(600)
        for _ in range(60):
            assert known(key_set, KEYS[0])
            timer.advance(1)
        assert len(web.asked) == 1 + 2

    @pytest.mark.parametrize(
        "document", [None, [], "keys", {}, {"keys": {}}, {"keys": [1]}, {"keys": None}]
    )
    def test_a_document_that_is_no_key_set_replaces_nothing(
        self, key_set: KeySet, web: Web, timer: Clock, document: Any
    ) -> None:
        assert known(key_set, KEYS[0])
        web.documents[URL] = document
        timer.advance(600)
        assert known(key_set, KEYS[0])

    def test_the_operator_is_told_what_failed_and_what_to_check(
        self, key_set: KeySet, web: Web, caplog: pytest.LogCaptureFixture
    ) -> None:
        web.documents.clear()
        with caplog.at_level(logging.WARNING), pytest.raises(NoKeysError):
            key_set.load()
        [record] = caplog.records
        text = record.getMessage()
        assert URL in text
        assert "Backstage answered 404" in text
        assert "discovery.endpoints" in text

    def test_a_fault_in_the_fetch_leaves_the_set_usable(self, key_set: KeySet, web: Web) -> None:
        def fail() -> None:
            raise RuntimeError("a bug")

        web.before = fail
        with pytest.raises(RuntimeError):
            key_set.load()
        web.before = lambda: None
        assert known(key_set, KEYS[0])


def test_a_prefetch_that_fails_is_logged_at_the_level_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fetch(_: str) -> object:
        raise BackstageUnavailable("Backstage could not be reached")

    caplog.set_level(logging.DEBUG)
    for level in (logging.DEBUG, logging.WARNING):
        KeySet("http://backstage/keys", fetch, setting="backend.baseUrl").prefetch(level)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG, logging.WARNING]


class TestThreads:
    def test_all_who_wait_for_the_first_keys_share_one_fetch(
        self, key_set: KeySet, web: Web, joined: threading.Semaphore
    ) -> None:
        def until_seven_wait() -> None:
            for _ in range(7):
                assert joined.acquire(timeout=60)

        web.before = until_seven_wait
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(known, [key_set] * 8, [KEYS[0]] * 8))
        assert len(web.asked) == 1

    def test_known_keys_are_used_while_a_refresh_is_under_way(
        self, key_set: KeySet, web: Web, timer: Clock
    ) -> None:
        assert known(key_set, KEYS[0])
        timer.advance(600)
        under_way, may_end = threading.Event(), threading.Event()

        def hang() -> None:
            under_way.set()
            assert may_end.wait(60)

        web.before = hang
        with ThreadPoolExecutor(1) as pool:
            refresh = pool.submit(known, key_set, KEYS[0])
            assert under_way.wait(60)
            assert known(key_set, KEYS[0])  # would hang for ever, if it waited
            assert not refresh.done()
            may_end.set()
            assert refresh.result(60)
        assert len(web.asked) == 2
