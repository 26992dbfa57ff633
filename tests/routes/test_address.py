"""The client's address: what a client says of itself is not believed."""

from __future__ import annotations

import pytest

from litellm_plugin.routes.address import client_address, network_of


@pytest.mark.parametrize(
    ("remote", "forwarded", "proxies", "address"),
    [
        ("10.0.0.9", None, 0, "10.0.0.9"),
        ("10.0.0.9", "1.2.3.4", 0, "10.0.0.9"),  # nobody vouches for it
        ("10.0.0.9", "1.2.3.4", 1, "1.2.3.4"),
        ("10.0.0.9", "6.6.6.6, 1.2.3.4", 1, "1.2.3.4"),  # the client wrote the first
        ("10.0.0.9", "6.6.6.6, 1.2.3.4, 10.0.0.8", 2, "1.2.3.4"),
        ("10.0.0.9", "1.2.3.4", 2, "10.0.0.9"),  # past the outer proxy
        ("10.0.0.9", None, 1, "10.0.0.9"),
        ("10.0.0.9", "nonsense", 1, "10.0.0.9"),
        ("10.0.0.9", "1.2.3.4:5678", 1, "1.2.3.4"),
        ("10.0.0.9", "[2001:db8::1]:443", 1, "2001:db8::1"),
        ("10.0.0.9", "2001:DB8::1%eth0", 1, "2001:db8::1"),
        ("10.0.0.9", "::ffff:1.2.3.4", 1, "1.2.3.4"),
        ("10.0.0.9", "1.2.3.4\r\nX: y", 1, "10.0.0.9"),
        ("", None, 0, "unknown"),
        (None, "1.2.3.4", 1, "1.2.3.4"),
    ],
)
def test_only_as_many_proxies_are_believed_as_are_our_own(
    remote: str | None, forwarded: str | None, proxies: int, address: str
) -> None:
    environ = {"REMOTE_ADDR": remote, "HTTP_X_FORWARDED_FOR": forwarded}
    assert client_address(environ, proxies) == address


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1.2.3.4", "1.2.3.5", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("unknown", "unknown", True),
    ],
)
def test_a_client_of_many_addresses_counts_once(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same
