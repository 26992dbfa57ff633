"""``login``, ``key`` and ``logout``, with an issuer and a service that answer over HTTP."""

from __future__ import annotations

import json
import math
import shlex
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
import requests

from litellm_plugin.cli.key import open_saved
from litellm_plugin.developer import web
from litellm_plugin.developer.bridge import obtain
from litellm_plugin.developer.errors import CommandError
from litellm_plugin.developer.keys import KeyRequest
from tests.canaries import secrets_in
from tests.developer.conftest import (
    HOUR,
    ISSUER,
    LITELLM,
    SERVICE,
    Clock,
    FakeBridge,
    Machine,
    MemoryKeyring,
    follow,
    visit,
)
from tests.fakes import connection_refused
from tests.fakes.issuer import DEVICE_CODE, FakeIssuer
from tests.fakes.network import Reply
from tests.tokens import SigningKey

REPO = Path(__file__).parents[2]
DENIED = {"code": None, "error": "access_denied", "error_description": "No\x1b[2Jthanks"}


def content(machine: Machine) -> bytes:
    return b"\n".join(path.read_bytes() for path in machine.files)


# Signing in.


def test_a_sign_in_by_browser(machine: Machine, issuer: FakeIssuer) -> None:
    result = machine.login()
    assert result.stdout == "Signed in as alice\n"
    assert secrets_in(result.output) == []
    (page,) = machine.pages
    assert page in result.stderr
    asked = parse_qs(urlsplit(page).query)
    assert asked["scope"] == ["openid profile email offline_access"]
    assert {"code_challenge", "nonce", "state"} <= set(asked)
    assert issuer.requests == ["authorization_code"]


@pytest.mark.parametrize("errors", [[], ["authorization_pending", "slow_down"]])
def test_a_sign_in_by_device_code(machine: Machine, issuer: FakeIssuer, errors: list[str]) -> None:
    issuer.device_errors = errors
    polls = len(errors) + 1
    result = machine.login("--device")
    assert result.stdout == "Signed in as alice\n"
    assert f"Open {ISSUER}/activate in a browser and enter the code WDJB-MJHT" in result.stderr
    assert machine.pages == []
    assert issuer.requests == [DEVICE_CODE] * polls


@pytest.mark.parametrize(
    ("error", "message"), [("access_denied", "access_denied"), ("expired_token", "has expired")]
)
def test_a_device_code_that_is_refused(
    machine: Machine, issuer: FakeIssuer, error: str, message: str
) -> None:
    issuer.device_errors = [error]
    assert message in machine.refused("login", "--url", SERVICE, "--device")
    assert machine.refused("key").startswith("You are not signed in")


def test_an_issuer_that_keeps_the_refresh_token(
    machine: Machine, issuer: FakeIssuer, clock: Clock
) -> None:
    issuer.rotates = False
    machine.login()
    for _ in range(3):
        clock.now += 9 * HOUR
        machine.key()
    assert issuer.requests == ["authorization_code"] + ["refresh_token"] * 3


def test_an_issuer_without_refresh_tokens(
    machine: Machine, issuer: FakeIssuer, clock: Clock
) -> None:
    issuer.refreshes = False
    assert "sign in again after" in machine.login().stderr
    key = machine.key()
    clock.now += issuer.lives
    assert machine.key() == key
    clock.now += 8 * HOUR
    assert "Sign in again: litellm-plugin login" in machine.refused("key")


@pytest.mark.parametrize(
    ("redirected", "message"),
    [
        (DENIED, "refused the sign-in (access_denied): No [2Jthanks"),
        ({"iss": "https://evil.example.com"}, "is of another issuer"),
        ({"code": None}, "neither a code nor an error"),
        ({"code": "another"}, "refused the sign-in (invalid_grant): Code not valid"),
    ],
)
def test_a_redirect_that_does_not_sign_in(
    machine: Machine, issuer: FakeIssuer, redirected: dict[str, Any], message: str
) -> None:
    issuer.redirected = redirected
    assert message in machine.refused("login", "--url", SERVICE)
    assert machine.files == [] or machine.refused("key").startswith("You are not signed in")


