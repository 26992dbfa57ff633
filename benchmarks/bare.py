"""A route of Flask and nothing else: what ``GET /health`` is held against.

Served with the service's own gunicorn settings, its line for each request included: no token check,
no blueprint, the same answer.
"""

from __future__ import annotations

from flask import Flask

from litellm_plugin.observability import logs

logs.configure("json", "info")
app = Flask(__name__)


@app.get("/api/litellm/health")
def health() -> dict[str, object]:
    """Answer as the service does."""
    return {"status": "ok", "provisioning": True}
