"""Paths that mean one thing to a proxy, another to the barrier, and a third to the router."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.client import MOUNT, PluginClient
from tests.fakes import Asked, FakeLiteLLM
from tests.rig import Rig
from tests.security.surface import PUBLIC, Surface, surfaces
from tests.standin import KEY

OPEN = (*sorted(PUBLIC), "/bridge/keys", "/bridge/models")

IDS = {
    "a slash": "a/b",
    "dots": "../../user/new",
    "dots only": "..",
    "one dot": ".",
    "a backslash": "..\\..",
    "a semicolon": "a;b=c",
    "NUL": "a\0b",
    "a line break": "a\r\nX-Evil: 1",
    "a question mark": "a?user_id=x",
    "a hash": "a#b",
    "encoded twice": "a%2Fb",
    "a NUL encoded twice": "a%00b",
    "no UTF-8": "%FF%FE",
    "overlong UTF-8": "%C0%AF",
    "half a character": "%ED%A0%80",
    "too long": "a" * 4000,
    "a space": " ",
    "right to left": "\u202egpj",
    "a wide slash": "a\uff0fb",
}
COMMON = {"a slash", "dots", "NUL", "a line break", "a question mark", "encoded twice", "no UTF-8"}


@pytest.mark.parametrize(
    "trick",
    [
        pytest.param(trick, marks=() if trick in COMMON else pytest.mark.deep, id=trick)
        for trick in IDS
    ],
)
def test_an_odd_id_is_nobodys_and_stays_in_its_place(
    rig: Rig, asked: list[Asked], trick: str
) -> None:
    id_ = IDS[trick]
    sent = id_ if id_.startswith("%") else quote(id_, safe="")
    for route in surfaces(rig.app):
        if not route.names or route.method == "HEAD":
            continue
        path = route.path(dict.fromkeys(route.names, "ID")).replace("ID", sent)
        target = f"{path}?start_date=2026-11-01&end_date=2026-11-02&userEntityRef=user:default/bob"
        answer = rig.ask(route.caller, route.method, target, json={"alias": "a"})
        assert answer.status_code in {400, 403, 404}, f"{route}: {answer.text}"
        assert "X-Evil" not in answer.headers
    # Asked about that id at most, in a query, and nothing was written.
    assert {call.method for call in asked} <= {"GET"}
    parts = {"/v2/user/info", "/key/list", "/v2/team/list"}
    assert {call.path for call in asked} <= {"/user/info", "/team/info", *parts}


def _disguised(route: Surface, paths: tuple[str, ...]) -> Iterator[str]:
    """Yield targets that look open from one side and lead to ``route`` from the other."""
    id_ = next(iter(route.names), None)
    for path in paths:
        if id_ is not None:
            inner = route.path({**dict.fromkeys(route.names, KEY), id_: "ID"}).replace(
                "ID", path.lstrip("/")
            )
            yield f"/api%2Flitellm{inner}"
            yield f"/api/litellm{inner}"
        plain = route.path(dict.fromkeys(route.names, KEY))
        yield f"{MOUNT}{path}/..{plain}"
        yield f"{MOUNT}{path}/..%2F..{plain}"
        yield f"{MOUNT}{path}%2F..%2F..{plain}"
        yield f"{MOUNT}{path};{plain}"
        yield f"{MOUNT}{path}%00{plain}"
        yield f"{MOUNT}{plain}%3F{path}"
        yield f"{MOUNT}{plain}%23{path}"
        yield f"/{MOUNT}{plain}"
        yield f"{MOUNT}/{plain}"
        yield f"{MOUNT.replace('/', '%2F')}{plain}"
        yield f"{MOUNT.upper()}{plain}"
        yield f"http://evil.example{MOUNT}{path}#{plain}"


def test_no_path_slips_by_the_barrier(rig: Rig, asked: list[Asked]) -> None:
    client = PluginClient(rig.app, mount="")
    for number, route in enumerate(surfaces(rig.app)):
        if route.rule in OPEN or route.method == "HEAD":
            continue
        for target in _disguised(route, OPEN[number % len(OPEN) :][:1]):
            answer = client.request(route.method, target, json={})
            assert answer.status_code in {400, 401, 403, 404, 405}, f"{route}: {target}"
    assert asked == []


def test_the_barrier_looks_at_the_path_that_is_served(rig: Rig) -> None:
    """Its beginning is no open path, whatever the slashes in front of it are."""
    client = PluginClient(rig.app, mount="")
    query = "?start_date=2026-11-01&end_date=2026-11-02"
    target = f"/api%2Flitellm/teams/bridge/keys/usage{query}"
    assert client.get(target).status_code == 401
    assert client.get(target, headers=rig.credentials("bob")).status_code == 404


def test_a_made_up_mount_does_not_move_the_barrier(rig: Rig) -> None:
    """A client's SCRIPT_NAME header is none to gunicorn; this is what it would do."""

    def mounted(environ, start_response):  # type: ignore[no-untyped-def]
        environ["SCRIPT_NAME"] = "/a/b"
        return rig.app(environ, start_response)

    client = PluginClient(mounted)
    for path in ("/config", "/health"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=rig.credentials("bob")).status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        "/keys?user_id=carol@example.com&user_id=bob@example.com",
        "/usage?start_date=2026-11-01&start_date=2026-11-02&end_date=2026-11-03",
        "/audit?page=1&page=2",
        "/audit?page_size=1&page=1&page_size=100",
        "/provisioning/preview?group=a&group=b",
        "/opencode/connect?redirect_uri=http://localhost:1/callback&redirect_uri=http://evil/",
        "/opencode/connect?redirect_uri=http://localhost:1/callback&team=a&team=b",
    ],
)
def test_a_parameter_that_is_there_twice_is_refused(
    rig: Rig, asked: list[Asked], target: str
) -> None:
    who = "static" if target.startswith("/keys") else "alice"
    answer = rig.ask(who, "GET", target)
    assert answer.status_code == 400
    assert "more than once" in answer.get_json()["error"]
    assert [call for call in asked if call.method != "GET"] == []


def test_a_parameter_adds_nothing_to_what_litellm_is_asked(
    client: PluginClient, litellm: FakeLiteLLM, alice: dict[str, str]
) -> None:
    litellm.get("/audit", json={})
    evil = "x%26user_id%3Dcarol%26page%3D9%23%0D%0AX-Evil%3A1"
    client.get(f"/audit?action={evil}&user_id=carol&view=all", headers=alice)
    (call,) = litellm.calls
    assert (
        call.query == f"page_size=25&action={evil.replace('%0d%0a', '%0D%0A').replace(':', '%3A')}"
    )
