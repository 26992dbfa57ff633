"""Loads the frontend's page against the real LiteLLM, side by side with the original.

Starts the real LiteLLM with its PostgreSQL, fills it with people, teams, keys and 300 days of
usage, starts a real Backstage with the npm plugin and our service beside it, and opens the page
of one user after the other, in turns. README.md says how to read it.

    python benchmarks/real.py --quick
    python benchmarks/real.py --json real.json
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import command
import load
import requests
import sides
from frontend import Browser
from report import table, times
from sides import MASTER_KEY, MOUNT, USER_ID_DOMAIN, Backstage, Ports, Service, Upstream

Json = dict[str, Any]

LITELLM_PORT = 4417
PORTS = Ports(upstream=4418, service=5417, backstage=7417, keycloak=7490)
LITELLM = f"http://127.0.0.1:{LITELLM_PORT}"

ORIGINAL, OURS = "original", "ours"
FRONTEND, LONG = 7, 299  # days before today, as far as the page goes back
HISTORY = 300  # days of usage, today among them
COLD, AGAIN, LATER = "cold", "again", "later"
FIRST, THEN = "first", "then"  # reads of usage with litellm.usage.store
KEEPING = "litellm: {usage: {store: true}, service: {cacheSeconds: 0}}\n"
LIFE = 3.5  # seconds; a little more than cacheSeconds is by default

ROUNDS, QUICK_ROUNDS = 12, 3
WARM_UPS = 3  # pages of each side that do not count
DIRECT = 8  # times that LiteLLM itself is asked for each path

TEAMS = 5  # of each user
COMPANY = 6  # people who share their teams
OWN_KEYS, TEAM_KEYS = 5, 4  # of a user; of a team
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4", "llama-3-8b", "o4-mini", "mistral-large")
SHARE = 4  # one of so many pairs of a key and a model is used on a day: 7 or 8 rows

# -- the real LiteLLM --------------------------------------------------------


@contextmanager
def litellm(shared: Path) -> Iterator[None]:
    """Run LiteLLM and its PostgreSQL, empty; in the end both are stopped, and empty again."""
    rig = shared / "litellm"
    env = {**os.environ, "LITELLM_PORT": str(LITELLM_PORT), "LITELLM_MASTER_KEY": MASTER_KEY}
    try:
        sides.run(rig / "up", env, sides.INSTALLING)
        sides.run(rig / "reset", env, sides.STARTING)
        yield
    finally:
        with suppress(sides.UnusableError):
            sides.run(rig / "reset", env, sides.STARTING)
        sides.run(rig / "down", env, sides.STARTING)


def id_of(name: str) -> str:
    """Return somebody's LiteLLM id."""
    return f"{name}@{USER_ID_DOMAIN}"


def fill(names: Sequence[str]) -> int:
    """Make users with teams, keys and usage; returns how many rows of usage there are."""
    companies = [names[first : first + COMPANY] for first in range(0, len(names), COMPANY)]
    with ThreadPoolExecutor(4) as pool:
        keys = [
            key for made in pool.map(_company, range(len(companies)), companies) for key in made
        ]
    return _usage(keys)


def _company(number: int, names: Sequence[str]) -> list[tuple[str, str]]:
    """Make people who share five teams; returns user id and hash of each of their keys."""
    for name in names:
        user = {"user_id": id_of(name), "user_email": id_of(name), "user_role": "internal_user"}
        _post("/user/new", {**user, "max_budget": 20, "auto_create_key": False})
    roles = [{"user_id": id_of(name), "role": "user"} for name in names]
    teams = [f"team-{number}-{team}" for team in range(TEAMS)]
    for team_id in teams:
        team = {"team_id": team_id, "team_alias": team_id, "max_budget": 50}
        _post("/team/new", {**team, "members_with_roles": roles})
        for key in range(TEAM_KEYS):
            _post("/key/generate", {"team_id": team_id, "key_alias": f"{team_id}-{key}"})
    made = []
    for name in names:
        for key in range(OWN_KEYS):
            wanted = {"user_id": id_of(name), "key_alias": f"{name}-{key}", "key_type": "llm_api"}
            if key % 2:
                wanted["team_id"] = teams[key]
            made.append((id_of(name), str(_post("/key/generate", wanted)["token"])))
    return made


