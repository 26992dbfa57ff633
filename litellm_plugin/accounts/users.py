"""LiteLLM users: finding the caller's, and creating it on the first visit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from litellm_plugin import fields, shapes
from litellm_plugin.accounts.caller import Caller, not_reserved
from litellm_plugin.accounts.ownership import (
    AccountOwners,
    Claimant,
    is_administrator,
    is_email,
    owner_fields,
    same_email,
)
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.clock import Clock, stamp
from litellm_plugin.config.settings import Settings, UserDefaults
from litellm_plugin.errors import Forbidden, NotFound, PluginError, UpstreamError
from litellm_plugin.observability import journal, metrics
from litellm_plugin.redaction import redact
from litellm_plugin.shapes import present
from litellm_plugin.usage.periods import Reports

log = logging.getLogger(__name__)

MAX_ADOPTED = 10_000
MAX_HINT = 500  # characters of LiteLLM's text that a hint repeats
SERVICE_CREATES_NOBODY = (
    "A service creates nobody here: GET /user/info?user_id= does, and so does the user's first"
    " visit, where litellm.provisioning.enabled is true"
)

# How long it is remembered which account has an e-mail, in seconds. What would speak against
# using that account is looked at each time, but for what the catalog says.
BY_EMAIL = 300.0

# What depends on any team; changing one is rare, and so is everybody's reading anew.
TEAMS = "teams"


def user_tag(user_id: str) -> str:
    """Return the tag of what depends on one user's own row."""
    return f"user:{user_id}"


def keys_tag(user_id: str) -> str:
    """Return the tag of what depends on the virtual keys of one user."""
    return f"keys:{user_id}"


@dataclass(frozen=True, slots=True)
class Profile:
    """What Backstage knows of a person to be provisioned.

    Attributes:
        source: Entity ref, or whatever else names the person.
        groups: Entity refs of the groups that decide the role.
    """

    source: str
    groups: frozenset[str] = frozenset()
    email: str | None = None
    display_name: str | None = None


@dataclass(frozen=True, slots=True)
class _Asking:
    """How to ask for an account.

    Attributes:
        reader: The caller's name; part of the cache key, so that callers share no entries.
        fresh: Whether it must be as it is right now.
        stale: Called with the age of an answer from before LiteLLM went down.
    """

    reader: str
    fresh: bool = False
    stale: Callable[[float], None] | None = None


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
        text = redact(self.cause.message)[:MAX_HINT] or "unknown error"
        hint = f"LiteLLM upstream {self.cause.answered or 'error'}: {text}"
        return {**super().body(method, url), "hint": hint, "provisioning": True}


