"""Which addresses lie on the public internet: one rule for the server and for a person's own commands."""

from __future__ import annotations

import ipaddress

# What IANA's registries of special-purpose addresses (RFC 6890 and its updates) take out of unicast, written out here
# since `ipaddress` knows other parts of them in each version of Python. An embedded IPv4 address (mapped, compatible,
# 6to4, Teredo, NAT64) is refused with the block that it lies in, whatever it is: a translator may reach it.
_SPECIAL_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared with a provider
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # a cloud's own services, behind an address that looks public
            "169.254.0.0/16",  # link-local, the clouds' metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")  # all that IANA has given out; beside it lie local and embedded ones
_SPECIAL_6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID and others
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)


def is_public(address: str) -> bool:
    """Return whether the text is the address of a host on the public internet: global unicast, and nothing special."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return not any(found in network for network in _SPECIAL_4)
    plain = found.scope_id is None and found in _UNICAST_6
    return plain and not any(found in network for network in _SPECIAL_6)
