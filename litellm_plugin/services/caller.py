"""The caller of one request, with all that is known of them."""

from __future__ import annotations

from collections.abc import Callable

from litellm_plugin.clients.backstage import Entity
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


def litellm_id(name: str, domain: str | None) -> str:
    """Return the LiteLLM user id of a person.

    Args:
        name: An entity ref or a bare name. A name with ``@`` stays as it is.
        domain: ``litellm.userIdDomain``.
    """
    bare = name.rpartition("/")[2]
    return bare if "@" in bare or not domain else f"{bare}@{domain}"
