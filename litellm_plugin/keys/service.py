"""Virtual keys: creating, changing and deleting them for their owners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from litellm_plugin.accounts.caller import Caller
from litellm_plugin.accounts.leavers import Leavers
from litellm_plugin.accounts.users import Users, keys_tag
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients import deadline
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.clock import Clock, stamp
from litellm_plugin.config.settings import LLM_API, KeyGeneration
from litellm_plugin.errors import BadRequest, Busy, Forbidden, HungUp, PluginError, UpstreamError
from litellm_plugin.keys.metadata import RotationRecord
from litellm_plugin.keys.policy import KeyPolicies, Policy, is_active, is_ending
from litellm_plugin.keys.requests import KeyFields, key_fields, refuse_unlimited
from litellm_plugin.keys.rotation import Rotations
from litellm_plugin.keys.undelivered import AFTERWARDS, UndeliveredKey, UndeliveredKeys
from litellm_plugin.observability import journal
from litellm_plugin.shapes import as_object, present
from litellm_plugin.teams.membership import NOT_A_MEMBER, Teams

log = logging.getLogger(__name__)


class Keys:
    """Creates, changes and deletes virtual keys for their owners.

    Attributes:
        fields: Reads requests; :meth:`generate` takes what ``fields.new`` returns.
        rotations: Rotates keys.
    """

    def __init__(
        self,
        litellm: LiteLLM,
        cache: Cache,
        users: Users,
        teams: Teams,
        settings: KeyGeneration,
        policies: KeyPolicies,
        undelivered: UndeliveredKeys,
        now: Clock,
        leavers: Leavers | None = None,
    ) -> None:
        self.fields = KeyFields(key_fields(settings), budget_filled=policies.limits_budget)
        self._litellm = litellm
        self._cache = cache
        self._users = users
        self._teams = teams
        self._settings = settings
        self._policies = policies
        self._undelivered = undelivered
        self._now = now
        self.rotations = Rotations(self, litellm, cache, users, teams, settings, policies, now)
        self._leavers = leavers  # None: offboarding is off

    def generate(self, key: Json, caller: Caller) -> Json:
        """Create a key for the caller; a first visit provisions the caller.

        Args:
            key: Fields of LiteLLM's ``/key/generate``.
            caller: The owner; a service names the owner, if any, in ``user_id``.

        Returns:
            LiteLLM's answer, with the secret in ``key``.

        Raises:
            Forbidden: ``team_id`` is not a team of the caller, or as many keys as allowed are
                active.
            PolicyRefused: A field exceeds a limit.
        """
        account = self._users.account(caller, fresh=True) if caller.user else None
        self._users.check_key_owner(caller, key, account)
        if key.get("team_id"):
            self._teams.usable(key["team_id"], caller, account)
        owner = account.asked if account is not None else key.get("user_id")
        policy = self._policies.of(caller, owner)
        key = self._within(policy, key)
        created_by = self.created_by(caller)
        if account is not None:
            key = {**key, "user_id": owner}
        with self._adding_active_key(policy, account or owner, caller.name):
            try:
                return self._create(key, created_by, policy, keys_tag(owner or ""))
            except UpstreamError as exc:
                if key.get("team_id") and "Invalid duration format" in exc.message:
                    raise TeamDurationBroken(key["team_id"]) from exc
                raise

    def created_by(self, caller: Caller) -> Json:
        """Return the metadata that records the creator of a key made now."""
        entity = caller.entity
        return {
            "created_by_backstage_user": caller.user.entity_ref if caller.user else "unknown",
            **present(created_by_email=entity.email, created_by_display_name=entity.display_name),
            "created_via": "backstage",
            "created_at_iso": stamp(self._now),
        }

    def generate_for(
        self,
        account: Account,
        key: Json,
        created_by: Json,
        policy: Policy,
        *,
        reader: str,
        but: Callable[[Json], bool] = lambda _: False,
    ) -> Json:
        """Create a key for an account whose owner is not signed in at Backstage.

        Args:
            account: The owner's.
            key: As for :meth:`generate`.
            created_by: Metadata that records the creator.
            policy: The owner's.
            reader: As for ``Users.account_of``.
            but: Tells which keys the new one replaces, and so do not count as active.

        Raises:
            Forbidden: As for :meth:`generate`.
            PolicyRefused: A field exceeds a limit.
        """
        if key.get("team_id") and not account.in_team(key["team_id"]):
            raise Forbidden(NOT_A_MEMBER, reason="membership")
        self._users.refuse_key_type(key, account)
        key = {**self._within(policy, key), "user_id": account.user_id}
        with self._adding_active_key(policy, account, reader, but=but):
            return self._create(key, created_by, policy, keys_tag(account.asked))

    def replace(
        self,
        caller: Caller,
        account: Account,
        keys: Sequence[Json],
        key: Json,
        created_by: Json,
        *,
        replaced: Callable[[Json], bool],
        gone: Callable[[], bool],
    ) -> Json:
        """Create a key, and then delete the keys that it replaces.

        Args:
            caller: A signed-in user.
            account: The caller's.
            keys: The caller's keys, read fresh.
            key: Fields of ``/key/generate`` from the configuration; reduced to the limits.
            created_by: Metadata that records the creator.
            replaced: Tells which of ``keys`` are replaced.
            gone: Tells whether the client has closed the connection.

        Raises:
            BadRequest: Keys must be in a team, and this one is in none.
            Forbidden: As for :meth:`generate`.
            NoKey: LiteLLM did not return the new secret; the old keys stay.
            HungUp: The client is gone; the new key is deleted, and the old keys stay.
        """
        if self._settings.team_required and not key.get("team_id"):
            raise BadRequest("A team is required: keys outside of a team are not allowed")
        if key.get("team_id") and not account.in_team(key["team_id"]):
            raise Forbidden(NOT_A_MEMBER, reason="membership")
        policy = self._policies.of(caller, account.asked)
        key = {**policy.capped(key, self._policies.groups_of), "user_id": account.user_id}

        def is_old(row: Json) -> bool:
            return isinstance(row.get("token"), str) and replaced(row)

        with self.adding(key, created_by, policy, account, caller.name, but=is_old) as made:
            if gone():
                self.take_back(made)
                raise HungUp
            self.delete_replaced([row["token"] for row in keys if is_old(row)])
            return made

    @contextmanager
    def adding(
        self,
        key: Json,
        created_by: Json,
        policy: Policy,
        account: Account | None,
        reader: str,
        *,
        but: Callable[[Json], bool] = lambda _: False,
    ) -> Iterator[Json]:
        """Create a key that may replace others, under the owner's lock.

        Args:
            key: Fields of ``/key/generate``, within the limits.
            created_by: Metadata that records the creator.
            policy: The owner's.
            account: The owner's; None for a team key: the caller has counted the team's keys.
            reader: As for ``Users.account_of``.
            but: Tells which keys are replaced, and so do not count as active.

        Yields:
            LiteLLM's answer, with the secret in ``key``.

        Raises:
            Forbidden: As many keys as allowed are active.
            NoKey: LiteLLM did not return the secret, or gave a team key to a user; the new key is
                deleted.
        """
        with self._adding_active_key(policy, account, reader, but=but):
            made = self._create(key, created_by, policy, keys_tag(account.asked if account else ""))
            self.require_secret(made)
            if account is None and made.get("user_id"):
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

    def take_back(self, made: Json) -> None:
        """Delete a new key that can't be delivered; ``made`` is LiteLLM's answer."""
        token = made.get("token") or made.get("token_id")
        if isinstance(token, str):
            tag = keys_tag(str(made.get("user_id") or ""))
            created_by = as_object(made.get("metadata"))
            key = UndeliveredKey(made.get("key_alias"), made.get("user_id"), created_by, tag)
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

    def _create(self, key: Json, created_by: Json, policy: Policy, tag: str) -> Json:
        metadata = {**(key.get("metadata") or {}), **created_by}
        journal.note(userId=key.get("user_id"), keyAlias=key.get("key_alias"))
        journal.changed(None, None, key)
        key_type = key.get("key_type") or LLM_API
        try:
            with deadline.keeping(AFTERWARDS):
                made = self._litellm.generate_key(
                    {**key, "key_type": key_type, "metadata": metadata}
                )
        except UpstreamError as exc:
            if not exc.unfinished:
                raise
            lost = UndeliveredKey(key.get("key_alias"), key.get("user_id"), created_by, tag)
            raise exc.unfinished_with(self._undelivered.find_and_remove(lost)) from exc
        token = made.get("token") or made.get("key")
        if isinstance(token, str):
            journal.note(keyId=journal.key_id(token))
            journal.changed(journal.key_hash(token), None, {**key, "expires": made.get("expires")})
        if policy.outlives(made.get("expires"), self._now()):
            return {**made, "expires": self._shortened(made, key["duration"], policy)}
        return made

    def _shortened(self, made: Json, duration: str, policy: Policy) -> Any:
        """Set the requested duration of a key that LiteLLM or the team let live longer.

        Returns the new ``expires``. A key that can't be shortened is deleted.
        """
        token = made.get("token") or made.get("token_id") or made.get("key")
        if not isinstance(token, str):
            raise UpstreamError("LiteLLM's answer names no key", advice="ask your administrator")
        failure: UpstreamError | None = None
        expires = None
        try:
            expires = as_object(self._litellm.update_key({"key": token, "duration": duration})).get(
                "expires"
            )
        except UpstreamError as exc:
            failure = exc
        if policy.outlives(expires, self._now()):
            self.take_back({**made, "token": token})
            raise LivesTooLong("so the new key is not handed out") from failure
        return expires

    def _within(self, policy: Policy, key: Json) -> Json:
        key = policy.new_key(key, self._policies.groups_of)
        refuse_unlimited(key, self._settings)
        return key

    @contextmanager
    def _adding_active_key(
        self,
        policy: Policy,
        owner: Account | str | None,
        reader: str,
        *,
        but: Callable[[Json], bool] = lambda _: False,
        to_leavers: bool = False,
    ) -> Iterator[None]:
        """Hold the owner's lock while a key becomes active, so that ``maxActiveKeys`` holds.

        Args:
            policy: The owner's.
            owner: The owner's account or LiteLLM id; keys without an owner are not counted.
            reader: As for ``Users.account_of``.
            but: Tells which keys do not count.
            to_leavers: Whether the owner may be a leaver.

        Raises:
            Forbidden: As many keys as allowed are active, or the owner is a leaver.
            Busy: Other requests hold the lock.
        """
        user_id = owner.asked if isinstance(owner, Account) else owner
        if self._leavers is not None and user_id and not to_leavers:
            real = owner.user_id if isinstance(owner, Account) else user_id
            self._leavers.refuse(user_id, real)
        with ExitStack() as held:
            if policy.active_keys and user_id:
                lock = self._cache.lock(f"active keys of {user_id}", on_all_hosts=True)
                if not held.enter_context(lock):
                    raise Busy(
                        "This user's active keys can't be counted right now: another key is being"
                        " made, or the service has no lock (its log says why). Try again in a"
                        " moment."
                    )
                account = (
                    owner if isinstance(owner, Account) else self._users.as_it_is(user_id, reader)
                )
                if account is None:
                    raise BadRequest(
                        "user_id is not known to LiteLLM, so its keys can't be counted"
                    )
                rows = self._users.keys(account, reader, fresh=True)
                policy.refuse_more([row for row in rows if not but(row)], self._now())
            held.enter_context(self._cache.invalidating(keys_tag(user_id or "")))
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
        row = next((row for row in keys if _hash_of(row) == token), None)
        if row is None:
            raise self.foreign_key()
        journal.note(userId=account.user_id, keyAlias=row.get("key_alias"))
        journal.changed(journal.key_hash(token))
        return row

    @staticmethod
    def foreign_key() -> Forbidden:
        """Return the refusal of a key that is another user's or does not exist."""
        return Forbidden("Access denied: key does not belong to the caller", reason="ownership")

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
            raise self.foreign_key()
        return account

    def update(self, key: OwnedKey, body: Mapping[str, Any]) -> Any:
        """Change a key by the body of ``POST /keys/:id/update``; returns LiteLLM's answer.

        Raises:
            BadRequest: A field is wrong or forbidden.
            Forbidden: ``team_id`` is not a team of the caller.
        """
        change = self.fields.change(body)
        if change.get("team_id"):
            self._teams.usable(change["team_id"], key.owner, key.account)
        policy = self._policy_of(key)
        change = policy.change(change, key.row, self._policies.groups_of)
        self._policies.refuse_extension(change, key.row, self._now())
        expired = key.row.get("blocked") is not True and not is_active(key.row, self._now())
        # A rotated key does not count until it ends, unless it is to live longer.
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

        Args:
            account: The owner's.
            token: Hash of the key.
            reader: As for ``Users.account_of``.

        Raises:
            Forbidden: As for :meth:`owned`.
        """
        row = self._own_row(account, token, reader)
        with self._cache.invalidating(keys_tag(account.asked)):
            journal.changed(journal.key_hash(token), row, {})
            self._litellm.delete_key(token)

    def _policy_of(self, key: OwnedKey) -> Policy:
        policy = self._policies.of(key.owner, key.account.asked)
        return self._policies.of_key(policy, key.row)

    def _changing(self, key: OwnedKey) -> AbstractContextManager[None]:
        return self._cache.invalidating(keys_tag(key.account.asked))

    def _reviving(self, key: OwnedKey, policy: Policy) -> AbstractContextManager[None]:
        """Hold the owner's lock while a blocked or expired key becomes active.

        Of the callers only a service whose token is not restricted may do so for a leaver.
        """
        service = key.owner.service
        before = RotationRecord.of(key.row).replaces[:1]

        def uncounted(row: Json) -> bool:
            token = row.get("token")
            return token == key.token or (is_ending(row) and (token,) == before)

        return self._adding_active_key(
            policy,
            key.account,
            key.owner.name,
            but=uncounted,
            to_leavers=service is not None and service.restrictions is None,
        )


@dataclass(frozen=True, slots=True)
class OwnedKey:
    """A key that was proved to be the caller's; ``token`` is its hash, ``row`` LiteLLM's row."""

    token: str
    owner: Caller
    account: Account
    row: Json

    def will_be(self, change: Json) -> None:
        """Add a change that LiteLLM is asked for to the audit event; empty: it is deleted."""
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


def _hash_of(row: Json) -> Any:
    # A row without a hash is matched by its name.
    return row.get("key_name") if row.get("token") is None else row["token"]
