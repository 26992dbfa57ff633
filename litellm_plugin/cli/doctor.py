"""``doctor``: checks all that the service needs, and prints a remedy for each fault."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from litellm_plugin import __version__
from litellm_plugin.cli.checks import (
    Check,
    Result,
    Status,
    backstage,
    litellm,
    notifications,
    references,
    run,
    store,
    surroundings,
)
from litellm_plugin.cli.terminal import (
    FAULTY,
    STYLES,
    Page,
    config_option,
    json_option,
    paths_of,
    show,
)
from litellm_plugin.cli.token import credential
from litellm_plugin.cli.world import World
from litellm_plugin.config import ConfigError, Reading, read_configuration
from litellm_plugin.config.report import deepest, dotted
from litellm_plugin.plugin import check_installed
from litellm_plugin.redaction import safe_line

CREDENTIALS = "CREDENTIALS_DIRECTORY"  # where systemd's LoadCredential puts files

CHECKS: tuple[Check, ...] = (
    Check("configuration", "Configuration", surroundings.configuration),
    Check("litellm", "LiteLLM answers", litellm.answers),
    Check("litellm-version", "LiteLLM's version", litellm.version, needs=("litellm", "master-key")),
    Check("master-key", "Master key", litellm.master_key, needs=("litellm",)),
    Check("backstage", "Backstage answers", backstage.answers),
    Check("permission", "Permission API", backstage.permission_answers, needs=("backstage",)),
    Check("user-keys", "Keys of user tokens", backstage.user_keys, needs=("backstage",)),
    Check("other-keys", "Keys of other issuers", backstage.other_keys),
    Check("plugin-key", "Our plugin key", backstage.plugin_key),
    Check("finds-us", "Backstage finds us", backstage.finds_us, needs=("backstage", "plugin-key")),
    Check(
        "catalog-token",
        "Our token: catalog",
        backstage.catalog_accepts_us,
        needs=("backstage", "finds-us"),
    ),
    Check(
        "permission-token",
        "Our token: permission",
        backstage.permission_accepts_us,
        needs=("permission", "catalog-token"),
    ),
    Check("groups", "Groups", references.groups, needs=("catalog-token",)),
    Check("user-ids", "User ids", references.user_ids, needs=("catalog-token",)),
    Check("offboarding", "Offboarding", references.offboarding, needs=("catalog-token",)),
    Check("teams", "Teams", references.teams, needs=("master-key",)),
    Check("models", "Models", references.models, needs=("master-key",)),
    Check("group-sync", "Group sync", references.sync, needs=("master-key",)),
    Check("objects", "Vector stores, MCP", references.objects, needs=("master-key",)),
    Check("notifications", "Notifications", notifications.notifications, needs=("catalog-token",)),
    Check("shared-cache", "Shared cache", surroundings.shared_cache),
    Check("store", "Store", store.works),
    Check("replicas", "Store of replicas", store.replicas),
    Check("clocks", "Clocks", surroundings.clocks, after=("litellm", "backstage")),
    Check("ingress", "Through the ingress", surroundings.ingress, after=("plugin-key",)),
)


@click.command()
@config_option
@click.option(
    "--url",
    metavar="URL",
    help="Check the way through the ingress too; the URL that browsers use: "
    "https://.../api/litellm.",
)
@click.option(
    "--token-file",
    type=click.File("r"),
    help="File with a Backstage user's token for requests to --url; - is standard input.",
)
@json_option
def doctor(
    files: Sequence[Path], url: str | None, token_file: TextIO | None, *, as_json: bool
) -> None:
    """Check all that the service needs, and print a remedy for each fault.

    Only reads. Ends with status 0 if no check failed, 1 if one failed, and 2 if the
    configuration is faulty.
    """
    reading = read_configuration(paths_of(files), os.environ)
    if reading.settings is None:
        problems = [*reading.problems, *reading.warnings]
        _end_faulty(problems, _how_to_correct(files, reading.problems), as_json=as_json)
    try:
        check_installed(reading.settings)
    except ConfigError as exc:
        _end_faulty(exc.problems, _CORRECT, as_json=as_json)
    token = credential(token_file) if token_file else None
    world = World(reading.settings, [*reading.warnings, *_unset(reading)], url, token)
    results: dict[str, Result] = {}
    with Page(err=True).progress("Checking ...") as tell:
        for check, result in run(CHECKS, world):
            results[check.id] = result
            tell(f"{len(results)} of {len(CHECKS)}: {check.title}")
    found = _found(results)
    show(found, _print, as_json=as_json, failed=not found["ok"])


_CORRECT = (
    "Correct the configuration, or name other files with --config or LITELLM_PLUGIN_CONFIG; "
    "config check lists every key."
)


def _how_to_correct(files: Sequence[Path], problems: Sequence[str]) -> str:
    """Return the remedy for a faulty configuration."""
    if any(f"{CREDENTIALS} is not set" in problem for problem in problems):
        return (
            f"systemd sets {CREDENTIALS} for the service only: run doctor by systemd-run, as "
            "docs/command-line.md shows."
        )
    if not files and not os.environ.get("LITELLM_PLUGIN_CONFIG"):
        return (
            "LITELLM_PLUGIN_CONFIG is not set, so app-config.yaml of the working directory is "
            "read. Set it to the service's files, separated by commas, or name them with --config."
        )
    return _CORRECT


def _unset(reading: Reading) -> list[str]:
    """Return the keys that are left out because a variable is not set."""
    return [
        safe_line(f"{dotted(key.path)}: left out, as {reason}")
        for key in reading.keys
        if key.value is None
        and "is not set" in (reason := deepest(key.path, reading.tree.left_out) or "")
    ]


def _end_faulty(problems: Sequence[str], remedy: str, *, as_json: bool) -> NoReturn:
    results = {"configuration": Result(Status.FAILED, "\n".join(problems), remedy)}
    if as_json:  # has every check
        skipped = Result(Status.SKIPPED, "The configuration is faulty", because=("configuration",))
        results = {**{check.id: skipped for check in CHECKS}, **results}
    show(_found(results), _print, as_json=as_json)
    sys.exit(FAULTY)


def _found(results: Mapping[str, Result]) -> dict[str, Any]:
    counts = Counter(result.status for result in results.values())
    return {
        "ok": not counts[Status.FAILED],
        "version": __version__,
        "counts": {status.value: counts[status] for status in Status},
        "checks": [
            {"id": check.id, "title": check.title, **asdict(results[check.id])}
            for check in CHECKS
            if check.id in results
        ],
    }


def _print(page: Page, found: dict[str, Any]) -> None:
    rows = []
    for check in found["checks"]:
        status = check["status"]
        word = status.upper() if status == Status.FAILED else status
        style = STYLES["skipped"] if status == Status.SKIPPED else ""
        text = check["found"] + (f"\n> {check['remedy']}" if check["remedy"] else "")
        rows.append(((word, STYLES[status]), (check["title"], style), (text, style)))
    page.rows(rows, indent=0)
    page.line()
    summary = ", ".join(f"{number} {word}" for word, number in found["counts"].items() if number)
    page.line(f"{summary}.", STYLES["ok" if found["ok"] else "failed"])
