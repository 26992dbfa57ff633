"""Checks of Backstage: is it there, does it find us, does it believe us."""

from __future__ import annotations

from itertools import islice

from litellm_plugin.cli.checks import Result, failed, ok, skipped, warning
from litellm_plugin.cli.checks.reasons import described, is_page, remedy, why
from litellm_plugin.cli.world import World
from litellm_plugin.clients.http import Answer, NoAnswerError
from litellm_plugin.config.settings import JwksAccess
from litellm_plugin.errors import BackstageUnavailable
from litellm_plugin.identity.jwt import KeyFormatError, PublicKey
from litellm_plugin.identity.keycloak import realm_keys_url
from litellm_plugin.identity.plugin_token import plugin_keys_url
from litellm_plugin.identity.signing import PluginTokens
from litellm_plugin.identity.user_token import user_keys_url

_WHERE = "litellm.service.backstageUrl, backend.baseUrl or discovery.endpoints"
_NOBODY = "/entities/by-name/user/default/litellm-plugin-doctor"
_RESTRICTION = "{plugin: catalog, permission: catalog.entity.read}"


def answers(world: World) -> Result:
    """Tell whether a Backstage backend answers where the catalog is said to be."""
    url = world.settings.discovery.base_url("catalog")
    try:
        answer = world.look("Backstage", url + _NOBODY, tells_time=True)
    except NoAnswerError as exc:
        return failed(f"{url}: {why(exc)}.", remedy(exc, _WHERE))
    error = _error_of(answer)
    if error is None:
        return _no_backend(url, answer, "catalog")
    if answer.status == 401:
        return ok(f"The catalog answers at {url}")
    if answer.status in {200, 404}:
        return warning(
            f"The catalog at {url} answers anybody, without credentials.",
            "Remove backend.auth.dangerouslyDisableDefaultAuthPolicy from Backstage.",
        )
    return failed(
        f"The catalog at {url} fails: {answer.status} {error}.", "Look into Backstage's log."
    )


def permission_answers(world: World) -> Result:
    """Tell whether there is a permission API."""
    if not world.settings.permission_enabled:
        return skipped("permission.enabled is false: every signed-in user is allowed everything")
    url = world.settings.discovery.base_url("permission")
    try:
        answer = world.look("Backstage", f"{url}/authorize", method="POST", body={"items": []})
    except NoAnswerError as exc:
        return failed(f"{url}: {why(exc)}.", remedy(exc, _WHERE))
    if _error_of(answer) is not None and answer.status != 404:
        return ok(f"The permission API answers at {url}")
    if is_page(answer) or answer.status != 404:
        return _no_backend(url, answer, "permission")
    return failed(
        f"Backstage has no permission backend at {url} (404), and permission.enabled is true here.",
        "Add @backstage/plugin-permission-backend to Backstage, or set permission.enabled: false "
        "here and there; as it is, nobody is allowed anything.",
    )


def _no_backend(url: str, answer: Answer, plugin: str) -> Result:
    found = f"{url} is not Backstage's {plugin}: {described(answer)}."
    if is_page(answer):
        return failed(
            found,
            "This is the frontend, or what stands in front of it. Let litellm.service.backstageUrl "
            "be the address of the backend (the port of backend.listen, 7007 mostly).",
        )
    if location := answer.headers.get("Location"):
        return failed(
            found, f"Redirects are not followed: name the right one in {_WHERE} ({location})."
        )
    return failed(found, f"Correct {_WHERE}: it has to be the backend's address, without /api.")


def _error_of(answer: Answer) -> str | None:
    """Return the message of an error of Backstage's HTTP layer; None where it is none."""
    try:
        body = answer.json()
    except ValueError:
        return None
    match body:
        case {"error": {"message": str(message)}, "response": {"statusCode": int()}}:
            return message
    return None


# -- keys ----------------------------------------------------------------------


def user_keys(world: World) -> Result:
    """Tell whether the keys are there that users' tokens are checked with."""
    url = user_keys_url(world.settings.discovery)
    return _keys(
        world,
        "Backstage",
        url,
        empty="Backstage makes its key when the first user signs in: sign in once. If you have, "
        f"this is another Backstage: check {_WHERE}.",
        otherwise=f"No user's token can be checked. Check {_WHERE}.",
    )


