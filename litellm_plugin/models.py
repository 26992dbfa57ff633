"""The models of the proxy, and lists of allowed models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.errors import UpstreamError
from litellm_plugin.shapes import as_object, first, picked, present

log = logging.getLogger(__name__)

MODEL_FIELDS = (
    "supports_function_calling",
    "supports_vision",
    "input_cost_per_token",
    "output_cost_per_token",
    "max_input_tokens",
    "max_output_tokens",
    "access_groups",
)

# LiteLLM's special names in lists of models; the wildcard "a*" does not allow them.
WORDS = frozenset({"all-proxy-models", "all-team-models", "no-default-models"})

# LiteLLM turns a name with "*" into a regular expression and escapes nothing, so that
# "openai/*|.*" matches every model. A dot, which matches one character, is harmless.
_REGEX_SIGNS = frozenset("\\^$+?{}[]|()")


class Models:
    """Lists models.

    Args:
        litellm: The client.
        cache: The cache.
    """

    def __init__(self, litellm: LiteLLM, cache: Cache) -> None:
        self._litellm = litellm
        self._cache = cache

    def all(self, stale: Callable[[float], None] | None = None) -> list[Json]:
        """Return every model of the proxy, in the shape of ``GET /models``.

        Where LiteLLM's ``/model/info`` fails or is empty, the models come from ``/models``,
        which has no prices.

        Args:
            stale: As for ``Cache.read``.
        """
        # One entry serves all callers: the list does not depend on the user.
        return self._cache.read(("models",), (), self._read, weight=len, stale=stale)

    def _read(self) -> list[Json]:
        try:
            rows = self._litellm.model_info()
        except UpstreamError as exc:
            log.warning("prices and capabilities of models can't be read: %s", exc)
            rows = []
        models = map(model, rows) if rows else map(named_model, self._litellm.model_names())
        return [each for each in models if each is not None]


def model(row: Json) -> Json | None:
    """Make an entry of ``GET /models`` from a row of ``/model/info``; None without a name.

    Prices are USD per token. ``model_info`` takes precedence over ``litellm_params``.
    """
    info, params = as_object(row.get("model_info")), as_object(row.get("litellm_params"))
    name = first(row.get("model_name"), params.get("model"), info.get("id"))
    return _shown(name, info.get("mode"), params, info)


def named_model(row: Json) -> Json | None:
    """Make an entry of ``GET /models`` from a row of ``/models``; None without a name.

    LiteLLM adds a mode, limits and capabilities to the rows of the OpenAI API.
    """
    return _shown(first(row.get("id"), row.get("model_name")), row.get("mode"), row)


def _shown(name: Any, mode: Any, *rows: Json) -> Json | None:
    if not isinstance(name, str) or not name:
        return None
    shown = {"model_name": name, "mode": first(mode, "chat")}
    for row in rows:
        shown |= present(**picked(row, MODEL_FIELDS))
    return shown


def allows(allowed: Iterable[str], name: str) -> bool:
    """Tell whether a list of allowed models includes ``name``.

    Args:
        allowed: Names and wildcards. In ``openai/*``, "*" stands for any text, as in LiteLLM.
        name: A model or an access group; or a wildcard, which is allowed where one of
            ``allowed`` covers everything that the wildcard stands for.
    """
    return any(_covers(pattern, name) for pattern in allowed)


def _covers(pattern: str, name: str) -> bool:
    if name == pattern or "*" not in pattern:
        return name == pattern
    if name in WORDS:
        return not pattern.strip("*")
    if "*" in name and not _REGEX_SIGNS.isdisjoint(name):
        return False
    first_part, *middle, last = pattern.split("*")
    at, end = len(first_part), len(name) - len(last)
    if at > end or not name.startswith(first_part) or not name.endswith(last):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
