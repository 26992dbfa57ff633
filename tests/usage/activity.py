"""LiteLLM's daily activity, as its pages tell of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from litellm_plugin.sandbox.activity import UsageRow, page_of

Json = dict[str, Any]


def used(day: str, *, token: str = "k1", model: str = "gpt-4o", spend: float = 0.1) -> UsageRow:
    """Return what a key did with a model on one day."""
    return UsageRow(
        day=date.fromisoformat(day),
        token=token,
        user_id="bob@example.com",
        team_id=None,
        model=model,
        deployment=f"openai/{model}",
        spend=spend,
        prompt_tokens=7,
        completion_tokens=2,
        successful_requests=1,
    )


def pages_of(
    rows: Sequence[UsageRow],
    start: str,
    end: str,
    *,
    page_size: int | None = None,
    about_key: Callable[[str], Json] = lambda token: {"key_alias": f"{token}'s", "team_id": None},
) -> list[Any]:
    """Return LiteLLM's pages for a period, its days included; one page without a size."""
    own = [row for row in rows if start <= row.day.isoformat() <= end]
    count = max(1, -(-len(own) // page_size)) if page_size else 1
    return [
        page_of(
            own,
            page=page,
            page_size=page_size,
            entity=lambda row: row.user_id or "",
            about_entity=lambda _name: {},
            about_key=about_key,
        )
        for page in range(1, count + 1)
    ]
