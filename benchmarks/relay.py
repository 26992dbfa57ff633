"""Stands in front of a server and counts what it is asked for; passes everything on as it is.

    python benchmarks/relay.py --port 4418 --to 4417

``GET /__calls`` answers as that of ``upstream.py`` does: ``{"paths": {"GET /user/info": 3}}``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import Counter

# A request begins a packet: both sides wait for an answer before they ask again, and no body of
# theirs begins like this.
_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) ([^ ?]+)")
_CALLS = b"GET /__calls "


class Client(asyncio.Protocol):
    """A connection of somebody who asks.

    Args:
        port: Of the server.
        calls: Where requests are counted.
    """

    def __init__(self, port: int, calls: Counter[str]) -> None:
        self._port = port
        self._calls = calls
        self._server: asyncio.Transport | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open a connection of its own to the server."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            server, _ = await loop.create_connection(
                lambda: Server(self._transport), "127.0.0.1", self._port
            )
        except OSError:
            self._transport.close()
            return
        self._server = server
        server.write(self._early)
        if self._transport.is_closing():
            server.close()

    def data_received(self, data: bytes) -> None:
        """Count and pass on."""
        if data.startswith(_CALLS):
            body = json.dumps({"paths": self._calls}).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
            self._transport.write(head.encode() + body)
            return
        if request := _REQUEST.match(data):
            self._calls[b" ".join(request.groups()).decode()] += 1
        if self._server is None:
            self._early += data
        else:
            self._server.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Close the other end, too."""
        if self._server is not None:
            self._server.close()


class Server(asyncio.Protocol):
    """The connection to the server for one client."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._client.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Close the other end, too."""
        self._client.close()


async def serve(port: int, to: int) -> None:
    """Relay until the end."""
    calls: Counter[str] = Counter()
    server = await asyncio.get_running_loop().create_server(
        lambda: Client(to, calls), "127.0.0.1", port
    )
    await server.serve_forever()


def main() -> None:
    """Read the command line and relay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=4418)
    parser.add_argument("--to", type=int, default=4417, metavar="PORT", help="of the server")
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.to))


if __name__ == "__main__":
    main()
