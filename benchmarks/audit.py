"""Measures the audit events of the store: pages among millions, and what a request pays.

.venv/bin/python benchmarks/audit.py --rows 10000000            # PostgreSQL, ten minutes
.venv/bin/python benchmarks/audit.py --sqlite --rows 1000000
.venv/bin/python benchmarks/audit.py --requests                 # what a request pays

PostgreSQL (Debian's package) is started in a temporary folder, as the user postgres where this
program runs as root. Ten million events take 8 GB there while it runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from litellm_plugin import create_app
from litellm_plugin.audit.reader import AuditReader
from litellm_plugin.audit.writer import AuditWriter
from litellm_plugin.config import load_settings
from litellm_plugin.config.database import Database
from litellm_plugin.observability.journal import Change
from litellm_plugin.store.audit import AuditEvents
from litellm_plugin.store.database import Store
from litellm_plugin.store.tables import audit_events

DAYS = 400
PEOPLE = 2000
ROUNDS = 15
FIRST_DAY = "2025-10-01"

# By the number n of the event: a fifth is denied, a fifth is of one service.
COLUMNS = {
    "action": "case when n % 5 = 0 then 'denied' when n % 7 = 0 then 'created' "
    "when n % 11 = 0 then 'deleted' else 'updated' end",
    "table_name": "case when n % 3 = 0 then 'LiteLLM_TeamTable' "
    "else 'LiteLLM_VerificationToken' end",
    "changed_by": "case when n % 5 = 1 then 'external:ci' "
    f"else 'user:default/person-' || (n % {PEOPLE} * 7919 % {PEOPLE}) end",
    "denied": "n % 5 = 0",
}
LINE = json.dumps(
    {
        "isAuditEvent": True,
        "eventId": "key-update",
        "severityLevel": "medium",
        "status": "succeeded",
        "plugin": "litellm",
        "actor": {"actorId": "user:default/person", "ip": "10.0.3.7", "userAgent": "Mozilla/5.0"},
        "request": {"url": "/api/litellm/keys/[redacted]/update", "method": "POST"},
        "meta": {"statusCode": 200, "keyId": "0b6e4e6f2f4a", "fields": {"max_budget": 50}},
    }
)
# Of those columns that pages do not select by: as long as real ones.
REST = {
    "chain": "'benchmark'",
    "sequence": "n",
    "previous": f"'{'a' * 64}'",
    "hash": f"'{'b' * 64}'",
    "object_id": f"'{'c' * 64}'",
    "before_value": "'{\"max_budget\": 10}'",
    "updated_values": "'{\"max_budget\": 50}'",
    "event": f"'{LINE}'",
}


class NoLiteLLM:
    """Stands for an open-source LiteLLM, whose audit log is empty."""

    def audit_log(self, _query: Any) -> Any:
        """Return an empty page."""
        return {"audit_logs": [], "total": 0}


@contextmanager
def postgres() -> Iterator[Database]:
    """Run a PostgreSQL in a temporary folder."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    folder = Path(tempfile.mkdtemp(prefix="audit-benchmark-", dir="/var/tmp"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def call(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, cwd="/", stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    call(str(programs / "initdb"), "-D", data, "-U", "litellm", "-A", "trust", "-E", "UTF8")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off -c shared_buffers=512MB"
    options += " -c maintenance_work_mem=512MB -c max_wal_size=4GB"
    server = str(programs / "pg_ctl")
    call(server, "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start")
    try:
        yield Database(client="pg", host=str(folder), user="litellm", database="postgres")
    finally:
        call(server, "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


def fill(store: Store, rows: int) -> None:
    """Insert events of ``DAYS`` days, and their counts."""
    pg = store.shared
    if pg:
        series = f"generate_series(1, {rows}) as n"
        at = f"(timestamp '{FIRST_DAY}' + n * {DAYS * 86400 / rows} * interval '1 second')"
        at = f'to_char({at}, \'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\')'
    else:
        series = (
            "(with recursive s(n) as (select 1 union all select n + 1 from s"
            f" where n < {rows}) select n from s)"
        )
        at = f"strftime('%Y-%m-%dT%H:%M:%fZ', '{FIRST_DAY}', (n * {DAYS * 86400 / rows})"
        at += " || ' seconds')"
    columns = {"at": at, **COLUMNS, **REST}
    by = "substr(at, 1, 10), action, table_name, denied"
    indexes = [index for index in audit_events.indexes if index.name]
    with store.write() as connection:
        # exec_driver_sql takes the colons of JSON and of times as they are.
        run = connection.exec_driver_sql
        for index in indexes:
            index.drop(connection)
        if pg:
            run("alter table audit_events set unlogged")
        run(
            f"insert into audit_events ({', '.join(columns)})"
            f" select {', '.join(columns.values())} from {series}".replace("%", "%%" if pg else "%")
        )
        for whose, grouped in (("changed_by", f"changed_by, {by}"), ("''", by)):
            run(
                "insert into audit_counts (changed_by, day, action, table_name, denied, events)"
                f" select {whose}, {by}, count(*) from audit_events group by {grouped}"
            )
        for index in indexes:
            index.create(connection)
    if pg:
        with store._engine().connect() as connection:  # noqa: SLF001
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text("VACUUM ANALYZE"))


