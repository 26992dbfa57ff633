"""What the routes answer, made of what LiteLLM says; pure, one row in, one object out.

The frontend tells ``null`` from absent, so each function says which it gives.
Money is USD throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]


def present(**fields: Any) -> Json:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def picked(row: Json, names: Iterable[str]) -> Json:
    """Return what a row has of some fields."""
    return {name: row[name] for name in names if name in row}


USER_FIELDS = (
    "user_email",
    "email",
    "models",
    "max_budget",
    "budget_duration",
    "spend",
    "current_spend",
    "soft_limit",
    "hard_limit",
)


def user_info(user_id: str, info: Json, team_ids: list[str], *, can_view_audit: bool) -> Json:
    """Return ``GET /user/info``; what LiteLLM has as null is absent."""
    return {
        "user_id": user_id,
        **present(
            user_email=info.get("user_email"),
            email=info.get("email"),
            teams=team_ids,
            models=_listed_or_none(info.get("models")),
            max_budget=info.get("max_budget"),
            budget_duration=info.get("budget_duration"),
            spend=info.get("spend"),
            current_spend=info.get("current_spend"),
            soft_limit=info.get("soft_limit"),
            hard_limit=info.get("hard_limit"),
        ),
        "can_view_audit": can_view_audit,
    }


KEY_FIELDS = (
    "key_name",
    "token",
    "created_at",
    "spend",
    "models",
    "key_alias",
    "expires",
    "max_budget",
    "budget_duration",
    "tpm_limit",
    "rpm_limit",
    "user_id",
    "team_id",
    "blocked",
)


def virtual_key(row: Json) -> Json:
    """Return one of ``GET /keys``: ``key`` is the masked name, or the hash where none is.

    ``created_at`` is always there: the frontend sorts by it and breaks on null.
    """
    token = row.get("token")
    return {
        **present(key=_first(row.get("key_name"), token)),
        **({"token": token} if "token" in row else {}),
        "created_at": _first(row.get("created_at"), ""),
        "spend": _first(row.get("spend"), 0),
        "models": row["models"] if isinstance(row.get("models"), list) else [],
        **present(
            key_alias=row.get("key_alias"),
            expires_at=row.get("expires"),
            max_budget=row.get("max_budget"),
            budget_duration=row.get("budget_duration"),
            tpm_limit=row.get("tpm_limit"),
            rpm_limit=row.get("rpm_limit"),
            user_id=row.get("user_id"),
            team_id=row.get("team_id"),
            blocked=row.get("blocked"),
        ),
    }


MODEL_FIELDS = (
    "supports_function_calling",
    "supports_vision",
    "input_cost_per_token",
    "output_cost_per_token",
    "max_input_tokens",
    "max_output_tokens",
    "access_groups",
)


def model(row: Json) -> Json | None:
    """Return one of ``GET /models``, or None for a row without any name.

    Prices are USD per token; a model's own row goes before its parameters.
    """
    info = _object(row.get("model_info"))
    params = _object(row.get("litellm_params"))
    name = _first(row.get("model_name"), params.get("model"), info.get("id"))
    if not isinstance(name, str) or not name:
        return None
    fields = {field: _first(info.get(field), params.get(field)) for field in MODEL_FIELDS}
    return {"model_name": name, "mode": _first(info.get("mode"), "chat"), **present(**fields)}


def named_model(row: Json) -> Json | None:
    """Return one of ``GET /models`` from a row of ``/models``, or None without a name.

    LiteLLM adds a mode, limits and capabilities to the rows of the OpenAI API.
    """
    name = _first(row.get("id"), row.get("model_name"))
    if not isinstance(name, str) or not name:
        return None
    fields = {field: row.get(field) for field in MODEL_FIELDS}
    return {"model_name": name, "mode": _first(row.get("mode"), "chat"), **present(**fields)}


TEAM_FIELDS = (
    "team_alias",
    "max_budget",
    "budget_duration",
    "spend",
    "members_with_roles",
    "models",
    "tpm_limit",
    "rpm_limit",
    "metadata",
    "object_permission",
    "blocked",
    "team_member_budget",
)
TEAM_LISTS = frozenset({"members_with_roles", "models"})


def team(answer: Any, team_id: str = "") -> Json:
    """Return one of ``GET /teams``.

    Args:
        answer: LiteLLM's ``/team/info``, whose nulls become absent, or a bare
            team row, whose nulls stay.
        team_id: The id that was asked for.
    """
    outer = _object(answer)
    inner = _object(outer.get("team_info"))
    row = {**outer, **present(**inner)}
    fields = {name: row[name] for name in TEAM_FIELDS if name in row}
    for name in TEAM_LISTS & fields.keys():
        fields[name] = _listed_or_none(fields[name])
    named = _first(outer.get("team_id"), inner.get("team_id"))
    return {
        "team_id": named if isinstance(named, str) else team_id,
        **fields,
        "spend": 0 if fields.get("spend") is None else fields["spend"],
    }


def without_budget(answer: Json) -> Json:
    """Return a team without its dollars, its members' included: a percentage and a status instead.

    A team without any dollars has nothing to hide and stays as it is.
    """
    spend = _amount(answer.get("spend"))
    given = {
        name: value
        for name, value in answer.items()
        if name != "spend" and not (value in (None, [], {}) and _tells_dollars(name))
    }
    shown = _without_dollars(given)
    if shown == given and not spend:
        return answer
    budget = answer.get("max_budget")
    if budget is None:
        ratio = 0.0
    else:
        # Of nothing, all is spent.
        ratio = min(max(spend / _amount(budget), 0), 1) if _amount(budget) > 0 else 1.0
    return {
        **shown,
        "spend": 0,
        # Whole: with decimals, who knows their own spend knows the budget.
        "budget_pct": round(round(ratio, 2) * 100),
        "budget_status": "over" if ratio >= 1 else "near" if ratio >= 0.8 else "ok",
        "budget_hidden": True,
    }


def _without_dollars(value: Any) -> Any:
    """Return a part of LiteLLM's row without what is called a budget or a spend, at any depth."""
    if isinstance(value, list):
        return [_without_dollars(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _without_dollars(part) for name, part in value.items() if not _tells_dollars(name)
    }


def _tells_dollars(name: str) -> bool:
    # When a budget is renewed, and which one it is, is no secret.
    named = name.lower()
    return ("budget" in named or "spend" in named) and not named.endswith(
        ("duration", "reset_at", "_id")
    )


def _amount(value: Any) -> float:
    """Return an amount, which LiteLLM may send as a text; 0 where it is none."""
    if isinstance(value, bool):
        return 0.0
    try:
        amount = float(value)
    except (TypeError, ValueError):
        return 0.0
    return amount if math.isfinite(amount) else 0.0


def vector_store(row: Json) -> Json | None:
    """Return one of ``GET /vector-stores``, or None for a row without any name."""
    name = _first(row.get("vector_store_name"), row.get("name"))
    id_ = _first(row.get("vector_store_id"), row.get("id"), name)
    return {"id": id_, **present(name=name)} if isinstance(id_, str) else None


def mcp_server(row: Json) -> Json | None:
    """Return one of ``GET /mcp-servers``, or None for a row without any name."""
    name = _first(row.get("alias"), row.get("name"), row.get("server_name"))
    id_ = _first(row.get("server_id"), row.get("id"), name)
    if not isinstance(id_, str):
        return None
    return {"id": id_, **present(name=name, url=row.get("url"))}


def listed(rows: Iterable[Json | None]) -> list[Json]:
    """Return the rows that are."""
    return [row for row in rows if row is not None]


def _listed_or_none(value: Any) -> list[Any] | None:
    """Return a list as it is, and no list for what is none; the frontend breaks on others."""
    return value if value is None or isinstance(value, list) else []


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
