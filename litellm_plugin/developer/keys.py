"""Keys for tools: what is asked for, and when a kept key is used again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RENEWED_AT = 0.1  # of a key's life that is left


@dataclass(frozen=True, slots=True)
class Order:
    """A key that a tool needs.

    Attributes:
        tool: The tool's name, such as ``claude-code``.
        machine: The name of this host.
        duration: Such as ``8h``; None: as the service has it.
        models: Names of models; none: all that the user may use.
        team_id: The team that the key belongs to, if one.
        max_budget: In USD; None: as the service has it.
    """

    tool: str
    machine: str
    duration: str | None = None
    models: tuple[str, ...] = ()
    team_id: str | None = None
    max_budget: float | None = None

    @property
    def slot(self) -> str:
        """Names the place of the key: a tool on a host has one, as at the service."""
        return f"{self.tool}@{self.machine}"

    def body(self) -> dict[str, Any]:
        """Return the body of ``POST /bridge/keys``, with what is given only."""
        fields = {
            "tool": self.tool,
            "machine": self.machine,
            "duration": self.duration,
            "models": sorted(self.models) or None,
            "team_id": self.team_id,
            "max_budget": self.max_budget,
        }
        return {name: value for name, value in fields.items() if value is not None}


def kept(
    key: str, token: str, order: Order, *, expires: float, date: float, now: float
) -> dict[str, Any]:
    """Return what is kept of a new key.

    Args:
        key: The key.
        token: Its id at LiteLLM, which is its hash.
        order: What was asked for.
        expires: When the key expires, in Unix seconds of the service's clock.
        date: The time by the service's clock when it answered, in Unix seconds.
        now: The same by this host's clock.
    """
    return {
        "key": key,
        "token": token,
        "order": order.body(),
        "expires": expires,
        "made": date,
        "ahead": date - now,
    }


def usable(entry: Mapping[str, Any] | None, order: Order, now: float) -> bool:
    """Return whether a kept key can be used again.

    The wall clock of this host decides, because monotonic clocks stop while a laptop sleeps. It is
    corrected by its difference to the service's clock when the key was made. A clock that shows a
    time before that was set back, so nothing is known about the key's age.

    Args:
        entry: The result of :func:`kept`; None where there is no key.
        order: What is asked for now.
        now: The time in Unix seconds.
    """
    if entry is None or entry["order"] != order.body():
        return False
    time = now + entry["ahead"]
    if time < entry["made"]:
        return False
    return bool(entry["expires"] - time > RENEWED_AT * (entry["expires"] - entry["made"]))


def remaining(entry: Mapping[str, Any], now: float) -> float:
    """Return the seconds that a kept key has left, by the service's clock."""
    return float(entry["expires"] - now - entry["ahead"])