def _post(path: str, body: Json) -> Json:
    answer = requests.post(
        LITELLM + path, json=body, headers={"Authorization": f"Bearer {MASTER_KEY}"}, timeout=60
    )
    if answer.status_code != 200:
        raise sides.UnusableError(f"LiteLLM answers {path} with {answer.text[:1000]}")
    made: Json = answer.json()
    return made


def _usage(keys: Sequence[tuple[str, str]]) -> int:
    """Write usage into LiteLLM's table; by itself it only counts what happens today."""
    of_user: Counter[str] = Counter()
    owned = []
    for user_id, token in keys:
        owned.append(f"('{user_id}', '{token}', {of_user[user_id]})")
        of_user[user_id] += 1
    models = ", ".join(f"('{model}', {number})" for number, model in enumerate(MODELS))
    statement = f"""
insert into "LiteLLM_DailyUserSpend"
  (id, user_id, date, api_key, model, model_group, custom_llm_provider, endpoint,
   prompt_tokens, completion_tokens, spend, api_requests, successful_requests, failed_requests,
   total_response_time_ms, timed_requests, updated_at)
select gen_random_uuid()::text, key.user_id, ((now() at time zone 'utc')::date - day)::text,
   key.token, 'openai/' || model.name, model.name, 'openai', '/chat/completions',
   257 * weight, 380 * weight, 0.00299965 * weight, 20 * weight, 19 * weight, weight,
   27 * weight, 20 * weight, now()
from (values {", ".join(owned)}) as key (user_id, token, number),
   (values {models}) as model (name, number),
   generate_series(0, {HISTORY - 1}) as day,
   lateral (select 1 + (day * 7 + key.number + model.number) % 5 as weight) as used
where (key.number + model.number + day) % {SHARE} = 0;
analyze;
"""
    _sql(statement)
    return int(_sql('select count(*) from "LiteLLM_DailyUserSpend"'))


