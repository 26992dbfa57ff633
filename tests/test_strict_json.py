from __future__ import annotations

from typing import Any

import pytest

from litellm_plugin import strict_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -2.5, 1e3], "b": {"a": null}}', {"a": [1, -2.5, 1000.0], "b": {"a": None}}),
        (b'"\xc3\xbc"', "ü"),
        ('"\\ud800"', "\ud800"),
        ("1e-999", 0.0),
    ],
)
def test_what_has_one_meaning_is_read(text: str | bytes, value: Any) -> None:
    assert strict_json.loads(text) == value


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', "1e999", "[-1e400]", "9" * 400])
def test_what_parsers_differ_in_is_refused(text: str) -> None:
    with pytest.raises(strict_json.AmbiguousJsonError):
        strict_json.loads(text)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", b"\xff", "[" * 100_000])
def test_anything_else_is_an_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its text is Python's own
        strict_json.loads(text)
