"""Virtual keys: creating, changing and deleting them for their owners."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from litellm_plugin.accounts.caller import Caller
from litellm_plugin.accounts.leavers import Leavers
from litellm_plugin.accounts.users import Users, keys_tag
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients import deadline
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.clock import Clock, stamp
from litellm_plugin.config.settings import LLM_API, KeyGeneration
from litellm_plugin.errors import BadRequest, Busy, Forbidden, PluginError, UpstreamError
from litellm_plugin.keys.metadata import RotationRecord
from litellm_plugin.keys.policy import KeyPolicies, Policy, is_active, is_ending
from litellm_plugin.keys.requests import KeyFields, key_fields, refuse_unlimited
from litellm_plugin.keys.undelivered import AFTERWARDS, UndeliveredKey, UndeliveredKeys
from litellm_plugin.observability import journal
from litellm_plugin.shapes import amount, as_object, first, present
from litellm_plugin.teams.membership import Teams

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keys:
    """Creates, changes and deletes virtual keys for their owners."""

    _litellm: LiteLLM
    _cache: Cache
    _users: Users
    _teams: Teams
    _settings: KeyGeneration
    _policies: KeyPolicies
    _undelivered: UndeliveredKeys
    _now: Clock
    _leavers: Leavers | None = None  # None: offboarding is off

    @functools.cached_property
    def fields(self) -> KeyFields:
        """Reads requests; :meth:`generate` takes what ``fields.new`` returns."""
        table = key_fields(self._settings)
        return KeyFields(table, budget_filled=self._policies.limits_budget)

    # -- new keys ------------------------------------------------------------

    def owner(self, caller: Caller, account: Account | None, named: str | None = None) -> KeyOwner:
        """Return the owner of a key that the caller makes.

        Args:
            caller: A user, or a service.
            account: The account of the user, or of the user whose key a service changes; None for
                a team, and for a new key of a service.
            named: LiteLLM id in a service's request for a new key, if any.
        """

        def check(key: Json) -> None:
            self._users.check_key_owner(caller, key, account if caller.user else None)
            if key.get("team_id"):
                self._teams.usable(key["team_id"], caller, account)

        asked = account.asked if account else named
        policy = functools.cache(lambda: self._policies.of(caller, asked))
        created_by = functools.cache(lambda: self._created_by(caller))
        return KeyOwner(account, caller.name, policy, created_by, check, named)

    def _created_by(self, caller: Caller) -> Json:
        """Return the metadata that records the creator of a key made now."""
        entity = caller.entity
        return {
            "created_by_backstage_user": caller.user.entity_ref if caller.user else "unknown",
            **present(created_by_email=entity.email, created_by_display_name=entity.display_name),
            "created_via": "backstage",
            "created_at_iso": stamp(self._now),
        }

    def generate(self, key: Json, caller: Caller) -> Json:
        """Create a key for the caller, as :meth:`generate_for` does.

        A user's first visit provisions the user; a service names the owner, if any, in ``user_id``.
        """
        account = self._users.account(caller, fresh=True) if caller.user else None
        return self.generate_for(self.owner(caller, account, key.get("user_id")), key)

    def generate_for(
        self, owner: KeyOwner, key: Json, *, but: Callable[[Json], bool] = lambda _: False
    ) -> Json:
        """Create a key by fields of ``/key/generate``; returns LiteLLM's answer, with the secret.

        ``but`` tells which keys the new one replaces: they do not count as active.

        Raises:
            Forbidden: The owner may not have such a key, or as many keys as allowed are active.
            PolicyRefused: A field exceeds a limit.
            TeamDurationBroken: LiteLLM can't create keys in the team.
        """
        owner.check(key)
        key = owner.policy().new_key(key)
        refuse_unlimited(key, self._settings)
        with self._adding_active_key(owner, but=but):
            return self._create(owner, key)

    @contextmanager
    def adding(
        self, owner: KeyOwner, key: Json, *, but: Callable[[Json], bool] = lambda _: False
    ) -> Iterator[Json]:
        """Create a key as :meth:`generate_for` does, and hold the owner's lock during the block.

        Call it with a key that is within the limits, and after counting a team's keys.

        Raises:
            Forbidden: As many keys as allowed are active.
            NoKey: LiteLLM did not return the secret, or gave a team key to a user; the new key is
                deleted.
        """
        with self._adding_active_key(owner, but=but):
            made = self._create(owner, key)
            self.require_secret(made)
            if owner.user_id is None and made.get("user_id"):
                self.take_back(made)
                raise NoKey(
                    "LiteLLM gave the team key to a user, so the key was removed. Ask an"
                    " administrator of LiteLLM to remove user_id from default_key_generate_params"
                )
            yield made

    def require_secret(self, made: Json) -> None:
        """Delete a new key whose secret LiteLLM did not return.

        Raises:
            NoKey: There is no secret.
        """
        if not isinstance(made.get("key"), str) or not made["key"]:
            self.take_back(made)
            raise NoKey("LiteLLM returned no key material")

    def carry_spend(self, made: Json, spend: float) -> None:
        """Set a new key's spend, in USD, if LiteLLM ignored it at creation."""
        if spend > amount(made.get("spend")):
            self._litellm.update_key({"key": token_of(made), "spend": spend})

    def take_back(self, made: Json) -> None:
        """Delete a new key that can't be delivered; ``made`` is LiteLLM's answer."""
        if token := token_of(made):
            metadata = as_object(made.get("metadata"))
            key = UndeliveredKey(made.get("key_alias"), made.get("user_id"), metadata)
            self._undelivered.remove(token, key)

    def delete_replaced(self, tokens: list[str]) -> None:
        """Delete replaced keys; a failure is logged and does not withhold the new key."""
        deleted: list[str] = []
        for token in tokens:
            key_id = journal.key_id(token)
            try:
                self._litellm.delete_key(token)
            except UpstreamError as exc:
                if exc.answered != 404:
                    log.error("a replaced key is left, until the next time: %s (%s)", key_id, exc)
                    continue
            deleted.append(key_id)
            journal.note(replacedKeyIds=deleted)

    def _create(self, owner: KeyOwner, key: Json) -> Json:
        key, created_by = {**key, **present(user_id=owner.user_id)}, owner.created_by()
        journal.note(userId=key.get("user_id"), keyAlias=key.get("key_alias"))
        journal.changed(None, None, key)
        asked = {
            **key,
            "key_type": key.get("key_type") or LLM_API,
            "metadata": {**(key.get("metadata") or {}), **created_by},
        }
        try:
            with deadline.keeping(AFTERWARDS):
                made = self._litellm.generate_key(asked)
        except UpstreamError as exc:
            if exc.unfinished:
                lost = UndeliveredKey(key.get("key_alias"), key.get("user_id"), created_by)
                raise exc.unfinished_with(self._undelivered.find_and_remove(lost)) from exc
            if key.get("team_id") and "Invalid duration format" in exc.message:
                raise TeamDurationBroken(key["team_id"]) from exc
            raise
        token = token_of(made)
        if token:
            journal.note(keyId=journal.key_id(token))
            journal.changed(journal.key_hash(token), None, {**key, "expires": made.get("expires")})
        if owner.policy().outlives(made.get("expires"), self._now()):
            return {**made, "expires": self._shortened(made, key["duration"], owner.policy())}
        return made

    def _shortened(self, made: Json, duration: str, policy: Policy) -> Any:
        """Set the requested duration again, on a new key to which LiteLLM gave a longer one.

        Returns the new ``expires``. A key that can't be shortened is deleted.
        """
        token = token_of(made)
        if not token:
            raise UpstreamError("LiteLLM's answer names no key", advice="ask your administrator")
        failure: UpstreamError | None = None
        expires = None
        try:
            changed = as_object(self._litellm.update_key({"key": token, "duration": duration}))
            expires = changed.get("expires")
        except UpstreamError as exc:
            failure = exc
        if policy.outlives(expires, self._now()):
            self.take_back(made)
            raise LivesTooLong("so the new key is not handed out") from failure
        return expires

    @contextmanager
    def _adding_active_key(
        self,
        owner: KeyOwner,
        *,
        but: Callable[[Json], bool] = lambda _: False,
        to_leavers: bool = False,
    ) -> Iterator[None]:
        """Hold the owner's lock while a key becomes active, so that ``maxActiveKeys`` holds.

        Only a user's keys are counted, without those for which ``but`` returns True. With
        ``to_leavers`` the owner may be a leaver.

        Raises:
            Forbidden: As many keys as allowed are active, or the owner is a leaver.
            Busy: Other requests hold the lock.
        """
        asked, policy = owner.asked, owner.policy()
        if self._leavers is not None and asked and not to_leavers:
            self._leavers.refuse(asked, owner.user_id or asked)
        with ExitStack() as held:
            if policy.active_keys and asked:
                lock = self._cache.lock(f"active keys of {asked}", on_all_hosts=True)
                if not held.enter_context(lock):
                    raise Busy(
                        "This user's active keys can't be counted right now: another key is being"
                        " made, or the service has no lock (its log says why). Try again in a"
                        " moment."
                    )
                account = owner.account or self._users.as_it_is(asked, owner.reader)
                if account is None:
                    raise BadRequest(
                        "user_id is not known to LiteLLM, so its keys can't be counted"
                    )
                rows = self._users.keys(account, owner.reader, fresh=True)
                policy.refuse_more([row for row in rows if not but(row)], self._now())
            held.enter_context(self._cache.invalidating(owner.tag))
            yield

    # -- existing keys -------------------------------------------------------

    def owned(self, caller: Caller, token: str) -> OwnedKey:
        """Return the caller's own key with the hash ``token``.

        Raises:
            Forbidden: The key is another user's or does not exist; the message does not tell
                which.
        """
        account = self.account_for_change(caller)
        return OwnedKey(token, caller, account, self._own_row(account, token, caller.name))

    def _own_row(self, account: Account, token: str, reader: str) -> Json:
        keys = self._users.keys(account, reader, fresh=True)
        # A row without a hash is matched by its name.
        same = (row for row in keys if first(row.get("token"), row.get("key_name")) == token)
        row = next(same, None)
        if row is None:
            raise foreign_key()
        journal.note(userId=account.user_id, keyAlias=row.get("key_alias"))
        journal.changed(journal.key_hash(token))
        return row

    def account_for_change(self, caller: Caller) -> Account:
        """Return the account whose keys the caller may change, read fresh; creates no user.

        Raises:
            Forbidden: There is none.
        """
        if not caller.litellm_id:
            unknown = "Cannot verify key ownership without an authenticated user"
            raise Forbidden(unknown, reason="ownership")
        account = self._users.find(caller, fresh=True)
        if account is None:
            raise foreign_key()
        return account

    def update(self, key: OwnedKey, body: Mapping[str, Any]) -> Any:
        """Change a key by the body of ``POST /keys/:id/update``; returns LiteLLM's answer.

        Raises:
            BadRequest: A field is wrong or forbidden.
            Forbidden: ``team_id`` is not a team of the caller.
        """
        change = self.fields.change(body)
        if change.get("team_id"):
            self._teams.usable(change["team_id"], key.caller, key.account)
        policy = self._policy_of(key)
        change = policy.change(change, key.row)
        self._policies.refuse_extension(change, key.row, self._now())
        expired = key.row.get("blocked") is not True and not is_active(key.row, self._now())
        # A rotated key does not count within its grace, unless its duration is changed.
        revives = "duration" in change and (
            expired or RotationRecord.of(key.row).replaced is not None
        )
        with self._reviving(key, policy) if revives else self._changing(key):
            key.will_be(change)
            changed = self._litellm.update_key({**change, "key": key.token})
            if "duration" in change and isinstance(changed, dict) and "expires" in changed:
                key.will_be({**change, "expires": changed["expires"]})
                self._refuse_longer(key, changed["expires"], policy)
            return changed

    def _refuse_longer(self, key: OwnedKey, expires: Any, policy: Policy) -> None:
        """Refuse a change after which LiteLLM lets the key live longer than allowed."""
        now = self._now()
        if not policy.outlives(expires, now):
            return
        if policy.outlives(key.row.get("expires"), now):
            raise LivesTooLong("as it did before")
        key.will_be({})
        self._litellm.delete_key(key.token)
        raise LivesTooLong("so the key was deleted")

    def block(self, key: OwnedKey) -> None:
        """Block a key at once."""
        with self._changing(key):
            key.will_be({"blocked": True})
            self._litellm.block_key(key.token)

    def unblock(self, key: OwnedKey) -> None:
        """Undo :meth:`block`.

        Raises:
            Forbidden: As many keys as allowed are active, or the owner is a leaver.
        """
        with self._reviving(key, self._policy_of(key)):
            key.will_be({"blocked": False})
            self._litellm.unblock_key(key.token)

    def reset_spend(self, key: OwnedKey) -> None:
        """Set a key's spend to 0 USD.

        Raises:
            Forbidden: Budgets are limited.
        """
        self._policy_of(key).refuse_reset()
        with self._changing(key):
            key.will_be({"spend": 0})
            self._litellm.reset_key_spend(key.token)

    def delete(self, key: OwnedKey) -> None:
        """Delete a key for good."""
        with self._changing(key):
            key.will_be({})
            self._litellm.delete_key(key.token)

    def delete_for(self, account: Account, token: str, reader: str) -> None:
        """Delete a key of an account whose owner is not signed in at Backstage.

        ``token`` is the key's hash, ``reader`` as for ``Users.account_of``; raises as
        :meth:`owned`.
        """
        row = self._own_row(account, token, reader)
        with self._cache.invalidating(keys_tag(account.asked)):
            journal.changed(journal.key_hash(token), row, {})
            self._litellm.delete_key(token)

    def _policy_of(self, key: OwnedKey) -> Policy:
        policy = self._policies.of(key.caller, key.account.asked)
        return self._policies.of_key(policy, key.row)

    def _changing(self, key: OwnedKey) -> AbstractContextManager[None]:
        return self._cache.invalidating(keys_tag(key.account.asked))

    def _reviving(self, key: OwnedKey, policy: Policy) -> AbstractContextManager[None]:
        """Hold the owner's lock while a blocked or expired key becomes active.

        Only a service whose token is not restricted may do so for a leaver.
        """
        service = key.caller.service
        before = RotationRecord.of(key.row).replaces[:1]

        def uncounted(row: Json) -> bool:
            token = row.get("token")
            return token == key.token or (is_ending(row) and (token,) == before)

        owner = replace(self.owner(key.caller, key.account), policy=lambda: policy)
        to_leavers = service is not None and service.restrictions is None
        return self._adding_active_key(owner, but=uncounted, to_leavers=to_leavers)


