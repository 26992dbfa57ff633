"""Offboarding: blocks the keys of people who have left the catalog, and later deletes the accounts.

:func:`make_plan`, a pure function, decides by the catalog, LiteLLM's users and the table of
leavers. :class:`Offboarding` applies a plan. It records each change in the table before it asks
LiteLLM for it, so that the next run continues one that was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from litellm_plugin.accounts.caller import is_reserved, plain
from litellm_plugin.accounts.directory import AllPeople, Directory
from litellm_plugin.accounts.ownership import is_administrator, made_for
from litellm_plugin.clients.backstage import split_ref
from litellm_plugin.clients.litellm import Account, Json, LiteLLM, rows_of_all_pages
from litellm_plugin.clock import Clock, moment
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import NoSuchRoute, UpstreamError
from litellm_plugin.observability import journal
from litellm_plugin.redaction import redact
from litellm_plugin.shapes import as_object
from litellm_plugin.store.leavers import Leaver, LeaverTable

MIN_SHARE = 3  # accounts that a run may always block or delete
MAX_LOOKS = 10  # reads of an account whose keys are created faster than they are blocked
COUNTED = {
    journal.OFFBOARD_BLOCK: "keys blocked",
    journal.OFFBOARD_UNBLOCK: "keys unblocked",
    journal.OFFBOARD_DELETE: "accounts deleted",
}
UNDER_WAY = timedelta(seconds=60)  # how long a request for a new key may take


class Action(StrEnum):
    """What a run does with an account."""

    WAIT = "missing"  # the entity is missing, but not for long enough
    BLOCK = "block"
    FINISH = "finish blocking"  # an earlier run was interrupted, or keys were created meanwhile
    BLOCKED = "blocked"  # by an earlier run
    DELETE = "delete"
    GONE = "deleted"  # LiteLLM does not have the account any more
    RESTORE = "unblock"  # the entity is back
    FORGET = "forget"  # delete the row: the entity is back and no key to unblock, or a new owner
    LEAVE = "leave blocked"  # delete the row: the name may be another person's now


@dataclass(frozen=True, slots=True)
class Candidate:
    """An account that provisioning made for a user of the catalog.

    Attributes:
        emails: E-mails of LiteLLM's row and of provisioning's metadata, in lower case.
        keys: Number of the account's keys; None if LiteLLM leaves it out.
    """

    user_id: str
    entity_ref: str
    emails: frozenset[str] = frozenset()
    keys: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a run does with one account.

    Attributes:
        leaver: The row of the table, updated by what this run has seen in the catalog.
        due: Earliest time to block the keys or, of a blocked account, to delete it.
    """

    action: Action
    leaver: Leaver
    keys: int | None = None
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does.

    Attributes:
        accounts: Number of accounts that provisioning made for users of the catalog.
        people: Number of people in the catalog.
        steps: One step for each account of a leaver, or of a person who is back.
    """

    accounts: int
    people: int
    steps: tuple[Step, ...] = ()

    def of(self, *actions: Action) -> list[Step]:
        """Return the steps with one of these actions."""
        return [step for step in self.steps if step.action in actions]

    @property
    def hit(self) -> int:
        """Number of accounts whose keys are blocked, or that are deleted."""
        return len(self.of(Action.BLOCK, Action.DELETE))

    def limit(self, max_share: float) -> int:
        """Return how many accounts a run may block or delete; ``max_share`` is in percent."""
        return max(MIN_SHARE, int(self.accounts * max_share / 100))


def candidate(account: Account, settings: Settings) -> Candidate | None:
    """Return what offboarding needs of an account; None for one that it leaves alone.

    It leaves alone: accounts that provisioning did not make, or made without an entity ref (for
    the bridge or a service), administrators of LiteLLM, and reserved ids.
    """
    metadata = as_object(account.info.get("metadata"))
    parts = split_ref(made_for(account) or "")
    if (
        metadata.get("provisioned_by") != "backstage"
        or parts is None
        or parts[0] != "user"
        or is_reserved(account.user_id, settings)
        or is_administrator(account)
    ):
        return None
    emails = (account.info.get("user_email"), metadata.get("backstage_email"))
    count = account.info.get("key_count")
    return Candidate(
        account.user_id,
        f"user:{parts[1]}/{parts[2]}",
        frozenset(each.strip().lower() for each in emails if isinstance(each, str) and "@" in each),
        count if isinstance(count, int) else None,
    )


def make_plan(
    accounts: Mapping[str, Candidate | None],
    people: AllPeople,
    known: Mapping[str, Leaver],
    now: datetime,
    grace: timedelta,
    delete_after: timedelta | None,
) -> Plan:
    """Decide what a run does about the accounts and the known leavers, both by user id.

    ``accounts`` has what :func:`candidate` returns for each account of LiteLLM. An entity has to
    be missing for ``grace``. A blocked account is deleted after ``delete_after``; None: never.
    """
    candidates = {user_id: each for user_id, each in accounts.items() if each is not None}
    recorded = {row.user_id: _as_candidate(row) for row in known.values()}
    steps = []
    for user_id, account in sorted((recorded | candidates).items()):
        row, listed = known.get(user_id), candidates.get(user_id)
        if row and user_id in accounts and (not listed or listed.entity_ref != row.entity_ref):
            # An administrator gave the account to another person, or to no person.
            steps.append(Step(Action.FORGET, row))
        elif not _in_catalog(account, people):
            seen = _seen_missing(row, account, now)
            steps.append(_missing(seen, listed, now, grace, delete_after))
        elif row is not None:
            keys = len(_recorded(row))
            back = Action.RESTORE if _is_back(account, people) else Action.LEAVE
            steps.append(Step(back if keys else Action.FORGET, row, keys))
    return Plan(len(candidates), len(people), tuple(steps))


def _as_candidate(row: Leaver) -> Candidate:
    return Candidate(row.user_id, row.entity_ref, frozenset(filter(None, [row.email])))


def _in_catalog(account: Candidate, people: AllPeople | Directory) -> bool:
    """Tell whether the catalog has the account's owner: by entity ref, LiteLLM id or e-mail.

    So people who were renamed or moved to another namespace, and people who share a LiteLLM id,
    keep their accounts.
    """
    return (
        people.entity(account.entity_ref) is not None
        or bool(people.of_id(account.user_id))
        or any(people.with_email(email) for email in account.emails)
    )


def _is_back(account: Candidate, people: AllPeople) -> bool:
    """Tell whether a leaver is back: by e-mail, or by entity if an e-mail is not known.

    The leaver knows the secrets of the blocked keys. So they stay blocked if a new person got the
    leaver's user name, in whatever namespace.
    """
    if any(people.with_email(email) for email in account.emails):
        return True
    entity = people.entity(account.entity_ref)
    return entity is not None and not (account.emails and entity.email)


def _recorded(row: Leaver) -> tuple[str, ...]:
    """Return the hashes of the keys that offboarding blocked, or may have blocked."""
    return tuple(dict.fromkeys((*row.blocked_keys, *filter(None, [row.blocking]))))


def _seen_missing(row: Leaver | None, account: Candidate, now: datetime) -> Leaver:
    """Return the row after a run that has seen the entity missing."""
    email = min(account.emails, default=None)
    if row is None:
        return Leaver(account.user_id, plain(account.user_id), account.entity_ref, now, 1, email)
    if row.runs_missing == 0:  # came back, and left again before all keys were unblocked
        return replace(row, missing_since=now, runs_missing=1)
    return replace(row, runs_missing=row.runs_missing + 1, email=email or row.email)


def _missing(
    row: Leaver,
    account: Candidate | None,
    now: datetime,
    grace: timedelta,
    delete_after: timedelta | None,
) -> Step:
    due = row.missing_since + grace
    is_due = row.runs_missing >= 2 and now >= due
    if account is None:
        return Step(Action.GONE if is_due or row.shut_out else Action.WAIT, row, 0, due)
    if row.deleted_at is not None:  # an administrator has created the account again
        row = replace(row, blocked_at=None, passes=0, blocked_keys=(), deleted_at=None)
    if row.blocked_at is None:
        return Step(Action.BLOCK if is_due else Action.WAIT, row, account.keys, due)
    later = None if delete_after is None else row.blocked_at + delete_after
    if row.passes == 0:
        return Step(Action.FINISH, row, account.keys, later)
    if later is not None and now >= later:
        return Step(Action.DELETE, row, account.keys, later)
    unsettled = row.passes == 1 and now >= row.blocked_at + UNDER_WAY
    return Step(Action.FINISH if unsettled else Action.BLOCKED, row, account.keys, later)


def refusal(plan: Plan, before: int | None, max_share: float, force: int | None) -> str | None:
    """Return why a plan must not be applied, and what to do; None if it may be applied.

    ``before`` is the number of people in the catalog in the last successful run, ``max_share``
    is in percent, and ``force`` the number of ``--force``.
    """
    if not plan.people:
        return (
            "The catalog lists no people at all. Check Backstage's catalog and its permissions for"
            " this service; --force does not help here."
        )
    if force is not None and force != plan.hit:
        return (
            f"--force {force} does not fit: this run would block or delete {plan.hit} accounts."
            " Look at the table of a dry run, and give that number."
        )
    if force is not None:
        return None
    if before is not None and plan.people * 2 < before:
        return (
            f"The catalog lists {plan.people} people, and {before} in the last run: fewer than"
            " half. Check Backstage's catalog providers. If the catalog is right, run with"
            f" --force {plan.hit}, the number of accounts to block or delete."
        )
    limit = plan.limit(max_share)
    if plan.hit > limit:
        return (
            f"{plan.hit} of {plan.accounts} accounts would be blocked or deleted at once, and"
            f" {limit} may be (litellm.offboarding.maxShare: {max_share:g} %, at least"
            f" {MIN_SHARE}). If all of these people have left, run with --force {plan.hit}."
        )
    return None


@dataclass
class Offboarding:
    """Makes and applies plans.

    Attributes:
        directory: Reads past the cache; asked for the person again before an account is blocked
            or deleted.
        pace: Called before each call to LiteLLM.
        counts: Numbers of changes, such as ``keys blocked``.
        failures: LiteLLM's refusals, by user id.
    """

    litellm: LiteLLM
    directory: Directory
    table: LeaverTable
    settings: Settings
    pace: Callable[[], None]
    now: Clock
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def plan(self, grace: timedelta, delete_after: timedelta | None) -> Plan:
        """Read the catalog, LiteLLM's users and the table, and decide; changes nothing.

        Raises:
            BackstageUnavailable, UpstreamError, StoreUnavailable: One of them can't be read.
        """
        people = self.directory.everyone()
        found = rows_of_all_pages(self.litellm.accounts, lambda _page, _pages: self.pace())
        accounts = {each.user_id: candidate(each, self.settings) for each in found}
        return make_plan(accounts, people, self.table.all(), self.now(), grace, delete_after)

    def apply(self, plan: Plan, tell: Callable[[str], None] = lambda _text: None) -> None:
        """Apply a plan, people who are back first.

        If LiteLLM refuses a change of an account, the next run continues there; the refusal is in
        :attr:`failures`.

        Raises:
            BackstageUnavailable, UpstreamError: The catalog or LiteLLM does not answer any more.
            StoreUnavailable: The table can't be written.
        """
        forgotten = (Action.FORGET, Action.LEAVE)
        unchanged = (Action.RESTORE, *forgotten)
        # In one transaction, so that the run counts for all rows or for none.
        self.table.save(
            [step.leaver for step in plan.steps if step.action not in unchanged],
            forget=[step.leaver.user_id for step in plan.of(*forgotten)],
        )
        actions = {
            Action.RESTORE: self._restore,
            Action.GONE: self._confirm_gone,
            Action.BLOCK: self._begin,
            Action.FINISH: self._block,
            Action.DELETE: self._delete,
        }
        steps = plan.of(*actions)
        steps.sort(key=lambda step: list(actions).index(step.action))
        for number, step in enumerate(steps, 1):
            tell(f"{number} of {len(steps)}: {step.action} {step.leaver.user_id}")
            try:
                actions[step.action](step.leaver)
            except UpstreamError as exc:
                if exc.down:
                    raise
                self.counts["failed"] += 1
                self.failures[step.leaver.user_id] = redact(exc.message)

    def _begin(self, row: Leaver) -> None:
        if self._is_missing(row):
            # From now on the service creates no key for this account.
            row = self._save(row, blocked_at=self.now(), passes=0)
            self.counts["accounts blocked"] += 1
            self._block(row)

    def _is_missing(self, row: Leaver) -> bool:
        """Ask the catalog for the person, whose entity the list may lack by mistake."""
        if not _in_catalog(_as_candidate(row), self.directory):
            return True
        if not row.shut_out and not _recorded(row):
            self._forget(row)
        return False

    def _block(self, row: Leaver) -> None:
        """Block all keys; in the first pass, until a read of the account finds none to block.

        Meanwhile, a management key that is not blocked yet may create other keys at LiteLLM.
        """
        for _ in range(MAX_LOOKS):
            looked_at = self.now()
            account = self._account(row)
            if account is None:
                return
            row, blocked = self._block_keys(row, _keys(account))
            if row.passes > 0:
                break
            if not blocked:
                row = replace(row, blocked_at=looked_at)
                break
        else:
            self.counts["failed"] += 1
            self.failures[row.user_id] = "keys are made while they are blocked; run it again"
            return
        self._save(row, blocking=None, passes=row.passes + 1)

    def _block_keys(self, row: Leaver, keys: Iterable[Json]) -> tuple[Leaver, bool]:
        """Block the keys that are to be blocked; return the row, and whether there were any."""
        any_blocked = False
        # First the key of the interrupted run, as its hash is replaced below.
        for key in sorted(keys, key=lambda key: key["token"] != row.blocking):
            token = key["token"]
            if key.get("blocked") is True:
                if token == row.blocking:
                    row = self._save(row, blocking=None, blocked_keys=_recorded(row))
            elif self._to_block(row, key):
                any_blocked = True
                # Recorded before, so that the key is unblocked if the person comes back.
                row = self._save(row, blocking=token)
                self._call(journal.OFFBOARD_BLOCK, row, self.litellm.block_key, token)
                row = self._save(row, blocking=None, blocked_keys=_recorded(row))
        return row, any_blocked

    def _to_block(self, row: Leaver, key: Json) -> bool:
        """Tell whether to block a key that is not blocked.

        A key that offboarding blocked before was unblocked by an administrator, and stays
        unblocked. So does a key that was created long after all keys had been blocked.
        """
        if key["token"] in row.blocked_keys or row.blocked_at is None:
            return False
        if row.passes == 0:
            return True
        made = moment(key.get("created_at"))
        return made is not None and row.blocked_at <= made <= row.blocked_at + UNDER_WAY

    def _delete(self, row: Leaver) -> None:
        if self._is_missing(row) and self._account(row) is not None:
            self._call(journal.OFFBOARD_DELETE, row, self.litellm.delete_user, row.user_id)
            self._deleted(row)

    def _account(self, row: Leaver) -> Account | None:
        """Read the account and its keys; None if it is deleted, or has another owner now."""
        self.pace()
        account = self.litellm.whole_account(row.user_id)
        if account is None:
            self._deleted(row)
            return None
        now = candidate(account, self.settings)
        if now is None or now.entity_ref != row.entity_ref:
            self._forget(row)
            return None
        return account

    def _confirm_gone(self, row: Leaver) -> None:
        # A page of /user/list may leave out an account while others are deleted.
        if row.deleted_at is None:
            self.pace()
            if self.litellm.account(row.user_id) is None:
                self._deleted(row)

    def _deleted(self, row: Leaver) -> None:
        # With this row the service does not create the account again.
        self._save(row, deleted_at=self.now(), blocking=None, blocked_keys=())

    def _restore(self, row: Leaver) -> None:
        row = self._save(row, runs_missing=0, blocked_at=None, passes=0)
        self.pace()
        account = self.litellm.whole_account(row.user_id)
        keys = [] if account is None else _keys(account)
        blocked = {key["token"] for key in keys if key.get("blocked") is True}
        for token in sorted(_recorded(row), key=lambda token: token != row.blocking):
            # If this run is killed and the person leaves again, a key in `blocking` is blocked
            # again; one in `blocked_keys` would count as unblocked by an administrator.
            others = tuple(each for each in row.blocked_keys if each != token)
            row = self._save(row, blocking=token, blocked_keys=others)
            if token in blocked:
                self._call(journal.OFFBOARD_UNBLOCK, row, self.litellm.unblock_key, token)
        self._forget(row)
        self.counts["accounts restored"] += 1

    def _call(
        self, event: journal.Event, row: Leaver, call: Callable[[str], None], argument: str
    ) -> None:
        """Change LiteLLM, and write an audit event. A missing key or user (404) is no failure."""
        meta: dict[str, Any] = {"userId": row.user_id, "entityRef": row.entity_ref}
        if event is journal.OFFBOARD_DELETE:
            change = journal.change(argument, {"user_id": argument}, {})
        else:
            meta["keyId"] = journal.key_id(argument)
            blocks = event is journal.OFFBOARD_BLOCK
            change = journal.change(argument, {"blocked": not blocks}, {"blocked": blocks})
        self.pace()
        try:
            call(argument)
        except UpstreamError as exc:
            if exc.answered == 404 and not isinstance(exc, NoSuchRoute):
                return
            journal.record(event, meta, exc, change)
            raise
        journal.record(event, meta, change=change)
        self.counts[COUNTED[event]] += 1

    def _save(self, row: Leaver, **changes: Any) -> Leaver:
        row = replace(row, **changes)
        self.table.save([row])
        return row

    def _forget(self, row: Leaver) -> None:
        self.table.save([], forget=[row.user_id])


def _keys(account: Account) -> list[Json]:
    """Return the account's keys; an answer without a list of keys is an error."""
    rows = account.info.get("keys")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("token"), str) for row in rows
    ):
        raise UpstreamError(
            f"LiteLLM's answer about {account.user_id} has no list of keys",
            advice="ask your administrator",
        )
    return [row for row in rows if row.get("user_id") in {None, account.user_id}]
