"""The configuration: files and environment in, typed settings out."""

from litellm_plugin.config.loader import load_settings
from litellm_plugin.config.report import ConfigError
from litellm_plugin.config.sources import default_paths

__all__ = ["ConfigError", "default_paths", "load_settings"]
