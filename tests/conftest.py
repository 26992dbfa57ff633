"""What tests are written with: the hosts in memory, tokens, and the application between them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Generator, Iterator
from copy import deepcopy
from dataclasses import is_dataclass, replace
from functools import lru_cache
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from flask import Flask
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Connection, text
from werkzeug.routing import Rule

from litellm_plugin import create_app
from litellm_plugin.config import yaml12
from litellm_plugin.config.settings import Settings
from litellm_plugin.store import migrate
from tests.apps import Apps
from tests.canaries import WATCH, failed_for_output, shared_folder
from tests.client import JWKS_PATH, Headers, HeadersOf, PluginClient, Serve
from tests.fakes import FakeBackstage, FakeKeycloak, FakeLiteLLM, Network
from tests.rig import Rig
from tests.tokens import TokenFactory

# How many examples a property is tried with: few by default, many for ``make deep``. None has a
# time to keep to: a busy machine is no fault.
for profile, examples in (("default", 20), ("deep", 200)):
    hypothesis_settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
hypothesis_settings.load_profile("default")


def pytest_collection_finish() -> None:
    # Thousands of tests are there to stay; looking through them again and again takes time.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what workers of one host share apart from other test runs on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("tmp")))
        yield
        WATCH.files(shared_folder())
        assert WATCH.leaks == []


@pytest.fixture(scope="session", autouse=True)
def _rules_are_compiled_once() -> Iterator[None]:
    """Let applications share what werkzeug makes of a rule.

    It is more than nine tenths of what an application takes to be made, and most tests make one.
    """
    made = ("_parts", "_trace", "_converters", "arguments", "_build", "_build_unknown")
    compiled: dict[tuple[Any, ...], dict[str, Any]] = {}
    compile_ = Rule.compile

    def once(self: Rule) -> None:
        key = (self.rule, repr(self.defaults), self.merge_slashes, self.strict_slashes)
        if key not in compiled:
            compile_(self)
            compiled[key] = {name: vars(self)[name] for name in made}
        vars(self).update(compiled[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "compile", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _a_file_is_parsed_once() -> Iterator[None]:
    """Let tests that read the same YAML share the parsing, most of what a configuration takes."""
    parsed = lru_cache(yaml12.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml12, "load", lambda text: deepcopy(parsed(text)))
        yield


@pytest.fixture(scope="session", autouse=True)
def _tables_are_made_once() -> Iterator[None]:
    """Copy the tables that Alembic made in a first SQLite database into those of later tests.

    A migration takes twenty times as long.
    """
    made: list[str] = []
    upgrade = command.upgrade

    def once(config: Config, revision: str) -> None:
        connection: Connection = config.attributes["connection"]
        empty = connection.dialect.name == "sqlite" and migrate.version(connection) is None
        if not empty or revision != "head":
            upgrade(config, revision)
            return
        if made:
            for statement in made:
                connection.exec_driver_sql(statement)
            return
        upgrade(config, revision)
        made.extend(connection.scalars(text("SELECT sql FROM sqlite_master WHERE sql > ''")))
        made.append(f"INSERT INTO alembic_version VALUES ('{migrate.version(connection)}')")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "upgrade", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _redis_has_time() -> Iterator[None]:
    """Let Redis answer as late as it may on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("litellm_plugin.cache.redis.CONNECT_SECONDS", 60.0)
        patch.setattr("litellm_plugin.cache.redis.ANSWER_SECONDS", 60.0)
        yield


