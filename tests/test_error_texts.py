"""The frontend shows ``error`` and nothing else, so each text was read by a person.

Whoever changes or adds one reads it as a user would: what happened, with which value, and what to
do. Then the text goes into ``error_texts.txt``.
"""

from __future__ import annotations

from pathlib import Path

from tests.error_texts import texts

READ = Path(__file__).with_name("error_texts.txt")


def test_every_error_that_a_route_can_answer_was_read() -> None:
    assert sorted(texts()) == READ.read_text().splitlines()
