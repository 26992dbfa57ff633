"""``backend.database`` means what it means to Backstage, as far as we can do it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.config.database import Database
from litellm_plugin.redaction import redact, register_secrets
from tests.config.conftest import Load, Problems

PASSWORD = "hunter2 & a half"
HOST = {"host": "db", "port": "5433", "user": "backstage", "password": PASSWORD}
URL = "postgresql://backstage:hunter2%20%26%20a%20half@db:5433/shared"
PG: dict[str, Any] = {
    "client": "pg",
    "host": "db",
    "port": 5433,
    "user": "backstage",
    "password": PASSWORD,
    "database": "backstage_plugin_litellm",
}
CHECKED = {"sslmode": "verify-full", "sslrootcert": "system"}


def text(database: Any, *, used: bool = True, **litellm: Any) -> str:
    return json.dumps(
        {"litellm": {"audit": {"store": used}, **litellm}, "backend": {"database": database}}
    )


@pytest.mark.parametrize(
    ("database", "wanted"),
    [
        pytest.param({"connection": HOST}, {}, id="an object"),
        pytest.param({"connection": HOST | {"database": "shared"}}, {}, id="no plugin's database"),
        pytest.param({"connection": URL}, {}, id="a URL"),
        pytest.param({"connection": {"connectionString": URL}}, {}, id="connectionString"),
        pytest.param(
            {"connection": HOST, "prefix": "bs_"}, {"database": "bs_litellm"}, id="a prefix"
        ),
        pytest.param(
            {"connection": HOST, "plugin": {"litellm": {"connection": {"database": "own"}}}},
            {"database": "own"},
            id="a database of its own",
        ),
        pytest.param(
            {
                "client": "better-sqlite3",
                "connection": ":memory:",
                "plugin": {"litellm": {"client": "pg", "connection": URL}},
            },
            {"database": "shared"},
            id="a client of its own",
        ),
        pytest.param(
            {"connection": URL, "pluginDivisionMode": "schema"},
            {"database": "shared", "schema": "litellm"},
            id="a schema",
        ),
        pytest.param(
            {
                "connection": HOST,
                "pluginDivisionMode": "schema",
                "schemaPrefix": "bs_",
                "ensureExists": False,
                "role": "owner",
            },
            {
                "database": None,
                "schema": "bs_litellm",
                "role": "owner",
                "ensure_exists": False,
                "ensure_schema": False,
            },
            id="a schema that exists",
        ),
        pytest.param(
            {
                "connection": HOST,
                "ensureExists": False,
                "ensureSchemaExists": True,
                "role": "all",
                "plugin": {"litellm": {"role": "own"}, "catalog": {"client": "mysql2"}},
            },
            {"ensure_exists": False, "role": "own"},
            id="a role of its own",
        ),
        pytest.param({"connection": HOST | {"ssl": False}}, {}, id="no TLS asked for"),
        pytest.param({"connection": HOST | {"ssl": True}}, {"options": CHECKED}, id="TLS"),
        pytest.param(
            {"connection": HOST | {"ssl": {"ca": "CA", "cert": "C", "key": "K"}}},
            {"options": CHECKED, "ca": "CA", "cert": "C", "private_key": "K"},
            id="certificates",
        ),
        pytest.param(
            {"connection": HOST | {"ssl": {"ca": "CA", "rejectUnauthorized": False}}},
            {"options": {"sslmode": "require"}},
            id="TLS without a check",
        ),
        *(
            pytest.param({"connection": f"{URL}?{query}"}, {"options": options}, id=query)
            for query, options in {
                "ssl=true": CHECKED,
                "sslmode=require": CHECKED,
                "sslmode=no-verify": {"sslmode": "require"},
                "sslmode=disable": {"sslmode": "disable"},
                "sslmode=require&uselibpqcompat=true": {"sslmode": "require"},
                "sslrootcert=/ca.pem": {"sslmode": "verify-full", "sslrootcert": "/ca.pem"},
                "application_name=ours&unknown=1": {"application_name": "ours"},
            }.items()
        ),
        pytest.param({"connection": f"{URL}?host=/run/postgresql"}, {"host": "/run/postgresql"}),
    ],
)
def test_postgresql(load: Load, database: Any, wanted: dict[str, Any]) -> None:
    settings = load(text({"client": "pg", **database}))
    assert settings.database == Database(**PG | wanted)
    register_secrets(settings.secrets())
    assert PASSWORD not in redact(f"{settings} {settings.database.name} {PASSWORD}")


@pytest.mark.parametrize(
    ("database", "file"),
    [
        ({"connection": ":memory:"}, None),
        ({"connection": "a.sqlite"}, "a.sqlite"),
        ({"connection": {"directory": "folder"}}, "folder/litellm.sqlite"),
        ({"connection": {"directory": "folder", "filename": "b.sqlite"}}, "folder/b.sqlite"),
        ({"connection": {}}, "litellm.sqlite"),
        (
            {
                "connection": {"directory": "folder"},
                "plugin": {"litellm": {"connection": {"filename": "c.sqlite"}}},
            },
            "folder/c.sqlite",
        ),
        (
            {
                "client": "pg",
                "connection": HOST,
                "plugin": {"litellm": {"client": "better-sqlite3", "connection": ":memory:"}},
            },
            None,
        ),
    ],
)
def test_sqlite(load: Load, tmp_path: Path, database: Any, file: str | None) -> None:
    settings = load(text({"client": "better-sqlite3", **database}))
    assert settings.database == Database(file=tmp_path / file if file else None)


@pytest.mark.parametrize(
    ("litellm", "environ", "file"),
    [
        ({"service": {"keyFile": "kept/key.json"}}, {}, "kept/store.sqlite"),
        ({}, {"XDG_STATE_HOME": "{}"}, "litellm-plugin/store.sqlite"),
    ],
)
def test_without_it_the_store_is_a_file_beside_the_key(
    load: Load, tmp_path: Path, litellm: Any, environ: dict[str, str], file: str
) -> None:
    environ = {name: value.format(tmp_path) for name, value in environ.items()}
    written = json.dumps({"litellm": {"audit": {"store": True}, **litellm}})
    assert load(written, environ=environ).database.file == tmp_path / file


def test_a_user_without_a_home_folder_has_to_name_one(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    assert problems("litellm: {audit: {store: true}}") == [
        "backend.database: missing, and this user has no home folder to keep a file of SQLite in"
    ]


UNUSABLE = [
    ({"client": "mysql2", "connection": {}}, 'client: got "mysql2"'),
    ({"client": "embedded-postgres", "connection": {}}, 'client: got "embedded-postgres"'),
    ({"connection": HOST}, "client: missing"),
    ({"client": "pg"}, "connection: missing"),
    ({"client": "pg", "connection": 5}, "connection: got number"),
    ({"client": "pg", "connection": "mysql://x:hunter2@db"}, "connection: got another string"),
    ({"client": "pg", "connection": "postgres://db:x/"}, "connection: got another string"),
    (
        {"client": "pg", "connection": {"type": "cloudsql", "instance": "a:b:c"}},
        'connection.type: got "cloudsql"',
    ),
    ({"client": "pg", "connection": HOST | {"port": "x"}}, 'connection.port: got "x"'),
    (
        {"client": "pg", "connection": HOST, "plugin": {"litellm": {"client": "mysql2"}}},
        "plugin.litellm.client: got a string (not shown)",
    ),
    (
        {"client": "pg", "connection": HOST, "plugin": {"litellm": {"connection": "hunter2"}}},
        "plugin.litellm.connection: got another string",
    ),
    (
        {"client": "better-sqlite3", "connection": "x", "pluginDivisionMode": "schema"},
        'pluginDivisionMode: got "schema"',
    ),
    ({"client": "pg", "connection": HOST, "prefix": "x" * 60}, "prefix: got a longer name"),
]


@pytest.mark.parametrize(("database", "problem"), UNUSABLE)
def test_a_database_that_cannot_be_used_is_a_problem(
    problems: Problems, database: Any, problem: str
) -> None:
    (told,) = problems(text(database))
    assert told.startswith(f"backend.database.{problem}")
    assert "hunter2" not in told


@pytest.mark.parametrize(("database", "problem"), UNUSABLE)
def test_but_only_where_something_needs_it(
    load: Load, caplog: pytest.LogCaptureFixture, database: Any, problem: str
) -> None:
    settings = load(text(database, used=False))
    assert settings.database == Database()
    assert caplog.messages == [], problem


def test_a_store_in_memory_is_warned_of(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(text({"client": "better-sqlite3", "connection": ":memory:"}))
    (message,) = caplog.messages
    assert message.startswith("backend.database.connection: in memory")
