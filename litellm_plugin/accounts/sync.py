"""Group sync: accounts follow the roles that their owners have by their groups in the catalog.

Before a write to LiteLLM the values are recorded as pending, and afterwards as granted, so that the
next run continues one that was killed in between.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial

from litellm_plugin.accounts.caller import litellm_id
from litellm_plugin.accounts.directory import Directory, Person
from litellm_plugin.accounts.known_owners import MISSING, UNCLEAR, NoOwnerError, account_owner
from litellm_plugin.accounts.ownership import is_email, made_for, same_email
from litellm_plugin.accounts.three_way import (
    ALL_MODELS,
    CHANGE,
    SCALARS,
    Difference,
    Plan,
    account_values,
    granted_values,
    make_plan,
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
MAX_MEMBERS = 100  # members of a group that a preview compares
PAUSE = 0.1  # seconds between two attempts to acquire an account's lock

Write = Callable[[], object]  # a change of LiteLLM

# Results of comparing an account.
UNCHANGED, DIFFERS, CHANGED, REFUSED = "unchanged", "differs", "changed", "refused"
BUSY = "busy"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key that the owner's role does not allow any more.

    Attributes:
        key: First digits of the key's hash.
        alias: The key's name.
        action: What happens to the key, in words.
    """

    key: str
    alias: str | None
    action: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of comparing one account.

    Attributes:
        user_id: LiteLLM's id.
        entity_ref: The owner; without a certain owner, the entity ref in the metadata, if any.
        status: :data:`UNCHANGED`; :data:`DIFFERS`: nothing was written; :data:`CHANGED`;
            :data:`REFUSED`: LiteLLM refused a part; :data:`BUSY`: another process changes the
            account; or why the account has no certain owner, see ``known_owners``.
        differences: The differences before any write.
        keys: Keys that are not allowed any more.
        errors: LiteLLM's refusals, or why the owner is unclear.
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
        """Whether a value was set by hand, and stays."""
        return any(each.action != CHANGE for each in self.differences)

    @property
    def notable(self) -> bool:
        """Whether the account is listed in the report."""
        return bool(self.differences or self.keys or self.errors or self.taken_in)


def without_owner(account: Account, error: NoOwnerError) -> Outcome:
    """Return the outcome for an account without a certain owner."""
    return Outcome(account.user_id, error.ref, error.status, errors=error.reasons)


