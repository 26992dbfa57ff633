"""gunicorn finds this by itself where ``gunicorn app:app`` is started."""

from litellm_plugin.gunicorn_conf import *  # noqa: F403
