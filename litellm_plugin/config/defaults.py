"""What a key that is not set stands for: the default of its field in the settings."""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from typing import Any

from litellm_plugin.config.report import KeyPath
from litellm_plugin.config.settings import Discovery, Settings

_UNSET = Settings(base_url="", master_key="", discovery=Discovery(""))
_CAPITAL = re.compile(r"(?=[A-Z])")
_ABOVE = ("litellm", "backend")  # whose keys are the settings' own fields
_REQUIRED = {("litellm", "baseUrl"), ("litellm", "masterKey")}
_IN_NO_SETTINGS = {("backend", "auth", "dangerouslyDisableDefaultAuthPolicy"): False}


def default_of(path: KeyPath) -> Any:
    """Return the default of the key at ``path``, as JSON has it; None where there is none.

    A field of the settings is called as its key, with ``_`` where that has a capital or,
    for objects that are no class of their own, a dot; ``enabled`` may be left out.
    """
    if path in _REQUIRED or any(isinstance(part, int) for part in path):
        return None
    if path in _IN_NO_SETTINGS:
        return _IN_NO_SETTINGS[path]
    names = [_CAPITAL.sub("_", str(part)).lower() for part in path]
    value = _field(_UNSET, names[1:] if path[0] in _ABOVE else names)
    if is_dataclass(value):
        return getattr(value, "enabled", None)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return list(value) if isinstance(value, tuple) else value


def _field(value: Any, names: list[str]) -> Any:
    if not names or (names == ["enabled"] and not is_dataclass(value)):
        return value
    if not is_dataclass(value):
        return None
    if hasattr(value, names[0]):
        return _field(getattr(value, names[0]), names[1:])
    return getattr(value, "_".join(names), None)
