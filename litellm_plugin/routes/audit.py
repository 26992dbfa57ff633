"""The audit log and the preview of provisioning, for the audit group."""

from __future__ import annotations

from typing import Any

from litellm_plugin.access import Permission
from litellm_plugin.audit_log import page, preview
from litellm_plugin.errors import BadRequest
from litellm_plugin.routes.inputs import current_caller, queries, query
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.routing import routes


@routes.get("/audit")
def audit_log() -> Any:
    caller = current_caller()
    plugin.access.auditor(caller, "Audit log")
    plugin.access.require(caller, Permission.AUDIT_READ)
    return page(plugin.litellm, queries())


@routes.get("/provisioning/preview")
def preview_provisioning() -> dict[str, Any]:
    plugin.access.auditor(current_caller(), "Preview")
    group = query("group").strip()
    if not group:
        raise BadRequest("group query parameter is required (e.g. group=group:default/ai-platform)")
    return preview(plugin.settings.provisioning, group)
