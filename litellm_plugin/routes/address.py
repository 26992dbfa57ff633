"""Where a request comes from, behind reverse proxies that are known by their number."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

UNKNOWN = "unknown"  # over a Unix socket, for one


def client_address(environ: Mapping[str, Any], trusted_proxies: int) -> str:
    """Return the IP address of the client.

    Each proxy puts the address it was asked from at the end of ``X-Forwarded-For``, behind
    whatever the client had sent: so only as many from the end are believed as there are
    proxies of our own, and what a client writes there itself is not.

    Args:
        environ: The WSGI environment.
        trusted_proxies: How many reverse proxies are in front; ``litellm.service.trustedProxies``.

    Returns:
        The address as text; that of the nearest proxy where the header is not as it should be.
    """
    nearest = _address(str(environ.get("REMOTE_ADDR") or ""))
    if not trusted_proxies:
        return nearest or UNKNOWN
    forwarded = str(environ.get("HTTP_X_FORWARDED_FOR") or "").split(",")
    named = forwarded[-trusted_proxies] if len(forwarded) >= trusted_proxies else ""
    return _address(named.strip()) or nearest or UNKNOWN


def network_of(address: str) -> str:
    """Return what one client is counted by: an IPv4 address, or the /64 network of an IPv6 one.

    A /64 is what a household or a virtual machine gets, so its addresses are anybody's choice.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(ipaddress.IPv6Network((int(found), 64), strict=False))


@lru_cache(1024)  # behind a reverse proxy it is nearly always the same
def _address(text: str) -> str | None:
    """Return the address that a text is, a port behind it left out; None where it is none."""
    bare = text
    if text.startswith("["):
        bare = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        bare = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    # Without the zone, which is a name that anybody makes up.
    return str(found.ipv4_mapped or ipaddress.IPv6Address(int(found)))