def test_an_issuer_that_promises_its_name_has_to_send_it(
    machine: Machine, issuer: FakeIssuer
) -> None:
    issuer.metadata = {"authorization_response_iss_parameter_supported": True}
    issuer.redirected = {"iss": None}
    assert "is of another issuer" in machine.refused("login", "--url", SERVICE)


def test_requests_of_others_do_not_reach_the_sign_in(machine: Machine, issuer: FakeIssuer) -> None:
    statuses: list[int] = []

    def browse(url: str) -> None:
        query = parse_qs(urlsplit(url).query)
        (redirect_uri,), (state,) = query["redirect_uri"], query["state"]
        port = urlsplit(redirect_uri).port
        targets = (
            f"{redirect_uri}?code=evil",
            f"{redirect_uri}?code=evil&state=evil",
            f"{redirect_uri}?error=access_denied",
            f"{redirect_uri}?code=evil&state={state}&state={state}",
            f"http://localhost:{port}/callback?code=evil&state={state}",  # another Host
            f"http://127.0.0.1:{port}/?code=evil&state={state}",
        )
        statuses.extend(map(visit, targets))
        for method in ("POST", "<script>"):
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request(method, f"/callback?code=evil&state={state}")
            answer = connection.getresponse()
            statuses.append(answer.status)
            assert b"script" not in answer.read()
            connection.close()
        follow(url)

    machine.browse = browse
    assert machine.login().stdout == "Signed in as alice\n"
    assert statuses == [404] * 8


def test_the_page_after_the_sign_in_shows_nothing_of_the_request(machine: Machine) -> None:
    seen: list[Any] = []

    def browse(url: str) -> None:
        target = requests.get(url, allow_redirects=False, timeout=10).headers["Location"]
        with urlopen(f"{target}&x=<script>", timeout=10) as answer:
            seen.append((answer.headers, answer.read().decode()))
        seen.append(visit(target))

    machine.browse = browse
    machine.login()
    (headers, page), status_of_the_second_visit = seen
    assert status_of_the_second_visit == 404
    assert "You can close this page" in page
    assert "script" not in page
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Cache-Control"] == "no-store"


def test_nobody_signs_in(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.browse = lambda _url: None
    monkeypatch.setattr("litellm_plugin.developer.sign_in.SIGN_IN_SECONDS", 0.01)
    assert "login --device" in machine.refused("login", "--url", SERVICE)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example.com"},
        {"aud": "another-client"},
        {"azp": "another-client"},
        {"nonce": "another"},
        {"nonce": None},
        {"exp": 1_700_000_000},
        {"exp": None},
    ],
    ids=str,
)
def test_an_id_token_of_another_sign_in(
    machine: Machine, issuer: FakeIssuer, claims: dict[str, Any]
) -> None:
    issuer.claims = claims
    assert "ID token is refused" in machine.refused("login", "--url", SERVICE)


def test_an_id_token_that_another_key_signs(machine: Machine, issuer: FakeIssuer) -> None:
    published = issuer.key
    issuer.key = SigningKey(published.kid, SigningKey.ec("forged").private, "ES256")
    answer = issuer.answer
    issuer.answer = lambda asked: (  # type: ignore[method-assign]
        Reply(json={"keys": [published.jwk()]}) if asked.path == "/jwks" else answer(asked)
    )
    assert "the signature is not valid" in machine.refused("login", "--url", SERVICE)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"issuer": "https://evil.example.com"}, "is of another issuer: 'https://evil.example"),
        ({"token_endpoint": "http://sso.example.com/token"}, "token_endpoint: got"),
        ({"authorization_endpoint": None}, "has no authorization_endpoint"),
        ({"authorization_endpoint": f"{ISSUER}/\x1b]0;title\x07"}, "authorization_endpoint: got"),
        ({"authorization_endpoint": f"\x1b{ISSUER}"}, "authorization_endpoint: got"),
        ({"authorization_endpoint": f"{ISSUER} evil"}, "authorization_endpoint: got"),
    ],
)
def test_metadata_that_can_not_be_used(
    machine: Machine, issuer: FakeIssuer, metadata: dict[str, Any], message: str
) -> None:
    issuer.metadata = metadata
    said = machine.refused("login", "--url", SERVICE)
    assert message in said
    assert "\x1b" not in said


