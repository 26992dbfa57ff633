from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_plugin.config import yaml12
from litellm_plugin.config.yaml12 import Value, YamlError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("", None),
        ("~", None),
        ("NULL", None),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0x1F", "-0x1F"),
        ("0o8", "0o8"),
        ("0b11", "0b11"),
        ("+12", 12),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("inf", "inf"),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        ("<<", "<<"),
        ('"17"', "17"),
        ("'yes'", "yes"),
        ("!!str 5", "5"),
        ('!!int "7"', 7),
        ('!!null ""', None),
        ("!!bool True", True),
        ("http://x:80/#a", "http://x:80/#a"),
        ("a # comment", "a"),
        ('"a\\tb\\u2028"', "a\tb\u2028"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: Value) -> None:
    assert yaml12.load(f"key: {text}\n") == {"key": value}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "---\n...\n", "null\n"])
def test_an_empty_document_is_none(text: str) -> None:
    assert yaml12.load(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{<<: {a: 1}}", {"<<": {"a": 1}}),
        ("<<: &x {a: 1}\nb: *x", {"<<": {"a": 1}, "b": {"a": 1}}),
        (
            "{1: a, 1.0e2: b, .5: e, true: c, null: d}",
            {"1": "a", "100": "b", "0.5": "e"} | {"true": "c", "": "d"},
        ),
        ("a:\r\n  - b\r\n", {"a": ["b"]}),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_objects_are_read_as_backstage_reads_them(text: str, value: Value) -> None:
    assert yaml12.load(text) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2\n", 2),
        ("a: 1\n'a': 2\n", 2),
        ("1: a\n'1': b\n", 2),
        ("x: {b: 1,\n  b: 2}\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: [1\nb: 2\n", 2),
        ("a: 1\n  b: 2\n", 2),
        ("a:\n\tb: 1\n", 2),
        ("a: @x\n", 1),
        ("\na: *nope\n", 2),
        ("a: &x [*x]\n", 1),
        ("a: !!set {b}\n", 1),
        ("a: !foo b\n", 1),
        ("a: !!int b\n", 1),
        ("? [a]\n: b\n", 1),
        ("a: 'b\n", 2),
        ("a: 1\nb: x\x07y\n", 2),
        ("a: 1\nb: x\u2028y\n", 2),
        ("[" * 400, 1),
        ("a: 1e999\n", 1),
        ("a: " + "9" * 5000, 1),
    ],
)
def test_what_is_no_configuration_is_an_error_with_its_line(text: str, line: int) -> None:
    with pytest.raises(YamlError) as raised:
        yaml12.load(text)
    assert raised.value.line == line
    assert f"line {line}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:\n\tb: 1\n", "line 2, column 1: a tab; write spaces"),
        ("a: 1\t# comment", "line 1, column 5: a tab; write spaces"),
        ("a: &x 1\nb: &x 2\n", "line 2, column 4: an anchor that is defined twice"),
        ("a: &x [*x]\n", "line 1, column 4: an anchor that contains its own alias"),
        ("a: !foo b\n", "line 1, column 4: a tag that is not of YAML's core schema"),
    ],
)
def test_an_error_is_in_plain_words(text: str, told: str) -> None:
    with pytest.raises(YamlError) as raised:
        yaml12.load(text)
    assert str(raised.value) == told


def test_an_error_says_where_the_first_of_two_equal_keys_is() -> None:
    with pytest.raises(YamlError, match=r"^line 3, column 3: the key 'b' is there .*, in line 2$"):
        yaml12.load("a:\n  b: 1\n  b: 2\n")


@pytest.mark.parametrize(
    "text",
    [
        "key: *hunter2\n",
        "key: !hunter2 x\n",
        "key: !hunter2!x y\n",
        "key: @hunter2\n",
        "key: %hunter2\n",
        "key: 'hunter2\n",
        'key: "\\hunter2"\n',
        "key: [hunter2\n",
        "key: hunter2: x\n",
        "key: {hunter2\n",
        "key: |hunter2\n",
        "%TAG !hunter2! tag:x\n%TAG !hunter2! tag:x\n---\na: 1\n",
        "key: &hunter2 [*hunter2]\n",
        "key: !!int hunter2\n",
        "key: hunter2\x07\n",
        "key: hunter2\u0085\n",
        "key: hunter2\n---\nx: 1\n",
    ],
)
def test_an_error_never_quotes_the_text(text: str) -> None:
    with pytest.raises(YamlError) as raised:
        yaml12.load(text)
    assert "hunter2" not in repr(raised.value)
    assert raised.value.__context__ is None  # PyYAML's error, that is


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(YamlError):
        yaml12.load(text)


def test_the_module_does_not_change_pyyaml_for_others() -> None:
    import yaml  # noqa: PLC0415 - after the module under test

    assert yaml.safe_load("[yes, 017]") == [True, 15]
