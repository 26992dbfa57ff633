"""The bridge: command-line clients, whose users Keycloak knows and Backstage need not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_plugin.clients.litellm import Account, Json
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import NotFound, PluginError, UpstreamError
from litellm_plugin.identity.keycloak import BridgeIdentity
from litellm_plugin.services.caller import litellm_id
from litellm_plugin.services.clock import Clock, stamp
from litellm_plugin.services.keys import Keys
from litellm_plugin.services.users import Profile, ProvisioningFailed, Users

NO_USER = (
    "No LiteLLM user for this identity. Log in to Backstage once to be provisioned,"
    " or enable litellm.provisioning.enabled."
)


class Bridge:
    """Serves the people behind Keycloak tokens.

    Args:
        settings: Which client, and how LiteLLM ids are made.
        users: Finds and provisions them.
        keys: Makes their keys.
        now: The present time, in UTC.
    """

    def __init__(self, settings: Settings, users: Users, keys: Keys, now: Clock) -> None:
        self._settings = settings
        self._users = users
        self._keys = keys
        self._now = now

    def account(self, person: BridgeIdentity, *, fresh: bool = False) -> Account:
        """Return a person's account, created with the defaults if need be.

        Args:
            person: Whose.
            fresh: Whether it must be as it is right now, because a write depends on it.

        Raises:
            NotFound: There is none, and provisioning is off.
            PluginError: LiteLLM failed; these clients read its own text.
        """
        user_id = self._own_id(person)
        profile = Profile(
            source=user_id,
            email=person.email or person.username,
            display_name=person.name or person.username,
        )
        try:
            return self._users.account_of(
                user_id, lambda: profile, reader=_reader(person), fresh=fresh
            )
        except ProvisioningFailed as exc:
            raise PluginError(exc.cause.message) from exc
        except UpstreamError as exc:
            raise PluginError(exc.message) from exc
        except NotFound as exc:
            if self._settings.provisioning.enabled:
                raise PluginError(exc.message, **exc.fields) from exc
            raise NotFound(exc.message, **{**exc.fields, "hint": NO_USER}) from exc

    def generate(self, person: BridgeIdentity, body: Mapping[str, Any]) -> Json:
        """Make a key; returns LiteLLM's answer, the secret in ``key``.

        Raises:
            BadRequest: A field is wrong, not the caller's to set, or beyond a ceiling.
            Forbidden: ``team_id`` is not one of the person's teams, or they have as many
                active keys as they may.
        """
        key = self._keys.request(body)
        account = self.account(person, fresh=True)
        created_by = {
            "created_via": self._settings.bridge.client_id,
            "created_by": account.user_id,
            "created_at_iso": stamp(self._now),
        }
        return self._keys.generate_for(
            account, key, created_by, own_id=self._own_id(person), reader=_reader(person)
        )

    def _own_id(self, person: BridgeIdentity) -> str:
        # As the original has it: the name in front of an "@", in our own domain.
        name = person.login.partition("@")[0]
        return litellm_id(name, self._settings.user_id_domain)


def _reader(person: BridgeIdentity) -> str:
    return f"bridge:{person.login}"