TOKENS: dict[str, Any] = {"access_token": "a", "token_type": "Bearer", "refresh_token": "r"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(json=["a"]),
        Reply(json=5),
        Reply(json={**TOKENS, "expires_in": [[1]]}),
        Reply(json={**TOKENS, "expires_in": math.inf}),
        Reply(json={**TOKENS, "access_token": {}}),
        Reply(400, {"error": ["slow_down"]}),
        Reply(text="[" * 100_000),
    ],
    ids=["list", "number", "life", "inf", "token", "error", "depth"],
)
@pytest.mark.parametrize("how", [[], ["--device"]], ids=str)
def test_an_answer_with_tokens_of_wrong_types(
    machine: Machine, issuer: FakeIssuer, how: list[str], reply: Reply
) -> None:
    issuer.answers = [reply]
    assert "The identity provider" in machine.refused("login", "--url", SERVICE, *how)


@pytest.mark.parametrize("lives", [10**400, 1e300], ids=["int", "float"])
def test_a_life_of_tokens_that_is_no_number_of_seconds(
    machine: Machine, issuer: FakeIssuer, clock: Clock, lives: Any
) -> None:
    issuer.answers = [Reply(json={**TOKENS, "refresh_token": None, "expires_in": lives})]
    assert "sign in again after 2026-09-21" in machine.login().stderr


@pytest.mark.parametrize("keys", [5, {}, [5], "x"], ids=str)
def test_keys_of_an_issuer_that_are_none(machine: Machine, issuer: FakeIssuer, keys: Any) -> None:
    answer = issuer.answer
    issuer.answer = lambda asked: (  # type: ignore[method-assign]
        Reply(json={"keys": keys}) if asked.path == "/jwks" else answer(asked)
    )
    assert "ID token is refused" in machine.refused("login", "--url", SERVICE)


@pytest.mark.parametrize(
    "url",
    [
        "http://backstage.example.com",
        "ftp://x",
        "backstage",
        "https://user:pw@x.example.com",
        "https://[x",
        "https://x.example.com/\x1b]0;title",
        " https://x.example.com",
    ],
)
def test_a_url_without_tls_is_not_asked(machine: Machine, url: str) -> None:
    message = machine.refused("login", "--url", url)
    assert message.startswith("--url: got")
    assert "https://" in message


def test_a_host_that_is_no_name() -> None:
    with pytest.raises(CommandError, match="no valid host name"):
        web.request("GET", "https://backstage..example.com", "The service")


def test_a_service_that_does_not_name_its_issuer(machine: Machine, bridge: FakeBridge) -> None:
    del bridge.health["issuer"]
    assert "--issuer" in machine.refused("login", "--url", SERVICE)
    assert machine.login("--issuer", ISSUER).stdout == "Signed in as alice\n"


def test_without_a_sign_in_the_command_tells_how_to_sign_in(machine: Machine) -> None:
    assert "Sign in: litellm-plugin login --url https://" in machine.refused("key")
    machine.login()
    other = "https://other.example.com/api/litellm"
    assert f"litellm-plugin login --url {other}\n" in machine.refused("key", "--url", other)


def test_a_service_has_to_be_named_once(machine: Machine) -> None:
    assert machine.run("login").exit_code == 2
    machine.login()
    assert machine.run("login").stdout == "Signed in as alice\n"


# Keys.


def test_a_key_is_all_that_is_printed_and_is_used_again(
    machine: Machine, bridge: FakeBridge
) -> None:
    machine.login()
    result = machine.run("key", "--tool", "claude-code")
    assert result.stdout == "sk-made-00000001\n"
    assert result.stderr == ""
    assert machine.key("--tool", "claude-code") == "sk-made-00000001"
    assert bridge.bodies == [{"tool": "claude-code", "machine": "Alice-s-Laptop"}]


def test_the_options_reach_the_service(machine: Machine, bridge: FakeBridge) -> None:
    machine.login()
    machine.key(
        *("--tool", "ci", "--ttl", "2h", "--models", "gpt-4o, claude", "--team", "team-ml"),
        *("--budget", "2.5"),
    )
    assert bridge.bodies == [
        {
            "tool": "ci",
            "machine": "Alice-s-Laptop",
            "duration": "2h",
            "models": ["claude", "gpt-4o"],
            "team_id": "team-ml",
            "max_budget": 2.5,
        }
    ]


