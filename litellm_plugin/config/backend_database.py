"""``backend.database``: the database of the store, configured as Backstage's.

Backstage has one block for all plugins: each plugin gets a database of its own, named by the
plugin id (or a schema, with ``pluginDivisionMode: schema``). ``plugin.<id>`` overrides the block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BeforeValidator, WithJsonSchema

from litellm_plugin.config import values as v
from litellm_plugin.config.database import Database
from litellm_plugin.config.report import KeyPath
from litellm_plugin.config.settings import Section, key
from litellm_plugin.config.values import WORDS, WrittenAs, one_of

_MEMORY = ":memory:"
_SCHEMES = ("postgres", "postgresql")
_URL = "URL such as postgresql://user:password@host:5432"
_NAME_LIMIT = 63  # bytes of a name in PostgreSQL

# Parameters of a URL that are passed to libpq; others are ignored, as by Backstage's client.
_FILES = ("sslrootcert", "sslcert", "sslkey")
_PASSED_ON = ("application_name", "options", "connect_timeout", "target_session_attrs")


@dataclass(frozen=True, slots=True)
class _Ssl(Section):
    """``ssl`` of a connection; the texts are PEM, as ``{$file: ca.pem}`` includes it."""

    ca: v.Text | None = key("PEM", None, secret=True, usual="the system's")
    cert: v.Text | None = key("PEM, of the client", None, secret=True)
    private_key: v.Text | None = key("PEM, of the client", None, name="key", secret=True)
    reject_unauthorized: v.Flag = key("check the server's certificate", True)


def _ssl(value: Any) -> Any:
    if isinstance(value, dict) or value is None:
        return value
    return {} if v.flag(value) else None


@dataclass(frozen=True, slots=True)
class _Connection(Section):
    """``connection`` with options."""

    type: Annotated[str, one_of("default")] | None = key(
        "those of cloud providers (azure, cloudsql, rds) are not supported", None
    )
    url: v.Text | None = key("URL, in place of the next ones", None, name="connectionString",
                             secret=True)  # fmt: skip
    host: v.Text | None = key("of pg, as are the next four", None, usual="localhost")
    port: v.Whole | None = key("", None, usual="5432")
    user: v.Text | None = key("", None)
    password: v.BlankText | None = key("", None, secret=True)
    database: v.Text | None = key(
        "used with pluginDivisionMode: schema, and below plugin", None,
        usual="prefix and plugin id",
    )  # fmt: skip
    ssl: Annotated[_Ssl | None, BeforeValidator(_ssl)] = key(
        "true for TLS, or an object", None, also=[{"type": "boolean"}]
    )
    directory: v.Text | None = key("of better-sqlite3: the folder of a file for each plugin", None)
    filename: v.Text | None = key("of better-sqlite3", None, usual="plugin id and .sqlite")


_AnyConnection = Annotated[
    _Connection,
    v.Value(lambda value: _Connection(url=v.text(value)), "URL, path or :memory:", type="string"),
    WrittenAs(_Connection, lambda written, _: written, bare=True),
]
_Client = Annotated[str, one_of("pg", "better-sqlite3", "sqlite3")]


@dataclass(frozen=True, slots=True)
class _Override(Section):
    """``backend.database.plugin.<id>``."""

    client: _Client | None = key("", None)
    connection: _AnyConnection | None = key("", None, secret=True)
    ensure_exists: v.Flag | None = key("", None)
    ensure_schema_exists: v.Flag | None = key("", None)
    role: v.Text | None = key("", None)


@dataclass(frozen=True, slots=True)
class BackendDatabase(Section):
    """``backend.database``."""

    client: _Client = key("sqlite3 is better-sqlite3")
    connection: _AnyConnection = key(
        "for better-sqlite3 the path of a file, or :memory:, which is lost at the end", secret=True
    )
    prefix: v.Text = key("of the database's name, which the plugin id follows", "backstage_plugin_")
    schema_prefix: v.BlankText | None = key("of the schema's name", None)
    plugin_division_mode: Annotated[str, one_of("database", "schema")] = key(
        "a database for each plugin, or a schema for each in one database", "database"
    )
    ensure_exists: v.Flag = key("create a database or schema that is missing", True)
    ensure_schema_exists: v.Flag = key("create a schema that is missing", False)
    role: v.Text | None = key("role to take on after connecting", None)
    plugin: Annotated[
        Mapping[str, _Override], WithJsonSchema({WORDS: "object", "type": "object"})
    ] = key(
        "by plugin id what differs for one plugin: client, connection, ensureExists, "
        "ensureSchemaExists, role",
        dict,
        secret=True,
    )

    def database(self, plugin_id: str) -> Database:
        """Return the database of a plugin.

        Raises:
            PydanticCustomError: A value can't be used; ``at`` begins below ``backend``.
        """
        own = self.plugin.get(plugin_id, _Override())
        client = own.client or self.client
        written: list[tuple[_Connection, KeyPath]] = (
            [] if client != self.client else [(self.connection, ("database", "connection"))]
        )
        if own.connection is not None:
            written.append((own.connection, ("database", "plugin", plugin_id, "connection")))
        in_schema = self.plugin_division_mode == "schema"
        if client != "pg":
            if in_schema:
                raise v.wrong("database, without client pg", at=("database", "pluginDivisionMode"))
            return Database(file=_file([connection for connection, _ in written], plugin_id))
        values: dict[str, Any] = {"host": "localhost"}
        for connection, path in written:
            values |= _parameters(connection, path)
            if not in_schema and connection is self.connection:
                values.pop("database", None)  # not this plugin's database
        schema = f"{self.schema_prefix or ''}{plugin_id}" if in_schema else None
        if not in_schema:
            values.setdefault("database", f"{self.prefix}{plugin_id}")
        for name, setting in ((values.get("database"), "prefix"), (schema, "schemaPrefix")):
            if len((name or "").encode()) > _NAME_LIMIT:
                wanted = f"at most {_NAME_LIMIT} bytes with the plugin id"
                raise v.wrong(wanted, "a longer name", at=("database", setting))
        ensure, ensure_schema = own.ensure_exists, own.ensure_schema_exists
        ensure = self.ensure_exists if ensure is None else ensure
        ensure_schema = self.ensure_schema_exists if ensure_schema is None else ensure_schema
        return Database(
            client="pg",
            schema=schema,
            role=own.role or self.role,
            ensure_exists=ensure,
            ensure_schema=ensure or ensure_schema,
            **values,
        )


def _file(written: Sequence[_Connection], plugin_id: str) -> Path | None:
    """Return the file of SQLite; None for one in memory."""
    name, folder = None, None
    for connection in written:
        name = connection.url or connection.filename or name
        folder = connection.directory or folder
    if name == _MEMORY:
        return None
    return Path(folder or ".").absolute() / (name or f"{plugin_id}.sqlite")


def _parameters(written: _Connection, path: KeyPath) -> dict[str, Any]:
    """Return the fields of :class:`Database` for a connection to PostgreSQL."""
    found = {} if written.url is None else _of_url(written.url, path)
    for name in ("host", "port", "user", "password", "database"):
        if (value := getattr(written, name)) is not None:
            found[name] = value
    if (ssl := written.ssl) is not None:
        found["ca"] = ssl.ca if ssl.reject_unauthorized else None
        found |= {"cert": ssl.cert, "private_key": ssl.private_key}
        found["options"] = found.get("options", {}) | _tls(checked=ssl.reject_unauthorized)
    return found


def _of_url(url: str, path: KeyPath) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise v.wrong(_URL, "another string", at=path) from None
    if parts.scheme not in _SCHEMES:
        raise v.wrong(_URL, "another string", at=path)
    query = dict(parse_qsl(parts.query))
    found: dict[str, Any] = {
        "host": query.get("host") or unquote(parts.hostname or ""),
        "port": port,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.removeprefix("/")),
        "options": {name: query[name] for name in _PASSED_ON if name in query},
    }
    mode, files = query.get("sslmode"), {name: query[name] for name in _FILES if name in query}
    if mode == "disable" or (mode and query.get("uselibpqcompat") == "true"):
        found["options"] |= {"sslmode": mode, **files}
    elif mode or files or query.get("ssl") in ("true", "1"):
        # As Backstage's client does: "require" checks the certificate, unlike libpq's.
        found["options"] |= {**_tls(checked=mode != "no-verify"), **files}
    return {name: value for name, value in found.items() if value}


def _tls(*, checked: bool) -> dict[str, str]:
    if checked:
        return {"sslmode": "verify-full", "sslrootcert": "system"}
    return {"sslmode": "require"}  # which checks no certificate
