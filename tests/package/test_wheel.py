"""The built packages, by themselves: installed in an empty environment, away from the checkout.

``make package`` builds them and runs this.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from litellm_plugin import __version__
from tests.deployed import free_port

REPO = Path(__file__).parents[2]
DIST = REPO / "dist"
STARTING = 60.0  # seconds

SETTINGS = """\
backend: { baseUrl: "http://127.0.0.1:9" }
litellm: { baseUrl: "http://127.0.0.1:9", masterKey: "${LITELLM_MASTER_KEY}" }
"""

pytestmark = pytest.mark.package


@pytest.fixture(scope="session")
def wheel() -> Path:
    (built,) = DIST.glob("litellm_plugin-*.whl")
    return built


class Environment:
    """A virtual environment, and commands run in a folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", with_pip=True)

    def path(self, program: str) -> str:
        return str(self.folder / "venv" / "bin" / program)

    def env(self, **more: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name == "PATH" or name.startswith(("PIP_", "SSL_", "REQUESTS_"))
        }
        return {**kept, "HOME": str(self.folder), **more}

    def run(self, program: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            [self.path(program), *arguments],
            cwd=self.folder,
            env=self.env(**(env or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel, and what the lock has of what it asks for."""
    empty = Environment(tmp_path_factory.mktemp("empty"))
    lock = str(REPO / "requirements" / "run.txt")
    empty.run("python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock)
    # Were something missing in the lock, this would fetch it, without hashes.
    empty.run("python", "-m", "pip", "install", "--quiet", "--no-deps", f"{wheel}[serve,redis]")
    return empty


def test_version_and_files_of_the_wheel(wheel: Path) -> None:
    assert wheel.name == f"litellm_plugin-{__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"litellm_plugin", f"litellm_plugin-{__version__}.dist-info"}
    source = {file.relative_to(REPO).as_posix() for file in (REPO / "litellm_plugin").rglob("*.*")}
    expected = {name for name in source if not name.endswith(".pyc")}
    assert expected == {name for name in names if name.startswith("litellm_plugin/")}


def test_the_source_distribution_has_what_a_build_needs() -> None:
    (sdist,) = DIST.glob("litellm_plugin-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "litellm_plugin/py.typed"} <= names


def test_nothing_is_missing(installed: Environment) -> None:
    assert "No broken requirements found" in installed.run("python", "-m", "pip", "check")
    script = "import litellm_plugin; print(litellm_plugin.__version__, litellm_plugin.__file__)"
    said = installed.run("litellm-plugin", "--version")
    assert __version__ in said
    version, file = installed.run("python", "-c", script).split()
    assert version == __version__
    assert Path(file).is_relative_to(installed.folder)


def test_developers_run_it_without_installing_it(wheel: Path, tmp_path: Path) -> None:
    wanted = f"litellm-plugin[cli] @ {wheel.as_uri()}"
    done = subprocess.run(
        [sys.executable, "-m", "uv", "tool", "run", "--from", wanted, "litellm-plugin", "key"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "You are not signed in. Sign in: litellm-plugin login --url" in done.stderr


def test_it_is_served_without_a_checkout(installed: Environment) -> None:
    folder = installed.folder
    (folder / "app-config.yaml").write_text(SETTINGS)
    address = f"127.0.0.1:{free_port()}"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        (folder / "log").open("wb") as log,
    ):
        systemd.bind(str(folder / "notify"))
        systemd.settimeout(STARTING)
        process = subprocess.Popen(
            [installed.path("gunicorn"), "--config", "python:litellm_plugin.gunicorn_conf"],
            cwd=folder,
            env=installed.env(
                LITELLM_MASTER_KEY="sk-nobodys",
                LITELLM_PLUGIN_BIND=address,
                NOTIFY_SOCKET=str(folder / "notify"),
            ),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            # As systemd is told with Type=notify.
            assert systemd.recv(1000).startswith(b"READY=1"), (folder / "log").read_text()
            answer = requests.get(f"http://{address}/api/litellm/health", timeout=STARTING)
        finally:
            process.terminate()
            process.wait(STARTING)
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "Missing credentials"
    said = (folder / "log").read_text()
    assert "litellm_plugin.server.worker.Worker" in said
    assert "Traceback" not in said
    assert process.returncode == 0


def test_a_faulty_configuration_ends_it_with_status_2(installed: Environment) -> None:
    elsewhere = installed.folder / "faulty"
    elsewhere.mkdir()
    (elsewhere / "app-config.yaml").write_text(SETTINGS)
    done = subprocess.run(
        [installed.path("gunicorn"), "--config", "python:litellm_plugin.gunicorn_conf"],
        cwd=elsewhere,
        env=installed.env(LITELLM_PLUGIN_BIND=f"127.0.0.1:{free_port()}"),
        capture_output=True,
        text=True,
        timeout=STARTING,
        check=False,
    )
    assert done.returncode == 2
    assert "litellm.masterKey: missing (LITELLM_MASTER_KEY is not set)" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_is_typed_for_those_who_import_it(installed: Environment) -> None:
    (installed.folder / "theirs.py").write_text(
        "from litellm_plugin import create_app, create_blueprint\n"
        "reveal_type(create_blueprint)\n"
        "create_app().run()\n"
        "create_app(settings=1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable",
         installed.path("python"), "theirs.py"],
        cwd=installed.folder,
        env=installed.env(),
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert "Settings | None" in done.stdout
    assert 'Argument "settings" to "create_app" has incompatible type "int"' in done.stdout
    assert "Found 1 error" in done.stdout