def foreign_key() -> Forbidden:
    """Return the refusal of a key that is another user's or does not exist."""
    return Forbidden("Access denied: key does not belong to the caller", reason="ownership")


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """The owner of a new key: a user, a team, or nobody where a service names no user.

    Attributes:
        account: The owner's account, read fresh; None for a team, and for an owner whom a service
            names.
        reader: As for ``Users.account_of``.
        policy: Returns the owner's key policy.
        created_by: Returns the metadata that records the creator.
        check: Raises Forbidden for a key that the owner may not have, by the fields of
            ``/key/generate``.
        named: LiteLLM id of the owner, where a service names one.
        unknown: Returns the error for a key that the owner does not have.
    """

    account: Account | None
    reader: str
    policy: Callable[[], Policy]
    created_by: Callable[[], Json]
    check: Callable[[Json], None]
    named: str | None = None
    unknown: Callable[[], PluginError] = foreign_key

    @property
    def user_id(self) -> str | None:
        """LiteLLM id of the owner; None for a team or nobody."""
        return self.account.user_id if self.account else self.named

    @property
    def asked(self) -> str | None:
        """The LiteLLM id by which the owner was looked up; None for a team or nobody."""
        return self.account.asked if self.account else self.named

    @property
    def tag(self) -> str:
        """The cache tag of entries that depend on the owner's keys."""
        return keys_tag(self.asked or "")


