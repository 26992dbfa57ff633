"""``report usage``: the figures are LiteLLM's, in each format; it only reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from click.testing import Result

from litellm_plugin.sandbox.activity import UsageRow
from litellm_plugin.store.audit import AuditEvent, AuditEvents, Head
from litellm_plugin.store.database import Store
from tests.cli.installation import Installation
from tests.fakes import Reply
from tests.fakes.network import connection_refused
from tests.standin import KEY, TEAM

ALICE, JANE, LEFT = "alice@example.com", "jane@example.com", "left@example.com"
NOVEMBER = ("--from", "2026-11-01", "--to", "2026-11-30")
GONE, LOST = "a" * 64, "b" * 64  # a key that LiteLLM has archived, and one that only we know
FIGURES = ("spend", "total_tokens", "prompt_tokens", "completion_tokens")


def _used(day: int, token: str, user: str | None, team: str | None, spend: float) -> UsageRow:
    return UsageRow(
        day=date(2026, 11, day),
        token=token,
        user_id=user,
        team_id=team,
        model="gpt-4o-mini",
        deployment="openai/gpt-4o-mini",
        spend=spend,
        prompt_tokens=100,
        completion_tokens=10,
        successful_requests=2,
    )


@pytest.fixture
def ready(installation: Installation) -> Installation:
    """alice has used 0.4 USD on November 2nd; jane and somebody who left used something, too."""
    store = installation.standin.store
    store.deleted_keys[GONE] = {"key_alias": "=cmd|'/C calc'", "user_id": LEFT}
    store.add_usage(
        [
            _used(3, KEY, ALICE, None, 0.1),
            _used(3, GONE, LEFT, TEAM, 0.2),
            _used(30, LOST, JANE, TEAM, 1e-7),
            replace(_used(1, LOST, JANE, TEAM, 9.0), day=date(2026, 12, 1)),
        ]
    )
    return installation


def _json(installation: Installation, *options: str) -> Any:
    result = installation.run("report", "usage", *NOVEMBER, "--format", "json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def _csv(installation: Installation, *options: str) -> tuple[str, list[dict[str, str]]]:
    result = installation.run("report", "usage", *NOVEMBER, "--format", "csv", *options)
    assert result.exit_code == 0, result.output
    text = result.stdout_bytes.decode()  # stdout has other line ends
    return text, list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_team_is_what_a_report_is_by(ready: Installation) -> None:
    told = _json(ready)
    assert (told["from"], told["to"], told["by"]) == ("2026-11-01", "2026-11-30", ["team"])
    assert [(row["team_id"], row["team_alias"]) for row in told["rows"]] == [
        ("", ""),
        (TEAM, "Platform"),
    ]
    assert [row["spend"] for row in told["rows"]] == pytest.approx([0.1, 0.6000001])
    assert told["totals"]["spend"] == pytest.approx(0.7000001)
    assert told["totals"]["api_requests"] == 16
    assert told["totals"]["failed_requests"] == 1


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("day", [("2026-11-02", 0.4), ("2026-11-03", 0.3), ("2026-11-30", 1e-7)]),
        ("user", [(ALICE, 0.5), (JANE, 1e-7), (LEFT, 0.2)]),
        ("model", [("gpt-4o-mini", 0.7000001)]),
    ],
)
def test_one_dimension(ready: Installation, by: str, rows: list[tuple[str, float]]) -> None:
    found = [next(iter(row.values())) for row in _json(ready, "--by", by)["rows"]]
    assert found == [name for name, _ in rows]
    spend = [row["spend"] for row in _json(ready, "--by", by)["rows"]]
    assert spend == pytest.approx([each for _, each in rows])


def test_all_dimensions_in_the_order_that_is_asked_for(ready: Installation) -> None:
    text, rows = _csv(ready, "--by", "team,user,model,key,day")
    head = text.splitlines()[0].split(",")
    assert head == [
        *("team_id", "team_alias", "user_id", "user_email", "model"),
        *("key", "key_alias", "key_state", "key_alias_source", "day"),
        *FIGURES,
        *("api_requests", "successful_requests", "failed_requests"),
    ]
    places = [(row["team_id"], row["user_id"], row["key"], row["day"]) for row in rows]
    assert places == [
        ("", ALICE, KEY, "2026-11-03"),
        (TEAM, ALICE, KEY, "2026-11-02"),
        (TEAM, JANE, LOST, "2026-11-30"),
        (TEAM, LEFT, GONE, "2026-11-03"),
    ]
    assert _csv(ready, "--by", "team,user,model,key,day")[0] == text


def test_csv_has_all_digits_and_no_formula(ready: Installation) -> None:
    text, rows = _csv(ready, "--by", "key")
    assert text.count("\r\n") == len(rows) + 1 == 4  # RFC 4180
    by_key = {row["key"]: row for row in rows}
    assert by_key[LOST]["spend"] == "0.0000001"
    assert by_key[GONE]["key_alias"] == "'=cmd|'/C calc'"
    assert by_key[KEY]["total_tokens"] == "650"


@pytest.mark.parametrize(
    ("options", "spend"),
    [
        (("--team", TEAM), 0.6000001),
        (("--team", "team-of-nobody"), 0),
        (("--user", ALICE), 0.5),
        (("--user", ALICE, "--team", TEAM), 0.4),
        (("--user", ALICE, "--by", "day"), 0.5),
    ],
)
def test_of_one_team_or_user(ready: Installation, options: tuple[str, ...], spend: float) -> None:
    assert _json(ready, *options)["totals"]["spend"] == pytest.approx(spend)


def test_a_team_without_usage_may_be_a_wrong_id(ready: Installation) -> None:
    def doubted(team: str) -> bool:
        result = ready.run("report", "usage", *NOVEMBER, "--team", team)
        assert result.exit_code == 0
        return "take LiteLLM's ids" in result.stderr

    assert doubted("Platform")
    assert not doubted(TEAM)


def test_names_of_deleted_keys_come_from_the_audit_log_too(
    ready: Installation, store: Store
) -> None:
    ready.settings["audit"]["store"] = True
    made = AuditEvent(
        at="2026-11-01T12:00:00.000Z",
        action="created",
        table_name="LiteLLM_VerificationToken",
        object_id=LOST,
        changed_by="user:default/jane",
        denied=False,
        before_value=None,
        updated_values={"key_alias": "jane-ci", "user_id": JANE},
        event={"eventId": "key-create", "meta": {"keyAlias": "jane-ci"}},
    )
    renamed = replace(
        made,
        at="2026-11-02T12:00:00.000Z",
        action="updated",
        before_value={"key_alias": "jane-ci"},
        updated_values={"key_alias": "jane-nightly"},
        event={"eventId": "key-update", "meta": {}},
    )
    refused = replace(
        made, denied=True, at="2026-11-03T12:00:00.000Z", updated_values={"key_alias": "never"}
    )
    head = Head("chain", "host-1", "2026-11-01T00:00:00.000Z")
    AuditEvents(store).append(head, [made, renamed, refused])
    rows = {row["key"]: row for row in _json(ready, "--by", "key")["rows"]}
    names = ("key_alias", "key_state", "key_alias_source")
    assert [rows[LOST][name] for name in names] == ["jane-nightly", "deleted", "audit"]
    assert [rows[KEY][name] for name in names] == ["alice-laptop", "active", "litellm"]
    assert [rows[GONE][name] for name in names] == ["=cmd|'/C calc'", "deleted", "litellm"]


def test_a_key_that_nobody_has_on_record_is_unknown(ready: Installation) -> None:
    rows = {row["key"]: row for row in _json(ready, "--by", "key")["rows"]}
    assert (rows[LOST]["key_alias"], rows[LOST]["key_state"]) == ("", "unknown")


def test_an_old_litellm_that_tells_no_names_is_asked_for_its_keys_and_users(
    ready: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    litellm = type(ready.standin)
    aliases: Callable[[Any, str], Any] = litellm._about_key
    monkeypatch.setattr(
        litellm,
        "_about_key",
        lambda self, token: {"key_alias": aliases(self, token)["key_alias"], "team_id": None},
    )
    monkeypatch.setattr(litellm, "_about_user", lambda _self, _name: {"user_email": None})
    ready.standin.store.users[JANE]["user_email"] = JANE
    rows = _json(ready, "--by", "key,user")["rows"]
    assert {row["key"]: row["key_state"] for row in rows} == {
        KEY: "active",
        GONE: "deleted",
        LOST: "unknown",
    }
    assert {row["user_email"] for row in rows if row["user_id"] == JANE} == {JANE}


def test_the_table_has_a_line_for_each_row_and_a_total(ready: Installation) -> None:
    result = ready.run("report", "usage", *NOVEMBER, "--by", "team,user", environ={"COLUMNS": "40"})
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [TEAM, "Platform", LEFT, "0.2000", "110", "2", "0"] in lines
    assert lines[-1] == ["total", "0.7000", "870", "16", "1"]


def test_days_that_are_not_over_are_pointed_out(ready: Installation) -> None:
    def run(first: str, last: str) -> tuple[bool, str]:
        result = ready.run("report", "usage", "--from", first, "--to", last, "--format", "json")
        return json.loads(result.stdout)["final"], result.stderr

    note = "Figures from 2999-11-01 on still change.\n"
    assert run("2999-11-01", "2999-11-02") == (False, note)
    assert run("2020-11-01", "2020-11-02") == (True, "")


def test_it_only_reads_and_not_faster_than_jobs_may(
    ready: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[None] = []
    monkeypatch.setattr("litellm_plugin.jobs.Pace.wait", lambda _self: waited.append(None))
    ready.litellm.asked.clear()
    _json(ready, "--by", "user,team,key")
    assert {asked.method for asked in ready.litellm.asked} == {"GET"}
    assert len(waited) == len(ready.litellm.asked) > 60


def test_a_combination_that_litellm_does_not_tell_is_an_error(ready: Installation) -> None:
    store = ready.standin.store
    store.add_usage([_used(3, KEY, JANE, TEAM, 0.5)])
    result = ready.run("report", "usage", *NOVEMBER, "--by", "team,user")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "LiteLLM does not say which of 2 users used the key" in result.stderr
    assert "leave user or team out of --by" in result.stderr
    assert ready.run("report", "usage", *NOVEMBER, "--by", "user").exit_code == 0


@pytest.mark.parametrize("reply", [connection_refused(), Reply(500), Reply(json={"results": 1})])
def test_a_litellm_that_fails_ends_with_status_1(ready: Installation, reply: Any) -> None:
    ready.litellm.replies["/user/daily/activity"] = reply
    result = ready.run("report", "usage", *NOVEMBER, "--format", "csv")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "report stopped: LiteLLM" in result.stderr
    assert result.stderr.endswith("; run litellm-plugin doctor\n")


def _refused(result: Result, *texts: str) -> None:
    assert result.exit_code == 2
    for text in texts:
        assert text in result.stderr


def test_options_that_make_no_sense_are_named(ready: Installation) -> None:
    run = ready.run
    _refused(run("report", "usage", "--from", "2026-11-01"), "--to")
    _refused(run("report", "usage", "--from", "1.11.2026", "--to", "2026-11-30"), "1.11.2026")
    _refused(
        run("report", "usage", "--from", "2026-11-02", "--to", "2026-11-01"), "it is before --from"
    )
    faulty = run("report", "usage", *NOVEMBER, "--by", "team,cost")
    _refused(faulty, "got 'cost', wanted names of day, team, user, key, model")
    _refused(run("report", "usage", *NOVEMBER, "--format", "xml"), "xml")
    long = run("report", "usage", "--from", "2026-11-01", "--to", "9999-12-01")
    _refused(long, "at most 400 days")
    ready.settings.pop("baseUrl")
    _refused(run("report", "usage", *NOVEMBER), "litellm.baseUrl")
