"""The bridge: keys for command-line clients, whose users sign in at Keycloak."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from litellm_plugin.keys.rotation import Rotation
from litellm_plugin.keys.service import Keys
from litellm_plugin.keys.tools import NewKey, ToolKeys

NO_USER = (
    "No LiteLLM user for this identity. Log in to Backstage once to be provisioned,"
    " or enable litellm.provisioning.enabled."
)


class Bridge:
    """Serves people with a Keycloak token.

    Args:
        settings: All settings; ``litellm.bridge`` names client and group.
        users: Finds and provisions users.
        keys: Creates keys.
        policies: The limits of keys.
        tool_keys: Creates short-lived keys; None where ``litellm.bridge.keys`` is not set.
        directory: Finds people in the catalog.
        now: Returns the present time, in UTC.
    """

    def __init__(
        self,
        settings: Settings,
        users: Users,
        keys: Keys,
        policies: KeyPolicies,
        tool_keys: ToolKeys | None,
        directory: Directory,
        now: Clock,
    ) -> None:
        self._policies = policies
        self._tool_keys = tool_keys
        self._directory = directory
        self._settings = settings
        self._users = users
        self._keys = keys
        self._now = now

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

        Args:
            person: The caller.
            fresh: Whether to read past the cache, because a write depends on the account.

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
        account = self.account(person)
        try:
            return self._users.keys(account, _reader(person))
        except UpstreamError as exc:
            raise PluginError(exc.message, advice=exc.advice) from exc

    def generate(self, person: BridgeIdentity, body: Mapping[str, Any]) -> NewKey:
        """Create a key.

        Raises:
            BadRequest: A field is wrong or forbidden, or exceeds a limit.
            Forbidden: ``team_id`` is not one of the person's teams, or as many keys as
                allowed are active.
        """
        tool = None
        if self._tool_keys is None:
            key = self._keys.fields.new(body, named=False, service=False)
        else:
            tool, key = self._tool_keys.read(body)
        account = self.account(person, fresh=True)
        created_by, reader = self._created_by(account), _reader(person)
        policy = self._policies.of_id(self._owner(person).own_id)
        if self._tool_keys is None:
            made = self._keys.generate_for(account, key, created_by, policy, reader=reader)
            return NewKey(made)
        return self._tool_keys.create(account, tool, key, created_by, policy, reader=reader)

    def delete(self, person: BridgeIdentity, token: str) -> None:
        """Delete one of a person's keys for good.

        Raises:
            Forbidden: The key is another user's or does not exist.
        """
        self._keys.delete_for(self.account(person, fresh=True), token, _reader(person))

    def rotate(
        self, person: BridgeIdentity, rotation: Rotation, *, gone: Callable[[], bool]
    ) -> Json:
        """Rotate one of a person's keys; as ``Rotations.rotate_for``."""
        account = self.account(person, fresh=True)
        return self._keys.rotations.rotate_for(
            account,
            rotation,
            self._created_by(account),
            own_id=self._owner(person).own_id,
            reader=_reader(person),
            gone=gone,
        )

    def _created_by(self, account: Account) -> Json:
        return {
            "created_via": self._settings.bridge.client_id,
            "created_by": account.user_id,
            "created_at_iso": stamp(self._now),
        }

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
