"""What gunicorn serves in ``test_killed.py``: it keeps audit events where the environment says."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from flask import Flask

from litellm_plugin import create_app
from litellm_plugin.config.database import Database
from litellm_plugin.observability import logs
from tests.apps import Apps


def app() -> Flask:
    """Return an application with the store of ``AUDIT_DATABASE``."""
    wanted = json.loads(os.environ["AUDIT_DATABASE"])
    if "file" in wanted:
        wanted["file"] = Path(wanted["file"])
    settings = Apps(Path(os.environ["AUDIT_KEY_FILE"])).settings()
    audit = replace(settings.audit, store=True)
    logs.configure("json", "info", access=False)
    return create_app(replace(settings, audit=audit, database=Database(**wanted)))
