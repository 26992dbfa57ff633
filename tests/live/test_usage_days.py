"""Kept days of usage: the totals are LiteLLM's own, to the cent, whatever it adds later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from tests.faults.proxy import Exchange, Proxy
from tests.live.kinds import Deploy, Person, Told
from tests.live.rigs import LITELLM_PORT, LITELLM_VERSION, LiteLLMRig
from tests.live.service import Service
from tests.live.web import Client, days, eventually, json_of

DAYS = 300
TEAM = "team-ml"
TABLES = {"user": "LiteLLM_DailyUserSpend", "team": "LiteLLM_DailyTeamSpend"}
NO_SUMS = LITELLM_VERSION == "1.81.14"  # it has no sums by key, so kept days are not used

Call = tuple[str, int]  # path and query, and bytes of the answer


@pytest.fixture(scope="module")
def line() -> Iterator[tuple[Proxy, list[Call]]]:
    """A proxy in front of LiteLLM, and the calls for usage that went through it."""
    calls: list[Call] = []

    def watch(exchange: Exchange) -> None:
        answer = exchange.forward()
        if "/daily/activity" in exchange.asked.target:
            calls.append((exchange.asked.target, len(answer)))
        exchange.send(answer)

    proxy = Proxy(LITELLM_PORT)
    proxy.spoil(watch)
    yield proxy, calls
    proxy.stop()


@pytest.fixture(scope="module")
def keeping(deploy: Deploy, line: tuple[Proxy, list[Call]]) -> Service:
    """A service that keeps days, and nothing else."""
    env = {"WEB_CONCURRENCY": "1", "LITELLM_BASE_URL": line[0].url}
    return deploy("keeping", "  usage:\n    store: true\n", env=env)


def test_300_days_cost_litellm_one_and_are_its_own_to_the_cent(
    person: Person,
    keeping: Service,
    line: tuple[Proxy, list[Call]],
    litellm: LiteLLMRig,
    told: Told,
) -> None:
    calls = line[1]
    kept, plain = person("ivan", at=keeping), person("ivan")
    keys = [_used_today(plain, litellm) for _ in range(4)]
    _copied_to_the_past(litellm, keys)
    today = datetime.now(UTC).date()
    period = {"start_date": str(today - timedelta(days=DAYS - 1)), "end_date": str(today)}

    late = [today - timedelta(days=ago) for ago in (201, 202)]  # one of them has usage

    def check(path: str, when: str) -> None:
        calls.clear()
        began = time.monotonic()
        report = json_of(kept.get(path, **period))
        seconds, read = time.monotonic() - began, list(calls)
        owner, whose = ("team", {"team_ids": TEAM}) if TEAM in path else ("user", {})
        whose = whose or {"user_id": "ivan@example.com"}
        own = json_of(litellm.admin.get(f"/{owner}/daily/activity", **period, **whose,
                                        page_size="1000"))["metadata"]  # fmt: skip
        assert own["total_pages"] <= 1, "one page has all rows"
        for name in ("spend", "tokens", "api_requests", "failed_requests"):
            ours = report.get(f"total_{name}", report.get(name))
            assert ours == pytest.approx(own[f"total_{name}"], rel=0, abs=1e-9), name
        assert _rounded(report) == _rounded(json_of(plain.get(path, **period)))
        long = [target for target, _ in read if f"start_date={period['start_date']}" in target]
        again = [target for target in long if "/keys?" not in target]
        assert bool(again) == (when in {"first", "late"} or NO_SUMS)
        told(f"{path}, {when}: {len(read)} calls, {sum(size for _, size in read)} bytes,"
             f" {seconds:.2f} s, {report['total_spend']:.6f} USD")  # fmt: skip

    for path in ("/usage", f"/teams/{TEAM}/usage"):
        check(path, "first")
        check(path, "second")
        owner = "team" if TEAM in path else "user"
        litellm.sql(
            f'update "{TABLES[owner]}" set spend = spend + 0.01, api_requests = api_requests + 1'
            f" where api_key = '{keys[0]}' and date in ('{late[0]}', '{late[1]}')"
        )
        check(path, "late")
        check(path, "second")
    renamed = {"key_alias": f"renamed-{uuid4().hex[:8]}"}
    json_of(plain.post(f"/keys/{keys[1]}/update", renamed))
    json_of(plain.delete(f"/keys/{keys[2]}"))
    eventually(lambda: _alias(litellm, keys[1]) == renamed["key_alias"])
    for path in ("/usage", f"/teams/{TEAM}/usage"):
        check(path, "second")


def _used_today(client: Client, litellm: LiteLLMRig) -> str:
    """Return the hash of a new key whose usage LiteLLM has recorded."""
    wanted = {"alias": f"days-{uuid4().hex[:8]}", "team_id": TEAM}
    key = json_of(client.post("/keys/generate", wanted))
    json_of(litellm.complete(key["key"], "gpt-4o"))
    token: str = key["token"]
    for path in ("/usage", f"/teams/{TEAM}/usage"):
        eventually(partial(_is_in, client, path, token))
    return token


def _is_in(client: Client, path: str, token: str) -> bool:
    return token in json_of(client.get(path, **days()))["usage_by_key"]


def _copied_to_the_past(litellm: LiteLLMRig, keys: list[str]) -> None:
    """Copy the rows of keys to the days before; each day with other figures."""
    tokens = ", ".join(f"'{key}'" for key in keys)
    for owner, table in TABLES.items():
        litellm.sql(
            f'insert into "{table}" (id, {owner}_id, date, api_key, model, model_group,'
            " custom_llm_provider, endpoint, prompt_tokens, completion_tokens, spend, api_requests,"
            " successful_requests, updated_at)"
            f" select gen_random_uuid()::text, {owner}_id, (date::date - day)::text, api_key,"
            " model, model_group, custom_llm_provider, endpoint, prompt_tokens * (day % 7),"
            " completion_tokens * (day % 7), spend * (day % 7) / 3, api_requests * (day % 7),"
            f' successful_requests * (day % 7), now() from "{table}",'
            f" generate_series(1, {DAYS - 1}) as day where api_key in ({tokens}) and day % 7 > 4"
            " and (day + ascii(api_key)) % 2 = 0"
        )


def _alias(litellm: LiteLLMRig, token: str) -> Any:
    return litellm.key(token)["key_alias"]


def _rounded(value: Any) -> Any:
    """Return a report without the last digits, and the order of models and keys."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return sorted(map(_rounded, value), key=str)
    return round(value, 9) if isinstance(value, float) else value
