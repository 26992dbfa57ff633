"""``python -m fuzz.fuzz_run TARGET``: fuzzes until its time is over, or it finds something.

atheris has libFuzzer make inputs, and keeps those that reach something new. What it finds is put
into a file whose name it prints; ``python -m fuzz.fuzz_run TARGET FILE`` tries that input again.

Exit status: 0 nothing was found; 75 (``EX_TEMPFAIL``) there is no atheris for this Python or
machine; any other one, something was found.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

ATHERIS = ("tokens", "config", "shapes")
TARGETS = ("stateful", *ATHERIS)
MEASURED = ("litellm_plugin", "joserfc")  # whose branches guide atheris
SLOW = 5.0  # seconds of CPU for one input, which would be a finding; it has milliseconds
CORPUS = Path(__file__).with_name(".corpus")


def main(arguments: list[str] | None = None) -> int:
    """Fuzz; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.fuzz_run")
    parser.add_argument("target", choices=("all", *TARGETS), help="all: two at a time")
    parser.add_argument("inputs", nargs="*", type=Path, help="try these files, and nothing else")
    parser.add_argument("--seconds", type=int, default=90, help="for each target (default: 90)")
    options = parser.parse_args(arguments)
    if options.target == "all":
        return _all(options.seconds)
    # What is logged of made-up requests is of no use; some targets look at it themselves.
    logging.basicConfig(handlers=[logging.NullHandler()])
    if options.target == "stateful":
        return int(importlib.import_module("fuzz.stateful").run(options.seconds))
    if options.inputs:
        target = importlib.import_module(f"fuzz.{options.target}")
        for file in options.inputs:
            target.one_input(file.read_bytes())
        return 0
    return _with_atheris(options.target, options.seconds)


def _all(seconds: int) -> int:
    with ThreadPoolExecutor(2) as pool:
        return max(pool.map(lambda target: _reported(target, seconds), TARGETS))


def _reported(target: str, seconds: int) -> int:
    """Fuzz a target in a process of its own, and say how it went."""
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "fuzz.fuzz_run", target, "--seconds", str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if ran.returncode == os.EX_TEMPFAIL:
        print(ran.stdout, end="", flush=True)
        return 0
    counted = [line for line in ran.stdout.splitlines() if "executed_units" in line]
    counted += [line for line in ran.stdout.splitlines() if line.endswith(" requests")]
    if ran.returncode:
        print(ran.stdout)
    how = "FOUND SOMETHING" if ran.returncode else "nothing found"
    took = time.monotonic() - began
    print(f"fuzz: {target}: {how} in {took:.0f} s; {''.join(counted[-1:])}", flush=True)
    return ran.returncode


def _with_atheris(name: str, seconds: int) -> int:
    try:
        import atheris  # noqa: PLC0415 - it is not there for every Python
    except ImportError:
        print(f"fuzz: {name} SKIPPED: there is no atheris for this Python or machine")
        return os.EX_TEMPFAIL
    with atheris.instrument_imports(include=list(MEASURED)):
        target = importlib.import_module(f"fuzz.{name}")
    folder = CORPUS / name
    for part in ("reached", "seeds"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(dict.fromkeys(target.seeds())):
        (folder / "seeds" / f"{number:04}").write_bytes(seed)
    (folder / "words").write_text("".join(map(_quoted, target.WORDS)))
    print(f"fuzz: {name} for {seconds} seconds, from {time.asctime()}", flush=True)
    atheris.Setup(
        [
            f"fuzz_run:{name}",
            f"-max_total_time={seconds}",
            f"-dict={folder / 'words'}",
            f"-artifact_prefix={folder}/found-",
            # Its own time-out takes a process that was stopped for a while for a slow input.
            *("-timeout=100000", "-report_slow_units=100000"),
            *("-max_len=8000", "-rss_limit_mb=2048", "-print_final_stats=1"),
            *(str(folder / "reached"), str(folder / "seeds")),
        ],
        lambda data: _timed(target, data),
    )
    atheris.Fuzz()  # ends the process
    return 0


def _timed(target: ModuleType, data: bytes) -> None:
    before = time.process_time()
    target.one_input(data)
    assert time.process_time() - before < SLOW, "an input that takes long"


def _quoted(word: str) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n'


if __name__ == "__main__":
    sys.exit(main())
