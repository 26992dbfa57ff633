"""Settings of gunicorn; found by itself where ``gunicorn app:app`` is started."""

import os

bind = os.environ.get("LITELLM_PLUGIN_BIND", "127.0.0.1:5000")

# The configuration is read once, before the workers are made: a fault in it
# ends gunicorn with its own exit status instead of restarting workers for ever.
preload_app = True

# Requests wait for LiteLLM most of the time, so threads do what processes would.
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 16

# Above litellm.service.timeouts.total, so that a slow LiteLLM is answered for
# by us and not by a killed worker.
timeout = 90
graceful_timeout = 45

# Longer than a reverse proxy keeps an idle connection (60 s in nginx): the side
# that sends the request must be the one that closes, or requests are lost.
keepalive = 75
