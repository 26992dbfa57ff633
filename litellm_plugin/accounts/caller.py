"""The caller of one request: principal, LiteLLM user id and catalog entity."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import ADMIN_ID
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import Conflict
from litellm_plugin.identity.principal import Principal, ServicePrincipal, UserPrincipal

NO_ENTITY = Entity(kind="User")


class Caller:
    """A request's caller, with the caller's LiteLLM user id.

    Args:
        principal: The user or service of the credentials.
        litellm_id: The caller's LiteLLM user id; for a service, the ``user_id`` of the request.
        look_up: Returns the catalog entity of a ref; called at most once.
    """

    def __init__(
        self,
        principal: Principal,
        litellm_id: str | None,
        look_up: Callable[[str], Entity | None],
    ) -> None:
        self.principal = principal
        self.litellm_id = litellm_id
        self.stale_seconds: float | None = None
        self._look_up = look_up
        self._entity: Entity | None = None

    @property
    def user(self) -> UserPrincipal | None:
        """The signed-in user, or None for a service."""
        return self.principal if isinstance(self.principal, UserPrincipal) else None

    @property
    def service(self) -> ServicePrincipal | None:
        """The service, or None for a user."""
        return self.principal if isinstance(self.principal, ServicePrincipal) else None

    def note_stale(self, seconds: float) -> None:
        """Record that the response is made from a stale cache entry.

        Args:
            seconds: Age of the entry.
        """
        self.stale_seconds = max(seconds, self.stale_seconds or 0.0)

    @property
    def name(self) -> str:
        """Entity ref or service subject, for logs."""
        if isinstance(self.principal, UserPrincipal):
            return self.principal.entity_ref
        return self.principal.subject

    @property
    def entity(self) -> Entity:
        """The user's catalog entity; an empty one where the catalog has none.

        Raises:
            BackstageUnavailable: The catalog can't be read.
        """
        if self.user is None:
            return NO_ENTITY
        # Python 3.11's cached_property holds one lock for all callers during the look-up.
        if self._entity is None:
            self._entity = self._look_up(self.user.entity_ref) or NO_ENTITY
        return self._entity


class ReservedId(Conflict):
    """The LiteLLM user id is LiteLLM's own administrator's, or one of ``reservedUserIds``."""

    def __init__(self) -> None:
        super().__init__(
            "This LiteLLM user id is reserved: it is nobody's account",
            advice="ask your administrator for another",
            hint="It is that of LiteLLM's own administrator, or one of"
            " litellm.service.reservedUserIds. A person needs another name in the catalog, or"
            " litellm.userIdDomain has to be set; a service has to name another user_id.",
            provisioning=True,
        )


def own_id(name: str, settings: Settings) -> str:
    """Return a person's LiteLLM user id, as :func:`litellm_id` derives it.

    Raises:
        ReservedId: The id is LiteLLM's own administrator's, or configured as reserved.
    """
    return not_reserved(litellm_id(name, settings.user_id_domain), settings)


def not_reserved(user_id: str, settings: Settings) -> str:
    """Return ``user_id`` unless it is reserved.

    Raises:
        ReservedId: The id is LiteLLM's own administrator's, or configured as reserved.
    """
    if is_reserved(user_id, settings):
        raise ReservedId
    return user_id


def is_reserved(user_id: str, settings: Settings) -> bool:
    """Tell whether a LiteLLM user id is reserved, ignoring letter case and outer blanks."""
    reserved = (ADMIN_ID, *settings.service.reserved_user_ids)
    return plain(user_id) in map(plain, reserved)


def plain(user_id: str) -> str:
    """Return a LiteLLM user id as it is compared: without letter case and outer blanks."""
    # LiteLLM trims ids since 1.110, and its database may ignore letter case.
    return unicodedata.normalize("NFKC", user_id).strip().casefold()


def litellm_id(name: str, domain: str | None) -> str:
    """Derive the LiteLLM user id from a person's name; the id may be reserved.

    Args:
        name: An entity ref or a bare name. A name with ``@`` stays as it is.
        domain: ``litellm.userIdDomain``.
    """
    bare = name.rpartition("/")[2]
    return bare if "@" in bare or not domain else f"{bare}@{domain}"
