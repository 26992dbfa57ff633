"""Checks of LiteLLM: reachable, a supported version, the master key."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlsplit

from litellm_plugin.cli.checks import Result, failed, ok, warning
from litellm_plugin.cli.checks.reasons import described, json_of, origin_of
from litellm_plugin.cli.world import World
from litellm_plugin.clients.http import Answer, NoAnswerError
from litellm_plugin.clients.litellm_version import OLDEST, is_too_old
from litellm_plugin.errors import UpstreamError

_READINESS = "/health/readiness"
WHY_NOT_OLDER = "an older one returns everybody's usage when asked for one user's."


def answers(world: World) -> Result:
    """Check that LiteLLM answers at ``litellm.baseUrl``, and has a database."""
    base_url = world.settings.base_url
    url = base_url + _READINESS
    answer = world.request("LiteLLM", url, tells_time=True, setting="litellm.baseUrl")
    health = _health(answer)
    if health is None:
        return _something_else(world, answer)
    if not answer.ok:
        return failed(
            f"{base_url} says that it is not ready ({answer.status}).",
            "See LiteLLM's log; it may have lost its database.",
        )
    if health.get("db") not in {None, "connected"}:
        return failed(
            f"{base_url} is LiteLLM without a database.",
            "Set LiteLLM's DATABASE_URL: users, keys and teams are in the database.",
        )
    return ok(base_url)


def _something_else(world: World, answer: Answer) -> Result:
    base_url = world.settings.base_url
    found = f"{base_url} is not LiteLLM's API: {described(answer)}."
    todo = " to the address of the proxy itself, without /v1 or /ui."
    location, root = answer.headers.get("Location", ""), origin_of(base_url)
    if location.endswith(_READINESS):
        todo = f": {location.removesuffix(_READINESS)}"
    elif urlsplit(base_url).path.strip("/"):
        with suppress(NoAnswerError):
            if _health(world.request("LiteLLM", root + _READINESS)) is not None:
                todo = f": LiteLLM answers at {root}, without a path."
    return failed(found, f"Correct litellm.baseUrl{todo}")


def _health(answer: Answer) -> dict[str, object] | None:
    """Return LiteLLM's health; None if the answer is not LiteLLM's."""
    health = json_of(answer)
    if isinstance(health, dict) and ("status" in health or "db" in health):
        return health
    return None


def version(world: World) -> Result:
    """Check that LiteLLM's version is supported, and report its edition."""
    litellm = world.plugin.litellm
    try:
        found, licence = litellm.version(document=True), litellm.license()
    except UpstreamError as exc:
        return warning(f"LiteLLM's version is unknown ({exc.message}).", "Ask LiteLLM's operators.")
    if licence is None:
        edition = "unknown edition"
    elif licence.get("has_license"):
        expires = licence.get("expiration_date") or "not set"
        edition = f"licensed ({licence.get('license_type')}, expiry {expires})"
    else:
        edition = "community edition (writes no audit log)"
    too_old = None if found is None else is_too_old(found)
    if too_old is None:
        return warning(
            f"Version {found or 'unknown'}, {edition}.",
            f"Make sure that it is {OLDEST} or newer: {WHY_NOT_OLDER}",
        )
    if too_old:
        return failed(
            f"{found}, {edition}: not supported.",
            f"Update LiteLLM to {OLDEST} or newer: {WHY_NOT_OLDER}",
        )
    return ok(f"{found} (supported: {OLDEST} and newer), {edition}")


_USE_MASTER_KEY = "Use LiteLLM's master key (general_settings.master_key, LITELLM_MASTER_KEY)."


def master_key(world: World) -> Result:
    """Check that ``litellm.masterKey`` is LiteLLM's own, or a key of an admin."""
    litellm, role = world.plugin.litellm, None
    try:
        key = litellm.own_key()
    except UpstreamError as exc:
        if exc.answered == 401:
            return failed(
                "LiteLLM does not accept litellm.masterKey (401).",
                "Set it to the value of LiteLLM's own general_settings.master_key "
                "(LITELLM_MASTER_KEY); config check shows the source of yours.",
            )
        if exc.answered == 403:
            found = "litellm.masterKey is a key that may not manage LiteLLM (403)."
            return failed(found, _USE_MASTER_KEY)
        found = f"LiteLLM does not return the owner of litellm.masterKey: {exc.message}"
        return failed(found, "Try again.")
    if key is None:
        return ok("LiteLLM's master key")
    user_id = key.get("user_id")
    with suppress(UpstreamError):
        account = litellm.account(user_id) if isinstance(user_id, str) else None
        role = account.info.get("user_role") if account else None
    name = key.get("key_alias") or key.get("key_name")
    what = f"litellm.masterKey is the virtual key {name} of {user_id or 'no user'}"
    if role == "proxy_admin_viewer":
        return failed(f"{what}, an admin who may only read ({role}).", _USE_MASTER_KEY)
    if role != "proxy_admin":
        return failed(f"{what}, not an admin ({role or 'no role'}).", _USE_MASTER_KEY)
    if key.get("expires"):
        return warning(
            f"{what}, an admin, and expires on {key['expires']}.",
            "Use LiteLLM's master key, which does not expire.",
        )
    return ok(f"{what}, an admin")
