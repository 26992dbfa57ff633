"""The folder for files that the service creates: its signing key and its SQLite database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def state_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder by the XDG specification; None if this user has no home folder."""
    state = Path(environ.get("XDG_STATE_HOME", ""))
    try:
        # The specification wants relative paths ignored.
        base = state if state.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return base / "litellm-plugin"
