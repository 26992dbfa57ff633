"""Who is asking: the one place that decides about a Backstage token.

The order is Backstage's own. A kind of token that recognises the credential
decides about it; what it refuses is not tried as another kind.

1. ``typ`` is that of a plugin token.
2. ``typ`` is that of a user or limited user token, or is any other one and
   ``aud`` is the text ``backstage``, as in old user tokens.
3. ``backend.auth.externalAccess``, entry by entry.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from threading import Lock

from litellm_plugin.config.settings import (
    Discovery,
    ExternalAccess,
    JwksAccess,
    LegacyAccess,
    Settings,
    StaticAccess,
)
from litellm_plugin.errors import NotAllowed, NotVerifiable, Unauthenticated
from litellm_plugin.identity.jose import (
    ASYMMETRIC,
    Claims,
    SharedSecret,
    TokenError,
    UnverifiedToken,
    audiences,
    b64url,
    check_times,
    encode_json,
    parse,
)
from litellm_plugin.identity.jwks import Fetch, FixedKeys, KeySet, KeySource, NoKeysError
from litellm_plugin.identity.principal import Principal, ServicePrincipal, UserPrincipal
from litellm_plugin.identity.signing import PLUGIN_TYP, PluginKeys

log = logging.getLogger(__name__)

USER_TYP = "vnd.backstage.user"
LIMITED_TYP = "vnd.backstage.limited-user"
USER_AUDIENCE = "backstage"

MAX_PLUGINS = 100  # whose keys are kept
MAX_STRANGERS = 4  # whose keys are being read at the same time

_BEARER = re.compile(r"Bearer +(\S+)", re.IGNORECASE)
_PLUGIN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # becomes part of a URL
_DISCOVERY = "discovery.endpoints, litellm.service.backstageUrl or backend.baseUrl"
_BOTH_TIMES = ("iat", "exp")


class OtherAudience(TokenError):
    """The token is for another plugin."""


def user_keys_url(discovery: Discovery) -> str:
    """Return where Backstage publishes the keys that it signs user tokens with."""
    return f"{discovery.base_url('auth')}/.well-known/jwks.json"


def plugin_keys_url(discovery: Discovery, plugin: str) -> str:
    """Return where ``plugin`` publishes the keys that it signs plugin tokens with."""
    return f"{discovery.base_url(plugin)}/.backstage/auth/v1/jwks.json"


class Authenticator:
    """Tells who holds a credential. Safe to share between threads.

    Args:
        settings: Discovery, external access and the plugin's own id.
        fetch: Fetches key sets.
        own_keys: The service's own keys.
        clock: Tells the Unix time in seconds.
        timer: Tells the time in seconds for the age of keys; must never go back.
    """

    def __init__(
        self,
        settings: Settings,
        fetch: Fetch,
        own_keys: PluginKeys,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        def key_set(url: str, setting: str = _DISCOVERY) -> KeySet:
            return KeySet(url, fetch, setting=setting, timer=timer)

        discovery = settings.discovery
        self._plugin_id = settings.service.plugin_id
        self._clock = clock
        self._user_keys = key_set(user_keys_url(discovery))
        self._plugin_keys = _PluginKeySets(
            lambda plugin: key_set(plugin_keys_url(discovery, plugin))
        )
        self._own_keys = FixedKeys(own_keys.published)
        self._external = [
            (entry, _external_check(entry, key_set, clock)) for entry in settings.external_access
        ]

    @property
    def user_keys_url(self) -> str:
        """Where Backstage's public keys are."""
        return self._user_keys.url

    def load_user_keys(self) -> bool:
        """Make sure that users' tokens can be verified.

        Returns:
            Whether Backstage had to be asked for its keys.

        Raises:
            NoKeysError: It never told them, nor does it now.
        """
        return self._user_keys.load()

    def authenticate(
        self, authorization: str | None, *, allow_limited: bool = False, suspect: bool = False
    ) -> Principal:
        """Return the principal behind an Authorization header.

        Args:
            authorization: The header's value; None where there is none.
            allow_limited: Whether a limited user token will do.
            suspect: Whether too many tokens of the same origin did not hold. Then nothing
                counts that could be guessed, and no keys of a plugin are asked for.

        Raises:
            Unauthenticated: There are no credentials, or they do not hold.
            NotAllowed: They are restricted to other plugins.
        """
        bearer = _BEARER.fullmatch((authorization or "").strip(" \t"))
        if bearer is None:
            raise Unauthenticated("Missing credentials")
        credential = bearer[1]
        token = _parsed(credential)
        if token is not None and token.typ == PLUGIN_TYP:
            with _counted_as("plugin"):
                return self._plugin(token, suspect=suspect)
        if token is not None and _is_user_token(token):
            with _counted_as("user"):
                return self._user(token, allow_limited=allow_limited)
        with _counted_as("external"):
            return self._service(credential, token, suspect=suspect)

    def _user(
        self, token: UnverifiedToken, *, allow_limited: bool = True, actor: str | None = None
    ) -> UserPrincipal:
        typed = token.typ in {USER_TYP, LIMITED_TYP}
        try:
            claims = self._verified(token, self._user_keys, _BOTH_TIMES if typed else ())
            if typed and "sub" not in claims:
                raise TokenError("'sub' is missing")
            subject = claims.get("sub") or ""
            if not isinstance(subject, str):
                raise TokenError("'sub' is no text")
        except TokenError as exc:
            exc.in_obo = actor is not None
            log.info("A user token is refused: %s", exc)
            unknown = isinstance(exc, NoKeysError)
            refused = NotVerifiable if unknown else Unauthenticated
            raise refused("Failed user token verification") from exc
        if not subject:
            raise Unauthenticated("No user sub found in token")
        limited = token.typ == LIMITED_TYP
        if limited and not allow_limited:
            raise Unauthenticated("Illegal limited user token")
        if "exp" not in claims:
            raise Unauthenticated("User token is missing expiration")
        return UserPrincipal(
            entity_ref=subject,
            token=None if limited or actor else token.text,
            limited_token=limited_token(token, claims),
            expires_at=float(claims["exp"]),
            actor=actor,
        )

    def _plugin(self, token: UnverifiedToken, *, suspect: bool) -> Principal:
        try:
            source = _unverified_source(token)
            keys = self._keys_of(source, suspect=suspect)
            claims = self._verified(token, keys, _BOTH_TIMES)
            if self._plugin_id not in audiences(claims):
                raise OtherAudience("it is for another plugin")
        except TokenError as exc:
            log.info("A plugin token is refused: %s", exc)
            raise Unauthenticated("Failed plugin token verification") from exc
        subject = f"plugin:{source}"
        behalf = claims.get("obo")
        if behalf is None or behalf == "":
            return ServicePrincipal(subject)
        user = _parsed(behalf) if isinstance(behalf, str) else None
        if user is None or not _is_user_token(user):
            raise Unauthenticated("Invalid user token in plugin token obo claim")
        return self._user(user, actor=subject)

    def _keys_of(self, plugin: str, *, suspect: bool) -> KeySource:
        if plugin == self._plugin_id:
            return self._own_keys
        if suspect and plugin not in self._plugin_keys:
            raise TokenError("it is of a plugin whose keys are not at hand")
        try:
            return self._plugin_keys.of(plugin)
        except NoKeysError as exc:
            raise _no_jwks(plugin) from exc

    def _service(
        self, credential: str, token: UnverifiedToken | None, *, suspect: bool
    ) -> ServicePrincipal:
        for entry, check in self._external:
            if suspect and not isinstance(entry, JwksAccess):
                continue
            subject = check(credential, token)
            if subject is not None:
                return self._within_restrictions(entry, subject)
        raise Unauthenticated("Illegal token")

    def _within_restrictions(self, entry: ExternalAccess, subject: str) -> ServicePrincipal:
        if entry.restrictions is None:
            return ServicePrincipal(subject)
        ours = tuple(each for each in entry.restrictions if each.plugin == self._plugin_id)
        if not ours:
            plugins = ", ".join(f"'{each.plugin}'" for each in entry.restrictions)
            raise NotAllowed(f"This token's access is restricted to plugin(s) {plugins}")
        return ServicePrincipal(subject, ours)

    def _verified(
        self, token: UnverifiedToken, keys: KeySource, required: Collection[str]
    ) -> Claims:
        # An old token is no reason to fetch keys, so its times come first.
        check_times(token.unverified_claims, self._clock(), required=required)
        return keys.key_for(token).verify(token, ASYMMETRIC)


