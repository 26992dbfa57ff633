"""Settings of gunicorn, for ``gunicorn --config python:litellm_plugin.gunicorn_conf``.

In a checkout ``gunicorn app:app`` finds them through ``gunicorn.conf.py``. Measurements are in
benchmarks/README.md.
"""

import atexit
import gc
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from threading import Thread
from typing import Any

try:
    from gevent import monkey
except ImportError:
    # Threads suffice, as requests wait for LiteLLM most of the time.
    worker_class = "gthread"
    threads = 16
else:
    # Before anything of the service is imported: preload_app imports it here.
    monkey.patch_all()
    # A switch between greenlets costs half of one between threads.
    worker_class = "litellm_plugin.server.worker.Worker"

# The folder of the workers' metrics must exist, empty, before observability/metrics.py is imported.
# One that an operator has set is used. One with our prefix belongs to the master that started this
# one (USR2) and removes it, so a new one is made.
_OURS = "litellm-plugin-metrics-"
if Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", _OURS)).name.startswith(_OURS):

    def _remove(folder: str, owner: int) -> None:
        if os.getpid() == owner:  # workers run this, too
            shutil.rmtree(folder, ignore_errors=True)

    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=_OURS)
    atexit.register(_remove, os.environ["PROMETHEUS_MULTIPROC_DIR"], os.getpid())

# Makes the shared memory by which a write in one worker invalidates entries in all, before they
# are forked, even where preload_app is off.
import litellm_plugin.cache.stamps  # noqa: E402, F401

# JSON, one line for each request.
logger_class = "litellm_plugin.server.access_log.Logger"

# Used where the command line names no application.
wsgi_app = "litellm_plugin.wsgi:load()"

bind = os.environ.get("LITELLM_PLUGIN_BIND", "127.0.0.1:5000")

# The configuration is read once, before the workers are forked, so that a fault ends gunicorn
# with its own exit status instead of restarting workers for ever.
preload_app = True

# One for each core.
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))

# Above litellm.service.timeouts.total, so that a slow LiteLLM makes an error answer and not a
# killed worker.
timeout = 90
graceful_timeout = 45

# gunicorn's control socket is off: the home folder, where it would be, may be read-only.
control_socket_disable = True

# By default a SCRIPT_NAME header from this host's addresses, such as one that a sidecar proxy
# passes on, would set the path that the application is mounted at. No client may do that.
forwarder_headers = ""

# The tokens of users in many groups are long. Up to 16 KiB are read, as much as Node, and so
# Backstage, reads of all headers.
limit_request_field_size = 16 * 1024 + 512
limit_request_fields = 64

# Longer than a reverse proxy keeps an idle connection (60 s in nginx). The side that sends
# requests must be the one that closes, or requests are lost.
keepalive = 75


def _plugin_of(application: Any) -> Any:
    """Return the plugin of an application; None where it has none."""
    return getattr(application, "extensions", {}).get("litellm_plugin")


def when_ready(server: Any) -> None:
    """Serve the metrics, where an address for them is configured."""
    from litellm_plugin.server import metrics_exporter as exporter  # noqa: PLC0415 - needs the folder

    plugin = _plugin_of(server.app.callable)
    if plugin is not None and plugin.settings.service.metrics_bind is not None:
        host, port = plugin.settings.service.metrics_bind
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
        # After USR2 the old master has the address until it ends.
        exporter.start(host, port, folder, wait=server.master_pid != 0)


def on_reload(server: Any) -> None:
    """Read the service's configuration again (HUP); keep the old one where the new is faulty."""
    application = server.app
    if _plugin_of(application.callable) is None:
        return  # another application, or no preload_app: each worker reads the configuration
    name = application.app_uri.partition(":")[0]
    module = sys.modules.pop(name)  # app.py makes the application when it is imported
    try:
        application.callable = application.load()
    except (Exception, SystemExit) as exc:
        sys.modules[name] = module
        # Before it ends with SystemExit, wsgi.load has logged the problems.
        why = "" if isinstance(exc, SystemExit) else f" ({exc})"
        server.log.error("The configuration is kept as it was: the new one is faulty%s", why)
        return
    server.log.info("The configuration was read again")
    gc.unfreeze()  # or the old application would never be freed


def pre_fork(server: object, worker: object) -> None:  # noqa: ARG001 - gunicorn's names
    """Exempt objects from garbage collection, which would make each worker copy shared memory."""
    gc.collect()
    gc.freeze()


def pre_request(worker: Any, req: Any) -> None:
    """Decide once, when the answer's headers are made, whether to close the connection after it.

    It is closed if the worker is stopping; gunicorn decides that before it calls the application,
    so a worker that is stopped meanwhile would lose the client's next request. It is also closed if
    the body was not read to its end: gunicorn 23 takes the rest of a body that could not be read
    for the next request, and later versions read on, however long the rest is.
    """
    wanted = req.should_close
    decided: list[bool] = []

    def should_close() -> bool:
        if not decided:
            decided.append(wanted() or not worker.alive or not _read_whole(req.body))
        return decided[0]

    req.should_close = should_close


def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:  # noqa: ARG001
    """Break the request's reference cycle, which would be left to the garbage collector."""
    req.__dict__.pop("should_close", None)


def _read_whole(body: Any) -> bool:
    if getattr(body, "failed", False):
        return False
    reader = getattr(body.reader, "reader", body.reader)  # worker.py may have wrapped it
    # A reader with a length counts down; one of chunks has no parser after the last chunk.
    left = reader.length if hasattr(reader, "length") else getattr(reader, "parser", True)
    return not left


def post_worker_init(worker: Any) -> None:
    """Fetch Backstage's keys now: Backstage may be down when the first token comes."""
    plugin = _plugin_of(worker.wsgi)
    if plugin is not None:
        # At the start the first worker's warning is enough for all of them.
        level = logging.DEBUG if 1 < worker.age <= worker.cfg.workers else logging.WARNING
        prefetch = plugin.authenticator.user_keys.prefetch
        Thread(target=prefetch, args=(level,), name="keys", daemon=True).start()


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's names
    """Remove the gauges of a worker that has ended."""
    from litellm_plugin.observability import metrics  # noqa: PLC0415

    metrics.process_ended(worker.pid)


def post_fork(server: object, worker: object) -> None:  # noqa: ARG001 - gunicorn's names
    """Begin to send spans, and collect garbage less often.

    LiteLLM's answers are thousands of objects without reference cycles, which need no collection.
    """
    from litellm_plugin.observability import request_id  # noqa: PLC0415

    if request_id.has_spans():
        # Each worker needs a sending thread of its own.
        from litellm_plugin.observability import tracing as spans  # noqa: PLC0415 - an extra

        spans.export()
    gc.set_threshold(50_000, 20, 50)
