"""Servers that answer byte for byte, and upstreams with little patience."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from litellm_plugin.clients.http import Upstream
from litellm_plugin.config.settings import Timeouts
from tests.clients.server import Server

SHORT = 0.2  # seconds
ENOUGH = 20.0  # seconds for what takes no time on an idle machine; less than the default limits


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts a server: ``serve(script, …, tls=context)``."""
    servers: list[Server] = []

    def serve(*scripts: Callable[..., object], tls: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(*scripts, tls=tls))
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()


@pytest.fixture
def upstream() -> Upstream:
    """Time enough for everything."""
    return Upstream("LiteLLM", timeouts=Timeouts())


@pytest.fixture
def impatient() -> Upstream:
    """Takes :data:`SHORT` to connect, and as much silence."""
    return Upstream("LiteLLM", timeouts=Timeouts(connect=SHORT, read=SHORT))


@pytest.fixture
def hurried() -> Upstream:
    """Takes any silence, but :data:`SHORT` in all."""
    return Upstream("LiteLLM", timeouts=Timeouts(total=SHORT))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away key and its self-signed certificate for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away")])
    now = dt.datetime.now(dt.UTC)
    alternatives = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return file


@pytest.fixture(scope="session")
def tls(certificate: Path) -> ssl.SSLContext:
    """What a server needs to speak TLS with ``certificate``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context
