from __future__ import annotations

import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.config.settings import Discovery, Service, Settings, StaticPluginKey
from litellm_plugin.identity import signing
from litellm_plugin.identity.jwt import PrivateKey, parse
from litellm_plugin.identity.signing import KeyStoreError, PluginKeys, PluginTokens
from tests.identity.doubles import NOW, Clock, numbered, pem_files
from tests.tokens import SigningKey

SETTINGS = Settings(
    base_url="http://litellm.example",
    master_key="sk-test",
    discovery=Discovery("http://backstage.example"),
)


def kept_in(file: Path | None) -> Settings:
    return replace(SETTINGS, service=Service(key_file=file))


def load(file: Path) -> PluginKeys:
    return PluginKeys.load(kept_in(file), {})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "key.json"


class TestTheKeyOfThisHost:
    def test_it_is_made_once(self, key_file: Path) -> None:
        first = load(key_file)
        assert load(key_file).public_jwks() == first.public_jwks()
        assert [path.name for path in key_file.parent.iterdir()] == ["key.json"]

    def test_one_who_only_looks_makes_none(self, key_file: Path) -> None:
        assert PluginKeys.existing(kept_in(key_file), {}) is None
        assert not key_file.parent.exists()
        made = load(key_file)
        found = PluginKeys.existing(kept_in(key_file), {})
        assert found is not None
        assert found.public_jwks() == made.public_jwks()
        key_file.chmod(0o644)
        with pytest.raises(KeyStoreError, match="may have read"):
            PluginKeys.existing(kept_in(key_file), {})

    def test_only_the_service_can_read_it(self, key_file: Path) -> None:
        load(key_file)
        assert mode(key_file) == 0o600
        assert mode(key_file.parent) == 0o700

    def test_a_permissive_umask_changes_nothing(self, key_file: Path) -> None:
        before = os.umask(0)
        try:
            load(key_file)
        finally:
            os.umask(before)
        assert mode(key_file) == 0o600
        assert mode(key_file.parent) == 0o700

    def test_the_published_part_is_public_and_signs_nothing(self, key_file: Path) -> None:
        keys = load(key_file)
        [published] = keys.public_jwks()["keys"]
        assert published == {
            "kty": "EC",
            "crv": "P-256",
            "x": published["x"],
            "y": published["y"],
            "kid": keys.signing.kid,
            "alg": "ES256",
        }

    def test_by_default_it_is_in_the_state_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state, home = tmp_path / "state", tmp_path / "home"
        home.mkdir()
        monkeypatch.setenv("HOME", str(home))
        PluginKeys.load(kept_in(None), {"XDG_STATE_HOME": str(state)})
        PluginKeys.load(kept_in(None), {})
        PluginKeys.load(kept_in(None), {"XDG_STATE_HOME": "relative"})
        assert (state / "litellm-plugin" / "plugin-key.json").is_file()
        assert (home / ".local" / "state" / "litellm-plugin" / "plugin-key.json").is_file()
        assert mode(state / "litellm-plugin") == 0o700

    def test_a_user_without_a_home_is_told_to_name_a_file(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def nowhere() -> Path:
            raise RuntimeError("no home")

        monkeypatch.setattr(Path, "home", nowhere)
        with pytest.raises(KeyStoreError, match=r"litellm\.service\.keyFile"):
            PluginKeys.load(kept_in(None), {})


class TestAKeyThatIsNotOursAlone:
    @pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644, 0o601])
    def test_one_that_others_could_read_is_refused(self, key_file: Path, bits: int) -> None:
        load(key_file)
        key_file.chmod(bits)
        with pytest.raises(KeyStoreError, match="other users may have read") as caught:
            load(key_file)
        assert "litellm.service.keyFile" in str(caught.value)
        assert str(key_file) in str(caught.value)

    def test_one_of_another_user_is_refused(
        self, key_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load(key_file)
        uid = key_file.stat().st_uid
        # The folder may be root's; what counts here is the file.
        monkeypatch.setattr(signing, "_check_folder", lambda _: None)
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        with pytest.raises(KeyStoreError, match="file belongs to another user"):
            load(key_file)

    def test_a_folder_of_another_user_is_refused(
        self, key_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key_file.parent.mkdir()
        real = Path.stat

        def of_somebody(path: Path, **options: Any) -> os.stat_result:
            status = list(real(path, **options))
            status[stat.ST_UID] = os.geteuid() + 1
            return os.stat_result(status)

        monkeypatch.setattr(Path, "stat", of_somebody)
        with pytest.raises(KeyStoreError, match="folder belongs to another user"):
            load(key_file)

    @pytest.mark.parametrize("bits", [0o770, 0o777, 0o720])
    def test_a_folder_that_others_can_write_to_is_refused(self, key_file: Path, bits: int) -> None:
        key_file.parent.mkdir()
        key_file.parent.chmod(bits)
        with pytest.raises(KeyStoreError, match="can write to the folder"):
            load(key_file)
        assert not key_file.exists()

    @pytest.mark.parametrize("bits", [0o755, 0o1777])
    def test_a_folder_where_others_can_replace_nothing_will_do(
        self, key_file: Path, bits: int
    ) -> None:
        key_file.parent.mkdir()
        key_file.parent.chmod(bits)
        assert load(key_file)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"no json",
            b"[]",
            b"{}",
            b"\xff",
            b"[" * 100_000,
            json.dumps(PrivateKey.generate().public().as_jwk()).encode(),
            SigningKey.ec("k").private_pem(),
        ],
        ids=numbered,
    )
    def test_a_file_that_holds_no_key_is_refused_and_kept(
        self, key_file: Path, content: bytes
    ) -> None:
        key_file.parent.mkdir()
        key_file.write_bytes(content)
        key_file.chmod(0o600)
        with pytest.raises(KeyStoreError, match="holds no plugin key"):
            load(key_file)
        assert key_file.read_bytes() == content

    def test_a_private_key_is_in_no_message(self, key_file: Path) -> None:
        load(key_file)
        stored = json.loads(key_file.read_text())
        key_file.write_text(json.dumps({**stored, "alg": "none"}))
        with pytest.raises(KeyStoreError) as caught:
            load(key_file)
        assert stored["d"] not in str(caught.value)


