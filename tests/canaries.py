"""Searches what the suite writes for secrets: tokens, keys, the master key, passwords.

Every test runs under watch. What is looked at: each record of each logger, as it would be
written at level DEBUG and with its traceback; each answer of the application; the text and the
``repr`` of each of our errors; what a test printed; and, at the end, the files that the
processes of a host share.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from litellm_plugin.errors import PluginError
from tests.fakes.litellm import MASTER_KEY
from tests.tokens import LEGACY_SECRET, STATIC_TOKEN, b64url

# What an application of the tests is configured with. All of it can be told from other text.
PASSWORD = "canary-redis-password"
CONFIGURED = (
    MASTER_KEY,
    STATIC_TOKEN,
    "rig-static-catalog-only-token",
    "rig-static-litellm-read-token",
    "rig-static-litellm-keycreate-token",
    LEGACY_SECRET.decode(),
    "cmlnLWxlZ2FjeS1zZWNyZXQtMDEyMzQ1Njc4OQ==",  # the same, as it is configured
    b64url(LEGACY_SECRET),
    PASSWORD,
)
_CONFIGURED = re.compile("|".join(map(re.escape, CONFIGURED)))

# What is made on the way: signed tokens, keys of LiteLLM, private keys.
_TOKEN = re.compile(r"eyJ[\w-]{6,}\.eyJ[\w-]{6,}\.[\w-]{16,}")
_KEY = re.compile(r"(?<![\w-])sk-[\w-]{8,}")
_PRIVATE = re.compile(r'PRIVATE KEY|"d": ?"')
_ALL = (_CONFIGURED, _TOKEN, _KEY, _PRIVATE)
# A text without any of these has no secret, which is found out in a tenth of the time.
_PARTS = (*CONFIGURED, "eyJ", "sk-", "PRIVATE KEY", '"d":')

_plain = logging.Formatter("%(name)s %(message)s")  # with the traceback, if there is one


def _may_hold_one(text: str) -> bool:
    return any(part in text for part in _PARTS)


def secrets_in(text: str) -> list[str]:
    """Return the secrets that a text holds."""
    if not _may_hold_one(text):
        return []
    return [found[0] for pattern in _ALL for found in pattern.finditer(text)]


class Watch:
    """Notes each secret that is written, and where.

    Attributes:
        leaks: What was found, as a line for whoever reads the test report.
    """

    def __init__(self) -> None:
        self.leaks: list[str] = []
        self.looked_at = 0

    def look(self, where: str, text: str) -> None:
        """Search a text that somebody else may read."""
        self.looked_at += 1
        for secret in secrets_in(text):
            self.leaks.append(f"{where}: {secret!r} in {text[:2000]!r}")

    @contextmanager
    def elsewhere(self) -> Iterator[list[str]]:
        """Give what is found inside; it is no fault of the test."""
        before, self.leaks = self.leaks, []
        try:
            yield self.leaks
        finally:
            self.leaks = before

    def record(self, record: logging.LogRecord) -> None:
        """Search a log record, and what it was given besides its text."""
        self.look(f"log record of {record.name}", _plain.format(record))
        record.exc_text = None  # which the formatter has left there for others
        extra = {name: value for name, value in vars(record).items() if name not in _USUAL}
        if extra:
            self.look(f"extra of a log record of {record.name}", repr(extra))

    def answer(self, answer: TestResponse) -> None:
        """Search an answer; those that succeed may hold a new key, and nothing else."""
        text = f"{answer.headers}\n{answer.get_data(as_text=True)}"
        self.looked_at += 1
        if not _may_hold_one(text):
            return
        for pattern in _ALL if answer.status_code >= 400 else (_CONFIGURED, _PRIVATE):
            found = pattern.search(text)
            if found:
                self.leaks.append(f"answer {answer.status_code}: {found[0]!r} in {text[:2000]!r}")

    def files(self, folder: Path) -> None:
        """Search what is below a folder."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.look(str(file), file.read_text("latin-1"))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Look at every log record and at every error of ours."""
        enabled, handle = logging.Logger.isEnabledFor, logging.Logger.handle
        made, watch = PluginError.__init__, self

        def always(self: logging.Logger, level: int) -> bool:
            return self.name != "requests_mock.adapter"  # which is no part of the service

        def watched(self: logging.Logger, record: logging.LogRecord) -> None:
            watch.record(record)
            if enabled(self, record.levelno):
                handle(self, record)

        def making(error: PluginError, message: str, **fields: Any) -> None:
            made(error, message, **fields)
            watch.look(f"error {type(error).__name__}", f"{error}\n{error!r}")

        logging.Logger.isEnabledFor = always  # type: ignore[method-assign]
        logging.Logger.handle = watched  # type: ignore[method-assign]
        PluginError.__init__ = making  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            logging.Logger.isEnabledFor = enabled  # type: ignore[method-assign]
            logging.Logger.handle = handle  # type: ignore[method-assign]
            PluginError.__init__ = made  # type: ignore[method-assign]


_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def failed_for_output(report: pytest.TestReport) -> None:
    """Make the report of a test's teardown a failure if the test has printed a secret."""
    with WATCH.elsewhere() as leaks:
        WATCH.look("output", report.capstdout + report.capstderr)
    if leaks:
        report.outcome, report.longrepr = "failed", "\n".join(leaks)


def shared_folder() -> Path:
    """Return where the processes of a host have their locks."""
    return Path(tempfile.gettempdir()) / f"litellm-plugin-{os.geteuid()}"


WATCH = Watch()
