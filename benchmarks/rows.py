"""What LiteLLM 1.106 answers, as data: rows with every field the real proxy sends.

Pure. Fields and their types are those of a running LiteLLM, also those that nobody reads: their
weight is part of what both sides have to carry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

Json = dict[str, Any]

NAME = "@NAME@"  # stands for the user, or the team, that is asked about
DIGEST = "@DIGEST-OF-NAME@"  # 16 characters that differ from name to name

CREATED = "2026-06-01T09:36:04.189000Z"
UPDATED = "2026-11-02T09:36:06.099000Z"
RESET = "2027-01-01T00:00:00Z"

CHAT_MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4", "llama-3-8b", "o4-mini", "mistral-large")
NULL_MODEL_FIELDS = 144  # of about 174


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is.

    Attributes:
        keys: Keys of one user.
        teams: Teams of one user.
        team_keys: Keys of one team; ``/user/info`` lists them with each team.
        members: People in one team.
        models: Models of the proxy.
        used_models: Models that a user has used each day.
        used_keys: Keys that a user has used each day, each with every used model.
    """

    keys: int = 5
    teams: int = 5
    team_keys: int = 4
    members: int = 6
    models: int = 6
    used_models: int = 2
    used_keys: int = 2


def key(owner: str | None, digest: str, number: int, team_id: str | None = None) -> Json:
    """Return a virtual key as ``/user/info`` and ``/team/info`` list it.

    Args:
        owner: LiteLLM user id; None for a team's service key.
        digest: 16 characters of its hash.
        number: Tells the keys of one owner apart.
        team_id: The team it belongs to.
    """
    return {
        "token": f"{digest}{number:048x}",
        "key_name": f"sk-...{number:04d}",
        "key_alias": f"{owner or team_id}-{number}",
        "soft_budget_cooldown": False,
        "spend": round(0.0125 * (number + 1), 6),
        "total_spend": round(0.0125 * (number + 1), 6),
        "expires": "2027-02-21T09:36:04.645000+00:00" if number % 2 else None,
        "models": [CHAT_MODELS[number % len(CHAT_MODELS)]] if number % 3 else [],
        "aliases": {},
        "config": {},
        "router_settings": {},
        "user_id": owner,
        "team_id": team_id,
        "agent_id": None,
        "project_id": None,
        "permissions": {},
        "max_parallel_requests": None,
        "metadata": {"purpose": "ci", "created_by_backstage_user": f"user:default/{owner}"},
        "blocked": None,
        "tpm_limit": 10000 if number % 2 else None,
        "rpm_limit": 100 if number % 2 else None,
        "tpd_limit": None,
        "max_budget": 5.0,
        "budget_duration": "30d",
        "budget_reset_at": RESET,
        "allowed_cache_controls": [],
        "allowed_routes": ["llm_api_routes"],
        "key_type": "llm_api",
        "policies": [],
        "access_group_ids": [],
        "model_spend": {},
        "model_max_budget": {},
        "budget_fallbacks": {},
        "budget_id": None,
        "organization_id": None,
        "object_permission_id": None,
        "created_at": CREATED,
        "created_by": "default_user_id",
        "updated_at": UPDATED,
        "updated_by": "default_user_id",
        "settings_updated_at": None,
        "last_active": UPDATED,
        "rotation_count": 0,
        "auto_rotate": False,
        "rotation_interval": None,
        "last_rotation_at": None,
        "key_rotation_at": None,
        "budget_limits": None,
        "litellm_budget_table": None,
        "litellm_organization_table": None,
        "litellm_project_table": None,
        "object_permission": None,
        "jwt_key_mappings": None,
    }


def team(team_id: str, size: Size, *, digest: str = "0" * 16) -> Json:
    """Return a team's own row, as ``/team/new`` answers it and all the others embed it."""
    return {
        "team_alias": f"Team {team_id}",
        "team_id": team_id,
        "organization_id": None,
        "admins": [],
        "members": [],
        "members_with_roles": [
            {"user_id": user, "user_email": user, "role": "user"}
            for user in _members(digest, size.members)
        ],
        "team_member_permissions": [],
        "metadata": {"cost_center": "4711", "owning_group": "group:default/ml"},
        "tpm_limit": None,
        "rpm_limit": None,
        "tpd_limit": None,
        "max_budget": 200.0,
        "soft_budget": None,
        "budget_duration": "30d",
        "budget_limits": None,
        "models": list(CHAT_MODELS[:2]),
        "blocked": False,
        "router_settings": {},
        "access_group_ids": [],
        "default_team_member_models": [],
        "spend": 12.375,
        "max_parallel_requests": None,
        "budget_reset_at": RESET,
        "model_id": None,
        "model_spend": {},
        "model_max_budget": {},
        "policies": [],
        "allow_team_guardrail_config": False,
        "litellm_model_table": None,
        "object_permission": None,
        "object_permission_id": None,
        "updated_at": UPDATED,
        "created_at": CREATED,
    }


