from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from litellm_plugin.config import ConfigError, load_settings, read_configuration
from litellm_plugin.config.settings import (
    AccessRestriction,
    Audit,
    Bridge,
    Cors,
    Discovery,
    DiscoveryEndpoint,
    Display,
    JwksAccess,
    KeyGeneration,
    LegacyAccess,
    Opencode,
    Provisioning,
    Rate,
    RateLimits,
    Role,
    Service,
    Settings,
    StaticAccess,
    StaticPluginKey,
    TeamAdmin,
    Timeouts,
    UserDefaults,
)
from tests.config.conftest import REQUIRED, Load, Problems, Write


def at(key: str, value: object) -> str:
    """Return the YAML that sets ``key``, a dotted path, to ``value``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return yaml.safe_dump(value)


def test_only_three_keys_are_required_and_the_rest_is_as_documented(load: Load) -> None:
    assert load() == Settings(
        base_url="http://litellm:4000",
        master_key="sk-master",
        discovery=Discovery("http://backstage:7007"),
    )


def test_every_key_arrives(load: Load, write: Write, tmp_path: Path) -> None:
    write("ca.pem", "")
    settings = load(
        """
        permission: { enabled: yes }
        litellm:
          baseUrl: https://litellm.example.com/base/
          publicBaseUrl: https://public.example.com/
          userIdDomain: example.com
          provisioning:
            enabled: true
            defaults:
              maxBudget: "12.5"
              budgetDuration: 7d
              models: [gpt-4o]
              teams: [t1]
              tpmLimit: 1e4
              rpmLimit: 0x64
              userRole: internal_user_viewer
              metadata: { source: backstage, deep: { list: [1, null] } }
            roles:
              - { group: "group:default/power", maxBudget: 100, metadata: { tier: power } }
          audit: { group: "group:default/admins" }
          keyGeneration: { allowUnlimitedBudget: "on", teamRequired: 0 }
          teamAdmin:
            group: group:default/admins
            allowedModels: [a]
            allowedModelAccessGroups: [b]
            maxBudgetCeiling: 5
            allowUnlimitedBudget: true
            allowedVectorStores: [c]
            allowedMcpServers: [d]
            allowedMcpAccessGroups: [e]
            allowTeamDelete: true
            objectPermissions: { enabled: true }
          display: { hideTeamBudgetForMembers: true, hideTeamBudgetForManagers: true }
          bridge: { enabled: true, issuer: "https://kc/realms/x/", clientId: cli }
          opencode:
            { enabled: true, keyDuration: 1d, maxBudget: 5, requireTeam: true, metadata: { a: 1 } }
          service:
            backstageUrl: http://internal:7007
            backstageToken: a-static-token
            pluginId: litellm-flask
            cacheSeconds: 0
            rateLimits: false
            circuitBreaker: "off"
            timeouts: { connect: 1, read: 2.5, total: "3" }
            trustEnvironment: true
            caFile: ca.pem
            keyFile: key.json
        """
    )
    assert settings == Settings(
        base_url="https://litellm.example.com/base",
        master_key="sk-master",
        discovery=Discovery("http://internal:7007"),
        public_base_url="https://public.example.com/",
        user_id_domain="example.com",
        provisioning=Provisioning(
            enabled=True,
            defaults=UserDefaults(
                max_budget=12.5,
                budget_duration="7d",
                models=("gpt-4o",),
                teams=("t1",),
                tpm_limit=10000,
                rpm_limit=100,
                user_role="internal_user_viewer",
                metadata={"source": "backstage", "deep": {"list": [1, None]}},
            ),
            roles=(Role("group:default/power", {"max_budget": 100.0}, {"tier": "power"}),),
        ),
        audit=Audit(group="group:default/admins"),
        key_generation=KeyGeneration(allow_unlimited_budget=True, team_required=False),
        team_admin=TeamAdmin(
            group="group:default/admins",
            allowed_models=("a",),
            allowed_model_access_groups=("b",),
            max_budget_ceiling=5.0,
            allow_unlimited_budget=True,
            allowed_vector_stores=("c",),
            allowed_mcp_servers=("d",),
            allowed_mcp_access_groups=("e",),
            allow_team_delete=True,
            object_permissions=True,
        ),
        display=Display(hide_team_budget_for_members=True, hide_team_budget_for_managers=True),
        bridge=Bridge(enabled=True, issuer="https://kc/realms/x", client_id="cli"),
        opencode=Opencode(
            enabled=True, key_duration="1d", max_budget=5.0, require_team=True, metadata={"a": 1}
        ),
        service=Service(
            backstage_url="http://internal:7007",
            backstage_token="a-static-token",
            plugin_id="litellm-flask",
            cache_seconds=0.0,
            rate_limits=RateLimits(enabled=False),
            circuit_breaker=False,
            timeouts=Timeouts(connect=1.0, read=2.5, total=3.0),
            trust_environment=True,
            ca_file=tmp_path / "ca.pem",
            key_file=tmp_path / "key.json",
        ),
        permission_enabled=True,
    )


# --- Problems ---


def test_all_problems_are_told_in_one_go(write: Write) -> None:
    files = [
        write("app-config.yaml", "litellm:\n  baseUrl: 5\n  userIdDomain: ''\n  bridge: no\n"),
        write("app-config.ci.yaml", "litellm: { provisioning: { defaults: { maxBudget: ten } } }"),
        write("secrets.yaml", "backend: { auth: { keys: [secret] } }"),
    ]
    with pytest.raises(ConfigError) as raised:
        load_settings(files, {"APP_CONFIG_permission_enabled": "perhaps"})
    assert raised.value.problems == [
        "litellm.baseUrl: got number in app-config.yaml, wanted string",
        "litellm.masterKey: missing",
        "litellm.userIdDomain: got empty string in app-config.yaml, wanted string",
        'litellm.provisioning.defaults.maxBudget: got "ten" in app-config.ci.yaml, wanted number',
        "litellm.bridge: got string in app-config.yaml, wanted object",
        "backend.auth.keys[0]: got string in secrets.yaml, wanted object",
        (
            "permission.enabled: got a string from APP_CONFIG_permission_enabled in env,"
            " wanted boolean"
        ),
        "backend.baseUrl: missing",
    ]
    assert str(raised.value) == "\n".join(raised.value.problems)


def test_files_and_keys_complain_together(write: Write, tmp_path: Path) -> None:
    files = [
        write("base.yaml", "litellm:\n  baseUrl: {$file: nope}\n  audit: {group: 5}\n"),
        write("broken.yaml", "litellm:\n  masterKey: 'sk-secret-in-the-broken-file\n"),
        tmp_path / "missing.yaml",
    ]
    assert read_configuration(files, {"APP_CONFIG_a__b": "1"}).problems == [
        f"litellm.baseUrl: $file nope in base.yaml does not exist; looked in {tmp_path}",
        "broken.yaml: line 3, column 1: found unexpected end of stream",
        f"{tmp_path}/missing.yaml: does not exist",
        "APP_CONFIG_a__b: not the name of a configuration key",
        "litellm.audit.group: got number in base.yaml, wanted string",
    ], "nothing is called missing that an unreadable file may have"


def test_a_line_break_in_a_key_or_name_does_not_break_the_line(
    write: Write, tmp_path: Path
) -> None:
    text = r"""
