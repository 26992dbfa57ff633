"""Finds the caller's LiteLLM account, and creates it on the first visit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from litellm_plugin import fields, shapes
from litellm_plugin.accounts.caller import NO_ENTITY, Caller, not_reserved
from litellm_plugin.accounts.leavers import Leavers
from litellm_plugin.accounts.ownership import (
    AccountOwners,
    Owner,
    is_administrator,
    is_email,
    same_email,
    slim,
)
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.clock import Clock, stamp
from litellm_plugin.config.settings import LLM_API, Settings
from litellm_plugin.errors import Forbidden, NotFound, PluginError, UpstreamError
from litellm_plugin.observability import journal, metrics
from litellm_plugin.observability.request_id import with_context
from litellm_plugin.redaction import redact
from litellm_plugin.shapes import present
from litellm_plugin.usage.periods import Reports, Subject

if TYPE_CHECKING:  # imports SQLAlchemy, which only some configurations need
    from litellm_plugin.accounts.visits import Visits

log = logging.getLogger(__name__)

MAX_ADOPTED = 10_000
LLM_API_ONLY = "key_type must be llm_api for an administrator of LiteLLM"
MAX_HINT = 500  # characters of LiteLLM's text in a hint
SERVICE_CREATES_NOBODY = (
    "A service creates nobody here: GET /user/info?user_id= does, and so does the user's first"
    " visit, where litellm.provisioning.enabled is true"
)

# TTL in seconds of a look-up from e-mail to LiteLLM id; the account is checked on each use.
BY_EMAIL = 300.0

KEYS_AHEAD = 32  # reads of keys under way at once while their account is read

TEAMS = "teams"  # cache tag of entries that depend on any team


def user_tag(user_id: str) -> str:
    """Return the cache tag of entries made from a user's own row."""
    return f"user:{user_id}"


def keys_tag(user_id: str) -> str:
    """Return the cache tag of entries that depend on a user's virtual keys."""
    return f"keys:{user_id}"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a new user is created with.

    Attributes:
        source: Entity ref, or another name of the person.
        entity: Its groups decide the role.
    """

    source: str
    entity: Entity = NO_ENTITY


@dataclass(frozen=True, slots=True)
class _Asking:
    """How to read an account.

    Attributes:
        reader: The caller's name; part of the cache key, so that callers share no entries.
        fresh: Use no cached answer, because a write depends on the account.
        stale: As for ``Cache.read``.
        keys_too: Whether to read the user's keys at the same time, if the account is not cached.
    """

    reader: str
    fresh: bool = False
    stale: Callable[[float], None] | None = None
    keys_too: bool = False


class ProvisioningFailed(PluginError):
    """LiteLLM did not create the user."""

    def __init__(self, cause: UpstreamError) -> None:
        super().__init__("LiteLLM auto-provisioning failed")
        self.cause = cause

    @property
    def status(self) -> int:  # type: ignore[override]
        """LiteLLM's status where it is about the user to create, else 502."""
        return self.cause.answered if self.cause.answered in {400, 404, 409, 422} else 502

    def body(self, method: str, url: str) -> dict[str, Any]:
        """Return ``error``, ``hint`` and ``provisioning``."""
        text = redact(self.cause.text)[:MAX_HINT] or "unknown error"
        hint = f"LiteLLM upstream {self.cause.answered or 'error'}: {text}"
        return {**super().body(method, url), "hint": hint, "provisioning": True}


