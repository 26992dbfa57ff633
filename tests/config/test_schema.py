"""The JSON Schema for editors: it takes what the service takes, and marks what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from litellm_plugin.config import yaml12
from litellm_plugin.config.schema import editor_schema
from tests.config import example

CONTRACT = Path(__file__).parents[1] / "contract"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = editor_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(validator: Draft202012Validator, text: str) -> list[str]:
    return [error.json_path for error in validator.iter_errors(yaml12.load(text))]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(example.PATH.read_text(encoding="utf-8"), id="app-config.yaml"),
        pytest.param(example.everything_on(), id="all of it"),
        *(
            pytest.param(file.read_text(encoding="utf-8"), id=file.name)
            for file in sorted(CONTRACT.glob("*.yaml")) + sorted(CONTRACT.glob("variants/*.yaml"))
        ),
        "{app: {title: x}, litellm: {title: LiteLLM}}",
        "litellm: {masterKey: {$env: X}, provisioning: {$include: x.yaml}, service: null}",
        "litellm: {opencode: {maxBudget: '${X}', enabled: 'yes'}, service: {tracing: '${X}'}}",
        "litellm: {service: {rateLimits: false}}",
        "litellm: {keyPolicy: {maxBudget: unlimited}}",
        "backend: {cors: false, cache: {store: redis, connection: {url: 'redis://x'}}}",
    ],
)
def test_it_takes_what_the_service_takes(validator: Draft202012Validator, text: str) -> None:
    assert faults(validator, text) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("litellm: {baseUrl: 5}", "$.litellm"),
        ("litellm: {service: {cacheSecond: 5}}", "$.litellm"),
        ("litellm: {opencode: {maxBudget: -1}}", "$.litellm"),
        ("litellm: {keyPolicy: {maxDuration: monthly}}", "$.litellm"),
        ("litellm: {teamAdmin: {allowedModels: gpt-4o}}", "$.litellm"),
        ("backend: {auth: {externalAccess: [{type: mtls, options: {}}]}}", "$.backend"),
        ("backend: {auth: {externalAccess: [{type: static, options: {}}]}}", "$.backend"),
        ("discovery: {endpoints: [{plugins: [a]}]}", "$.discovery"),
        ("permission: {enabled: maybe}", "$.permission"),
    ],
)
def test_it_marks_what_the_service_refuses(
    validator: Draft202012Validator, text: str, place: str
) -> None:
    assert faults(validator, text) == [place]


def test_it_tells_editors_what_a_key_is_for() -> None:
    schema: Any = editor_schema()["properties"]["litellm"]["anyOf"][0]["properties"]
    assert schema["publicBaseUrl"]["description"] == "address shown to browsers in place of baseUrl"
    assert schema["opencode"]["anyOf"][0]["properties"]["maxBudget"]["default"] == 50
