"""Opening the frontend's page: twelve requests, six at a time.

As a browser sends them for the page ``/litellm`` of the frontend 0.26: six at once, three more
when ``/config`` is there, the budget widget's three when ``/user/info`` is. What it asks of
Backstage itself (``/api/permission/authorize``) is the same for both sides and left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from load import Connection, Done

CONNECTIONS = 6  # of a browser to one origin

# For people who administer no teams these are 403, which the page takes as an empty list.
ADMIN_PATHS = ("/teams/managed", "/vector-stores", "/mcp-servers")
WIDGET_PATHS = ("/user/info", "/teams", "/keys")


def first_paths(usage: str) -> tuple[str, ...]:
    """Return what is asked for at once.

    Args:
        usage: ``/usage`` with its dates.
    """
    return ("/user/info", "/keys", "/models", "/teams", "/config", usage)


class Browser:
    """A worker; a job is the page, opened by the next user.

    Args:
        base_url: Of the side, without a path.
        mount: Path of the plugin.
        usage: ``/usage`` with its dates.
        tokens: Whose turn it is; job ``n`` takes the n-th, beginning again after the last.
    """

    def __init__(self, base_url: str, mount: str, usage: str, tokens: Sequence[str]) -> None:
        self._mount = mount
        self._first = first_paths(usage)
        self._tokens = tokens
        self._idle = [Connection(base_url) for _ in range(CONNECTIONS)]
        self._queue: deque[str] = deque()
        self._token = ""
        self._done: Done = _nobody
        self._missing = 0
        self._good = True
        self._config_read = self._widget_shown = False

    def begin(self, number: int, done: Done) -> None:
        """Open the page as the user whose turn it is."""
        self._token = self._tokens[number % len(self._tokens)]
        self._done = done
        self._good = True
        self._config_read = self._widget_shown = False
        self._missing = len(self._first) + len(ADMIN_PATHS) + len(WIDGET_PATHS)
        self._queue.extend(self._first)
        self._send()

    def _send(self) -> None:
        while self._queue and self._idle:
            self._ask(self._queue.popleft(), self._idle.pop())

    def _ask(self, path: str, connection: Connection) -> None:
        def answered(status: int) -> None:
            self._idle.append(connection)
            self._good &= status == 200 or (status == 403 and path in ADMIN_PATHS)
            self._missing -= 1
            if path == "/config" and not self._config_read:
                self._config_read = True
                self._queue.extend(ADMIN_PATHS)
            elif path == "/user/info" and not self._widget_shown:
                self._widget_shown = True
                self._queue.extend(WIDGET_PATHS)
            if self._missing:
                self._send()
            else:
                self._done(self._good)

        connection.get(self._mount + path, self._token, answered)


def _nobody(good: bool) -> None:
    raise AssertionError(f"a page was loaded that nobody asked for: {good}")