def test_each_tool_has_a_key_and_other_options_replace_it(machine: Machine) -> None:
    """The service has one key for each tool and machine: the older one works no more."""
    machine.login()
    first, other = machine.key(), machine.key("--tool", "aider")
    assert first != other
    assert machine.key() == first
    second = machine.key("--models", "gpt-4o")
    assert second not in {first, other}
    assert machine.key() not in {first, second}
    assert machine.key("--tool", "aider") == other


def test_a_key_is_renewed_when_a_tenth_of_its_life_is_left(machine: Machine, clock: Clock) -> None:
    machine.login()
    first = machine.key("--ttl", "10h")
    clock.now += 9 * HOUR - 2
    assert machine.key("--ttl", "10h") == first
    clock.now += 4
    second = machine.key("--ttl", "10h")
    assert second != first
    assert machine.key("--ttl", "10h") == second


def test_a_fresh_key(machine: Machine) -> None:
    machine.login()
    first = machine.key()
    second = machine.key("--fresh")
    assert second != first
    assert machine.key() == second


@pytest.mark.parametrize("ahead", [-20 * HOUR, -HOUR, HOUR, 20 * HOUR])
def test_a_wrong_clock_does_not_matter(machine: Machine, clock: Clock, ahead: float) -> None:
    machine.login()
    clock.now -= ahead
    clock.ahead += ahead
    first = machine.key("--ttl", "10h")
    clock.now += 8 * HOUR
    assert machine.key("--ttl", "10h") == first
    clock.now += 2 * HOUR
    assert machine.key("--ttl", "10h") != first


def test_after_a_sleep_the_key_is_renewed(machine: Machine, clock: Clock) -> None:
    machine.login()
    first = machine.key()
    clock.now += 100 * HOUR  # the monotonic clock did not move
    second = machine.key()
    assert second != first
    assert machine.key() == second


def test_a_clock_that_was_set_back(machine: Machine, clock: Clock) -> None:
    machine.login()
    first = machine.key()
    clock.now -= 2 * HOUR
    clock.ahead += 2 * HOUR
    second = machine.key()
    assert second != first
    assert machine.key() == second
    clock.now += 2 * HOUR  # and right again
    clock.ahead -= 2 * HOUR
    assert machine.key() == second


def test_a_clock_that_was_set_forward_and_back(machine: Machine, clock: Clock) -> None:
    machine.login()
    first = machine.key()
    clock.now += 48 * HOUR
    clock.ahead -= 48 * HOUR
    second = machine.key()
    assert second != first
    clock.now -= 48 * HOUR
    clock.ahead += 48 * HOUR
    third = machine.key()
    assert third != second
    clock.now += 8 * HOUR
    assert machine.key() != third


def test_two_tools_at_once_make_one_key(machine: Machine, bridge: FakeBridge) -> None:
    machine.login()
    wanted = KeyRequest("cli", "laptop")
    together = threading.Barrier(4)

    def key(_number: int) -> str:
        saved = open_saved()
        together.wait()
        return str(obtain(saved, SERVICE, wanted)["key"])

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(key, range(4))) == {"sk-made-00000001"}
    assert len(bridge.bodies) == 1


