"""``opencode connect``: a key for a program on the user's machine."""

from __future__ import annotations

from flask import Response, request

from litellm_plugin.access import Permission
from litellm_plugin.errors import NotFound
from litellm_plugin.keys.opencode import callback
from litellm_plugin.observability.journal import Event
from litellm_plugin.routes.inputs import client_gone, current_caller, query
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.routing import routes


@routes.get("/opencode/connect", event=Event("opencode-connect"))
def connect_opencode() -> Response:
    # This route makes a key, and HEAD must change nothing.
    if not plugin.settings.opencode.enabled or request.method == "HEAD":
        raise NotFound
    caller = current_caller()
    plugin.access.signed_in(caller)
    redirect_uri = callback(query("redirect_uri"))
    plugin.access.require(caller, Permission.KEY_CREATE)
    team_id = query("team") or None
    target = plugin.opencode.connect(caller, redirect_uri, team_id, gone=client_gone)
    return Response(
        f"Found. Redirecting to {target}",
        status=302,
        headers={"Location": target},
        content_type="text/plain; charset=utf-8",
    )
