"""LiteLLM's audit log, and the preview of provisioning, both for the audit group.

With ``litellm.audit.store``, :mod:`litellm_plugin.audit.reader` returns the pages instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.config.settings import Provisioning
from litellm_plugin.errors import BadRequest, UpstreamError
from litellm_plugin.shapes import present

TIMES = ("start_date", "end_date")
EQUAL = ("action", "table_name", "changed_by")
FILTERS = (*TIMES, *EQUAL)
PAGE_SIZE = 25
MAX_PAGE_SIZE = 100  # LiteLLM's
TOO_MANY = f"page_size must be at most {MAX_PAGE_SIZE}"
NO_ROLES = "No litellm.provisioning.roles configured — every group receives the base defaults."


def page(litellm: LiteLLM, query: Mapping[str, str]) -> Any:
    """Return a page of the audit log, by ``page``, ``page_size`` and :data:`FILTERS`.

    Raises:
        BadRequest: ``page`` or ``page_size`` is not a positive number, or LiteLLM refused a value.
    """
    asked = {"page_size": positive("page_size", query.get("page_size") or str(PAGE_SIZE))}
    if query.get("page"):
        asked["page"] = positive("page", query["page"])
    asked |= {name: query[name] for name in FILTERS if query.get(name)}
    try:
        return litellm.audit_log(asked)
    except UpstreamError as exc:
        # LiteLLM decides what is valid, so values are checked only after a refusal.
        if exc.answered is not None and (fault := _fault(asked)):
            raise BadRequest(fault) from exc
        raise


def preview(provisioning: Provisioning, group: str) -> Json:
    """Return the account that the first visit of a user with this group alone would create."""
    role = provisioning.role_for(frozenset({group}))
    gets = provisioning.for_groups(frozenset({group}))
    return {
        "group": group,
        "matched_role": role.group if role else None,
        "effective_defaults": {
            "maxBudget": gets.max_budget,
            "budgetDuration": gets.budget_duration,
            "models": list(gets.models),
            "teams": list(gets.teams),
            **present(tpmLimit=gets.tpm_limit, rpmLimit=gets.rpm_limit),
            "userRole": gets.user_role,
            "metadata": dict(gets.metadata),
        },
        **({} if provisioning.roles else {"note": NO_ROLES}),
    }


def _fault(asked: Mapping[str, str]) -> str | None:
    """Return the error about a value that LiteLLM 1.106 refuses; None where all are valid."""
    if int(asked["page_size"]) > MAX_PAGE_SIZE:
        return TOO_MANY
    for name in TIMES:
        if name in asked and (fault := time_fault(name, asked[name])):
            return fault
    return None


def time_fault(name: str, text: str) -> str | None:
    """Return the error for a text that is no time with an offset; None for a valid time."""
    try:
        if datetime.fromisoformat(text).tzinfo is not None:
            return None
    except ValueError:
        pass
    return f"{name} must be a time with its offset, such as 2026-11-01T00:00:00Z"


def positive(name: str, value: str) -> str:
    """Check that a text is a whole number from 1, and return it.

    Raises:
        BadRequest: The text is no such number.
    """
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 0):
        raise BadRequest(f"{name} must be a whole number from 1")
    return value
