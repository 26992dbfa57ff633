"""Checks of LiteLLM: reachable, a supported version, the master key."""

from __future__ import annotations

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
    base_url, setting = world.settings.base_url, "Correct litellm.baseUrl"
    found = f"{base_url} is not LiteLLM's API: {described(answer)}."
    location = answer.headers.get("Location", "")
    if location.endswith(_READINESS):
        return failed(found, f"{setting}: {location.removesuffix(_READINESS)}")
    root = origin_of(base_url)
    if urlsplit(base_url).path.strip("/"):
        try:
            if _health(world.request("LiteLLM", root + _READINESS)) is not None:
                return failed(found, f"{setting}: LiteLLM answers at {root}, without a path.")
        except NoAnswerError:
            pass
    return failed(found, f"{setting} to the address of the proxy itself, without /v1 or /ui.")


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
    edition = "unknown edition"
    if licence is not None:
        expires = licence.get("expiration_date") or "not set"
        edition = (
            f"licensed ({licence.get('license_type')}, expiry {expires})"
            if licence.get("has_license")
            else "community edition (writes no audit log)"
        )
    too_old = None if found is None else is_too_old(found)
    if found is None or too_old is None:
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


def master_key(world: World) -> Result:
    """Check that ``litellm.masterKey`` is LiteLLM's own, or a key of an admin."""
    try:
        key = world.plugin.litellm.own_key()
    except UpstreamError as exc:
        return _refused(exc)
    if key is None:
        return ok("LiteLLM's master key")
    user_id = key.get("user_id")
    role = _role(world, user_id)
    name = key.get("key_alias") or key.get("key_name")
    what = f"litellm.masterKey is the virtual key {name} of {user_id or 'no user'}"
    if role == "proxy_admin":
        if key.get("expires"):
            return warning(
                f"{what}, an admin, and expires on {key['expires']}.",
                "Use LiteLLM's master key, which does not expire.",
            )
        return ok(f"{what}, an admin")
    instead = "Use LiteLLM's master key (general_settings.master_key, LITELLM_MASTER_KEY)."
    if role == "proxy_admin_viewer":
        return failed(f"{what}, an admin who may only read ({role}).", instead)
    return failed(f"{what}, not an admin ({role or 'no role'}).", instead)


def _role(world: World, user_id: object) -> str | None:
    if not isinstance(user_id, str):
        return None
    try:
        account = world.plugin.litellm.account(user_id)
    except UpstreamError:
        return None
    role = account.info.get("user_role") if account else None
    return role if isinstance(role, str) else None


def _refused(exc: UpstreamError) -> Result:
    if exc.answered == 401:
        return failed(
            "LiteLLM does not accept litellm.masterKey (401).",
            "Set it to the value of LiteLLM's own general_settings.master_key "
            "(LITELLM_MASTER_KEY); config check shows the source of yours.",
        )
    if exc.answered == 403:
        return failed(
            "litellm.masterKey is a key that may not manage LiteLLM (403).",
            "Use LiteLLM's master key (general_settings.master_key, LITELLM_MASTER_KEY).",
        )
    return failed(
        f"LiteLLM does not return the owner of litellm.masterKey: {exc.message}", "Try again."
    )
