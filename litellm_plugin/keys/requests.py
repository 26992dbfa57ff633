"""Checks requests for new keys and for changes of keys by one table of fields.

Other fields are refused, because requests go to LiteLLM with the master key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from litellm_plugin import fields
from litellm_plugin.config.settings import LLM_API, KeyGeneration
from litellm_plugin.errors import BadRequest
from litellm_plugin.keys import metadata
from litellm_plugin.shapes import Json

BUDGET = "max_budget (positive number, or null for unlimited)"
LIMITED_BUDGET = "max_budget (positive number)"


@dataclass(slots=True)
class KeyField:
    """One field of a key.

    Attributes:
        name: The name in LiteLLM and in a change.
        read: Checks a value, including null, and returns the value for LiteLLM.
        created_as: The name in a request for a new key; "" for the same.
        hint: The field in the error about missing fields; "" for its name.
        required: Whether a new key must have the field.
        null: Whether a new key may have null; if not, null counts as left out.
        changes: Whether a change may have the field.
        sent: Whether LiteLLM receives the field; if not, it is only checked.
    """

    name: str
    read: fields.Reader
    created_as: str = ""
    hint: str = ""
    _: KW_ONLY
    required: bool = False
    null: bool = True
    changes: bool = True
    sent: bool = True

    def __post_init__(self) -> None:
        self.created_as = self.created_as or self.name
        self.hint = self.hint or self.created_as


def key_fields(settings: KeyGeneration) -> tuple[KeyField, ...]:
    """Return the table of fields; ``litellm.keyGeneration`` makes budget and team required."""
    if settings.allow_unlimited_budget is False:
        budget = KeyField("max_budget", _budget, hint=LIMITED_BUDGET, required=True)
    else:
        budget = KeyField("max_budget", fields.or_null(_budget), hint=BUDGET)
    in_team = bool(settings.team_required)
    return (
        KeyField("key_alias", fields.name, created_as="alias", null=False),
        KeyField("models", fields.texts, null=False),
        budget,
        KeyField("team_id", _own_team if in_team else _team, required=in_team),
        KeyField("duration", fields.or_null(fields.duration)),
        KeyField("budget_duration", fields.or_null(fields.budget_duration)),
        KeyField("tpm_limit", fields.limit),
        KeyField("rpm_limit", fields.limit),
        KeyField("metadata", fields.or_null(metadata.given), changes=False),
        KeyField("key_type", _key_type((LLM_API, *settings.key_types)), changes=False),
        KeyField("user_id", _owner, changes=False),
        # The frontend's version 0.10 sends these two with every key.
        KeyField("auto_rotate", _no_rotation, changes=False, sent=False),
        KeyField("rotation_interval_days", lambda _, __: None, changes=False, sent=False),
    )


def team_key_fields() -> tuple[KeyField, ...]:
    """Return the table of fields of a team key: budget and duration are required.

    ``team_id`` is in the path, there is no ``user_id``, and ``key_type`` is always ``llm_api``.
    """
    others = {"team_id", "user_id", "key_type", "auto_rotate", "rotation_interval_days"}
    duration = KeyField("duration", fields.duration, required=True)
    table = key_fields(KeyGeneration(allow_unlimited_budget=False))
    return tuple(
        duration if field.name == duration.name else field
        for field in table
        if field.name not in others
    )


class KeyFields:
    """Reads requests by a table of fields.

    Args:
        table: What :func:`key_fields` or :func:`team_key_fields` returns.
        budget_filled: Whether a key policy may add a budget to requests without one.
    """

    def __init__(self, table: Iterable[KeyField], *, budget_filled: bool) -> None:
        table = tuple(table)
        self._new = {field.created_as: field for field in table}
        self._changes = {field.name: field for field in table if field.changes}
        self._budget_filled = budget_filled

    def new(self, body: Mapping[str, Any], *, named: bool, service: bool) -> Json:
        """Read a request for a new key; returns the fields for LiteLLM's ``/key/generate``.

        Args:
            body: The request's body.
            named: Whether ``alias`` is required, as for ``POST /keys/generate``.
            service: Whether the caller is a service; ``user_id`` of other callers is ignored.

        Raises:
            BadRequest: A field is missing, wrong or forbidden.
        """
        missing = [
            field.hint
            for field in self._new.values()
            if self._is_missing(field, body, named)
            # POST /keys/generate has always reported a wrong budget as missing.
            or (named and field.name == "max_budget" and _is_wrong(field, body))
        ]
        if missing:  # the error names wrong fields, too
            missing += [
                field.hint
                for field in self._new.values()
                if field.hint not in missing and _is_wrong(field, body)
            ]
        if not (named and "alias" in missing):
            fields.only(body, self._new)
        if missing:
            raise BadRequest("Missing required fields", hint=f"Required: {', '.join(missing)}")
        key: Json = {}
        for name, field in self._new.items():
            if name not in body or (body[name] is None and not field.null):
                continue
            if name == "user_id" and not service:
                continue
            value = field.read(name, body[name])
            if field.sent:
                key[field.name] = value
        return key

    def change(self, body: Mapping[str, Any]) -> Json:
        """Read a change of a key; returns the fields for LiteLLM's ``/key/update``.

        ``key`` in the body is ignored.

        Raises:
            BadRequest: A field is wrong or forbidden.
        """
        fields.only(body, (*self._changes, "key"))
        return {
            name: field.read(name, body[name])
            for name, field in self._changes.items()
            if name in body
        }

    def _is_missing(self, field: KeyField, body: Mapping[str, Any], named: bool) -> bool:
        value = body.get(field.created_as)
        blank = value is None or (isinstance(value, str) and not value.strip())
        if field.name == "key_alias":
            return named and blank
        if field.name == "max_budget":
            filled = self._budget_filled and field.name not in body
            return field.required and value is None and not filled
        return field.required and blank


def refuse_unlimited(key: Json, settings: KeyGeneration) -> None:
    """Refuse a new key without a required budget, once the key policy has filled in fields."""
    if settings.allow_unlimited_budget is False and key.get("max_budget") is None:
        raise BadRequest("Missing required fields", hint=f"Required: {LIMITED_BUDGET}")


def _is_wrong(field: KeyField, body: Mapping[str, Any]) -> bool:
    value = body.get(field.created_as)
    if value is None:
        return False
    try:
        field.read(field.created_as, value)
    except BadRequest:
        return True
    return False


def _budget(name: str, value: Any) -> float:
    if not fields.is_number(value) or value <= 0:
        why = "unlimited is not allowed" if value is None else "it is an amount in USD"
        raise BadRequest(f"{name} must be a positive number: {why}")
    budget: float = value
    return budget


def _team(name: str, value: Any) -> str | None:
    # LiteLLM's versions treat "" differently, so it is sent as null.
    return None if value is None else fields.text(name, value) or None


def _owner(name: str, value: Any) -> str | None:
    # LiteLLM would count all usage of owner "" together.
    return None if value is None else fields.text(name, value).strip() or None


def _own_team(name: str, value: Any) -> str:
    team = _team(name, value)
    if team is None or not team.strip():
        raise BadRequest(f"{name} must name a team: keys outside of a team are not allowed")
    return team


def _key_type(allowed: tuple[str, ...]) -> fields.Reader:
    def read(name: str, value: Any) -> str:
        if value is None:
            return LLM_API
        if value not in allowed:
            raise BadRequest(f"{name} must be {' or '.join(dict.fromkeys(allowed))}")
        return str(value)

    return read


def _no_rotation(name: str, value: Any) -> None:
    if value is not None and value is not False:
        raise BadRequest(
            f"{name} must be false: LiteLLM would replace the key's secret regularly,"
            " without telling its owner"
        )
