"""The tree keeps its promises: arrows one way, one door to each library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "litellm_plugin"

# From top to bottom; a layer imports from itself and from those below it.
LAYERS = (
    ("__main__", "cli"),
    ("sandbox", "server", "wsgi", "gunicorn_conf", "developer"),
    ("factory", "__init__"),
    ("routes",),
    ("plugin",),
    ("audit",),
    ("keys", "teams", "audit_log", "notifications"),
    ("accounts", "usage", "access"),
    ("models", "rate_limits"),
    ("identity",),
    ("jobs",),
    ("cache", "store"),
    ("clients",),
    ("observability",),
    ("shapes", "fields", "clock"),
    ("config",),
    ("errors",),
    ("redaction", "strict_json"),
)

DOORS = {
    "requests": {"clients/http.py", "developer/web.py"},
    "authlib": {"developer/sign_in.py"},
    "keyring": {"developer/saved.py"},
    "urllib3": {"clients/http.py"},
    "joserfc": {"identity/jwt.py"},
    "yaml": {"config/yaml12.py"},
    "pydantic": {"config/", "sandbox/"},
    "pydantic_core": {"config/"},
    "redis": {"cache/redis.py"},
    "sqlalchemy": {"store/"},
    "psycopg": {"store/postgres.py"},
    "alembic": {"store/migrate.py", "store/migrations/"},
    "limits": {"cache/counters.py"},
    "filelock": {"cache/locks.py", "store/database.py", "developer/saved.py"},
    "gevent": {"server/worker.py", "gunicorn_conf.py"},
    "gunicorn": {"server/worker.py", "server/access_log.py"},
    "click": {"cli/"},
    "rich": {"cli/terminal.py"},
    "prometheus_client": {"observability/metrics.py", "server/metrics_exporter.py"},
    "opentelemetry": {"observability/tracing.py"},
    "pythonjsonlogger": {"observability/logs.py"},
    "flask": {"routes/", "factory.py", "wsgi.py", "sandbox/"},
    "werkzeug": {"routes/", "factory.py", "sandbox/"},
}

FILES = sorted(PACKAGE.rglob("*.py"))


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _layer(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def _name(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_a_folder_imports_only_from_those_below_it(file: Path) -> None:
    own = _layer(file.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    for name in _imports(file):
        package, _, rest = name.partition(".")
        if package == "litellm_plugin" and rest:
            assert _layer(rest.split(".")[0]) >= own, f"{_name(file)} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_each_library_has_one_door(file: Path) -> None:
    for name in _imports(file):
        doors = DOORS.get(name.split(".")[0])
        if doors is not None:
            assert any(_name(file).startswith(door) for door in doors), f"{_name(file)}: {name}"