def _sql(statement: str) -> str:
    port = os.environ.get("LITELLM_PG_PORT", "54329")
    psql = [
        "psql",
        "-XqAt",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        "127.0.0.1",
        "-p",
        port,
        "-U",
        "litellm",
    ]
    done = subprocess.run(
        [*psql, "-d", f"litellm_{LITELLM_PORT}"],
        input=statement,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise sides.UnusableError(f"PostgreSQL: {done.stderr[:1000]}")
    return done.stdout


# -- pages -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Page:
    """One page load.

    Attributes:
        milliseconds: Until the last of the twelve answers.
        calls: To LiteLLM, by path.
    """

    milliseconds: float
    calls: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who opens the page on one of the sides, and never on the other."""

    name: str
    token: str


class Pages:
    """Opens the page.

    Args:
        relay: Counts.
        backstage: With the original in it.
        service: Ours.
    """

    def __init__(self, relay: Upstream, backstage: Backstage, service: Service) -> None:
        self._relay = relay
        self._urls = {ORIGINAL: backstage.url, OURS: service.url}

    def open(self, side: str, who: Person, days: int) -> Page:
        """Open the page of somebody, with the usage of some days."""
        browser = Browser(self._urls[side], MOUNT, "/usage?" + period(days), [who.token])
        before = self._relay.calls()
        taken = load.full_speed([browser], first=0, jobs=1)
        calls = Counter(self._relay.calls()) - Counter(before)
        if taken.failed:
            raise sides.UnusableError(f"a page load of {side} failed, of {who.name}")
        return Page(taken.p50, dict(calls))


def period(days: int) -> str:
    """Return the query for today and some days before."""
    today = datetime.now(UTC).date()
    return f"start_date={today - timedelta(days=days)}&end_date={today}"


def measure(pages: Pages, people: Sequence[Person], days: int, rounds: int) -> Json:
    """Open the page for two people in each round, once for each side.

    Returns:
        By when, then by side: the pages in order.
    """
    found: dict[str, dict[str, list[Page]]] = {
        when: {ORIGINAL: [], OURS: []} for when in (COLD, AGAIN, LATER)
    }
    turns = []
    for number in range(rounds):
        turn = list(zip((ORIGINAL, OURS), people[2 * number : 2 * number + 2], strict=True))
        # Who is first takes turns, too.
        turns += turn if number % 2 else turn[::-1]
    for side, who in turns:
        for when in (COLD, AGAIN):
            found[when][side].append(pages.open(side, who, days))
    time.sleep(LIFE)
    for side, who in turns:
        found[LATER][side].append(pages.open(side, who, days))
    return {
        when: {side: _summary(loaded) for side, loaded in by_side.items()}
        for when, by_side in found.items()
    }


def _summary(loaded: Sequence[Page]) -> Json:
    taken = [page.milliseconds for page in loaded]
    calls = [sum(page.calls.values()) for page in loaded]
    paths = sorted({path for page in loaded for path in page.calls})
    return {
        "p50": statistics.median(taken),
        "worst": max(taken),
        "calls": statistics.median(calls),
        "paths": {
            path: statistics.mean(page.calls.get(path, 0) for page in loaded) for path in paths
        },
        "runs": [{"ms": page.milliseconds, "calls": dict(page.calls)} for page in loaded],
    }


def direct(people: Sequence[Person]) -> list[Json]:
    """Ask LiteLLM itself, without the relay, for one person after the other."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {MASTER_KEY}"
    activity = "/user/daily/activity"
    asked = {
        "/user/info": "/user/info?user_id=USER",
        "/v2/user/info": "/v2/user/info?user_id=USER",
        "/key/list": "/key/list?user_id=USER&return_full_object=true&size=100",
        "/v2/team/list": "/v2/team/list?user_id=USER&page_size=100",
        "/model/info": "/model/info",
        "aggregated, today": f"{activity}/aggregated?{period(0)}&user_id=USER",
        "aggregated, 8 days": f"{activity}/aggregated?{period(FRONTEND)}&user_id=USER",
        "aggregated, 300 days": f"{activity}/aggregated?{period(LONG)}&user_id=USER",
        "sums by key, 300 days": f"{activity}/aggregated/keys?{period(LONG)}&user_id=USER",
        # What the original asks for, however many there are.
        "100 rows, 8 days": f"{activity}?page_size=100&{period(FRONTEND)}&user_id=USER",
        "100 rows, 300 days": f"{activity}?page_size=100&{period(LONG)}&user_id=USER",
    }
    found = []
    for name, path in asked.items():
        taken, size = [], 0
        for number in range(DIRECT):
            who = people[number % len(people)]
            begun = time.perf_counter()
            path_of = path.replace("USER", quote(id_of(who.name)))
            answer = session.get(LITELLM + path_of, timeout=60)
            taken.append(1000 * (time.perf_counter() - begun))
            if answer.status_code != 200:
                raise sides.UnusableError(f"LiteLLM answers {path_of} with {answer.text[:1000]}")
            size = len(answer.content)
        found.append({"what": name, "p50": statistics.median(taken), "bytes": size, "ms": taken})
    return found


def kept(service: Service, relay: Upstream, people: Sequence[Person]) -> list[Json]:
    """Ask a service with ``litellm.usage.store``, and no cache, for 300 days of usage, twice."""
    session = requests.Session()
    url = f"{service.url}{MOUNT}/usage?{period(LONG)}"
    found = []
    for when in (FIRST, THEN):
        taken, before = [], Counter(relay.calls())
        for who in people:
            begun = time.perf_counter()
            answer = session.get(url, headers={"Authorization": f"Bearer {who.token}"}, timeout=60)
            taken.append(1000 * (time.perf_counter() - begun))
            if answer.status_code != 200:
                raise sides.UnusableError(f"the service answers /usage with {answer.text[:1000]}")
        calls = Counter(relay.calls()) - before
        found.append({"when": when, "p50": statistics.median(taken), "calls": dict(calls)})
    return found


# -- the report --------------------------------------------------------------


def told(found: Json) -> str:
    """Return what was found, as tables."""
    head = ["page load", "orig ms", "ours ms", "ours/orig", "orig worst", "ours worst"]
    head += ["orig calls", "ours calls"]
    body = []
    for row in found["pages"]:
        for when in (COLD, AGAIN, LATER):
            original, ours = row[when][ORIGINAL], row[when][OURS]
            body.append(
                [
                    f"{row['days']} days, {when}",
                    f"{original['p50']:.0f}",
                    f"{ours['p50']:.0f}",
                    times(ours["p50"], original["p50"]),
                    f"{original['worst']:.0f}",
                    f"{ours['worst']:.0f}",
                    f"{original['calls']:g}",
                    f"{ours['calls']:g}",
                ]
            )
    paths = found["pages"][0][COLD]
    detail = "\n".join(
        f"calls of {side}, cold: " + ", ".join(f"{n:g} {path}" for path, n in of["paths"].items())
        for side, of in paths.items()
    )
    own = table(
        ["LiteLLM itself, one at a time", "ms", "kB"],
        [
            [row["what"], f"{row['p50']:.0f}", f"{row['bytes'] / 1000:.0f}"]
            for row in found["litellm"]
        ],
    )
    stored = table(
        ["300 days of usage, kept", "ms", f"calls, for {DIRECT} people"],
        [
            [
                row["when"],
                f"{row['p50']:.0f}",
                " ".join(f"{n} {p}" for p, n in row["calls"].items()),
            ]
            for row in found["kept"]
        ],
    )
    facts = found["environment"]
    commit = facts["commit"] + (" with uncommitted changes" if facts["uncommitted"] else "")
    where = (
        f"{facts['when']}  {facts['cores']} cores  Python {facts['python']}  "
        f"node {facts['node']}  commit {commit}  {found['rows']} rows of usage, "
        f"{found['rounds']} rounds"
    )
    if facts["load_before"] > 0.5:
        where += f"\nThe machine was not idle: load {facts['load_before']:.2f} at the start."
    return "\n\n".join([where, table(head, body), detail, own, stored])


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}"
    )
    command.add_common(parser)
    given = parser.parse_args()
    rounds = QUICK_ROUNDS if given.quick else ROUNDS
    per_period = WARM_UPS * 2 + rounds * 2
    names = [f"real-{number:04d}" for number in range(2 * per_period)]
    with command.ready(given) as folder, ExitStack() as stack:
        sides.check_tools(given.shared, ("backstage", "litellm"), wrk=False)
        found: Json = {"environment": command.environment(given.checkout), "rounds": rounds}
        stack.enter_context(litellm(given.shared))
        command.say(f"filling LiteLLM with {len(names)} people ...")
        found["rows"] = fill(names)
        relay = stack.enter_context(
            sides.upstream(folder, "--to", str(LITELLM_PORT), program="relay.py", ports=PORTS)
        )
        backstage = stack.enter_context(sides.backstage(given.shared, folder, PORTS))
        run = partial(sides.service, given.shared, folder, given.checkout, ports=PORTS)
        with run(overlays=given.config) as service:
            sides.introduce(backstage, service)
            people = list(map(Person, names, backstage.sign_all_in(names)))
            pages = Pages(relay, backstage, service)
            found["pages"] = []
            for days, crowd in ((FRONTEND, people[:per_period]), (LONG, people[per_period:])):
                command.say(f"pages with the usage of {days + 1} days ...")
                for number, who in enumerate(crowd[: WARM_UPS * 2]):
                    pages.open((ORIGINAL, OURS)[number % 2], who, days)
                row = measure(pages, crowd[WARM_UPS * 2 :], days, rounds)
                found["pages"].append({"days": days + 1, **row})
        command.say("days of usage in the store ...")
        keeping = folder / "app-config.keeping.yaml"
        keeping.write_text(KEEPING)
        with run(overlays=[*given.config, keeping]) as service:
            found["kept"] = kept(service, relay, people[:DIRECT])
        command.say("LiteLLM itself ...")
        found["litellm"] = direct(people)
    command.finish(given, found, told(found))


if __name__ == "__main__":
    main()
