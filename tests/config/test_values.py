from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from litellm_plugin.config import values
from litellm_plugin.config.yaml12 import Value


def read(kind: Any, value: Value) -> Any:
    return TypeAdapter(kind).validate_python(value)


BAD: list[Any] = [None, [], {}, ["x"], {"x": 1}]
WEBHOOK_SECRETS = {
    length: f"whsec_{base64.b64encode(bytes(length)).decode()}" for length in (23, 24, 32, 64, 65)
}
URLS = (
    *("http://litellm", "https://litellm.example.com:4000/base/"),
    *("HTTP://[::1]:4000", "http://127.0.0.1:4010"),
)


def cases(by_type: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in by_type.items() for value in values]


@pytest.mark.parametrize(
    ("name", "value"),
    cases(
        {
            "Flag": [*BAD, "", " ", "maybe", 2, -1, 0.5, "1.0", math.nan],
            "Number": [
                *(*BAD, True, 10**400),
                *("abc", "Infinity", "NaN", "1e999", "0x" + "f" * 400),
                *("1_000", "-0x10", "5 USD", ".", "e3", "1e", "--1", "٣"),
            ],
            "Text": [*BAD, "", 5, True],
            "BlankText": [0],
            "Url": [
                *("litellm:4000", "//litellm", "ftp://litellm", "http://", "http://:4000"),
                *("http:litellm", "http://li tellm", " http://litellm", "http://litellm\n"),
                *("http://litellm\\x", "http://litellm:port", "http://litellm:99999"),
                *("http://[::1", "http://user:pass@litellm", "http://user@litellm"),
                *("http://@litellm", "http://litellm?x", "http://litellm/?", "http://litellm#x"),
                *("http://litellm/#", "", 5),
            ],
            "UrlWithQuery": ["https://u:p@x/keys?p=b2c"],
            "Header": ["sk-x y", "sk-x\n", "sk-\x00", "sk-é", "\tsk", "sk\u2028"],
            "Base64": ["a", "abcde", "?!", "===", "c2Vj cmV0", "", "é"],
            "WebhookSecret": [
                WEBHOOK_SECRETS[32].removeprefix("whsec_"),
                *(WEBHOOK_SECRETS[23], WEBHOOK_SECRETS[65]),
                *(f" {WEBHOOK_SECRETS[32]}", f"{WEBHOOK_SECRETS[32]}\n"),
                *("whsec_" + "A" * 31, "whsec_" + "é" * 32, "whsec_"),
            ],
            "File": [".", "a\0b", "", 5],
            "ExistingFile": [".", "a\0b", "", 5],
        }
    ),
)
def test_a_wrong_value_is_refused(name: str, value: Value) -> None:
    with pytest.raises(ValidationError):
        read(getattr(values, name), value)


@pytest.mark.parametrize(
    ("name", "value"),
    cases(
        {
            "BlankText": [""],
            "Url": [*URLS],
            "UrlWithQuery": ["https://x/keys?p=b2c"],
            "WebhookSecret": [WEBHOOK_SECRETS[length] for length in (24, 32, 64)],
        }
    ),
)
def test_a_right_text_stays_as_it_is_written(name: str, value: str) -> None:
    assert read(getattr(values, name), value) == value


@pytest.mark.parametrize(
    ("flag", "value"),
    cases(
        {
            "true": [True, 1, 1.0, "true", "1", "YES", "y", " On\n"],
            "false": [False, 0, -0.0, "False", "0", "no", "N", "\tOFF "],
        }
    ),
)
def test_a_boolean_has_many_forms(flag: str, value: Value) -> None:
    assert read(values.Flag, value) is (flag == "true")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (10, 10.0),
        (0.5, 0.5),
        ("10", 10.0),
        ("1e3", 1000.0),
        ("0x10", 16.0),
        ("0o20", 16.0),
        ("0B11", 3.0),
        ("", 0.0),
        (" \n", 0.0),
        (" +5. ", 5.0),
        (".5", 0.5),
        ("017", 17.0),
        ("\u00a07", 7.0),
    ],
)
def test_text_that_javascript_takes_for_a_number_is_one(value: Value, number: float) -> None:
    assert read(values.Number, value) == number


def test_numbers_keep_to_their_limits() -> None:
    with pytest.raises(ValidationError, match="0 or more"):
        read(values.Number, -0.01)
    with pytest.raises(ValidationError, match="more"):
        read(values.Positive, "0")
    with pytest.raises(ValidationError, match="whole number"):
        read(values.Whole, 1.5)
    assert read(values.Whole, 1e4) == 10000
    assert type(read(values.Whole, "1e4")) is int


@pytest.mark.parametrize(
    ("text", "secret"),
    [("c2VjcmV0", b"secret"), ("_-8=", b"\xff\xef"), ("/+8", b"\xff\xef"), ("AA", b"\0")],
)
def test_base64_has_two_alphabets_and_needs_no_padding(text: str, secret: bytes) -> None:
    assert read(values.Base64, text) == secret


def test_paths_begin_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").touch()
    assert read(values.ExistingFile, "ca.pem") == tmp_path / "ca.pem"
    assert read(values.File, "new/key.json") == tmp_path / "new" / "key.json"
