"""``audit``: tampering is found, and what is exported can't be run by a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import text

from litellm_plugin.cli import main
from litellm_plugin.store import audit as events_module
from litellm_plugin.store.audit import AuditEvent, AuditEvents, Head
from litellm_plugin.store.database import Store
from tests.audit.conftest import event
from tests.cli.installation import Installation

ENDED = "2026-11-29T12:00:00.000Z"


def _event(number: int, **values: Any) -> AuditEvent:
    at = f"2026-11-{1 + number:02d}T12:00:00.000Z"
    return event(**{"at": at, "object_id": f"team-{number}", **values})


class Installed:
    """A store with events, as a command finds it."""

    def __init__(self, installation: Installation, store: Store) -> None:
        self.installation = installation
        self.store = store
        self.events = AuditEvents(store)

    def write(
        self, chain: str, numbers: range, *, host: str = "host-1", closed: bool = True
    ) -> Head:
        head = self.events.append(
            Head(chain, host, "2026-11-01T00:00:00.000Z"), [_event(each) for each in numbers]
        )
        return self.events.append(head, [], ended_at=ENDED) if closed else head

    def sql(self, statement: str) -> None:
        with self.store.write() as connection:
            connection.execute(text(statement))

    def run(self, *arguments: str) -> Result:
        return self.installation.run("audit", *arguments)

    def faults(self, *arguments: str) -> list[str]:
        result = self.run("verify", "--json", *arguments)
        faults: list[str] = json.loads(result.stdout)["faults"]
        assert result.exit_code == (1 if faults else 0)
        return faults


@pytest.fixture
def installed(installation: Installation, store: Store) -> Installed:
    installation.set("litellm.audit.store", True)
    return Installed(installation, store)


def test_what_nobody_touched_holds(installed: Installed) -> None:
    installed.write("aaaa", range(5))
    installed.write("bbbb", range(3))
    assert installed.faults() == []
    result = installed.run("verify")
    assert result.stdout == "8 events of 2 chains; faults: none\n"


SWAPPED = "CASE sequence WHEN 2 THEN -3 WHEN 3 THEN -2 END WHERE sequence IN (2, 3)"
OTHERS = "CASE sequence WHEN 2 THEN 'team-2' ELSE 'team-1' END"
COLUMNS = (
    "sequence, previous, hash, at, action, table_name, object_id, changed_by, denied,"
    " before_value, updated_values, event"
)
INSERT = f"INSERT INTO audit_events (id, chain, {COLUMNS}) SELECT 99,"
FOURTH = "(SELECT hash FROM audit_events WHERE sequence = 4)"
DROP, EVENT, CHAIN = (
    "DELETE FROM audit_events",
    "UPDATE audit_events SET",
    "UPDATE audit_chains SET",
)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (f"{DROP} WHERE sequence = 3", "event 4: event 3 is missing before it"),
        (f"{DROP} WHERE sequence = 1", "event 2: event 1 is missing before it"),
        (f"{DROP} WHERE sequence >= 4", "events 4 to 5 are missing at the end"),
        (DROP, "events 1 to 5 are missing at the end"),
        (f"{EVENT} changed_by = 'x' WHERE sequence = 2", "event 2: changed"),
        (f"{EVENT} updated_values = '{{}}' WHERE sequence = 5", "event 5: changed"),
        (f"{EVENT} denied = 1 WHERE sequence = 1", "event 1: changed"),
        (f"{EVENT} at = '2026-11-09T12:00:00.000Z' WHERE sequence = 1", "event 1: changed"),
        (f"{EVENT} previous = hash WHERE sequence = 2", "event 2: changed"),
        (f"{EVENT} sequence = {SWAPPED}", "event -3: changed"),
        (f"{EVENT} object_id = {OTHERS} WHERE sequence IN (2, 3)", "event 3: changed"),
        (f"{INSERT} 'cccc', {COLUMNS} FROM audit_events LIMIT 1", "chain cccc: inserted"),
        (f"{CHAIN} last_hash = first_previous", "event 5: its hash is not that"),
        (f"{CHAIN} last_sequence = 4, last_hash = {FOURTH}", "inserted at the end"),
        (f"{CHAIN} first_previous = last_hash", "its beginning was changed"),
    ],
)
def test_tampering_is_found(installed: Installed, statement: str, told: str) -> None:
    installed.write("aaaa", range(5))
    installed.sql(statement)
    assert told in "\n".join(installed.faults())


def test_an_end_that_is_cut_off_everywhere_needs_the_heads(
    installed: Installed, tmp_path: Path
) -> None:
    installed.write("aaaa", range(5))
    heads = tmp_path / "heads.json"
    assert installed.run("verify", "--save-heads", str(heads)).exit_code == 0
    assert installed.faults("--heads", str(heads)) == []
    installed.sql("DELETE FROM audit_events WHERE sequence = 5")
    installed.sql(
        "UPDATE audit_chains SET last_sequence = 4,"
        " last_hash = (SELECT hash FROM audit_events WHERE sequence = 4)"
    )
    assert installed.faults() == []
    assert "event 5: differs from --heads" in installed.faults("--heads", str(heads))[0]


@pytest.mark.parametrize(
    "hidden",
    [
        "DELETE FROM audit_chains WHERE chain = 'aaaa'",
        "UPDATE audit_chains SET first_sequence = 4 WHERE chain = 'aaaa'",
    ],
)
def test_a_deleted_chain_is_no_work_of_retention(
    installed: Installed, tmp_path: Path, hidden: str
) -> None:
    installed.write("aaaa", range(3))
    installed.write("bbbb", range(3))
    heads = tmp_path / "heads.json"
    assert installed.run("verify", "--save-heads", str(heads)).exit_code == 0
    installed.sql("DELETE FROM audit_events WHERE chain = 'aaaa'")
    installed.sql(hidden)
    assert installed.faults() == []
    installed.installation.set("litellm.audit.retention", "999999w")
    (fault,) = installed.faults("--heads", str(heads))
    assert fault.startswith("chain aaaa, event 3: was deleted, and is not older")
    installed.installation.set("litellm.audit.retention", "1s")  # the events were older
    assert installed.faults("--heads", str(heads)) == []


def test_a_chain_that_was_not_closed_is_named(installed: Installed) -> None:
    installed.write("aaaa", range(3), host="host-1\x1b[2J", closed=False)
    result = installed.run("verify")
    assert result.exit_code == 0
    assert "chain aaaa of host-1\\x1b[2J: not closed" in result.stdout
    assert "events after 3 may be in the log only" in result.stdout


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_what_retention_deletes_leaves_chains_that_hold(
    installed: Installed, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(events_module, "DELETE_BATCH", at_once)
    installed.write("aaaa", range(6))
    installed.write("bbbb", range(2), closed=False)
    installed.write("cccc", range(2))
    assert installed.events.prune("2026-11-04T12:00:00.000Z") == 7
    assert installed.faults() == []
    days = installed.events.days(events_module.Filter())
    assert days == {f"2026-11-0{day}": 1 for day in (6, 5, 4)}
    # The chain that has ended has nothing left to verify.
    assert installed.events.prune("2026-11-30T12:00:00.000Z") == 3
    assert [head.chain for head in installed.events.heads()] == ["bbbb"]
    assert installed.faults() == []
    assert installed.events.days(events_module.Filter()) == {}


def test_a_clock_that_was_set_back_leaves_no_gap(installed: Installed) -> None:
    events = [_event(0), _event(8), _event(1), _event(9)]
    installed.events.append(Head("aaaa", "host-1", ENDED), events)
    assert installed.events.prune("2026-11-05T00:00:00.000Z") == 1
    assert installed.faults() == []


def test_jsonl_has_every_event_of_the_time(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "READ_BATCH", 2)
    installed.write("aaaa", range(6))
    installed.events.append(Head("bbbb", "h", ENDED), [_event(4, action="denied", denied=True)])

    def exported(*options: str) -> list[dict[str, Any]]:
        result = installed.run("export", "--since", "2026-11-02", *options)
        return [json.loads(line) for line in result.stdout.splitlines()]

    first, *others = exported("--until", "2026-11-05T12:00:00Z")
    assert [row["object_id"] for row in others] == ["team-2", "team-3", "team-4"]
    assert first["event"] == {"eventId": "team-update"}
    assert first["id"] == "aaaa-2"
    assert first["updated_values"]["team_alias"] == "Grüße \U0001f600"
    denied = exported("--include", "denied")
    assert [row["id"] for row in denied if row["action"] == "denied"] == ["bbbb-1"]
    assert installed.run("export", "--since", "9999d").stdout.count("\n") == 6


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "\uff1d1"])
def test_no_cell_is_a_formula(installed: Installed, name: str) -> None:
    installed.events.append(Head("aaaa", "h", ENDED), [_event(1, object_id=name, changed_by="a,b")])
    result = installed.run("export", "--since", "2026-11-01", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(result.stdout, newline=""))
    assert row["object_id"] == f"'{name}"
    assert row["changed_by"] == "a,b"
    assert json.loads(row["before_value"]) == {"max_budget": 10.1}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_reader_who_hangs_up_ends_it_with_1(
    installed: Installed, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    installed.write("aaaa", range(3))
    config = ("--config", str(installed.installation.write()))
    reader, writer = os.pipe()
    os.close(reader)
    # What is left in the buffer can't be written when it is closed either.
    with suppress(BrokenPipeError), os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as ended:
            main(["audit", "export", "--since", "2026-11-01", "--format", form, *config])
    assert ended.value.code == 1


@pytest.mark.parametrize("since", ["soon", "7", "2026-13-01", ""])
def test_a_time_that_is_none_is_named(installed: Installed, since: str) -> None:
    result = installed.run("export", "--since", since)
    assert result.exit_code == 2
    assert "neither a time span such as 7d nor a date" in result.output


def test_a_file_that_is_not_to_be_used_is_named(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("[1]")
    result = installed.run("verify", "--heads", f"{tmp_path}/x")
    assert (result.exit_code, "--save-heads wrote" in result.output) == (2, True)
    result = installed.run("verify", "--save-heads", str(tmp_path))
    assert (result.exit_code, f"{tmp_path} can't be written" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("off", "command"),
    [
        ("litellm.audit.store is false", ("audit", "verify")),
        ("litellm.audit.store is false", ("audit", "export", "--since", "7d")),
        ("No enabled feature uses the store, so no run is recorded.", ("jobs",)),
    ],
)
def test_a_store_that_can_not_be_read_is_told(
    installation: Installation, off: str, command: tuple[str, ...]
) -> None:
    def told(status: int) -> str:
        result = installation.run(*command)
        assert (result.exit_code, result.stdout) == (status, "")
        return result.stderr

    assert told(2).startswith(off)
    installation.set("litellm.audit.store", True)
    installation.set("backend.database", {"client": "better-sqlite3", "connection": ":memory:"})
    assert "The store is in the memory of the service" in told(2)
    file = installation.folder / "file"
    file.write_bytes(b"no database " * 100)
    installation.set("backend.database.connection", str(file))
    assert told(1).startswith(f"The store can't be read: SQLite {file}: ")