def team_with_keys(team_id: str, size: Size, member: str | None = None) -> Json:
    """Return a team as ``/user/info`` and ``/team/list`` list it.

    Args:
        team_id: LiteLLM's id.
        size: How many keys and members.
        member: Whose membership alone is told; None for everybody's.
    """
    members = _members("0" * 16, size.members) if member is None else [member]
    return {
        **team(team_id, size),
        "team_memberships": [_membership(user, team_id) for user in members],
        "keys": [key(None, "f" * 16, number, team_id) for number in range(size.team_keys)],
    }


def team_info(team_id: str, size: Size, *, digest: str) -> Json:
    """Return ``/team/info``."""
    row = team(team_id, size, digest=digest)
    row["members_with_roles"] = [{**who, "user_alias": None} for who in row["members_with_roles"]]
    more = dict.fromkeys(
        (
            "team_member_budget_table",
            "access_group_models",
            "access_group_mcp_server_ids",
            "access_group_agent_ids",
            "access_group_details",
            "organization_models",
        )
    )
    more_set = {"model_max_budget_usage": {}, "caller_edit_access": {"kind": "unrestricted"}}
    return {
        "team_id": team_id,
        "team_info": {**row, **more, **more_set},
        "keys": [key(None, digest, number, team_id) for number in range(size.team_keys)],
        "team_memberships": [
            {**_membership(user, team_id), "budget_source": "none"}
            for user in _members(digest, size.members)
        ],
    }


def team_ids(count: int) -> list[str]:
    """Return the ids of a user's teams; everybody is in the same ones."""
    return [f"team-{number:03d}" for number in range(count)]


def user(user_id: str, teams: Sequence[str]) -> Json:
    """Return a user's own row."""
    return {
        "verified_subjects": None,
        "user_id": user_id,
        "user_alias": "Some Body",
        "team_id": None,
        "sso_user_id": None,
        "organization_id": None,
        "object_permission_id": None,
        "password_reset_required": None,
        "last_breach_check_at": None,
        "teams": list(teams),
        "user_role": "internal_user",
        "max_budget": 20.0,
        "spend": 3.25,
        "user_email": user_id,
        "models": [],
        "metadata": {"provisioned_by": "backstage"},
        "max_parallel_requests": None,
        "tpm_limit": 10000,
        "rpm_limit": 100,
        "budget_duration": "30d",
        "budget_reset_at": RESET,
        "allowed_cache_controls": [],
        "policies": [],
        "model_spend": {},
        "model_max_budget": {},
        "created_at": CREATED,
        "updated_at": UPDATED,
        "litellm_organization_table": None,
        "organization_memberships": [],
        "invitations_created": None,
        "invitations_updated": None,
        "invitations_user": None,
        "object_permission": None,
        "model_max_budget_usage": {},
    }


def user_info(size: Size) -> Json:
    """Return ``/user/info`` of :data:`NAME`."""
    teams = team_ids(size.teams)
    return {
        "user_id": NAME,
        "user_info": user(NAME, teams),
        "keys": [
            {**key(NAME, DIGEST, number), "team_alias": "None"} for number in range(size.keys)
        ],
        "teams": [team_with_keys(team_id, size, NAME) for team_id in teams],
    }


USER_ALONE = (
    *("user_id", "user_email", "user_alias", "user_role", "spend", "max_budget", "tpm_limit"),
    *("rpm_limit", "models", "budget_duration", "budget_reset_at", "metadata", "created_at"),
    *("updated_at", "sso_user_id", "teams", "object_permission", "model_max_budget"),
    "model_max_budget_usage",
)
NULL_LISTED_KEY_FIELDS = 48  # of ``/key/list``, beyond those of ``/user/info``


def user_alone(size: Size) -> Json:
    """Return ``/v2/user/info`` of :data:`NAME`."""
    row = user(NAME, team_ids(size.teams))
    return {name: row[name] for name in USER_ALONE}


