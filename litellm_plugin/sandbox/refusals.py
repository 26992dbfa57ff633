"""LiteLLM's error bodies, and the validation of its requests.

Similar endpoints of LiteLLM use different shapes for the same error; the functions here are
named after the shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

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


def _number(place: list[str | int], value: Any) -> float:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            message = "Input should be a valid number, unable to parse string as a number"
            raise invalid(place, "float_parsing", message) from None
    if isinstance(value, int | float):
        return float(value)
    raise invalid(place, "float_type", "Input should be a valid number")


def _integer(place: list[str | int], value: Any) -> int:
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value.strip()):
        return int(value)
    if isinstance(value, str):
        message = "Input should be a valid integer, unable to parse string as an integer"
        raise invalid(place, "int_parsing", message)
    raise invalid(place, "int_type", "Input should be a valid integer")


def _of_type(wanted: type, kind: str, name: str) -> Callable[[list[str | int], Any], Any]:
    def check(place: list[str | int], value: Any) -> Any:
        if not isinstance(value, wanted):
            raise invalid(place, kind, f"Input should be a valid {name}")
        return value

    return check


_text = _of_type(str, "string_type", "string")
_object = _of_type(dict, "dict_type", "dictionary")
_flag = _of_type(bool, "bool_type", "boolean")


def _texts(place: list[str | int], value: Any) -> list[str]:
    if not isinstance(value, list):
        raise invalid(place, "list_type", "Input should be a valid list")
    return [_text([*place, index], item) for index, item in enumerate(value)]


_CHECKS: dict[str, Callable[[list[str | int], Any], Any]] = {
    **dict.fromkeys(("max_budget", "max_budget_in_team", "reset_to"), _number),
    **dict.fromkeys(("tpm_limit", "rpm_limit", "max_parallel_requests"), _integer),
    **dict.fromkeys(("models", "teams", "keys", "team_ids"), _texts),
    **dict.fromkeys(("metadata", "object_permission"), _object),
    **dict.fromkeys(("blocked", "auto_create_key"), _flag),
    **dict.fromkeys(("user_id", "user_email", "user_alias", "user_role"), _text),
    **dict.fromkeys(("team_id", "team_alias", "key", "key_alias", "key_type"), _text),
    **dict.fromkeys(("duration", "budget_duration"), _text),
}


def checked(body: Mapping[str, Any], *required: str) -> Json:
    """Return the known fields of ``body``, with numbers converted.

    Raises:
        RefusedError: 422; a field has the wrong type, or a required field is missing.
    """
    for name in required:
        if name not in body:
            raise invalid(["body", name], "missing", "Field required")
    return {
        name: value if value is None else _CHECKS[name](["body", name], value)
        for name, value in body.items()
        if name in _CHECKS
    }


def whole_number(query: Mapping[str, str], name: str, default: int, most: int | None = None) -> int:
    """Return a paging parameter of the query, from 1 to ``most``."""
    place: list[str | int] = ["query", name]
    value = _integer(place, query[name]) if name in query else default
    if value < 1:
        bound = "Input should be greater than or equal to 1"
        raise invalid(place, "greater_than_equal", bound)
    if most is not None and value > most:
        bound = f"Input should be less than or equal to {most}"
        raise invalid(place, "less_than_equal", bound)
    return value


def dates(query: Mapping[str, str]) -> tuple[date, date]:
    """Return the first and the last day of a query."""
    texts = [query.get(name) or "" for name in ("start_date", "end_date")]
    if not all(texts):
        raise detail(400, "Please provide start_date and end_date")
    if not all(re.fullmatch(r"\d{4}-\d\d-\d\d", text) for text in texts):
        raise detail(400, "start_date and end_date must be valid YYYY-MM-DD dates")
    try:
        return date.fromisoformat(texts[0]), date.fromisoformat(texts[1])
    except ValueError:
        raise detail(400, "start_date and end_date must be valid YYYY-MM-DD dates") from None
