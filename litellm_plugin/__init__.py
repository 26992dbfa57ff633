"""A Backstage-compatible backend for LiteLLM: keys, budgets and usage without a ticket."""

from litellm_plugin.factory import create_app, create_blueprint

__all__ = ["__version__", "create_app", "create_blueprint"]

__version__ = "0.1.0.dev0"
