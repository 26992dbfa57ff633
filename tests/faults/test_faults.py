"""Whatever goes wrong is answered in time and rightly; nothing is left over, nothing leaks."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from litellm_plugin.keys.undelivered import Outcome
from tests.cache.redis_server import needs_redis
from tests.faults import proxy, scenarios
from tests.faults.rig import MOUNT, UNHURRIED, Rig, Route, running
from tests.faults.scenarios import BACKSTAGE, LITELLM, BackstageFault, LiteLLMFault, Row

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("faults")) as rig:
        yield rig


def as_it_must_be(row: Row) -> None:
    if row.problems:
        pytest.fail("\n".join([row.fault, *row.problems]), pytrace=False)


@pytest.mark.parametrize("fault", LITELLM, ids=lambda fault: str(fault.name))
def test_under_a_fault_of_litellm(rig: Rig, fault: LiteLLMFault) -> None:
    as_it_must_be(scenarios.under_litellm_fault(rig, fault))


@pytest.mark.parametrize("fault", BACKSTAGE, ids=lambda fault: str(fault.name))
def test_under_a_fault_of_backstage(rig: Rig, fault: BackstageFault) -> None:
    as_it_must_be(scenarios.under_backstage_fault(rig, fault))


def test_backstage_comes_later_than_the_service(tmp_path: Path) -> None:
    as_it_must_be(scenarios.backstage_down_at_start(tmp_path))


def test_backstage_is_away_before_the_first_token_comes(tmp_path: Path) -> None:
    read = threading.Event()

    def tell(exchange: proxy.Exchange) -> None:
        proxy.none(exchange)
        if exchange.asked.target.endswith("/jwks.json"):
            read.set()

    with running(tmp_path / "away", total=UNHURRIED) as rig:
        assert rig.ask(Route("GET", "/keys")).status == 200  # the first worker has read them now
        rig.backstage.spoil(tell)
        os.kill(rig.worker, signal.SIGKILL)  # another one is started, which has seen no token
        assert read.wait(20)
        rig.backstage.refuse()

        assert rig.ask(Route("GET", "/keys")).status == 200


def test_a_rotated_key_is_followed_at_once(rig: Rig) -> None:
    as_it_must_be(scenarios.rotated(rig))


def test_a_rotated_key_can_not_be_followed_while_backstage_is_down(rig: Rig) -> None:
    as_it_must_be(scenarios.rotated_then_down(rig))


def test_clocks_that_differ_are_judged_as_backstage_does(rig: Rig) -> None:
    as_it_must_be(scenarios.clocks(rig))


@needs_redis
def test_without_redis_the_service_goes_on(tmp_path: Path) -> None:
    for row in scenarios.redis_gone(tmp_path):
        as_it_must_be(row)


@pytest.mark.parametrize("up", [True, False])
def test_a_worker_that_ends_looks_once_more_for_a_key_that_nobody_got(
    tmp_path: Path, up: bool
) -> None:
    with running(tmp_path) as rig:
        (generate,) = [route for route in rig.routes if route.path == "/keys/generate"]
        rig.ask_all(rig.routes)

        def acts_and_goes(exchange: proxy.Exchange) -> None:
            if exchange.asked.target == "/key/generate":
                exchange.forward()
                rig.litellm.refuse()
            raise proxy.Gone

        rig.litellm.spoil(lambda e: (proxy.none if e.asked.method == "GET" else acts_and_goes)(e))
        answer = rig.ask(generate)
        assert answer.error.endswith(Outcome.LATER)
        assert generate.body["alias"] in rig.aliases()
        if up:
            rig.litellm.mend()

        rig.process.terminate()
        assert rig.process.wait(20) == 0

        assert (generate.body["alias"] in rig.aliases()) is not up
        told = f"delete it in LiteLLM, if it is there: key '{generate.body['alias']}'"
        assert (told in rig.log) is not up
        assert "Traceback" not in rig.log


@pytest.mark.parametrize("gone", [True, False])
def test_a_key_whose_client_has_hung_up_is_removed(rig: Rig, gone: bool) -> None:
    made, goes_on = threading.Event(), threading.Event()

    def held(exchange: proxy.Exchange) -> None:
        answer = exchange.forward()
        if exchange.asked.target == "/key/generate":
            made.set()
            goes_on.wait(30)
        exchange.send(answer)

    (route,) = [route for route in rig.routes if route.path == "/keys/generate"]
    body = json.dumps(route.body)
    host, port = urlsplit(rig.url).hostname, urlsplit(rig.url).port
    rig.litellm.spoil(held)
    with socket.create_connection((host, port), timeout=20) as client:
        head = f"POST {MOUNT}{route.path} HTTP/1.1\r\nHost: {host}\r\n"
        head += "Content-Type: application/json\r\n"
        head += f"Authorization: Bearer {rig.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall((head + body).encode())
        assert made.wait(20)
        assert route.body["alias"] in rig.aliases()
        if gone:
            client.close()
            time.sleep(0.05)  # for it to be known on the other side
        goes_on.set()
        if not gone:
            assert b" 200 OK" in client.recv(1000)
    rig.litellm.mend()

    assert rig.settled(lambda: (route.body["alias"] in rig.aliases()) is not gone)
