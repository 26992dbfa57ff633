"""A Backstage-compatible backend for LiteLLM: keys, budgets and usage without a ticket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litellm_plugin.factory import create_app, create_blueprint

__all__ = ["__version__", "create_app", "create_blueprint"]

__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    # Not before somebody asks: gunicorn finds its settings in this package, and has
    # to patch sockets and threads before anything else imports them.
    if name in {"create_app", "create_blueprint"}:
        from litellm_plugin import factory  # noqa: PLC0415

        return getattr(factory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
