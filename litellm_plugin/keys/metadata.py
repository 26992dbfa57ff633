"""The metadata of keys: which fields callers may write, and what this service records.

LiteLLM reads settings from a key's metadata and applies them to each call: they raise the key's
budget, lift limits and guardrails, or send prompts and answers to an address. Callers may write
none of these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litellm_plugin import fields
from litellm_plugin.clock import moment
from litellm_plugin.errors import BadRequest
from litellm_plugin.shapes import BRIDGE_KEY, ROTATION, Json, as_object, first, present

# Prefixes of the fields in which this service records who created a key, how keys were rotated
# (``shapes.ROTATION``), and which tool has a key (``shapes.BRIDGE_KEY``); dropped from requests.
OWNERSHIP = ("created_by", "created_via", "created_at_iso", "backstage_")

# Settings that LiteLLM 1.106 reads from a key's metadata: the lists LiteLLM_*MetadataFields*
# of litellm/proxy/_types.py, and others in litellm/proxy. "tags", "cache" and
# "spend_logs_metadata" are allowed: any call may send its own.
SETTINGS = frozenset(
    {
        *("agent_id", "batch_enqueued_token_limit", "billing_agent_id", "callback_settings"),
        *("enable_prompt_caching", "end_user_budget_id", "global_max_parallel_requests"),
        *("guardrails", "logging", "max_budget_alert_emails", "max_file_downloads_per_minute"),
        *("max_iterations", "mcp_rpm_limit", "model_config", "model_itpm_limit"),
        *("model_max_budget", "model_otpm_limit", "model_rpm_limit", "model_tpm_limit"),
        *("opted_out_global_guardrails", "password_reset_required", "policies", "priority"),
        *("prompts", "rpm_limit_type", "secret_manager_settings", "service_account_id"),
        *("soft_budget_alerting_emails", "tag_rpm_limit", "throttle_on_budget_exceeded"),
        *("tpm_limit_type", "turn_off_message_logging", "zguard_policy_id"),
    }
)
# Prefixes, because new versions of LiteLLM add settings: allow_client_pricing_override lets a
# call set its own price, allow_client_mock_response its own answer.
FAMILIES = (
    *("_", "allow_", "allowed_", "default_estimated_", "denied_", "disable_", "enforced_"),
    *("litellm_", "max_batch_", "scim_", "team_member_", "temp_budget_", "user_api_key"),
)

MAX_GRACE = "7d"  # of a rotated key

# Older LiteLLMs replace such a reference by the environment variable's value.
_REFERENCE = "os.environ/"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")  # of a tool or a machine; LiteLLM's aliases may have it


def given(name: str, value: Any) -> Json:
    """Check the metadata of a request; return it without fields that record the creator.

    Raises:
        BadRequest: The value is no object, or has a setting of LiteLLM or ``os.environ/``.
    """
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object")
    settings = sorted(key for key in value if key in SETTINGS or key.startswith(FAMILIES))
    if settings:
        names = ", ".join(f'"{name}.{key[: fields.MAX_TEXT]}"' for key in settings[:10])
        raise BadRequest(f"Unknown or forbidden field: {names}")
    if _refers(value):
        raise BadRequest(f'{name} must not refer to the environment ("{_REFERENCE}")')
    return {key: item for key, item in value.items() if not key.startswith(OWNERSHIP)}


def _refers(value: Any) -> bool:
    if isinstance(value, str):
        return _REFERENCE in value
    if isinstance(value, dict):
        return any(_refers(key) or _refers(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_refers, value))


@dataclass(frozen=True, slots=True)
class Mark:
    """The record of rotations in a key's metadata, in the field ``shapes.ROTATION``.

    Attributes:
        replaces: Hashes of the keys before this one, the last one first; () for a key that was
            not made by a rotation.
        alias: The alias that this key gets at the end of the rotation.
        request: Digest of the request's ``Idempotency-Key``, if any.
        delivered: Whether the key's secret was handed out.
        replaced: ``alias`` and ``expires`` that this key had before it was rotated, and
            ``until``, the end of its grace; None for a key that was not rotated.
        grace: The requested grace of the key before this one.
    """

    replaces: tuple[str, ...] = ()
    alias: str | None = None
    request: str | None = None
    delivered: bool = False
    replaced: Mapping[str, Any] | None = None
    grace: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Mark:
        """Read the mark of a key from LiteLLM's row; a malformed mark counts as none.

        An owner may have written it with another key, of LiteLLM's type ``management``.
        """
        kept = as_object(row.get("metadata")).get(ROTATION)
        if kept is None or is_malformed(kept):
            return cls()
        replaced = kept.get("replaced")
        return cls(
            tuple(kept.get("replaces") or ()),
            kept.get("alias"),
            kept.get("request"),
            kept.get("delivered") is True,
            None if replaced is None else dict.fromkeys(("alias", "expires", "until")) | replaced,
            kept.get("grace"),
        )

    def as_json(self) -> Json:
        """Return the mark for a key's metadata."""
        known = present(
            alias=self.alias, request=self.request, replaced=self.replaced, grace=self.grace
        )
        return {"replaces": list(self.replaces), "delivered": self.delivered, **known}


def is_malformed(mark: Any) -> bool:
    """Tell whether the metadata field ``shapes.ROTATION`` is not as :class:`Mark` writes it."""
    if not isinstance(mark, dict):
        return True
    replaces, replaced = first(mark.get("replaces"), []), first(mark.get("replaced"), {})
    if not isinstance(replaces, list) or not isinstance(replaced, dict):
        return True
    texts = present(alias=mark.get("alias"), request=mark.get("request"), was=replaced.get("alias"))
    times = present(expires=replaced.get("expires"), until=replaced.get("until"))
    grace = fields.seconds(first(mark.get("grace"), "0s"))
    return not (
        all(isinstance(text, str) for text in (*replaces, *texts.values()))
        and all(moment(time) is not None for time in times.values())
        and grace is not None
        and grace <= (fields.seconds(MAX_GRACE) or 0)
    )


@dataclass(frozen=True, slots=True)
class Tool:
    """A program on a person's machine that has a key of the bridge.

    A key of the bridge records it in the metadata field ``shapes.BRIDGE_KEY``, which is empty for
    a key without a tool.
    """

    name: str
    machine: str

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Tool | None:
        """Read ``tool`` and ``machine`` of a request; None where it has neither.

        Raises:
            BadRequest: One of them is missing or no such name.
        """
        names = ("tool", "machine")
        if all(body.get(name) is None for name in names):
            return None
        for name in names:
            value = body.get(name)
            if not isinstance(value, str) or not _NAME.fullmatch(value):
                raise BadRequest(
                    f"{name} must be 1 to 64 letters, digits, dots, underscores and hyphens;"
                    " tool and machine belong together"
                )
        return cls(body["tool"], body["machine"])

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Tool | None:
        """Return the tool of a key by LiteLLM's row; None for another key."""
        kept = as_object(as_object(row.get("metadata")).get(BRIDGE_KEY))
        name, machine = kept.get("tool"), kept.get("machine")
        if not isinstance(name, str) or not isinstance(machine, str):
            return None
        return cls(name, machine)


def is_of_bridge(row: Mapping[str, Any]) -> bool:
    """Tell whether the bridge made a key while ``litellm.bridge.keys`` was set."""
    return BRIDGE_KEY in as_object(row.get("metadata"))
