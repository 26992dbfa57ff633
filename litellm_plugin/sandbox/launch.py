"""Starts the sandbox: the service and both stand-ins, in threads of this process.

All listen on the loopback. The sandbox refuses to start with a configuration that may be real.
"""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from litellm_plugin.config import load_settings
from litellm_plugin.config.settings import Settings, StaticAccess
from litellm_plugin.factory import create_app
from litellm_plugin.sandbox import people
from litellm_plugin.sandbox.backstage import BackstageStandIn
from litellm_plugin.sandbox.litellm import LiteLLMStandIn
from litellm_plugin.sandbox.page import pages
from litellm_plugin.sandbox.tokens import Issuer

MASTER_KEY = "sk-sandbox-master-key"
PORT = 5000
KEY_FILE = "plugin-key.json"
TOKEN_HOURS = 12

_LITELLM_URL, _BACKSTAGE_URL = "LITELLM_BASE_URL", "BACKSTAGE_URL"
_ASKED_OF_BACKSTAGE = ("auth", "catalog", "permission")


class SandboxRefusedError(Exception):
    """The sandbox does not start; the message says why, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox.

    Attributes:
        url: The URL of the service's mount.
        settings: The service's settings.
        today: The last day of usage, in UTC.
        tokens: User tokens by person, valid for :data:`TOKEN_HOURS`.
        headers: Files with the ``Authorization`` header by person, for ``curl -H @FILE``.
        config: Files with the service's configuration, for the other commands.
    """

    url: str
    settings: Settings
    litellm: LiteLLMStandIn
    backstage: BackstageStandIn
    today: date
    tokens: Mapping[people.Person, str]
    headers: Mapping[people.Person, Path]
    config: Sequence[Path]

    @property
    def page(self) -> str:
        """The URL of the sandbox's own page."""
        return self.url.removesuffix("api/litellm")


@contextmanager
def running(
    config: Sequence[Path],
    environ: Mapping[str, str],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    demo: Path | None = None,
) -> Iterator[Sandbox]:
    """Run the sandbox during the ``with`` block.

    Args:
        config: Configuration files; later files win. If their ports for LiteLLM and Backstage are
            taken, ``LITELLM_BASE_URL`` and ``BACKSTAGE_URL`` are set to free ports.
        environ: The environment for variables in the files.
        host: A loopback address, for the service.
        port: The service's port. None: 5000, or a free one if that is taken.
        demo: The folder of the built demo, to be served at ``/demo/``.

    Raises:
        SandboxRefusedError: The configuration may be real, a port is taken, or ``demo`` is not
            built.
        ConfigError: The configuration is faulty.
    """
    _refuse_real_environment(environ)
    if demo is not None and not (demo / "index.html").is_file():
        raise SandboxRefusedError(f"{demo} has no index.html; 'make demo' builds it")
    with ExitStack() as stack:
        wanted = _addresses(load_settings(config, environ))
        sockets = {name: stack.enter_context(_listen(*at)) for name, at in wanted.items()}
        environ = {**environ, **{name: _url(sock) for name, sock in sockets.items()}}
        settings = load_settings(config, environ)
        _refuse_real(settings)
        for name, (at_host, at_port) in _addresses(settings).items():
            if at_port != sockets[name].getsockname()[1]:
                raise SandboxRefusedError(
                    f"port {at_port} of {at_host} is taken; end the program that listens there, "
                    f"or write ${{{name}}} into the configuration, so that a free port is used"
                )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="litellm-sandbox-")))
        front = stack.enter_context(_service_socket(host, port))
        url = f"{_url(front)}/api/litellm"
        files = [*(path.absolute() for path in config), _overlay(settings, url, folder)]
        settings = load_settings(files, environ)
        _refuse_other_state(settings, folder)
        sandbox = _furnished(settings, url, folder, files)
        service = create_app(settings)
        plugin = service.extensions["litellm_plugin"]
        stack.callback(plugin.store.close)
        stack.callback(plugin.audit_writer.close)
        service.register_blueprint(
            pages(sandbox.backstage, sandbox.today, demo and demo.absolute())
        )
        for app in (service, sandbox.backstage.app):
            # Signing in needs no password. Another site, whose name leads to the loopback, must
            # not do so in a visitor's browser.
            app.config["TRUSTED_HOSTS"] = ["localhost", "127.0.0.1", "[::1]", host]
        for sock, app in (
            (sockets[_LITELLM_URL], sandbox.litellm.app),
            (sockets[_BACKSTAGE_URL], sandbox.backstage.app),
            (front, service),
        ):
            stack.enter_context(_serving(sock, app))
        yield sandbox


# -- real configurations are refused -------------------------------------------


def _refuse_real_environment(environ: Mapping[str, str]) -> None:
    if environ.get("LITELLM_MASTER_KEY") not in {None, "", MASTER_KEY}:
        raise SandboxRefusedError(
            "LITELLM_MASTER_KEY is not the sandbox's own key, and may be a real one; unset it"
        )
    for name in (_LITELLM_URL, _BACKSTAGE_URL):
        if environ.get(name):
            _address(environ[name], name)


