"""Checks of Backstage: reachable, finds this service, accepts its tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from litellm_plugin.cli.checks import Result, Status, failed, ok, skipped, warning
from litellm_plugin.cli.checks.reasons import described, explained, is_page, json_of
from litellm_plugin.cli.world import World
from litellm_plugin.clients.http import Answer, NoAnswerError
from litellm_plugin.config.settings import JwksAccess
from litellm_plugin.errors import BackstageUnavailable
from litellm_plugin.identity.jwt import KeyFormatError, PublicKey
from litellm_plugin.identity.keycloak import realm_keys_url
from litellm_plugin.identity.plugin_token import plugin_keys_url
from litellm_plugin.identity.signing import key_file
from litellm_plugin.identity.user_token import user_keys_url

_WHERE = "litellm.service.backstageUrl, backend.baseUrl or discovery.endpoints"
_UNKNOWN_USER = "/entities/by-name/user/default/litellm-plugin-doctor"
_RESTRICTION = "{plugin: catalog, permission: catalog.entity.read}"


def answers(world: World) -> Result:
    """Check that a Backstage backend answers at the catalog's URL."""
    url = world.settings.discovery.base_url("catalog")
    answer = world.request("Backstage", url + _UNKNOWN_USER, tells_time=True, setting=_WHERE)
    error = _error_of(answer)
    if error is None:
        return _no_backend(url, answer, "catalog")
    if answer.status == 401:
        return ok(f"The catalog answers at {url}")
    if answer.status == 404:
        return warning(
            f"The catalog at {url} answers without credentials.",
            "Remove backend.auth.dangerouslyDisableDefaultAuthPolicy from Backstage.",
        )
    return failed(f"The catalog at {url} fails: {answer.status} {error}.", "See Backstage's log.")


def permission_answers(world: World) -> Result:
    """Check that Backstage has a permission API, if ``permission.enabled``."""
    if not world.settings.permission_enabled:
        return skipped("permission.enabled is false: every signed-in user is allowed everything")
    url = world.settings.discovery.base_url("permission")
    answer = _ask_permission(world, url)
    if _error_of(answer) is not None and answer.status != 404:
        return ok(f"The permission API answers at {url}")
    if is_page(answer) or answer.status != 404:
        return _no_backend(url, answer, "permission")
    return failed(
        f"Backstage has no permission backend at {url} (404), and permission.enabled is true here.",
        "Add @backstage/plugin-permission-backend to Backstage, or set permission.enabled: false "
        "here and there. Until then every permission is denied.",
    )


def _ask_permission(world: World, url: str, headers: Mapping[str, str] | None = None) -> Answer:
    return world.request(
        "Backstage",
        f"{url}/authorize",
        method="POST",
        headers=headers,
        body={"items": []},
        setting=_WHERE,
    )


def _no_backend(url: str, answer: Answer, plugin: str) -> Result:
    found = f"{url} is not Backstage's {plugin}: {described(answer)}."
    if is_page(answer):
        return failed(
            found,
            "This is the frontend, or a proxy in front of it. Set litellm.service.backstageUrl "
            "to the address of the backend (the port of backend.listen, usually 7007).",
        )
    if location := answer.headers.get("Location"):
        return failed(
            found, f"Redirects are not followed: write the right address ({location}) in {_WHERE}."
        )
    return failed(found, f"Correct {_WHERE}: write the backend's address, without /api.")


def _error_of(answer: Answer) -> str | None:
    """Return the message of a Backstage error; None if the answer is none."""
    match json_of(answer):
        case {"error": {"message": str(message)}, "response": {"statusCode": int()}}:
            return message
    return None


# -- keys ----------------------------------------------------------------------


def user_keys(world: World) -> Result:
    """Check that the key set of users' tokens can be read."""
    return _keys(
        world,
        user_keys_url(world.settings.discovery),
        empty="Backstage makes its key when the first user signs in: sign in once. If you have, "
        f"this is another Backstage: correct {_WHERE}.",
        otherwise=f"Correct {_WHERE}: until then every user's token is refused.",
    )


