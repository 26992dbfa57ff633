"""``opencode connect``: a browser is sent back to the user's own machine with a key."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.live.kinds import Person, Policy, Told
from tests.live.rigs import LiteLLMRig
from tests.live.web import Client, json_of

CALLBACK = "http://localhost:41573/callback?state=abc"


def connect(client: Client, **query: str) -> dict[str, str]:
    """Connect, and return the query that the browser is sent back with."""
    answer = client.get("/opencode/connect", redirect_uri=CALLBACK, **query)
    assert answer.status_code == 302, answer.text
    target = urlsplit(answer.headers["Location"])
    assert (target.scheme, target.netloc, target.path) == ("http", "localhost:41573", "/callback")
    return {name: values[0] for name, values in parse_qs(target.query).items()}


@pytest.mark.parametrize("query", [{}, {"team": "team-guests"}], ids=str)
def test_every_connect_gives_a_key_that_works(
    person: Person, litellm: LiteLLMRig, query: dict[str, str], told: Told
) -> None:
    erin = person("erin")
    alias = "-".join(["opencode", "erin@example.com", *query.values()])

    def slot() -> list[str]:
        own = re.compile(re.escape(alias) + r"(\.[0-9a-f]{8})?")
        rows = json_of(erin.get("/keys"))
        return [row["key"] for row in rows if own.fullmatch(row.get("key_alias") or "")]

    first = connect(erin, **query)
    assert first.items() >= {"state": "abc", **query}.items()
    json_of(litellm.complete(first["key"]))
    assert slot() == [f"sk-...{first['key'][-4:]}"]
    second = connect(erin, **query)
    assert second["key"] != first["key"]
    json_of(litellm.complete(second["key"]))
    assert litellm.complete(first["key"]).status_code == 401
    assert slot() == [f"sk-...{second['key'][-4:]}"]
    known = litellm.admin.get("/key/info", key=second["key"]).json()["info"]
    assert known["max_budget"] == 50
    assert known["metadata"]["tool"] == "opencode"
    assert known.get("team_id") == query.get("team")
    told(f"erin connected twice ({alias}): the second key works, the first no more")


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "https://localhost:41573/callback",
        "http://evil.example/callback",
        "http://localhost.evil.example:1/callback",
        "http://localhost:41573@evil.example/callback",
        "http://localhost:41573/elsewhere",
        "",
    ],
)
def test_a_key_is_sent_to_nobody_else(
    person: Person, litellm: LiteLLMRig, redirect_uri: str
) -> None:
    noprofile = person("noprofile")
    refused = noprofile.get("/opencode/connect", redirect_uri=redirect_uri)
    assert "redirect_uri" in json_of(refused, 400)["error"]
    assert "Location" not in refused.headers
    assert litellm.keys_of("noprofile@example.com") == []


def test_a_team_of_others_gives_no_key(person: Person) -> None:
    refused = person("erin").get("/opencode/connect", redirect_uri=CALLBACK, team="team-ml")
    assert refused.status_code == 403


def test_a_policy_binds_opencode_too(person: Person, policy: Policy) -> None:
    erin = person("erin")
    policy("litellm.key.create@erin")
    refused = erin.get("/opencode/connect", redirect_uri=CALLBACK)
    assert "litellm.key.create" in json_of(refused, 403)["error"]