class TestAnUnusableFolder:
    def test_the_operator_is_told_which_setting_to_change(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(KeyStoreError) as caught:
            load(tmp_path / "file" / "key.json")
        assert "litellm.service.keyFile" in str(caught.value)
        assert "backend.auth.pluginKeyStore" in str(caught.value)

    def test_a_file_system_without_hard_links_leaves_nothing_behind(
        self, key_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
        with pytest.raises(KeyStoreError, match="Operation not permitted"):
            load(key_file)
        assert list(key_file.parent.iterdir()) == []


class TestManyAtOnce:
    def test_who_comes_second_takes_the_first_one_s_key(
        self, key_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = Path.hardlink_to
        elsewhere = load(key_file.parent / "first.json")

        def too_late(path: Path, target: Path) -> None:
            monkeypatch.undo()
            link(path, key_file.parent / "first.json")
            link(path, target)

        monkeypatch.setattr(Path, "hardlink_to", too_late)
        assert load(key_file).signing.kid == elsewhere.signing.kid

    def test_threads_agree(self, key_file: Path) -> None:
        start = threading.Barrier(16)

        def race(_: int) -> str:
            start.wait(60)
            return load(key_file).signing.kid

        with ThreadPoolExecutor(16) as pool:
            assert len(set(pool.map(race, range(16)))) == 1
        assert [path.name for path in key_file.parent.iterdir()] == ["key.json"]


class TestConfiguredKeys:
    def loaded(self, *keys: StaticPluginKey) -> PluginKeys:
        return PluginKeys.load(replace(SETTINGS, plugin_keys=keys), {})

    def test_the_first_signs_and_all_are_published(self, tmp_path: Path, key_file: Path) -> None:
        new, old = SigningKey.ec("new"), SigningKey.rsa("old")
        only_public = replace(pem_files(tmp_path, old), private_key_file=None)
        settings = replace(kept_in(key_file), plugin_keys=(pem_files(tmp_path, new), only_public))
        keys = PluginKeys.load(settings, {})
        assert not key_file.parent.exists()
        assert keys.signing.kid == "new"
        assert keys.public_jwks() == {"keys": [new.jwk(), old.jwk()]}

    def test_the_first_needs_its_private_half(self, tmp_path: Path) -> None:
        only_public = replace(pem_files(tmp_path, SigningKey.ec("k")), private_key_file=None)
        with pytest.raises(KeyStoreError, match=r"keys\[0\]\.privateKeyFile: missing"):
            self.loaded(only_public)

    @pytest.mark.parametrize("index", [0, 1])
    def test_halves_of_two_keys_are_noticed(self, tmp_path: Path, index: int) -> None:
        one, two = (pem_files(tmp_path, SigningKey.ec(name)) for name in ("one", "two"))
        mixed = replace(one, private_key_file=two.private_key_file)
        keys = [mixed] if index == 0 else [two, mixed]
        with pytest.raises(KeyStoreError, match=rf"keys\[{index}\]: .* not a pair"):
            self.loaded(*keys)

    def test_every_key_needs_an_id_of_its_own(self, tmp_path: Path) -> None:
        one, two = (pem_files(tmp_path, SigningKey.ec(name)) for name in ("one", "two"))
        with pytest.raises(KeyStoreError, match="keyId"):
            self.loaded(one, replace(two, key_id="one"))

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        good = pem_files(tmp_path, SigningKey.ec("k"))
        lost = replace(good, key_id="lost", public_key_file=tmp_path / "lost.pem")
        with pytest.raises(KeyStoreError, match=r"keys\[1\]\.publicKeyFile: .*lost\.pem: No such"):
            self.loaded(good, lost)

    @pytest.mark.parametrize(
        "content", [b"", b"junk", b"\xff", SigningKey.rsa("r").private_pem()], ids=numbered
    )
    def test_a_file_that_is_no_key_for_the_algorithm_is_named(
        self, tmp_path: Path, content: bytes
    ) -> None:
        key = pem_files(tmp_path, SigningKey.ec("k"))
        assert key.private_key_file is not None
        key.private_key_file.write_bytes(content)
        with pytest.raises(KeyStoreError, match=r"keys\[0\]\.privateKeyFile: .*k\.pem"):
            self.loaded(key)


KEYS = PluginKeys(PrivateKey.generate())


class TestIssuing:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock(NOW + 0.75)

    @pytest.fixture
    def tokens(self, clock: Clock) -> PluginTokens:
        return PluginTokens(KEYS, "litellm", clock)

    def claims(self, token: str) -> dict[str, Any]:
        return dict(KEYS.signing.public().verify(parse(token), {"ES256"}))

    def test_a_token_says_who_asks_whom_and_for_how_long(self, tokens: PluginTokens) -> None:
        token = tokens.issue("catalog")
        assert parse(token).header == {
            "typ": "vnd.backstage.plugin",
            "alg": "ES256",
            "kid": KEYS.signing.kid,
        }
        assert self.claims(token) == {
            "sub": "litellm",
            "aud": "catalog",
            "iat": NOW,
            "exp": NOW + 3600,
        }

    def test_on_behalf_of_a_user_it_ends_with_the_user_s_token(self, tokens: PluginTokens) -> None:
        short = self.claims(tokens.issue("permission", obo="a.b.c", not_after=NOW + 60.9))
        assert (short["obo"], short["exp"]) == ("a.b.c", NOW + 60)
        long = self.claims(tokens.issue("permission", obo="a.b.c", not_after=NOW + 10**6))
        assert long["exp"] == NOW + 3600

    def test_the_service_s_own_token_is_used_again_for_most_of_its_life(
        self, tokens: PluginTokens, clock: Clock
    ) -> None:
        first = tokens.issue("catalog")
        clock.advance(2699)
        assert tokens.issue("catalog") == first
        clock.advance(1)
        assert self.claims(tokens.issue("catalog"))["iat"] == NOW + 2700

    def test_a_token_for_one_user_is_never_another_s(self, tokens: PluginTokens) -> None:
        own = tokens.issue("permission")
        for user in ("alice", "bob"):
            assert self.claims(tokens.issue("permission", obo=user))["obo"] == user
        assert tokens.issue("permission") == own
        assert "obo" not in self.claims(own)

    def test_a_clock_that_is_set_back_makes_a_new_token(
        self, tokens: PluginTokens, clock: Clock
    ) -> None:
        tokens.issue("catalog")
        clock.advance(-7200)
        assert self.claims(tokens.issue("catalog"))["exp"] == NOW - 3600

    def test_threads_share_it(self, tokens: PluginTokens) -> None:
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(tokens.issue, ["catalog"] * 64))) == 1