def other_keys(world: World) -> Result:
    """Check that the key sets of the bridge and of external access can be read."""
    bridge, urls = world.settings.bridge, {}
    if bridge.enabled and bridge.issuer:
        urls[realm_keys_url(bridge.issuer)] = "litellm.bridge.issuer"
    for entry in world.settings.external_access:
        if isinstance(entry, JwksAccess):
            urls[entry.url] = "backend.auth.externalAccess"
    if not urls:
        return skipped("The configuration names no other issuer (bridge, external access)")
    results = [
        _keys(
            world,
            url,
            empty=f"Ask the issuer's operators, or correct {setting}.",
            otherwise=f"Correct {setting}: until then tokens of that issuer are refused.",
        )
        for url, setting in urls.items()
    ]
    return next((result for result in results if result.remedy), ok(", ".join(urls)))


def _keys(world: World, url: str, *, empty: str, otherwise: str) -> Result:
    try:
        answer = world.request("Backstage", url)
    except NoAnswerError as exc:
        return failed(f"{url}: {explained(exc, url)[0]}.", otherwise)
    keys = key_set(answer)
    if keys is None:
        return failed(f"There is no key set at {url}: {described(answer)}.", otherwise)
    if not keys:
        return warning(f"The key set at {url} is empty.", empty)
    return ok(f"{len(keys)} at {url}")


def key_set(answer: Answer) -> list[dict[str, Any]] | None:
    """Return the keys of a JSON Web Key Set; None if the answer is none."""
    body = json_of(answer)
    members = body.get("keys") if isinstance(body, dict) else None
    if not answer.ok or not isinstance(members, list):
        return None
    return [member for member in members if isinstance(member, dict)]


def has_key(keys: list[dict[str, Any]], ours: PublicKey) -> bool:
    """Return whether a key set has the key ``ours``."""
    for key in keys:
        with suppress(KeyFormatError):
            if PublicKey.from_jwk(key).as_jwk() == ours.as_jwk():
                return True
    return False


