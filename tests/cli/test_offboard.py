"""``offboard``: the keys of people who have left, by way of the real command."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from litellm_plugin.clients.litellm import LiteLLM
from litellm_plugin.sandbox.store import token_of
from litellm_plugin.store.database import Store
from litellm_plugin.store.leavers import LeaverTable
from tests.cli.installation import Installation
from tests.fakes import People
from tests.fakes.network import Reply

START = datetime(2026, 11, 27, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def person(name: str, namespace: str = "default", email: str | None = None) -> dict[str, Any]:
    profile = {} if email is None else {"email": email}
    metadata = {"name": name, "namespace": namespace}
    return {"kind": "User", "metadata": metadata, "spec": {"profile": profile}}


@dataclass
class Office:
    """The command, the people of the catalog, and LiteLLM's accounts.

    Attributes:
        now: The time of the next run.
    """

    installation: Installation
    now: datetime = START
    people: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def litellm(self) -> Any:
        return self.installation.standin

    def hires(self, *names: str, **over: Any) -> None:
        """Give people an entity, an account as provisioning makes it, and a key."""
        for name in names:
            self.people[name] = person(name)
            user = {
                "user_id": f"{name}@example.com",
                "auto_create_key": False,
                "metadata": {
                    "provisioned_by": "backstage",
                    "backstage_entity": f"user:default/{name}",
                },
            }
            self.litellm.user_new({**user, **over})
            self.makes_key(name)
        self._publish()

    def makes_key(self, name: str, alias: str = "laptop", **more: Any) -> str:
        secret = f"sk-offboard-{name}-{alias}-0123456789"
        named = {"key": secret, "key_alias": f"{name}-{alias}", "user_id": f"{name}@example.com"}
        self.litellm.key_generate({**named, **more})
        return token_of(secret)

    def leaves(self, *names: str) -> None:
        for name in names:
            del self.people[name]
        self._publish()

    def misses(self, *names: str) -> None:
        """Let people leave, and let the run of the day before have seen it."""
        self.leaves(*names)
        self.run("--apply")
        self.now += DAY

    def returns(self, entity: dict[str, Any]) -> None:
        self.people[entity["metadata"]["name"]] = entity
        self._publish()

    def hides_in_the_list(self, name: str) -> None:
        """Let the catalog's list of people lack a person whom it has."""
        whole = self.installation.fake.answer

        def answer(asked: Any) -> Reply:
            reply = whole(asked)
            if not asked.path.endswith("/by-query"):
                return reply
            rows = [row for row in reply.json["items"] if row["metadata"]["name"] != name]
            return Reply(json={**reply.json, "items": rows})

        self.installation.backstage.host.answer = answer  # type: ignore[method-assign]

    def _publish(self) -> None:
        self.installation.fake.people = People(self.people.values())

    def run(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        return self.installation.told("offboard", *arguments, status=status)

    def page(self, *arguments: str) -> str:
        return self.installation.run("offboard", *arguments, environ={"COLUMNS": "200"}).stdout

    def twice(self, *arguments: str) -> dict[str, Any]:
        """Run a first time, and after the grace a second time."""
        self.run("--apply")
        self.now += DAY
        return self.run("--apply", *arguments)

    def blocked(self) -> set[str]:
        """Return the aliases of the blocked keys."""
        return {key["key_alias"] for key in self.litellm.store.keys.values() if key["blocked"]}

    @property
    def table(self) -> LeaverTable:
        return LeaverTable(Store(self.installation.database))

    def writes(self) -> list[str]:
        return [each.path for each in self.installation.litellm.asked if each.method != "GET"]


@pytest.fixture
def office(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Office:
    office = Office(installation)
    monkeypatch.setattr("litellm_plugin.cli.offboard.NOW", lambda: office.now)
    installation.settings["offboarding"] = {"enabled": True}
    office.litellm.store.reset()
    office.hires("ann", "ben", "cleo", "dan", "eve")
    return office


def actions(told: dict[str, Any]) -> dict[str, str]:
    return {
        each["entity_ref"].removeprefix("user:default/"): each["action"] for each in told["leavers"]
    }


def test_a_dry_run_changes_and_records_nothing(office: Office) -> None:
    office.leaves("ann")
    for _ in range(3):
        assert actions(office.run()) == {"ann": "missing"}
        office.now += DAY
    assert office.writes() == []
    assert office.table.all() == {}


def test_the_keys_of_a_person_who_is_missing_in_two_runs_are_blocked(office: Office) -> None:
    office.makes_key("ann", "build")
    office.leaves("ann")
    assert actions(office.run("--apply")) == {"ann": "missing"}
    assert office.blocked() == set()
    office.now += DAY
    assert actions(office.run()) == {"ann": "block"}  # what --apply would do
    assert office.blocked() == set()
    told = office.run("--apply")
    assert office.blocked() == {"ann-laptop", "ann-build"}
    assert told["counts"]["keys blocked"] == 2
    assert {event["eventId"] for event in office.installation.events} == {"offboard-key-block"}
    assert office.installation.events[0]["actor"] == {"actorId": "litellm-plugin:offboard"}
    assert office.installation.events[0]["meta"]["entityRef"] == "user:default/ann"


def test_nobody_is_blocked_before_the_grace_is_over(office: Office) -> None:
    office.leaves("ann")
    assert actions(office.run("--apply", "--grace", "0")) == {"ann": "missing"}  # the first run
    for hours in (12, 11):
        office.now += timedelta(hours=hours)
        assert actions(office.run("--apply")) == {"ann": "missing"}
    assert actions(office.run("--apply", "--grace", "1h")) == {"ann": "block"}


def test_a_person_who_is_back_within_the_grace_begins_anew(office: Office) -> None:
    office.leaves("ann")
    office.run("--apply")
    office.returns(person("ann"))
    assert actions(office.run("--apply")) == {"ann": "forget"}
    office.leaves("ann")
    office.now += DAY
    assert actions(office.run("--apply")) == {"ann": "missing"}


def test_a_person_who_comes_back_gets_exactly_the_blocked_keys_back(office: Office) -> None:
    old = office.makes_key("ann", "old")
    office.litellm.key_block({"key": old})
    gone = office.makes_key("ann", "gone")
    office.leaves("ann")
    office.twice()
    assert office.blocked() == {"ann-laptop", "ann-old", "ann-gone"}
    office.litellm.key_delete({"keys": [gone]})
    office.returns(person("ann"))
    told = office.run("--apply")
    assert actions(told) == {"ann": "unblock"}
    assert told["counts"]["keys unblocked"] == 1
    assert office.blocked() == {"ann-old"}
    assert office.table.all() == {}


def test_a_key_that_an_administrator_unblocked_stays_unblocked(office: Office) -> None:
    laptop = office.makes_key("ann", "handed-over")
    office.leaves("ann")
    office.twice()
    office.litellm.key_unblock({"key": laptop})
    for _ in range(3):
        office.now += DAY
        office.run("--apply")
    assert office.blocked() == {"ann-laptop"}


@pytest.mark.parametrize(
    ("after", "blocked"),
    [
        (timedelta(seconds=5), {"ann-laptop", "ann-late"}),  # the request for it was under way
        (DAY, {"ann-laptop"}),  # made by an administrator
    ],
)
def test_a_key_that_is_made_after_the_others_were_blocked(
    office: Office, after: timedelta, blocked: set[str]
) -> None:
    office.leaves("ann")
    office.twice()
    late = office.makes_key("ann", "late")
    office.litellm.store.keys[late]["created_at"] = (office.now + after).isoformat()
    office.now += DAY
    office.run("--apply")
    assert office.blocked() == blocked


def test_keys_that_are_made_while_others_are_blocked_are_blocked_too(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.misses("ann")
    block = LiteLLM.block_key
    aliases = iter(["first", "second"])

    def slow(litellm: LiteLLM, token: str) -> None:
        # A management key that is not blocked yet makes another one; that takes minutes.
        office.now += timedelta(minutes=5)
        if (alias := next(aliases, None)) is not None:
            made = office.makes_key("ann", alias)
            office.litellm.store.keys[made]["created_at"] = office.now.isoformat()
        block(litellm, token)

    monkeypatch.setattr(LiteLLM, "block_key", slow)
    assert office.run("--apply")["counts"]["keys blocked"] == 3
    assert office.blocked() == {"ann-laptop", "ann-first", "ann-second"}
    row = office.table.all()["ann@example.com"]
    assert (row.passes, row.blocked_at) == (1, office.now)


def test_an_account_whose_keys_multiply_is_told_and_left_to_the_next_run(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.misses("ann")
    block, numbers = LiteLLM.block_key, itertools.count()

    def another(litellm: LiteLLM, token: str) -> None:
        office.makes_key("ann", f"more-{next(numbers)}")
        block(litellm, token)

    with monkeypatch.context() as patch:
        patch.setattr(LiteLLM, "block_key", another)
        told = office.run("--apply", status=1)
    assert "keys are made while" in told["failures"]["ann@example.com"]
    office.run("--apply")
    assert all(key["blocked"] for key in office.litellm.store.keys.values()
               if key["user_id"] == "ann@example.com")  # fmt: skip


def test_a_team_s_keys_and_other_people_s_stay(office: Office) -> None:
    office.litellm.team_new({"team_id": "t", "members_with_roles": []})
    office.litellm.key_generate({"key_alias": "of the team", "team_id": "t"})
    made_by_ann = {"created_by_backstage_user": "user:default/ann", "backstage_team_key": True}
    office.litellm.key_generate(
        {"key_alias": "of the team, by ann", "team_id": "t", "metadata": made_by_ann}
    )
    office.makes_key("ann", "in-team", team_id="t")
    office.leaves("ann")
    office.twice()
    assert office.blocked() == {"ann-laptop", "ann-in-team"}


@pytest.mark.parametrize(
    "changes",
    [
        {"user_role": "proxy_admin"},
        {"user_role": "proxy_admin_viewer"},
        {"metadata": {}},
        {"metadata": {"backstage_entity": "user:default/ann"}},
        {"metadata": {"provisioned_by": "backstage", "backstage_entity": "ann@example.com"}},
        {"metadata": {"provisioned_by": "backstage", "backstage_entity": "group:default/ann"}},
        {"metadata": {"provisioned_by": "backstage", "backstage_entity": 7}},
    ],
)
def test_accounts_that_are_left_alone(office: Office, changes: dict[str, Any]) -> None:
    office.litellm.store.users["ann@example.com"].update(changes)
    office.leaves("ann")
    assert office.twice()["leavers"] == []
    assert office.blocked() == set()


def test_a_reserved_id_is_left_alone(office: Office) -> None:
    office.installation.settings["service"]["reservedUserIds"] = ["Ann@example.com"]
    office.leaves("ann")
    assert office.twice()["leavers"] == []


def test_an_account_with_a_role_in_an_organization_is_left_alone(office: Office) -> None:
    office.misses("ann")
    # /user/list does not tell the roles in organizations, /user/info does.
    whole = office.litellm.user_info({"user_id": "ann@example.com"})
    whole["user_info"]["organization_memberships"] = [{"user_role": "org_admin"}]
    office.installation.litellm.replies["/user/info"] = Reply(json=whole)
    office.run("--apply")
    assert office.blocked() == set()
    assert office.table.all() == {}


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    "entity",
    [
        person("ann"),
        person("ann", namespace="contractors"),  # the same LiteLLM id
        person("ann.miller", email="Ann@Example.com"),  # renamed
    ],
)
def test_a_person_who_is_in_the_catalog_keeps_the_keys(
    office: Office, entity: dict[str, Any], listed: bool
) -> None:
    office.litellm.store.users["ann@example.com"]["user_email"] = "ann@example.com"
    office.misses("ann")
    office.returns(entity)
    if not listed:
        office.hides_in_the_list(entity["metadata"]["name"])
    office.run("--apply")
    assert office.blocked() == set()
    assert office.table.all() == {}


@pytest.mark.parametrize(
    ("entity", "is_ann"),
    [
        (person("ann"), True),
        (person("ann", email="Ann@example.com"), True),
        (person("ann.miller", namespace="contractors", email="ann@example.com"), True),
        (person("ann", email="ann.smith@example.com"), False),  # has got the user name
        (person("ann", namespace="contractors"), False),  # has the same LiteLLM id
        (person("ann", namespace="contractors", email="ann.smith@example.com"), False),
    ],
)
def test_keys_come_back_to_life_for_their_owner_alone(
    office: Office, entity: dict[str, Any], is_ann: bool
) -> None:
    office.litellm.store.users["ann@example.com"]["user_email"] = "ann@example.com"
    office.leaves("ann")
    office.twice()
    office.returns(entity)
    told = office.run("--apply")
    assert actions(told) == {"ann": "unblock" if is_ann else "leave blocked"}
    assert office.blocked() == (set() if is_ann else {"ann-laptop"})
    assert office.table.all() == {}


def test_an_account_that_was_given_to_another_person_is_forgotten(office: Office) -> None:
    office.leaves("ann")
    office.twice()
    metadata = office.litellm.store.users["ann@example.com"]["metadata"]
    metadata["backstage_entity"] = "user:default/ben"
    assert actions(office.run("--apply")) == {"ann": "forget"}
    assert office.blocked() == {"ann-laptop"}  # its new owner may unblock it
    assert office.table.all() == {}


# -- limits ------------------------------------------------------------------


def test_an_empty_catalog_is_refused_whatever_is_forced(office: Office) -> None:
    office.leaves("ann", "ben", "cleo", "dan", "eve")
    for arguments in ((), ("--apply",), ("--apply", "--force", "0")):
        told = office.run(*arguments, status=3)
        assert "no people at all" in told["refused"]
    assert office.table.all() == {}


def test_a_catalog_of_fewer_than_half_is_refused(office: Office) -> None:
    assert office.run("--apply")["people_before"] is None
    office.leaves("ann", "ben", "cleo")
    told = office.run("--apply", status=3)
    assert "lists 2 people, and 5 in the last run" in told["refused"]
    assert office.table.all() == {}
    told = office.run("--apply", status=3)  # a refused run is none to compare with
    assert told["people_before"] == 5
    assert actions(office.run("--apply", "--force", "0")) == dict.fromkeys(
        ("ann", "ben", "cleo"), "missing"
    )
    assert office.run("--apply")["people_before"] == 2


def test_too_many_at_once_are_refused(office: Office) -> None:
    names = [f"p{number:02}" for number in range(40)]
    office.hires(*names)  # 45 accounts, of which 10 % are 4
    office.misses(*names[:5])
    told = office.run("--apply", status=3)
    assert "5 of 45 accounts" in told["refused"]
    assert "--force 5" in told["refused"]
    assert office.blocked() == set()
    assert "Refused: 5 of 45" in office.page("--apply")
    told = office.run("--apply", "--force", "4", status=3)
    assert "would block or delete 5" in told["refused"]
    office.run("--apply", "--force", "5")
    assert len(office.blocked()) == 5
    office.installation.settings["offboarding"]["maxShare"] = 12
    assert office.run()["limit"] == 5


def test_a_key_that_litellm_refuses_is_told_and_left_to_the_next_run(office: Office) -> None:
    office.misses("ann", "ben")
    office.installation.litellm.replies["/key/block"] = Reply(400, {"error": {"message": "no"}})
    told = office.run("--apply", status=1)
    assert set(told["failures"]) == {"ann@example.com", "ben@example.com"}
    assert [event["status"] for event in office.installation.events] == ["failed", "failed"]
    office.installation.litellm.replies.clear()
    assert office.run("--apply")["counts"]["keys blocked"] == 2
    assert office.blocked() == {"ann-laptop", "ben-laptop"}


@pytest.mark.parametrize("keys", [None, "none", ["sk-1"], [{"token": None}]])
@pytest.mark.parametrize("back", [False, True])
def test_keys_that_can_not_be_read_are_not_taken_for_none(
    office: Office, keys: Any, back: bool
) -> None:
    office.misses("ann")
    if back:
        office.run("--apply")
        office.returns(person("ann"))
    answer = office.litellm.user_info({"user_id": "ann@example.com"})
    office.installation.litellm.replies["/user/info"] = Reply(json={**answer, "keys": keys})
    result = office.installation.run("offboard", "--apply")
    assert result.exit_code == 1
    assert "no list of keys" in result.stderr
    office.installation.litellm.replies.clear()
    office.run("--apply")
    assert office.blocked() == (set() if back else {"ann-laptop"})


# -- deletion ----------------------------------------------------------------


def test_an_account_is_deleted_once_it_was_blocked_for_long_enough(office: Office) -> None:
    office.leaves("ann")
    office.twice("--delete-after", "30d")
    office.now += 29 * DAY
    assert actions(office.run("--apply", "--delete-after", "30d")) == {"ann": "finish blocking"}
    office.now += DAY
    assert actions(office.run("--apply")) == {"ann": "blocked"}
    assert actions(office.run("--delete-after", "30d")) == {"ann": "delete"}
    told = office.run("--apply", "--delete-after", "30d")
    assert told["counts"]["accounts deleted"] == 1
    assert "ann@example.com" not in office.litellm.store.users
    assert [event["severityLevel"] for event in office.installation.events] == ["high"]
    assert office.table.all()["ann@example.com"].deleted_at == office.now
    assert actions(office.run("--apply", "--delete-after", "30d")) == {"ann": "deleted"}
    office.returns(person("ann"))
    assert actions(office.run("--apply")) == {"ann": "forget"}
    assert office.table.all() == {}


def test_an_account_that_an_administrator_deleted_stays_in_the_table(office: Office) -> None:
    office.leaves("ann")
    office.run("--apply")
    office.litellm.user_delete({"user_ids": ["ann@example.com"]})
    office.now += DAY
    assert actions(office.run("--apply")) == {"ann": "deleted"}
    assert office.table.all()["ann@example.com"].deleted_at is not None


# -- output ------------------------------------------------------------------


def test_the_page_says_what_is_to_be_done(office: Office) -> None:
    office.leaves("ann")
    page = office.page()
    assert "ann@example.com" in page
    assert "the first run after 2026-11-28 12:00:00 blocks the keys" in page
    assert "Run with --apply" in page
    office.twice()
    assert "blocked" in office.page()
    office.installation.settings["offboarding"]["enabled"] = False
    assert "litellm.offboarding.enabled is false" in office.page()


@pytest.mark.parametrize("option", [("--grace", "soon"), ("--delete-after", "3"), ("--force", "x")])
def test_a_wrong_option_ends_with_status_2(office: Office, option: tuple[str, str]) -> None:
    assert office.installation.run("offboard", *option).exit_code == 2


def test_the_database_keeps_what_is_blocked_and_deleted(office: Office) -> None:
    office.installation.settings["audit"] = {"store": True}
    office.leaves("ann")
    office.twice()
    office.now += DAY
    office.run("--apply", "--delete-after", "1s")
    exported = office.installation.run("audit", "export", "--since", "1d").stdout
    rows = [json.loads(line) for line in exported.splitlines()]
    assert {row["changed_by"] for row in rows} == {"litellm-plugin:offboard"}
    key = token_of("sk-offboard-ann-laptop-0123456789")
    told = {row["action"]: (row["object_id"], row["updated_values"]) for row in rows}
    assert told == {"blocked": (key, {"blocked": True}), "deleted": ("ann@example.com", {})}
