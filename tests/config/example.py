"""The ``app-config.yaml`` of the repo, with its keys behind ``#`` switched on."""

from __future__ import annotations

import re
from pathlib import Path

PATH = Path(__file__).parents[2] / "app-config.yaml"

_OFF = re.compile(r"^( *)#(?=\S)", re.MULTILINE)

# What the examples in it refer to.
ENVIRON = {
    "BACKSTAGE_TOKEN": "a-backstage-token",
    "EXTERNAL_TOKEN": "an-external-token",
    "EXTERNAL_SECRET": "c2VjcmV0",
    "POSTGRES_PASSWORD": "a-database-password",
    "POSTGRES_CA": "a-certificate",
    "POSTGRES_CERTIFICATE": "a-certificate",
    "POSTGRES_KEY": "a-private-key",
    "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "BACKEND_SECRET": "c2VjcmV0",
}
FILES = ("keys/litellm.pub.pem", "keys/litellm.pem", "keys/company-ca.pem")


def everything_on() -> str:
    """Return its text with every key on; its files are looked for where the test is."""
    return _OFF.sub(r"\1", PATH.read_text(encoding="utf-8")).replace("/etc/ssl/", "keys/")