def plugin_key(world: World) -> Result:
    """Check that there is a key to sign plugin tokens with."""
    if world.key_fault is not None:
        return failed(
            world.key_fault, "Run this as the user of the service, or fix the file as described."
        )
    if world.keys is None:
        path = key_file(world.settings, os.environ)
        there = next(folder for folder in path.parents if folder.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            return failed(
                f"The service will store its plugin key in {path}, and this user can't write to "
                f"{there}.",
                "Run this as the user of the service; or let that user write there; or set "
                "litellm.service.keyFile or XDG_STATE_HOME to another folder that is kept.",
            )
        return warning(
            "There is no plugin key on this host yet; the service makes it at its first start.",
            "Start the service first, as this user and with this configuration; then try again.",
        )
    signing, *others = (key.kid for key in world.keys.published)
    also = f"; also publishes {', '.join(map(str, others))}" if others else ""
    return ok(f"Signs as {world.settings.service.plugin_id}, key {signing}{also}")


# -- Backstage finds this service ----------------------------------------------


def finds_us(world: World) -> Result:
    """Check that ``discovery.endpoints`` leads to this service: its key set is there."""
    service = world.settings.service
    url = plugin_keys_url(world.settings.discovery, service.plugin_id)
    result = _published(world, url)
    if result.status is not Status.FAILED:
        return result
    if service.backstage_token is not None:
        needless = "Only other plugins need this, as backstageToken is set."
        return warning(result.found, f"{needless} {result.remedy}")
    with suppress(BackstageUnavailable):
        # Backstage may reach the service by another way than this host.
        _shows_a_user(world)
        return ok(f"Backstage accepts this key, although this host does not find it at {url}")
    return result


def _published(world: World, url: str) -> Result:
    plugin_id = world.settings.service.plugin_id
    named = any({plugin_id, "*"} & {*each.plugins} for each in world.settings.discovery.endpoints)
    where = "" if named else "discovery.endpoints does not name this service, and "
    entry = (
        f"Add {{target: <where this service is>/api/litellm, plugins: [{plugin_id}]}} to "
        "discovery.endpoints, of Backstage's configuration too."
    )
    correct = "Correct the target in discovery.endpoints: it ends in /api/litellm."
    try:
        answer = world.request("Backstage", url)
    except NoAnswerError as exc:
        start = "Start the service first; if it runs, correct the target in discovery.endpoints."
        return failed(f"{url}: {explained(exc, url)[0]}.", start if named else entry)
    published = key_set(answer)
    if not published:
        what = described(answer) if published is None else "it has no keys"
        found = f"{where}{url} is not this service's key set: {what}."
        return failed(found, correct if named else entry)
    if world.keys is None:
        return failed(
            f"The service at {url} has a signing key, and this host has none.",
            "Run this on the service's host, as its user.",
        )
    ours = world.keys.signing.public()
    missing = [str(key.kid) for key in world.keys.published if not has_key(published, key)]
    if not missing:
        return ok(f"{url} has this configuration's key")
    if has_key(published, ours):
        return warning(
            f"{url} lacks {', '.join(missing)} of this configuration's keys.",
            "Reload every replica with this configuration before another key becomes the first.",
        )
    if not named:
        return failed(
            f"{where}{url} has other keys: usually those of the npm plugin.",
            f"{entry} The npm plugin must not be mounted under the same id.",
        )
    others = ", ".join(str(key.get("kid")) for key in published)
    return failed(
        f"{url} has other keys ({others}) than this configuration's ({ours.kid}).",
        "If it is this service: run this as its user, on its host. Several hosts need a common key "
        "(backend.auth.pluginKeyStore), and a new key signs only after every replica publishes it. "
        "Otherwise correct the target in discovery.endpoints.",
    )


# -- Backstage accepts this service's tokens -----------------------------------


def _shows_a_user(world: World) -> bool:
    return any(world.plugin.catalog.refs("user"))


def catalog_accepts_us(world: World) -> Result:
    """Check that the catalog accepts the service's token."""
    static = world.settings.service.backstage_token is not None
    try:
        shows_a_user = _shows_a_user(world)
    except BackstageUnavailable as exc:
        return _refused(world, exc, static=static)
    if not shows_a_user:
        return warning(
            "The catalog accepts the token and shows no user: it has none, or hides them.",
            f"Add {_RESTRICTION} to the token's accessRestrictions."
            if static
            else "Check that the catalog has users.",
        )
    return ok("Accepted: " + ("the static token" if static else "a plugin token"))


def _refused(world: World, exc: BackstageUnavailable, *, static: bool) -> Result:
    plugin_id = world.settings.service.plugin_id
    if static and exc.answered == 401:
        return failed(
            "Backstage does not know litellm.service.backstageToken (401).",
            "Add the same token to backend.auth.externalAccess of Backstage, with "
            f"accessRestrictions: [{_RESTRICTION}].",
        )
    if static and exc.answered == 403:
        return failed(
            "Backstage knows litellm.service.backstageToken, and it may not ask the catalog (403).",
            f"Add {_RESTRICTION} to its accessRestrictions in Backstage.",
        )
    if exc.answered != 401:
        return failed(f"The catalog failed: {exc.message}.", "See Backstage's log.")
    url = plugin_keys_url(world.settings.discovery, plugin_id)
    return failed(
        f"Backstage refuses our plugin token (401), although {url} has its key.",
        f"Backstage looks elsewhere: add the entry for {plugin_id} to discovery.endpoints of "
        "Backstage's own configuration, check that Backstage can reach its target, and that the "
        "npm plugin is not mounted.",
    )


def permission_accepts_us(world: World) -> Result:
    """Check that the permission API accepts the service's plugin token."""
    settings = world.settings
    if settings.service.backstage_token is not None:
        return skipped(
            "Not needed: with backstageToken the permission API is asked with users' tokens"
        )
    url, token = settings.discovery.base_url("permission"), world.plugin_token("permission")
    answer = _ask_permission(world, url, {"Authorization": f"Bearer {token}"})
    # 403: the token is valid, and the permission API decides about users only.
    if answer.ok or answer.status == 403:
        return ok("Accepted, for requests on behalf of users")
    if answer.status == 401:
        return failed(
            "The permission API refuses our plugin token (401), and the catalog accepts it.",
            "If permission is a backend of its own, add discovery.endpoints to its configuration.",
        )
    return failed(f"The permission API answered {answer.status}.", "See Backstage's log.")
