"""Short-lived keys of the bridge, where ``litellm.bridge.keys`` is set.

A person has one tool key for each tool and machine. A new one replaces the old one, which is
deleted after the response with the new key was sent, so that the person always has a working key.
If the response can't be sent, the new key is deleted instead. A worker that is killed in between
leaves both keys: the next request replaces them, else they expire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

from litellm_plugin import fields
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients import deadline
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.clock import Clock, moment
from litellm_plugin.config.settings import BridgeKeys
from litellm_plugin.errors import BadRequest, UpstreamError
from litellm_plugin.keys.metadata import Tool
from litellm_plugin.keys.policy import Policy, bridge_policy, combined
from litellm_plugin.keys.service import KeyOwner, Keys
from litellm_plugin.observability import journal
from litellm_plugin.shapes import BRIDGE_KEY, amount, picked, present

DELETION_SECONDS = 5.0  # deadline of the deletions after the response


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key.

    Attributes:
        key: LiteLLM's answer, with the secret in ``key``.
        after_sending: To be called after the response: with True if it was sent, else with False.
            None: nothing is left to do.
    """

    key: Json
    after_sending: Callable[[bool], None] | None = None


@dataclass(frozen=True)
class ToolKeys:
    """Creates short-lived keys of the bridge: tool keys, and keys without a tool."""

    _keys: Keys
    _litellm: LiteLLM
    _cache: Cache
    _settings: BridgeKeys
    _now: Clock

    def read(self, body: Mapping[str, Any]) -> tuple[Tool | None, Json]:
        """Read a request for a new key.

        Returns:
            The tool, None for a key without one; and the fields of LiteLLM's ``/key/generate``.

        Raises:
            BadRequest: A field is missing, wrong or forbidden.
        """
        tool = Tool.read(body)
        if tool is not None and body.get("alias") is not None:
            raise BadRequest("alias must be left out: the service makes it from tool and machine")
        others = {name: body[name] for name in body if name not in {"tool", "machine"}}
        key = self._keys.fields.new(others, named=False, service=False)
        if fields.seconds(key.get("duration")) == 0:
            raise BadRequest("duration must be more than 0")
        return tool, key

    def create(self, owner: KeyOwner, account: Account, tool: Tool | None, key: Json) -> NewKey:
        """Create a key; one for a tool replaces the tool's keys.

        ``account`` is the owner's, ``tool`` and ``key`` are what :meth:`read` returned.

        Raises:
            BadRequest: A field exceeds a limit.
            Forbidden: As for ``Keys.generate_for``.
            NoKey: LiteLLM did not return the secret.
        """
        defaults = self._defaults(tool, owner.policy())
        if defaults.get("budget_duration") and key.get("budget_duration") is None:
            # With a budget_duration of null, each new key would have the whole budget.
            key = {name: key[name] for name in key if name != "budget_duration"}
        key = {
            **defaults,
            **({"key_alias": _alias(tool)} if tool else {}),
            **key,
            "metadata": {**(key.get("metadata") or {}), BRIDGE_KEY: tool.as_json() if tool else {}},
        }
        policy = combined((owner.policy(), bridge_policy(self._settings, tool)))

        def is_replaced(row: Json) -> bool:
            return tool is not None and isinstance(row.get("token"), str) and Tool.of(row) == tool

        # The lock makes the second of two concurrent requests replace the key of the first.
        lock = self._cache.lock(f"tool keys of {account.user_id}") if tool else nullcontext()
        with lock:
            rows = self._litellm.keys_of(account.user_id) if tool else []
            replaced = list(filter(is_replaced, rows))
            spent = self._spent(key, replaced)
            made = self._keys.generate_for(
                replace(owner, policy=lambda: policy),
                {**key, **present(spend=spent)},
                but=is_replaced,
            )
            self._keys.require_secret(made)
            try:
                self._keys.carry_spend(made, spent or 0.0)
            except UpstreamError:
                self._keys.take_back(made)
                raise
        tokens = [str(row["token"]) for row in replaced]
        if tool is not None:
            ids = [journal.key_id(token) for token in tokens]
            journal.note(tool=tool.name, machine=tool.machine, replacedKeyIds=ids)

        def after_sending(sent: bool) -> None:
            deadline.begin(DELETION_SECONDS)
            try:
                if not sent:
                    self._keys.take_back(made)
                elif tokens:
                    with self._cache.invalidating(owner.tag):
                        self._keys.delete_replaced(tokens)
            finally:
                deadline.end()

        return NewKey(made, after_sending)

    def _defaults(self, tool: Tool | None, policy: Policy) -> Json:
        """Return the fields for a request that leaves them out, within the owner's policy."""
        entry = self._settings.budget_of(tool.name) if tool else None
        defaults = {"duration": self._settings.default_ttl}
        if entry is not None:
            defaults |= present(max_budget=entry.max_budget, budget_duration=entry.budget_duration)
        return picked(policy.capped(defaults), defaults)

    def _spent(self, key: Json, replaced: Iterable[Json]) -> float | None:
        """Return the spend in USD that the new key takes over from the replaced keys.

        Otherwise a person with a budget of 5 USD a day could spend 5 USD with each of the day's
        keys. Spend of a past budget period does not count.
        """
        if key.get("max_budget") is None or key.get("budget_duration") is None:
            return None
        now = self._now()
        ends = [(moment(row.get("budget_reset_at")), amount(row.get("spend"))) for row in replaced]
        return max((spend for end, spend in ends if end is None or end > now), default=None)


def _alias(tool: Tool) -> str:
    # LiteLLM's aliases are unique over all users, and the old and the new key exist side by side.
    # Random digits make the alias unique. LiteLLM can be configured to allow no other punctuation.
    return f"agent/{tool.name}@{tool.machine}.{token_hex(4)}"
