"""The other files of ``deploy/``: what they are for accepts them."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from litellm_plugin.config import load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
REDIS = DEPLOY / "kubernetes" / "redis"
SECRETS = {"LITELLM_MASTER_KEY": "sk-somebodys", "REDIS_URL": "redis://:secret@redis:6379/0"}


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
    assert len(shared.plugin_keys) == 1
    assert caplog.messages == []


def _of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the last object of each kind that kustomize makes of a folder."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    made = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=True
    )
    return {found["kind"]: found for found in yaml.safe_load_all(made.stdout)}


@pytest.mark.parametrize("folder", [BASE, REDIS], ids=lambda folder: folder.name)
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


@pytest.mark.parametrize("folder", [BASE, REDIS], ids=lambda folder: folder.name)
def test_kubernetes_knows_every_field(folder: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for found in _of(folder).values():
        assert validate(found, "1.34", strict=True)


def test_the_dockerfile_is_found_to_be_in_order() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.is_file():
        pytest.skip("hadolint is not installed")
    done = subprocess.run(
        [hadolint, DEPLOY / "docker" / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "litellm-plugin.service"
    text = (DEPLOY / "systemd" / "litellm-plugin.service").read_text(encoding="utf-8")
    # It wants the program to be there.
    unit.write_text(text.replace("/opt/litellm-plugin/bin/gunicorn", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
