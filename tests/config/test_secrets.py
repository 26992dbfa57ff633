"""No secret of the configuration gets into an error, a log line or a repr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.config import ConfigError, load_settings, yaml12
from litellm_plugin.config.settings import Webhook
from litellm_plugin.config.yaml12 import Value
from tests.config import example
from tests.config.conftest import Load, Write

SECRET = "hunter2"
Document = Callable[[Value], list[Path]]
DOCUMENT = yaml12.load(example.everything_on())


def told(paths: Sequence[Path], environ: dict[str, str]) -> str:
    """Return all that can be seen of the error that loading gives."""
    with pytest.raises(ConfigError) as raised:
        load_settings(paths, environ)
    error = raised.value
    assert error.problems
    assert error.__cause__ is None
    assert error.__context__ is None  # so a traceback shows nothing else
    return f"{error}\n{error!r}"


def in_every_place(value: Value, secret: Value) -> Iterator[Any]:
    """Yield copies of ``value``, each with ``secret`` in the place of one object or list."""
    if isinstance(value, (dict, list)):
        yield secret
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from ({**value, key: copy} for copy in in_every_place(inner, secret))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            for copy in in_every_place(inner, secret):
                yield [*value[:index], copy, *value[index + 1 :]]


def in_all_places(value: Value, secret: Value) -> Value:
    """Return ``value`` with ``secret`` for every string, number and boolean, but ``type``."""
    if isinstance(value, dict):
        return {k: v if k == "type" else in_all_places(v, secret) for k, v in value.items()}
    return [in_all_places(v, secret) for v in value] if isinstance(value, list) else secret


SECRETS: list[Value] = [
    f"{SECRET} not \n a http://u:{SECRET}@x?y#z \x00 thing",
    {"key": SECRET},
    {"$file": "${TOKEN}"},
    f"http://u:{SECRET}@x?y#z",
    f"{SECRET}=",
    [f"{SECRET} a", 5, {"other": SECRET}],
    f"${{{SECRET}-}} ${{UNSET:-{SECRET}}}",
    {"$include": "${TOKEN}.yaml"},
    {"$include": "${TOKEN}"},
    {"$env": "${TOKEN}"},
    {"$env": [SECRET]},
    {"$env": "X", "other": SECRET},
]


@pytest.fixture
def document(write: Write) -> Document:
    def document(value: Value) -> list[Path]:
        write("document.json", json.dumps(value))  # JSON is read much faster
        return [write("app-config.yaml", "$include: document.json")]

    return document


@pytest.mark.parametrize("secret", SECRETS, ids=json.dumps)
def test_no_problem_and_no_warning_quotes_what_may_be_a_secret(
    document: Document, caplog: pytest.LogCaptureFixture, secret: Value
) -> None:
    paths = document(in_all_places(DOCUMENT, secret))
    assert SECRET not in told(paths, {**example.ENVIRON, "TOKEN": SECRET})
    assert SECRET not in caplog.text


@pytest.mark.deep
@pytest.mark.parametrize("secret", SECRETS[:2], ids=json.dumps)
def test_nothing_is_quoted_where_an_object_or_a_list_should_be(
    document: Document, caplog: pytest.LogCaptureFixture, secret: Value
) -> None:
    for value in in_every_place(DOCUMENT, secret):
        assert SECRET not in told(document(value), {**example.ENVIRON, "TOKEN": SECRET})
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        f"litellm:\n  masterKey: '{SECRET}\n",
        f"litellm:\n  masterKey: *{SECRET}\n",
        f"litellm:\n  masterKey: !{SECRET}\n",
        f"litellm:\n  masterKey: {SECRET}\n masterKey: {SECRET}\n",
        f"{SECRET}",
        f"- {SECRET}",
    ],
)
@pytest.mark.parametrize("name", ["app-config.yaml", "included.yaml", "included.json"])
def test_a_file_that_cannot_be_read_is_not_quoted(write: Write, name: str, text: str) -> None:
    main = write("app-config.yaml", f"litellm: {{masterKey: {{$include: {name}#a}}}}")
    write(name, text)
    assert SECRET not in told([main], {})


@pytest.mark.parametrize("variable", ["APP_CONFIG_litellm_masterKey", "APP_CONFIG_a__b"])
@pytest.mark.parametrize("value", [f"{SECRET} x", f'["{SECRET}"]', f'{{"{SECRET}": 1}}'])
def test_the_environment_is_not_quoted(write: Write, variable: str, value: str) -> None:
    assert SECRET not in told([write("app-config.yaml", "")], {variable: value})


def test_a_key_in_the_place_of_a_name_is_masked(write: Write) -> None:
    main = write("app-config.yaml", "litellm: {service: {sk-0123456789abcdef: 1}}")
    text = told([main], {})
    assert "0123456789abcdef" not in text
    assert "litellm.service.sk-[redacted]: no such key" in text


def test_settings_do_not_show_their_secrets(load: Load) -> None:
    entries = [
        {"type": "static", "options": {"token": SECRET + "-token", "subject": "x"}},
        {"type": "legacy", "options": {"secret": "aHVudGVyMg==", "subject": "x"}},
    ]
    settings = load(
        json.dumps(
            {
                "litellm": {
                    "masterKey": f"sk-{SECRET}",
                    "service": {"backstageToken": f"{SECRET}-backstage"},
                },
                "backend": {"auth": {"externalAccess": entries}},
            }
        )
    )
    assert settings.master_key == f"sk-{SECRET}"
    assert settings.service.backstage_token == f"{SECRET}-backstage"
    assert len(settings.external_access) == 2
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/litellm", False),  # part of many texts
        ("/services/T0123/B0123/hunter2hunter2", True),
        ("/hook?sig=hunter2hunter2hunter2", True),
    ],
)
def test_a_long_path_of_a_webhook_is_a_secret(path: str, hidden: bool) -> None:
    webhook = Webhook(f"https://hooks.example.com{path}", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    secrets = set(webhook.secrets())
    assert (path in secrets) is hidden
    assert secrets >= {webhook.url, webhook.secret, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
