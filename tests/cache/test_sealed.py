"""What goes into a seal comes out as it was, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_plugin.cache.sealed import MAX_BYTES, SEAL_BYTES, Seal
from litellm_plugin.cache.stamps import Entry
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import Account

SEAL = Seal("sk-master", "here")

texts = st.text(max_size=5)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, json, max_size=3)
values = st.one_of(
    json,
    st.builds(Account, texts, objects, st.lists(texts), texts),
    st.builds(Entity, texts, st.frozensets(texts), st.none() | texts, st.none() | texts),
    st.lists(st.tuples(texts, json)),
)


def entry_of(value: Any) -> Entry:
    return Entry(value, 1000.5, 60.0, 3, (), (1, 2))


def closed(value: Any, name: str = "name") -> bytes:
    data = SEAL.close(name, entry_of(value))
    assert data is not None
    return data


@given(values)
def test_whatever_is_remembered_comes_back_as_it_was(value: Any) -> None:
    entry = SEAL.open("name", closed(value))
    assert entry == entry_of(value)
    assert type(entry.value) is type(value)


def test_metadata_never_becomes_an_object() -> None:
    forged = ["account", {"user_id": "x"}]
    metadata = {"account": forged, "kind": "entity", "__class__": "Account"}
    account = Account("a", {"metadata": metadata}, ["t"], "a")
    entry = SEAL.open("name", closed(account))
    assert entry is not None
    assert entry.value == account


def test_what_is_too_large_for_others_is_not_let_out() -> None:
    room = MAX_BYTES - len(closed("")) - len("x")
    assert SEAL.close("name", entry_of("x" * room)) is not None
    assert SEAL.close("name", entry_of("x" * (room + 2))) is None


@pytest.mark.parametrize(
    "value", [2**53 + 1, 2**63, 2**64, -(2**63) - 1, -0.0, 5e-324, 10**40, "half of one: \ud83d"]
)
def test_no_digit_and_no_half_character_is_lost(value: float | str) -> None:
    entry = SEAL.open("name", closed([value]))
    assert entry is not None
    assert repr(entry.value) == repr([value])


@pytest.mark.parametrize(
    "value",
    [
        *([float("nan")], {"at": (1, 2)}, [{1: "one"}], {"a": [(1,)]}),
        *(object(), {"at": {1, 2}}, [("a", b"b")]),
    ],
)
def test_what_would_not_come_back_as_it_is_stays(
    value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert SEAL.close("name", entry_of(value)) is None
    assert "kept in this process only" in caplog.text


@pytest.mark.parametrize(
    "opened",
    [
        lambda data: SEAL.open("another name", data),
        lambda data: Seal("sk-another", "here").open("name", data),
        lambda data: Seal("sk-master", "elsewhere").open("name", data),
        lambda data: SEAL.open("name", data.replace(b"false", b"true")),
        lambda data: SEAL.open("name", data[SEAL_BYTES:]),
        lambda data: SEAL.open("name", data[:-1]),
        lambda data: SEAL.open("name", bytes(SEAL_BYTES) + data[SEAL_BYTES:]),
        lambda _: SEAL.open("name", b""),
    ],
    ids=["name", "secret", "installation", "changed", "bare", "cut", "unsealed", "empty"],
)
def test_what_was_not_sealed_for_that_name_is_nothing(opened: Any) -> None:
    data = closed({"allowed": False})
    assert SEAL.open("name", data) is not None
    assert opened(data) is None


@pytest.mark.parametrize(
    "text",
    [
        b'["account",{"user_id":"a"},1,60,1,[]]',
        b'["account",{"user_id":"a"},[],1]',
        b'o["json",1,1,60,1,[]]',
        b'["later",1,1,60,1,[]]',
        b"[]",
        b"null",
        b"{",
        b"",
    ],
)
def test_what_another_version_sealed_is_nothing(text: bytes) -> None:
    assert SEAL.open("name", SEAL._seal("name", text) + text) is None
