"""Settings of gunicorn; ``gunicorn --config python:litellm_plugin.gunicorn_conf`` needs no more.

In a checkout ``gunicorn app:app`` finds them by itself, by way of ``gunicorn.conf.py``. Why they
are what they are, with measurements: benchmarks/README.md.
"""

import atexit
import gc
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
    # Requests wait for LiteLLM most of the time, so threads do what processes would.
    worker_class = "gthread"
    threads = 16
else:
    # Before anything of the service is imported: preload_app imports it here.
    monkey.patch_all()
    # A greenlet takes over from another one for half of what a thread costs.
    worker_class = "litellm_plugin.server.worker.Worker"

# Where each worker counts for all, before observability/metrics.py is imported,
# and empty at first. An operator who sets it has made the folder; one of ours is that of the
# master that this one was started by (USR2), which removes it.
_OURS = "litellm-plugin-metrics-"
if Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", _OURS)).name.startswith(_OURS):

    def _remove(folder: str, owner: int) -> None:
        if os.getpid() == owner:  # workers end the same way
            shutil.rmtree(folder, ignore_errors=True)

    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=_OURS)
    atexit.register(_remove, os.environ["PROMETHEUS_MULTIPROC_DIR"], os.getpid())

# Makes the memory by which a write in one worker is known to all: here, before they are forked,
# even where somebody switches preload_app off.
import litellm_plugin.cache.stamps  # noqa: E402, F401

# JSON, a line for each request, with its id.
logger_class = "litellm_plugin.server.access_log.Logger"

# What is served where the command line names nothing else.
wsgi_app = "litellm_plugin.wsgi:load()"

bind = os.environ.get("LITELLM_PLUGIN_BIND", "127.0.0.1:5000")

# The configuration is read once, before the workers are made: a fault in it
# ends gunicorn with its own exit status instead of restarting workers for ever.
preload_app = True

# One for each core.
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))

# Above litellm.service.timeouts.total, so that a slow LiteLLM is answered for
# by us and not by a killed worker.
timeout = 90
graceful_timeout = 45

# A way in for the same user that nobody asked for, in their home folder: it may be read-only.
control_socket_disable = True

# No client may say where the application is mounted: by default a SCRIPT_NAME header
# would, from this host's own addresses, where a sidecar proxy hands headers on.
forwarder_headers = ""

# Users in many groups have long tokens, which Backstage takes: Node's limit is that of all
# headers. Of 16 KiB a token is read, and not beyond.
limit_request_field_size = 16 * 1024 + 512
limit_request_fields = 64

# Longer than a reverse proxy keeps an idle connection (60 s in nginx): the side
# that sends the request must be the one that closes, or requests are lost.
keepalive = 75


def _plugin_of(application: Any) -> Any:
    """Return the plugin that an application serves; None where it is another one."""
    return getattr(application, "extensions", {}).get("litellm_plugin")


def when_ready(server: Any) -> None:
    """Serve the metrics, if the application says where."""
    from litellm_plugin.server import metrics_exporter as exporter  # noqa: PLC0415 - not before its folder is known

    plugin = _plugin_of(server.app.callable)
    if plugin is not None and plugin.settings.service.metrics_bind is not None:
        host, port = plugin.settings.service.metrics_bind
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
        # After USR2 the master before has the address, until it ends.
        exporter.start(host, port, folder, wait=server.master_pid != 0)


def on_reload(server: Any) -> None:
    """Read the service's configuration again (HUP); keep the one before where it is faulty."""
    application = server.app
    if _plugin_of(application.callable) is None:
        return  # another application, or each worker reads for itself
    name = application.app_uri.partition(":")[0]
    module = sys.modules.pop(name)  # app.py makes the application when it is imported
    try:
        application.callable = application.load()
    except (Exception, SystemExit) as exc:
        sys.modules[name] = module
        server.log.error("The configuration is kept as it was: the new one is faulty (%s)", exc)
        return
    server.log.info("The configuration was read again")
    gc.unfreeze()  # or what was there before would stay for good


def pre_fork(server: object, worker: object) -> None:  # noqa: ARG001 - gunicorn's names
    """Keep the garbage collector from what workers have in common, or each would copy it all."""
    gc.collect()
    gc.freeze()


def pre_request(worker: Any, req: Any) -> None:  # noqa: ARG001 - gunicorn's names
    """Let the connection end with a request whose body is not read to its end.

    Nobody knows then whether it was valid, and where the next request begins. gunicorn would
    look for that one in it, and answer what it finds.
    """
    if getattr(req.body.reader, "length", None) == 0:
        return  # most have none
    wanted = req.should_close
    req.should_close = lambda: wanted() or not _read_whole(req.body)


def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:  # noqa: ARG001
    """Break the cycle that a request is in, which would be left to the garbage collector."""
    req.__dict__.pop("should_close", None)


def _read_whole(body: Any) -> bool:
    if getattr(body, "failed", False):
        return False
    reader = getattr(body.reader, "reader", body.reader)  # within that of worker.py
    # One with a length counts what is left of it; one of chunks has no parser after the last.
    left = reader.length if hasattr(reader, "length") else getattr(reader, "parser", True)
    return not left


def post_worker_init(worker: Any) -> None:
    """Fetch Backstage's keys at once: when the first token comes, Backstage may be away."""
    plugin = _plugin_of(worker.wsgi)
    if plugin is not None:
        Thread(target=plugin.authenticator.prepare, name="keys", daemon=True).start()


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's names
    """Forget what only a living worker can tell."""
    from litellm_plugin.observability import metrics  # noqa: PLC0415

    metrics.process_ended(worker.pid)


def post_fork(server: object, worker: object) -> None:  # noqa: ARG001 - gunicorn's names
    """Let the garbage collector look at what a worker makes less often; send its spans.

    LiteLLM's answers are thousands of objects without a cycle among them, which
    come and go by themselves.
    """
    from litellm_plugin.observability import request_id  # noqa: PLC0415

    if request_id.has_spans():
        # The thread that sends spans is each worker's own.
        from litellm_plugin.observability import tracing as spans  # noqa: PLC0415 - an extra

        spans.export()
    gc.set_threshold(50_000, 20, 50)