def keys_page(size: Size, page: int, page_size: int) -> Json:
    """Return a page of ``/key/list`` of :data:`NAME`, the oldest first."""
    more = dict.fromkeys(f"team_or_user_field_{number}" for number in range(NULL_LISTED_KEY_FIELDS))
    first = (page - 1) * page_size
    numbers = range(first, min(first + page_size, size.keys))
    return {
        "keys": [{**key(NAME, DIGEST, number), **more} for number in numbers],
        "total_count": size.keys,
        "current_page": page,
        "total_pages": -(-size.keys // page_size),
    }


def teams_alone(size: Size) -> Json:
    """Return the only page of ``/v2/team/list`` of :data:`NAME`, the newest first."""
    counts = {"members_count": size.members, "keys_count": size.team_keys}
    rows = [{**team(team_id, size), **counts} for team_id in reversed(team_ids(size.teams))]
    return {
        "teams": rows,
        "total": size.teams,
        "page": 1,
        "page_size": 100,
        "total_pages": int(bool(rows)),
    }


def created_user(user_id: str) -> Json:
    """Return what ``/user/new`` answers: about 60 fields, most of them null."""
    nulls = {name: None for name in key(None, "", 0) if name not in {"models", "metadata"}}
    known = {"user_id": user_id, "user_email": user_id, "user_role": "internal_user"}
    return {**nulls, "models": [], "spend": 0.0, "metadata": {}, "key": "", **known}


def models(count: int) -> list[Json]:
    """Return the rows of ``/model/info``."""
    return [_model(f"{CHAT_MODELS[n % len(CHAT_MODELS)]}{_suffix(n)}") for n in range(count)]


def model_names(count: int) -> list[Json]:
    """Return the rows of ``/models``."""
    return [
        {
            "id": row["model_name"],
            "object": "model",
            "created": 1677610602,
            "owned_by": "openai",
            "mode": "chat",
            "max_input_tokens": 128000,
            "max_output_tokens": 16384,
        }
        for row in models(count)
    ]


def activity_rows(start: date, end: date, size: Size) -> list[tuple[str, str, int]]:
    """Return what a page of daily activity is a page of: date, model and key, newest first."""
    days = (end - start).days + 1
    return [
        ((end - timedelta(days=day)).isoformat(), CHAT_MODELS[model % len(CHAT_MODELS)], number)
        for day in range(days)
        for model in range(size.used_models)
        for number in range(size.used_keys)
    ]


def activity(rows: Sequence[tuple[str, str, int]], page: int | None = None, pages: int = 1) -> Json:
    """Return ``…/daily/activity`` of :data:`NAME`.

    Args:
        rows: Those of this page.
        page: Its number from 1; None for the aggregated answer, which has no pages.
        pages: How many there are.
    """
    days: dict[str, list[tuple[str, int]]] = {}
    for day, model, number in rows:
        days.setdefault(day, []).append((model, number))
    totals = {f"total_{name}": value for name, value in _metrics(len(rows)).items()}
    paging = {"page": page or 1, "total_pages": pages, "has_more": (page or 1) < pages}
    limits: Json = {"api_key_limit": None, "total_api_keys": None, "entity_total_api_keys": None}
    if page is None:
        limits["api_key_limit"] = 100
    totals.pop("total_total_tokens", None)
    return {
        "results": [_day(day, used) for day, used in days.items()],
        "metadata": {**totals, "total_tokens": 637 * len(rows), **paging, **limits},
    }


VECTOR_STORE: Json = {
    "vector_store_id": "vs-rig-docs",
    "custom_llm_provider": "openai",
    "vector_store_name": "Docs",
    "vector_store_description": "Documents",
    "vector_store_metadata": None,
    "created_at": CREATED,
    "updated_at": UPDATED,
    "litellm_credential_name": None,
    "litellm_params": {},
    "team_id": None,
    "user_id": "default_user_id",
    "is_config": False,
}

MCP_SERVER: Json = {
    "server_id": "rig_tools",
    "is_config": False,
    "server_name": "rig_tools",
    "alias": "rig_tools",
    "description": "Tools",
    "url": "http://127.0.0.1:9/mcp",
    "transport": "http",
    "auth_type": None,
    "created_at": CREATED,
    "created_by": None,
    "updated_at": UPDATED,
    "updated_by": None,
    "teams": [],
    "mcp_access_groups": [],
    "allowed_tools": [],
    "extra_headers": [],
    "mcp_info": {"server_name": "rig_tools", "description": "Tools", "is_public": False},
    "args": [],
    "env": {},
    "allow_all_keys": False,
    "approval_status": "active",
}


def _membership(user_id: str, team_id: str) -> Json:
    return {
        "user_id": user_id,
        "team_id": team_id,
        "budget_id": None,
        "spend": 0.0,
        "total_spend": 0.0,
        "litellm_budget_table": None,
    }


def _members(digest: str, count: int) -> list[str]:
    return [f"colleague-{digest[:4]}-{number}@example.com" for number in range(count)]


def _suffix(number: int) -> str:
    again = number // len(CHAT_MODELS)
    return f"-v{again + 1}" if again else ""


def _model(name: str) -> Json:
    nulls = {f"input_cost_per_token_above_{n:03d}k_tokens": None for n in range(NULL_MODEL_FIELDS)}
    return {
        "model_name": name,
        "litellm_params": {
            "allow_client_keepalive_override": False,
            "use_in_pass_through": False,
            "use_litellm_proxy": False,
            "use_xai_oauth": False,
            "merge_reasoning_content_in_choices": False,
            "model": f"openai/{name}",
        },
        "model_info": {
            "id": f"rig-{name}",
            "db_model": False,
            "member_auto_router": False,
            "key": name,
            "mode": "chat",
            "max_tokens": 16384,
            "max_input_tokens": 128000,
            "max_output_tokens": 16384,
            "input_cost_per_token": 2.5e-06,
            "output_cost_per_token": 1e-05,
            "input_cost_per_token_priority": 4.25e-06,
            "cache_read_input_token_cost": 1.25e-06,
            "litellm_provider": "openai",
            "supports_vision": True,
            "supports_function_calling": True,
            "supports_system_messages": True,
            "supports_response_schema": True,
            "supports_parallel_function_calling": True,
            "supports_tool_choice": True,
            "supports_prompt_caching": True,
            "supports_pdf_input": True,
            "access_groups": ["premium"],
            "access_via_team_ids": ["team-000", "team-001"],
            "direct_access": True,
            "pricing_overrides": ["input_cost_per_token", "output_cost_per_token"],
            "supported_openai_params": ["frequency_penalty", "logit_bias", "max_tokens", "stop"],
            **nulls,
        },
    }


def _metrics(times: int) -> Json:
    return {
        "spend": round(0.00299965 * times, 8),
        "flat_cost": 0.0,
        "prompt_tokens": 257 * times,
        "completion_tokens": 380 * times,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "compression_saved_tokens": 0,
        "compression_savings_spend": 0.0,
        "prompt_caching_savings_spend": 0.0,
        "gateway_injected_caching_savings_spend": 0.0,
        "autorouter_savings_spend": 0.0,
        "total_tokens": 637 * times,
        "successful_requests": 19 * times,
        "failed_requests": 0,
        "api_requests": 19 * times,
        "total_response_time_ms": 27 * times,
        "timed_requests": 19 * times,
    }


def _day(day: str, used: Sequence[tuple[str, int]]) -> Json:
    everything = [number for _, number in used]
    by_model: dict[str, list[int]] = {}
    for model, number in used:
        by_model.setdefault(model, []).append(number)
    return {
        "date": day,
        "metrics": _metrics(len(used)),
        "breakdown": {
            "mcp_servers": {},
            "models": {f"openai/{name}": _broken_down(keys) for name, keys in by_model.items()},
            "model_groups": {name: _broken_down(keys) for name, keys in by_model.items()},
            "providers": {"openai": _broken_down(everything)},
            "endpoints": {"/chat/completions": _broken_down(everything)},
            "api_keys": _by_key(everything),
            "entities": {
                NAME: {
                    **_broken_down(everything),
                    "metadata": {"user_email": NAME, "user_alias": "Some Body"},
                }
            },
        },
    }


def _broken_down(keys: Sequence[int]) -> Json:
    return {
        "metrics": _metrics(len(keys)),
        "metadata": {},
        "api_key_breakdown": _by_key(keys),
    }


def _by_key(keys: Sequence[int]) -> Json:
    return {
        f"{DIGEST}{number:048x}": {
            "metrics": _metrics(keys.count(number)),
            "metadata": {
                "key_alias": f"{NAME}-{number}",
                "team_id": None,
                "user_id": NAME,
                "user_email": NAME,
                "key_exists": True,
            },
        }
        for number in dict.fromkeys(keys)
    }
