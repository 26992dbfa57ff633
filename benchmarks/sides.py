"""The two sides and what they need: started, asked for tokens, watched and ended.

One Backstage serves both. The npm plugin is mounted in it as ``litellm``; our service runs beside
it as the plugin ``litellm-flask`` and asks the same Backstage for key sets, catalog entities and
permissions. So both have the same tokens, the same people and the same policy.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

HERE = Path(__file__).parent
REPO = HERE.parent

MOUNT = "/api/litellm"
PLUGIN_ID = "litellm-flask"
MASTER_KEY = "sk-rig-master"
USER_ID_DOMAIN = "example.com"

INSTALLING = 1200.0  # seconds; Backstage's first start on a new machine
STARTING = 60.0
STOPPING = 10.0

_TICKS = os.sysconf("SC_CLK_TCK")


class UnusableError(Exception):
    """Something that the benchmark needs is not there, or did not start."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens, on the loopback."""

    upstream: int = 4407
    service: int = 5407
    bare: int = 5408
    backstage: int = 7407
    keycloak: int = 7480


PORTS = Ports()

# What serves our side, and the bare route; ``--python`` names another one.
python = sys.executable


# -- processes ---------------------------------------------------------------


def tree(root: int) -> list[int]:
    """Return the ids of a process and of all below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have used, in seconds; one that has ended counts 0."""
    stats = [fields for pid in pids if (fields := _stat(pid))]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / _TICKS


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of some processes in MiB.

    Attributes:
        rss: What is in memory; what processes share is counted each time.
        pss: The same, what they share counted once.
        peak: The most that each has had in memory, added up.
    """

    rss: float
    pss: float
    peak: float


def memory(pids: Iterable[int]) -> Memory:
    """Return the memory of processes, as the kernel counts it."""
    rss = pss = peak = 0
    for pid in pids:
        folder = Path("/proc") / str(pid)
        rss += _kilobytes(folder / "smaps_rollup", "Rss")
        pss += _kilobytes(folder / "smaps_rollup", "Pss")
        peak += _kilobytes(folder / "status", "VmHWM")
    return Memory(rss / 1024, pss / 1024, peak / 1024)


def _kilobytes(file: Path, name: str) -> int:
    lines = (line.split() for line in file.read_text().splitlines())
    return next(int(line[1]) for line in lines if line[0] == f"{name}:")


def _stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` from ``state`` on; None where it has ended."""
    try:
        text = (Path("/proc") / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTING
    while True:
        try:
            if requests.get(url, timeout=2).status_code == 200:
                return
        except requests.RequestException:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise UnusableError(
                f"{url} does not answer:\n{log.read_text(errors='replace')[-3000:]}"
            )
        time.sleep(0.05)


@contextmanager
def _running(
    command: Sequence[str], url: str, log: Path, *, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a server; yields its process id once ``url`` answers."""
    try:
        requests.get(url, timeout=2)
    except requests.RequestException:
        pass
    else:
        raise UnusableError(f"{url}: something is there already")
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(url, process, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# -- LiteLLM, as both sides see it -------------------------------------------


class Upstream:
    """The stand-in, or a relay to the real one: a program of this folder in a process of its own.

    Attributes:
        url: Without a path.
        pid: Of the process.
    """

    def __init__(self, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = pid
        self._session = requests.Session()

    def calls(self) -> dict[str, int]:
        """Return how often each path was asked for, such as ``GET /user/info``."""
        paths: dict[str, int] = self._session.get(f"{self.url}/__calls").json()["paths"]
        return paths

    def delay(self, milliseconds: float) -> None:
        """Let every answer wait from now on."""
        self._session.post(f"{self.url}/__delay?ms={milliseconds}").raise_for_status()


@contextmanager
def upstream(
    folder: Path, *arguments: str, program: str = "upstream.py", ports: Ports = PORTS
) -> Iterator[Upstream]:
    """Run the stand-in, or what else counts calls.

    Args:
        folder: For its log.
        arguments: Of the program, beside the port.
        program: A file of this folder.
        ports: Where.
    """
    command = [sys.executable, str(HERE / program), "--port", str(ports.upstream), *arguments]
    ready = f"http://127.0.0.1:{ports.upstream}/__calls"
    with _running(command, ready, folder / "upstream.log", cwd=HERE) as pid:
        yield Upstream(ports.upstream, pid)


# -- Backstage, and the original in it ---------------------------------------


class Backstage:
    """The real one of ``../shared/backstage``.

    Args:
        port: Where it listens.
        pid: Of its process.
        keys: The folder with the keys it signs with.

    Attributes:
        url: Without a path.
    """

    def __init__(self, port: int, pid: int, keys: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = pid
        self._key_file = keys / "user.pem"

    def sign_in(self, name: str) -> str:
        """Return a user token that Backstage issues; it knows the user from then on."""
        headers = {"x-rig-user": f"user:default/{name}", "x-rig-uncatalogued": "true"}
        answer = requests.get(f"{self.url}/api/auth/rig/refresh", headers=headers, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["backstageIdentity"]["token"])

    def sign_all_in(self, names: Sequence[str]) -> list[str]:
        """Return a token for each name, as :meth:`sign_in` does."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self.sign_in, names))

    def signed(self, names: Iterable[str]) -> list[str]:
        """Return user tokens signed with Backstage's own key, without asking it.

        They are good for whatever takes a token's word. The permission API does not: it wants
        to have seen the user sign in.
        """
        key = load_pem_private_key(self._key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise UnusableError(f"{self._key_file} is no EC key")
        header = {"typ": "vnd.backstage.user", "alg": "ES256", "kid": "rig-user-key"}
        now = int(time.time())
        shared = {"iss": f"{self.url}/api/auth", "aud": "backstage", "iat": now, "exp": now + 7200}
        tokens = []
        for name in names:
            claims = {**shared, "sub": f"user:default/{name}"}
            text = f"{_segment(header)}.{_segment(claims)}"
            r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
            tokens.append(f"{text}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}")
        return tokens


@contextmanager
def backstage(shared: Path, folder: Path, ports: Ports = PORTS) -> Iterator[Backstage]:
    """Run Backstage with the npm plugin, which asks the upstream.

    Args:
        shared: The folder with the rigs.
        folder: For the configuration that maps our plugin id to our service.
        ports: Where.
    """
    rig = shared / "backstage"
    extra = folder / "app-config.discovery.yaml"
    extra.write_text(DISCOVERY.format(port=ports.service))
    env = {
        **os.environ,
        "BACKSTAGE_PORT": str(ports.backstage),
        "KEYCLOAK_PORT": str(ports.keycloak),
        "LITELLM_BASE_URL": f"http://127.0.0.1:{ports.upstream}",
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "LITELLM_USER_ID_DOMAIN": USER_ID_DOMAIN,
        "BACKSTAGE_CONFIG_EXTRA": str(extra),
    }
    env.pop("LITELLM_FLASK_URL", None)  # would take the npm plugin's place
    home = Path(env.get("BACKSTAGE_RIG") or Path.home() / ".cache" / "backstage-rig")
    try:
        run(rig / "up", env, INSTALLING)
        pid = int((home / "run" / str(ports.backstage) / "pid").read_text())
        yield Backstage(ports.backstage, pid, home / "keys")
    finally:
        run(rig / "down", env, STARTING, "--keycloak")


DISCOVERY = f"""\
discovery:
  endpoints:
    - target: http://127.0.0.1:{{port}}{MOUNT}
      plugins: [{PLUGIN_ID}]
"""


def run(program: Path, env: Mapping[str, str], limit: float, *arguments: str) -> None:
    """Run a program of a rig to its end.

    Args:
        program: Its path.
        env: Its whole environment.
        limit: Seconds it may take.
        arguments: What it is given.

    Raises:
        UnusableError: It failed.
    """
    # Into a file: what it starts in the background would hold a pipe open.
    done = subprocess.run(
        [str(program), *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=limit,
        check=False,
    )
    if done.returncode:
        raise UnusableError(f"{program} ended with status {done.returncode}")


def _segment(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# -- our service -------------------------------------------------------------


class Service:
    """A gunicorn with its workers.

    Attributes:
        url: Without a path.
        pid: Of the master.
    """

    def __init__(self, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = pid

    @property
    def workers(self) -> list[int]:
        """The ids of all processes but the master."""
        return [pid for pid in tree(self.pid) if pid != self.pid]


OVERLAY = """\
litellm:
  service:
    pluginId: {plugin_id}
    keyFile: {folder}/plugin-key.json
    # A few users ask as often as they can: that is what a limit is for.
    rateLimits: false
"""


@contextmanager
def service(
    shared: Path,
    folder: Path,
    checkout: Path,
    overlays: Sequence[Path] = (),
    ports: Ports = PORTS,
    arguments: Sequence[str] = (),
) -> Iterator[Service]:
    """Run our service as one would deploy it: ``gunicorn app:app``, Backstage's configuration.

    Args:
        shared: The folder with the rigs.
        folder: For its logs and its key.
        checkout: Where ``app.py`` and ``gunicorn.conf.py`` are.
        overlays: Further configuration files, the later ones winning.
        ports: Where.
        arguments: Of gunicorn.
    """
    rig = shared / "backstage"
    own, discovery = folder / "app-config.service.yaml", folder / "app-config.discovery.yaml"
    own.write_text(OVERLAY.format(plugin_id=PLUGIN_ID, folder=folder))
    discovery.write_text(DISCOVERY.format(port=ports.service))
    files = [rig / "app-config.yaml", discovery, own, *overlays]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LITELLM_PLUGIN_BIND": f"127.0.0.1:{ports.service}",
        "LITELLM_PLUGIN_CONFIG": ",".join(str(file.resolve()) for file in files),
        # As the rig sets them for Backstage.
        "RIG_SHARE": str(rig),
        "BACKSTAGE_PORT": str(ports.backstage),
        "KEYCLOAK_BASE": f"http://127.0.0.1:{ports.keycloak}",
        "LITELLM_BASE_URL": f"http://127.0.0.1:{ports.upstream}",
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "LITELLM_USER_ID_DOMAIN": USER_ID_DOMAIN,
    }
    command = [python, "-m", "gunicorn", *arguments, "app:app"]
    ready = f"http://127.0.0.1:{ports.service}{MOUNT}/.backstage/auth/v1/jwks.json"
    with _running(command, ready, folder / "service.log", cwd=checkout, env=env) as pid:
        yield Service(ports.service, pid)


@contextmanager
def bare(folder: Path, checkout: Path) -> Iterator[Service]:
    """Run ``bare.py`` with the service's own gunicorn settings."""
    env = {"PATH": os.environ["PATH"], "LITELLM_PLUGIN_BIND": f"127.0.0.1:{PORTS.bare}"}
    settings = checkout / "gunicorn.conf.py"
    command = [python, "-m", "gunicorn", "-c", str(settings), "bare:app"]
    ready = f"http://127.0.0.1:{PORTS.bare}{MOUNT}/health"
    with _running(command, ready, folder / "bare.log", cwd=HERE, env=env) as pid:
        yield Service(PORTS.bare, pid)


def introduce(backstage: Backstage, service: Service) -> None:
    """Let Backstage fetch our service's keys, which it does with the first request from it.

    It asks the service for them while the service waits for its answer, so this is nothing to
    begin with for as many requests as the service has threads.
    """
    bearer = {"Authorization": f"Bearer {backstage.sign_in('first')}"}
    answer = requests.get(f"{service.url}{MOUNT}/user/info", headers=bearer, timeout=60)
    if answer.status_code != 200:
        raise UnusableError(f"the service answers {answer.status_code}: {answer.text[:1000]}")


# -- all of it ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rig:
    """Everything that runs."""

    upstream: Upstream
    backstage: Backstage
    service: Service
    bare: Service


@contextmanager
def everything(
    shared: Path,
    folder: Path,
    checkout: Path,
    overlays: Sequence[Path] = (),
    upstream_arguments: Sequence[str] = (),
) -> Iterator[Rig]:
    """Run both sides and what they need; the arguments are those of the functions above."""
    check_tools(shared)
    with ExitStack() as stack:
        stub = stack.enter_context(upstream(folder, *upstream_arguments))
        original = stack.enter_context(backstage(shared, folder))
        ours = stack.enter_context(service(shared, folder, checkout, overlays))
        plain = stack.enter_context(bare(folder, checkout))
        introduce(original, ours)
        yield Rig(stub, original, ours, plain)


def check_tools(shared: Path, rigs: Sequence[str] = ("backstage",), *, wrk: bool = True) -> None:
    """See to it that what can't be done without is there.

    Args:
        shared: The folder with the rigs.
        rigs: Which of them.
        wrk: Whether ``wrk`` is needed.

    Raises:
        UnusableError: It is not.
    """
    missing = []
    if wrk and shutil.which("wrk") is None:
        missing.append("wrk is not installed (Debian has it as a package: wrk)")
    if importlib.util.find_spec("gunicorn") is None:
        missing.append(f"{sys.executable} has no gunicorn; run it with the repo's .venv")
    programs = [shared / rig / "up" for rig in rigs]
    missing += [
        f"{program} is not there; name the folder with --shared"
        for program in programs
        if not program.is_file()
    ]
    if missing:
        raise UnusableError("\n".join(missing))
