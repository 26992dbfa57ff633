"""The caller of one request, with all that is known of them."""

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
    """Who is asking, and as whom they stand in LiteLLM.

    Args:
        principal: What the credentials proved.
        litellm_id: The caller's LiteLLM user id; for a service the one it asks
            for, None where it asks for nobody.
        look_up: Finds the catalog entity of a ref; asked once at most.
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
        """Remember that this request is answered from before an upstream went down.

        Args:
            seconds: How old what it is answered from is.
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
            BackstageUnavailable: The catalog can't be asked, so nobody knows.
        """
        if self.user is None:
            return NO_ENTITY
        # functools.cached_property of Python 3.11 has one lock for all callers, and
        # would hold it for as long as the catalog takes.
        if self._entity is None:
            self._entity = self._look_up(self.user.entity_ref) or NO_ENTITY
        return self._entity


class ReservedId(Conflict):
    """A LiteLLM user id is nobody's: it is LiteLLM's own administrator's, or configured so."""

    def __init__(self) -> None:
        super().__init__(
            "This LiteLLM user id is reserved: it is nobody's account; ask your administrator for"
            " another",
            hint="It is that of LiteLLM's own administrator, or one of"
            " litellm.service.reservedUserIds. A person needs another name in the catalog, or"
            " litellm.userIdDomain has to be set; a service has to name another user_id.",
            provisioning=True,
        )


def own_id(name: str, settings: Settings) -> str:
    """Return the LiteLLM user id that a person is served by.

    Args:
        name: As for :func:`litellm_id`.
        settings: ``litellm.userIdDomain``, and which ids are reserved.

    Raises:
        ReservedId: The id is LiteLLM's own administrator's, or configured as reserved.
    """
    return not_reserved(litellm_id(name, settings.user_id_domain), settings)


def not_reserved(user_id: str, settings: Settings) -> str:
    """Return a LiteLLM user id that somebody may have.

    Raises:
        ReservedId: The id is LiteLLM's own administrator's, or configured as reserved.
    """
    if is_reserved(user_id, settings):
        raise ReservedId
    return user_id


def is_reserved(user_id: str, settings: Settings) -> bool:
    """Tell whether a LiteLLM user id belongs to nobody, whatever its case and blanks."""
    reserved = (ADMIN_ID, *settings.service.reserved_user_ids)
    return _plain(user_id) in map(_plain, reserved)


def _plain(user_id: str) -> str:
    # LiteLLM trims ids since 1.110, and its database may compare without regard to case.
    return unicodedata.normalize("NFKC", user_id).strip().casefold()


def litellm_id(name: str, domain: str | None) -> str:
    """Return the LiteLLM user id that a person's name makes, reserved or not.

    Args:
        name: An entity ref or a bare name. A name with ``@`` stays as it is.
        domain: ``litellm.userIdDomain``.
    """
    bare = name.rpartition("/")[2]
    return bare if "@" in bare or not domain else f"{bare}@{domain}"
