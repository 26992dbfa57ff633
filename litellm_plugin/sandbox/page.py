"""The sandbox's pages: examples to try, the API's reference and the demo.

They have the same origin as the service and Backstage's API, so that browsers need no CORS.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request, send_from_directory
from flask.typing import ResponseReturnValue
from werkzeug.security import safe_join

import litellm_plugin
from litellm_plugin.sandbox.backstage import BackstageStandIn
from litellm_plugin.sandbox.people import ALICE, BOB, CAROL, PEOPLE, USAGE_DAYS, Person

WEB = Path(__file__).with_name("web")
DOCS = Path(litellm_plugin.__file__).parents[1] / "docs"  # only in a checkout

_CSP = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Backstage's own policy allows these, too: its components write styles into the page, and its
# libraries compile validators and have images as data: URLs.
_DEMO_CSP = (
    f"{_CSP}; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:"
)


@dataclass(frozen=True, slots=True)
class Example:
    """A request to try; with a body it is a POST, else a GET.

    Attributes:
        path: Path and query, below the service's mount.
    """

    what: str
    person: Person
    path: str
    body: dict[str, Any] | None = None


def examples(today: date) -> list[Example]:
    """Return the requests to try, in order; usage is that of the days up to ``today``."""
    month = f"start_date={today - timedelta(days=USAGE_DAYS - 1)}&end_date={today}"
    key = {"models": ["gpt-4o-mini"], "duration": "7d", "max_budget": 5}
    team = {"team_alias": "Robots", "models": ["gpt-4o-mini"], "max_budget": 100}
    first_visit = "carol's first visit creates her LiteLLM user, with her group's role"
    return [
        Example("bob's keys", BOB, "/keys"),
        Example(
            "bob makes a key; only this answer has its secret",
            BOB,
            "/keys/generate",
            {"alias": "my-first-key", **key},
        ),
        Example(f"bob's usage of the last {USAGE_DAYS} days", BOB, f"/usage?{month}"),
        Example("bob's teams", BOB, "/teams"),
        Example(first_visit, CAROL, "/user/info"),
        Example("alice makes a team; she is in the admin group", ALICE, "/teams", team),
        Example("alice reads the audit log", ALICE, "/audit?page=1&page_size=5"),
        Example("bob may not read it: 403", BOB, "/audit?page=1&page_size=5"),
    ]


def pages(backstage: BackstageStandIn, today: date, demo: Path | None) -> Blueprint:
    """Return the pages, and Backstage's API.

    Args:
        backstage: Signs visitors in, without a password.
        today: The last day of usage.
        demo: The folder of the built demo, if there is one.
    """
    blueprint = Blueprint("sandbox", __name__, static_folder=WEB, static_url_path="/sandbox")

    @blueprint.get("/")
    def page() -> Response:
        return send_from_directory(WEB, "index.html")

    @blueprint.get("/sandbox/data.json")
    def data() -> dict[str, Any]:
        return {
            "people": [
                {
                    "ref": person.entity_ref,
                    "name": person.name,
                    "displayName": person.display_name,
                    "groups": person.groups,
                    "about": person.about,
                }
                for person in PEOPLE
            ],
            "examples": [
                {"what": one.what, "who": one.person.name, "path": one.path, "body": one.body}
                for one in examples(today)
            ],
            "docs": [
                {"file": file.name, "title": file.read_text("utf-8").splitlines()[0].strip("# ")}
                for file in sorted(DOCS.glob("*.md"))
            ],
            "demo": demo is not None,
        }

    @blueprint.get("/docs/<name>.md")
    def docs(name: str) -> Response:
        return send_from_directory(DOCS, f"{name}.md", mimetype="text/plain")

    @blueprint.route(
        "/api/<any(auth, catalog, permission):_plugin>/<path:_path>", methods=["GET", "POST"]
    )
    def backstage_api(_plugin: str, _path: str) -> ResponseReturnValue:
        return Response.from_app(backstage.app, request.environ)

    if demo is not None:

        @blueprint.get("/demo/", defaults={"path": "index.html"})
        @blueprint.get("/demo/<path:path>")
        def demo_page(path: str) -> Response:
            file = safe_join(str(demo), path)
            # Paths without a file belong to the page's own router.
            known = path.startswith("static/") or (file and Path(file).is_file())
            return send_from_directory(demo, path if known else "index.html")

    @blueprint.after_request
    def headers(response: Response) -> Response:
        csp = _DEMO_CSP if request.path.startswith("/demo/") else _CSP
        response.headers.setdefault("Content-Security-Policy", csp)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response

    return blueprint
