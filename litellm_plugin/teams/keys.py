"""Team keys: virtual keys that belong to a team, not to a person; service accounts at LiteLLM.

A team key has the team's ``team_id``, no ``user_id``, and ``shapes.TEAM_KEY`` in its metadata,
which only this service writes. LiteLLM deletes it with the team, not with its creator's account.
https://docs.litellm.ai/docs/proxy/service_accounts
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from litellm_plugin import shapes
from litellm_plugin.accounts.caller import Caller
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.clock import Clock
from litellm_plugin.config.settings import LLM_API, Settings
from litellm_plugin.errors import NotFound, UpstreamError
from litellm_plugin.keys.metadata import RotationRecord, is_team_key
from litellm_plugin.keys.policy import KeyPolicies, Limit, ModelLimit, Policy, combined
from litellm_plugin.keys.requests import KeyFields, team_key_fields
from litellm_plugin.keys.rotation import Rotation, Rotations
from litellm_plugin.keys.service import KeyOwner, Keys
from litellm_plugin.observability import journal
from litellm_plugin.shapes import TEAM_KEY
from litellm_plugin.teams.administration import ManagedTeam

MAX_DURATION = "365d"
MIN_RENEWAL = "1d"  # the shortest budget_duration, as for teams
# LiteLLM's metadata field of a service account. By it, LiteLLM applies the proxy's
# service_account_settings to the key's calls.
SERVICE_ACCOUNT = "service_account_id"
# LiteLLM's special names in models: every model, in a team; every model of the team, in a key.
EVERY_MODEL, MODELS_OF_TEAM = "all-proxy-models", "all-team-models"


class TeamKeys:
    """Creates, lists, rotates and deletes team keys, for team admins."""

    def __init__(
        self,
        keys: Keys,
        rotations: Rotations,
        litellm: LiteLLM,
        policies: KeyPolicies,
        settings: Settings,
        now: Clock,
    ) -> None:
        self._fields = KeyFields(team_key_fields(), budget_filled=False)
        self._keys = keys
        self._rotations = rotations
        self._litellm = litellm
        self._policies = policies
        self._hidden = settings.display.hide_team_budget_for_managers
        self._now = now
        whom = "team keys"
        self._limits = Policy(
            duration=Limit(MAX_DURATION, whom),
            budget=Limit(settings.team_admin.max_budget_ceiling, whom),
            renewal=Limit(MIN_RENEWAL, whom),
        )

    def read(self, body: Mapping[str, Any]) -> Json:
        """Read a request for a new key; returns the fields for :meth:`create`.

        Raises:
            BadRequest: A field is missing, wrong or forbidden.
        """
        return self._fields.new(body, named=True, service=False)

    def all(self, team: ManagedTeam) -> list[Json]:
        """Return the team's keys, the oldest first, in the shape of ``GET /keys``."""
        rows = sorted(_owned(team), key=lambda row: str(row.get("created_at") or ""))
        return [self._shown(shapes.virtual_key(row)) for row in rows]

    def create(self, team: ManagedTeam, key: Json, caller: Caller) -> Json:
        """Create a team key, while the team's lock is held on all hosts; returns LiteLLM's answer.

        The team admin's key policy limits the key, and its ``maxActiveKeys`` the number of the
        team's keys.

        Raises:
            PolicyRefused: A field exceeds a limit, or a model is not one of the team's.
            Forbidden: As many keys as allowed are active.
        """
        owner = self._owner(_owned(team), caller)
        self._refuse_other_models(team, key)
        key = owner.policy().new_key(key)
        key |= {
            "team_id": team.team_id,
            "key_type": LLM_API,
            "metadata": {
                **(key.get("metadata") or {}),
                SERVICE_ACCOUNT: key["key_alias"],
                TEAM_KEY: True,
            },
        }
        owner.check(key)
        with self._keys.adding(owner, key) as made:
            return self._shown(made)

    def rotate(self, team: ManagedTeam, asked: Rotation, caller: Caller) -> Json:
        """Rotate a team key, as ``Rotations.rotate_for`` does, while the team's lock is held.

        Raises:
            NotFound: The team has no such key.
            Forbidden: As many keys as allowed are active.
        """
        rows = _owned(team)
        owner = self._owner(rows, caller, replaced=asked.token)
        return self._shown(self._rotations.rotate_one_of(rows, owner, asked))

    def delete(self, team: ManagedTeam, token: str) -> None:
        """Delete a team key for good.

        Raises:
            NotFound: The team has no such key.
        """
        row = next((row for row in _owned(team) if row["token"] == token), None)
        if row is None:
            raise _unknown()
        journal.note(keyAlias=row.get("key_alias"))
        journal.changed(journal.key_hash(token), row, {})
        self._litellm.delete_key(token)

    def _owner(self, rows: list[Json], caller: Caller, *, replaced: str | None = None) -> KeyOwner:
        """Return the team, whose keys are ``rows``, as the owner of a new key.

        ``replaced`` is the hash of the key that is rotated, if any: neither that key nor its
        successor counts as active.
        """
        owner = self._keys.owner(caller, None)
        policy = combined([owner.policy(), self._limits])

        def check(_: Json) -> None:
            others = [
                row
                for row in rows
                if row["token"] != replaced and RotationRecord.of(row).replaces[:1] != (replaced,)
            ]
            policy.refuse_more(others, self._now())

        return replace(owner, policy=lambda: policy, check=check, unknown=_unknown)

    def _refuse_other_models(self, team: ManagedTeam, key: Json) -> None:
        """Refuse models that the team may not use. LiteLLM would refuse each call instead."""
        allowed = tuple(map(str, team.row.get("models") or ()))
        wanted = [name for name in key.get("models") or () if name != MODELS_OF_TEAM]
        if wanted and allowed and EVERY_MODEL not in allowed:
            limit = ModelLimit(allowed, f"team {team.team_id}", self._policies.groups_of)
            limit.refuse_others(wanted)

    def _shown(self, key: Json) -> Json:
        return shapes.without_budget(key) if self._hidden else key


def _owned(team: ManagedTeam) -> list[Json]:
    """Return LiteLLM's rows of the team keys.

    Raises:
        UpstreamError: LiteLLM did not list the team's keys.
    """
    if not isinstance(team.keys, list):
        raise UpstreamError(
            f"LiteLLM did not list the keys of team {team.team_id}",
            advice="ask your administrator",
        )
    return [
        row
        for row in team.keys
        if isinstance(row, dict)
        and row.get("team_id") == team.team_id
        and isinstance(row.get("token"), str)
        and is_team_key(row)
    ]


def _unknown() -> NotFound:
    return NotFound("Team key not found")