class Users:
    """Finds LiteLLM users, and creates them on their first visit."""

    def __init__(
        self,
        litellm: LiteLLM,
        cache: Cache,
        reports: Reports,
        settings: Settings,
        owners: AccountOwners,
        now: Clock,
        leavers: Leavers | None = None,
        visits: Visits | None = None,
        record_adopted: Callable[[str, str, str], None] | None = None,
    ) -> None:
        self._owners = owners
        self._leavers = leavers  # None: offboarding is off
        self._visits = visits  # None: group sync is off
        self._record_adopted = record_adopted  # None: there is no store
        self._adopted: set[str] = set()  # ids whose account this worker has found by e-mail
        self._litellm = litellm
        self._cache = cache
        self._reports = reports
        self._settings = settings
        self._provisioning = settings.provisioning
        self._now = now
        # Its threads start with the first use, after the fork, so that each worker has its own.
        self._keys_ahead = ThreadPoolExecutor(KEYS_AHEAD, thread_name_prefix="keys")

    def find(
        self, caller: Caller, *, fresh: bool = False, by_email: bool = False
    ) -> Account | None:
        """Return the caller's account, or None; creates no user.

        Args:
            caller: The owner.
            fresh: Use no cached answer, because a write depends on the account.
            by_email: Whether to look by e-mail even if this process has no cache.

        Raises:
            IdentityRefused: The account may be another person's.
        """
        user_id = caller.litellm_id
        if not user_id:
            return None
        asking, owner = _Asking(caller.name, fresh=fresh), owner_of(caller)
        account = self._look_up(user_id, asking)
        if account is not None:
            return self._owners.confirmed(owner, account)
        if owner is None or not (by_email or self._looks_by_email(user_id)):
            return None
        return self._by_email(owner, asking)

    def as_it_is(self, user_id: str, reader: str) -> Account | None:
        """Return an account by LiteLLM id, read fresh, or None; creates no user."""
        return self._look_up(user_id, _Asking(reader, fresh=True))

    def account(
        self,
        caller: Caller,
        *,
        fresh: bool = False,
        for_service: bool = False,
        keys_too: bool = False,
    ) -> Account:
        """Return the caller's account, created on the first visit.

        Args:
            caller: The owner.
            fresh: As for :meth:`find`.
            for_service: Whether to create the user that a service names, too.
            keys_too: Whether :meth:`keys` is called next: both are read at the same time.

        Raises:
            IdentityRefused: The account may be another person's.
            HasLeft: The person is a leaver, and would get a new account.
            NotFound: There is no account, and none is created; or a service names no user.
            ProvisioningFailed: LiteLLM refused to create the user.
            BackstageUnavailable: The catalog can't be read, and the role depends on it.
        """
        user_id = caller.litellm_id
        if not user_id:
            raise self._not_found("No user identity could be resolved from the request.")
        owner = owner_of(caller)
        # Without a cache, keys() would have to read again.
        keys_too = keys_too and owner is not None and self._cache.seconds > 0
        asking = _Asking(caller.name, fresh, caller.note_stale, keys_too)
        before = self._cache.stamps(user_tag(user_id))
        account = self._look_up(user_id, asking)
        if account is not None:
            return self._visited(owner, self._owners.confirmed(owner, account))
        if owner is None and not for_service:
            raise self._not_found(SERVICE_CREATES_NOBODY)
        return self._first_visit(user_id, owner, lambda: profile_of(caller), asking, before)

    def account_of(
        self, owner: Owner, profile: Callable[[], Profile], *, reader: str, fresh: bool = False
    ) -> Account:
        """Return the account of a person who need not be the caller; raises as :meth:`account`.

        Args:
            owner: The person.
            profile: Returns what a new user is created with.
            reader: The caller's name; part of the cache key, so that callers share no entries.
            fresh: As for :meth:`find`.
        """
        asking, before = _Asking(reader, fresh=fresh), self._cache.stamps(user_tag(owner.own_id))
        account = self._look_up(owner.own_id, asking)
        if account is not None:
            return self._visited(owner, self._owners.confirmed(owner, account))
        return self._first_visit(owner.own_id, owner, profile, asking, before)

    def _visited(self, owner: Owner | None, account: Account) -> Account:
        if owner is not None and self._visits is not None:
            self._visits.visited(account)
        return account

    def refuse_other(self, owner: Owner, reader: str) -> None:
        """Refuse to act on the account with the owner's id where it may be another person's.

        Raises:
            IdentityRefused: The account may be another person's.
        """
        account = self._look_up(owner.own_id, _Asking(reader))
        if account is not None:
            self._owners.confirmed(owner, account)

    def _first_visit(
        self,
        user_id: str,
        owner: Owner | None,
        profile: Callable[[], Profile],
        asking: _Asking,
        before: object,
    ) -> Account:
        """Return the account of an id that LiteLLM does not know: adopted by e-mail, or created.

        Args:
            user_id: The id.
            owner: None for a user that a service names.
            profile: Returns what a new user is created with.
            asking: How to read the account.
            before: The stamps of the user's tag from before the read that found no account.
        """
        looked = self._looks_by_email(user_id)
        account = self._by_email(owner, asking) if owner is not None and looked else None
        if account is not None:
            return self._visited(owner, account)
        if not self._provisioning.enabled:
            raise self._not_found(
                "Enable litellm.provisioning.enabled in app-config.yaml or create the user manually"
            )
        if self._leavers is not None:
            self._leavers.refuse(user_id, owner=owner)
        person = profile()
        # LiteLLM refuses a duplicate of the new user's e-mail only; the owner's may be another.
        if (
            owner is not None
            and not looked
            and (self._owners.refuse or _has_another_email(person, owner))
        ):
            account = self._by_email(owner, asking)
            if account is not None:
                return account
        self._owners.refuse_shared_id(owner)
        account, tag = None, user_tag(user_id)
        with self._cache.lock(tag):
            if before is None or before != self._cache.stamps(tag):
                # Another request may have created the user while this one waited for the lock.
                account = self._look_up(user_id, _Asking(asking.reader))
            if account is None:
                # The new user may be put into teams, whose members see the user.
                with self._cache.invalidating(tag, TEAMS):
                    account = self._create(user_id, person, owner, asking)
        return account if account.asked != user_id else self._owners.confirmed(owner, account)

    def _look_up(self, user_id: str, asking: _Asking) -> Account | None:
        """Return an account by LiteLLM id, or None.

        Raises:
            ReservedId: LiteLLM returns an account with a reserved id.
        """

        def load() -> Account | None:
            if asking.keys_too:
                # This read only fills the cache. Once the account is confirmed, keys() takes the
                # result from there, or joins this read, or asks again where it has failed.
                read = with_context(partial(self.keys, reader=asking.reader))
                self._keys_ahead.submit(read, Account(user_id, {}, [], asked=user_id))
            account = self._litellm.account(user_id)
            # No route needs the other fields, which are most of them.
            return None if account is None else slim(account, shapes.USER_FIELDS)

        account: Account | None = self._cache.read(
            ("account", asking.reader, user_id),
            (user_tag(user_id), TEAMS),
            load,
            fresh=asking.fresh,
            seconds=self._cache.account_seconds,
            weight=lambda account: 1 + len(account.team_ids) if account else 1,
            stale=asking.stale,
        )
        if account is not None:
            not_reserved(account.user_id, self._settings)
        return account

    def keys(
        self,
        account: Account,
        reader: str,
        *,
        fresh: bool = False,
        stale: Callable[[float], None] | None = None,
    ) -> list[Json]:
        """Return the virtual keys of a checked account, the oldest first.

        Args:
            account: The owner's account.
            reader: As for :meth:`account_of`.
            fresh: As for :meth:`find`.
            stale: As for ``Cache.read``.
        """
        return self._cache.read(
            ("keys", reader, account.user_id),
            (keys_tag(account.asked), TEAMS),
            lambda: [shapes.key_row(row) for row in self._litellm.keys_of(account.user_id)],
            fresh=fresh,
            seconds=self._cache.account_seconds,
            weight=len,
            stale=stale,
        )

    def check_key_owner(self, caller: Caller, key: Json, account: Account | None) -> None:
        """Check that a new key may belong to its owner.

        A service with a restricted token may only name plain users: a key of an administrator
        could do more than the token.

        Args:
            caller: The caller.
            key: Fields of LiteLLM's ``/key/generate``; a service names the owner in ``user_id``.
            account: A user's own account; None for a service.

        Raises:
            ReservedId: ``user_id`` is reserved.
            Forbidden: A restricted service names no user, an unknown one or an administrator;
                or ``key_type`` is not for an administrator.
        """
        if account is not None:
            self.refuse_key_type(key, account)
            return
        user_id = key.get("user_id")
        restricted = caller.service is None or caller.service.restrictions is not None
        if restricted and not user_id:
            raise Forbidden(
                "Access denied: the token of this service is restricted, so user_id must name a"
                " user of LiteLLM",
                reason="token-restriction",
            )
        if not user_id:
            return
        not_reserved(user_id, self._settings)
        whole = self._whole(user_id) if restricted or _may_manage(key) else None
        if restricted and (whole is None or is_administrator(whole)):
            raise Forbidden(
                "Access denied: the token of this service is restricted, so user_id must be a"
                " user of LiteLLM who is no administrator there",
                reason="token-restriction",
            )
        if whole is not None and is_administrator(whole):
            raise Forbidden(LLM_API_ONLY, reason="ownership")

    def refuse_key_type(self, key: Json, account: Account) -> None:
        """Refuse a key with an administrator's rights at LiteLLM.

        Raises:
            Forbidden: ``key_type`` is not ``llm_api``, and the account is an administrator's.
        """
        if _may_manage(key):
            whole = self._whole(account.asked)
            if whole is None or is_administrator(whole):
                raise Forbidden(LLM_API_ONLY, reason="ownership")

    def _whole(self, user_id: str) -> Account | None:
        """Return an account, read fresh, with the user's roles in organizations."""
        whole = self._litellm.whole_account(user_id)
        if whole is not None:
            not_reserved(whole.user_id, self._settings)
        return whole

    def would_create(self, caller: Caller) -> Json:
        """Return what a first visit would send to LiteLLM; sends nothing.

        Raises:
            IdentityRefused: The id may be another person's.
        """
        self._owners.refuse_shared_id(owner_of(caller))
        return self._new_user(caller.litellm_id or "", profile_of(caller))

    def _looks_by_email(self, user_id: str) -> bool:
        """Tell whether to look by e-mail for an account that was not found by id.

        Without a cache, each request of an unknown user would cost a second read, so only ids
        whose account was found by e-mail before are looked up.
        """
        return self._cache.seconds > 0 or user_id in self._adopted

    def _by_email(self, owner: Owner, asking: _Asking) -> Account | None:
        """Return the account with the owner's e-mail, or None."""
        email = owner.email()
        if email is None or not is_email(email):
            return None

        def find() -> str:
            rows = self._litellm.users_with_email(email)
            same = [row for row in rows if same_email(row.get("user_email"), email)]
            return self._owners.by_email(owner, same) if same else ""

        key = ("id by e-mail", owner.ref, owner.own_id, email)
        seconds = max(BY_EMAIL, self._cache.seconds)
        user_id: str = self._cache.read(key, (), find, seconds=seconds, fresh=asking.fresh)
        account = self._look_up(user_id, asking) if user_id else None
        if account is None or not same_email(account.info.get("user_email"), email):
            return None
        if len(self._adopted) >= MAX_ADOPTED:
            self._adopted.clear()
        accepted = self._owners.accept(owner, account)
        if self._record_adopted is not None and owner.own_id not in self._adopted:
            self._record_adopted(owner.own_id, account.user_id, owner.ref)
        self._adopted.add(owner.own_id)
        return accepted

    def usage(self, caller: Caller, start: str, end: str) -> Json:
        """Return the caller's usage of the days ``start`` to ``end``, both included.

        A service that names no user gets the usage of all users.
        """
        user_id = subject = None
        if caller.user or caller.litellm_id:
            user_id = self.account(caller).asked
            subject = Subject("user", user_id, partial(self._litellm.key_sums, "user", user_id))
        return self._reports.read(
            ("usage", caller.name, user_id or ""),
            (keys_tag(user_id or ""),),  # the report names keys
            partial(self._litellm.activity, "user", user_id),
            (start, end),
            stale=caller.note_stale,
            subject=subject,
        )

    def _create(
        self, user_id: str, person: Profile, owner: Owner | None, asking: _Asking
    ) -> Account:
        user = self._new_user(user_id, person)
        told = {"userId": user_id, "entityRef": person.source, "role": user.get("user_role")}
        change = journal.change(user_id, None, user)
        if self._visits is not None:
            self._visits.sync.creating(user_id, person.source, person.entity.groups)
        try:
            self._litellm.create_user(user)
        except UpstreamError as exc:
            account = self._existing(user_id, owner, asking, exc)
            # Another worker may have created the same account, or LiteLLM this one.
            made = exc.unfinished or (account is not None and account.user_id == user_id)
            if self._visits is not None and not made:
                self._visits.sync.created(None, user_id)
            metrics.first_visit("failed" if account is None else "existed")
            if account is None:
                journal.record(journal.USER_PROVISION, told, exc, change)
                raise ProvisioningFailed(exc) from exc
            return account
        journal.record(journal.USER_PROVISION, told, change=change)
        metrics.first_visit("created")
        log.info("provisioned %s for %s", user_id, person.source)
        self._confirm(user)
        try:
            account = self._litellm.account(user_id)
        except UpstreamError as exc:
            raise ProvisioningFailed(exc) from exc
        if account is None:
            raise self._not_found(
                "Provisioning attempted but returned no user — check LiteLLM logs"
            )
        if self._visits is not None:
            self._visits.sync.created(account, user_id)
        return account

    def _existing(
        self, user_id: str, owner: Owner | None, asking: _Asking, refusal: UpstreamError
    ) -> Account | None:
        """Return the existing account that made LiteLLM refuse a new user, or None."""
        # LiteLLM's versions differ in the status, not in the text. Another worker may have
        # created the id, or the e-mail may belong to another id.
        text = refusal.message.lower()
        if refusal.answered != 409 and "already exists" not in text:
            return None
        account = self._litellm.account(user_id)
        if account is None and owner is not None and "email" in text:
            try:
                return self._by_email(owner, replace(asking, fresh=True))
            except UpstreamError as exc:
                log.warning("the account of %s can't be looked up by e-mail: %s", user_id, exc)
        return account

    def _confirm(self, user: Json) -> None:
        # /user/new may drop user_role when two calls race, so it is set again.
        if not user.get("user_role"):
            return
        fields = ("user_id", "user_role", "user_email", "user_alias")
        try:
            self._litellm.update_user({name: user[name] for name in fields if name in user})
        except UpstreamError as exc:
            log.warning("the role of new user %s could not be confirmed: %s", user["user_id"], exc)

    def _new_user(self, user_id: str, person: Profile) -> Json:
        gets = self._provisioning.for_groups(person.entity.groups)
        email, name = person.entity.email, person.entity.display_name
        return {
            "user_id": user_id,
            **present(user_email=email, user_alias=name),
            **present(max_budget=gets.max_budget),
            "budget_duration": gets.budget_duration
            and fields.duration("budgetDuration", gets.budget_duration),
            "models": list(gets.models),
            "teams": list(gets.teams),
            **present(tpm_limit=gets.tpm_limit, rpm_limit=gets.rpm_limit),
            **({"user_role": gets.user_role} if gets.user_role else {}),
            "auto_create_key": False,
            "metadata": {
                **gets.metadata,
                "provisioned_by": "backstage",
                "provisioned_at": stamp(self._now),
                "backstage_entity": person.source,
                **present(backstage_email=email, backstage_display_name=name),
            },
        }

    def _not_found(self, hint: str) -> NotFound:
        return NotFound(
            "User not found in LiteLLM", hint=hint, provisioning=self._provisioning.enabled
        )


def owner_of(caller: Caller) -> Owner | None:
    """Return a user as the owner of an account; None for a service, which names a LiteLLM id."""
    if caller.user is None or not caller.litellm_id:
        return None
    return Owner(caller.litellm_id, caller.user.entity_ref.lower(), lambda: caller.entity.email)


def profile_of(caller: Caller) -> Profile:
    """Return the caller's profile from the catalog; a service has only a name."""
    if caller.user is None:
        return Profile(caller.litellm_id or caller.name)
    return Profile(caller.user.entity_ref, caller.entity)


def _has_another_email(person: Profile, owner: Owner) -> bool:
    """Tell whether a user of the bridge has another e-mail than the catalog knows."""
    email = owner.email() if owner.login else None
    return email is not None and not same_email(email, person.entity.email)


def _may_manage(key: Json) -> bool:
    """Tell whether the key's type allows LiteLLM's management routes, as most types do."""
    return key.get("key_type") not in {None, LLM_API}
