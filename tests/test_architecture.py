"""The tree keeps its promises: arrows one way, one door to each library."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "litellm_plugin"

# From top to bottom; a layer imports from itself and from those below it.
LAYERS = (
    ("__main__", "cli"),
    ("sandbox", "server", "wsgi", "gunicorn_conf", "developer"),
    ("factory", "__init__"),
    ("routes",),
    ("plugin", "store_parts"),
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


@functools.cache
def _imports(file: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names


def _layer(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def _name(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def test_a_folder_imports_only_from_those_below_it() -> None:
    upwards = [
        f"{_name(file)} imports {name}"
        for file in FILES
        for name in _imports(file)
        if name.startswith("litellm_plugin.")
        if _layer(name.split(".")[1]) < _layer(_name(file).split("/")[0].removesuffix(".py"))
    ]
    assert upwards == []


def test_each_library_has_one_door() -> None:
    strays = [
        f"{_name(file)}: {name}"
        for file in FILES
        for name in _imports(file)
        if not _name(file).startswith(tuple(DOORS.get(name.split(".")[0], [""])))
    ]
    assert strays == []
