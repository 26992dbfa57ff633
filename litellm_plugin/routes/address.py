"""The client's IP address, behind a known number of reverse proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

UNKNOWN = "unknown"  # such as over a Unix socket


def client_address(environ: Mapping[str, Any], trusted_proxies: int) -> str:
    """Return the IP address of the client.

    Each proxy appends the address of its own client to ``X-Forwarded-For``. Only the last
    ``trusted_proxies`` entries (``litellm.service.trustedProxies``) come from trusted proxies; a
    client may have sent the others. Where the header has no address at that place, the address
    of the nearest proxy is returned.
    """
    nearest = _address(str(environ.get("REMOTE_ADDR") or ""))
    if not trusted_proxies:
        return nearest or UNKNOWN
    forwarded = str(environ.get("HTTP_X_FORWARDED_FOR") or "").split(",")
    named = forwarded[-trusted_proxies] if len(forwarded) >= trusted_proxies else ""
    return _address(named.strip()) or nearest or UNKNOWN


def client_network(environ: Mapping[str, Any], trusted_proxies: int) -> str:
    """Return the client's network, by which invalid tokens are counted."""
    return network_of(client_address(environ, trusted_proxies))


def network_of(address: str) -> str:
    """Return an IPv4 address as it is, and the /64 network of an IPv6 address.

    A household or a virtual machine has a whole /64, so a client can choose among its addresses.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(ipaddress.IPv6Network((int(found), 64), strict=False))


@lru_cache(1024)
def _address(text: str) -> str | None:
    """Return the address in a text, without its port; None where the text has no address."""
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
    # Without the zone (%eth0), which a client can choose.
    return str(found.ipv4_mapped or ipaddress.IPv6Address(int(found)))
