"""The bridge: keys for command-line clients, whose users sign in at Keycloak."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litellm_plugin.accounts.caller import own_id
from litellm_plugin.accounts.directory import Directory
from litellm_plugin.accounts.ownership import Login, Owner
from litellm_plugin.accounts.users import Profile, ProvisioningFailed, Users
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import Account, Json
from litellm_plugin.clock import Clock, stamp
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import Forbidden, NotFound, PluginError, UpstreamError
from litellm_plugin.identity.keycloak import BridgeIdentity
from litellm_plugin.keys.policy import KeyPolicies
from litellm_plugin.keys.rotation import Rotation, Rotations
from litellm_plugin.keys.service import KeyOwner, Keys
from litellm_plugin.keys.tools import NewKey, ToolKeys
from litellm_plugin.teams.membership import NOT_A_MEMBER

NO_USER = (
    "No LiteLLM user for this identity. Log in to Backstage once to be provisioned,"
    " or enable litellm.provisioning.enabled."
)


@dataclass(frozen=True)
class Bridge:
    """Serves people with a Keycloak token."""

    _settings: Settings
    _users: Users
    _keys: Keys
    _rotations: Rotations
    _policies: KeyPolicies
    _tool_keys: ToolKeys | None  # None: litellm.bridge.keys is not set
    _directory: Directory
    _now: Clock

    def admit(self, person: BridgeIdentity) -> None:
        """Refuse people outside ``litellm.bridge.group``; without that setting, admit all.

        Raises:
            ReservedId: The LiteLLM id of that user name is reserved.
            Forbidden: The person is not in the group, or not in the catalog.
            BackstageUnavailable: The catalog can't be read.
        """
        owner, group = self._owner(person), self._settings.bridge.group
        if group is not None and group not in self._groups(owner):
            raise Forbidden(f"Access denied: not a member of {group}", reason="group")

    def account(self, person: BridgeIdentity, *, fresh: bool = False) -> Account:
        """Return a person's account, provisioned where there is none.

        ``fresh`` reads past the cache, because a write depends on the account.

        Raises:
            NotFound: The person has no account, and provisioning is off.
            BackstageUnavailable: The catalog can't be read, and the role depends on it.
            PluginError: LiteLLM failed; the message has LiteLLM's own text.
        """
        owner = self._owner(person)

        def profile() -> Profile:
            name, email = person.name or person.username, person.email or person.username
            entity = Entity("User", self._groups(owner), display_name=name, email=email)
            return Profile(owner.own_id, entity)

        try:
            return self._users.account_of(owner, profile, reader=_reader(person), fresh=fresh)
        except ProvisioningFailed as exc:
            raise PluginError(exc.cause.message, advice=exc.cause.advice) from exc
        except UpstreamError as exc:
            raise PluginError(exc.message, advice=exc.advice) from exc
        except NotFound as exc:
            if self._settings.provisioning.enabled:
                raise PluginError(exc.message, **exc.fields) from exc
            raise NotFound(exc.message, **{**exc.fields, "hint": NO_USER}) from exc

    def keys(self, person: BridgeIdentity) -> list[Json]:
        """Return a person's virtual keys, the oldest first; raises as :meth:`account`."""
        return self._users.keys(self.account(person), _reader(person))

    def generate(self, person: BridgeIdentity, body: Mapping[str, Any]) -> NewKey:
        """Create a key.

        Raises:
            BadRequest: A field is wrong or forbidden, or exceeds a limit.
            Forbidden: ``team_id`` is not one of the person's teams, or as many keys as
                allowed are active.
        """
        if self._tool_keys is None:
            key = self._keys.fields.new(body, named=False, service=False)
            owner = self._key_owner(person, self.account(person, fresh=True))
            return NewKey(self._keys.generate_for(owner, key))
        tool, key = self._tool_keys.read(body)
        account = self.account(person, fresh=True)
        return self._tool_keys.create(self._key_owner(person, account), account, tool, key)

    def delete(self, person: BridgeIdentity, token: str) -> None:
        """Delete one of a person's keys for good.

        Raises:
            Forbidden: The key is another user's or does not exist.
        """
        self._keys.delete_for(self.account(person, fresh=True), token, _reader(person))

    def rotate(self, person: BridgeIdentity, rotation: Rotation) -> Json:
        """Rotate one of a person's keys; as ``Rotations.rotate_for``."""
        account = self.account(person, fresh=True)
        return self._rotations.rotate_for(self._key_owner(person, account), account, rotation)

    def _key_owner(self, person: BridgeIdentity, account: Account) -> KeyOwner:
        created_by = {
            "created_via": self._settings.bridge.client_id,
            "created_by": account.user_id,
            "created_at_iso": stamp(self._now),
        }

        def check(key: Json) -> None:
            if key.get("team_id") and not account.in_team(key["team_id"]):
                raise Forbidden(NOT_A_MEMBER, reason="membership")
            self._users.refuse_key_type(key, account)

        policy = functools.cache(lambda: self._policies.of_id(self._owner(person).own_id))
        return KeyOwner(account, _reader(person), policy, lambda: created_by, check)

    def _groups(self, owner: Owner) -> frozenset[str]:
        """Return the person's groups in the catalog; none for an unknown or ambiguous id.

        Of several people with the same LiteLLM id, the one in the default namespace counts.
        """
        people = self._directory.of_id(owner.own_id)
        same = [each for each in people if each.ref == owner.ref] or people
        return same[0].groups if len(same) == 1 else frozenset()

    def _owner(self, person: BridgeIdentity) -> Owner:
        # As in the original plugin: the part before the "@", in the configured domain.
        name, _, domain = person.login.partition("@")
        own_domain = self._settings.user_id_domain
        ref = f"user:default/{name}".lower()

        def email() -> str | None:
            # Users may be able to change their e-mail address in Keycloak, so the catalog's counts.
            entity = self._directory.entity(ref)
            return entity.email if entity else None

        names = filter(None, (person.username, person.email, person.login))
        login = Login(
            names=frozenset(name.lower() for name in names),
            cut=bool(domain) and domain.lower() != (own_domain or "").lower(),
        )
        return Owner(own_id(name, self._settings), ref, email, login)


def _reader(person: BridgeIdentity) -> str:
    return f"bridge:{person.login}"
