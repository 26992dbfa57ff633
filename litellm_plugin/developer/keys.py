"""Keys of the command ``key``: the request, and whether a saved key can be used again.

A saved key is ``{key, token, request, expires, created, ahead}``: the secret, LiteLLM's hash of it,
by which the service deletes it, the body of the request, its expiry and creation in Unix seconds of
the service's clock, and by how many seconds that was ahead of this host's clock at its creation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

RENEWED_AT = 0.1  # a key is replaced when this share of its life is left


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A request for a key.

    Attributes:
        tool: The tool's name, such as ``claude-code``.
        machine: The name of this host.
        duration: Such as ``8h``; None: the service's default.
        models: Names of models; empty: all that the user may use.
        team_id: LiteLLM id of a team; None: a key outside of teams.
        max_budget: In USD; None: the service's default.
    """

    tool: str
    machine: str
    duration: str | None = None
    models: tuple[str, ...] = ()
    team_id: str | None = None
    max_budget: float | None = None

    @property
    def slot(self) -> str:
        """The name under which the key is saved: each tool on a host has one, as at the service."""
        return f"{self.tool}@{self.machine}"

    def body(self) -> dict[str, Any]:
        """Return the body of ``POST /bridge/keys``, without fields that are None."""
        fields = {**asdict(self), "models": sorted(self.models) or None}
        return {name: value for name, value in fields.items() if value is not None}


def usable(saved: Mapping[str, Any] | None, request: KeyRequest, now: float) -> bool:
    """Return whether a saved key can be used again.

    This uses the host's wall clock, because monotonic clocks stop while a laptop sleeps, corrected
    by its difference to the service's clock at the key's creation. If the clock shows a time before
    the creation, it was set back, and the key's age is unknown.

    Args:
        saved: A saved key; None where no key is saved.
        request: The present request.
        now: The time of this host's clock, in Unix seconds.
    """
    if saved is None or saved["request"] != request.body():
        return False
    time = now + saved["ahead"]
    if time < saved["created"]:
        return False
    return bool(saved["expires"] - time > RENEWED_AT * (saved["expires"] - saved["created"]))


def remaining(saved: Mapping[str, Any], now: float) -> float:
    """Return the seconds until a saved key expires, by the service's clock."""
    return float(saved["expires"] - now - saved["ahead"])