class Users:
    """Finds LiteLLM users and provisions them.

    Args:
        litellm: The client.
        cache: The cache.
        reports: Of usage.
        settings: What a new user gets, whether there are new users at all, and which ids are
            nobody's.
        owners: Tells whether an account is the caller's.
        now: The present time, in UTC.
    """

    def __init__(
        self,
        litellm: LiteLLM,
        cache: Cache,
        reports: Reports,
        settings: Settings,
        owners: AccountOwners,
        now: Clock,
    ) -> None:
        self._owners = owners
        self._adopted: set[str] = set()  # own ids of whom this worker has found by e-mail
        self._litellm = litellm
        self._cache = cache
        self._reports = reports
        self._settings = settings
        self._provisioning = settings.provisioning
        self._now = now

    def find(self, caller: Caller, *, fresh: bool = False) -> Account | None:
        """Return the caller's account, or None; creates nobody.

        Args:
            caller: Whose.
            fresh: Whether it must be as it is right now, because a write depends on it.
        """
        user_id = caller.litellm_id
        if not user_id:
            return None
        asking = _Asking(caller.name, fresh=fresh)
        who = claimant_of(caller)
        account = self._look_up(user_id, asking)
        if account is not None:
            return self._owners.settle(who, account)
        if who is None or not self._looks_by_email(user_id):
            return None
        return self._by_email(who, asking)

    def as_it_is(self, user_id: str, reader: str) -> Account | None:
        """Return an account by LiteLLM id as it is right now, or None; creates nobody.

        Args:
            user_id: LiteLLM's id.
            reader: As for :meth:`account_of`.
        """
        return self._look_up(user_id, _Asking(reader, fresh=True))

    def account(self, caller: Caller, *, fresh: bool = False, for_service: bool = False) -> Account:
        """Return the caller's account, created if need be.

        Args:
            caller: Whose.
            fresh: Whether it must be as it is right now, because a write depends on it.
            for_service: Whether the user that a service names is created, too.

        Raises:
            NotFound: There is none, and it is not created; or the caller is a service that
                names nobody.
            ProvisioningFailed: LiteLLM refused.
            BackstageUnavailable: The role can't be decided without the catalog.
        """
        user_id = caller.litellm_id
        if not user_id:
            raise self._not_found("No user identity could be resolved from the request.")
        asking = _Asking(caller.name, fresh=fresh, stale=caller.note_stale)
        who, before = claimant_of(caller), self._cache.stamps(user_tag(user_id))
        account = self._look_up(user_id, asking)
        if account is not None:
            return self._owners.settle(who, account)
        if who is None and not for_service:
            raise self._not_found(SERVICE_CREATES_NOBODY)
        return self._first_visit(user_id, who, lambda: profile_of(caller), asking, before)

    def account_of(
        self,
        who: Claimant,
        profile: Callable[[], Profile],
        *,
        reader: str,
        fresh: bool = False,
    ) -> Account:
        """Return somebody's account, created with ``profile`` if need be.

        Args:
            who: Whose; not necessarily the caller's.
            profile: Tells who a new user is.
            reader: The caller's name; part of the cache key, so that callers share no entries.
            fresh: As for :meth:`account`.

        Raises:
            IdentityRefused: It is not certain that the account is theirs.
        """
        asking, before = _Asking(reader, fresh=fresh), self._cache.stamps(user_tag(who.own_id))
        account = self._look_up(who.own_id, asking)
        if account is not None:
            return self._owners.settle(who, account)
        return self._first_visit(who.own_id, who, profile, asking, before)

    def refuse_other(self, who: Claimant, reader: str) -> None:
        """Refuse that what is done to the account of somebody's id is done to somebody else's.

        Raises:
            IdentityRefused: It is not certain that the account is theirs.
        """
        if self._owners.refuse:
            account = self._look_up(who.own_id, _Asking(reader))
            if account is not None:
                self._owners.settle(who, account)

    def _first_visit(
        self,
        user_id: str,
        who: Claimant | None,
        profile: Callable[[], Profile],
        asking: _Asking,
        before: object,
    ) -> Account:
        """Return the account of an id that LiteLLM does not know, created if need be.

        Args:
            user_id: The id.
            who: Whose account it is to be; None where a service names it.
            profile: Tells who a new user is.
            asking: How to ask.
            before: The stamps of the user's tag from before LiteLLM was asked.
        """
        tag = user_tag(user_id)
        looked = self._looks_by_email(user_id)
        if who is not None and looked:
            account = self._by_email(who, asking)
            if account is not None:
                return account
        if not self._provisioning.enabled:
            raise self._not_found(
                "Enable litellm.provisioning.enabled in app-config.yaml or create the user manually"
            )
        person = profile()
        if (
            who is not None
            and not looked
            and (self._owners.refuse or _came_with_another(person, who))
        ):
            account = self._by_email(who, asking)
            if account is not None:
                return account
        self._owners.refuse_shared_id(who)
        account = None
        with self._cache.lock(tag):
            if before is None or before != self._cache.stamps(tag):
                # Another request may have created the user while this one waited for the lock.
                account = self._look_up(user_id, _Asking(asking.reader))
            if account is None:
                # The new user may be put into teams, whose members see it.
                with self._cache.invalidating(tag, TEAMS):
                    account = self._create(user_id, person, who, asking)
        return account if account.asked != user_id else self._owners.settle(who, account)

    def _look_up(self, user_id: str, asking: _Asking) -> Account | None:
        """Return an account by LiteLLM id, or None.

        Raises:
            ReservedId: LiteLLM tells of an account that is nobody's.
        """
        account: Account | None = self._cache.read(
            ("account", asking.reader, user_id),
            (user_tag(user_id), TEAMS),
            lambda: _slim(self._litellm.account(user_id)),
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
        """Return the virtual keys of an account, the oldest first.

        Args:
            account: Whose; proved to be the caller's.
            reader: As for :meth:`account_of`.
            fresh: Whether they must be as they are right now, because a write depends on them.
            stale: As for :meth:`Cache.read`.
        """
        return self._cache.read(
            ("keys", reader, account.user_id),
            (keys_tag(account.asked), TEAMS),
            lambda: [
                shapes.picked(row, shapes.KEY_FIELDS)
                for row in self._litellm.keys_of(account.user_id)
            ],
            fresh=fresh,
            seconds=self._cache.account_seconds,
            weight=len,
            stale=stale,
        )

    def check_key_owner(self, caller: Caller, key: Json, account: Account | None) -> None:
        """Check that a new key may be its owner's.

        A service whose token is restricted names plain users only: with a key of anybody else it
        might do more than it is restricted to.

        Args:
            caller: The caller that asks for the key.
            key: What LiteLLM is to be asked for; ``user_id`` is whom a service names.
            account: A user's own account; None for a service.

        Raises:
            ReservedId: A service names an id that is nobody's.
            Forbidden: A restricted service names nobody, an administrator of LiteLLM, or a user
                who is not known there; or ``key_type`` is not for an administrator.
        """
        restricted = caller.service is not None and caller.service.restrictions is not None
        if restricted and not key.get("user_id"):
            raise Forbidden(
                "Access denied: the token of this service is restricted, so user_id must name a"
                " user of LiteLLM",
                reason="token-restriction",
            )
        if caller.service is not None and key.get("user_id"):
            user_id = not_reserved(key["user_id"], self._settings)
            if restricted or key.get("key_type") not in {None, "llm_api"}:
                account = self._whole(user_id)
            if restricted and (account is None or is_administrator(account)):
                raise Forbidden(
                    "Access denied: the token of this service is restricted, so user_id must be a"
                    " user of LiteLLM who is no administrator there",
                    reason="token-restriction",
                )
        if account is not None:
            self.refuse_key_type(key, account)

    def refuse_key_type(self, key: Json, account: Account) -> None:
        """Refuse a key of an administrator that may do what its owner may.

        LiteLLM lets keys of all types but ``llm_api`` use routes of its management.

        Raises:
            Forbidden: ``key_type`` is another one, and the account is an administrator's.
        """
        if key.get("key_type") in {None, "llm_api"}:
            return
        whole = self._whole(account.asked)
        if whole is None or is_administrator(whole):
            raise Forbidden(
                "key_type must be llm_api for an administrator of LiteLLM", reason="ownership"
            )

    def _whole(self, user_id: str) -> Account | None:
        """Return an account as it is right now, with the user's roles in organizations.

        Raises:
            ReservedId: LiteLLM tells of an account that is nobody's.
        """
        whole = self._litellm.whole_account(user_id)
        if whole is not None:
            not_reserved(whole.user_id, self._settings)
        return whole

    def would_find(self, caller: Caller, *, answers_kept: bool) -> Account | None:
        """Return the account that a page of a person would be made of; creates nobody.

        Args:
            caller: A person.
            answers_kept: Whether the service keeps answers; this process may not.

        Raises:
            IdentityRefused: It is not certain that the account is theirs.
        """
        account, who = self.find(caller, fresh=True), claimant_of(caller)
        # With provisioning at the latest when LiteLLM refuses a second user of an e-mail.
        looks_by_email = answers_kept or self._provisioning.enabled
        if account is None and who is not None and looks_by_email:
            account = self._by_email(who, _Asking(caller.name, fresh=True))
        return account

    def would_create(self, caller: Caller) -> Json:
        """Return what a first visit would send to LiteLLM; sends nothing.

        Raises:
            IdentityRefused: The id may be somebody else's.
        """
        self._owners.refuse_shared_id(claimant_of(caller))
        return self._new_user(caller.litellm_id or "", profile_of(caller))

    def _looks_by_email(self, user_id: str) -> bool:
        """Tell whether to look for an account by e-mail where there is none of that id.

        Where no answer is kept, only for those who were found so before: LiteLLM would be asked
        twice, each time, for everybody that it does not know.
        """
        return self._cache.seconds > 0 or user_id in self._adopted

    def _by_email(self, who: Claimant, asking: _Asking) -> Account | None:
        """Return the account that has somebody's e-mail, under whatever id; None without one.

        Raises:
            IdentityRefused: It is not certain that it is theirs.
            BackstageUnavailable: The catalog can't be asked.
        """
        email = who.email()
        if email is None or not is_email(email):
            return None

        def find() -> str:
            rows = self._litellm.users_with_email(email)
            same = [row for row in rows if same_email(row.get("user_email"), email)]
            return self._owners.by_email(who, same) if same else ""

        key = ("id by e-mail", who.ref, who.own_id, email)
        seconds = max(BY_EMAIL, self._cache.seconds)
        user_id: str = self._cache.read(key, (), find, seconds=seconds, fresh=asking.fresh)
        account = self._look_up(user_id, asking) if user_id else None
        if account is None or not same_email(account.info.get("user_email"), email):
            return None
        if len(self._adopted) >= MAX_ADOPTED:
            self._adopted.clear()
        self._adopted.add(who.own_id)
        return self._owners.accept(who, account)

    def usage(self, caller: Caller, start: str, end: str) -> Json:
        """Return the caller's usage; everybody's for a service that names nobody.

        Args:
            caller: Whose usage.
            start: First day, ``YYYY-MM-DD``.
            end: Last day, included.
        """
        user_id = None
        if caller.user or caller.litellm_id:
            user_id = self.account(caller).asked
        return self._reports.read(
            ("usage", caller.name, user_id or ""),
            (keys_tag(user_id or ""),),  # it names their keys
            partial(self._litellm.user_activity, user_id),
            (start, end),
            stale=caller.note_stale,
        )

    def _by_email_or_none(self, who: Claimant, asking: _Asking) -> Account | None:
        """Return the account with the person's e-mail; None also where LiteLLM can't be asked."""
        try:
            return self._by_email(who, replace(asking, fresh=True))
        except UpstreamError as exc:
            log.warning("the account of %s could not be looked for by e-mail: %s", who.own_id, exc)
            return None

    def _create(
        self, user_id: str, person: Profile, who: Claimant | None, asking: _Asking
    ) -> Account:
        user = self._new_user(user_id, person)
        told = {"userId": user_id, "entityRef": person.source, "role": user.get("user_role")}
        try:
            self._litellm.create_user(user)
        except UpstreamError as exc:
            # Another worker may have been faster.
            account = self._litellm.account(user_id) if _already_exists(exc) else None
            if account is None and who is not None and _is_about_email(exc):
                account = self._by_email_or_none(who, asking)
            metrics.first_visit("failed" if account is None else "existed")
            if account is None:
                journal.record(journal.USER_PROVISION, told, exc)
                raise ProvisioningFailed(exc) from exc
            return account
        journal.record(journal.USER_PROVISION, told)
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
        gets = self._provisioning.for_groups(person.groups)
        return {
            "user_id": user_id,
            **present(user_email=person.email, user_alias=person.display_name),
            **_limits(gets),
            "auto_create_key": False,
            "metadata": {
                **gets.metadata,
                "provisioned_by": "backstage",
                "provisioned_at": stamp(self._now),
                "backstage_entity": person.source,
                **present(backstage_email=person.email, backstage_display_name=person.display_name),
            },
        }

    def _not_found(self, hint: str) -> NotFound:
        return NotFound(
            "User not found in LiteLLM", hint=hint, provisioning=self._provisioning.enabled
        )


def _slim(account: Account | None) -> Account | None:
    """Return an account with the fields that the routes answer: most of a row they do not."""
    if account is None:
        return None
    info = {**shapes.picked(account.info, shapes.USER_FIELDS), **owner_fields(account.info)}
    return replace(account, info=info)


def claimant_of(caller: Caller) -> Claimant | None:
    """Return who is to be served; None for a service, which names a LiteLLM id itself."""
    if caller.user is None or not caller.litellm_id:
        return None
    return Claimant(caller.litellm_id, caller.user.entity_ref.lower(), lambda: caller.entity.email)


def profile_of(caller: Caller) -> Profile:
    """Return what the catalog says of the caller; a service has no profile."""
    if caller.user is None:
        return Profile(source=caller.litellm_id or caller.name)
    entity = caller.entity
    return Profile(
        source=caller.user.entity_ref,
        groups=entity.groups,
        email=entity.email,
        display_name=entity.display_name,
    )


def _limits(gets: UserDefaults) -> Json:
    return {
        **present(max_budget=gets.max_budget),
        "budget_duration": gets.budget_duration
        and fields.duration("budgetDuration", gets.budget_duration),
        "models": list(gets.models),
        "teams": list(gets.teams),
        **present(tpm_limit=gets.tpm_limit, rpm_limit=gets.rpm_limit),
        **({"user_role": gets.user_role} if gets.user_role else {}),
    }


def _came_with_another(person: Profile, who: Claimant) -> bool:
    """Tell whether somebody came with another e-mail than the catalog has for them.

    LiteLLM would not say then that the catalog's belongs to an account already.
    """
    email = who.email() if who.login else None
    return email is not None and not same_email(email, person.email)


def _is_about_email(exc: UpstreamError) -> bool:
    # The status is the same for an id that is taken.
    return _already_exists(exc) and "email" in exc.message.lower()


def _already_exists(exc: UpstreamError) -> bool:
    # Versions of LiteLLM differ in the status; the text has stayed.
    return exc.answered == 409 or "already exists" in exc.message.lower()