def test_lines_for_a_shell(machine: Machine, bridge: FakeBridge) -> None:
    machine.login()
    lines = machine.key("--env").splitlines()
    set_ = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    assert set_ == {
        "ANTHROPIC_AUTH_TOKEN": "sk-made-00000001",
        "ANTHROPIC_BASE_URL": LITELLM,
        "OPENAI_API_KEY": "sk-made-00000001",
        "OPENAI_API_BASE": f"{LITELLM}/v1",
        "OPENAI_BASE_URL": f"{LITELLM}/v1",
    }
    given = "https://llm.example.com/$(id)'"
    text = machine.key("--env", "--litellm-url", given)
    shown = subprocess.run(
        ["/bin/sh", "-c", f'{text}\nprintf %s "$ANTHROPIC_BASE_URL"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == given


def test_lines_for_a_shell_need_an_address(machine: Machine, bridge: FakeBridge) -> None:
    del bridge.health["baseUrl"]
    machine.login()
    assert "--litellm-url" in machine.refused("key", "--env")
    assert bridge.bodies == []
    assert LITELLM in machine.key("--env", "--litellm-url", LITELLM)


def test_lines_for_a_shell_have_no_control_characters(machine: Machine, bridge: FakeBridge) -> None:
    bridge.health["baseUrl"] = f"{LITELLM}/\x1b]0;title\x07"
    machine.login()
    said = machine.refused("key", "--env")
    assert said.startswith("--litellm-url: got")
    assert "\x1b" not in said


@pytest.mark.parametrize("models", ["", " , "])
def test_no_models_are_not_all_models(machine: Machine, bridge: FakeBridge, models: str) -> None:
    machine.login()
    result = machine.run("key", "--models", models)
    assert result.exit_code == 2
    assert "gpt-4o,gpt-4o-mini" in result.stderr
    assert bridge.bodies == []


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf"])
def test_a_budget_that_is_none(machine: Machine, bridge: FakeBridge, budget: str) -> None:
    machine.login()
    result = machine.run("key", "--budget", budget)
    assert result.exit_code == 2
    assert "positive number" in result.stderr
    assert bridge.bodies == []


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(400, {"error": "duration is too long"}), "(400): duration is too long\n"),
        (Reply(403, {"error": "Access denied", "hint": "Ask."}), "(403): Access denied. Ask"),
        (Reply(429, text="slow\x1b[1m"), "made no key (429)\n"),
        (Reply(302, headers={"Location": "https://evil.example.com"}), "made no key (302)"),
        (Reply(json=["sk-1"]), "answered no JSON object"),
        (Reply(json={"key": "sk-a\nb", "expires": "2030-01-01T00:00:00Z"}), "no readable key"),
        (Reply(json={"key": "sk-a"}), "in the field expires"),
        (Reply(json={"key": "sk-a", "expires": "2030-01-01T00:00:00Z"}), "no readable token"),
        (Reply(json={"key": "sk-a", "expires": "soon"}), "in the field expires"),
        (Reply(json={"key": "sk-a", "expires": "9999-12-31T23:59:59-23:59"}), "the field expires"),
        (Reply(400, text="[" * 100_000), "made no key (400)\n"),
        (Reply(text="[" * 100_000), "answered no JSON object"),
    ],
)
def test_an_answer_without_a_key(
    machine: Machine, bridge: FakeBridge, reply: Reply, message: str
) -> None:
    machine.login()
    bridge.replies = [reply]
    said = machine.refused("key")
    assert message in said
    assert "\x1b" not in said
    assert machine.key() == "sk-made-00000001"


def test_a_service_without_keys_for_tools(machine: Machine, bridge: FakeBridge) -> None:
    machine.login()
    del bridge.health["keys"]
    bridge.replies = [Reply(400, {"error": "tool is not a field of a key"})]
    assert machine.refused("key") == (
        "The service makes no tool keys: litellm.bridge.keys is not set there: "
        "tool is not a field of a key\n"
    )


# The end of a sign-in.


def test_the_access_token_is_renewed_before_it_ends(
    machine: Machine, issuer: FakeIssuer, clock: Clock
) -> None:
    machine.login()
    clock.now += issuer.lives - 40
    machine.key()
    assert issuer.requests == ["authorization_code"]
    clock.now += 20
    machine.key("--tool", "aider")
    assert issuer.requests == ["authorization_code", "refresh_token"]


def test_an_access_token_that_ends_early_is_renewed_once(
    machine: Machine, issuer: FakeIssuer
) -> None:
    machine.login()
    issuer.access_tokens.clear()
    assert machine.key() == "sk-made-00000001"
    assert issuer.requests == ["authorization_code", "refresh_token"]


def test_a_revoked_sign_in(machine: Machine, issuer: FakeIssuer, clock: Clock) -> None:
    machine.login()
    key = machine.key()
    issuer.revoke_all()
    assert machine.key() == key  # it works until it expires
    clock.now += 8 * HOUR
    said = machine.refused("key")
    assert said == ("The sign-in has ended or was revoked. Sign in again: litellm-plugin login\n")
    machine.login()
    assert machine.key() != key


