"""Where the service goes by itself: only where the configuration says, whatever is sent."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from litellm_plugin.config import ConfigError, load_settings
from litellm_plugin.config.settings import StaticAccess
from litellm_plugin.errors import BackstageUnavailable, Unauthenticated
from litellm_plugin.identity.authenticator import Authenticator
from litellm_plugin.identity.plugin_token import MAX_FIRST_READS
from litellm_plugin.identity.signing import PluginKeys
from tests.apps import Apps
from tests.client import PluginClient
from tests.fakes import FakeBackstage, FakeLiteLLM, Network
from tests.rig import Rig
from tests.tokens import STATIC_TOKEN, TokenFactory

Headers = dict[str, str]


@pytest.mark.parametrize(
    "subject",
    [
        "../../admin",
        "a/b",
        "catalog/../auth",
        "a%2Fb",
        "a?x=",
        "a#",
        "a@evil.example",
        "evil.example:80",
        "//evil.example",
        "a\\b",
        "a b",
        "a\n",
        "a\r\nHost: evil.example",
        "\uff41",
        "",
        "a" * 129,
    ],
)
def test_no_plugin_id_leads_anywhere_else(
    client: PluginClient,
    network: Network,
    backstage: FakeBackstage,
    tokens: TokenFactory,
    subject: str,
) -> None:
    for token in (tokens.plugin(sub=subject), tokens.plugin(sub=subject, key=tokens.stranger_key)):
        answer = client.get("/keys", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
    assert network.strays == []
    assert backstage.calls == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(
    client: PluginClient,
    network: Network,
    litellm: FakeLiteLLM,
    bob: Headers,
    status: int,
) -> None:
    """Else the master key would go along."""
    evil = {"Location": "http://169.254.169.254/latest/meta-data/"}
    for path in ("/user/info", "/key/generate", "/model/info", "/models"):
        litellm.on(None, path, status=status, headers=evil, text="")
    assert client.get("/keys", headers=bob).status_code == 500
    assert client.get("/models", headers=bob).status_code == 500
    answer = client.post("/keys/generate", json={"alias": "a"}, headers=bob)
    assert answer.status_code in {500, 502}
    assert "Location" not in answer.headers
    assert network.strays == []


@pytest.mark.parametrize(
    "ref",
    [
        "user:default/../../../auth",
        "user:../x",
        "user:default/..",
        "user:default/a%2F..%2Fb",
        "user:default/a?x#y",
        "http://evil.example/user:default/bob",
        "user:default/bob/../alice",
        "location:default/generated",
    ],
)
def test_no_entity_ref_leads_anywhere_else(rig: Rig, ref: str) -> None:
    answer = rig.ask("dave", "POST", "/teams/team-platform/members", json={"userEntityRef": ref})
    assert answer.status_code == 400
    asked = [call.path for call in rig.backstage.asked_of("catalog")]
    assert all(path.startswith("/entities/by-name/") for path in asked)
    assert not [path for path in asked if "/../" in path or path.count("/") != 5]


URLS = {
    "litellm.baseUrl": "litellm: {baseUrl: URL, masterKey: sk-x}\nbackend: {baseUrl: 'http://b'}",
    "backend.baseUrl": "litellm: {baseUrl: 'http://l', masterKey: sk-x}\nbackend: {baseUrl: URL}",
    "litellm.service.backstageUrl": (
        "litellm: {baseUrl: 'http://l', masterKey: sk-x, service: {backstageUrl: URL}}\n"
        "backend: {baseUrl: 'http://b'}"
    ),
    "litellm.bridge.issuer": (
        "litellm: {baseUrl: 'http://l', masterKey: sk-x, bridge: {enabled: true, issuer: URL}}\n"
        "backend: {baseUrl: 'http://b'}"
    ),
}


@pytest.mark.parametrize("key", URLS)
@pytest.mark.parametrize(
    "url",
    [
        "http://user:canary-pass@host",
        "http://user@host",
        "file:///etc/passwd",
        "gopher://host/x",
        "//host",
        "http://",
        "http://host/x#y",
        "http://host\\@evil.example",
        "http://ho st",
    ],
)
def test_no_address_of_the_configuration_has_credentials_or_another_scheme(
    tmp_path: Path, key: str, url: str
) -> None:
    file = tmp_path / "app-config.yaml"
    file.write_text(URLS[key].replace("URL", f"'{url}'"))
    with pytest.raises(ConfigError) as caught:
        load_settings([file], {})
    assert key in str(caught.value)
    assert "canary-pass" not in str(caught.value)


def test_made_up_plugins_take_some_of_the_places_only(apps: Apps, tokens: TokenFactory) -> None:
    settings = apps.settings()
    going_on, enough = Barrier(MAX_FIRST_READS + 1, timeout=60), Event()

    def fetch(url: str) -> object:
        if "/made-up-" in url:
            going_on.wait()
            assert enough.wait(60)
            raise BackstageUnavailable("404")
        return tokens.jwks().get(url, {"keys": []})

    asking = Authenticator(settings, fetch, PluginKeys.load(settings))

    def ask(plugin: str) -> str:
        try:
            asking.authenticate(f"Bearer {tokens.plugin(sub=plugin)}")
        except Unauthenticated as exc:
            return exc.message
        return "admitted"

    assert ask("rig") == "admitted"
    with ThreadPoolExecutor(MAX_FIRST_READS) as pool:
        waiting = [pool.submit(ask, f"made-up-{number}") for number in range(MAX_FIRST_READS)]
        going_on.wait()
        assert "does not have a JWKS" in ask("made-up-one-more")  # at once
        assert ask("rig") == "admitted"
        enough.set()
        assert all(each.result() != "admitted" for each in waiting)
    assert ask("rig") == "admitted"


@pytest.mark.parametrize("credential", [STATIC_TOKEN, "x", STATIC_TOKEN[:-1], "é" * 9, "a.b.c"])
def test_a_static_token_is_compared_in_constant_time_with_each(
    apps: Apps, monkeypatch: pytest.MonkeyPatch, credential: str
) -> None:
    """By hmac.compare_digest, over digests of one length: nothing else decides."""
    settings = apps.settings()
    compared: list[tuple[bytes, bytes]] = []
    constant: Callable[[bytes, bytes], bool] = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return constant(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    asking = Authenticator(settings, lambda _: {"keys": []}, PluginKeys.load(settings))
    try:
        asking.authenticate(f"Bearer {credential}")
        admitted = True
    except Unauthenticated:
        admitted = False
    static = [each for each in settings.external_access if isinstance(each, StaticAccess)]
    assert admitted == (credential == STATIC_TOKEN)
    assert len(compared) == (1 if admitted else len(static))
    assert {len(digest) for pair in compared for digest in pair} == {32}
    # What compare_digest says is all that counts.
    monkeypatch.setattr(hmac, "compare_digest", lambda *_: False)
    with pytest.raises(Unauthenticated):
        asking.authenticate(f"Bearer {STATIC_TOKEN}")
