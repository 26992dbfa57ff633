"""Rotation: a new key replaces an old one, which still works for a grace period.

The new key's metadata names the old key (:class:`RotationRecord`), so that a repeated request finds
the rotation in LiteLLM, on every replica and after a restart. The steps, under the owner's lock:

1. Create the new key, under a temporary alias made from the old key's hash. LiteLLM refuses a
   second key with that alias.
2. Delete the new key if the client is gone; else record in its metadata that it is delivered.
3. Rename the old key and let it expire, then give its alias to the new key.

If the process fails or is killed before the record of step 2, the new secret was never sent: the
next request deletes the new key and begins anew. After that record, the next request completes
step 3.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from litellm_plugin import fields
from litellm_plugin.accounts.caller import Caller
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Account, Json, LiteLLM
from litellm_plugin.clock import Clock, iso, moment
from litellm_plugin.config.settings import LLM_API, KeyGeneration
from litellm_plugin.errors import BadRequest, Busy, Conflict, HungUp, UpstreamError
from litellm_plugin.keys.metadata import MAX_GRACE, RotationRecord, is_malformed
from litellm_plugin.keys.policy import KeyPolicies, is_active, is_ending
from litellm_plugin.keys.service import KeyOwner, Keys, token_of
from litellm_plugin.observability import journal
from litellm_plugin.shapes import ROTATION, amount, as_object, first, present

log = logging.getLogger(__name__)

DEFAULT_GRACE = "24h"
REPEATED_GRACE = "1h"  # at least, after a repeated request: the first answer may have been lost
MAX_REMEMBERED = 10  # hashes of earlier keys in a key's metadata
MAX_ALIAS = 220  # characters of an alias before a suffix; LiteLLM may allow 255 in all

_IDEMPOTENCY_KEY = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")

# Fields of LiteLLM's row that are copied from the old key. The spend is copied with max_budget, so
# that the new key has what is left of the budget.
COPIED = (
    *("models", "team_id", "max_budget", "spend", "budget_duration", "tpm_limit", "rpm_limit"),
    *("max_parallel_requests", "budget_id"),
)
# Restrictions that only an administrator of LiteLLM can set, so a new key would not have them.
NOT_COPIED = (
    *("agent_id", "aliases", "allowed_cache_controls", "access_group_ids", "auto_rotate"),
    *("budget_fallbacks", "budget_limits", "config", "model_max_budget"),
    *("object_permission_id", "permissions", "policies", "project_id", "router_settings"),
    "tpd_limit",
)
# The key_type by LiteLLM's allowed_routes.
_TYPES = {
    (): "default",
    ("llm_api_routes",): LLM_API,
    ("management_routes",): "management",
    ("info_routes",): "read_only",
}


class RotationRefused(Conflict):
    """The key can't be rotated, or was rotated before."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """A request to rotate a key.

    Attributes:
        token: Hash of the old key.
        grace: How long the old key still works, such as ``24h``.
        request: Digest of the ``Idempotency-Key`` and of ``token``; None without that header.
        gone: Tells whether the client has closed the connection.
    """

    token: str
    grace: str
    request: str | None
    gone: Callable[[], bool]

    @classmethod
    def read(
        cls,
        token: str,
        body: Mapping[str, Any],
        idempotency_key: str | None,
        gone: Callable[[], bool],
    ) -> Rotation:
        """Read a request.

        Raises:
            BadRequest: A field or the ``Idempotency-Key`` is wrong.
        """
        fields.only(body, ("grace",))
        grace = fields.duration("grace", first(body.get("grace"), DEFAULT_GRACE))
        if not fields.is_within(grace, MAX_GRACE):
            raise BadRequest(f"grace must be at most {MAX_GRACE}")
        if idempotency_key is None:
            return cls(token, grace, None, gone)
        if not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            raise BadRequest("Idempotency-Key must be 1 to 255 printable ASCII characters")
        digest = hashlib.sha256(f"{token}\n{idempotency_key}".encode()).hexdigest()
        return cls(token, grace, digest, gone)


@dataclass(frozen=True)
class Rotations:
    """Rotates keys for their owners."""

    _keys: Keys
    _litellm: LiteLLM
    _cache: Cache
    _settings: KeyGeneration
    _policies: KeyPolicies
    _now: Clock

    def rotate(self, caller: Caller, asked: Rotation) -> Json:
        """Rotate a key for a caller with Backstage credentials, as :meth:`rotate_for` does."""
        account = self._keys.account_for_change(caller)
        return self.rotate_for(self._keys.owner(caller, account), account, asked)

    def rotate_for(self, owner: KeyOwner, account: Account, asked: Rotation) -> Json:
        """Rotate a key of a user, who is the owner of the account.

        Returns:
            LiteLLM's answer about the new key, with the secret in ``key``. ``rotated`` has the
            old key's ``token``, ``key_alias`` and ``expires``, when it stops working (None for
            never). With ``hint``, LiteLLM failed to end or rename the old key.

        Raises:
            RotationRefused: The key was rotated before, is blocked or expired, or has a
                restriction that a new key would not have.
            Forbidden: The key is another user's or does not exist, or the owner may not have it.
            HungUp: The client is gone; the new key is deleted, the old one unchanged.
            Busy: Another request rotates a key of this owner.
        """
        lock = self._cache.lock(f"rotation of keys of {account.user_id}", on_all_hosts=True)
        with lock as held, self._cache.invalidating(owner.tag):
            if not held:
                raise Busy(
                    "Another key of this user is being rotated, or the service has no lock (its"
                    " log says why). Try again in a moment."
                )
            return self.rotate_one_of(self._litellm.keys_of(account.user_id), owner, asked)

    def rotate_one_of(self, rows: Sequence[Json], owner: KeyOwner, asked: Rotation) -> Json:
        """Rotate one of the owner's keys, as :meth:`rotate_for` does.

        ``rows`` are LiteLLM's rows of all keys of the owner, read under a lock that the caller of
        this method holds.
        """
        old = next((row for row in rows if row.get("token") == asked.token), None)
        if old is not None:
            journal.note(userId=owner.user_id, keyAlias=old.get("key_alias"))
        self._refuse_again(rows, old, asked)
        if old is None:
            raise owner.unknown()
        self._refuse_unfit(old)
        return self._replace(owner, old, asked)

    def _refuse_again(self, rows: Sequence[Json], old: Json | None, asked: Rotation) -> None:
        """Refuse to rotate a key again, after completing the earlier rotation.

        Raises:
            RotationRefused: The key was rotated before.
        """
        successors = [row for row in rows if asked.token in RotationRecord.of(row).replaces]
        delivered = [row for row in successors if RotationRecord.of(row).delivered]
        for row in successors:
            if row not in delivered:
                # Its secret was never sent: the worker was killed, or LiteLLM failed.
                self._keys.take_back(row)
        if not delivered:
            return
        for row in delivered:
            if RotationRecord.of(row).replaces[0] == asked.token:
                self.finish(row, old, asked.grace)
        new = delivered[-1]
        same = asked.request is not None and RotationRecord.of(new).request == asked.request
        done = "This request was done before" if same else "This key was rotated before"
        raise RotationRefused(
            f"{done}, and the secret of the new key is returned only once. If it is lost, delete"
            " the new key and rotate the old one again, while the old one works.",
            token=new.get("token"),
            key_alias=new.get("key_alias"),
        )

    def _refuse_unfit(self, old: Json) -> None:
        """Refuse to rotate a key that does not work, or that has fields which can't be copied."""
        record = as_object(old.get("metadata")).get(ROTATION)
        if record is not None and is_malformed(record):
            raise RotationRefused(
                f"The key's metadata field {ROTATION} was changed at LiteLLM, and can't be read:"
                " remove the field there, or create a new key"
            )
        if old.get("blocked") is True:
            raise RotationRefused("The key is blocked: unblock it before you rotate it")
        if not is_active(old, self._now()):
            raise RotationRefused("The key has expired: create a new one")
        extra = [name for name in NOT_COPIED if old.get(name)]
        if _type_of(old) is None:
            extra.append("allowed_routes")
        if extra:
            raise RotationRefused(
                f"An administrator of LiteLLM has restricted this key ({', '.join(sorted(extra))}),"
                " and a new key would not be restricted: ask the administrator to replace it"
            )

    def _replace(self, owner: KeyOwner, old: Json, asked: Rotation) -> Json:
        """Create the new key, record that it is delivered, and end the old one."""
        earlier, before = RotationRecord.of(old).replaces, RotationRecord.of(old).replaced
        policy = self._policies.of_key(owner.policy(), old)
        owner = replace(owner, policy=lambda: policy)
        new = RotationRecord(
            replaces=(asked.token, *earlier)[:MAX_REMEMBERED],
            alias=before["alias"] if before else old.get("key_alias") or None,
            request=asked.request,
            grace=asked.grace,
        )
        key = self._request(owner, old, new)
        record = replace(new, delivered=True).as_json()
        metadata = {**key["metadata"], **owner.created_by(), ROTATION: record}

        def is_old(row: Json) -> bool:
            return row.get("token") == asked.token

        with self._keys.adding(owner, key, but=is_old) as made:
            token = token_of(made)
            journal.note(
                keyId=journal.key_id(asked.token),
                keyAlias=old.get("key_alias"),
                newKeyId=journal.key_id(token),
            )
            successor = {"replaced_by": journal.key_id(token)}
            journal.changed(journal.key_hash(asked.token), old, successor)
            if asked.gone():
                self._keys.take_back(made)
                raise HungUp
            try:
                self._keys.carry_spend(made, amount(old.get("spend")))
                self._litellm.update_key({"key": token, "metadata": metadata})
            except UpstreamError as exc:
                self._keys.take_back(made)
                raise UpstreamError(
                    f"{exc.message.rstrip('.')}. The new key is removed, and the old one is as it"
                    " was. Try again.",
                    answered=exc.answered,
                ) from exc
            rotated = {name: old.get(name) for name in ("token", "key_alias", "expires")}
            answer = {**made, "spend": old.get("spend"), "metadata": metadata, "rotated": rotated}
            try:
                rotated |= self._retire(old, new.alias, asked.grace)
                journal.changed(journal.key_hash(asked.token), old, {**rotated, **successor})
                self._rename(token, new.alias)
                answer["key_alias"] = new.alias
            except UpstreamError as exc:
                log.error("a rotation is not complete: %s (%s)", journal.key_id(token), exc)
                answer["hint"] = (
                    "The new key works, but LiteLLM did not end and rename the old one as it"
                    " should. Send the same request again to complete that, or delete the old key."
                )
            return answer

    def _request(self, owner: KeyOwner, old: Json, new: RotationRecord) -> Json:
        """Return the fields of ``/key/generate`` for the new key.

        Raises:
            Forbidden: The owner may not have such a key.
            RotationRefused: Keys must be in a team or have a budget, and this one does not.
        """
        key = {
            **present(**{name: old.get(name) for name in COPIED}),
            **present(
                organization_id=old.get("organization_id") or old.get("org_id"),
                duration=_lifetime(old),
                key_alias=new.alias and _temporary(new),
            ),
            **present(user_id=owner.user_id),
            "key_type": self._allowed_type(old),
            "metadata": {**as_object(old.get("metadata")), ROTATION: new.as_json()},
        }
        owner.check(key)
        if self._settings.team_required and not key.get("team_id"):
            raise RotationRefused(
                "The key is in no team, and keys must be in one: create a new key"
            )
        key = owner.policy().capped(key)
        if self._settings.allow_unlimited_budget is False and key.get("max_budget") is None:
            raise RotationRefused(
                "The key has no budget, and keys must have one: give it a max_budget first"
            )
        return key

    def finish(self, new: Json, old: Json | None, grace: str | None = None) -> None:
        """Complete step 3 with a grace of :data:`REPEATED_GRACE` at least.

        Args:
            new: LiteLLM's row of the new key.
            old: LiteLLM's row of the old key; None where it is deleted.
            grace: The grace in a repeated request; None: that of the first request.
        """
        record = RotationRecord.of(new)
        grace = grace or record.grace or DEFAULT_GRACE
        grace = max(grace, REPEATED_GRACE, key=lambda span: fields.seconds(span) or 0)
        if old is not None and RotationRecord.of(old).replaced is None:
            self._retire(old, record.alias, grace)
        if new.get("key_alias") == _temporary(record):
            self._rename(str(new["token"]), record.alias)

    def _retire(self, old: Json, alias: str | None, grace: str) -> Json:
        """Rename the old key and let it expire; delete it if there is no grace.

        Returns:
            ``expires`` and ``key_alias`` of the old key.

        Raises:
            UpstreamError: LiteLLM failed, or did not change when the key expires.
        """
        token, now = str(old["token"]), self._now()
        left, expires = timedelta(seconds=fields.seconds(grace) or 0), moment(old.get("expires"))
        if not left:
            self._litellm.delete_key(token)
            return {"expires": iso(now)}
        change: Json = {"key": token}
        if expires is None or expires > now + left:
            expires = now + left
            change["duration"] = grace
        record = RotationRecord.of(old)
        before = record.replaced or {"alias": alias, "expires": old.get("expires")}
        replaced = {**before, "until": iso(expires)}
        change["metadata"] = {
            **as_object(old.get("metadata")),
            ROTATION: replace(record, replaced=replaced).as_json(),
        }
        day = f"rotated-{now:%Y-%m-%d}"
        names = [_named(alias, day), _named(alias, f"{day}-{token[:8]}")] if alias else [None]
        answer, name = self._renamed(change, names)
        ends = moment(as_object(answer).get("expires"))
        if not is_ending({**change, "expires": as_object(answer).get("expires")}):
            raise UpstreamError("LiteLLM did not take the old key's duration", answered=200)
        return {"expires": iso(ends or expires), **present(key_alias=name)}

    def _renamed(self, change: Json, names: Sequence[str | None]) -> tuple[Any, str | None]:
        """Change a key, with the first of ``names`` that no other key has as its alias.

        Returns:
            LiteLLM's answer, and the alias.
        """
        name, *others = names
        try:
            return self._litellm.update_key({**change, **present(key_alias=name)}), name
        except UpstreamError as exc:
            if not others or exc.answered != 400 or exc.param != "key_alias":
                raise
            return self._renamed(change, others)

    def _rename(self, token: str, alias: str | None) -> None:
        if alias:
            self._litellm.update_key({"key": token, "key_alias": alias})

    def _allowed_type(self, old: Json) -> str:
        """Return the type of the new key.

        Raises:
            RotationRefused: The old key is of a type that new keys may not have.
        """
        kind = _type_of(old) or ""
        if kind in {LLM_API, *self._settings.key_types}:
            return kind
        if kind == "default":  # may call models, and also management routes
            return LLM_API
        raise RotationRefused(f"New keys may not have the key_type {kind}: create a new key")


