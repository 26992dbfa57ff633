"""What is read of request bodies, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_plugin import fields
from litellm_plugin.errors import BadRequest


@pytest.mark.parametrize(
    "name",
    [
        "ci",
        " ci ",
        "Zoë's key (2)",
        "鍵\u3000二",  # an ideographic space
        "prix\u00a0: 5",  # a space that does not break
        "❤️",
        "🚀",
        "e\u0301te\u0301",
        "a" * 512,
    ],
)
def test_a_name_is_kept_as_it_is(name: str) -> None:
    assert fields.name("alias", name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "\u00a0\u3000",
        "a\nb",
        "a\tb",
        "a\x7fb",
        "a\x85b",
        "a\u200bb",  # zero-width space
        "a\u200cb",
        "a\u200db",
        "a\u2060b",
        "\ufeffa",
        "a\u00adb",  # soft hyphen
        "a\u061cb",
        "a\u200eb",
        "a\u202eb",  # what follows is shown from right to left
        "a\u2066b",
        "a\u2028b",
        "a\u2029b",
        "a\ud800",
        "a\ue000",
        "a\ufffe",
        "a\U000e0041",
        "a\u034fb",
        "\u3164",
        "\u2800",
        "\ufe0f",
        "\u0301",
        "a" * 513,
        None,
        5,
        ["a"],
    ],
    ids=ascii,
)
def test_a_name_that_can_not_be_read_is_refused(name: Any) -> None:
    with pytest.raises(BadRequest, match=r"^alias must "):
        fields.name("alias", name)


@pytest.mark.parametrize(
    ("given", "sent"),
    [(text, text) for text in ("0s", "10s", "2m", "3h", "30d", "1w", "1mo", "14mo", "36500d")]
    + [("1y", "365d"), ("2y", "730d"), ("100y", "36500d"), ("030d", "030d")],
)
def test_a_time_is_sent_as_litellm_takes_it(given: str, sent: str) -> None:
    assert fields.duration("duration", given) == sent


NO_TIMES: tuple[Any, ...] = (
    *("", " ", "-1", "-1d", "xyz", "10parsecs", "30d x", "1dxyz", "1month", "monthly", "1 d"),
    *(" 1d", "1d\n", "1D", "1M", "10", "d", "1.5d", "1e3d", "٣d", "1d1h", "never", "unlimited"),
    *("36501d", "101y", "999999999d", "9" * 400 + "d", "9" * 5000 + "y", "999999999mo"),
    *(30, 1.5, True, ["30d"], {}, None),
)


@pytest.mark.parametrize("given", NO_TIMES, ids=lambda given: repr(given)[:20])
def test_what_is_no_time_is_refused_by_the_name_of_its_field(given: Any) -> None:
    for read in (fields.duration, fields.budget_duration):
        with pytest.raises(BadRequest, match=r"^some_field must be "):
            read("some_field", given)


@pytest.mark.parametrize("given", ["0s", "0d", "0mo", "0y", "2mo", "12mo"])
def test_a_budget_begins_anew_at_a_time_that_litellm_has(given: str) -> None:
    with pytest.raises(BadRequest, match=r"^budget_duration must be "):
        fields.budget_duration("budget_duration", given)


@pytest.mark.parametrize(("given", "sent"), [("1s", "1s"), ("1mo", "1mo"), ("1y", "365d")])
def test_a_time_for_budgets_is_sent_as_litellm_takes_it(given: str, sent: str) -> None:
    assert fields.budget_duration("budget_duration", given) == sent