@contextmanager
def _counted_as(kind: str) -> Iterator[None]:
    """Let refusals tell what kind of credentials it was that did not hold."""
    try:
        yield
    except Unauthenticated as exc:
        exc.kind = kind
        raise


def limited_token(token: UnverifiedToken, claims: Claims) -> str | None:
    """Return the limited token that a user token holds the signature of.

    It is written exactly as Backstage wrote it when it signed: these members,
    in this order, without spaces.

    Args:
        token: A user token, or a limited one, which is its own.
        claims: Its claims.

    Returns:
        The limited token; None where the user token has no ``uip``.
    """
    if token.typ == LIMITED_TYP or not token.typ:
        return token.text
    signature = claims.get("uip")
    if token.typ != USER_TYP or not isinstance(signature, str) or not signature:
        return None
    header = {"typ": LIMITED_TYP}
    header.update({name: token.header[name] for name in ("alg", "kid") if name in token.header})
    payload = {name: claims[name] for name in ("sub", "iat", "exp")}
    return ".".join((b64url(encode_json(header)), b64url(encode_json(payload)), signature))


class _PluginKeySets:
    """The key sets of other plugins; beyond ``MAX_PLUGINS``, the least used are forgotten.

    Anybody can make up plugin ids. So only sets that could be read are kept, and reading
    those of strangers takes no more than some of the places where Backstage is asked.
    """

    def __init__(self, key_set: Callable[[str], KeySet]) -> None:
        self._key_set = key_set
        self._lock = Lock()
        self._kept: OrderedDict[str, KeySet] = OrderedDict()
        self._tried: dict[str, KeySet] = {}  # by those who are reading them right now

    def __contains__(self, plugin: str) -> bool:
        """Tell whether the key set of ``plugin`` is at hand."""
        with self._lock:
            return plugin in self._kept

    def of(self, plugin: str) -> KeySet:
        """Return the key set of ``plugin``.

        Raises:
            NoKeysError: It can't be read.
        """
        with self._lock:
            if plugin in self._kept:
                self._kept.move_to_end(plugin)
                return self._kept[plugin]
            if plugin not in self._tried and len(self._tried) >= MAX_STRANGERS:
                raise NoKeysError("the keys of too many other plugins are being read")
            key_set = self._tried.setdefault(plugin, self._key_set(plugin))
        try:
            key_set.load()
            with self._lock:
                self._kept[plugin] = key_set
                if len(self._kept) > MAX_PLUGINS:
                    self._kept.popitem(last=False)
        finally:
            with self._lock:
                self._tried.pop(plugin, None)
        return key_set


