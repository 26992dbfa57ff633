"""The dashboard asks for metrics and labels that the service has, and Grafana can read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.observability import metrics

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "litellm-plugin.json").read_text())
PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()

FAMILIES = (
    *(metrics.REQUESTS, metrics.UPSTREAM, metrics.CIRCUITS_OPEN, metrics.CACHE),
    *(metrics.PROVISIONING, metrics.DENIALS, metrics.TOKEN_FAILURES, metrics.RATE_LIMITED),
    *(metrics.BUILD, metrics.READY, metrics.JOB_SUCCESS, metrics.JOB_FAILURE),
)
TARGETS = {"job", "instance", "le"}  # what Prometheus and histograms add


def _exported() -> dict[str, set[str]]:
    """Return the labels of each series that is exported."""
    exported = {}
    for family in FAMILIES:
        (described,) = family.describe()
        labels = set(family._labelnames)
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        for ending in endings.get(described.type, ("",)):
            exported[described.name + ending] = labels
    return exported


def _queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    yield from re.findall(
        r"^\| [^|]+ \| `(.+)` \|$",
        PAGE.partition("### Alerts")[2].partition("\n## ")[0],
        re.MULTILINE,
    )


EXPORTED = _exported()


@pytest.mark.parametrize("query", list(_queries()))
def test_a_query_asks_for_what_is_exported(query: str) -> None:
    query = query.replace(r"\|", "|")
    names = re.findall(r"litellm_plugin_\w+", query)
    assert names or query.startswith("up{")
    for name in names:
        assert name in EXPORTED
    known = set().union(*(EXPORTED[name] for name in names)) | TARGETS
    selected = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query)
    grouped = re.findall(r"by \(([^)]*)\)", query)
    used = {*selected, *(label.strip() for group in grouped for label in group.split(","))}
    assert used <= known


def test_every_metric_has_a_panel() -> None:
    asked = " ".join(_queries())
    for family in FAMILIES:
        (described,) = family.describe()
        assert described.name in asked


def test_panels_are_whole_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (at["x"] + column, at["y"] + row) for column in range(at["w"]) for row in range(at["h"])
        }
        assert not taken & cells
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used - {"__rate_interval"} <= variables