@dataclass
class Sync:
    """Compares accounts with the roles of their owners, and changes the accounts.

    Attributes:
        cache: Entries of changed accounts are invalidated in it.
        pace: Called before each call to LiteLLM. A job sets it.
        patience: Seconds to wait while another process changes an account. A job sets it.
    """

    settings: Settings
    litellm: LiteLLM
    cache: Cache
    directory: Directory
    models: Models
    grants: Grants
    pace: Callable[[], None] = lambda: None
    patience: float = 0.0

    def __post_init__(self) -> None:
        self._provisioning = self.settings.provisioning
        defaults = self._provisioning.defaults
        roles = [role.applied_to(defaults) for role in self._provisioning.roles]
        self._watched = frozenset(team for gets in (defaults, *roles) for team in gets.teams)

    # -- first visits --------------------------------------------------------

    def creating(self, user_id: str, ref: str, groups: frozenset[str]) -> None:
        """Record the values that an account is about to be created with, if the store is up."""
        pending = role_values(self._provisioning.for_groups(groups))
        with _lost_store_logged(user_id):
            self.grants.put(Grant(user_id, ref, CREATED, {}, pending))

    def created(self, account: Account | None, user_id: str) -> None:
        """Record the values of a new account; None: it was not created, so drop its record."""
        with _lost_store_logged(user_id):
            grant = self.grants.of(user_id)
            if grant is None or grant.pending is None:
                return
            if account is None:
                self.grants.forget(user_id)
                return
            granted = granted_values({}, grant.pending, account_values(account))
            self.grants.put(replace(grant, granted=granted, pending=None))

    # -- accounts and owners -------------------------------------------------

    def account_of(self, ref: str) -> Account | None:
        """Return the account with a person's id or, if there is none, with the person's e-mail."""
        account = self.litellm.account(litellm_id(ref, self.settings.user_id_domain))
        entity = None if account else self.directory.entity(ref)
        if entity is None or not is_email(entity.email):
            return account
        rows = self._with_email(str(entity.email))
        return self.litellm.account(str(rows[0].get("user_id"))) if len(rows) == 1 else None

    def owner(self, account: Account) -> Person:
        """Return the owner of an account; raises as :func:`account_owner`."""

        def is_only(person: Person, email: str) -> bool:
            by_id = self.litellm.account(person.user_id)
            return by_id is None and len(self._with_email(email)) == 1

        return account_owner(account, self.directory, is_only, self.settings)

    def _with_email(self, email: str) -> list[Json]:
        rows = self.litellm.users_with_email(email)
        return [row for row in rows if same_email(row.get("user_email"), email)]

    # -- comparisons ---------------------------------------------------------

    def compare_visitor(self, user_id: str) -> Outcome | None:
        """Compare an account as configured; None if LiteLLM does not have the account.

        Raises:
            UpstreamError, BackstageUnavailable, StoreUnavailable: One of them failed.
        """
        account = self.litellm.account(user_id)
        if account is None:
            return None
        try:
            person = self.owner(account)
        except NoOwnerError as exc:
            return without_owner(account, exc)
        return self.compare(person, account, apply=self._provisioning.sync.applies)

    def plan(self, person: Person, account: Account, grant: Grant | None) -> Plan:
        """Compare an account with the role of its owner; writes nothing."""
        role = role_values(self._provisioning.for_groups(person.groups))
        # An account without a record is taken in: values that the role grants now count as
        # granted, others as set by hand.
        granted = {**role} if grant is None else grant.granted
        pending = None if grant is None else grant.pending
        return make_plan(granted, pending, account_values(account), role, self._watched)

    def compare(
        self, person: Person, account: Account, *, apply: bool, known: Grant | None = None
    ) -> Outcome:
        """Compare an account with the role of its owner, and record what counts as granted.

        With ``apply``, the account is read again, and the role's values are written to LiteLLM.
        ``known`` is the account's grant, read earlier: if it shows that there is nothing to write
        or to record, the account is not locked.

        Raises:
            UpstreamError, BackstageUnavailable, StoreUnavailable: One of them failed. Writes that
                did not end are recorded as pending.
        """
        user_id = account.user_id
        if known is not None and not known.pending and known.entity_ref == person.ref:
            plan = self.plan(person, account, known)
            if not plan.writes and plan.granted == known.granted:
                return Outcome(user_id, person.ref, UNCHANGED, plan.differences)
        with self._locked(user_id) as held:
            if not held:
                return Outcome(user_id, person.ref, BUSY)
            grant = self.grants.of(user_id)
            plan = self.plan(person, account, grant)
            if apply and grant is not None and (plan.writes or grant.pending):
                return self._apply(person, account, grant)
            origin = grant.origin if grant else TAKEN_IN
            record = Grant(user_id, person.ref, origin, plan.granted)
            if grant is None or (not grant.pending and record != grant):
                self.grants.put(record)
            status = DIFFERS if plan.writes else UNCHANGED
            excess = self._excess_keys(user_id, plan.update.get("models"), plan.leave)
            keys = tuple(key for key, _ in excess)
            return Outcome(
                user_id, person.ref, status, plan.differences, keys, taken_in=grant is None
            )

    def preview(self, group: str) -> Json:
        """Return what a comparison would change for the members of a group; writes nothing.

        Leaves out accounts that the service finds by e-mail, and members beyond
        :data:`MAX_MEMBERS`. If LiteLLM, the catalog or the store fails, ``unavailable`` has the
        reason in place of the changes.
        """
        answer: Json = {"mode": self._provisioning.sync.mode}
        try:
            members = self.directory.members(group)
            people = {person.user_id: person for person in members[:MAX_MEMBERS]}
            accounts = self.litellm.accounts_of(list(people))
            changes = [
                {"user": people[account.asked].ref, "user_id": account.user_id, **asdict(each)}
                for account in accounts
                if made_for(account) in {None, people[account.asked].ref}
                for each in self.plan(
                    people[account.asked], account, self.grants.of(account.user_id)
                ).differences
            ]
        except (PluginError, StoreUnavailable) as exc:
            return {**answer, "unavailable": redact(str(exc))}
        counts = {"members": len(members), "compared": len(accounts)}
        return {**answer, **counts, "changes": changes}

    def note_differences(self, outcome: Outcome) -> None:
        """Write the differences of an account to the log and as an audit event."""
        names = ("field", "now", "role", "action")
        differences = [picked(asdict(each), names) for each in outcome.differences]
        log.info("%s is not as its role grants it: %s", outcome.user_id, differences)
        meta = {"userId": outcome.user_id, "entityRef": outcome.entity_ref}
        with journal.acting(ACTOR, self.settings):
            journal.record(journal.USER_SYNC_REPORT, {**meta, "differences": differences})

    # -- writes --------------------------------------------------------------

    def _apply(self, person: Person, account: Account, grant: Grant) -> Outcome:
        user_id = account.user_id
        entity = self.directory.entity(person.ref)
        self.pace()
        current = self.litellm.account(user_id)
        if entity is None or current is None:
            return Outcome(user_id, person.ref, MISSING)
        if any(read(current) != read(account) for read in (made_for, _email)):
            changed = "the account's owner or e-mail was changed during the run"
            return Outcome(user_id, None, UNCLEAR, errors=(changed,))
        plan = self.plan(replace(person, groups=entity.groups), current, grant)
        # What an interrupted run has changed:
        self._record_change(user_id, person.ref, grant.granted, plan.granted)
        now, writes = account_values(current), plan.pending
        if (
            grant.pending
            and "models" in grant.pending
            and "models" not in plan.update
            and now["models"] == plan.granted["models"]
        ):
            # The interrupted run may not have limited the keys yet.
            writes["models"] = now["models"]
        record = replace(grant, entity_ref=person.ref, granted=plan.granted, pending=writes)
        if plan.writes or "models" in writes:
            self.grants.put(record)
        ids = (user_id, person.user_id)
        with self.cache.invalidating(*map(user_tag, ids), *map(keys_tag, ids), TEAMS):
            keys = self._excess_keys(user_id, writes.get("models"), plan.leave)
            errors = self._refusals(self._account_writes(current, plan))
            errors += self._refusals(write for _, write in keys if write is not None)
            if plan.writes:
                self.pace()
                current = self.litellm.account(user_id) or current
        now = account_values(current)
        if not errors and (kept := [name for name, it in plan.update.items() if now[name] != it]):
            errors.append(f"LiteLLM kept its own {', '.join(kept)}")
        granted = granted_values(plan.granted, writes, now)
        changes = tuple(key for key, _ in keys)
        self._record_change(user_id, person.ref, plan.granted, granted, changes, errors)
        self.grants.put(replace(record, granted=granted, pending=None))
        status = REFUSED if errors else CHANGED if plan.writes else UNCHANGED
        return Outcome(user_id, person.ref, status, plan.differences, changes, tuple(errors))

    def _account_writes(self, account: Account, plan: Plan) -> Iterator[Write]:
        """Yield the writes of the planned fields and memberships."""
        user_id = account.user_id
        if plan.update:
            change = {"user_id": user_id, **plan.update}
            if change.get("models") == []:
                change["models"] = [ALL_MODELS]
            if "user_role" in change:
                # With a new role, LiteLLM 1.81 resets fields that are left out to its defaults.
                kept = picked(account_values(account), ("max_budget", "budget_duration"))
                change = {**kept, **change}
            yield partial(self.litellm.update_user, change)
        for team in plan.join:
            yield partial(self.litellm.add_member, team, user_id, None)
        for team in plan.leave:
            yield partial(self.litellm.remove_member, team, user_id)

    def _refusals(self, writes: Iterable[Write]) -> list[str]:
        """Run the writes; return the messages of those that LiteLLM refused.

        Raises:
            UpstreamError: LiteLLM is down, or may have acted without an answer.
        """
        refusals = []
        for write in writes:
            self.pace()
            try:
                write()
            except UpstreamError as exc:
                if exc.down or exc.unfinished or exc.answered == 401:
                    raise
                refusals.append(redact(exc.message))
        return refusals

    def _excess_keys(
        self, user_id: str, models: list[str] | None, left: Sequence[str]
    ) -> list[tuple[KeyChange, Write | None]]:
        """Return the keys that new models or left teams forbid, with the writes for them.

        ``models`` are the owner's new models; without any, keys are not compared with them.
        """
        if not models and not left:
            return []
        self.pace()
        found: list[tuple[KeyChange, Write | None]] = []
        for row in self.litellm.keys_of(user_id):
            if row.get("blocked") is True:
                continue
            token, team = str(row.get("token")), row.get("team_id")
            action, write = "", None
            if team in left:
                action = f"LiteLLM deletes it with the membership in {team}"
            elif models and not team and row.get("models"):
                action, write = self._narrowing(token, row["models"], models)
            if action:
                change = KeyChange(journal.key_id(token), row.get("key_alias"), action)
                found.append((change, write))
        return found

    def _narrowing(
        self, token: str, named: list[str], allowed: list[str]
    ) -> tuple[str, Write | None]:
        """Return what happens to a key of the models ``named``, in words, and the write for it.

        Without forbidden models the text is empty.
        """
        groups: dict[str, set[str]] = {}
        for model in self.models.all():
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
            return "", None
        # Wildcards, access groups and the like may include allowed models.
        if WORDS & {*allowed} or not all(name in groups and "*" not in name for name in others):
            return f"reported only: {', '.join(others)} may include allowed models", None
        if self._provisioning.sync.on_excess_keys != "block":
            return f"reported only: {', '.join(others)} not allowed", None
        if not kept:
            return "blocked: no model left", partial(self.litellm.block_key, token)
        change = {"key": token, "models": kept}
        return f"narrowed to {', '.join(kept)}", partial(self.litellm.update_key, change)

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
        meta: Json = {"before": picked(before, names), "after": picked(after, names)}
        if keys:
            meta["keys"] = [{"keyId": each.key, "action": each.action} for each in keys]
        error = RuntimeError("; ".join(errors)) if errors else None
        change = journal.change(user_id, meta["before"], meta["after"] or None)
        with journal.acting(ACTOR, self.settings):
            meta = {"userId": user_id, "entityRef": ref, **meta}
            journal.record(journal.USER_SYNC, meta, error, change)

    @contextmanager
    def _locked(self, user_id: str) -> Iterator[bool]:
        end = time.monotonic() + self.patience
        while True:
            with self.grants.lock(user_id) as held:
                if held or time.monotonic() >= end:
                    yield held
                    return
            time.sleep(PAUSE)


def _email(account: Account) -> object:
    return account.info.get("user_email")


@contextmanager
def _lost_store_logged(user_id: str) -> Iterator[None]:
    try:
        yield
    except StoreUnavailable as exc:
        log.warning("the grants of %s can't be recorded now: %s", user_id, exc)
