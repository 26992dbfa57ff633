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


def token(key: SigningKey = KEYS[0], **header: Any) -> UnverifiedToken:
    return parse(f"{segment({'alg': key.alg, 'kid': key.kid, **header})}.e30.")


class Site:
    """A key set, and the host that publishes it."""

    def __init__(self) -> None:
        self.timer = Clock(0)
        self.web = Web()
        self.publish(KEYS[0])
        self.keys = KeySet(URL, self.web, setting="discovery.endpoints", timer=self.timer)

    @property
    def asked(self) -> int:
        """How often the host was asked for its keys."""
        return len(self.web.asked)

    def publish(self, *keys: SigningKey) -> None:
        self.web.documents[URL] = {"keys": [key.jwk() for key in keys]}

    def knows(self, key: SigningKey) -> bool:
        try:
            return self.keys.key_for(token(key)).kid == key.kid
        except TokenError:
            return False


@pytest.fixture
def site() -> Site:
    return Site()


class TestCaching:
    def test_nothing_is_fetched_before_it_is_needed(self, site: Site) -> None:
        assert site.asked == 0

    def test_keys_are_kept_for_ten_minutes(self, site: Site) -> None:
        assert site.knows(KEYS[0])
        site.timer.advance(599)
        assert site.knows(KEYS[0])
        assert site.asked == 1
        site.timer.advance(1)
        assert site.knows(KEYS[0])
        assert site.asked == 2

    def test_a_withdrawn_key_is_forgotten_with_the_next_fetch(self, site: Site) -> None:
        assert site.knows(KEYS[0])
        site.publish(KEYS[1])
        site.timer.advance(600)
        assert not site.knows(KEYS[0])
        assert site.knows(KEYS[1])


class TestRotation:
    def test_an_unknown_kid_is_looked_for_at_once(self, site: Site) -> None:
        assert site.knows(KEYS[0])
        site.publish(*KEYS[:2])
        assert site.knows(KEYS[1])
        assert site.knows(KEYS[0])
        assert site.asked == 2

    def test_a_fresh_set_is_not_fetched_again_for_an_unknown_kid(self, site: Site) -> None:
        assert not site.knows(KEYS[1])
        assert site.asked == 1
        site.timer.advance(600)
        assert not site.knows(KEYS[1])
        assert site.asked == 2

    def test_ten_rotations_a_minute_are_followed_and_the_eleventh_is_not(self, site: Site) -> None:
        assert site.knows(KEYS[0])
        for key in KEYS[1:11]:
            site.publish(key)
            assert site.knows(key)
        site.publish(KEYS[11])
        assert not site.knows(KEYS[11])
        assert site.asked == 11
        site.timer.advance(60)
        assert site.knows(KEYS[11])

    def test_rotations_that_are_not_that_frequent_are_all_followed(self, site: Site) -> None:
        for number in range(30):
            key = KEYS[number % len(KEYS)]
            site.publish(key)
            assert site.knows(key)
            site.timer.advance(7)

    def test_made_up_kids_cause_a_dozen_fetches_a_minute_at_most(self, site: Site) -> None:
        assert site.knows(KEYS[0])
        for number in range(600):
            assert not site.knows(SigningKey("made-up-" + str(number), KEYS[1].private, "ES256"))
            site.timer.advance(0.1)
        assert site.asked <= 1 + 12
        assert site.knows(KEYS[0])

    @pytest.mark.parametrize("alg", ["none", "HS256", "", None, "ES256K"])
    def test_no_fetch_for_an_algorithm_that_can_never_hold(
        self, site: Site, alg: str | None
    ) -> None:
        with pytest.raises(TokenError, match="algorithm"):
            site.keys.key_for(token(KEYS[1], alg=alg))
        assert site.asked == 0