def test_a_sign_in_that_the_service_never_accepts(
    machine: Machine, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.login()
    monkeypatch.setattr(issuer, "accepts", lambda _token: False)
    said = machine.refused("key")
    assert "the token has expired. Sign in again" in said
    assert issuer.requests == ["authorization_code", "refresh_token"]


def test_an_issuer_that_is_away_does_not_end_the_sign_in(
    machine: Machine, issuer: FakeIssuer, clock: Clock
) -> None:
    machine.login()
    clock.now += HOUR
    issuer.answers = [Reply(503, text="<html>")]
    said = machine.refused("key")
    assert "answered 503" in said
    assert "Sign in" not in said
    assert machine.key() == "sk-made-00000001"


def test_a_renewal_is_saved_before_it_is_used(
    machine: Machine, issuer: FakeIssuer, bridge: FakeBridge, clock: Clock
) -> None:
    machine.login()
    clock.now += HOUR
    bridge.replies = [Reply(503, {"error": "away"})]
    machine.refused("key")
    clock.now += HOUR
    assert machine.key() == "sk-made-00000001"


def test_a_new_sign_in_of_the_same_user_keeps_the_keys(
    machine: Machine, issuer: FakeIssuer, bridge: FakeBridge
) -> None:
    machine.login()
    key = machine.key()
    issuer.revoke_all()
    assert machine.login().stderr.count("\n") == 3
    assert machine.key() == key
    assert bridge.deleted == []
    machine.run("logout")
    assert len(bridge.deleted) == 1


@pytest.mark.parametrize("revoked", [False, True])
def test_a_sign_in_of_another_user_deletes_the_keys(
    machine: Machine, issuer: FakeIssuer, bridge: FakeBridge, revoked: bool
) -> None:
    machine.login()
    key = machine.key()
    issuer.user = "bob"
    if revoked:
        issuer.revoke_all()
    result = machine.login()
    assert result.stdout == "Signed in as bob\n"
    assert machine.key() != key
    assert len(bridge.deleted) == (0 if revoked else 1)
    assert ("The key of cli@Alice-s-Laptop was not deleted" in result.stderr) is revoked


@pytest.mark.parametrize("hours", [0, 1])
def test_logout(
    machine: Machine,
    issuer: FakeIssuer,
    bridge: FakeBridge,
    clock: Clock,
    system_keyring: MemoryKeyring,
    hours: int,
) -> None:
    machine.login()
    machine.key("--ttl", "1h")
    machine.key("--tool", "aider")
    clock.now += hours * HOUR  # the key of the hour has expired, and the access token
    result = machine.run("logout")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Signed out\n", "")
    keys = [f"/bridge/keys/{number * 8}" for number in ("00000001", "00000002")]
    assert sorted(bridge.deleted) == keys[hours:]
    assert issuer.refresh_tokens == {}
    assert system_keyring.entries == {}
    assert [path.name for path in machine.files] == ["lock"]
    assert machine.refused("key").startswith("You are not signed in")
    assert machine.run("logout").stdout == "Nobody was signed in\n"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"revocation_endpoint": None}, "can't revoke it"),
        ({"revocation_endpoint": f"{ISSUER}/away"}, "was not revoked (The identity provider"),
    ],
)
def test_logout_forgets_what_it_can_not_revoke(
    machine: Machine, issuer: FakeIssuer, metadata: dict[str, Any], message: str
) -> None:
    machine.login()
    issuer.metadata = metadata
    result = machine.run("logout")
    assert result.exit_code == 1
    assert message in result.stderr
    assert machine.refused("key").startswith("You are not signed in")


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (connection_refused(), "The service did not answer at https://backstage.example.com"),
        (Reply(404, {"error": "Not found"}), "404: Not found"),
        (Reply(503), "503"),
        (Reply(401, {"error": "unauthorized"}), "The sign-in has ended or was revoked."),
    ],
)
def test_logout_tells_how_long_a_key_works_that_was_not_deleted(
    machine: Machine, issuer: FakeIssuer, bridge: FakeBridge, reply: Reply | Exception, failure: str
) -> None:
    machine.login()
    machine.key("--tool", "aider")
    bridge.replies = [reply]
    if isinstance(reply, Reply) and reply.status == 401:
        issuer.refresh_tokens.clear()
    result = machine.run("logout")
    assert result.exit_code == 1
    assert f"{SERVICE}: The key of aider@Alice-s-Laptop was not deleted ({failure}" in result.stderr
    assert "it works until 2026-09-21 22:13 UTC." in result.stderr
    assert "sk-" not in result.output
    assert "00000001" not in result.output  # nor its id
    assert machine.refused("key").startswith("You are not signed in")


