"""The models the proxy offers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from litellm_plugin import shapes
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.errors import UpstreamError

log = logging.getLogger(__name__)


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
        """Return every model; by name only where LiteLLM can't tell the rest.

        Args:
            stale: Called with the age of an answer from before LiteLLM went down.
        """
        # The same for everybody: it is the proxy's own list.
        return self._cache.read(("models",), (), self._read, weight=len, stale=stale)

    def _read(self) -> list[Json]:
        try:
            rows = self._litellm.model_info()
        except UpstreamError as exc:
            log.warning("prices and capabilities of models can't be read: %s", exc)
            rows = []
        if not rows:
            return shapes.listed(map(shapes.named_model, self._litellm.model_names()))
        return shapes.listed(map(shapes.model, rows))
