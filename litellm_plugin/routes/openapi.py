"""The OpenAPI document, which is written by hand in ``openapi.yaml``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from flask import request

import litellm_plugin
from litellm_plugin.config import yaml12
from litellm_plugin.routes.web import Routes

PATH = "/openapi.json"

routes = Routes()


@cache
def document() -> dict[str, Any]:
    """Return the document with the package's version; only the servers are missing."""
    text = files(__package__).joinpath("openapi.yaml").read_text("utf-8")
    read: Any = yaml12.load(text)
    return {**read, "info": {**read["info"], "version": litellm_plugin.__version__}}


@routes.get(PATH)
def openapi_document() -> dict[str, Any]:
    mount = (request.script_root + request.path).rpartition(PATH)[0]
    return {**document(), "servers": [{"url": mount}]}