# What is saved.


def test_the_file_is_encrypted_with_a_key_of_the_keyring(
    machine: Machine, issuer: FakeIssuer, system_keyring: MemoryKeyring
) -> None:
    assert "plain text" not in machine.login().stderr
    machine.key()
    (secret,) = system_keyring.entries.values()
    assert len(secret) == 44  # Windows takes 1,280 characters
    (refresh,), (access,) = issuer.refresh_tokens, issuer.access_tokens
    for text in (refresh, access, "sk-made", "alice", secret):
        assert text.encode() not in content(machine)


@pytest.mark.parametrize("failure", [RuntimeError("D-Bus"), None])
def test_without_a_keyring_a_private_file_holds_the_tokens(
    machine: Machine,
    system_keyring: MemoryKeyring,
    failure: Exception | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system_keyring.failure = failure
    if failure is None:  # the null backend
        monkeypatch.setattr(system_keyring, "set_password", lambda *_: None)
    said = machine.login().stderr
    (file,) = (path for path in machine.files if path.name == "saved")
    assert "Warning: No keyring of the system can be used" in said
    assert str(file) in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    first = machine.key()
    assert machine.key() == first
    assert {path.name for path in machine.files} == {"lock", "saved"}


def test_a_file_whose_key_is_gone_is_no_sign_in(
    machine: Machine, system_keyring: MemoryKeyring
) -> None:
    machine.login()
    system_keyring.entries.clear()
    assert machine.refused("key").startswith("You are not signed in")
    machine.login()
    assert machine.key()


def test_a_folder_that_can_not_be_used(machine: Machine) -> None:
    (machine.folder / "config").write_text("a file")
    said = machine.refused("login", "--url", SERVICE)
    assert "can't be used" in said


# The command itself.


def python(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own; ``folder`` is the user's."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPO,
        env={"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.deep
def test_the_command_needs_no_library_of_the_service(tmp_path: Path) -> None:
    server = (
        "flask",
        "sqlalchemy",
        "pydantic",
        "alembic",
        "gunicorn",
        "prometheus_client",
        "limits",
    )
    program = (
        "import sys\n"
        f"for name in {server}: sys.modules[name] = None\n"
        "import litellm_plugin.cli.login, litellm_plugin.developer.bridge\n"
        "from litellm_plugin.cli import main\n"
        "main(['key'], standalone_mode=False)\n"
    )
    done = python(program, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("You are not signed in")


@pytest.mark.deep
def test_a_kept_key_is_printed_without_the_libraries_of_a_sign_in(tmp_path: Path) -> None:
    folder = tmp_path / "litellm-plugin"
    folder.mkdir()
    entry = {
        "key": "sk-kept",
        "token": "hash",
        "request": {"tool": "cli", "machine": "box"},
        "expires": 4e9,
        "created": 0,
        "ahead": 0,
    }
    sign_in = {"keys": {"cli@box": entry}}
    (folder / "saved").write_text(json.dumps({"current": SERVICE, "sign_ins": {SERVICE: sign_in}}))
    slow = ("requests", "authlib", "joserfc", "keyring", "filelock", "cryptography", "yaml", "rich")
    program = (
        "import socket, sys\n"
        f"for name in {slow}: sys.modules[name] = None\n"
        "socket.gethostname = lambda: 'box'\n"
        "from litellm_plugin.cli import main\n"
        "main(['key'])\n"
    )
    done = python(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "sk-kept\n"), done.stderr
