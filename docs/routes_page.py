"""Writes ``routes.md`` from the routes and their OpenAPI document. ``make docs`` runs it."""

from __future__ import annotations

from pathlib import Path

from litellm_plugin.routes.openapi import document
from litellm_plugin.routes.routing import routes

PAGE = Path(__file__).with_name("routes.md")


def page() -> str:
    """Return the page: a line for each operation, in the document's order."""
    events = {route.name: route.event for route in routes}
    lines = [
        "# Routes",
        "",
        "Below `/api/litellm`; `GET /openapi.json` has the details. A route that changes something",
        "writes an [audit event](audit-and-limits.md) of that `eventId` for each request.",
        "`make docs` writes this page.",
        "",
        "| route | | `eventId` (severity) |",
        "|---|---|---|",
    ]
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            event = events[operation["operationId"]]
            told = f"`{event.id}` ({event.severity})" if event else ""
            lines.append(f"| `{method.upper()} {path}` | {operation['summary']} | {told} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
