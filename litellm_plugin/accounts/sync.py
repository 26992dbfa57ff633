"""Continuous group sync: what a role grants follows the groups of its user.

Before a write to LiteLLM the values are recorded as pending, and afterwards as granted, so that a
run that is killed in between is continued by the next one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from litellm_plugin.accounts.caller import litellm_id
from litellm_plugin.accounts.directory import Directory, Person
from litellm_plugin.accounts.known_owners import MISSING, NoOwnerError, account_owner
from litellm_plugin.accounts.ownership import is_email, made_for, owner_fields, same_email
from litellm_plugin.accounts.three_way import (
    ALL_MODELS,
    CHANGE,
    SCALARS,
    Difference,
    Plan,
    account_values,
    as_pending,
    compare,
    role_values,
)
from litellm_plugin.accounts.users import TEAMS, keys_tag, user_tag
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import PluginError, UpstreamError
from litellm_plugin.models import WORDS, Models, allows
from litellm_plugin.observability import journal
from litellm_plugin.redaction import redact
from litellm_plugin.shapes import picked
from litellm_plugin.store.database import StoreUnavailable
from litellm_plugin.store.grants import CREATED, TAKEN_IN, Grant, Grants

log = logging.getLogger(__name__)

ACTOR = "litellm-plugin:sync"  # in audit events
MAX_MEMBERS = 100  # of a group, that a preview compares
PAUSE = 0.1  # seconds between two attempts to acquire an account's lock

# What became of an account.
UNCHANGED, DIFFERS, CHANGED, REFUSED = "unchanged", "differs", "changed", "refused"
BUSY = "busy"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key that its owner's role does not allow any more.

    Attributes:
        key: The first digits of LiteLLM's hash.
        alias: The key's name.
        action: What happens to the key, in words.
    """

    key: str
    alias: str | None
    action: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one account.

    Attributes:
        user_id: LiteLLM's id.
        entity_ref: The owner; None where there is none for certain.
        status: :data:`UNCHANGED`; :data:`DIFFERS`, where nothing was written; :data:`CHANGED`;
            :data:`REFUSED`, where LiteLLM refused a part; :data:`BUSY`, where another process
            changes the account; or why the account has no known owner, see ``known_owners``.
        differences: From before any write.
        keys: Keys that are not allowed any more.
        errors: What LiteLLM refused, or why the owner is unclear.
        taken_in: Whether the account's grant was recorded for the first time.
    """

    user_id: str
    entity_ref: str | None
    status: str
    differences: tuple[Difference, ...] = ()
    keys: tuple[KeyChange, ...] = ()
    errors: tuple[str, ...] = ()
    taken_in: bool = False

    @property
    def by_hand(self) -> bool:
        """Whether a value stays that was set by hand."""
        return any(each.action != CHANGE for each in self.differences)

    @property
    def notable(self) -> bool:
        """Whether there is anything to tell of the account."""
        return bool(self.differences or self.keys or self.errors or self.taken_in)


def without_owner(account: Account, error: NoOwnerError) -> Outcome:
    """Return the outcome for an account whose owner is not known."""
    return Outcome(account.user_id, error.ref, error.status, errors=error.reasons)


class Sync:
    """Compares accounts with the roles of their owners, and changes them.

    Args:
        settings: Roles, and ``litellm.provisioning.sync``.
        litellm: The client.
        cache: Entries of changed accounts are invalidated in it.
        directory: Finds people in the catalog.
        models: The proxy's models.
        grants: What was granted to whom.
    """

    def __init__(
        self,
        settings: Settings,
        litellm: LiteLLM,
        cache: Cache,
        directory: Directory,
        models: Models,
        grants: Grants,
    ) -> None:
        self._settings = settings
        self._provisioning = settings.provisioning
        self._litellm = litellm
        self._cache = cache
        self._directory = directory
        self._models = models
        self.grants = grants
        defaults = self._provisioning.defaults
        roles = [role.applied_to(defaults) for role in self._provisioning.roles]
        self._watched = frozenset(team for gets in (defaults, *roles) for team in gets.teams)

    # -- first visits --------------------------------------------------------

    def creating(self, user_id: str, ref: str, groups: frozenset[str]) -> None:
        """Record what an account is about to be created with; logs where the store is away."""
        pending = as_pending(role_values(self._provisioning.for_groups(groups)))
        try:
            self.grants.put(Grant(user_id, ref, CREATED, {}, pending))
        except StoreUnavailable as exc:
            log.warning("what %s is granted can't be recorded now: %s", user_id, exc)

    def created(self, account: Account | None, user_id: str) -> None:
        """Record what an account was created with; None: it was not created."""
        try:
            grant = self.grants.of(user_id)
            if grant is None or grant.pending is None:
                return
            if account is None:
                self.grants.forget(user_id)
                return
            now = account_values(account)
            plan = compare({}, grant.pending, now, now)
            self.grants.put(replace(grant, granted=plan.granted, pending=None))
        except StoreUnavailable as exc:
            log.warning("what %s is granted can't be recorded now: %s", user_id, exc)

    # -- comparisons ---------------------------------------------------------

    @staticmethod
    def slim(account: Account) -> Account:
        """Drop the fields of a user's row that no comparison needs."""
        needed = picked(account.info, (*SCALARS, "user_email"))
        return replace(account, info={**needed, **owner_fields(account.info)})

    def account_of(self, ref: str) -> Account | None:
        """Return the account with a person's id or, where there is none, the person's e-mail."""
        account = self._litellm.account(litellm_id(ref, self._settings.user_id_domain))
        entity = None if account else self._directory.entity(ref)
        if entity is None or not is_email(entity.email):
            return account
        rows = self._litellm.users_with_email(str(entity.email))
        same = [row for row in rows if same_email(row.get("user_email"), entity.email)]
        return self._litellm.account(str(same[0].get("user_id"))) if len(same) == 1 else None

    def is_only_account(self, person: Person, email: str) -> bool:
        """Ask LiteLLM whether no account has a person's id, and only one the e-mail."""
        if self._litellm.account(person.user_id) is not None:
            return False
        rows = self._litellm.users_with_email(email)
        return sum(same_email(row.get("user_email"), email) for row in rows) == 1

    def visit(self, user_id: str) -> Outcome | None:
        """Compare one account, and change it where configured; None where there is no account.

        Raises:
            UpstreamError, BackstageUnavailable, StoreUnavailable: One of them failed.
        """
        account = self._litellm.account(user_id)
        if account is None:
            return None
        return self.check(account, apply=self._provisioning.sync.applies)

    def check(self, account: Account, **options: Any) -> Outcome:
        """Find the owner of an account, and :meth:`settle` it; raises as :meth:`visit`."""
        try:
            person = account_owner(account, self._directory, self.is_only_account, self._settings)
        except NoOwnerError as exc:
            return without_owner(account, exc)
        return self.settle(person, account, **options)

    def plan(self, person: Person, account: Account, grant: Grant | None) -> Plan:
        """Compare an account with the role of its owner; writes nothing."""
        role = role_values(self._provisioning.for_groups(person.groups))
        # An account without a record is taken in: values as the role grants them now count as
        # granted, others as set by hand.
        granted = {**role} if grant is None else grant.granted
        pending = None if grant is None else grant.pending
        return compare(granted, pending, account_values(account), role, self._watched)

    def examine(
        self, person: Person, account: Account, grant: Grant | None, **options: Any
    ) -> Outcome:
        """Do what :meth:`settle` does, where there is something to do or to record.

        Args:
            person: The owner.
            account: The account.
            grant: The account's grant, if any; read again before a write.
            options: As for :meth:`settle`.
        """
        if grant is not None and not grant.pending and grant.entity_ref == person.ref:
            plan = self.plan(person, account, grant)
            if not plan.writes and plan.granted == grant.granted:
                return Outcome(account.user_id, person.ref, UNCHANGED, plan.differences)
        return self.settle(person, account, **options)

    def settle(
        self,
        person: Person,
        account: Account,
        *,
        apply: bool,
        pace: Callable[[], None] = lambda: None,
        patience: float = 0.0,
    ) -> Outcome:
        """Take an account in, and remove its differences; records what is granted.

        Args:
            person: The owner.
            account: The account; read again before a write.
            apply: Whether to write to LiteLLM.
            pace: Called before each call to LiteLLM.
            patience: Seconds to wait while another process changes the account.

        Raises:
            UpstreamError, BackstageUnavailable, StoreUnavailable: One of them failed. What was
                not finished is recorded as pending.
        """
        with self._locked(account.user_id, patience) as held:
            if not held:
                return Outcome(account.user_id, person.ref, BUSY)
            grant = self.grants.of(account.user_id)
            plan = self.plan(person, account, grant)
            if apply and (plan.writes or (grant and grant.pending)):
                return self._apply(person, account, grant, pace)
            origin = grant.origin if grant else TAKEN_IN
            record = Grant(account.user_id, person.ref, origin, plan.granted)
            if grant is None or (not grant.pending and record != grant):
                self.grants.put(record)
            keys = [change for _, _, change in self._excess_keys(account.user_id, plan, pace)]
            return Outcome(
                account.user_id,
                person.ref,
                DIFFERS if plan.writes else UNCHANGED,
                plan.differences,
                tuple(keys),
                taken_in=grant is None,
            )

    def preview(self, group: str) -> Json:
        """Return what a comparison would change for the members of a group; writes nothing.

        Accounts that the service finds by e-mail are left out, and so are members beyond
        :data:`MAX_MEMBERS`. Where LiteLLM, the catalog or the store is away, ``unavailable`` says
        so in place of the changes.
        """
        told: Json = {"mode": self._provisioning.sync.mode}
        try:
            members = self._directory.members(group)
            people = {person.user_id: person for person in members[:MAX_MEMBERS]}
            accounts = self._litellm.accounts_of(list(people))
            changes = [
                {"user": people[account.asked].ref, "user_id": account.user_id, **asdict(each)}
                for account in accounts
                if made_for(account) in {None, people[account.asked].ref}
                for each in self.plan(
                    people[account.asked], account, self.grants.of(account.user_id)
                ).differences
            ]
        except (PluginError, StoreUnavailable) as exc:
            return {**told, "unavailable": redact(str(exc))}
        counts = {"members": len(members), "compared": len(accounts)}
        return {**told, **counts, "changes": changes}

    def note_differences(self, outcome: Outcome) -> None:
        """Write the differences of an account to the log and the audit journal."""
        told = [
            {"field": each.field, "now": each.now, "role": each.role, "action": each.action}
            for each in outcome.differences
        ]
        log.info("%s is not as its role grants it: %s", outcome.user_id, told)
        event = journal.USER_SYNC_REPORT
        self._record(event, outcome.user_id, outcome.entity_ref, {"differences": told})

    # -- writes --------------------------------------------------------------

    def _apply(
        self, person: Person, account: Account, grant: Grant | None, pace: Callable[[], None]
    ) -> Outcome:
        user_id = account.user_id
        entity = self._directory.entity(person.ref)
        pace()
        current = self._litellm.account(user_id)
        if entity is None or current is None:
            return Outcome(user_id, person.ref, MISSING)
        person = replace(person, groups=entity.groups)
        plan = self.plan(person, current, grant)
        before, pending = (grant.granted, grant.pending) if grant else ({}, None)
        self._record_change(user_id, person.ref, before, plan.granted)  # of an interrupted run
        origin = grant.origin if grant else TAKEN_IN
        record = Grant(user_id, person.ref, origin, plan.granted)
        # The keys of an interrupted run may not have been limited yet.
        now = account_values(current)
        same = "models" not in plan.update and now["models"] == plan.granted["models"]
        interrupted = bool(same and pending and "models" in pending)
        models = now["models"] if interrupted else plan.update.get("models")
        if plan.writes or interrupted:
            again = {"models": models} if interrupted else {}
            self.grants.put(replace(record, pending=plan.pending | again))
        with self._cache.invalidating(
            *(user_tag(each) for each in (user_id, person.user_id)),
            *(keys_tag(each) for each in (user_id, person.user_id)),
            TEAMS,
        ):
            keys = self._excess_keys(user_id, plan, pace, models=models)
            errors = [*self._write(current, plan, pace), *self._limit_keys(keys, pace)]
            if plan.writes:
                pace()
                current = self._litellm.account(user_id) or current
        now = account_values(current)
        granted = plan.settled(now)
        if not errors and (kept := [name for name, it in plan.update.items() if now[name] != it]):
            errors.append(f"LiteLLM kept its own {', '.join(kept)}")
        changes = tuple(change for _, _, change in keys)
        self._record_change(user_id, person.ref, plan.granted, granted, changes, errors)
        self.grants.put(replace(record, granted=granted))
        status = REFUSED if errors else CHANGED if plan.writes else UNCHANGED
        return Outcome(
            user_id, person.ref, status, plan.differences, changes, tuple(errors), grant is None
        )

    def _write(self, account: Account, plan: Plan, pace: Callable[[], None]) -> Iterator[str]:
        """Write what a plan says; yield what LiteLLM refuses."""
        user_id = account.user_id
        if plan.update:
            change = {"user_id": user_id, **plan.update}
            if change.get("models") == []:
                change["models"] = [ALL_MODELS]
            if "user_role" in change:
                # Beside a new role, LiteLLM 1.81 sets its own defaults for fields left out.
                kept = account_values(account)
                change = {
                    **{name: kept[name] for name in ("max_budget", "budget_duration")},
                    **change,
                }
            yield from _tried(pace, self._litellm.update_user, change)
        for team in plan.join:
            yield from _tried(pace, self._litellm.add_member, team, user_id, None)
        for team in plan.leave:
            yield from _tried(pace, self._litellm.remove_member, team, user_id)

    def _limit_keys(
        self, keys: Sequence[tuple[Json, list[str] | None, KeyChange]], pace: Callable[[], None]
    ) -> Iterator[str]:
        """Narrow or block keys; yield what LiteLLM refuses."""
        for row, kept, _ in keys:
            token = str(row["token"])
            if kept:
                change = {"key": token, "models": kept}
                yield from _tried(pace, self._litellm.update_key, change)
            elif kept is not None:
                yield from _tried(pace, self._litellm.block_key, token)

    def _excess_keys(
        self,
        user_id: str,
        plan: Plan,
        pace: Callable[[], None],
        *,
        models: list[str] | None = None,
    ) -> list[tuple[Json, list[str] | None, KeyChange]]:
        """Return the keys that new models or left teams forbid.

        Returns:
            For each key its row; the models to leave it, none to block it, or None to leave it
            as it is; and what happens, in words.
        """
        models = plan.update.get("models") if models is None else models
        if not models and not plan.leave:
            return []
        pace()
        found: list[tuple[Json, list[str] | None, KeyChange]] = []
        for row in self._litellm.keys_of(user_id):
            if row.get("blocked") is True:
                continue
            kept: list[str] | None = None
            team = row.get("team_id")
            if team in plan.leave:
                action = f"LiteLLM deletes it with the membership in {team}"
            elif models and not team and row.get("models"):
                kept, action = self._narrowed(models, row["models"])
            else:
                continue
            if action:
                token = journal.key_id(str(row.get("token")))
                found.append((row, kept, KeyChange(token, row.get("key_alias"), action)))
        return found

    def _narrowed(self, allowed: list[str], named: list[str]) -> tuple[list[str] | None, str]:
        """Return the models to leave a key, as :meth:`_excess_keys` does, and what happens."""
        groups: dict[str, set[str]] = {}
        for model in self._models.all():
            listed = model.get("access_groups")
            of_model = groups.setdefault(model["model_name"], set())
            of_model.update(listed if isinstance(listed, list) else ())
        kept = [
            name
            for name in named
            if allows(allowed, name) or groups.get(name, set()) & set(allowed)
        ]
        others = [name for name in named if name not in kept]
        if not others:
            return None, ""
        # Only a plain model's name is certain not to stand for models that are allowed.
        if WORDS & {*allowed} or not all(name in groups and "*" not in name for name in others):
            return None, f"reported only: {', '.join(others)} may include allowed models"
        if self._provisioning.sync.on_excess_keys != "block":
            return None, f"reported only: {', '.join(others)} not allowed"
        return kept, f"narrowed to {', '.join(kept)}" if kept else "blocked: no model left"

    # -- parts ---------------------------------------------------------------

    def _record_change(
        self,
        user_id: str,
        ref: str,
        before: Json,
        after: Json,
        keys: Sequence[KeyChange] = (),
        errors: Sequence[str] = (),
    ) -> None:
        """Write an audit event of what was changed, if anything was."""
        names = [
            name
            for name in (*SCALARS, "teams")
            if name in before and before[name] != after.get(name)
        ]
        if not (names or keys or errors):
            return
        told: Json = {
            "before": {name: before[name] for name in names},
            "after": {name: after[name] for name in names},
        }
        if keys:
            told["keys"] = [{"keyId": each.key, "action": each.action} for each in keys]
        error = RuntimeError("; ".join(errors)) if errors else None
        change = journal.change(user_id, told["before"], told["after"] or None)
        self._record(journal.USER_SYNC, user_id, ref, told, error, change)

    def _record(
        self,
        event: journal.Event,
        user_id: str,
        ref: str | None,
        told: Json,
        error: Exception | None = None,
        change: journal.Change | None = None,
    ) -> None:
        service, levels = self._settings.service, self._settings.audit_levels
        token = journal.begin(journal.Command(service.plugin_id, ACTOR, levels))
        try:
            meta = {"userId": user_id, "entityRef": ref, **told}
            journal.record(event, meta, error, change)
        finally:
            journal.end(token)

    @contextmanager
    def _locked(self, user_id: str, patience: float) -> Iterator[bool]:
        end = time.monotonic() + patience
        while True:
            with self.grants.lock(user_id) as held:
                if held or time.monotonic() >= end:
                    yield held
                    return
            time.sleep(PAUSE)


def _tried(pace: Callable[[], None], write: Callable[..., Any], *arguments: Any) -> Iterator[str]:
    """Write; yield LiteLLM's refusal, which concerns this write alone.

    Raises:
        UpstreamError: LiteLLM is down, or may have acted without an answer.
    """
    pace()
    try:
        write(*arguments)
    except UpstreamError as exc:
        if exc.down or exc.unfinished or exc.answered == 401:
            raise
        yield redact(exc.message)
