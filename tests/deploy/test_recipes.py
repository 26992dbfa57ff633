"""The other files of ``deploy/``: what they are for accepts them."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from litellm_plugin.config import load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
REDIS = DEPLOY / "kubernetes" / "redis"
JOBS = DEPLOY / "kubernetes" / "jobs"
SYSTEMD = DEPLOY / "systemd"
SECRETS = {
    "LITELLM_MASTER_KEY": "sk-somebodys",
    "REDIS_URL": "redis://:secret@redis:6379/0",
    "POSTGRES_PASSWORD": "a-secret-of-postgres",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of the Kubernetes recipe, with its signing key where it can be found."""
    text = (BASE / "app-config.yaml").read_text(encoding="utf-8")
    folder = "/etc/litellm-plugin/signing-key"
    assert text.count(f"{folder}/") == 2
    for name in ("public.pem", "private.pem"):
        (tmp_path / name).touch()
    file = tmp_path / "app-config.yaml"
    file.write_text(text.replace(folder, str(tmp_path)), encoding="utf-8")
    return file


def test_the_configurations_are_read_without_a_word(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    discovery = DEPLOY / "backstage" / "app-config.discovery.yaml"
    with caplog.at_level(logging.INFO):
        alone = load_settings([config, discovery], SECRETS)
        shared = load_settings([config, REDIS / "app-config.redis.yaml"], SECRETS)
    assert alone.discovery.base_url("litellm") == "http://litellm-plugin:5000/api/litellm"
    assert alone.service.trusted_proxies == 1
    assert alone.cache.connection is None
    assert shared.cache.connection == SECRETS["REDIS_URL"]
    stored = load_settings([config, JOBS / "app-config.jobs.yaml"], SECRETS)
    assert len(shared.plugin_keys) == 1
    assert stored.uses_store
    assert stored.database.password == SECRETS["POSTGRES_PASSWORD"]
    assert not stored.provisioning.sync.applies
    assert caplog.messages == []


@cache
def _all(folder: Path) -> list[dict[str, Any]]:
    """Return all objects that kustomize makes of a folder."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    made = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(made.stdout))


def _of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the service's object of each kind."""
    own = [made for made in _all(folder) if made["metadata"]["name"] == "litellm-plugin"]
    return {made["kind"]: made for made in own}


@pytest.mark.parametrize("folder", [BASE, REDIS, JOBS], ids=lambda folder: folder.name)
def test_the_pods_run_as_the_image_lets_them(folder: Path) -> None:
    objects = _of(folder)
    spec = objects["Deployment"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["replicas"] == 2
    assert objects["PodDisruptionBudget"]["spec"]["minAvailable"] == 1
    assert pod["terminationGracePeriodSeconds"] > 45 + 5  # graceful_timeout, and the pause
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert f"USER {pod['securityContext']['runAsUser']}:" in _dockerfile()
    labels = spec["selector"]["matchLabels"]
    for kind, selector in (("Service", "selector"), ("NetworkPolicy", "podSelector")):
        found = objects[kind]["spec"][selector]
        assert found.get("matchLabels", found) == labels
    # Every variable that the configuration names is given, from a secret and nowhere else.
    given = {one["name"]: one for one in container["env"] if "valueFrom" in one}
    files = list(folder.glob("app-config*.yaml"))
    named = {name for name in SECRETS if any(name in file.read_text() for file in files)}
    assert named <= set(given)
    assert all("secretKeyRef" in one["valueFrom"] for one in given.values())
    assert not any(value in str(objects) for value in SECRETS.values())


def _dockerfile() -> str:
    return (DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", [BASE, REDIS, JOBS], ids=lambda folder: folder.name)
def test_kubernetes_knows_every_field(folder: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for found in _all(folder):
        assert validate(found, "1.34", strict=True)


def test_the_dockerfile_is_found_to_be_in_order() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.is_file():
        pytest.skip("hadolint is not installed")
    done = subprocess.run(
        [hadolint, DEPLOY / "docker" / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_jobs_run_as_the_service_does() -> None:
    pod = _of(JOBS)["Deployment"]["spec"]["template"]["spec"]
    jobs = [made for made in _all(JOBS) if made["kind"] == "CronJob"]
    assert [job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
            for job in jobs] == [["notify"], ["offboard"], ["prune"], ["sync"]]  # fmt: skip
    for job in jobs:
        template = job["spec"]["jobTemplate"]["spec"]["template"]
        found = template["spec"]
        for name in ("securityContext", "serviceAccountName", "automountServiceAccountToken"):
            assert found[name] == pod[name]
        (container,), (service,) = found["containers"], pod["containers"]
        for name in ("image", "securityContext"):
            assert container[name] == service[name]
        assert {one["name"] for one in container["env"]} == {one["name"] for one in service["env"]}
        assert {volume["name"] for volume in found["volumes"]} == {
            mount["name"] for mount in container["volumeMounts"]
        }
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        # Or the service would send requests to these pods.
        selector = _of(JOBS)["Service"]["spec"]["selector"]
        assert not selector.items() <= template["metadata"]["labels"].items()


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    units = sorted(SYSTEMD.iterdir())
    for unit in units:
        text = unit.read_text(encoding="utf-8")
        # It wants the programs to be there.
        text = re.sub(r"/opt/litellm-plugin/bin/[a-z-]+", "/bin/true", text)
        (tmp_path / unit.name).write_text(text)
    names = [unit.name.replace("@", "@sync") for unit in units]
    done = subprocess.run(
        [analyze, "verify", "--man=no", *names],
        cwd=tmp_path,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_job_of_systemd_is_as_hardened_as_the_service() -> None:
    def hardened(name: str) -> set[str]:
        text = (SYSTEMD / name).read_text(encoding="utf-8")
        return {line for line in text.partition("DynamicUser=yes")[2].splitlines() if "=" in line}

    service, job = hardened("litellm-plugin.service"), hardened("litellm-plugin-job@.service")
    assert service - job == {"WantedBy=multi-user.target"}
    assert job <= service
