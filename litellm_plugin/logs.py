"""What is logged: one line for one event, whatever somebody put into it, and no secrets.

Ids, user names and LiteLLM's texts are in the log, and may be anybody's. A line break in
them would begin a line that looks like one of ours; an escape sequence would move the
cursor of whoever reads it.
"""

from __future__ import annotations

import json
import logging

from litellm_plugin.errors import redact

PACKAGE = __name__.partition(".")[0]


class Printable(logging.Filter):
    """Lets everything through, and nothing that would not be printed as it is.

    Only a message that was written with several lines keeps them, all but the first indented.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the message where it needs it."""
        message = record.getMessage()
        said = redact(message)
        lines = said.split("\n") if "\n" in str(record.msg) else [said]
        said = "\n    ".join(map(printable, lines))
        if said != message:
            record.msg, record.args = said, None
        return True


_PRINTABLE = Printable()


def printable(text: str) -> str:
    """Return ``text`` with escapes in the place of what ends a line or can't be printed.

    They are those of JSON: a line that is some stays it.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    escaped = json.dumps(char)[1:-1]
    return escaped if escaped != char else f"\\u{ord(char):04x}"  # DEL, which JSON lets be


def guard() -> None:
    """Put the filter on every logger of the package that there is.

    A filter of a parent does not see what its children log, and handlers are not ours.
    """
    for name in [PACKAGE, *logging.root.manager.loggerDict]:
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            logging.getLogger(name).addFilter(_PRINTABLE)
