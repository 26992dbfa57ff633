"""Checks of the configuration's warnings, Redis, clocks and the ingress."""

from __future__ import annotations

from urllib.parse import urlsplit

from litellm_plugin.cli.checks import Result, failed, ok, skipped, warning
from litellm_plugin.cli.checks.backstage import has_key, key_set
from litellm_plugin.cli.checks.reasons import described, explained_redis, is_page, json_of
from litellm_plugin.cli.world import World
from litellm_plugin.clients.http import UNAVAILABLE, Answer
from litellm_plugin.plugin import cache_fault

ODD, WRONG = 10.0, 60.0  # seconds; tokens are checked without tolerance
REDIS_PORT = 6379  # the default of a URL
KEYS = "/.backstage/auth/v1/jwks.json"
BIG = "/openapi.json"  # an answer that an ingress compresses


def configuration(world: World) -> Result:
    """Report warnings about the configuration; a fault has ended the command before."""
    if world.warnings:
        return warning("; ".join(world.warnings) + ".", "config check shows the file of each key.")
    return ok("No faults")


def shared_cache(world: World) -> Result:
    """Check that the Redis or Valkey of ``backend.cache`` answers, if configured."""
    cache = world.settings.cache
    if cache.connection is None:
        return skipped("backend.cache is not redis or valkey: hosts do not share a cache")
    parts = urlsplit(cache.connection)
    where = f"{parts.hostname}:{parts.port or REDIS_PORT}{parts.path}"
    fault = cache_fault(world.settings)
    if fault is None:
        return ok(f"{cache.store} at {where}")
    reason, todo = explained_redis(fault, "backend.cache.connection")
    return failed(
        f"{cache.store} at {where}: {reason}.",
        f"{todo} Until then each worker caches and counts for itself.",
    )


def clocks(world: World) -> Result:
    """Check that the clocks of this host, LiteLLM and Backstage agree."""
    ahead = {name: world.clocks[name] for name in ("LiteLLM", "Backstage") if name in world.clocks}
    if not ahead:
        return skipped("Neither LiteLLM nor Backstage sent a Date header")
    worst = max(abs(seconds) for seconds in ahead.values())
    if worst < ODD:
        return ok(f"{' and '.join(ahead)}: within {ODD:.0f} seconds of this host")
    told = ", ".join(f"{name} is {_difference(seconds)}" for name, seconds in ahead.items())
    same = len(ahead) > 1 and max(ahead.values()) - min(ahead.values()) < ODD
    whose = "this host" if same else "the host with the wrong time"
    judge = failed if worst >= WRONG else warning
    return judge(
        f"The clocks differ: {told}.",
        f"Set the clock of {whose} by NTP: the service checks the times of tokens without "
        "tolerance, and would refuse valid ones.",
    )


def _difference(ahead: float) -> str:
    if abs(ahead) < ODD:
        return "right"
    seconds = round(abs(ahead))
    text = f"{seconds} s" if seconds < 120 else f"{round(seconds / 60)} min"
    return f"{text} {'ahead' if ahead > 0 else 'behind'}"


def ingress(world: World) -> Result:
    """Check that requests and answers pass the ingress unchanged."""
    if world.url is None:
        return skipped("Only with --url URL, such as https://.../api/litellm")
    url = world.url.rstrip("/")
    published = world.request("the ingress", url + KEYS, setting="--url")
    if published.status == 401 and world.user_token is None:
        return warning(
            f"{url} needs credentials before it asks the service: usually Backstage's proxy.",
            "Pass a user's token with --token-file.",
        )
    keys = key_set(published)
    if keys is None and published.status != 401:
        return _leads_elsewhere(url, published)
    if keys is not None and world.keys and not has_key(keys, world.keys.signing.public()):
        return failed(
            f"{url} leads to a service with another signing key than this configuration's.",
            "Let the ingress send requests to this service.",
        )
    plugin_id = world.settings.service.plugin_id
    return _with_token(world, url, world.user_token or world.plugin_token(plugin_id))


def _with_token(world: World, url: str, token: str) -> Result:
    headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "gzip"}
    answer = world.request("the ingress", url + BIG, headers=headers, setting="--url")
    if answer.status == 401:
        return failed(
            f"{url} answers 401 to a valid token: {_message(answer)}.",
            "Let the ingress pass Authorization on unchanged (Backstage's proxy: credentials: "
            "forward). Or the token of --token-file is invalid.",
        )
    if not answer.ok:
        return failed(f"{url}{BIG}: {described(answer)}.", "Let the ingress pass every path on.")
    return _headers(world, url, answer)


def _leads_elsewhere(url: str, answer: Answer) -> Result:
    if answer.status in UNAVAILABLE:
        return failed(
            f"{url} does not lead to this service at present: {described(answer)}.",
            "Check the ingress's target: that it runs, and that its address is right.",
        )
    to = "the frontend answers there" if is_page(answer) else described(answer)
    return failed(
        f"{url} does not lead to this service: {to}.",
        "Let the ingress send /api/litellm/ to this service, before it sends /api/ to Backstage.",
    )


def _headers(world: World, url: str, answer: Answer) -> Result:
    odd, todo = [], []
    if "ETag" not in answer.headers and world.settings.opencode.enabled:
        odd.append("headers of answers are dropped (no ETag)")
        todo.append(
            "Let the proxy pass Location (Backstage's proxy: allowedHeaders: [Location]), "
            "which /opencode/connect needs"
        )
    if "Content-Encoding" not in answer.headers:
        odd.append("answers are not compressed")
        todo.append("Let the ingress compress application/json")
    if odd:
        return warning(
            f"{url} leads to this service and passes Authorization, but {' and '.join(odd)}.",
            f"{'. '.join(todo)}.",
        )
    return ok(
        f"{url}: leads to this service, passes Authorization and headers, and compresses answers"
    )


def _message(answer: Answer) -> str:
    match json_of(answer):
        case {"error": {"message": str(message)}}:
            return message
    return described(answer)
