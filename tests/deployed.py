"""The service as it is deployed: a gunicorn of this checkout, in processes of its own."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

REPO = Path(__file__).parents[1]


# Below the ports that systems give to outgoing connections (from 32768 on Linux, 49152 elsewhere):
# a port of those may be taken by a test's own client before the server has bound it.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a port of the loopback that nothing listens on.

    Raises:
        OSError: A hundred ports in a row are taken.
    """
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port on the loopback")


def gunicorn(
    environ: Mapping[str, str],
    log: Path,
    *arguments: str,
    folder: Path = REPO,
    new_session: bool = False,
    script: bool = False,
) -> subprocess.Popen[bytes]:
    """Start ``gunicorn app:app``.

    Args:
        environ: All of its variables.
        log: Where to put what it says; begun anew.
        arguments: Its own, in the place of ``app:app``.
        folder: Where it is started.
        new_session: Whether it leads a process group, which can be killed as a whole.
        script: Whether the installed script is run, which alone can start itself anew (USR2).
    """
    here = Path(sys.executable)
    program = [str(here.with_name("gunicorn"))] if script else [sys.executable, "-m", "gunicorn"]
    with log.open("wb") as out:
        return subprocess.Popen(
            [*program, *(arguments or ["app:app"])],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=new_session,
        )


def wait_for(happens: Callable[[], bool], within: float = 90.0) -> None:
    """Wait until something is so, for some seconds at most."""
    until = time.monotonic() + within
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.02)


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let a gunicorn end, and kill it if it does not; its workers end when it is gone."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
