"""Bodies that two parsers read differently, or that one chokes on."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from litellm_plugin.fields import MAX_LIMIT
from litellm_plugin.routes.bodies import MAX_BODY, MAX_DEPTH
from tests.client import PluginClient
from tests.fakes import FakeLiteLLM
from tests.rig import CALLERS, Rig
from tests.security.surface import WRITES, surfaces
from tests.standin import IDS, KEY, TEAM, TEAM_KEY
from tests.tokens import STATIC_TOKEN

JSON = {"Content-Type": "application/json"}
Headers = dict[str, str]


def _nested(levels: int, opened: str = '{"a":', closed: str = "}") -> str:
    """Return as many levels, below that of the body itself."""
    return f'{{"alias":"a","metadata":{opened * levels}1{closed * levels}}}'


def _many_names(count: int) -> str:
    names = ",".join(f'"k{number}":1' for number in range(count))
    return f'{{"alias":"a","metadata":{{{names}}}}}'


GZIP = {**JSON, "Content-Encoding": "gzip"}
TRICKS: dict[str, str | bytes] = {
    "name twice": '{"alias":"a","alias":"b"}',
    "name twice, escaped": '{"alias":"a","\\u0061lias":"b"}',
    "name twice, inside": '{"alias":"a","metadata":{"x":1,"x":2}}',
    "not a number": '{"alias":"a","max_budget":NaN}',
    "infinity": '{"alias":"a","max_budget":-Infinity}',
    "beyond range": '{"alias":"a","max_budget":1e999}',
    "beyond range, inside": '{"alias":"a","metadata":{"x":[-1e999]}}',
    "a whole number beyond range": '{"alias":"a","max_budget":1' + "0" * 400 + "}",
    "a whole number beyond Python's": '{"alias":"a","max_budget":1' + "0" * 5000 + "}",
    "deep objects": _nested(MAX_DEPTH),
    "deep lists": _nested(MAX_DEPTH, "[", "]"),
    "deeper than the stack": _nested(10_000, "[", "]"),
    "half a character": '{"alias":"\\ud800"}',
    "half a character, the other half": '{"alias":"a","team_id":"x\\udc00"}',
    "half a character in a list": '{"alias":"a","models":["\\udfff"]}',
    "half a character in a name": '{"alias":"a","metadata":{"\\ud83d":1}}',
    "half a character, deep inside": '{"alias":"a","metadata":{"x":[{"y":"\\ud83d"}]}}',
    "NUL": '{"alias":"a","metadata":{"x":"a\\u0000b"}}',
    "trailing comma": '{"alias":"a",}',
    "comment": '{"alias":"a"/* , */}',
    "single quotes": "{'alias':'a'}",
    "two documents": '{"alias":"a"}{"alias":"b"}',
    "byte order mark": '\ufeff{"alias":"a"}',
    "overlong UTF-8": b'{"alias":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"alias":"\xed\xa0\x80"}',
    "raw line break": '{"alias":"a\nb"}',
    "leading zero": '{"alias":"a","max_budget":010}',
    "hexadecimal": '{"alias":"a","max_budget":0x10}',
}
COMPRESSED = {
    "two streams": gzip.compress(b'{"alias":"a"}') + gzip.compress(b'{"x":1}'),
    "something behind the stream": gzip.compress(b'{"alias":"a"}') + b"{}",
    "cut off, and whole as JSON": zlib.compressobj(wbits=31).compress(b"")
    + gzip.compress(b'{"alias":"a"}')[:-8],
    "compressed twice": gzip.compress(gzip.compress(b'{"alias":"a"}')),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_route_reads_what_can_be_read_in_two_ways(rig: Rig, trick: str) -> None:
    routes = [each for each in surfaces(rig.app) if each.method in WRITES - {"DELETE"}]
    assert len(routes) > 9
    client, sent = PluginClient(rig.app), TRICKS[trick]
    static = {"Authorization": f"Bearer {STATIC_TOKEN}"}
    for route in routes:
        who = rig.credentials(CALLERS["keycloak"]) if route.bridged else static
        path = route.path(IDS)
        answer = client.request(route.method, path, raw=sent, headers=JSON | who)
        assert answer.status_code == 400, f"{route}: {answer.text}"
        assert isinstance(answer.get_json()["error"], str)
    assert rig.litellm.litellm.store.keys.keys() == {KEY, TEAM_KEY}


@pytest.mark.parametrize("trick", COMPRESSED)
def test_a_compressed_body_is_one_whole_stream(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers, trick: str
) -> None:
    answer = client.post("/keys/generate", raw=COMPRESSED[trick], headers=bob | GZIP)
    assert answer.status_code == 400
    assert litellm.calls == []


@pytest.mark.parametrize("charset", ["utf-7", "utf-8-sig", "UTF-9", "utf_16", "utf-"])
def test_a_body_is_in_a_charset_of_json(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers, charset: str
) -> None:
    sent = {"Content-Type": f"application/json; charset={charset}"}
    answer = client.post("/keys/generate", raw=b'{"alias":"+AGE-"}', headers=bob | sent)
    assert answer.status_code == 415
    assert litellm.calls == []


@pytest.mark.parametrize(
    "field",
    [
        {"max_budget": 1e308},
        {"max_budget": 5e-324},
        {"max_budget": 10**22},
        {"tpm_limit": MAX_LIMIT},
        {"metadata": json.loads(_nested(MAX_DEPTH - 2))["metadata"]},
        {"metadata": {"text": "Grüße, 😀\n"}},
    ],
    ids=str,
)
def test_what_is_unusual_and_means_one_thing_is_passed_on(rig: Rig, field: dict[str, Any]) -> None:
    answer = rig.ask("bob", "POST", "/keys/generate", json={"alias": "a", **field})
    assert answer.status_code == 200, answer.text
    (made,) = (
        row
        for row in rig.litellm.litellm.store.keys.values()
        if row["token"] not in {KEY, TEAM_KEY}
    )
    for name, value in field.items():
        kept = made[name]
        assert value.items() <= kept.items() if name == "metadata" else kept == value


@pytest.mark.parametrize("field", ["tpm_limit", "rpm_limit"])
@pytest.mark.parametrize("limit", [MAX_LIMIT + 1, 1e30, 10**300])
def test_a_limit_that_no_database_holds_is_refused(rig: Rig, field: str, limit: float) -> None:
    new_team = {"team_alias": "x", "models": ["gpt-4o"], "max_budget": 1}
    for path, body in (
        ("/keys/generate", {"alias": "a"}),
        (f"/keys/{KEY}/update", {}),
        ("/teams", new_team),
    ):
        answer = rig.ask("alice", "POST", path, json={**body, field: limit})
        assert answer.status_code == 400, path
        assert field in answer.get_json()["error"]
    answer = rig.ask("alice", "PATCH", f"/teams/{TEAM}", json={field: limit})
    assert answer.status_code == 400


@pytest.mark.parametrize("count", [1_000, 9_000])
def test_as_many_names_as_a_body_can_hold(rig: Rig, count: int) -> None:
    body = _many_names(count)
    assert len(body) < MAX_BODY
    answer = rig.ask("bob", "POST", "/keys/generate", raw=body, headers=JSON)
    assert answer.status_code == 200


def test_a_million_names_are_not_read(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers
) -> None:
    answer = client.post("/keys/generate", raw=_many_names(10**6), headers=bob | JSON)
    assert answer.status_code == 413
    assert litellm.calls == []
