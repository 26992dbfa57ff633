"""What gunicorn serves in ``test_store.py``: the service, with few audit events in memory."""

from __future__ import annotations

from litellm_plugin.audit import writer
from litellm_plugin.wsgi import load

writer.MAX_WAITING = 20

app = load()
