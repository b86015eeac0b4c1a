"""What an IP address leads to: one judgement for every place that connects to an address that somebody else wrote (SSRF).

The gateway judges the same way (`is_allowed` in its resolver). contracts/address-corpus.json holds both to it. The table is our own, since
`ipaddress.is_global` differs between versions of Python. It follows the IANA special-purpose registries (RFC 6890), and what is not listed
there as reachable is refused: IPv6 outside 2000::/3 is private or nothing.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reach(StrEnum):
    """Where an address leads."""

    PUBLIC = "public"
    PRIVATE = "private"  # the operator's own networks: only where the operator allows them
    LOOPBACK = "loopback"  # this machine: only in development, or for an endpoint that may be private
    NEVER = "never"  # metadata services, link-local, multicast, reserved: nothing that anybody connects to on purpose


@dataclass(frozen=True, slots=True)
class Judgement:
    """`embedded_ipv4`: the address inside an IPv6 one, which was judged in its place."""

    reach: Reach
    embedded_ipv4: ipaddress.IPv4Address | None = None


_NEVER_IPV4 = (
    "0.0.0.0/8",  # this network
    "100.100.100.200/32",  # metadata service (Alibaba Cloud)
    "168.63.129.16/32",  # metadata service (Azure)
    "169.254.0.0/16",  # link-local, which is where metadata services and task credentials are
    "192.0.0.0/24",  # protocol assignments, and a metadata service (Oracle Cloud)
    "192.88.99.0/24",  # 6to4 relays, deprecated
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, broadcast
)
_PRIVATE_IPV4 = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
    "100.64.0.0/10",  # carrier-grade NAT
    "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",  # documentation
    "198.18.0.0/15",  # benchmarks
)  # fmt: skip
_NEVER_IPV6 = (
    "fd00:ec2::/32",  # metadata and credential services (AWS)
    "fd20:ce::254/128",  # metadata service (Google Cloud)
    "fd00:42::42/128",  # metadata service (Scaleway)
    "fd00:a9fe:a9fe::/48",  # metadata service (Linode)
    "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
    "2002::/16",  # 6to4, deprecated
)
_PRIVATE_IPV6 = (
    "fc00::/7",  # unique local
    "2001:db8::/32", "3fff::/20",  # documentation
)  # fmt: skip


def _networks(texts: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_NEVER = _networks(_NEVER_IPV4 + _NEVER_IPV6)
_PRIVATE = _networks(_PRIVATE_IPV4 + _PRIVATE_IPV6)
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def judge(address: Address) -> Judgement:
    """Where an address leads. An IPv4 address inside an IPv6 one (mapped, or of NAT64) is judged in its place."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            return Judgement(Reach.NEVER)
        inner = address.ipv4_mapped or (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None)
        if inner is not None:
            return Judgement(_reach(inner), inner)
    return Judgement(_reach(address))


def _reach(address: Address) -> Reach:
    if address.is_loopback:
        return Reach.LOOPBACK
    if any(address in network for network in _NEVER):
        return Reach.NEVER
    if any(address in network for network in _PRIVATE):
        return Reach.PRIVATE
    return Reach.PUBLIC if address.version == 4 or address in _GLOBAL_UNICAST else Reach.NEVER
