"""``opencode connect``: creates a key for a program on the user's own machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import token_hex
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from litellm_plugin import fields
from litellm_plugin.accounts.caller import Caller
from litellm_plugin.accounts.users import Users
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Json
from litellm_plugin.clock import Clock, stamp
from litellm_plugin.config.settings import Opencode
from litellm_plugin.errors import BadRequest, Forbidden, HungUp, UpstreamError
from litellm_plugin.keys.service import Keys
from litellm_plugin.shapes import present

LOOPBACK = frozenset({"localhost", "127.0.0.1"})


@dataclass(frozen=True)
class OpencodeKeys:
    """Keeps one key in each slot; a slot is a user, or a user and a team."""

    _users: Users
    _keys: Keys
    _cache: Cache  # holds the lock of a user's slots
    _settings: Opencode
    _team_required: bool | None  # litellm.keyGeneration.teamRequired
    _now: Clock

    def connect(
        self, caller: Caller, redirect_uri: str, team_id: str | None, *, gone: Callable[[], bool]
    ) -> str:
        """Create a new key for the caller's slot, and then delete the slot's old key.

        The old key can't be used again, because LiteLLM does not return its secret.

        Args:
            caller: A signed-in user.
            redirect_uri: A URI that :func:`callback` returned.
            team_id: A team of the caller, or None.
            gone: Tells whether the client has closed the connection.

        Returns:
            The URI for the browser: ``redirect_uri`` with the parameters ``key`` and ``team``.

        Raises:
            BadRequest: A team is required.
            Forbidden: The caller is not in the team, or as many keys as allowed are active.
            NoKey: LiteLLM did not return the new secret; the old key stays.
            HungUp: The client is gone; the new key is deleted, and the old one stays.
        """
        # The lock makes the second of two concurrent requests replace the key of the first.
        with self._cache.lock(f"opencode key of {caller.litellm_id}"):
            secret = self._secret(caller, team_id, gone)
        url = urlsplit(redirect_uri)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        query |= present(key=secret, team=team_id)
        return urlunsplit(url._replace(query=urlencode(query)))

    def _secret(self, caller: Caller, team_id: str | None, gone: Callable[[], bool]) -> str:
        account = self._users.account(caller, fresh=True)
        if self._settings.require_team and not team_id:
            raise BadRequest("A team is required for this connection")
        if self._team_required and not team_id:
            raise BadRequest("A team is required: keys outside of a team are not allowed")
        if team_id and not account.in_team(team_id):
            foreign = "Access denied: team is not one of your teams"
            raise Forbidden(foreign, reason="membership", team=team_id)
        keys = self._users.keys(account, caller.name, fresh=True)
        alias = "-".join(filter(None, ("opencode", account.user_id, team_id)))
        key: Json = {
            "duration": fields.duration("keyDuration", self._settings.key_duration),
            "max_budget": self._settings.max_budget,
            **present(team_id=team_id),
            "metadata": dict(self._settings.metadata),
        }
        user, entity = caller.user, caller.entity
        created_by = {
            "created_via": "opencode-connect",
            **present(
                created_by_backstage_user=user.entity_ref if user else None,
                created_by_email=entity.email,
                opencode_team=team_id,
            ),
        }

        owner = self._keys.owner(caller, account)
        # Older keys have "~" in place of the dot; LiteLLM can be configured to refuse "~".
        of_the_slot = re.compile(re.escape(alias) + "([.~][0-9a-f]{8})?")

        def in_the_slot(row: Json) -> bool:
            name = row.get("key_alias")
            named = isinstance(name, str) and of_the_slot.fullmatch(name) is not None
            return named and isinstance(row.get("token"), str)

        def make(key_alias: str, **more: str) -> str:
            new_owner = replace(owner, created_by=lambda: created_by | more)
            within = owner.policy().capped({**key, "key_alias": key_alias})
            with self._keys.adding(new_owner, within, but=in_the_slot) as made:
                if gone():
                    self._keys.take_back(made)
                    raise HungUp
                self._keys.delete_replaced([row["token"] for row in keys if in_the_slot(row)])
                secret: str = made["key"]
                return secret

        if all(row.get("key_alias") != alias for row in keys):
            try:
                return make(alias)
            except UpstreamError as exc:
                if exc.answered != 400 or exc.param != "key_alias":
                    raise
        # Aliases are unique in LiteLLM. The slot's alias may belong to the old key, or to another
        # user's key, since it can be guessed. The time distinguishes an undelivered key of this
        # request from those of other requests.
        return make(f"{alias}.{token_hex(4)}", created_at_iso=stamp(self._now))


def callback(redirect_uri: str) -> str:
    """Return a redirect URI on the user's own machine, normalised.

    Raises:
        BadRequest: The URI is not ``/callback`` at a loopback host.
    """
    if not re.fullmatch(r"[!-\[\]-~]+", redirect_uri):  # no blanks, no backslashes, ASCII only
        raise _refused()
    try:
        url = urlsplit(redirect_uri)
        port = url.port
    except ValueError as exc:
        raise _refused() from exc
    host = url.hostname
    if url.scheme != "http" or host not in LOOPBACK or url.path != "/callback" or "@" in url.netloc:
        raise _refused()
    netloc = host if port in {None, 80} else f"{host}:{port}"
    return urlunsplit(url._replace(netloc=netloc))


def _refused() -> BadRequest:
    return BadRequest("Invalid redirect_uri — expected http://localhost:<port>/callback")
