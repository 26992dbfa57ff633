"""Ask for known vulnerabilities of everything that is locked here.

``pip-audit`` says "none found" also of packages that its source of data does not know, as behind
a mirror without PyPI's advisories. Here that is no answer: the next source is asked, and in the
end it is said which packages nobody could tell anything about.

Exit status: 0 all were audited and none is known to be vulnerable; 1 one is; 75 (``EX_TEMPFAIL``)
not all could be audited. Arguments are handed on to pip-audit (``--ignore-vuln ID``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOCKS = sorted(Path(__file__).parent.glob("*.txt"))
SOURCES = ("pypi", "osv")

Report = dict[str, Any]
"""What pip-audit reports: ``dependencies``, each with ``vulns`` or a ``skip_reason``."""


def pip_audit(source: str, arguments: list[str]) -> Report | str:
    """Return what pip-audit finds with the data of ``source``, or why it finds nothing out."""
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip"),
            *("--vulnerability-service", source, "--format", "json", "--progress-spinner", "off"),
            *(word for lock in LOCKS for word in ("--requirement", str(lock))),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report: Report = json.loads(ran.stdout)
    except ValueError:
        return (ran.stderr.strip().splitlines() or [f"status {ran.returncode}"])[-1]
    return report


def main(
    arguments: list[str],
    say: Callable[[str], object] = print,
    ask: Callable[[str, list[str]], Report | str] = pip_audit,
) -> int:
    """Audit; return the exit status."""
    for source in SOURCES:
        report = ask(source, arguments)
        if isinstance(report, str):
            say(f"audit: no data from {source}: {report}")
            continue
        packages = report["dependencies"]
        vulnerable = [package for package in packages if package.get("vulns")]
        for package in vulnerable:
            for found in package["vulns"]:
                mended = ", ".join(found["fix_versions"]) or "no release yet"
                say(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
        if vulnerable:
            return 1
        unknown = [package for package in packages if "skip_reason" in package]
        if not unknown:
            say(f"audit: {len(packages)} packages, none known by {source} to be vulnerable")
            return 0
        say(
            f"audit: {source} has no data on {len(unknown)} of {len(packages)} packages: "
            f"{unknown[0]['skip_reason']}, …"
        )
    say("audit: NOT AUDITED, the data could not be reached")
    return os.EX_TEMPFAIL


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
