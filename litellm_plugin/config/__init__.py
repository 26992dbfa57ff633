"""The configuration: files and environment in, typed settings out."""

from litellm_plugin.config.load import Reading, load_settings, read_configuration
from litellm_plugin.config.report import ConfigError
from litellm_plugin.config.sources import default_paths

__all__ = ["ConfigError", "Reading", "default_paths", "load_settings", "read_configuration"]
