"""What the fixtures of ``conftest`` give, by type."""

from __future__ import annotations

from collections.abc import Callable

from tests.live.service import Service
from tests.live.web import Client

Person = Callable[..., Client]
"""Signs somebody in: ``person("alice")``, or ``person("alice", at=another_service)``."""

Caller = Callable[[str | None], Client]
"""Takes a token, or none."""

Policy = Callable[[str], None]
"""Takes rules of the permission policy; "" allows everything."""

Deploy = Callable[..., Service]
"""Starts a service: ``deploy("name", "  display: {…}\\n")``."""

Told = Callable[[str], None]
"""Takes a sentence for the summary."""
