"""Settings that gunicorn reads from the working directory, as for ``gunicorn app:app``."""

from litellm_plugin.gunicorn_conf import *  # noqa: F403
