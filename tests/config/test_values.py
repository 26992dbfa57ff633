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


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "1", "YES", "y", " On\n"])
def test_what_is_true(value: Value) -> None:
    assert read(values.Flag, value) is True


@pytest.mark.parametrize("value", [False, 0, -0.0, "False", "0", "no", "N", "\tOFF "])
def test_what_is_false(value: Value) -> None:
    assert read(values.Flag, value) is False


@pytest.mark.parametrize("value", [*BAD, "", " ", "maybe", 2, -1, 0.5, "1.0", math.nan])
def test_what_is_no_boolean(value: Value) -> None:
    with pytest.raises(ValidationError):
        read(values.Flag, value)


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


@pytest.mark.parametrize(
    "value",
    [
        *(*BAD, True, 10**400),
        *("abc", "Infinity", "NaN", "1e999", "0x" + "f" * 400),
        *("1_000", "-0x10", "5 USD", ".", "e3", "1e", "--1", "٣"),
    ],
)
def test_what_is_no_finite_number(value: Value) -> None:
    with pytest.raises(ValidationError):
        read(values.Number, value)


def test_numbers_keep_to_their_limits() -> None:
    with pytest.raises(ValidationError, match="0 or more"):
        read(values.Number, -0.01)
    with pytest.raises(ValidationError, match="more"):
        read(values.Positive, "0")
    with pytest.raises(ValidationError, match="whole number"):
        read(values.Whole, 1.5)
    assert read(values.Whole, 1e4) == 10000
    assert type(read(values.Whole, "1e4")) is int


@pytest.mark.parametrize("value", [*BAD, "", 5, True])
def test_text_is_a_string_that_is_not_empty(value: Value) -> None:
    with pytest.raises(ValidationError, match="string"):
        read(values.Text, value)


def test_blank_text_is_allowed_where_it_means_something() -> None:
    assert read(values.BlankText, "") == ""
    with pytest.raises(ValidationError):
        read(values.BlankText, 0)


@pytest.mark.parametrize(
    "value",
    [
        "http://litellm",
        "https://litellm.example.com:4000/base/",
        "HTTP://[::1]:4000",
        "http://127.0.0.1:4010",
    ],
)
def test_urls_stay_as_they_are_written(value: str) -> None:
    assert read(values.Url, value) == value


@pytest.mark.parametrize(
    "value",
    [
        "litellm:4000",
        "//litellm",
        "ftp://litellm",
        "http://",
        "http://:4000",
        "http:litellm",
        "http://li tellm",
        " http://litellm",
        "http://litellm\n",
        "http://litellm\\x",
        "http://litellm:port",
        "http://litellm:99999",
        "http://[::1",
        "http://user:pass@litellm",
        "http://user@litellm",
        "http://@litellm",
        "http://litellm?x",
        "http://litellm/?",
        "http://litellm#x",
        "http://litellm/#",
        "",
        5,
    ],
)
def test_what_is_no_url_for_requests(value: Value) -> None:
    with pytest.raises(ValidationError):
        read(values.Url, value)


def test_some_urls_have_a_query() -> None:
    assert read(values.UrlWithQuery, "https://x/keys?p=b2c") == "https://x/keys?p=b2c"
    with pytest.raises(ValidationError):
        read(values.UrlWithQuery, "https://u:p@x/keys?p=b2c")


@pytest.mark.parametrize("key", ["sk-x y", "sk-x\n", "sk-\x00", "sk-é", "\tsk", "sk\u2028"])
def test_what_no_header_may_hold(key: str) -> None:
    with pytest.raises(ValidationError):
        read(values.Header, key)


@pytest.mark.parametrize(
    ("text", "secret"),
    [("c2VjcmV0", b"secret"), ("_-8=", b"\xff\xef"), ("/+8", b"\xff\xef"), ("AA", b"\0")],
)
def test_base64_has_two_alphabets_and_needs_no_padding(text: str, secret: bytes) -> None:
    assert read(values.Base64, text) == secret


@pytest.mark.parametrize("text", ["a", "abcde", "?!", "===", "c2Vj cmV0", "", "é"])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(ValidationError):
        read(values.Base64, text)


@pytest.mark.parametrize("length", [24, 32, 64])
def test_a_secret_of_a_webhook(length: int) -> None:
    secret = f"whsec_{base64.b64encode(bytes(length)).decode()}"
    assert read(values.WebhookSecret, secret) == secret


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(bytes(32)).decode(),
        f"whsec_{base64.b64encode(bytes(23)).decode()}",
        f"whsec_{base64.b64encode(bytes(65)).decode()}",
        f" whsec_{base64.b64encode(bytes(32)).decode()}",
        f"whsec_{base64.b64encode(bytes(32)).decode()}\n",
        f"whsec_{'A' * 31}",
        "whsec_" + "é" * 32,
        "whsec_",
    ],
)
def test_what_is_no_secret_of_a_webhook(text: str) -> None:
    with pytest.raises(ValidationError):
        read(values.WebhookSecret, text)


def test_paths_begin_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").touch()
    assert read(values.ExistingFile, "ca.pem") == tmp_path / "ca.pem"
    assert read(values.File, "new/key.json") == tmp_path / "new" / "key.json"


@pytest.mark.parametrize("kind", [values.File, values.ExistingFile])
@pytest.mark.parametrize("value", [".", "a\0b", "", 5])
def test_what_is_no_path_of_a_file(kind: Any, value: Value) -> None:
    with pytest.raises(ValidationError):
        read(kind, value)
