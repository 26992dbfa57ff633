"""LiteLLM's error bodies, and the validation of its requests.

Similar endpoints of LiteLLM use different shapes for the same error; the functions here are
named after the shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

Json = dict[str, Any]


class RefusedError(Exception):
    """An error answer.

    Attributes:
        status: HTTP status.
        body: The JSON body.
    """

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


def proxy_error(
    status: int, message: str, *, kind: str = "internal_server_error", param: str | None = None
) -> RefusedError:
    """Return ``{"error": {"message", "type", "param", "code"}}``; the code is a string."""
    error = {"message": message, "type": kind, "param": param, "code": str(status)}
    return RefusedError(status, {"error": error})


def printed_error(status: int, text: str, **fields: Any) -> RefusedError:
    """Return a ``proxy_error`` whose message is a printed Python dict."""
    return proxy_error(status, str({"error": text}), **fields)


def detail(status: int, text: str) -> RefusedError:
    """Return ``{"detail": {"error": text}}``."""
    return RefusedError(status, {"detail": {"error": text}})


def invalid(place: Iterable[str | int], kind: str, message: str) -> RefusedError:
    """Return ``{"detail": [{"type", "loc", "msg"}]}`` with status 422."""
    return RefusedError(422, {"detail": [{"type": kind, "loc": list(place), "msg": message}]})


_FIELDS: dict[Any, tuple[str, ...]] = {
    float: ("max_budget", "max_budget_in_team", "reset_to", "spend"),
    int: ("tpm_limit", "rpm_limit", "max_parallel_requests"),
    list[str]: ("models", "teams", "keys", "team_ids"),
    dict[str, Any]: ("metadata", "object_permission"),
    bool: ("blocked", "auto_create_key"),
    str: (
        *("user_id", "user_email", "user_alias", "user_role", "team_id", "team_alias"),
        *("key", "key_alias", "key_type", "duration", "budget_duration"),
    ),
}
_ADAPTERS = {name: TypeAdapter(kind) for kind, names in _FIELDS.items() for name in names}


def _valid(adapter: TypeAdapter[Any], value: Any, *place: str) -> Any:
    # LiteLLM validates with pydantic, too, and answers with pydantic's errors.
    try:
        return adapter.validate_python(value)
    except ValidationError as exc:
        first = exc.errors()[0]
        raise invalid([*place, *first["loc"]], first["type"], first["msg"]) from None


def checked(body: Mapping[str, Any], *required: str) -> Json:
    """Return the known fields of ``body``, with numbers converted.

    Raises:
        RefusedError: 422; a field has the wrong type, or a required field is missing.
    """
    for name in required:
        if name not in body:
            raise invalid(["body", name], "missing", "Field required")
    return {
        name: value if value is None else _valid(_ADAPTERS[name], value, "body", name)
        for name, value in body.items()
        if name in _ADAPTERS
    }


@cache
def _from_1(most: int | None) -> TypeAdapter[Any]:
    return TypeAdapter(Annotated[int, Field(ge=1, le=most)])


def whole_number(query: Mapping[str, str], name: str, default: int, most: int | None = None) -> int:
    """Return a paging parameter of the query, from 1 to ``most``."""
    value: int = _valid(_from_1(most), query.get(name, default), "query", name)
    return value


def dates(query: Mapping[str, str]) -> tuple[date, date]:
    """Return the first and the last day of a query."""
    invalid_dates = detail(400, "start_date and end_date must be valid YYYY-MM-DD dates")
    texts = query["start_date"], query["end_date"]
    if not all(re.fullmatch(r"\d{4}-\d\d-\d\d", text) for text in texts):
        raise invalid_dates
    try:
        return date.fromisoformat(texts[0]), date.fromisoformat(texts[1])
    except ValueError:
        raise invalid_dates from None