@pytest.fixture(autouse=True)
def _no_secret_is_written() -> Iterator[None]:
    """Fail a test that wrote a secret; see ``tests/canaries.py``."""
    WATCH.leaks.clear()
    with WATCH.installed():
        yield
    found, WATCH.leaks = WATCH.leaks, []
    assert found == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that printed one."""
    report = yield
    if call.when == "teardown" and report.passed:
        failed_for_output(report)
    return report


@pytest.fixture(scope="session")
def tokens() -> TokenFactory:
    """Everybody who signs; their keys live as long as the test run."""
    return TokenFactory()


@pytest.fixture(scope="session")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Apps:
    """Applications that tests share; ask for ``app`` where a test has one of its own."""
    return Apps(tmp_path_factory.mktemp("plugin-key") / "key.json")


@pytest.fixture
def litellm() -> FakeLiteLLM:
    """LiteLLM, without any rule: ``litellm.get("/user/info", json=...)``."""
    return FakeLiteLLM()


@pytest.fixture
def backstage(tokens: TokenFactory) -> FakeBackstage:
    """Backstage, with the contract's people, where everything is allowed."""
    return FakeBackstage(tokens)


@pytest.fixture
def keycloak(tokens: TokenFactory) -> FakeKeycloak:
    return FakeKeycloak(tokens)


@pytest.fixture
def network(
    monkeypatch: pytest.MonkeyPatch,
    litellm: FakeLiteLLM,
    backstage: FakeBackstage,
    keycloak: FakeKeycloak,
) -> Network:
    """The three hosts, and nothing else, for every ``requests`` session."""
    hosts = Network(litellm, backstage, keycloak)
    hosts.install(monkeypatch)
    return hosts


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released whenever a thread joins a call that another one has under way."""
    joiners = threading.Semaphore(0)

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            joiners.release()
            return super().wait(timeout)

    monkeypatch.setattr("litellm_plugin.cache.single_flight.Event", Watched)
    return joiners


@pytest.fixture
def variant() -> str:
    """Settings by the name of a contract variant.

    Another one: ``@pytest.mark.parametrize("variant", ["hide-members"])``.
    """
    return "full"


@pytest.fixture
def settings(apps: Apps, variant: str) -> Settings:
    return apps.settings(variant)


@pytest.fixture
def client_of(
    network: Network, backstage: FakeBackstage, headers_of: HeadersOf
) -> Callable[[Flask], PluginClient]:
    """Makes the client of an application, which Backstage takes for the plugin then."""

    def client_of(app: Flask) -> PluginClient:
        client = PluginClient(app, headers_of=headers_of)
        backstage.discovers("litellm", lambda: client.get(JWKS_PATH).json)
        return client

    return client_of


@pytest.fixture
def serve(settings: Settings, client_of: Callable[[Flask], PluginClient]) -> Serve:
    """Makes the client of an application with other settings: ``serve(key_policy=KeyPolicy())``.

    A dict changes fields of a part: ``serve(service={"cache_seconds": 0.0})``.
    """

    def serve(**changed: Any) -> PluginClient:
        for name, value in changed.items():
            part = getattr(settings, name)
            if is_dataclass(part) and isinstance(value, dict):
                changed[name] = replace(part, **value)  # type: ignore[type-var]
        return client_of(create_app(replace(settings, **changed)))

    return serve


@pytest.fixture
def app(network: Network, settings: Settings) -> Flask:
    """An application of this test's own."""
    return create_app(settings)


@pytest.fixture
def client(app: Flask, client_of: Callable[[Flask], PluginClient]) -> PluginClient:
    """Asks ``app``: ``client.post("/keys/generate", who="alice", json={"alias": "ci"})``."""
    return client_of(app)


@pytest.fixture
def rig(apps: Apps, tokens: TokenFactory, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A shared application, between a LiteLLM that keeps what it is told, and Backstage."""
    return Rig(apps.app(), tokens, monkeypatch)


@pytest.fixture
def headers_of(tokens: TokenFactory) -> HeadersOf:
    """Makes request headers for a caller as the contract's ``as`` names them."""

    return lru_cache(tokens.headers)  # clients keep a token for a while, too


@pytest.fixture
def alice(headers_of: HeadersOf) -> Headers:
    """Member of the audit group and of the team admins."""
    return headers_of("alice")


@pytest.fixture
def bob(headers_of: HeadersOf) -> Headers:
    """Member of no special group."""
    return headers_of("bob")