def _parsed(credential: str) -> UnverifiedToken | None:
    try:
        return parse(credential)
    except TokenError:
        return None


def _is_user_token(token: UnverifiedToken) -> bool:
    if token.typ in (USER_TYP, LIMITED_TYP):
        return True
    try:
        return token.unverified_claims.get("aud") == USER_AUDIENCE
    except TokenError:
        return False


def _unverified_source(token: UnverifiedToken) -> str:
    """Return the id of the plugin that a plugin token claims to be of."""
    claims = token.unverified_claims
    if "sub" not in claims:
        raise _no_jwks("undefined")  # as JavaScript names what is absent
    source = claims["sub"]
    if source == "":
        raise Unauthenticated("Invalid plugin token: missing subject")
    if not isinstance(source, str) or not _PLUGIN_ID.fullmatch(source):
        raise Unauthenticated("Invalid plugin token: forbidden subject format")
    return source


def _no_jwks(plugin: str) -> Unauthenticated:
    return Unauthenticated(
        f"Received a plugin token where the source '{plugin}' plugin unexpectedly does not have "
        "a JWKS endpoint. The target plugin needs to be migrated to be installed in an app using "
        "the new backend system."
    )


_Check = Callable[[str, UnverifiedToken | None], str | None]
"""Takes a credential, and the token it may be; gives the subject, or None where it is not its."""


def _external_check(
    entry: ExternalAccess,
    key_set: Callable[[str, str], KeySet],
    clock: Callable[[], float],
) -> _Check:
    match entry:
        case StaticAccess():
            return _StaticCheck(entry)
        case LegacyAccess():
            return _LegacyCheck(entry, clock)
        case JwksAccess():
            keys = key_set(entry.url, "the url of backend.auth.externalAccess")
            return _JwksCheck(entry, keys, clock)


class _StaticCheck:
    def __init__(self, entry: StaticAccess) -> None:
        self._subject = entry.subject
        self._digest = _digest(entry.token)

    def __call__(self, credential: str, _token: UnverifiedToken | None) -> str | None:
        # Digests have one length, so the time taken tells nothing of the token's.
        return self._subject if hmac.compare_digest(_digest(credential), self._digest) else None


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()


class _LegacyCheck:
    def __init__(self, entry: LegacyAccess, clock: Callable[[], float]) -> None:
        self._subject = entry.subject
        self._secret = SharedSecret.from_bytes(entry.secret)
        self._clock = clock

    def __call__(self, _credential: str, token: UnverifiedToken | None) -> str | None:
        if token is None or token.alg != "HS256":
            return None
        try:
            claims = token.unverified_claims
            if claims.get("sub") != "backstage-server" or claims.get("aud"):
                return None
            self._secret.verify(token)
        except TokenError:
            return None
        try:
            check_times(claims, self._clock(), required=())
        except TokenError as exc:
            log.info("A token of %r is refused: %s", self._subject, exc)
            raise Unauthenticated("Failed external token verification") from exc
        return self._subject


class _JwksCheck:
    def __init__(self, entry: JwksAccess, keys: KeySet, clock: Callable[[], float]) -> None:
        self._entry = entry
        self._keys = keys
        self._clock = clock

    def __call__(self, _credential: str, token: UnverifiedToken | None) -> str | None:
        if token is None:
            return None
        try:
            claims = self._verified(token)
        except TokenError as exc:
            log.info("A token is not one of %s: %s", self._entry.url.partition("?")[0], exc)
            return None
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            return None
        return ":".join(filter(None, ("external", self._entry.subject_prefix, subject)))

    def _verified(self, token: UnverifiedToken) -> Claims:
        entry, claims = self._entry, token.unverified_claims
        if entry.issuers and claims.get("iss") not in entry.issuers:
            raise TokenError("it is of another issuer")
        if entry.audiences and audiences(claims).isdisjoint(entry.audiences):
            raise TokenError("it is for another audience")
        check_times(claims, self._clock(), required=())
        return self._keys.key_for(token).verify(token, entry.algorithms or ASYMMETRIC)
