"""The service, deployed as a user would, between the real LiteLLM and the real Backstage.

``make live`` runs it, where the rigs are in ``../shared``. What runs, all of it on
the loopback:

- ``../shared/litellm``: LiteLLM with PostgreSQL, on port 4210. Everything in its
  database is deleted when the suite begins.
- ``../shared/backstage``: Backstage with discovery and proxy pointing at the service,
  on port 7310, and a stand-in for Keycloak, on port 7390.
- The service: ``gunicorn app:app`` with two workers, on a free port. Its configuration
  is the very files that Backstage reads, and one more with ``litellm.service`` keys.
  Other services beside it have other settings and the same signing key.

The rigs are started by their ``up``, which on a new machine installs for minutes, and
stopped at the end unless they were running before. Leave them running while you write
tests: ``LITELLM_PORT=4210 ../shared/litellm/up`` saves ten seconds a run. For other
ports set ``LIVE_LITELLM_PORT``, ``LIVE_BACKSTAGE_PORT`` and ``LIVE_KEYCLOAK_PORT``; two
suites at the same time need different ones. ``LITELLM_VERSION`` and ``BACKSTAGE_RELEASE``
choose what the rigs run, as their READMEs say; ``make live-all`` takes each LiteLLM in turn.

bob and carol are for ``test_first_visit.py`` only: their first visit must be there.
What a test did is printed at the end, by way of its ``told``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.live.kinds import Caller, Deploy, Person, Policy, Told
from tests.live.rigs import SHARED, BackstageRig, LiteLLMRig
from tests.live.service import Service
from tests.live.web import Client
from tests.postgres import postgres

__all__ = ["postgres"]

_TOLD: list[str] = []


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.live)
    missing = [name for name in ("litellm", "backstage") if not (SHARED / name / "up").is_file()]
    if missing:
        reason = f"{' and '.join(missing)} of ../shared not there: no real servers to test against"
        item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TOLD:
        terminalreporter.section("what the live suite did")
        for line in _TOLD:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _no_secret_is_written() -> None:
    """Watch nothing: the service is a process of its own, and what is logged here is ours."""


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Told:
    """Takes a sentence for the summary: what was done, and what came of it."""

    def told(sentence: str) -> None:
        _TOLD.append(f"{request.path.stem.removeprefix('test_')}: {sentence}")

    return told


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the services keep the key they sign with; the first one makes it."""
    return tmp_path_factory.mktemp("state") / "plugin-key.json"


@pytest.fixture(scope="session")
def deploy(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Iterator[Deploy]:
    """Starts services; they share one signing key, as replicas do."""
    services: list[Service] = []

    def deploy(
        name: str, config: str = "", *, start: bool = True, caching: bool = False, **options: Any
    ) -> Service:
        """Return a service.

        Args:
            name: Of its folder.
            config: YAML below the overlay's ``litellm.service.keyFile``.
            start: Whether to start it.
            caching: Whether it keeps what it reads, as it does unless told otherwise. Most
                tests change policy or LiteLLM, and look at once.
            options: Of ``Service``.
        """
        text = f"litellm:\n  service:\n    keyFile: {key_file}\n"
        text += config if caching else f"    cacheSeconds: 0\n{config}"
        # Services of several modules may have one name.
        service = Service(name, tmp_path_factory.mktemp("service"), text, **options)
        services.append(service)
        if start:
            service.start()
        return service

    yield deploy
    with ThreadPoolExecutor() as pool:
        list(pool.map(Service.stop, services))


@pytest.fixture(scope="session")
def service(deploy: Deploy) -> Service:
    """The service in the plugin's place."""
    return deploy("main")


@pytest.fixture(scope="session")
def litellm() -> Iterator[LiteLLMRig]:
    """The real LiteLLM; empty but for two teams, an MCP server and a vector store."""
    rig = LiteLLMRig()
    with _running(rig):
        rig.empty()
        yield rig


@pytest.fixture(scope="session")
def backstage(service: Service, litellm: LiteLLMRig) -> Iterator[BackstageRig]:
    """The real Backstage, which takes the service for the plugin; everything is allowed."""
    rig = BackstageRig(service.url)
    with _running(rig):
        rig.policy()
        yield rig


@contextmanager
def _running(rig: LiteLLMRig | BackstageRig) -> Iterator[None]:
    found_running = rig.running
    try:
        rig.up()
        yield
    finally:
        if not found_running:
            rig.down()


@pytest.fixture
def policy(backstage: BackstageRig) -> Iterator[Policy]:
    """Sets Backstage's permission policy until the test ends: ``policy("litellm.key.*@bob")``."""
    yield backstage.policy
    backstage.policy()


@pytest.fixture
def person(service: Service, backstage: BackstageRig) -> Person:
    """Signs somebody in, and asks the service as them: ``person("alice").get("/keys")``."""

    def person(name: str, at: Service = service) -> Client:
        return Client(at.url, backstage.sign_in(name))

    return person


@pytest.fixture
def stranger(backstage: BackstageRig) -> str:
    """The entity ref of somebody whom neither the catalog nor LiteLLM has ever seen."""
    return f"user:default/stranger-{uuid4().hex[:8]}"


@pytest.fixture
def caller(service: Service) -> Caller:
    """Asks the service with any token."""
    return lambda token: Client(service.url, token)
