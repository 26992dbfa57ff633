"""Virtual keys: whose they are, and what their owners may ask for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from litellm_plugin.accounts.caller import Caller
from litellm_plugin.accounts.users import Users, keys_tag
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients import deadline
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.clock import Clock, stamp
from litellm_plugin.config.settings import LLM_API, KeyGeneration
from litellm_plugin.errors import BadRequest, Forbidden, HungUp, PluginError, UpstreamError
from litellm_plugin.keys.policy import KeyPolicies, Policy, is_active
from litellm_plugin.keys.requests import KeyFields, refuse_unlimited
from litellm_plugin.keys.undelivered import AFTERWARDS, UndeliveredKey, UndeliveredKeys
from litellm_plugin.observability import journal
from litellm_plugin.shapes import present
from litellm_plugin.teams.membership import NOT_A_MEMBER, Teams

log = logging.getLogger(__name__)


class Keys:
    """Makes, changes and deletes virtual keys for their owners.

    Args:
        litellm: The client.
        cache: The cache.
        users: Finds whose keys they are.
        teams: Tells which teams a key may be put in.
        rules: ``litellm.keyGeneration``.
        ceilings: ``litellm.keyPolicy``, and what roles have instead.
        lost: Looks for keys that were made and not heard of.
        now: The present time, in UTC.
    """

    def __init__(
        self,
        litellm: LiteLLM,
        cache: Cache,
        users: Users,
        teams: Teams,
        rules: KeyGeneration,
        ceilings: KeyPolicies,
        lost: UndeliveredKeys,
        now: Clock,
    ) -> None:
        self._litellm = litellm
        self._cache = cache
        self._users = users
        self._teams = teams
        self._rules = rules
        self._fields = KeyFields(rules, budget_filled=ceilings.limits_budget)
        self._ceilings = ceilings
        self._lost = lost
        self._now = now

    def request(
        self, body: Mapping[str, Any], *, service: bool = False, named: bool = False
    ) -> Json:
        """Read a request for a new key.

        Args:
            body: ``alias`` and limits.
            service: Whether a service asks; only services may set ``user_id``.
            named: Whether ``alias`` must not be missing.

        Returns:
            The fields for LiteLLM's ``/key/generate``.

        Raises:
            BadRequest: A field is missing or wrong, or not the caller's to set.
        """
        return self._fields.new(body, named=named, service=service)

    def generate(self, key: Json, caller: Caller) -> Json:
        """Make a key for the caller; a first visit provisions them.

        Args:
            key: What :meth:`request` returned.
            caller: The owner; a service owns none, and names whom it wants in ``user_id``.

        Returns:
            LiteLLM's answer, the secret in ``key``.

        Raises:
            Forbidden: ``team_id`` is not a team of the caller, or they have as many active
                keys as they may.
            PolicyRefused: It goes beyond a ceiling.
        """
        account = self._users.account(caller, fresh=True) if caller.user else None
        self._users.check_key_owner(caller, key, account)
        if key.get("team_id"):
            self._teams.usable(key["team_id"], caller, account)
        owner = account.asked if account is not None else key.get("user_id")
        policy = self._ceilings.of(caller) if caller.user else self._ceilings.of_id(owner)
        key = self._within(policy, key)
        entity = caller.entity
        created_by = {
            "created_by_backstage_user": caller.user.entity_ref if caller.user else "unknown",
            **present(created_by_email=entity.email, created_by_display_name=entity.display_name),
            "created_via": "backstage",
            "created_at_iso": stamp(self._now),
        }
        if account is not None:
            key = {**key, "user_id": owner}
        with (
            self._room(policy, account or owner, caller.name),
            self._cache.invalidating(keys_tag(str(owner or ""))),
        ):
            try:
                return self._make(key, created_by, policy, keys_tag(str(owner or "")))
            except UpstreamError as exc:
                if key.get("team_id") and "Invalid duration format" in exc.message:
                    raise TeamDurationBroken(key["team_id"]) from exc
                raise

    def generate_for(
        self, account: Account, key: Json, created_by: Json, *, own_id: str, reader: str
    ) -> Json:
        """Make a key for an account whose owner came another way than Backstage.

        Args:
            account: The owner's.
            key: What :meth:`request` returned.
            created_by: Metadata that says who asked, and how.
            own_id: The LiteLLM id that is made of the owner's name.
            reader: As for ``Users.account_of``.

        Raises:
            Forbidden: ``team_id`` is not one of the account's teams.
            PolicyRefused: It goes beyond a ceiling.
        """
        if key.get("team_id") and not account.in_team(key["team_id"]):
            raise Forbidden(NOT_A_MEMBER, reason="membership")
        self._users.refuse_key_type(key, account)
        policy = self._ceilings.of_id(own_id)
        key = self._within(policy, key)
        with (
            self._room(policy, account, reader),
            self._cache.invalidating(keys_tag(account.asked)),
        ):
            key = {**key, "user_id": account.user_id}
            return self._make(key, created_by, policy, keys_tag(account.asked))

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
        """Make a key, and then delete some of the caller's, which it takes the place of.

        Args:
            caller: A signed-in user.
            account: Theirs.
            keys: Theirs, as they are right now.
            key: As the configuration has it; what goes beyond a ceiling is cut down to it.
            created_by: Metadata that says who asked, and how.
            replaced: Tells of one of ``keys`` whether it is to go.
            gone: Tells whether nobody waits for the new key any more.

        Raises:
            BadRequest: Keys have to be in a team, and this one is to be in none.
            Forbidden: ``team_id`` is not one of the account's teams, or they have as many
                active keys as they may.
            NoKey: LiteLLM did not tell the new key's secret; the old keys stay.
            HungUp: Nobody waits for it; it is removed, and the old keys stay.
        """
        if self._rules.team_required and not key.get("team_id"):
            raise BadRequest("A team is required: keys outside of a team are not allowed")
        if key.get("team_id") and not account.in_team(key["team_id"]):
            raise Forbidden(NOT_A_MEMBER, reason="membership")
        policy = self._ceilings.of(caller)
        key = policy.capped(key)

        def in_the_slot(row: Json) -> bool:
            return isinstance(row.get("token"), str) and replaced(row)

        with (
            self._room(policy, account, caller.name, but=in_the_slot),
            self._cache.invalidating(keys_tag(account.asked)),
        ):
            key = {**key, "user_id": account.user_id}
            made = self._make(key, created_by, policy, keys_tag(account.asked))
            if not isinstance(made.get("key"), str) or not made["key"]:
                self.take_back(made)
                raise NoKey("LiteLLM returned no key material")
            if gone():
                self.take_back(made)
                raise HungUp
            self._remove_replaced([row["token"] for row in keys if in_the_slot(row)])
            return made

    def _remove_replaced(self, tokens: list[str]) -> None:
        """Delete keys whose owner has a new one; what can't be deleted does not keep it back."""
        gone: list[str] = []
        for token in tokens:
            try:
                self._litellm.delete_key(token)
            except UpstreamError as exc:
                if exc.answered != 404:  # else it is gone already
                    log.error(
                        "a replaced key is left, until the next time: %s (%s)",
                        journal.key_id(token),
                        exc,
                    )
                    continue
            gone.append(journal.key_id(token))
            journal.note(replacedKeyIds=gone)

    def _make(self, key: Json, created_by: Json, policy: Policy, scope: str) -> Json:
        metadata = {**(key.get("metadata") or {}), **created_by}
        journal.note(userId=key.get("user_id"), keyAlias=key.get("key_alias"))
        try:
            with deadline.keeping(AFTERWARDS):
                key_type = key.get("key_type") or LLM_API
                made = self._litellm.generate_key(
                    {**key, "key_type": key_type, "metadata": metadata}
                )
        except UpstreamError as exc:
            if not exc.unfinished:
                raise
            lost = UndeliveredKey(key.get("key_alias"), key.get("user_id"), created_by, scope)
            raise exc.unfinished_with(self._lost.find_and_remove(lost)) from exc
        token = made.get("token") or made.get("key")
        if isinstance(token, str):
            journal.note(keyId=journal.key_id(token))
        if policy.outlives(made.get("expires"), self._now()):
            return {**made, "expires": self._shortened(made, key["duration"], policy)}
        return made

    def take_back(self, made: Json) -> None:
        """Delete a key that was just made, because nobody is there to be told its secret.

        Args:
            made: What :meth:`generate` or :meth:`generate_for` returned.
        """
        token = made.get("token") or made.get("token_id")
        if isinstance(token, str):
            owner, metadata = made.get("user_id"), made.get("metadata")
            created_by = metadata if isinstance(metadata, dict) else {}
            lost = UndeliveredKey(
                made.get("key_alias"), owner, created_by, keys_tag(str(owner or ""))
            )
            self._lost.remove(token, lost)

    def _shortened(self, made: Json, duration: str, policy: Policy) -> Any:
        """Give a key the life that was asked for, as LiteLLM or the key's team had not.

        A key that lives too long is not handed out: what can't be shortened is deleted.
        """
        token = made.get("token") or made.get("token_id") or made.get("key")
        if not isinstance(token, str):
            raise UpstreamError("LiteLLM's answer names no key; ask your administrator")
        failure: UpstreamError | None = None
        expires = None
        try:
            changed = self._litellm.update_key({"key": token, "duration": duration})
            expires = changed.get("expires") if isinstance(changed, dict) else None
        except UpstreamError as exc:
            failure = exc
        if policy.outlives(expires, self._now()):
            self.take_back({**made, "token": token})
            raise LivesTooLong("so the new key is not handed out") from failure
        return expires

    def _within(self, policy: Policy, key: Json) -> Json:
        key = policy.new_key(key, self._ceilings.groups_of)
        refuse_unlimited(key, self._rules)
        return key

    @contextmanager
    def _room(
        self,
        policy: Policy,
        owner: Account | str | None,
        reader: str,
        *,
        but: Callable[[Json], bool] = lambda _: False,
    ) -> Iterator[None]:
        """Make sure that one more key of the owner may be active; ``but`` some do not count.

        Args:
            policy: The limits that hold.
            owner: Account or LiteLLM id of the owner; keys without an owner are nobody's to count.
            reader: As for ``Users.account_of``.
            but: Tells which keys do not count.
        """
        if not owner:
            yield
            return

        def keys() -> list[Json]:
            account = self._users.as_it_is(owner, reader) if isinstance(owner, str) else owner
            if account is None:
                raise BadRequest("user_id is not known to LiteLLM, so its keys can't be counted")
            rows = self._users.keys(account, reader, fresh=True)
            return [row for row in rows if not but(row)]

        user_id = owner if isinstance(owner, str) else owner.asked
        with self._ceilings.adding_active_key(policy, user_id, keys):
            yield

    @contextmanager
    def _reviving(self, key: OwnedKey, policy: Policy) -> Iterator[None]:
        """Make sure that a key may become active that was not."""
        with self._room(
            policy,
            key.account,
            key.owner.name,
            but=lambda row: row.get("token") == key.token,
        ):
            yield

    def _policy_of(self, key: OwnedKey) -> Policy:
        caller = key.owner
        return self._ceilings.of(caller) if caller.user else self._ceilings.of_id(key.account.asked)

    def owned(self, caller: Caller, token: str) -> OwnedKey:
        """Return the caller's own key.

        Args:
            caller: Who asks.
            token: The key's hash.

        Raises:
            Forbidden: It is someone else's, or no key at all; we do not say which.
        """
        if not caller.litellm_id:
            unknown = "Cannot verify key ownership without an authenticated user"
            raise Forbidden(unknown, reason="ownership")
        account = self._users.find(caller, fresh=True)
        keys = self._users.keys(account, caller.name, fresh=True) if account is not None else []
        row = next((row for row in keys if _hash_of(row) == token), None)
        if account is None or row is None:
            foreign = "Access denied: key does not belong to the caller"
            raise Forbidden(foreign, reason="ownership")
        journal.note(userId=account.user_id, keyAlias=row.get("key_alias"))
        return OwnedKey(token, caller, account, row)

    def update(self, key: OwnedKey, body: Mapping[str, Any]) -> Any:
        """Change a key; returns LiteLLM's answer.

        Args:
            key: What :meth:`owned` proved.
            body: The body of ``POST /keys/:id/update``; ``key`` in it is ignored.

        Raises:
            BadRequest: A field is wrong, or not the caller's to set.
            Forbidden: ``team_id`` is not a team of the caller.
        """
        change = self._fields.change(body)
        if change.get("team_id"):
            self._teams.usable(change["team_id"], key.owner, key.account)
        policy = self._policy_of(key)
        change = policy.change(change, key.row, self._ceilings.groups_of)
        with ExitStack() as held:
            if "duration" in change and _has_only_expired(key.row, self._now()):
                held.enter_context(self._reviving(key, policy))
            held.enter_context(self._cache.invalidating(keys_tag(key.account.asked)))
            changed = self._litellm.update_key({**change, "key": key.token})
            if "duration" in change and isinstance(changed, dict) and "expires" in changed:
                self._refuse_longer(key, changed["expires"], policy)
            return changed

    def _refuse_longer(self, key: OwnedKey, expires: Any, policy: Policy) -> None:
        """Refuse what came of a change where LiteLLM lets the key live too long after it."""
        now = self._now()
        if not policy.outlives(expires, now):
            return
        if policy.outlives(key.row.get("expires"), now):
            raise LivesTooLong("as it did before")
        self._litellm.delete_key(key.token)
        raise LivesTooLong("so the key was deleted")

    def block(self, key: OwnedKey) -> None:
        """Block a key at once."""
        with self._cache.invalidating(keys_tag(key.account.asked)):
            self._litellm.block_key(key.token)

    def unblock(self, key: OwnedKey) -> None:
        """Undo :meth:`block`.

        Raises:
            Forbidden: The caller has as many active keys as they may.
        """
        with (
            self._reviving(key, self._policy_of(key)),
            self._cache.invalidating(keys_tag(key.account.asked)),
        ):
            self._litellm.unblock_key(key.token)

    def reset_spend(self, key: OwnedKey) -> None:
        """Set a key's spend to 0 USD.

        Raises:
            Forbidden: There is a ceiling of budgets, which this would go round.
        """
        self._policy_of(key).refuse_reset()
        with self._cache.invalidating(keys_tag(key.account.asked)):
            self._litellm.reset_key_spend(key.token)

    def delete(self, key: OwnedKey) -> None:
        """Delete a key for good."""
        with self._cache.invalidating(keys_tag(key.account.asked)):
            self._litellm.delete_key(key.token)


@dataclass(frozen=True, slots=True)
class OwnedKey:
    """A key that was proved to be its owner's.

    Attributes:
        token: The key's hash.
        owner: Whose it is.
        account: The owner's account.
        row: The key as LiteLLM has it.
    """

    token: str
    owner: Caller
    account: Account
    row: Json


class NoKey(PluginError):
    """LiteLLM made a key and did not tell it."""

    status = 502


class LivesTooLong(PluginError):
    """LiteLLM did not give a key the life that was asked for, and the ceilings do not allow it."""

    status = 502

    def __init__(self, consequence: str) -> None:
        super().__init__(
            "LiteLLM did not take the key's duration: it would live longer than it may,"
            f" {consequence}. Ask an administrator of LiteLLM to look at the team's"
            ' "Team Member Key Duration" and the proxy\'s key settings.'
        )


class TeamDurationBroken(PluginError):
    """LiteLLM can't make keys in this team before someone mends the team there."""

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


def _has_only_expired(row: Json, now: datetime) -> bool:
    return row.get("blocked") is not True and not is_active(row, now)


def _hash_of(row: Json) -> Any:
    # Only a row without its hash goes by its name.
    return row.get("key_name") if row.get("token") is None else row["token"]
