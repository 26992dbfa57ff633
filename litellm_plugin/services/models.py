"""The models the proxy offers."""

from __future__ import annotations

import logging

from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.errors import UpstreamError
from litellm_plugin.services import shapes

log = logging.getLogger(__name__)


class Models:
    """Lists models.

    Args:
        litellm: The client.
    """

    def __init__(self, litellm: LiteLLM) -> None:
        self._litellm = litellm

    def all(self) -> list[Json]:
        """Return every model; by name only where LiteLLM can't tell the rest."""
        try:
            rows = self._litellm.model_info()
        except UpstreamError as exc:
            log.warning("prices and capabilities of models can't be read: %s", exc)
            rows = []
        if not rows:
            return shapes.listed(map(shapes.named_model, self._litellm.model_names()))
        return shapes.listed(map(shapes.model, rows))
