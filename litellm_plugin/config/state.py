"""The folder in which this host's user keeps what the service makes for itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def state_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder by the XDG specification; None where this user has no home folder."""
    state = Path(environ.get("XDG_STATE_HOME", ""))
    try:
        # By the specification a relative path is ignored.
        base = state if state.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return base / "litellm-plugin"
