"""``backend.cache`` means what it means to Backstage, as far as we can do it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from litellm_plugin import create_app
from litellm_plugin.config import ConfigError
from litellm_plugin.config.settings import Cache, Settings
from tests.config.conftest import Load, Problems

URL = "redis://redis:6379"


def text(cache: Any) -> str:
    return json.dumps({"backend": {"cache": cache}})


@pytest.mark.parametrize(
    "cache",
    [
        {},
        None,
        {"store": "memory"},
        {"store": "none"},
        {"store": "memory", "connection": {"any": ["thing", 5]}},
    ],
)
def test_memory_is_the_default(load: Load, caplog: pytest.LogCaptureFixture, cache: Any) -> None:
    assert load(text(cache)).cache == Cache("memory", None)
    assert caplog.messages == []


@pytest.mark.parametrize("store", ["redis", "valkey"])
@pytest.mark.parametrize(
    "url", [URL, "rediss://jane:p%40ss@[::1]", "redis://:p@redis:1/", "redis://redis/15"]
)
def test_redis_and_valkey_have_a_connection(
    load: Load, caplog: pytest.LogCaptureFixture, store: str, url: str
) -> None:
    assert load(text({"store": store, "connection": url})).cache == Cache(store, url)
    assert caplog.messages == []


def test_of_a_connection_with_options_the_url_is_used(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    connection = {"url": URL, "pingInterval": 1000, "password": "hunter2"}
    assert load(text({"store": "redis", "connection": connection})).cache.connection == URL
    assert caplog.messages == ["backend.cache.connection: of its options only url is used"]


@pytest.mark.parametrize(
    ("cache", "warning"),
    [
        ({"store": "memcache", "connection": "user:hunter2@host:11211"}, "cache.store: not supp"),
        ({"store": "infinispan", "infinispan": {}}, "cache.store: not supported"),
        ({"store": "redis", "redis": {"cluster": {"rootNodes": []}}}, "cache.redis.cluster: not"),
    ],
)
def test_memory_takes_the_place_of_what_is_not_supported(
    load: Load, caplog: pytest.LogCaptureFixture, cache: Any, warning: str
) -> None:
    assert load(text(cache)).cache == Cache()
    (message,) = caplog.messages
    assert warning in message
    assert "memory takes its place" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("cache", "problem"),
    [
        ({"store": "redis"}, "backend.cache.connection: missing"),
        ({"store": "valkey", "connection": None}, "backend.cache.connection: missing"),
        ({"store": "redis", "connection": {}}, "backend.cache.connection.url: missing"),
        ({"store": "file"}, 'backend.cache.store: got "file"'),
        ({"store": 5}, "backend.cache.store: got number"),
        *(
            ({"store": "redis", "connection": url}, f"backend.cache.connection: got {got}")
            for url, got in [
                (5, "number"),
                ("", "empty string"),
                ("hunter2:6379", "a string (not shown)"),
                ("http://:hunter2@redis", "a string (not shown)"),
                ("unix:///var/run/hunter2", "a string (not shown)"),
                ("redis://", "a string (not shown)"),
                ("redis://:hunter2@redis:port", "a string (not shown)"),
                ("redis://:hunter2@redis/name", "a string (not shown)"),
                ("redis://:hunter2@redis /0", "a string (not shown)"),
                ("redis://redis?password=hunter2", "a URL with a query or a fragment"),
                ("redis://redis#hunter2", "a URL with a query or a fragment"),
            ]
        ),
    ],
)
def test_what_is_no_cache_is_a_problem(problems: Problems, cache: Any, problem: str) -> None:
    (told,) = problems(text(cache))
    assert told.startswith(problem)
    assert "hunter2" not in told


def test_the_password_is_not_shown(load: Load) -> None:
    settings = load(text({"store": "redis", "connection": "redis://:hunter2@redis"}))
    assert "hunter2" not in repr(settings)


def test_without_the_package_it_says_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("redis", "litellm_plugin.cache.redis"):
        monkeypatch.setitem(sys.modules, module, None)
    create_app(settings)
    with pytest.raises(ConfigError, match=r"litellm-plugin\[redis\]"):
        create_app(replace(settings, cache=Cache("redis", URL)))


def test_a_redis_that_is_not_there_keeps_nobody_from_starting(settings: Settings) -> None:
    create_app(replace(settings, cache=Cache("redis", "redis://127.0.0.1:9")))
