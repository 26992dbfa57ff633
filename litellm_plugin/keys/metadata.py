"""A key's metadata: for notes of its owner, and in LiteLLM's eyes for much more.

LiteLLM keeps settings there that ``/key/generate`` has fields for, and reads them with
each call: they raise the key's budget, lift limits and guardrails, or have what is asked
and answered sent to an address. Who may not set the field may not write it here either.
"""

from __future__ import annotations

from typing import Any

from litellm_plugin import fields
from litellm_plugin.errors import BadRequest
from litellm_plugin.shapes import Json

# What says whose key it is; a caller must not write it themselves.
OWNERSHIP = ("created_by", "created_via", "created_at_iso", "backstage_")

# What LiteLLM 1.106 reads in the metadata of a key and acts on: the lists
# LiteLLM_*MetadataFields* of litellm/proxy/_types.py, and what is read elsewhere in
# litellm/proxy. Not "tags", "cache" and "spend_logs_metadata": any call may bring its own.
SETTINGS = frozenset(
    {
        "agent_id",
        "batch_enqueued_token_limit",
        "billing_agent_id",
        "callback_settings",
        "enable_prompt_caching",
        "end_user_budget_id",
        "global_max_parallel_requests",
        "guardrails",
        "logging",
        "max_budget_alert_emails",
        "max_file_downloads_per_minute",
        "max_iterations",
        "mcp_rpm_limit",
        "model_config",
        "model_itpm_limit",
        "model_max_budget",
        "model_otpm_limit",
        "model_rpm_limit",
        "model_tpm_limit",
        "opted_out_global_guardrails",
        "password_reset_required",
        "policies",
        "priority",
        "prompts",
        "rpm_limit_type",
        "secret_manager_settings",
        "service_account_id",
        "soft_budget_alerting_emails",
        "tag_rpm_limit",
        "throttle_on_budget_exceeded",
        "tpm_limit_type",
        "turn_off_message_logging",
        "zguard_policy_id",
    }
)
# Families of them, which grow with its versions: allow_client_pricing_override lets a call
# say what it costs, allow_client_mock_response that it is none.
FAMILIES = (
    "_",
    "allow_",
    "allowed_",
    "default_estimated_",
    "denied_",
    "disable_",
    "enforced_",
    "litellm_",
    "max_batch_",
    "scim_",
    "team_member_",
    "temp_budget_",
    "user_api_key",
)

# Older versions put the value of that variable, such as the master key, in its place.
_REFERENCE = "os.environ/"


def given(name: str, value: Any) -> Json:
    """Return what a caller may write: all but whose key it is, which is left out.

    Raises:
        BadRequest: It is no object, or has what LiteLLM would act on.
    """
    written = fields.metadata(name, value)
    settings = sorted(key for key in written if key in SETTINGS or key.startswith(FAMILIES))
    if settings:
        names = ", ".join(f'"{name}.{key[: fields.MAX_TEXT]}"' for key in settings[:10])
        raise BadRequest(f"Unknown or forbidden field: {names}")
    if _refers(written):
        raise BadRequest(f'{name} must not refer to the environment ("{_REFERENCE}")')
    return {key: item for key, item in written.items() if not key.startswith(OWNERSHIP)}


def _refers(value: Any) -> bool:
    if isinstance(value, str):
        return _REFERENCE in value
    if isinstance(value, dict):
        return any(_refers(key) or _refers(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_refers, value))
