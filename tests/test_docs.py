"""The documentation and what it describes stay in step."""

from __future__ import annotations

import pytest

from docs import routes_page
from docs.configuration_page import MARK, PAGE, SOURCE, commented, tables


def test_the_configuration_page_has_what_is_declared() -> None:
    _, mark, written = PAGE.read_text(encoding="utf-8").partition(MARK)
    assert mark
    assert written == tables(SOURCE.read_text(encoding="utf-8")), "run make docs"


def test_the_routes_page_has_every_route() -> None:
    assert routes_page.PAGE.read_text(encoding="utf-8") == routes_page.page(), "run make docs"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("a: 1\n", "line 1: a is not declared"), ("? a\n", "line 1: not understood")],
)
def test_a_line_that_is_not_understood_stops_the_page(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        commented(text)
