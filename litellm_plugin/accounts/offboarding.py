"""Offboarding: blocks the keys of people who have left the catalog, and later their accounts.

:func:`make_plan` decides by the catalog, LiteLLM's users and the table of leavers; it is pure.
:class:`Offboarding` carries a plan out. What it is about to do is in the table before LiteLLM is
asked, so that a run that was killed is finished by the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from litellm_plugin.accounts.caller import is_reserved, litellm_id, plain
from litellm_plugin.accounts.ownership import is_administrator, made_for
from litellm_plugin.clients.backstage import Catalog, Entity, split_ref
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.clock import Clock
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import UpstreamError
from litellm_plugin.observability import journal
from litellm_plugin.redaction import redact
from litellm_plugin.store.leavers import Leaver, LeaverTable

MIN_SHARE = 3  # accounts that a run may always block or delete
MAX_LOOKS = 10  # at an account, while keys are made faster than they are blocked
UNDER_WAY = timedelta(seconds=60)  # how long a request for a key may be under way


class Action(StrEnum):
    """What a run does about an account."""

    WAIT = "missing"  # the entity is missing, and not long enough
    BLOCK = "block"
    FINISH = "finish blocking"  # of an earlier run that did not end, or keys made meanwhile
    BLOCKED = "blocked"  # by an earlier run
    DELETE = "delete"
    GONE = "deleted"  # LiteLLM does not have the account any more
    RESTORE = "unblock"  # the entity is back
    FORGET = "forget"  # the entity is back, or the account is another person's; nothing to unblock
    LEAVE = "leave blocked"  # another person may have the name now; the row is forgotten


@dataclass(frozen=True, slots=True)
class Candidate:
    """An account that provisioning made for a user of the catalog.

    Attributes:
        emails: LiteLLM's e-mail and that of provisioning, in lower case.
        keys: Number of its keys; None where LiteLLM does not tell.
    """

    user_id: str
    entity_ref: str
    emails: frozenset[str] = frozenset()
    keys: int | None = None


@dataclass(frozen=True, slots=True)
class People:
    """The people of the catalog, by all that ties an account to a person."""

    refs: frozenset[str]
    ids: frozenset[str]  # LiteLLM ids, as ``plain`` returns them
    emails: frozenset[str]
    email_of: Mapping[str, str] = field(default_factory=dict)  # by entity ref

    @classmethod
    def of(cls, people: Iterable[tuple[str, Entity]], domain: str | None) -> People:
        """Read what ``Catalog.people`` yields; ``domain`` is ``litellm.userIdDomain``."""
        found = dict(people)
        email_of = {ref: _email(each.email) for ref, each in found.items() if each.email}
        return cls(
            frozenset(found),
            frozenset(plain(litellm_id(ref, domain)) for ref in found),
            frozenset(email_of.values()),
            email_of,
        )

    def have(self, owner: Candidate) -> bool:
        """Tell whether an account's owner is one of them: by entity, LiteLLM id or e-mail.

        People who were renamed or moved to another namespace, and people who share a LiteLLM id,
        keep their accounts.
        """
        return (
            owner.entity_ref in self.refs
            or plain(owner.user_id) in self.ids
            or not self.emails.isdisjoint(owner.emails)
        )

    def have_back(self, owner: Candidate) -> bool:
        """Tell whether a leaver is back: by e-mail, or by entity where an e-mail is not known.

        The leaver knows the secrets of the blocked keys. So a new person who got the leaver's
        user name, in whatever namespace, must not bring them back to life.
        """
        if not self.emails.isdisjoint(owner.emails):
            return True
        unknown = not owner.emails or owner.entity_ref not in self.email_of
        return owner.entity_ref in self.refs and unknown


@dataclass(frozen=True, slots=True)
class Step:
    """What a run does about one account, and why.

    Attributes:
        leaver: The row of the table, as it is after this run has seen the catalog.
        due: When keys are blocked, or the account is deleted, at the earliest.
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
        steps: One for each account that is concerned.
    """

    accounts: int
    people: int
    steps: tuple[Step, ...] = ()

    def of(self, *actions: Action) -> list[Step]:
        """Return the steps with one of some actions."""
        return [step for step in self.steps if step.action in actions]

    @property
    def hit(self) -> int:
        """Number of accounts whose keys are blocked, or that are deleted."""
        return len(self.of(Action.BLOCK, Action.DELETE))

    def limit(self, max_share: float) -> int:
        """Return how many accounts a run may block or delete; ``max_share`` is in percent."""
        return max(MIN_SHARE, int(self.accounts * max_share / 100))


def candidate(row: Json, settings: Settings) -> Candidate | None:
    """Read a row of ``/user/list``; None for an account that offboarding leaves alone.

    These are accounts that provisioning did not make, or made for no entity (such as those of the
    bridge and of services), administrators of LiteLLM, and reserved ids.
    """
    user_id, metadata = row.get("user_id"), row.get("metadata")
    if not isinstance(user_id, str) or not user_id or is_reserved(user_id, settings):
        return None
    if not isinstance(metadata, dict) or metadata.get("provisioned_by") != "backstage":
        return None
    account = Account(user_id, row, [], user_id)
    ref = made_for(account)
    parts = split_ref(ref) if ref else None
    if ref is None or parts is None or parts[0] != "user" or is_administrator(account):
        return None
    emails = (row.get("user_email"), metadata.get("backstage_email"))
    count = row.get("key_count")
    return Candidate(
        user_id,
        f"user:{parts[1]}/{parts[2]}",
        frozenset(_email(each) for each in emails if isinstance(each, str) and "@" in each),
        count if isinstance(count, int) else None,
    )


def make_plan(
    candidates: Mapping[str, Candidate],
    listed: frozenset[str],
    people: People,
    known: Mapping[str, Leaver],
    now: datetime,
    grace: timedelta,
    delete_after: timedelta | None,
) -> Plan:
    """Decide what a run does.

    Args:
        candidates: The accounts that offboarding may act on, by user id.
        listed: Ids of all accounts that LiteLLM lists.
        people: The catalog's.
        known: The table of leavers.
        now: The present time.
        grace: How long an entity has to be missing.
        delete_after: How long an account stays blocked before it is deleted; None: for ever.
    """
    everybody = {
        row.user_id: Candidate(row.user_id, row.entity_ref, frozenset(filter(None, [row.email])))
        for row in known.values()
    } | dict(candidates)
    steps = []
    for user_id in sorted(everybody):
        who, row, account = everybody[user_id], known.get(user_id), candidates.get(user_id)
        if row is not None and _is_anothers(row, account, listed):
            steps.append(Step(Action.FORGET, row))
        elif not people.have(who):
            seen = _seen_missing(row, who, now)
            steps.append(_missing(seen, account, now, grace, delete_after))
        elif row is not None:
            recorded = len(_recorded(row))
            back = Action.RESTORE if people.have_back(who) else Action.LEAVE
            steps.append(Step(back if recorded else Action.FORGET, row, recorded))
    return Plan(len(candidates), len(people.refs), tuple(steps))


def _is_anothers(row: Leaver, account: Candidate | None, listed: frozenset[str]) -> bool:
    """Tell whether administrators have given the account to another person, or taken it over."""
    if account is None:
        return row.user_id in listed
    return account.entity_ref != row.entity_ref


def _recorded(row: Leaver) -> tuple[str, ...]:
    """Return the hashes of the keys that offboarding has blocked, or was about to block."""
    return tuple(dict.fromkeys((*row.blocked_keys, *filter(None, [row.blocking]))))


def _seen_missing(row: Leaver | None, who: Candidate, now: datetime) -> Leaver:
    """Return the row after a run that has seen the entity missing."""
    email = next(iter(sorted(who.emails)), None)
    if row is None:
        return Leaver(who.user_id, plain(who.user_id), who.entity_ref, now, 1, email)
    if row.runs_missing == 0:  # was back, and left again before all keys were unblocked
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
    if row.deleted_at is not None:  # and made again, by an administrator of LiteLLM
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
    """Return why a plan must not be carried out, and what to do; None where it may be.

    Args:
        plan: The plan.
        before: Number of people that the last successful run has seen; None: no run yet.
        max_share: ``litellm.offboarding.maxShare``, in percent.
        force: The number of ``--force``.
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
    """Carries plans out.

    Args:
        litellm: The client.
        catalog: The catalog's, asked again before an account is blocked or deleted.
        table: The table of leavers.
        settings: All settings.
        pace: Called before each call to LiteLLM.
        now: Returns the present time.

    Attributes:
        counts: What was done, by word.
        failures: For each account that LiteLLM failed for, why.
    """

    litellm: LiteLLM
    catalog: Catalog
    table: LeaverTable
    settings: Settings
    pace: Callable[[], None]
    now: Clock
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def plan(self, grace: timedelta, delete_after: timedelta | None) -> Plan:
        """Read the catalog, LiteLLM's users and the table, and decide.

        Raises:
            BackstageUnavailable: The catalog can't be read.
            UpstreamError: LiteLLM's users can't be read.
            StoreUnavailable: The table can't be read.
        """
        people = People.of(self.catalog.people(), self.settings.user_id_domain)
        rows = self._users()
        found = [candidate(row, self.settings) for row in rows]
        return make_plan(
            {each.user_id: each for each in found if each is not None},
            frozenset(str(row.get("user_id")) for row in rows),
            people,
            self.table.all(),
            self.now(),
            grace,
            delete_after,
        )

    def _users(self) -> list[Json]:
        rows: list[Json] = []
        page, pages = 1, 1
        while page <= pages:
            self.pace()
            found, pages = self.litellm.users(page)
            rows += found
            page += 1
        return rows

    def carry_out(self, plan: Plan, tell: Callable[[str], None] = lambda _text: None) -> None:
        """Do what a plan says, people who are back first.

        An account that LiteLLM refuses is left for the next run, and is in :attr:`failures`.

        Raises:
            BackstageUnavailable: The catalog does not answer any more.
            UpstreamError: LiteLLM does not answer any more.
            StoreUnavailable: The table can't be written.
        """
        forgotten = (Action.FORGET, Action.LEAVE)
        unchanged = (Action.RESTORE, *forgotten)
        # In one transaction, so that a run is counted for all of them or for none.
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
            row = replace(row, blocked_at=self.now(), passes=0)
            self.table.save([row])  # from now on the service makes no key for this account
            self.counts["accounts blocked"] += 1
            self._block(row)

    def _is_missing(self, row: Leaver) -> bool:
        """Ask the catalog for the person; the list may have left the entity out."""
        if self.catalog.entity(row.entity_ref) is None and not self._is_renamed(row):
            return True
        if not row.shut_out and not _recorded(row):
            self.table.save([], forget=[row.user_id])
        return False

    def _is_renamed(self, row: Leaver) -> bool:
        """Ask the catalog for entities with the leaver's LiteLLM id or e-mail."""
        who = Candidate(row.user_id, row.entity_ref, frozenset(filter(None, [row.email])))
        names = {row.user_id, row.user_id.rpartition("@")[0]} - {""}
        found = [
            *self.catalog.users("metadata.name", sorted(names)),
            *self.catalog.users("spec.profile.email", sorted(who.emails)),
        ]
        return People.of(found, self.settings.user_id_domain).have(who)

    def _block(self, row: Leaver) -> None:
        """Block all keys; in the first pass, until a look at the account finds none to block.

        A key that is not blocked yet may make others at LiteLLM, faster than they are blocked.
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
        """Block the keys that are due; return the row, and whether there were any."""
        any_due = False
        for key in keys:
            token = key["token"]
            if key.get("blocked") is True:
                if token == row.blocking:  # by the run that was killed
                    row = self._save(row, blocking=None, blocked_keys=_recorded(row))
            elif self._is_due(row, key):
                any_due = True
                # With the hash in the table, who comes back gets the key back.
                row = self._save(row, blocking=token)
                self._call(journal.OFFBOARD_BLOCK, row, self.litellm.block_key, token)
                row = self._save(row, blocking=None, blocked_keys=_recorded(row))
        return row, any_due

    def _is_due(self, row: Leaver, key: Json) -> bool:
        """Tell whether a key that is not blocked is to be blocked.

        A key that offboarding has blocked before was unblocked by an administrator, and stays
        so; and so do keys that were made long after all keys had been blocked.
        """
        if key["token"] in row.blocked_keys or row.blocked_at is None:
            return False
        if row.passes == 0:
            return True
        made = _moment(key.get("created_at"))
        return made is not None and row.blocked_at <= made <= row.blocked_at + UNDER_WAY

    def _delete(self, row: Leaver) -> None:
        if self._is_missing(row) and self._account(row) is not None:
            self._call(journal.OFFBOARD_DELETE, row, self.litellm.delete_user, row.user_id)
            self._deleted(row)
            self.counts["accounts deleted"] += 1

    def _account(self, row: Leaver) -> Account | None:
        """Return the account as it is now, with its keys; None where it is not the leaver's."""
        self.pace()
        account = self.litellm.whole_account(row.user_id)
        if account is None:
            self._deleted(row)
            return None
        now = candidate({**account.info, "user_id": account.user_id}, self.settings)
        if now is None or now.entity_ref != row.entity_ref:
            self.table.save([], forget=[row.user_id])
            return None
        return account

    def _confirm_gone(self, row: Leaver) -> None:
        # A page of /user/list may leave out an account while others are deleted.
        if row.deleted_at is None:
            self.pace()
            if self.litellm.account(row.user_id) is None:
                self._deleted(row)

    def _deleted(self, row: Leaver) -> None:
        # The row stays, so that nobody makes the account again while the entity is missing.
        self._save(row, deleted_at=self.now(), blocking=None, blocked_keys=())

    def _restore(self, row: Leaver) -> None:
        row = self._save(row, runs_missing=0, blocked_at=None, passes=0)
        self.pace()
        account = self.litellm.whole_account(row.user_id)
        blocked = (
            {key["token"] for key in _keys(account) if key.get("blocked") is True}
            if account is not None
            else set()
        )
        for token in _recorded(row):
            if token in blocked:
                self._call(journal.OFFBOARD_UNBLOCK, row, self.litellm.unblock_key, token)
            left = tuple(each for each in row.blocked_keys if each != token)
            row = self._save(
                row, blocked_keys=left, blocking=None if row.blocking == token else row.blocking
            )
        self.table.save([], forget=[row.user_id])
        self.counts["accounts restored"] += 1

    def _call(
        self, event: journal.Event, row: Leaver, call: Callable[[str], None], argument: str
    ) -> None:
        """Change something at LiteLLM, and record it; what is not there any more is no failure."""
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
            if exc.answered == 404 and not exc.no_such_route:
                return
            journal.record(event, meta, exc, change)
            raise
        journal.record(event, meta, change=change)
        if event is journal.OFFBOARD_BLOCK:
            self.counts["keys blocked"] += 1
        elif event is journal.OFFBOARD_UNBLOCK:
            self.counts["keys unblocked"] += 1

    def _save(self, row: Leaver, **changes: Any) -> Leaver:
        row = replace(row, **changes)
        self.table.save([row])
        return row


def _keys(account: Account) -> list[Json]:
    rows = account.info.get("keys")
    return [
        row
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
        and isinstance(row.get("token"), str)
        and row.get("user_id") in {None, account.user_id}
    ]


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else None


def _email(text: str) -> str:
    return text.strip().lower()