litellm: {"bridg\ne": {}, service: {"a\u2028b": 1}, userIdDomain: {$file: "no\n\tfile"}}
"""
    files = [write("base.yaml", REQUIRED), write("app-config.yaml", text)]
    reading = read_configuration(files, {})
    place = f"app-config.yaml does not exist; looked in {tmp_path}"
    assert reading.problems == [
        rf"litellm.userIdDomain: $file no\n\tfile in {place}",
        r"litellm.service.a\u2028b: no such key",
    ]
    assert reading.warnings == [
        r"litellm.bridg\ne: not a key of this service; did you mean bridge?"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("litellm: {masterKey: null}", "litellm.masterKey: missing (null in app-config.yaml)"),
        ("litellm: null", "litellm.masterKey: missing (null in app-config.yaml)"),
        ("litellm: text", "litellm: got string in app-config.yaml, wanted object"),
        ("backend: {baseUrl: null}", "backend.baseUrl: missing (null in app-config.yaml)"),
        ("backend: []", "backend: got list in app-config.yaml, wanted object"),
    ],
)
def test_what_is_missing_says_why(problems: Problems, text: str, problem: str) -> None:
    assert problem in problems(text)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("${LITELLM_MASTER_KEY}", "missing (LITELLM_MASTER_KEY is not set)"),
        ("p-${LITELLM_MASTER_KEY}", "missing (LITELLM_MASTER_KEY is not set)"),
        ("${LITELLM_MASTER_KEY:-}", "missing (LITELLM_MASTER_KEY is not set)"),
        ("{$env: LITELLM_MASTER_KEY}", "missing (LITELLM_MASTER_KEY is not set)"),
        ("${sk-4711}", "missing (the variable it names is not set)"),
        ("${EMPTY}", "got empty string in app-config.yaml, wanted string"),
    ],
)
def test_a_key_from_an_unset_variable_names_the_variable(
    write: Write, value: str, problem: str
) -> None:
    text = f"litellm:\n  baseUrl: http://x\n  masterKey: {value}\nbackend:\n  baseUrl: http://y\n"
    reading = read_configuration([write("app-config.yaml", text)], {"EMPTY": ""})
    assert reading.problems == [f"litellm.masterKey: {problem}"]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("litellm.baseUrl", "litellm:4000", 'got "litellm:4000"'),
        ("litellm.baseUrl", "http://me:hunter2@litellm", "got a URL with user or password"),
        ("litellm.baseUrl", "http://litellm?x=1", "got a URL with a query"),
        ("litellm.publicBaseUrl", "http://litellm#x", "got a URL with a fragment"),
        ("litellm.masterKey", "sk-two words", "got a string (not shown)"),
        ("litellm.masterKey", True, "got boolean"),
        ("litellm.userIdDomain", 5, "got number"),
        ("litellm.provisioning.enabled", "maybe", 'got "maybe"'),
        ("litellm.provisioning.defaults", [], "got list"),
        ("litellm.provisioning.defaults.maxBudget", -1, "got a negative number"),
        ("litellm.provisioning.defaults.budgetDuration", "", "got empty string"),
        ("litellm.provisioning.defaults.models", "gpt-4o", 'got "gpt-4o"'),
        ("litellm.provisioning.defaults.tpmLimit", 0.5, "got a fraction"),
        ("litellm.provisioning.defaults.metadata", "text", 'got "text"'),
        ("litellm.provisioning.roles", {}, "got object"),
        ("litellm.audit.group", ["group:default/x"], "got list"),
        ("litellm.teamAdmin.allowedModels", {"a": 1}, "got object"),
        ("litellm.teamAdmin.objectPermissions", True, "got boolean"),
        ("litellm.bridge.issuer", "kc", 'got "kc"'),
        ("litellm.opencode.maxBudget", "50 USD", 'got "50 USD"'),
        ("litellm.service.backstageToken", "a b", "got a string (not shown)"),
        ("litellm.service.pluginId", "a/b", 'got "a/b"'),
        ("litellm.service.cacheSeconds", -1, "got a negative number"),
        ("litellm.service.rateLimits", 5, "got number"),
        ("litellm.service.rateLimits.writes", 5, "got number"),
        ("litellm.service.rateLimits.writes", "0/minute", 'got "0/minute"'),
        ("litellm.service.rateLimits.serviceWrites", "5/week", 'got "5/week"'),
        ("litellm.service.rateLimits.failedTokens", "-5/minute", 'got "-5/minute"'),
        ("litellm.service.timeouts.total", 0, "got 0"),
        ("litellm.service.caFile", "nope.pem", 'got "nope.pem"'),
        ("litellm.service.keyFile", ".", 'got "."'),
        ("backend.baseUrl", "backstage", 'got "backstage"'),
        ("backend.auth.externalAccess", {}, "got object"),
        ("backend.auth.pluginKeyStore.type", "file", 'got "file"'),
        ("backend.cors", True, "got boolean"),
        ("backend.cors.maxAge", 1.5, "got a fraction"),
        ("discovery.endpoints", "x", "got string"),
        ("permission.enabled", [], "got list"),
    ],
)
def test_a_wrong_value_names_key_file_got_and_wanted(
    problems: Problems, key: str, value: Any, problem: str
) -> None:
    [line] = problems(at(key, value))
    assert line.startswith(f"{key}: {problem} in app-config.yaml, wanted ")


@pytest.mark.parametrize(
    "value",
    ["http:/me:hunter2@litellm", "litellm/?key=hunter2", "hunter2\n", "x" * 61, "${LITELLM}"],
)
def test_a_value_that_may_be_a_secret_is_not_quoted(problems: Problems, value: str) -> None:
    [line] = problems(at("litellm.baseUrl", value), environ={"LITELLM": "hunter2"})
    got = "a string from ${LITELLM}" if "$" in value else "a string (not shown)"
    assert line == f"litellm.baseUrl: got {got} in app-config.yaml, wanted http or https URL"


@pytest.mark.parametrize("include", ["$file", "$include", "$env"])
def test_an_included_value_is_not_quoted(problems: Problems, write: Write, include: str) -> None:
    name = "TOKEN" if include == "$env" else "secret.yaml"
    write("secret.yaml", "hunter2")
    [line] = problems(at("litellm.baseUrl", {include: name}), environ={"TOKEN": "hunter2"})
    assert line.startswith(f"litellm.baseUrl: got a string from {include} {name} in ")
    [line] = problems(at("litellm.keyGeneration.keyTypes", ["${TOKEN}"]), environ={"TOKEN": "x"})
    assert line.startswith("litellm.keyGeneration.keyTypes: got a string from ${TOKEN} in ")


@pytest.mark.parametrize(
    ("key", "value", "warning"),
    [
        ("litellm.userIdDomain", "$DOMAIN", "$DOMAIN is used as it is written; write ${DOMAIN}"),
        ("litellm.baseUrl", "http://$LITELLM_HOST:4000", "$LITELLM_HOST is used as"),
        ("litellm.teamAdmin.allowedModels", ["gpt-4o", "$MODEL"], "$MODEL is used as"),
        ("litellm.masterKey", "$HUNTER_2", "$NAME is used as it is written; write ${NAME}"),
    ],
)
def test_a_variable_without_braces_is_warned_about(
    load: Load, caplog: pytest.LogCaptureFixture, key: str, value: Any, warning: str
) -> None:
    load(at(key, value))
    assert caplog.messages[0].startswith(f"{key}: {warning}")
    assert "HUNTER" not in caplog.text


@pytest.mark.parametrize("value", ["$5", "cost $", "$lower", "$${DOMAIN}", "${DOMAIN}"])
def test_other_dollars_are_no_variables(
    load: Load, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    load(at("litellm.provisioning.defaults.models", [value]), environ={"DOMAIN": "$DOMAIN"})
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"group": 5}, ".group: got number in"),
        ("x", ": got string in app-config.yaml, wanted object"),
        ({"group": "group:default/x", "maxBudget": "ten"}, '.maxBudget: got "ten" in'),
        ({"group": "group:default/x", "models": [5]}, ".models[0]: got number in"),
        ({"group": "group:default/x", "models": [""]}, ".models[0]: got empty string in"),
        ({"group": "group:default/x", "metadata": []}, ".metadata: got list in"),
    ],
)
def test_roles_are_checked(problems: Problems, value: Any, problem: str) -> None:
    [line] = problems(at("litellm.provisioning.roles", [value]))
    assert line.startswith(f"litellm.provisioning.roles[0]{problem}")


def test_a_wrong_type_in_a_later_file_is_an_error_even_if_the_earlier_one_is_right(
    write: Write,
) -> None:
    files = [write("base.yaml", REQUIRED), write("later.yaml", "litellm: {baseUrl: [x]}")]
    problems = read_configuration(files, {}).problems
    assert problems == ["litellm.baseUrl: got list in later.yaml, wanted string"]


def test_files_of_one_name_are_told_apart(write: Write, tmp_path: Path) -> None:
    files = [write("a/app.yaml", REQUIRED), write("b/app.yaml", "litellm: {baseUrl: 5}")]
    assert read_configuration(files, {}).problems == [
        f"litellm.baseUrl: got number in {tmp_path}/b/app.yaml, wanted string"
    ]


def test_a_value_from_an_include_is_blamed_on_the_included_file(
    problems: Problems, write: Write
) -> None:
    write("limits.yaml", "defaults: {maxBudget: ten}")
    assert problems("litellm: {provisioning: {$include: limits.yaml}}") == [
        'litellm.provisioning.defaults.maxBudget: got "ten" in limits.yaml, wanted number'
    ]


# --- Unknown keys ---


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/minute", Rate(100, 60)),
        ("100 per minute", Rate(100, 60)),
        ("1/second", Rate(1, 1)),
        ("5 / hour", Rate(5, 3600)),
        ("7per day", Rate(7, 86400)),
        ("20/hour", Rate(20, 3600)),
    ],
)
def test_a_rate_is_a_number_per_time(load: Load, text: str, rate: Rate) -> None:
    limits = load(at("litellm.service.rateLimits.writes", text)).service.rate_limits
    assert limits == RateLimits(writes=rate)


def test_rate_limits_can_be_switched_off_and_on(load: Load) -> None:
    for given, enabled in ((False, False), (True, True), ("off", False)):
        settings = load(at("litellm.service.rateLimits", given))
        assert settings.service.rate_limits == RateLimits(enabled=enabled)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("cacheSecond", "cacheSecond: no such key; did you mean cacheSeconds?"),
        ("colour", "colour: no such key"),
        ("timeouts.conect", "timeouts.conect: no such key; did you mean connect?"),
        ("rateLimits.perMinute", "rateLimits.perMinute: no such key"),
        ("rateLimits.write", "rateLimits.write: no such key; did you mean writes?"),
    ],
)
def test_an_unknown_key_of_the_service_is_a_problem(
    problems: Problems, key: str, problem: str
) -> None:
    assert problems(at(f"litellm.service.{key}", 1)) == [f"litellm.service.{problem}"]


MISSPELT_ROLE = at("litellm.provisioning.roles", [{"group": "group:default/x", "maxbudget": 5}])


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        *(
            (at(key, "hunter2"), key, meant)
            for key, meant in {
                "litellm.masterkey": "masterKey",
                "litellm.base_url": "baseUrl",
                "litellm.provisionning": "provisioning",
                "litellm.teamAdmin.allowedModel": "allowedModels",
                "litellm.provisioning.defaults.max-budget": "maxBudget",
                "permission.enable": "enabled",
                "backend.auditr": "auditor",
            }.items()
        ),
        ("permision: {enabled: true}", "permision", "permission"),
        (MISSPELT_ROLE, "litellm.provisioning.roles[0].maxbudget", "maxBudget"),
    ],
)
def test_a_key_that_is_nearly_one_is_warned_about(
    load: Load, caplog: pytest.LogCaptureFixture, text: str, key: str, meant: str
) -> None:
    load(text)
    [message] = [text for text in caplog.messages if "did you mean" in text]
    assert message == f"{key}: not a key of this service; did you mean {meant}?"


def test_a_missing_key_that_is_misspelt_says_so(write: Write) -> None:
    text = "litellm: {baseUrl: 'http://x', master_key: sk-x}\nbackend: {baseUrl: 'http://y'}\n"
    reading = read_configuration([write("app-config.yaml", text)], {})
    assert reading.problems == ["litellm.masterKey: missing (master_key is written)"]


def test_ids_may_be_reserved_and_the_bridge_be_a_groups(load: Load) -> None:
    settings = load(
        "litellm: {service: {reservedUserIds: [root]}, bridge: {group: 'group:default/cli'}}"
    )
    assert settings.service.reserved_user_ids == ("root",)
    assert settings.bridge.group == "group:default/cli"


@pytest.mark.parametrize(
    "text",
    [
        "app: {title: x}\nlitellm: {title: LiteLLM, theme: {primary: red}}",
        "litellm: {provisioning: {defaults: {metadata: {maxbudget: 1, Models: 2}}}}",
        "catalog: [1]\nlitellm: {opencode: {metadata: {max_budget: 1}}}",
    ],
)
def test_keys_of_others_are_left_in_peace(
    load: Load, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    load(text)
    assert caplog.messages == []


# --- Provisioning ---


@pytest.mark.parametrize("value", [None, {}, {"maxBudget": None, "models": None, "metadata": None}])
def test_absent_defaults_are_the_documented_ones(load: Load, value: Any) -> None:
    text = at("litellm.provisioning", {"enabled": True, "defaults": value, "roles": None})
    assert load(text).provisioning == Provisioning(enabled=True)


def test_a_role_may_blank_what_the_defaults_set(load: Load) -> None:
    role = {"group": "group:default/x", "maxBudget": 0, "models": [], "teams": ["t9"]}
    blank = {"tpmLimit": 0, "userRole": "", "budgetDuration": "", "rpmLimit": None}
    text = at(
        "litellm.provisioning",
        {
            "defaults": {"models": ["a"], "rpmLimit": 5, "metadata": {"a": 1, "b": 1}},
            "roles": [{**role, **blank, "metadata": {"b": 2, "c": None}}],
        },
    )
    assert load(text).provisioning.for_groups(frozenset({"group:default/x"})) == UserDefaults(
        max_budget=0.0,
        budget_duration="",
        models=(),
        teams=("t9",),
        tpm_limit=0,
        rpm_limit=5,
        user_role="",
        metadata={"a": 1, "b": 2, "c": None},
    )


@pytest.mark.parametrize("role", [{}, {"group": ""}, {"group": None}, {"group": "${UNSET}"}])
def test_a_role_without_a_group_is_nobodys(
    load: Load, caplog: pytest.LogCaptureFixture, role: Any
) -> None:
    other = {"group": "group:default/x"}
    text = at("litellm.provisioning.roles", [{**role, "maxBudget": 1000}, other])
    assert [role.group for role in load(text).provisioning.roles] == ["group:default/x"]
    assert caplog.messages == ["litellm.provisioning.roles[0].group: missing; no user is a member"]


def test_metadata_is_merged_over_files_and_roles_are_replaced(load: Load) -> None:
    base = at("litellm.provisioning", {"defaults": {"metadata": {"a": 1, "b": {"c": 1}}}})
    environ = {
        "APP_CONFIG_litellm_provisioning_defaults_metadata": '{"a": null, "b": {"d": 2}}',
        "APP_CONFIG_litellm_provisioning_roles": '[{"group": "group:default/y"}]',
    }
    provisioning = load(base, environ=environ).provisioning
    assert provisioning.defaults.metadata == {"b": {"c": 1, "d": 2}}
    assert [role.group for role in provisioning.roles] == ["group:default/y"]


@pytest.mark.parametrize("place", ["defaults", "roles"])
def test_a_list_of_models_that_unset_variables_empty_does_not_allow_every_model(
    problems: Problems, place: str
) -> None:
    fields: dict[str, Any] = {"models": ["${MODEL}"]}
    value = fields if place == "defaults" else [{"group": "group:default/x", **fields}]
    [line] = problems(at(f"litellm.provisioning.{place}", value))
    assert "models: every entry is left out" in line


def test_a_list_that_loses_an_entry_to_an_unset_variable_is_warned_about(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load(at("litellm.provisioning.defaults.models", ["gpt-4o", "${MODEL}"]))
    assert settings.provisioning.defaults.models == ("gpt-4o",)
    assert caplog.messages == [
        "litellm.provisioning.defaults.models: an entry is left out: MODEL is not set"
    ]


@pytest.mark.parametrize("key", ["audit.group", "teamAdmin.group", "bridge.group"])
@pytest.mark.parametrize("group", ["admins", "group:admins", "Group:default/Admins"])
def test_a_group_that_nobody_can_be_in_is_warned_about(
    load: Load, caplog: pytest.LogCaptureFixture, key: str, group: str
) -> None:
    load(at(f"litellm.{key}", group) + "permission: {enabled: true}\n")
    [message] = caplog.messages
    assert message.startswith(f"litellm.{key}: not written as group:namespace/name")


# --- Warnings ---


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("litellm: {bridge: {enabled: true}}", "litellm.bridge.issuer: missing"),
        ("litellm: {userIdDomain: '@example.com'}", "litellm.userIdDomain: not a domain"),
        ("litellm: {teamAdmin: {group: 'group:default/x'}}", "litellm.teamAdmin: without effect"),
        (
            "permission: {enabled: true}\nlitellm: {teamAdmin: {allowedModels: [a]}}",
            "litellm.teamAdmin: without effect",
        ),
        (
            "backend: {auth: {dangerouslyDisableDefaultAuthPolicy: true}}",
            "backend.auth.dangerouslyDisableDefaultAuthPolicy: not honoured",
        ),
        ("backend: {cors: {methods: GET}}", "backend.cors.origin: missing"),
    ],
)
def test_what_will_not_work_as_meant_is_logged(
    load: Load, caplog: pytest.LogCaptureFixture, text: str, warning: str
) -> None:
    load(text)
    [message] = caplog.messages
    assert message.startswith(warning)
    assert caplog.records[0].levelno == logging.WARNING


def test_the_key_generation_switches_are_none_until_they_are_set(load: Load) -> None:
    assert load().key_generation == KeyGeneration(None, None)
    assert load(at("litellm.keyGeneration.teamRequired", False)).key_generation == KeyGeneration(
        None, team_required=False
    )


def test_the_types_of_keys_are_those_that_a_caller_may_have(load: Load) -> None:
    def types(value: Any) -> tuple[str, ...]:
        return load(at("litellm.keyGeneration.keyTypes", value)).key_generation.key_types

    assert load().key_generation.key_types == ("llm_api",)
    assert types(["llm_api", "read_only", "default"]) == ("llm_api", "read_only", "default")
    for wrong in (["llm_api", "management"], ["Default"]):
        with pytest.raises(
            ConfigError, match=r'keyTypes: got "(management|Default)" .* wanted only llm_api, r'
        ):
            types(wrong)


@pytest.mark.parametrize("life", ["30d", "12h", "1mo", "1y"])
def test_the_life_of_opencode_keys_is_a_duration(load: Load, life: str) -> None:
    assert load(at("litellm.opencode.keyDuration", life)).opencode.key_duration == life


@pytest.mark.parametrize("life", ["", "-1", "0d", "30", "monthly", "30d x"])
def test_no_other_life_of_opencode_keys_is_taken(load: Load, life: str) -> None:
    with pytest.raises(ConfigError, match=r"opencode\.keyDuration: "):
        load(at("litellm.opencode.keyDuration", life))


# --- Backstage ---


def test_backstage_is_at_its_public_address_or_where_the_service_reaches_it(load: Load) -> None:
    own = at("litellm.service.backstageUrl", "http://internal:7007")
    assert load(own).discovery.backstage_url == "http://internal:7007"
    assert load(own + "backend: {baseUrl: null}").discovery.backstage_url == "http://internal:7007"


def test_discovery_finds_what_backstage_finds(load: Load) -> None:
    discovery = load(
        """
        discovery:
          endpoints:
            - { target: "http://first/{{ pluginId }}", plugins: [catalog, search] }
            - { target: "http://any/{{pluginId}}/", plugins: ["*"] }
            - { target: { external: "https://out/{{pluginId}}" }, plugins: [permission] }
            - { target: { internal: "http://last/{{  pluginId}}" }, plugins: [catalog] }
        """
    ).discovery
    assert discovery.endpoints[0] == DiscoveryEndpoint("http://last/{{pluginId}}", ("catalog",))
    assert {p: discovery.base_url(p) for p in ("catalog", "search", "permission")} == {
        "catalog": "http://last/catalog",
        "search": "http://first/search",
        "permission": "http://any/permission",
    }


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ({"plugins": ["catalog"]}, "target: missing"),
        ({"target": "http://x"}, "plugins: missing"),
        ({"target": "ftp+srv://x", "plugins": []}, 'target: got "ftp+srv://x"'),
        ({"target": "http+srv://", "plugins": []}, 'target: got "http+srv://"'),
        ({"target": "http+srv://a@x", "plugins": []}, "target: got a URL with user"),
        ({"target": {"internal": "x"}, "plugins": []}, 'target.internal: got "x"'),
        ({"target": 5, "plugins": []}, "target: got number"),
    ],
)
def test_an_endpoint_without_use_is_a_problem(
    problems: Problems, endpoint: Any, problem: str
) -> None:
    [line] = problems(at("discovery.endpoints", [endpoint]))
    assert line.startswith(f"discovery.endpoints[0].{problem}")


RECORD = "http+srv://all.service.consul/api/{{pluginId}}"


def test_service_records_of_plugins_that_are_not_asked_are_let_be(load: Load) -> None:
    other = {"target": {"internal": RECORD, "external": "https://out/{{pluginId}}"}}
    discovery = load(
        yaml.safe_dump(
            {
                "discovery": {
                    "endpoints": [
                        {"target": RECORD, "plugins": ["search", "permission"]},
                        {**other, "plugins": ["catalog", "auth"]},
                    ]
                }
            }
        )
    ).discovery
    assert discovery.base_url("catalog") == "https://out/catalog"
    assert discovery.base_url("search") == "http+srv://all.service.consul/api/search"


@pytest.mark.parametrize(
    ("plugins", "blamed"),
    [
        (["catalog"], ["catalog"]),
        (["auth"], ["auth"]),
        (["permission"], ["permission"]),
        (["*"], ["auth", "catalog", "permission"]),
    ],
)
@pytest.mark.parametrize("target", [RECORD, {"internal": RECORD}], ids=["one", "internal"])
def test_a_service_record_of_a_plugin_that_is_asked_is_a_problem(
    problems: Problems, plugins: list[str], blamed: list[str], target: Any
) -> None:
    config = {
        "permission": {"enabled": True},
        "discovery": {"endpoints": [{"target": target, "plugins": plugins}]},
    }
    assert problems(yaml.safe_dump(config)) == [
        f"discovery.endpoints: the target for {plugin} is a DNS service record; "
        "wanted an http or https URL, as target.internal or target.external"
        for plugin in blamed
    ]


@pytest.mark.parametrize(
    ("cors", "expected"),
    [
        (None, None),
        (False, None),
        ({"origin": "http://a"}, Cors(("http://a",))),
        ({"origin": ["http://a", "https://*.b"]}, Cors(("http://a", "https://*.b"))),
        (
            {
                "origin": "http://a",
                "methods": "GET, POST",
                "allowedHeaders": ["A", "B,C"],
                "exposedHeaders": "D",
                "credentials": "yes",
                "maxAge": "60",
            },
            Cors(("http://a",), ("GET", "POST"), ("A", "B", "C"), ("D",), True, 60),
        ),
        ({}, Cors(())),
    ],
)
def test_cors_is_none_or_lets_the_named_origins_in(
    load: Load, cors: Any, expected: Cors | None
) -> None:
    assert load(at("backend.cors", cors)).cors == expected


# --- Who may call ---


def access(**entry: Any) -> str:
    return at("backend.auth.externalAccess", [entry])


STATIC = {"type": "static", "options": {"token": "a-long-token", "subject": "nightly"}}


def test_external_access_has_three_types_and_an_old_form(load: Load) -> None:
    text = at(
        "backend.auth",
        {
            "externalAccess": [
                STATIC,
                {"type": "legacy", "options": {"secret": "c2VjcmV0", "subject": "old"}},
                {
                    "type": "jwks",
                    "options": {
                        "url": "https://issuer/keys?p=b2c",
                        "issuer": "https://issuer",
                        "audience": "a, b c",
                        "algorithm": ["RS256", "ES256"],
                        "subjectPrefix": "ci",
                    },
                },
                {"type": "jwks", "options": {"url": "https://open/keys"}},
            ],
            "keys": [{"secret": "b2xk"}],
        },
    )
    assert load(text).external_access == (
        StaticAccess("a-long-token", "nightly"),
        LegacyAccess(b"secret", "old"),
        JwksAccess(
            "https://issuer/keys?p=b2c",
            issuers=("https://issuer",),
            audiences=("a", "b", "c"),
            algorithms=("RS256", "ES256"),
            subject_prefix="ci",
        ),
        JwksAccess("https://open/keys"),
        LegacyAccess(b"old", "external:backstage-plugin"),
    )


@pytest.mark.parametrize(
    ("restriction", "expected"),
    [
        ({}, AccessRestriction("litellm")),
        ({"permission": "a.b, c.d"}, AccessRestriction("litellm", frozenset({"a.b", "c.d"}))),
        ({"permission": ["a.b"]}, AccessRestriction("litellm", frozenset({"a.b"}))),
        (
            {"permissionAttribute": {"action": ["read", "create"]}},
            AccessRestriction("litellm", actions=frozenset({"read", "create"})),
        ),
    ],
)
def test_access_can_be_restricted(
    load: Load, restriction: Mapping[str, Any], expected: AccessRestriction
) -> None:
    listed = [{"plugin": "catalog"}, {"plugin": "litellm", **restriction}]
    text = at("backend.auth.externalAccess", [{**STATIC, "accessRestrictions": listed}])
    [entry] = load(text).external_access
    assert entry.restrictions == (AccessRestriction("catalog"), expected)


@pytest.mark.parametrize(
    ("restrictions", "problem"),
    [
        ([], "accessRestrictions: got no entry"),
        ({}, "accessRestrictions: got object"),
        ("${UNSET}", "accessRestrictions: missing (UNSET is not set)"),
        (["${UNSET}"], "accessRestrictions: got no entry"),
        (None, "accessRestrictions: missing (null in app-config.yaml)"),
        ({"$env": "UNSET"}, "accessRestrictions: missing (UNSET is not set)"),
        (
            {"$include": "app-config.yaml#nope"},
            "accessRestrictions: missing ($include app-config.yaml#nope in app-config.yaml has",
        ),
        ({"$include": "nope.yaml"}, "accessRestrictions: $include nope.yaml in app-config.yaml"),
        ([{}], "accessRestrictions[0].plugin: missing"),
        ([{"plugin": "a"}, {"plugin": "a"}], "accessRestrictions[1].plugin: the same plugin"),
        ([{"plugin": "a", "permisson": "x"}], "accessRestrictions[0].permisson: no such key"),
        ([{"plugin": "a", "permission": []}], "accessRestrictions[0].permission: got no entry"),
        ([{"plugin": "a", "permission": " ,"}], "accessRestrictions[0].permission: got no entry"),
        ([{"plugin": "a", "permission": 5}], "accessRestrictions[0].permission: got number"),
        (
            [{"plugin": "a", "permission": "${UNSET}"}],
            "accessRestrictions[0].permission: missing (UNSET is not set)",
        ),
        (
            [{"plugin": "a", "permissionAttribute": {}}],
            "accessRestrictions[0].permissionAttribute.action: missing",
        ),
        (
            [{"plugin": "a", "permissionAttribute": "${UNSET}"}],
            "accessRestrictions[0].permissionAttribute.action: missing (UNSET is not set)",
        ),
        (
            [{"plugin": "a", "permissionAttribute": {"action": "write"}}],
            'accessRestrictions[0].permissionAttribute.action: got "write"',
        ),
        (
            [{"plugin": "a", "permissionAttribute": {"name": "x", "action": "read"}}],
            "accessRestrictions[0].permissionAttribute.name: no such key",
        ),
    ],
)
def test_a_restriction_that_restricts_nothing_never_becomes_full_access(
    problems: Problems, restrictions: Any, problem: str
) -> None:
    [line] = problems(access(**STATIC, accessRestrictions=restrictions))
    assert line.startswith(f"backend.auth.externalAccess[0].{problem}")


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("static", {"token": "short12", "subject": "x"}, "token: got a string (not shown)"),
        ("static", {"token": "with a space", "subject": "x"}, "token: got a string (not shown)"),
        ("static", {"token": "long-enough"}, "subject: missing"),
        ("static", {"token": "long-enough", "subject": "a b"}, 'subject: got "a b"'),
        ("static", {"token": "${UNSET}", "subject": "x"}, "token: missing (UNSET is not set)"),
        ("legacy", {"secret": "not base64!", "subject": "x"}, "secret: got a string (not shown)"),
        ("legacy", {"subject": "x"}, "secret: missing"),
        ("jwks", {}, "url: missing"),
        ("jwks", {"url": "issuer"}, 'url: got "issuer"'),
        ("jwks", {"url": "https://x", "algorithm": "HS256"}, 'algorithm: got "HS256"'),
        ("jwks", {"url": "https://x", "algorithm": "none"}, 'algorithm: got "none"'),
        ("jwks", {"url": "https://x", "audience": "${UNSET}"}, "audience: missing (UNSET is"),
        ("jwks", {"url": "https://x", "issuer": []}, "issuer: got no entry"),
        (
            "static",
            {"token": "long-enough", "subject": "x", "accessRestrictions": [{"plugin": "a"}]},
            "accessRestrictions: without effect here",
        ),
    ],
)
def test_an_access_entry_that_is_not_complete_is_a_problem(
    problems: Problems, kind: str, options: Any, problem: str
) -> None:
    [line] = problems(access(type=kind, options=options))
    assert line.startswith(f"backend.auth.externalAccess[0].options.{problem}")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"type": "mtls", "options": {}}, '.type: got "mtls" in app-config.yaml, wanted'),
        ({"type": 5, "options": {}}, ".type: got number in app-config.yaml, wanted static, legacy"),
        ({"options": {}}, ".type: missing"),
        ({"type": "${UNSET}", "options": {}}, ".type: missing (UNSET is not set)"),
        ("text", ": got string in app-config.yaml, wanted object"),
    ],
)
def test_an_unknown_type_of_access_is_a_problem(
    problems: Problems, entry: Any, problem: str
) -> None:
    [line] = problems(at("backend.auth.externalAccess", [entry]))
    assert line.startswith(f"backend.auth.externalAccess[0]{problem}")


@pytest.fixture
def key_files(write: Write) -> None:
    for name in ("pub.pem", "key.pem", "old.pem"):
        write(f"keys/{name}", "")


SIGNING = {"keyId": "k1", "publicKeyFile": "keys/pub.pem", "privateKeyFile": "keys/key.pem"}


@pytest.mark.usefixtures("key_files")
def test_static_plugin_keys_are_files_below_the_working_directory(
    load: Load, tmp_path: Path
) -> None:
    old = {"keyId": "k0", "publicKeyFile": "keys/old.pem", "algorithm": "RS256"}
    store = {"type": "static", "static": {"keys": [SIGNING, old]}}
    keys = tmp_path / "keys"
    assert load(at("backend.auth.pluginKeyStore", store)).plugin_keys == (
        StaticPluginKey("k1", keys / "pub.pem", keys / "key.pem"),
        StaticPluginKey("k0", keys / "old.pem", None, "RS256"),
    )


@pytest.mark.parametrize("store", [None, {}, {"type": "database"}, {"static": {"keys": 5}}])
def test_without_a_static_store_there_are_no_plugin_keys(load: Load, store: Any) -> None:
    assert load(at("backend.auth.pluginKeyStore", store)).plugin_keys == ()


@pytest.mark.usefixtures("key_files")
@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (None, ": missing"),
        ([], ": empty"),
        ("x", ": got string"),
        ([{**SIGNING, "privateKeyFile": None}], "[0].privateKeyFile: missing"),
        ([{**SIGNING, "keyId": 5}], "[0].keyId: got number"),
        ([{**SIGNING, "publicKeyFile": "nope.pem"}], '[0].publicKeyFile: got "nope.pem"'),
        ([{**SIGNING, "algorithm": "HS256"}], '[0].algorithm: got "HS256"'),
        ([SIGNING, {"keyId": "k2"}], "[1].publicKeyFile: missing"),
    ],
)
def test_a_static_store_that_cannot_sign_is_a_problem(
    problems: Problems, keys: Any, problem: str
) -> None:
    store = {"type": "static", "static": {"keys": keys}}
    [line] = problems(at("backend.auth.pluginKeyStore", store))
    assert line.startswith(f"backend.auth.pluginKeyStore.static.keys{problem}")