def other_keys(world: World) -> Result:
    """Tell whether the key sets of the bridge and of external access can be read."""
    settings, urls = world.settings, []
    if settings.bridge.enabled and settings.bridge.issuer:
        urls.append((realm_keys_url(settings.bridge.issuer), "litellm.bridge.issuer"))
    urls += [
        (entry.url, "backend.auth.externalAccess")
        for entry in settings.external_access
        if isinstance(entry, JwksAccess)
    ]
    if not urls:
        return skipped("Neither the bridge nor external access names any")
    results = [
        _keys(
            world,
            "Backstage",
            url,
            empty=f"Ask the issuer, or check {setting}.",
            otherwise=f"Check {setting}: tokens of that issuer are refused.",
        )
        for url, setting in dict(urls).items()
    ]
    return next((result for result in results if result.remedy), ok(", ".join(dict(urls))))


def _keys(world: World, name: str, url: str, *, empty: str, otherwise: str) -> Result:
    try:
        answer = world.look(name, url)
    except NoAnswerError as exc:
        return failed(f"{url}: {why(exc)}.", otherwise)
    keys = key_ids(answer)
    if keys is None:
        return failed(f"There is no key set at {url}: {described(answer)}.", otherwise)
    if not keys:
        return warning(f"The key set at {url} is empty.", empty)
    return ok(f"{len(keys)} at {url}")


def key_ids(answer: Answer) -> list[str | None] | None:
    """Return the ids of the keys in a key set; None where the answer is none."""
    try:
        body = answer.json()
    except ValueError:
        return None
    members = body.get("keys") if isinstance(body, dict) else None
    if not answer.ok or not isinstance(members, list):
        return None
    return [member.get("kid") if isinstance(member, dict) else None for member in members]


def plugin_key(world: World) -> Result:
    """Tell whether there is a key to sign plugin tokens with."""
    if world.key_fault is not None:
        return failed(
            world.key_fault, "Run this as the user that the service runs as, or do what it says."
        )
    if world.keys is None:
        return warning(
            "There is no plugin key on this host yet; the service makes it at its first start.",
            "Start the service first, as this user and with this configuration; then look again.",
        )
    return ok(f"Signs as {world.settings.service.plugin_id}, key {world.keys.signing.kid}")


# -- does Backstage find us ----------------------------------------------------


def finds_us(world: World) -> Result:
    """Tell whether Backstage finds this service, by the key set that it finds there."""
    settings = world.settings
    plugin_id = settings.service.plugin_id
    url = plugin_keys_url(settings.discovery, plugin_id)
    own = not any({plugin_id, "*"} & {*entry.plugins} for entry in settings.discovery.endpoints)
    result = _published(world, url, own=own)
    if result.remedy is None:
        return result
    if settings.service.backstage_token is None and _catalog_believes(world):
        # Its way to us need not be ours.
        return ok(f"Backstage believes this key; from here {url} is another matter")
    if settings.service.backstage_token is not None:
        return warning(
            result.found, f"The catalog is asked with backstageToken; the rest: {result.remedy}"
        )
    return result


def _published(world: World, url: str, *, own: bool) -> Result:
    plugin_id = world.settings.service.plugin_id
    entry = (
        f"Add {{target: <where this service is>/api/litellm, plugins: [{plugin_id}]}} to "
        "discovery.endpoints, of Backstage's configuration too."
    )
    start = "Start the service first; if it runs, correct the target in discovery.endpoints."
    try:
        answer = world.look("Backstage", url)
    except NoAnswerError as exc:
        return failed(f"{url}: {why(exc)}.", entry if own else start)
    published = key_ids(answer)
    where = "discovery.endpoints does not name this service, and " if own else ""
    if published is None:
        return failed(
            f"{where}{url} is not this service's key set: {described(answer)}.",
            entry if own else "Correct the target in discovery.endpoints: it ends in /api/litellm.",
        )
    if world.keys is None:
        return failed(
            f"What answers at {url} signs with another key than this host's, which has none.",
            "Run this where, and as whom, the service runs.",
        )
    if not published:
        return failed(
            f"{where}{url} has no keys at all, so it is not this service that answers.",
            entry if own else "Correct the target in discovery.endpoints.",
        )
    ours = world.keys.signing.public()
    if same_key(answer, ours):
        return ok(f"{url} has this configuration's key")
    if own:
        return failed(
            f"{where}what answers at {url} has other keys: the npm plugin, mostly.",
            f"{entry} The npm plugin must not be mounted under the same id.",
        )
    return failed(
        f"{url} has other keys ({', '.join(str(kid) for kid in published)}) than this "
        f"configuration's ({ours.kid}).",
        "If it is this service: run this as its user, on its host. Several hosts need one key "
        "(backend.auth.pluginKeyStore). Else correct the target in discovery.endpoints.",
    )