class TestChoosing:
    @pytest.mark.parametrize(("kids", "kid"), [(("k0", "k1"), None), (("k0", "k0"), "k0")])
    def test_none_of_several_fitting_keys_is_guessed(
        self, site: Site, kids: tuple[str, str], kid: str | None
    ) -> None:
        pairs = zip(KEYS, kids, strict=False)
        site.web.documents[URL] = {"keys": [key.jwk(kid=name) for key, name in pairs]}
        with pytest.raises(TokenError, match="several"):
            site.keys.key_for(token(KEYS[0], kid=kid))

    @pytest.mark.parametrize("kid", [5, ["k0"], {"a": 1}, True])
    def test_a_kid_that_is_no_text_is_refused(self, site: Site, kid: Any) -> None:
        with pytest.raises(TokenError):
            site.keys.key_for(token(KEYS[0], kid=kid))

    def test_a_key_without_kid_is_none_that_a_kid_names(self, site: Site) -> None:
        site.web.documents[URL] = {"keys": [KEYS[0].jwk(kid=None)]}
        assert not site.knows(KEYS[0])
        assert site.keys.key_for(token(KEYS[0], kid=None))

    def test_a_key_of_another_algorithm_does_not_count(self, site: Site) -> None:
        site.web.documents[URL] = {"keys": [KEYS[0].jwk(alg="ES384")]}
        assert not site.knows(KEYS[0])

    def test_members_that_are_not_understood_are_passed_over(self, site: Site) -> None:
        odd: list[Any] = [{"kty": "AKP"}, {}, {"kty": "oct", "k": "AQ"}, {"kty": "EC", "crv": 5}]
        site.web.documents[URL] = {"keys": [*odd, KEYS[0].jwk()]}
        assert site.knows(KEYS[0])


class TestFailure:
    def test_without_any_keys_nothing_holds_and_each_request_asks_again(self, site: Site) -> None:
        site.web.documents.clear()
        for _ in range(2):
            with pytest.raises(NoKeysError):
                site.keys.key_for(token())
        assert site.asked == 2
        site.publish(KEYS[0])
        assert site.knows(KEYS[0])

    def test_old_keys_are_kept_when_a_refresh_fails(self, site: Site) -> None:
        assert site.knows(KEYS[0])
        site.web.documents.clear()
        for _ in range(10):
            site.timer.advance(600)
            assert site.knows(KEYS[0])

    def test_a_host_that_is_down_is_asked_twice_a_minute(self, site: Site) -> None:
        assert site.knows(KEYS[0])
        site.web.documents.clear()
        site.timer.advance(600)
        for _ in range(60):
            assert site.knows(KEYS[0])
            site.timer.advance(1)
        assert site.asked == 1 + 2

    @pytest.mark.parametrize(
        "document", [None, [], "keys", {}, {"keys": {}}, {"keys": [1]}, {"keys": None}]
    )
    def test_a_document_that_is_no_key_set_replaces_nothing(
        self, site: Site, document: Any
    ) -> None:
        assert site.knows(KEYS[0])
        site.web.documents[URL] = document
        site.timer.advance(600)
        assert site.knows(KEYS[0])

    def test_the_operator_is_told_what_failed_and_what_to_check(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.web.documents.clear()
        with caplog.at_level(logging.WARNING), pytest.raises(NoKeysError):
            site.keys.load()
        [record] = caplog.records
        text = record.getMessage()
        assert URL in text
        assert "Backstage answered 404" in text
        assert "discovery.endpoints" in text

    def test_a_fault_in_the_fetch_leaves_the_set_usable(self, site: Site) -> None:
        def fail() -> None:
            raise RuntimeError("a bug")

        site.web.before = fail
        with pytest.raises(RuntimeError):
            site.keys.load()
        site.web.before = lambda: None
        assert site.knows(KEYS[0])


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
        self, site: Site, joined: threading.Semaphore
    ) -> None:
        def until_seven_wait() -> None:
            for _ in range(7):
                assert joined.acquire(timeout=60)

        site.web.before = until_seven_wait
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(site.knows, [KEYS[0]] * 8))
        assert site.asked == 1

    def test_known_keys_are_used_while_a_refresh_is_under_way(self, site: Site) -> None:
        assert site.knows(KEYS[0])
        site.timer.advance(600)
        under_way, may_end = threading.Event(), threading.Event()

        def hang() -> None:
            under_way.set()
            assert may_end.wait(60)

        site.web.before = hang
        with ThreadPoolExecutor(1) as pool:
            refresh = pool.submit(site.knows, KEYS[0])
            assert under_way.wait(60)
            assert site.knows(KEYS[0])  # would hang for ever, if it waited
            assert not refresh.done()
            may_end.set()
            assert refresh.result(60)
        assert site.asked == 2