def _refuse_real(settings: Settings) -> None:
    if settings.master_key != MASTER_KEY:
        raise SandboxRefusedError(
            "litellm.masterKey is not the sandbox's own key, and may be a real one; "
            f"set it to {MASTER_KEY}"
        )
    for plugin in _ASKED_OF_BACKSTAGE:
        expected = f"{settings.discovery.backstage_url.rstrip('/')}/api/{plugin}"
        if settings.discovery.base_url(plugin) != expected:
            raise SandboxRefusedError(
                f"discovery.endpoints leads '{plugin}' away from the sandbox's Backstage"
            )


def _refuse_other_state(settings: Settings, folder: Path) -> None:
    """Refuse variables ``APP_CONFIG_*`` that override the file of :func:`_overlay`."""
    file = settings.database.file if settings.database else None
    for key, is_own in (
        ("litellm.service.keyFile", settings.service.key_file == folder / KEY_FILE),
        ("litellm.audit.store", settings.audit.store),
        ("backend.database", file is not None and file.parent == folder),
        ("backend.cache", settings.cache.connection is None),
    ):
        if not is_own:
            raise SandboxRefusedError(
                f"a variable APP_CONFIG_* sets {key}, and may set that of a real service; unset it"
            )


def _addresses(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return host and port of LiteLLM and Backstage, by environment variable, or refuse."""
    return {
        _LITELLM_URL: _address(settings.base_url, "litellm.baseUrl"),
        _BACKSTAGE_URL: _address(settings.discovery.backstage_url, "backend.baseUrl"),
    }


def _address(url: str, name: str) -> tuple[str, int]:
    """Return host and port of a URL on the loopback, or refuse."""
    refused = SandboxRefusedError(
        f"{name} has to be http://, a loopback address and a port, nothing else: the sandbox "
        "calls only its own stand-ins"
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", 80 if parts.port is None else parts.port
    except ValueError:
        raise refused from None
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username)
    if parts.scheme != "http" or any(rest) or not _is_loopback(host):
        raise refused
    return host, port


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


# -- sockets and servers -------------------------------------------------------


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the port, or on a free port of the host."""
    try:
        return _bind(host, port)
    except OSError:
        try:
            return _bind(host, 0)
        except OSError as exc:
            raise SandboxRefusedError(f"nothing can listen on {host}: {exc.strerror}") from exc


def _service_socket(host: str, port: int | None) -> socket.socket:
    if not _is_loopback(host):
        raise SandboxRefusedError("--host has to be a loopback address, such as 127.0.0.1")
    if port is None:
        return _listen(host, PORT)
    if not 0 <= port < 2**16:
        raise SandboxRefusedError(f"port {port} can't be used: ports are from 0 to 65535")
    try:
        return _bind(host, port)
    except OSError as exc:
        raise SandboxRefusedError(f"port {port} can't be used: {exc.strerror}") from exc


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Handler(WSGIRequestHandler):
    """Logs each request to the service in a line without colours, as the log may be a file."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        # Bytes that are no HTTP have no path.
        if getattr(self, "path", "").startswith("/api/litellm"):
            self.log("info", "%a %s", self.requestline, code)


@contextmanager
def _serving(sock: socket.socket, app: Flask) -> Iterator[None]:
    host, port = sock.getsockname()[:2]
    server = make_server(host, port, app, threaded=True, request_handler=_Handler, fd=sock.fileno())
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


# -- contents ------------------------------------------------------------------


def _overlay(settings: Settings, url: str, folder: Path) -> Path:
    """Write a configuration file with the settings that the sandbox replaces.

    The user's state folder, database and Redis may be those of a real service. Audit events are
    stored, so that the audit log names people.
    """
    plugin_id, backstage = settings.service.plugin_id, settings.discovery.backstage_url
    own = {"keyFile": str(folder / KEY_FILE), "backstageUrl": backstage}
    sqlite = {"client": "better-sqlite3", "connection": str(folder / f"{plugin_id}.sqlite")}
    database = {**sqlite, "pluginDivisionMode": "database", "plugin": {plugin_id: sqlite}}
    overlay = {
        "litellm": {"baseUrl": settings.base_url, "service": own, "audit": {"store": True}},
        "discovery": {"endpoints": [{"target": url, "plugins": [plugin_id]}]},
        "backend": {"database": database, "cache": {"store": "memory"}},
    }
    file = folder / "app-config.sandbox.yaml"
    file.write_text(json.dumps(overlay))
    return file


def _furnished(settings: Settings, url: str, folder: Path, config: Sequence[Path]) -> Sandbox:
    issuer = Issuer()
    litellm = LiteLLMStandIn(settings.master_key)
    today = datetime.now(UTC).date()
    people.fill(litellm, user_id_domain=settings.user_id_domain, today=today)
    known = [each.token for each in settings.external_access if isinstance(each, StaticAccess)]
    if settings.service.backstage_token:
        known.append(settings.service.backstage_token)
    backstage = BackstageStandIn(
        issuer,
        people.catalog(),
        discovery={settings.service.plugin_id: url},
        static_tokens=known,
    )
    auth_url = settings.discovery.base_url("auth")
    tokens = {
        person: issuer.user_token(person.entity_ref, issuer=auth_url, lifetime=TOKEN_HOURS * 3600)
        for person in people.PEOPLE
    }
    headers = {person: folder / person.name for person in people.PEOPLE}
    for person, file in headers.items():
        file.write_text(f"Authorization: Bearer {tokens[person]}\n")
    return Sandbox(url, settings, litellm, backstage, today, tokens, headers, config)