def pages(store: Store, rows: int) -> None:
    """Print how long pages take."""
    writer = AuditWriter(AuditEvents(store), lambda: datetime.now(UTC))
    reader = AuditReader(NoLiteLLM(), writer)  # type: ignore[arg-type]
    shown = rows * 4 // 5
    queries = {
        "the first page": {},
        "the first page, denials too": {"include": "denied"},
        "in the middle": {"page": str(shown // 50)},
        "the last page": {"page": str(shown // 25)},
        "action": {"action": "deleted"},
        "action, in the middle": {"action": "deleted", "page": str(rows // 14 // 50)},
        "table": {"table_name": "LiteLLM_TeamTable"},
        "action and table": {"action": "created", "table_name": "LiteLLM_TeamTable"},
        "a person": {"changed_by": "user:default/person-77"},
        "a person, in the middle": {"changed_by": "user:default/person-77", "page": "20"},
        "a service with a fifth of all": {"changed_by": "external:ci"},
        "the same, in the middle": {"changed_by": "external:ci", "page": str(rows // 5 // 50)},
        "a month": {"start_date": "2026-03-10T09:30:00Z", "end_date": "2026-04-09T17:00:00Z"},
        "nobody": {"changed_by": "user:default/nobody"},
    }
    print(f"\n| {rows:,} events, {store.database.client} | total | ms, median | ms, most |")
    print("|---|---|---|---|")
    for name, query in queries.items():
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            answer = reader.page(query)
            times.append((time.perf_counter() - began) * 1000)
        left = answer["total"] - (answer["page"] - 1) * answer["page_size"]
        assert len(answer["audit_logs"]) == max(0, min(25, left)), (name, answer["total"])
        print(
            f"| {name} | {answer['total']:,} | {statistics.median(times):.1f} | {max(times):.1f} |"
        )


def writing(store: Store) -> None:
    """Print how many events a second are stored, in batches of one process."""
    events = AuditEvents(store)
    writer = AuditWriter(events, lambda: datetime.now(UTC))
    entry = {
        **json.loads(LINE),
        "timestamp": "2026-11-30T12:00:00.000Z",
        "error": None,
    }
    people = [f"user:default/{number}" for number in range(200)]
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < 5:
        for _ in range(500):
            entry["actor"] = {"actorId": random.choice(people)}
            writer.add(dict(entry), Change("c" * 64, {"max_budget": 10}, {"max_budget": 50}))
        writer.flush()
        number += 500
    print(f"\n{number / (time.perf_counter() - began):,.0f} events a second are stored")
    writer.close()


def requests_pay(folder: Path) -> None:
    """Print what a request with an audit event takes, with and without the store."""
    config = {
        "litellm": {
            "baseUrl": "http://127.0.0.1:9",
            "masterKey": "sk-benchmark",
            "service": {"keyFile": str(folder / "key.json"), "rateLimits": False},
        },
        "backend": {"baseUrl": "http://127.0.0.1:9"},
    }
    file = folder / "app-config.json"
    file.write_text(json.dumps(config))
    settings = load_settings([file], {})
    logging.getLogger("litellm_plugin.audit").addHandler(logging.NullHandler())
    logging.getLogger("litellm_plugin.audit").propagate = False
    kept = replace(
        settings,
        audit=replace(settings.audit, store=True),
        database=Database(file=folder / "store.db"),
    )
    clients = {"log alone": create_app(settings), "and store": create_app(kept)}
    times: dict[str, list[float]] = {name: [] for name in clients}
    for round_ in range(40):
        for name, app in clients.items():
            client = app.test_client()
            for _ in range(100):
                began = time.perf_counter()
                answer = client.post("/api/litellm/keys/generate", json={"alias": "ci"})
                took = (time.perf_counter() - began) * 1000
                assert answer.status_code == 401
                if round_ >= 5:
                    times[name].append(took)
                time.sleep(0.002)
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, each in times.items():
        p99 = statistics.quantiles(each, n=100)[98]
        print(f"{name}: {medians[name]:.3f} ms at the median, {p99:.3f} at p99")
    print(
        f"a request pays {medians['and store'] - medians['log alone']:.3f} ms at the median, "
        f"ratio {medians['and store'] / medians['log alone']:.2f}"
    )
    clients["and store"].extensions["litellm_plugin"].audit_writer.close()


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--sqlite", action="store_true")
    parser.add_argument("--requests", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="audit-benchmark-", dir="/var/tmp") as name:
        if asked.requests:
            requests_pay(Path(name))
        elif asked.sqlite:
            measure(Database(file=Path(name) / "store.db"), asked.rows)
        else:
            with postgres() as database:
                measure(database, asked.rows)


def measure(database: Database, rows: int) -> None:
    """Fill a database, and measure pages and writes."""
    store = Store(database)
    store.migrate()
    began = time.perf_counter()
    fill(store, rows)
    print(f"filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    pages(store, rows)
    writing(store)
    store.close()


if __name__ == "__main__":
    main()