@dataclass(frozen=True, slots=True)
class OwnedKey:
    """A key that was proved to be the caller's; ``token`` is its hash, ``row`` LiteLLM's row."""

    token: str
    caller: Caller
    account: Account
    row: Json

    def will_be(self, change: Json) -> None:
        """Add a requested change to the audit event; an empty one stands for a deletion."""
        journal.changed(journal.key_hash(self.token), self.row, change)


class NoKey(PluginError):
    """LiteLLM created a key and did not return its secret."""

    status = 502


class LivesTooLong(PluginError):
    """LiteLLM lets a key live longer than requested, and longer than the limit."""

    status = 502
    unfinished = True  # the key was made or changed, which the audit event shows

    def __init__(self, consequence: str) -> None:
        super().__init__(
            "LiteLLM did not take the key's duration: it would live longer than it may,"
            f" {consequence}. Ask an administrator of LiteLLM to look at the team's"
            ' "Team Member Key Duration" and the proxy\'s key settings.'
        )


class TeamDurationBroken(PluginError):
    """LiteLLM can't create keys in a team whose own key duration is malformed."""

    status = 502

    def __init__(self, team_id: str) -> None:
        super().__init__(
            "LiteLLM rejected the key duration for this team. The team has a"
            ' "Team Member Key Duration" set in LiteLLM that is not in a valid'
            ' <number><unit> format (e.g. "30d") and overrides whatever duration is'
            " requested. Fix or clear it in LiteLLM under Teams → this team →"
            " Team Settings, then retry.",
            teamId=team_id,
        )


def token_of(made: Json) -> str:
    """Return the hash of a new key from LiteLLM's answer, else the secret, else ""."""
    tokens = (made.get(name) for name in ("token", "token_id", "key"))
    return next((token for token in tokens if token and isinstance(token, str)), "")
