from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_plugin.config.layers import Layers, NotAnObject, Source, merge
from litellm_plugin.config.yaml12 import Value

KEYS = st.sampled_from(["a", "b", "c"])
VALUES: st.SearchStrategy[Value] = st.recursive(
    st.none() | st.integers(0, 3) | st.just(""),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = cast("st.SearchStrategy[dict[str, Value]]", st.dictionaries(KEYS, VALUES, max_size=3))


@pytest.mark.parametrize(
    ("earlier", "later", "merged"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": {"b": 1}}, {"a": None}, {}),
        ({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {}}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": {"b": 2}}, {"a": 1}, {"a": 1}),
        ({"a": {"b": 2}}, {"a": {}}, {"a": {"b": 2}}),
        ({"a": "x"}, {"a": ""}, {"a": ""}),
        ({}, {"a": {"b": None, "c": {"d": None}}}, {"a": {"c": {}}}),
        ({}, {"a": [None, {"b": None}]}, {"a": [None, {"b": None}]}),
        ({"a": None}, {}, {}),
    ],
)
def test_objects_are_merged_and_null_removes(earlier: Value, later: Value, merged: Value) -> None:
    assert merge(later, earlier) == merged


@settings(max_examples=40)
@given(OBJECTS)
def test_merging_with_nothing_or_itself_changes_nothing_more(value: dict[str, Value]) -> None:
    clean = merge(value, None)
    assert merge(value, {}) == merge({}, value) == merge(clean, clean) == clean


@settings(max_examples=40)
@given(OBJECTS, OBJECTS, OBJECTS)
def test_a_later_source_has_the_last_word(
    first: dict[str, Value], second: dict[str, Value], third: dict[str, Value]
) -> None:
    merged = merge(third, merge(second, first))
    assert isinstance(merged, dict)
    for key, value in third.items():
        if value is None:
            assert key not in merged
        elif not isinstance(value, dict):
            assert merged[key] == value
    for key in merged.keys() - third.keys():
        assert second.get(key, first.get(key)) is not None


@settings(max_examples=40)
@given(st.lists(OBJECTS, min_size=1, max_size=3), st.lists(KEYS, min_size=1, max_size=3))
def test_asking_the_layers_and_asking_the_merged_whole_agree(
    values: list[dict[str, Value]], path: list[str]
) -> None:
    layers = Layers([Source(f"{i}.yaml", value) for i, value in enumerate(values)])
    try:
        value = layers.merged(tuple(path))
        found = layers.find(tuple(path))
    except NotAnObject:
        return  # the whole forgets what was in the way
    whole = layers.merged(())
    for part in path:
        whole = whole.get(part) if isinstance(whole, dict) else None
    assert value == whole
    assert (found is None) == (value is None)


def test_a_value_knows_its_file() -> None:
    layers = Layers([Source("base.yaml", {"a": {"b": 1, "c": 1}}), Source("env", {"a": {"c": 2}})])
    found = {key: layers.find(("a", key)) for key in "bcd"}
    assert {key: value and value.origin for key, value in found.items()} == {
        "b": "base.yaml",
        "c": "env",
        "d": None,
    }


def test_no_value_is_in_the_text_of_a_source() -> None:
    source = Source("base.yaml", {"a": "hunter2"})
    assert "hunter2" not in repr(source)
    assert "hunter2" not in repr(Layers([source]).find(("a",)))
