"""``doctor`` names the right cause, and blames nothing else."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import MaxRetryError, SSLError

from litellm_plugin.cli.checks import Check, Status, failed, ok, run
from litellm_plugin.cli.doctor import CHECKS
from tests.cache.redis_server import RedisServer, needs_redis
from tests.cli.installation import PAGE, SERVICE, Break, Installation
from tests.fakes import People, Reply, connection_refused
from tests.tokens import STATIC_TOKEN, SigningKey

CATALOG = "/catalog/entities/by-name/user/default/litellm-plugin-doctor"
USER_KEYS = "/auth/.well-known/jwks.json"
NOTICES = "/notifications/notifications"
HOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OUR_KEYS_AT_BACKSTAGE = "/litellm/.backstage/auth/v1/jwks.json"


def untrusted() -> requests.exceptions.SSLError:
    """Return what ``requests`` raises where a certificate is not trusted."""
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate"
    pool = HTTPSConnectionPool("litellm", 443)
    return requests.exceptions.SSLError(MaxRetryError(pool, "/", SSLError(cause)))


def sets(path: str, value: Any) -> Break:
    """Return what puts a value into the configuration."""
    return lambda installation: installation.set(path, value)


def answers(host: str, path: str, reply: Reply | Exception) -> Break:
    """Return what makes a host answer something else."""
    return lambda installation: getattr(installation, host).replies.update({path: reply})


def both(*breaks: Break) -> Break:
    def break_(installation: Installation) -> None:
        for each in breaks:
            each(installation)

    return break_


def virtual_key(role: str | None) -> Break:
    info = {"user_id": "ci" if role else None, "key_alias": "ci-key", "expires": None}
    user = {"user_id": "ci", "user_role": role}
    return both(
        answers("litellm", "/key/info", Reply(json={"key": "x", "info": info})),
        answers("litellm", "/v2/user/info", Reply(json=user)),
    )


def notices(**settings: Any) -> Break:
    return sets("litellm.notifications", {"enabled": True, **settings})


def unknown_to_backstage(installation: Installation) -> None:
    installation.fake._discovered.clear()


def another_key(installation: Installation) -> None:
    installation.publish({"keys": [SigningKey.ec("of-another-host").jwk()]})


def npm_plugin(installation: Installation) -> None:
    del installation.config["discovery"]
    others = {"keys": [SigningKey.ec("of-the-npm-plugin").jwk()]}
    installation.backstage.replies[OUR_KEYS_AT_BACKSTAGE] = Reply(json=others)
    installation.fake.discovers("litellm", lambda: others)


def no_entry(installation: Installation) -> None:
    del installation.config["discovery"]
    unknown_to_backstage(installation)


def never_started(installation: Installation) -> None:
    installation.settings["service"]["keyFile"] = str(installation.folder / "nothing-yet.json")
    installation.service.replies["*"] = connection_refused()
    unknown_to_backstage(installation)


def stopped(installation: Installation) -> None:
    installation.service.replies["*"] = connection_refused()
    unknown_to_backstage(installation)


def open_key_file(installation: Installation) -> None:
    key = installation.folder / "key.json"
    key.write_text(installation.key_file.read_text())
    key.chmod(0o644)
    installation.settings["service"]["keyFile"] = str(key)


def two_bobs(installation: Installation) -> None:
    installation.fake.people = People.of()


def no_people(installation: Installation) -> None:
    installation.settings["offboarding"] = {"enabled": True}
    installation.fake.people = People(installation.fake.people.of_kind("group"))


def an_administrators_name(installation: Installation) -> None:
    people = installation.fake.people
    entities = [*people.of_kind("user"), *people.of_kind("group")]
    person = {"kind": "User", "metadata": {"name": "default_user_id"}, "spec": {}}
    installation.fake.people = People([*entities, person])


def slow_clock(installation: Installation) -> None:
    installation.litellm.ahead = installation.backstage.ahead = 600


UNKNOWN_TOKEN = "an-unknown-static-token"
BAD_GATEWAY = replace(PAGE, status=502)
REFUSED = Reply(401, {"error": {"message": "Authentication Error, no."}})
RESTRICTED = Reply(
    403,
    {
        "error": {"name": "NotAllowedError", "message": "restricted to plugin(s) 'litellm'"},
        "response": {"statusCode": 403},
    },
)

# What is broken; the checks that fail; what the first of them found; what it advises.
BROKEN: dict[str, tuple[Break, Collection[str], str, str]] = {
    "wrong master key": (
        sets("litellm.masterKey", "sk-another"),
        ["master-key"],
        "does not accept litellm.masterKey",
        "LITELLM_MASTER_KEY",
    ),
    "the master key is a user's": (
        virtual_key("internal_user"),
        ["master-key"],
        "ci-key of ci, not an admin (internal_user)",
        "Use LiteLLM's master key",
    ),
    "the master key is nobody's": (
        virtual_key(None),
        ["master-key"],
        "of no user, not an admin",
        "Use LiteLLM's master key",
    ),
    "the master key may only read": (
        virtual_key("proxy_admin_viewer"),
        ["master-key"],
        "an admin who may only read",
        "Use LiteLLM's master key",
    ),
    "the master key is for models only": (
        answers("litellm", "/key/info", Reply(403, {"detail": "not allowed"})),
        ["master-key"],
        "may not manage LiteLLM",
        "Use LiteLLM's master key",
    ),
    "LiteLLM is down": (
        answers("litellm", "*", connection_refused()),
        ["litellm"],
        "nothing listens there",
        "litellm.baseUrl",
    ),
    "LiteLLM's certificate is not trusted": (
        answers("litellm", "*", untrusted()),
        ["litellm"],
        "certificate is not trusted: self-signed certificate",
        "litellm.service.caFile",
    ),
    "LiteLLM is a web page": (
        answers("litellm", "*", PAGE),
        ["litellm"],
        "is not LiteLLM's API: it answers with a web page",
        "litellm.baseUrl",
    ),
    "litellm.baseUrl has a path too much": (
        sets("litellm.baseUrl", "http://127.0.0.1:4787/v1"),
        ["litellm"],
        "is not LiteLLM's API",
        "LiteLLM answers at http://127.0.0.1:4787, without a path",
    ),
    "LiteLLM moved": (
        answers(
            "litellm",
            "*",
            Reply(301, headers={"Location": "https://new.example/health/readiness"}),
        ),
        ["litellm"],
        "redirects to https://new.example",
        "Correct litellm.baseUrl: https://new.example",
    ),
    "LiteLLM has no database": (
        answers("litellm", "/health/readiness", Reply(json={"db": "Not connected"})),
        ["litellm"],
        "without a database",
        "DATABASE_URL",
    ),
    "Backstage is down": (
        answers("backstage", "*", connection_refused()),
        ["backstage"],
        "nothing listens there",
        "backend.baseUrl",
    ),
    "backend.baseUrl leads to the frontend": (
        answers("backstage", "*", PAGE),
        ["backstage"],
        "is not Backstage's catalog: it answers with a web page",
        "This is the frontend",
    ),
    "backend.baseUrl leads to something else": (
        answers("backstage", "*", Reply(404)),
        ["backstage"],
        "it answers 404 with an empty body",
        "without /api",
    ),
    "an answer without credentials that is no error of Backstage": (
        answers("backstage", CATALOG, Reply(json={"kind": "User"})),
        ["backstage"],
        "it answers 200",
        "without /api",
    ),
    "the catalog does not list its users": (
        answers("backstage", "/catalog/entities/by-query", Reply(500, text="no database")),
        ["catalog-token"],
        "The catalog failed: Backstage failed (500).",
        "See Backstage's log.",
    ),
    "the catalog is broken": (
        answers(
            "backstage",
            CATALOG,
            Reply(500, {"error": {"message": "no database"}, "response": {"statusCode": 500}}),
        ),
        ["backstage"],
        "fails: 500 no database",
        "Backstage's log",
    ),
    "no keys of users": (
        answers("backstage", USER_KEYS, Reply(404)),
        ["user-keys"],
        "There is no key set at http://127.0.0.1:7007/api/auth/.well-known/jwks.json",
        "discovery.endpoints",
    ),
    "Backstage does not discover us": (
        unknown_to_backstage,
        ["catalog-token"],
        "refuses our plugin token (401), although",
        "discovery.endpoints of Backstage's own configuration",
    ),
    "nobody discovers us": (
        no_entry,
        ["finds-us"],
        "discovery.endpoints does not name this service",
        "Add {target:",
    ),
    "the npm plugin is still there": (
        npm_plugin,
        ["finds-us"],
        "the npm plugin",
        "must not be mounted",
    ),
    "our address has another key": (
        another_key,
        ["finds-us"],
        "has other keys (of-another-host)",
        "backend.auth.pluginKeyStore",
    ),
    "our address is another service": (
        both(answers("service", "*", PAGE), unknown_to_backstage),
        ["finds-us"],
        "is not this service's key set: it answers with a web page",
        "ends in /api/litellm",
    ),
    "the service does not run": (
        stopped,
        ["finds-us"],
        "nothing listens there",
        "Start the service first",
    ),
    "the service has never run": (
        never_started,
        ["finds-us"],
        "nothing listens there",
        "Start the service first",
    ),
    "others can read the plugin key": (
        open_key_file,
        ["plugin-key"],
        "other users may have read the key",
        "Run this as the user",
    ),
    "Backstage does not know the static token": (
        sets("litellm.service.backstageToken", UNKNOWN_TOKEN),
        ["catalog-token"],
        "does not know litellm.service.backstageToken",
        "backend.auth.externalAccess",
    ),
    "the static token is for other plugins": (
        both(
            sets("litellm.service.backstageToken", STATIC_TOKEN),
            answers("backstage", "/catalog/entities/by-query", RESTRICTED),
        ),
        ["catalog-token"],
        "may not ask the catalog",
        "{plugin: catalog, permission: catalog.entity.read}",
    ),
    "the catalog alone accepts our token": (
        both(notices(), answers("backstage", NOTICES, Reply(401))),
        ["notifications"],
        "refuses our plugin token (401), and the catalog accepts it",
        "discovery.endpoints",
    ),
    "the static token may not notify": (
        both(
            notices(),
            sets("litellm.service.backstageToken", STATIC_TOKEN),
            answers("backstage", NOTICES, Reply(403)),
        ),
        ["notifications"],
        "refuses litellm.service.backstageToken (403)",
        "accessRestrictions",
    ),
    "Backstage has no notifications": (
        both(notices(), answers("backstage", NOTICES, Reply(404))),
        ["notifications"],
        "is not Backstage's notifications API: it answers 404",
        "@backstage/plugin-notifications-backend",
    ),
    "notices have nowhere to go": (
        notices(backstage=False),
        ["notifications"],
        "nowhere to go",
        "webhook",
    ),
    "the webhook's host is misspelt": (
        notices(webhook={"url": f"http://{'x' * 64}.example/hook", "secret": HOOK_SECRET}),
        ["notifications"],
        "litellm.notifications.webhook.url: the name xxx",
        "DNS",
    ),
    "Backstage has no permission backend": (
        answers("backstage", "/permission/authorize", Reply(404)),
        ["permission"],
        "no permission backend",
        "permission.enabled: false",
    ),
    "the issuer of the bridge is down": (
        answers("keycloak", "*", connection_refused()),
        ["other-keys"],
        "nothing listens there",
        "litellm.bridge.issuer",
    ),
    "a group is misspelt": (
        sets("litellm.provisioning.roles.0.group", "group:default/ai-power-user"),
        ["groups"],
        "roles[0].group: group:default/ai-power-user is not in the catalog (did you mean group:",
        "group:namespace/name",
    ),
    "a group is written in another way": (
        sets("litellm.audit.group", "litellm-admins"),
        ["groups"],
        "litellm.audit.group: litellm-admins has to be written group:default/litellm-admins",
        "group:namespace/name",
    ),
    "a group is a user": (
        sets("litellm.teamAdmin.group", "user:default/alice"),
        ["groups"],
        "user:default/alice is a User, and no group",
        "group:namespace/name",
    ),
    "a team does not exist": (
        sets("litellm.provisioning.defaults.teams", ["team-platfrom"]),
        ["teams"],
        "LiteLLM has no team team-platfrom (did you mean team-platform?)",
        "make the team",
    ),
    "a team is named by its alias": (
        sets("litellm.provisioning.roles.0.teams", ["Platform"]),
        ["teams"],
        "roles[0].teams: LiteLLM has no team Platform (Platform is the name of team team-platform)",
        "by their LiteLLM id",
    ),
    "a model does not exist": (
        sets("litellm.provisioning.roles.0.models", ["gpt-4o-mini", "gpt-4o-minii"]),
        ["models"],
        "roles[0].models: LiteLLM has no gpt-4o-minii (did you mean gpt-4o-mini?)",
        "model_name",
    ),
    "LiteLLM's clock is wrong": (
        lambda installation: setattr(installation.litellm, "ahead", -600),
        ["clocks"],
        "LiteLLM is 10 min behind, Backstage is right",
        "the host with the wrong time",
    ),
    "our clock is wrong": (
        slow_clock,
        ["clocks"],
        "LiteLLM is 10 min ahead, Backstage is 10 min ahead",
        "the clock of this host",
    ),
    "nothing listens where Redis should be": (
        sets("backend.cache", {"store": "redis", "connection": "redis://:a-password@127.0.0.1:9"}),
        ["shared-cache"],
        "redis at 127.0.0.1:9: nothing listens there",
        "correct backend.cache.connection",
    ),
    "the catalog has no people": (
        no_people,
        ["offboarding"],
        "The catalog lists no people",
        "catalog providers",
    ),
    "two people share an account": (
        two_bobs,
        ["user-ids"],
        "bob@example.com is the LiteLLM id of user:contractors/bob and user:default/bob",
        "share one account",
    ),
}


def test_where_nothing_is_wrong_nothing_is_blamed(installation: Installation) -> None:
    outcome = installation.doctor()
    told = [check for check in outcome.told["checks"] if check["status"] != "ok"]
    # Which nobody asked for.
    ids = [
        "offboarding",
        "group-sync",
        "notifications",
        "shared-cache",
        "store",
        "replicas",
        "ingress",
    ]
    assert [check["id"] for check in told] == ids
    assert outcome.result.exit_code == 0
    assert outcome.told["ok"] is True


def test_it_only_reads(installation: Installation, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    installation.doctor()
    hosts = (installation.litellm, installation.backstage, installation.service)
    asked = [(each.method, each.path) for host in hosts for each in host.asked]
    assert {each for each in asked if each[0] != "GET"} == {("POST", "/permission/authorize")}
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", BROKEN)
def test_the_right_cause_is_named(installation: Installation, name: str) -> None:
    break_, causes, found, remedy = BROKEN[name]
    break_(installation)
    outcome = installation.doctor()
    assert outcome.with_status("failed") == set(causes)
    cause = outcome[next(iter(causes))]
    assert found in cause["found"]
    assert remedy in cause["remedy"]
    assert "ask your administrator" not in outcome.result.stdout  # who reads this
    assert outcome.result.exit_code == 1
    # What depends on it is skipped for its sake, and for nothing else.
    for check in outcome.told["checks"]:
        because = set(check["because"])
        assert because <= set(causes) | outcome.with_status("skipped")


def test_the_ways_of_notices_are_checked_and_nothing_is_sent(installation: Installation) -> None:
    notices(webhook={"url": "http://127.0.0.1:9/hook", "secret": HOOK_SECRET})(installation)
    check = installation.doctor()["notifications"]
    assert check["status"] == "ok"
    assert check["found"] == (
        "http://127.0.0.1:7007/api/notifications accepts our token;"
        " the webhook's host 127.0.0.1 has an address"
    )
    assert installation.fake.notices == {}
    assert installation.network.strays == []


@pytest.mark.parametrize(
    "named",
    [
        {"allowedVectorStores": ["vs-docs"], "allowedMcpServers": ["mcp-docs"]},
        {"allowedVectorStores": ["Docs"], "allowedMcpServers": ["docs"]},
        {"allowedMcpServers": [], "allowedMcpAccessGroups": ["mcp-beta"]},
    ],
)
def test_objects_are_found_as_the_routes_find_them(
    installation: Installation, named: dict[str, list[str]]
) -> None:
    servers = [{"server_id": "mcp-docs", "alias": "docs", "mcp_access_groups": ["mcp-beta"]}]
    installation.litellm.replies["/v1/mcp/server"] = Reply(json=servers)
    installation.config["litellm"]["teamAdmin"] |= named
    assert installation.doctor()["objects"]["status"] == "ok"


@pytest.mark.parametrize(
    ("break_", "check", "found"),
    [
        (
            answers("backstage", USER_KEYS, Reply(json={"keys": []})),
            "user-keys",
            "is empty",
        ),
        (
            sets("litellm.teamAdmin.allowedModels", ["gpt-5"]),
            "models",
            "litellm.teamAdmin.allowedModels: LiteLLM has no gpt-5",
        ),
        (
            both(
                sets("litellm.provisioning.enabled", False),
                sets("litellm.teamAdmin.allowedModels", []),
                sets("litellm.teamAdmin.allowedModelAccessGroups", ["premium"]),
            ),
            "models",
            "litellm.teamAdmin.allowedModelAccessGroups: LiteLLM has no premium",
        ),
        (
            sets("litellm.provisioning.roles.0.keyPolicy", {"allowedModels": ["gpt-5"]}),
            "models",
            "litellm.provisioning.roles[0].keyPolicy.allowedModels: LiteLLM has no gpt-5",
        ),
        (
            sets("litellm.teamAdmin.allowedMcpServers", ["jira"]),
            "objects",
            "litellm.teamAdmin.allowedMcpServers: LiteLLM has no jira",
        ),
        (
            sets("litellm.teamAdmin.allowedVectorStores", ["vs-dox"]),
            "objects",
            "litellm.teamAdmin.allowedVectorStores: LiteLLM has no vs-dox (did you mean vs-docs?)",
        ),
        (
            sets("litellm.teamAdmin.allowedMcpAccessGroups", ["mcp-beta"]),
            "objects",
            "litellm.teamAdmin.allowedMcpAccessGroups: LiteLLM has no MCP server in mcp-beta",
        ),
        (
            both(two_bobs, sets("litellm.service.userIds", "unambiguous")),
            "user-ids",
            "user:default/bob. Requests for an account of unclear ownership are refused (409).",
        ),
        (
            both(an_administrators_name, sets("litellm.userIdDomain", None)),
            "user-ids",
            "user:default/default_user_id: the LiteLLM id is reserved",
        ),
        (
            sets("litellm.service.reservedUserIds", ["Bob@example.com"]),
            "user-ids",
            "user:default/bob: the LiteLLM id is reserved",
        ),
        (
            lambda installation: setattr(installation.backstage, "ahead", 30),
            "clocks",
            "Backstage is 30 s ahead",
        ),
        (
            sets("litellm.masterkey", "x"),
            "configuration",
            "litellm.masterkey: not a key of this service; did you mean masterKey?",
        ),
        (
            answers("backstage", "/catalog/entities/by-query", Reply(json={"items": []})),
            "catalog-token",
            "shows no user",
        ),
    ],
)
def test_what_may_be_wrong_is_a_warning(
    installation: Installation, break_: Break, check: str, found: str
) -> None:
    break_(installation)
    outcome = installation.doctor()
    assert outcome.with_status("warning") == {check}
    assert found in outcome[check]["found"]
    assert outcome.with_status("failed") == set()
    assert outcome.result.exit_code == 0


def test_a_faulty_configuration_ends_it_with_2_and_every_problem(
    installation: Installation,
) -> None:
    del installation.settings["masterKey"]
    installation.settings["provisioning"]["defaults"]["maxBudget"] = "much"
    outcome = installation.doctor()
    assert outcome.result.exit_code == 2
    assert outcome.with_status("failed") == {"configuration"}
    assert outcome["configuration"]["found"].splitlines() == [
        "litellm.masterKey: missing",
        'litellm.provisioning.defaults.maxBudget: got "much" in app-config.yaml, wanted number',
    ]
    assert installation.litellm.asked == []


def test_a_believed_token_proves_the_way_even_where_this_host_has_none(
    installation: Installation,
) -> None:
    installation.service.replies["*"] = connection_refused()
    outcome = installation.doctor()
    assert outcome["finds-us"]["status"] == "ok"
    assert outcome["catalog-token"]["status"] == "ok"


def test_a_static_token_needs_no_discovery(installation: Installation) -> None:
    installation.settings["service"]["backstageToken"] = STATIC_TOKEN
    stopped(installation)
    outcome = installation.doctor()
    assert outcome["finds-us"]["status"] == "warning"
    assert outcome["catalog-token"]["found"] == "Accepted: the static token"
    assert outcome["permission-token"]["status"] == "skipped"
    assert outcome.result.exit_code == 0


def test_a_new_signing_key_that_is_not_published_yet_is_noticed(installation: Installation) -> None:
    keys = {}
    for kid in ("old", "new"):
        key = SigningKey.ec(kid)
        public, private = installation.folder / f"{kid}.pub", installation.folder / f"{kid}.pem"
        public.write_bytes(key.public_pem())
        private.write_bytes(key.private_pem())
        files = {"publicKeyFile": str(public), "privateKeyFile": str(private)}
        keys[kid] = (key.jwk(), {"keyId": kid, **files})

    def told(configured: str, published: str) -> dict[str, Any]:
        entries = [keys[kid][1] for kid in configured.split()]
        store = {"type": "static", "static": {"keys": entries}}
        installation.config["backend"].setdefault("auth", {})["pluginKeyStore"] = store
        installation.publish({"keys": [keys[kid][0] for kid in published.split()]})
        return installation.doctor()["finds-us"]

    early = told("old new", "old")
    assert (early["status"], "lacks new of" in early["found"]) == ("warning", True)
    assert "Reload every replica" in early["remedy"]
    assert told("old new", "old new")["status"] == "ok"
    assert told("new old", "old new")["status"] == "ok"
    skipped_a_step = told("new old", "old")
    assert skipped_a_step["status"] == "failed"
    assert "only after every replica publishes it" in skipped_a_step["remedy"]


def test_older_versions_of_litellm_tell_theirs_elsewhere(installation: Installation) -> None:
    installation.litellm.replies.update(
        {
            "/health/readiness/details": Reply(404, {"detail": "Not Found"}),
            "/health/readiness": Reply(json={"status": "healthy", "litellm_version": "1.81.14"}),
            "/health/license": Reply(404, {"detail": "Not Found"}),
        }
    )
    found = installation.doctor()["litellm-version"]["found"]
    assert found == "1.81.14 (supported: 1.81.14 and newer), unknown edition"
    installation.litellm.replies |= {
        "/health/readiness": Reply(json={"status": "healthy"}),
        "/openapi.json": Reply(json={"info": {"version": "1.82.0"}}),
        "/health/license": Reply(json={"has_license": True, "license_type": "enterprise"}),
    }
    found = installation.doctor()["litellm-version"]["found"]
    assert found.startswith("1.82.0 ")
    assert found.endswith(", licensed (enterprise, expiry not set)")


@pytest.mark.parametrize(
    ("told", "status", "found"),
    [
        ("1.81.13-stable", "failed", "1.81.13-stable, "),
        ("main", "warning", "Version main, "),
        (None, "warning", "Version unknown, "),
    ],
)
def test_a_litellm_that_is_too_old_or_unknown_is_told_of(
    installation: Installation, told: str | None, status: str, found: str
) -> None:
    installation.litellm.replies["/health/readiness/details"] = Reply(
        json={"litellm_version": told}
    )
    installation.litellm.replies["/openapi.json"] = Reply(404, {"detail": "Not Found"})
    outcome = installation.doctor()
    assert outcome["litellm-version"]["status"] == status
    assert outcome["litellm-version"]["found"].startswith(found)
    assert "1.81.14 or newer" in outcome["litellm-version"]["remedy"]
    assert outcome.result.exit_code == (1 if status == "failed" else 0)


def test_the_table_is_for_people(installation: Installation) -> None:
    installation.settings["masterKey"] = "sk-another"
    result = installation.run("doctor")
    assert "FAILED   Master key" in result.stdout
    assert "> Set it to the value of LiteLLM's own" in result.stdout
    assert re.search("^skipped +Teams +“Master key” did not pass$", result.stdout, re.MULTILINE)
    assert "1 failed" in result.stdout
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.exit_code == 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that wants a password."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), "the-password")
    server.start()
    yield server
    server.stop()


@needs_redis
class TestTheSharedCache:
    def look(self, installation: Installation, url: str) -> dict[str, Any]:
        installation.config["backend"]["cache"] = {"store": "valkey", "connection": url}
        outcome = installation.doctor()
        assert "the-password" not in outcome.result.output
        return outcome["shared-cache"]

    def test_that_answers_is_well(self, installation: Installation, server: RedisServer) -> None:
        told = self.look(installation, server.url)
        assert told["status"] == "ok"
        assert told["found"] == f"valkey at 127.0.0.1:{urlsplit(server.url).port}/0"

    @pytest.mark.parametrize(
        ("login", "found", "remedy"),
        [
            ("", "it needs a password", "Add it to backend.cache.connection"),
            (":another@", "does not accept user and password", "Correct those in backend.cache"),
            ("reader:secret@", "the user may not read there", "~litellm-plugin:*"),
        ],
    )
    def test_that_lets_nobody_in_says_why(
        self, installation: Installation, server: RedisServer, login: str, found: str, remedy: str
    ) -> None:
        server.redis.acl_setuser("reader", enabled=True, passwords=["+secret"], commands=["+get"])
        told = self.look(installation, f"redis://{login}127.0.0.1:{urlsplit(server.url).port}")
        assert told["status"] == "failed"
        assert found in told["found"]
        assert remedy in told["remedy"]

    @pytest.mark.deep
    def test_that_is_silent_is_not_waited_for(
        self, installation: Installation, server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("litellm_plugin.cache.redis.ANSWER_SECONDS", 1.0)
        server.freeze()
        try:
            told = self.look(installation, server.url)
        finally:
            server.thaw()
        assert told["status"] == "failed"
        assert "does not answer in time" in told["found"]


class TestTheIngress:
    @pytest.fixture
    def through(self, installation: Installation) -> Installation:
        """The service with an answer to who shows a token of its own."""
        installation.service.replies["/openapi.json"] = Reply(
            json={}, headers={"ETag": 'W/"1"', "Content-Encoding": "identity"}
        )
        return installation

    def look(self, installation: Installation) -> dict[str, Any]:
        return installation.doctor("--url", f"{SERVICE}/api/litellm/")["ingress"]

    def test_a_token_may_stand_in_its_file_as_a_header(
        self, through: Installation, tmp_path: Path
    ) -> None:
        file = tmp_path / "alice"
        file.write_text("Authorization: Bearer alices.own.token\n")
        through.doctor("--url", f"{SERVICE}/api/litellm/", "--token-file", str(file))
        shown = {asked.headers.get("Authorization") for asked in through.service.asked}
        assert "Bearer alices.own.token" in shown

    def test_that_passes_everything_on_is_well(self, through: Installation) -> None:
        assert self.look(through)["status"] == "ok"

    @pytest.mark.parametrize(
        ("path", "reply", "status", "found"),
        [
            ("*", PAGE, "failed", "the frontend answers there"),
            ("*", Reply(404), "failed", "does not lead to this service"),
            ("*", BAD_GATEWAY, "failed", "at present: it answers with a web page (502)"),
            ("*", REFUSED, "warning", "needs credentials before"),
            ("*", connection_refused(), "failed", "nothing listens"),
            ("/openapi.json", REFUSED, "failed", "401 to a valid token: Authentication Error"),
            ("/openapi.json", Reply(json={}), "warning", "answers are not compressed"),
        ],
    )
    def test_that_does_not_is_told(
        self, through: Installation, path: str, reply: Reply, status: str, found: str
    ) -> None:
        through.service.replies[path] = reply
        # Backstage's way to the service is another one.
        told = self.look(through)
        assert told["status"] == status
        assert found in told["found"]

    def test_that_drops_headers_of_answers_breaks_opencode(self, through: Installation) -> None:
        through.settings["opencode"] = {"enabled": True}
        through.service.replies["/openapi.json"] = Reply(
            json={}, headers={"Content-Encoding": "identity"}
        )
        told = self.look(through)
        assert told["status"] == "warning"
        assert "allowedHeaders: [Location]" in told["remedy"]


class TestTheRunner:
    def test_skips_what_depends_on_what_is_not_well(self) -> None:
        checks: list[Check] = [
            Check("c", "C", lambda _: ok(""), needs=("b",)),
            Check("b", "B", lambda _: ok(""), needs=("a",)),
            Check("a", "A", lambda _: failed("", "")),
            Check("d", "D", lambda _: ok(""), after=("a",)),
        ]
        results = {check.id: result for check, result in run(checks, None)}
        assert {name: str(result.status) for name, result in results.items()} == {
            "a": "failed",
            "b": "skipped",
            "c": "skipped",
            "d": "ok",
        }
        assert results["c"].because == ("b",)

    def test_a_check_that_breaks_off_is_one_failure(self) -> None:
        checks: list[Check] = [
            Check("a", "A", lambda _: ok(str(1 // 0))),
            Check("b", "B", lambda _: ok("")),
        ]
        results = {check.id: result for check, result in run(checks, None)}
        assert results["a"].status is Status.FAILED
        assert "ZeroDivisionError" in results["a"].found
        assert results["b"].status is Status.OK


def test_ids_are_their_own_and_foundations_exist() -> None:
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    assert all({*check.needs, *check.after} <= set(ids) for check in CHECKS)


def test_the_page_about_it_has_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    for check in CHECKS:
        needs = ", ".join(f"`{name}`" for name in check.needs)
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{check.id}` |"))
        assert row.endswith(f"| {needs} |" if needs else "| |")


def test_the_shape_for_machines(installation: Installation) -> None:
    told = installation.doctor().told
    assert list(told) == ["ok", "version", "counts", "checks"]
    assert list(told["counts"]) == ["ok", "warning", "failed", "skipped"]
    for check in told["checks"]:
        assert list(check) == ["id", "title", "status", "found", "remedy", "because"]
    assert json.dumps(told)
