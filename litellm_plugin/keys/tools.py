"""Short-lived keys of the bridge (``litellm.bridge.keys``): one for each person, tool and machine.

A new key replaces those of the same person, tool and machine. They are deleted when the answer
with the new key was sent, so that the person has a key that works at any time. If the answer could
not be sent, the new key is deleted instead. A process that is killed between the steps leaves one
key more: the next request replaces both, else the key expires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from litellm_plugin import fields
from litellm_plugin.accounts.users import keys_tag
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients import deadline
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.clock import Clock, moment
from litellm_plugin.config.settings import BridgeKeys
from litellm_plugin.errors import BadRequest, UpstreamError
from litellm_plugin.keys.metadata import Tool
from litellm_plugin.keys.policy import KeyPolicies, Policy, bridge_policy, combined
from litellm_plugin.keys.service import Keys, NoKey
from litellm_plugin.observability import journal
from litellm_plugin.shapes import BRIDGE_KEY, amount, picked, present

SETTLING = 5.0  # seconds for the deletions after an answer


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key.

    Attributes:
        key: LiteLLM's answer, with the secret in ``key``.
        settle: To be called once the answer was sent (True) or could not be sent (False), if given.
    """

    key: Json
    settle: Callable[[bool], None] | None = None


class ToolKeys:
    """Makes keys of the bridge under ``litellm.bridge.keys``, also such without a tool."""

    def __init__(
        self,
        keys: Keys,
        litellm: LiteLLM,
        cache: Cache,
        policies: KeyPolicies,
        settings: BridgeKeys,
        now: Clock,
    ) -> None:
        self._keys = keys
        self._litellm = litellm
        self._cache = cache
        self._policies = policies
        self._settings = settings
        self._now = now

    def read(self, body: Mapping[str, Any]) -> tuple[Tool | None, Json]:
        """Read a request: the tool, if any, and the fields of LiteLLM's ``/key/generate``.

        Raises:
            BadRequest: A field is missing, wrong or forbidden.
        """
        tool = Tool.read(body)
        if tool is not None and body.get("alias") is not None:
            raise BadRequest("alias must be left out: the service makes it from tool and machine")
        others = {name: body[name] for name in body if name not in {"tool", "machine"}}
        key = self._keys.fields.new(others, named=False, service=False)
        asked, longest = key.get("duration"), self._settings.max_ttl
        if fields.seconds(asked) == 0:
            raise BadRequest("duration must be more than 0")
        if (fields.seconds(asked) or 0) > (fields.seconds(longest) or 0):
            raise BadRequest(
                f"duration {asked} is too long: at most {longest} for keys of the bridge"
                " (litellm.bridge.keys.maxTtl)"
            )
        return tool, key

    def issue(
        self,
        account: Account,
        tool: Tool | None,
        key: Json,
        created_by: Json,
        policy: Policy,
        *,
        reader: str,
    ) -> Issued:
        """Create a key.

        Args:
            account: The owner's, not from the cache.
            tool: As :meth:`read` returned it.
            key: As :meth:`read` returned it.
            created_by: Metadata that records the creator.
            policy: The owner's.
            reader: As for ``Users.account_of``.

        Raises:
            BadRequest: A field exceeds a limit.
            Forbidden: As for ``Keys.generate_for``.
            NoKey: LiteLLM did not return the secret.
        """
        defaults = self._defaults(tool, policy)
        if defaults.get("budget_duration") and key.get("budget_duration") is None:
            # With null, each new key would have the whole budget.
            key = {name: key[name] for name in key if name != "budget_duration"}
        key = {
            **defaults,
            **({"key_alias": _alias(tool)} if tool else {}),
            **key,
            "metadata": {**(key.get("metadata") or {}), BRIDGE_KEY: _mark(tool)},
        }
        policy = combined((policy, bridge_policy(self._settings, tool)))

        def is_replaced(row: Json) -> bool:
            return tool is not None and isinstance(row.get("token"), str) and Tool.of(row) == tool

        # Under the lock, the second of two requests at once replaces the key of the first.
        lock = self._cache.lock(f"tool keys of {account.user_id}") if tool else nullcontext()
        with lock:
            rows = self._litellm.keys_of(account.user_id) if tool else []
            replaced = list(filter(is_replaced, rows))
            spent = self._spent(key, replaced)
            made = self._keys.generate_for(
                account,
                {**key, **present(spend=spent)},
                created_by,
                policy,
                reader=reader,
                but=is_replaced,
            )
            self._check(made, spent)
        tokens = [str(row["token"]) for row in replaced]
        if tool is not None:
            ids = [journal.key_id(token) for token in tokens]
            journal.note(tool=tool.name, machine=tool.machine, replacedKeyIds=ids)

        def settle(sent: bool) -> None:
            deadline.begin(SETTLING)
            try:
                if not sent:
                    self._keys.take_back(made)
                elif tokens:
                    with self._cache.invalidating(keys_tag(account.asked)):
                        self._keys.delete_replaced(tokens)
            finally:
                deadline.end()

        return Issued(made, settle)

    def _defaults(self, tool: Tool | None, policy: Policy) -> Json:
        """Return what a request need not have, reduced to the person's policy."""
        entry = self._settings.budget_of(tool.name) if tool else None
        defaults = {"duration": self._settings.default_ttl}
        if entry is not None:
            defaults |= present(max_budget=entry.max_budget, budget_duration=entry.budget_duration)
        return picked(policy.capped(defaults, self._policies.groups_of), defaults)

    def _spent(self, key: Json, replaced: Iterable[Json]) -> float | None:
        """Return what replaced keys have spent, in USD, of a budget whose period is not over.

        The new key takes it over: a budget of a day is not one for each key of some hours.
        """
        if key.get("max_budget") is None or key.get("budget_duration") is None:
            return None
        now = self._now()
        ends = [(moment(row.get("budget_reset_at")), amount(row.get("spend"))) for row in replaced]
        return max((spend for end, spend in ends if end is None or end > now), default=None)

    def _check(self, made: Json, spent: float | None) -> None:
        """Delete a new key that has no secret, or did not take over the spend."""
        if not isinstance(made.get("key"), str) or not made["key"]:
            self._keys.take_back(made)
            raise NoKey("LiteLLM returned no key material")
        if spent and amount(made.get("spend")) < spent:  # an older LiteLLM ignores the field
            token = str(made.get("token") or made.get("token_id") or made["key"])
            try:
                self._litellm.update_key({"key": token, "spend": spent})
            except UpstreamError:
                self._keys.take_back(made)
                raise


def _alias(tool: Tool) -> str:
    # LiteLLM's aliases are unique over all users, and the old and the new key overlap. The
    # digits tell them apart; LiteLLM can be configured to allow only these punctuation marks.
    return f"agent/{tool.name}@{tool.machine}.{token_hex(4)}"


def _mark(tool: Tool | None) -> Json:
    return {} if tool is None else {"tool": tool.name, "machine": tool.machine}
