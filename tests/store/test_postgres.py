"""The store on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import func, insert, select, text

from litellm_plugin import jobs
from litellm_plugin.config.database import Database, DatabaseError
from litellm_plugin.store import postgres as postgres_module
from litellm_plugin.store.database import Store, StoreUnavailable
from litellm_plugin.store.tables import adopted
from tests.config.conftest import Load
from tests.postgres import PASSWORD, Postgres, running
from tests.store.test_database import ROW, add, differences, ids

pytestmark = pytest.mark.deep


@contextmanager
def opened(database: Database) -> Iterator[Store]:
    store = Store(database)
    try:
        yield store
    finally:
        store.close()


def test_a_missing_database_is_made_with_the_tables_of_the_migrations(postgres: Postgres) -> None:
    database = postgres.database()
    with opened(database) as store:
        store.prepare()
        with store.write() as connection:
            add(connection)
        assert ids(store) == ["a"]
        assert differences(store) == []
    with opened(replace(database, ensure_exists=False)) as store:
        assert ids(store) == ["a"]


def test_a_schema_for_each_plugin_in_one_database(postgres: Postgres) -> None:
    first = postgres.database(schema='lite"llm')
    with opened(first) as store, opened(replace(first, schema="other")) as other:
        with store.write() as connection:
            add(connection)
        assert ids(store) == ["a"]
        assert ids(other) == []
        assert differences(store) == []
        with store.lock("job") as held, other.lock("job") as others:
            assert held is not None
            assert others is not None, "it is another store"
            with store.lock("job") as again:
                assert again is None
    found = postgres.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
                             first.database or "")  # fmt: skip
    assert found == []


def test_a_role_is_taken_and_owns_what_is_made(postgres: Postgres) -> None:
    postgres.execute("CREATE ROLE owner CREATEDB")
    database = postgres.database(role="owner", schema="s")
    with opened(database) as store:
        store.migrate()
    rows = postgres.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 's'",
                            database.database or "")  # fmt: skip
    assert rows == [("owner",)]


def test_a_user_who_may_not_create_the_database_is_told_what_to_create(postgres: Postgres) -> None:
    database = postgres.database(user="litellm")
    with opened(database) as store, pytest.raises(DatabaseError) as raised:
        store.migrate()
    assert f'CREATE DATABASE "{database.database}" with litellm as its owner' in str(raised.value)
    postgres.execute(f"CREATE DATABASE {database.database} OWNER litellm")
    with opened(database) as store:
        assert ids(store) == []
    other = postgres.database(database=database.database, user="litellm", schema="s")
    postgres.execute(f"ALTER DATABASE {database.database} OWNER TO postgres")
    with opened(other) as store, pytest.raises(DatabaseError, match='CREATE SCHEMA "s"'):
        store.migrate()


def test_a_database_that_is_not_to_be_created_is_missing(postgres: Postgres) -> None:
    with (
        opened(postgres.database(ensure_exists=False)) as store,
        pytest.raises(StoreUnavailable, match="does not exist"),
        store.read(),
    ):
        pass


def test_a_wrong_password_is_not_quoted(postgres: Postgres) -> None:
    database = postgres.database(password="hunter2-is-wrong")
    with opened(database) as store, pytest.raises(StoreUnavailable) as raised, store.read():
        pass
    assert "password authentication failed" in str(raised.value)
    assert "hunter2" not in f"{raised.value!r} {raised.value.__cause__!r} {database!r}"


def certificate(name: str) -> tuple[str, str]:
    """Return a certificate for a host that signs itself, and its private key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "PostgreSQL of tests")])
    host = x509.SubjectAlternativeName([x509.DNSName(name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(host, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed.public_bytes(pem).decode(), private.decode()


@pytest.mark.parametrize("kind", ["object", "url"])
def test_the_certificate_of_the_server_is_checked_as_backstage_does(
    load: Load, tmp_path: Path, kind: str
) -> None:
    with running() as server:
        (right, key), (wrong, _) = certificate("localhost"), certificate("localhost")
        server.encrypt(right, key)
        server.execute("CREATE DATABASE backstage_plugin_litellm")

        def connects(ssl: dict[str, Any], host: str = "localhost") -> bool | None:
            """Return whether the connection is encrypted; None where there is none."""
            url = server.url().replace("127.0.0.1", host)
            connection: Any = {"connectionString": url, "ssl": ssl}
            if kind == "url":
                (tmp_path / "ca.pem").write_text(ssl.get("ca", ""))
                query = f"sslrootcert={tmp_path}/ca.pem" if "ca" in ssl else "sslmode=require"
                connection = f"{url}?{'sslmode=no-verify' if len(ssl) == 2 else query}"
            block = {"client": "pg", "connection": connection}
            written = {"litellm": {"audit": {"store": True}}, "backend": {"database": block}}
            with opened(load(json.dumps(written)).database) as store:
                try:
                    with store.read() as connection:
                        own = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                        return bool(connection.scalar(text(own)))
                except StoreUnavailable:
                    return None

        assert connects({"ca": right})
        assert connects({"ca": wrong}) is None
        assert connects({"ca": right}, host="127.0.0.1") is None, "it is another host's"
        assert connects({}) is None, "no CA of the system has signed it"
        assert connects({"ca": wrong, "rejectUnauthorized": False})


PROGRAM = """
import sys
from pathlib import Path
from litellm_plugin.config.database import Database
from litellm_plugin.store.database import Store
store = Store({database!r})
print("ready", flush=True)
sys.stdin.read()
store.migrate()
store.close()
"""


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_replicas_that_start_at_once_migrate_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = Database(file=tmp_path / "store.sqlite")
    told = repr(database).replace("PosixPath", "Path")
    if kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        database = postgres.database(schema="s")
        told = repr(database).replace("user=", f"password={PASSWORD!r}, user=")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("{database!r}", told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    with opened(database) as store:
        assert differences(store) == []


def test_a_database_that_another_replica_creates_meanwhile_is_used(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres.database()
    connect, missing = postgres_module._connect, [database.database]

    def connected(wanted: Database, **options: Any) -> Any:
        if missing and "dbname" not in options:
            postgres.execute(f"CREATE DATABASE {missing.pop()}")
            raise psycopg.OperationalError("the database does not exist")
        return connect(wanted, **options)

    monkeypatch.setattr(postgres_module, "_connect", connected)
    with opened(database) as store:
        store.migrate()
        assert differences(store) == []


def test_forked_processes_share_no_connection(postgres: Postgres) -> None:
    with opened(postgres.database()) as store:
        with store.read() as connection:
            own = connection.scalar(text("SELECT pg_backend_pid()"))
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            with store.read() as connection:
                os.write(write, str(connection.scalar(text("SELECT pg_backend_pid()"))).encode())
            store.close()
            os._exit(0)
        os.close(write)
        assert os.waitpid(child, 0)[1] == 0
        other = int(os.read(read, 32))
        os.close(read)
        with store.read() as connection:
            assert connection.scalar(text("SELECT pg_backend_pid()")) == own != other


def test_a_job_stops_when_its_lock_is_lost(postgres: Postgres) -> None:
    calls = []

    def job(store: Store) -> None:
        with jobs.run(store, "sync", dry_run=False) as run:
            pace = jobs.Pace(1e6, run.check)
            pace.wait()
            calls.append("LiteLLM")
            with pytest.raises(jobs.JobIsRunning), jobs.run(other, "sync", dry_run=False):
                pass
            postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            )
            run.check()
            calls.append("LiteLLM again")

    with opened(postgres.database()) as store, opened(store.database) as other:
        with pytest.raises(StoreUnavailable, match="lock was lost"):
            job(store)
        assert calls == ["LiteLLM"]
        with jobs.run(other, "sync", dry_run=False):
            pass


def test_the_server_goes_away_and_comes_back() -> None:
    with running() as server, opened(server.database()) as store:
        with store.write() as connection:
            connection.execute(insert(adopted).values(ROW))
        server.stop()
        with pytest.raises(StoreUnavailable), store.read() as connection:
            connection.scalar(select(func.count()).select_from(adopted))
        server.start()
        store._retry_at = 0.0
        assert ids(store) == ["a"]


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent
from litellm_plugin.config.database import Database
from litellm_plugin.store.database import Store
from sqlalchemy import text
store = Store(Database(client="pg", host="127.0.0.1", port={port}, user="postgres",
                       password={password!r}, database={name!r}))
store.migrate()
order = []
def slow():
    with store.read() as connection:
        order.append("asks")
        connection.scalar(text("SELECT pg_sleep(0.5)"))
        order.append("has its answer")
def other():
    order.append("another greenlet runs")
gevent.joinall([gevent.spawn(slow), gevent.spawn_later(0.2, other)])
print(order)
"""


def test_a_greenlet_that_waits_for_it_lets_others_run(postgres: Postgres) -> None:
    name = postgres.database().database
    program = GREENLETS.format(port=postgres.port, password=PASSWORD, name=name)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str(["asks", "another greenlet runs", "has its answer"])