def same_key(answer: Answer, ours: PublicKey) -> bool:
    """Tell whether a key set has this very key."""
    for member in answer.json()["keys"]:
        try:
            if PublicKey.from_jwk(member).as_jwk() == ours.as_jwk():
                return True
        except (KeyFormatError, AttributeError):
            continue
    return False


# -- does Backstage believe us -------------------------------------------------


def _users_seen(world: World) -> list[str]:
    return world.once("users seen", lambda: list(islice(world.plugin.catalog.refs("user"), 1)))


def _catalog_believes(world: World) -> bool:
    try:
        _users_seen(world)
    except BackstageUnavailable:
        return False
    return True


def catalog_believes_us(world: World) -> Result:
    """Tell whether the catalog takes our token."""
    static = world.settings.service.backstage_token is not None
    try:
        users = _users_seen(world)
    except BackstageUnavailable as exc:
        return _refused_static(exc) if static else _refused_plugin(world, exc)
    if not users:
        return warning(
            "The catalog takes the token and shows no user: it has none, or not for this token.",
            f"Let accessRestrictions of the token have {_RESTRICTION}."
            if static
            else "Look whether users are in the catalog.",
        )
    return ok("Taken: " + ("the static token" if static else "a plugin token"))


def _refused_static(exc: BackstageUnavailable) -> Result:
    if exc.answered == 401:
        return failed(
            "Backstage does not know litellm.service.backstageToken (401).",
            "Put the same token into backend.auth.externalAccess of Backstage, with "
            f"accessRestrictions: [{_RESTRICTION}].",
        )
    if exc.answered == 403:
        return failed(
            "Backstage knows litellm.service.backstageToken, and it may not ask the catalog (403).",
            f"Let its accessRestrictions in Backstage have {_RESTRICTION}.",
        )
    return failed(f"The catalog failed: {exc.message}.", "Look into Backstage's log.")


def _refused_plugin(world: World, exc: BackstageUnavailable) -> Result:
    plugin_id = world.settings.service.plugin_id
    if exc.answered != 401:
        return failed(f"The catalog failed: {exc.message}.", "Look into Backstage's log.")
    if world.keys is None:
        return skipped("There is no plugin key on this host yet to be believed", "plugin-key")
    url = plugin_keys_url(world.settings.discovery, plugin_id)
    return failed(
        f"Backstage refuses our plugin token (401), although {url} has its key.",
        f"Backstage looks elsewhere: put the entry for {plugin_id} into discovery.endpoints of "
        "Backstage's own configuration, see that Backstage reaches its target, and that the npm "
        "plugin is not mounted.",
    )


def permission_believes_us(world: World) -> Result:
    """Tell whether the permission API takes our plugin token, as far as it takes services."""
    settings = world.settings
    if settings.service.backstage_token is not None:
        return skipped("Not needed with backstageToken: it is asked with users' own tokens")
    if world.keys is None:
        return skipped("There is no plugin key on this host yet to be believed", "plugin-key")
    token = PluginTokens(world.keys, settings.service.plugin_id).issue("permission")
    url = settings.discovery.base_url("permission")
    try:
        answer = world.look(
            "Backstage",
            f"{url}/authorize",
            method="POST",
            headers={"Authorization": f"Bearer {token}"},
            body={"items": []},
        )
    except NoAnswerError as exc:
        return failed(f"{url}: {why(exc)}.", remedy(exc, _WHERE))
    # It knows us, and decides about users only.
    if answer.ok or answer.status == 403:
        return ok("Taken, to ask on behalf of users")
    if answer.status == 401:
        return failed(
            "The permission API refuses our plugin token (401), which the catalog takes.",
            "Where permission is a backend of its own, put discovery.endpoints there, too.",
        )
    return failed(f"The permission API answered {answer.status}.", "Look into Backstage's log.")
