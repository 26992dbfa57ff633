"""What people are told of LiteLLM's error bodies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from litellm_plugin.clients.error_texts import MAX_TEXT, sentence

BUDGET = "Invalid budget_duration 'zzz'. Use a format like '1h', '24h', '7d', or '30d'."


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "User nope not found", "type": "x"}}, "User nope not found"),
        ({"error": {"message": "{'error': 'No keys found'}"}}, "No keys found"),
        ({"error": {"message": str({"error": BUDGET})}}, BUDGET),
        ({"error": {"message": "{'message': 'Team not found.'}"}}, "Team not found."),
        ({"error": {"message": "400: {'error': 'no'}"}}, "no"),
        ({"error": {"message": "Authentication Error, 403: {'error': 'no'}"}},
         "Authentication Error, no"),
        ({"error": {"message": "{'error': {'message': \"{'error': 'deep'}\"}}"}}, "deep"),
        ({"error": {"message": '{"error": "as JSON"}'}}, "as JSON"),
        ({"error": "text"}, "text"),
        ({"message": "top level", "param": "p"}, "top level"),
        ({"error": None, "message": "top level"}, "top level"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": {"error": "User not found in team"}}, "User not found in team"),
        ({"detail": {"message": "no"}}, "no"),
        ({"detail": {"error": {"message": "no"}}}, "no"),
        ({"detail": [{"loc": ["body", "max_budget"], "msg": "Input should be a valid number"}]},
         "max_budget: Input should be a valid number"),
        ({"detail": [{"loc": ["body", "models", 0], "msg": "no"}, {"loc": ["query", "page"],
          "msg": "too high"}]}, "models.0: no; page: too high"),
        ({"detail": [{"loc": ["body", 1], "msg": "JSON decode error"}]}, "JSON decode error"),
        ({"detail": [{"loc": ["body"], "msg": "Value error, Either id or email"}]},
         "Either id or email"),
        ({"error": {"message": "[{'loc': ('body', 'a'), 'msg': 'no'}]"}}, "a: no"),
        ({"error": {"message": "can only access models=['a', 'b']. Tried to access ['c']"}},
         "can only access models=a, b. Tried to access c"),
        ({"error": {"message": "cut: {'error': 'Key budget of"}}, "cut: Key budget of"),
        ({"error": {"message": "{'error': 'no', 'at': <Key object>}"}}, "no"),
        ({"error": {"message": "failed: {'code': 5}"}}, "failed"),
        ({"error": {"message": "User already in team. Member: user_id=bob, user_email=None."
          " Existing members=[Member(user_id='a', user_email='a@x.com', role='user')]"}},
         "User already in team."),
        ({"error": {"message": "Key alias='ci' already exists"}}, "Key alias='ci' already exists"),
        ({"error": {"message": "Budget exceeded for user=\"bob\"."}},
         "Budget exceeded for user=\"bob\"."),
        ({"error": {"message": "Keys with blocked=True can't be used"}},
         "Keys with blocked=True can't be used"),
        ({"error": {"message": "Not allowed. Key alias='ci' already exists"}}, "Not allowed."),
        ({"error": {"message": "Already in team: Member(user_id='a', user_email='a@x.com')"}},
         "Already in team"),
        ({"error": {"message": "Existing members=[Member(user_id='a', user_email='a@x.com')]"}},
         "Existing members"),
        ({"error": {"message": "Invalid team: team_id='t' admin_email='a@x.com' spend=0.0"}},
         "Invalid team"),
        ({"error": {"message": "LiteLLM_TeamTable(team_id='t', admin_email='a@x.com')"}}, ""),
        ({"error": {"message": "Invalid model name passed in model=nope. Call /v1/models"}},
         "Invalid model name passed in model=nope. Call /v1/models"),
        ({"error": {"message": 5}}, ""),
        ({"error": {"message": "it's {x}, as f'{y}' says"}}, "it's {x}, as f'{y}' says"),
        ([], ""),
        (None, ""),
        (5, ""),
    ],
)  # fmt: skip
def test_the_sentence_is_found_in_every_shape(body: Any, said: str) -> None:
    assert sentence(body) == said


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_KEYS = st.sampled_from(["error", "message", "detail", "msg", "loc", "x"]) | st.text()


def _nested(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(parts) | st.dictionaries(_KEYS, parts) | parts.map(str) | parts.map(repr)


@given(st.recursive(_LEAVES, _nested))
@example("[" * 5000)
@example("{'error': " * 1000)
@example("{'error':" + "-" * 3900 + "1}")
@example(["'\\" * 2000])
@example("['\\d']")
@example({"error": "9" * 5000})
@example("[" + "9" * 3900 + "]")
@example({"detail": [{"loc": [None, {}], "msg": ["x"]}]})
def test_whatever_litellm_answers_there_is_a_short_text(body: Any) -> None:
    said = sentence(body)
    assert isinstance(said, str)
    assert len(said) <= 100 * MAX_TEXT  # lists of long texts; the client cuts them


@given(st.text(), st.sampled_from(["error", "message", "detail", "msg"]))
def test_what_is_printed_as_python_is_read_as_it_was(text: str, key: str) -> None:
    assert sentence({"error": {"message": str({key: text})}}) == sentence(text)
