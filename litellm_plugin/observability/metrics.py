"""The metrics, in prometheus_client's default registry; docs/operations.md explains each.

Labels have few values: a route is the URL rule, never a path, and no user is named.

Under gunicorn ``PROMETHEUS_MULTIPROC_DIR`` must be set before this module is imported:
prometheus_client keeps a file for each process there.
"""

from __future__ import annotations

import os
from datetime import datetime
from functools import cache

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.multiprocess import mark_process_dead

from litellm_plugin.errors import Forbidden, NotAllowed, NotAuthenticated, PluginError

REASONS = (
    *("permission", "group", "membership", "ownership", "ceiling"),
    *("switched-off", "no-user", "token-restriction", "leaver", "other"),
)
KINDS = ("missing", "user", "plugin", "external", "bridge")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = Histogram(
    "litellm_plugin_request_duration_seconds",
    "Requests answered, and how long that took.",
    ("method", "route", "status"),
    buckets=SECONDS,
)
UPSTREAM = Histogram(
    "litellm_plugin_upstream_duration_seconds",
    "Calls to LiteLLM and Backstage, and how long they took; status none: no answer.",
    ("upstream", "method", "status"),
    buckets=SECONDS,
)
CIRCUITS_OPEN = Gauge(
    "litellm_plugin_upstream_left_alone",
    "Workers whose circuit breaker is open: they ask the upstream once a second only.",
    ("upstream",),
    multiprocess_mode="livesum",
)
READY = Gauge(
    "litellm_plugin_ready",
    "What the last /readyz answered: 1 ready, 0 not.",
    multiprocess_mode="livemostrecent",
)
CACHE = Counter(
    "litellm_plugin_cache_reads",
    "Reads: hit (from the cache), shared (with another read under way), miss (LiteLLM or "
    "Backstage was asked), stale (from an older entry, because LiteLLM is down).",
    ("kind", "result"),
)
PROVISIONING = Counter(
    "litellm_plugin_provisioning",
    "First visits, by result: created, existed, failed.",
    ("result",),
)
DENIALS = Counter(
    "litellm_plugin_denials", "Requests of known callers that were denied, by reason.", ("reason",)
)
TOKEN_FAILURES = Counter(
    "litellm_plugin_token_failures",
    "Requests without valid credentials, by their kind.",
    ("kind",),
)
RATE_LIMITED = Counter("litellm_plugin_rate_limited", "Requests refused by a rate limit.")
AUDIT_EVENTS = Counter(
    "litellm_plugin_audit_events",
    "Audit events: stored, or lost: only in the log, as the database was unavailable for too long.",
    ("result",),
)
# Not "job", which is a label of Prometheus's own.
JOB_SUCCESS = Gauge(
    "litellm_plugin_job_last_success_timestamp_seconds",
    "When a job last succeeded, as the store has it; dry runs don't count.",
    ("name",),
    multiprocess_mode="max",
)
JOB_FAILURE = Gauge(
    "litellm_plugin_job_last_failure_timestamp_seconds",
    "When a run of a job last failed, or was found to be killed.",
    ("name",),
    multiprocess_mode="max",
)
BUILD = Gauge(
    "litellm_plugin_build_info",
    "1, and the version of the service.",
    ("version",),
    multiprocess_mode="max",
)

# Cached, because the look-up in labels() takes longer than counting.
_request = cache(REQUESTS.labels)
_upstream = cache(UPSTREAM.labels)
_cache = cache(CACHE.labels)
_denial = cache(DENIALS.labels)


def started(version: str) -> None:
    """Set the version of the service, and begin counters at 0."""
    BUILD.labels(version).set(1)
    # Without the 0, Prometheus would not see the first count as an increase.
    for counter, values in (
        (PROVISIONING, ("created", "existed", "failed")),
        (DENIALS, REASONS),
        (TOKEN_FAILURES, KINDS),
        (AUDIT_EVENTS, ("stored", "lost")),
    ):
        for value in values:
            counter.labels(value)


def answered(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request that was answered."""
    _request(method if method in METHODS else "other", route, status).observe(seconds)


def upstream_call(name: str, method: str, status: int | None, seconds: float) -> None:
    """Count a call to an upstream; ``status`` is None where it did not answer."""
    label = f"{status // 100}xx" if status else "none"
    _upstream(name.lower(), method, label).observe(seconds)


def circuit_open(name: str, is_open: bool) -> None:
    """Count a worker whose circuit breaker for an upstream opens or closes."""
    CIRCUITS_OPEN.labels(name.lower()).inc(1 if is_open else -1)


def cache_read(kind: str, result: str) -> None:
    """Count a read: ``hit``, ``shared``, ``miss`` or ``stale``."""
    _cache(kind, result).inc()


def first_visit(result: str) -> None:
    """Count a first visit: ``created``, ``existed`` or ``failed``."""
    PROVISIONING.labels(result).inc()


def audit_events(result: str, number: int) -> None:
    """Count audit events that were ``stored``, or ``lost``."""
    AUDIT_EVENTS.labels(result).inc(number)


def refused(error: PluginError) -> None:
    """Count an error if it is a denial, a token failure or a rate limit."""
    if isinstance(error, Forbidden | NotAllowed | NotAuthenticated):
        _denial(error.reason).inc()
    elif error.status == 401:
        TOKEN_FAILURES.labels(getattr(error, "kind", "other")).inc()
    elif error.status == 429:
        RATE_LIMITED.inc()


def job_ended(job: str, at: str, *, succeeded: bool) -> None:
    """Set the time of a job's last success or failure; ``at`` is ISO 8601, in UTC."""
    gauge = JOB_SUCCESS if succeeded else JOB_FAILURE
    gauge.labels(job).set(datetime.fromisoformat(at).timestamp())


def process_ended(pid: int) -> None:
    """Remove the gauges of a worker that has ended."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
