"""The two kinds of principal that a request can have."""

from __future__ import annotations

from dataclasses import dataclass, field

from litellm_plugin.config.settings import AccessRestriction


@dataclass(frozen=True, slots=True)
class UserPrincipal:
    """A signed-in Backstage user, who calls directly or through another plugin.

    Attributes:
        entity_ref: Such as ``user:default/jane``; lower case, as Backstage writes it.
        token: The user token; None for a limited token, and where a plugin acts for the user.
        limited_token: The user's limited token, which a plugin token carries as ``obo``;
            None where the user token has no ``uip``.
        expires_at: Unix time, in seconds, at which the token expires.
        actor: ``plugin:<id>`` of the plugin that acts for the user, else None.
    """

    entity_ref: str
    token: str | None = field(repr=False)
    limited_token: str | None = field(repr=False)
    expires_at: float
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class ServicePrincipal:
    """A Backstage plugin or an external service; never a person.

    Attributes:
        subject: ``plugin:<id>``, an external subject, or ``external:<prefix>:<sub>``.
        restrictions: What the token may be used for in this plugin; None: anything.
    """

    subject: str
    restrictions: tuple[AccessRestriction, ...] | None = None


Principal = UserPrincipal | ServicePrincipal
