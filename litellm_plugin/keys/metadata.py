"""The metadata of keys: which fields callers may write, and what this service records.

LiteLLM reads settings from a key's metadata and applies them to each call: they raise the key's
budget, lift limits and guardrails, or send prompts and answers to an address. Callers may write
none of these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from litellm_plugin import fields
from litellm_plugin.clock import moment
from litellm_plugin.errors import BadRequest
from litellm_plugin.shapes import BRIDGE_KEY, ROTATION, TEAM_KEY, Json, as_object, first, present

# Prefixes of the fields that this service writes: who created the key, and ``ROTATION``,
# ``BRIDGE_KEY`` and ``TEAM_KEY`` of ``shapes``. Such fields are dropped from requests.
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

# Name of a tool or a machine. LiteLLM allows these characters in aliases.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def given(name: str, value: Any) -> Json:
    """Check the metadata of a request; return it without the fields that this service writes.

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
class RotationRecord:
    """What a key's metadata says about rotations, in the field ``shapes.ROTATION``.

    Attributes:
        replaces: Hashes of the keys before this one, the last one first; () for a key that was
            not made by a rotation.
        alias: The alias that this key gets at the end of the rotation.
        request: Digest of the request's ``Idempotency-Key``, if any.
        delivered: Whether the key's secret was sent to the client.
        replaced: ``alias`` and ``expires`` that this key had before it was rotated, and
            ``until``, the end of its grace; None for a key that was not rotated.
        grace: The requested grace of the key before this one, such as ``24h``.
    """

    replaces: tuple[str, ...] = ()
    alias: str | None = None
    request: str | None = None
    delivered: bool = False
    replaced: Mapping[str, Any] | None = None
    grace: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> RotationRecord:
        """Read a key's record from LiteLLM's row; empty where there is none or a malformed one.

        An owner can forge the record, with a key of LiteLLM's type ``management``.
        """
        found = as_object(row.get("metadata")).get(ROTATION)
        if found is None or is_malformed(found):
            return cls()
        replaced = found.get("replaced")
        return cls(
            tuple(found.get("replaces") or ()),
            found.get("alias"),
            found.get("request"),
            found.get("delivered") is True,
            None if replaced is None else dict.fromkeys(("alias", "expires", "until")) | replaced,
            found.get("grace"),
        )

    def as_json(self) -> Json:
        """Return the value of ``shapes.ROTATION``."""
        return present(**asdict(self)) | {"replaces": list(self.replaces)}


def is_malformed(value: Any) -> bool:
    """Tell whether the value of ``shapes.ROTATION`` was not written by this service."""
    if not isinstance(value, dict):
        return True
    replaces, replaced = first(value.get("replaces"), []), first(value.get("replaced"), {})
    if not isinstance(replaces, list) or not isinstance(replaced, dict):
        return True
    texts = (value.get("alias"), value.get("request"), replaced.get("alias"))
    times = (replaced.get("expires"), replaced.get("until"))
    return not (
        all(isinstance(token, str) for token in replaces)
        and all(text is None or isinstance(text, str) for text in texts)
        and all(time is None or moment(time) is not None for time in times)
        and fields.is_within(first(value.get("grace"), "0s"), MAX_GRACE)
    )


@dataclass(frozen=True, slots=True)
class Tool:
    """A program on one machine, which has a key of its own for each person: a tool key.

    The key's metadata has both names in the field ``shapes.BRIDGE_KEY``.
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
        """Return the tool of a key from LiteLLM's row; None where it is no tool key."""
        found = as_object(as_object(row.get("metadata")).get(BRIDGE_KEY))
        name, machine = found.get("tool"), found.get("machine")
        if not isinstance(name, str) or not isinstance(machine, str):
            return None
        return cls(name, machine)

    def as_json(self) -> Json:
        """Return the value of ``shapes.BRIDGE_KEY``."""
        return {"tool": self.name, "machine": self.machine}


def is_bridge_key(row: Mapping[str, Any]) -> bool:
    """Tell whether the bridge made a key while ``litellm.bridge.keys`` was set."""
    return BRIDGE_KEY in as_object(row.get("metadata"))


def is_team_key(row: Mapping[str, Any]) -> bool:
    """Tell whether this service made a key that belongs to a team, not to a person."""
    return not row.get("user_id") and as_object(row.get("metadata")).get(TEAM_KEY) is True