def _type_of(row: Json) -> str | None:
    """Return a key's type by its ``allowed_routes``; None where no type has them."""
    routes = row.get("allowed_routes") or ()
    return _TYPES.get(tuple(map(str, routes))) if isinstance(routes, list | tuple) else None


def _lifetime(old: Json) -> str | None:
    """Return the duration that the old key had at its creation; None for no expiry.

    A key that was rotated before expires earlier; its record has the original expiry.
    """
    before = RotationRecord.of(old).replaced
    expires = moment(before["expires"] if before else old.get("expires"))
    created = moment(old.get("created_at"))
    if expires is None or created is None:
        return None
    seconds = max(round((expires - created).total_seconds()), 1)
    return f"{seconds}s" if seconds < 10**9 else f"{seconds // 86_400}d"


def is_unfinished(new: Json, old: Json) -> bool:
    """Tell whether a part of step 3 of a rotation is still to be done."""
    return RotationRecord.of(old).replaced is None or new.get("key_alias") == _temporary(
        RotationRecord.of(new)
    )


def _temporary(new: RotationRecord) -> str:
    """Return the alias of a new key until the old key is renamed."""
    return _named(new.alias or "", f"rotation-{new.replaces[0][:12]}")


def _named(alias: str, suffix: str) -> str:
    # LiteLLM can be configured to refuse blanks and most punctuation in aliases.
    return f"{alias[:MAX_ALIAS]}.{suffix}"
