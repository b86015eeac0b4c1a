"""What a key may be bound to, checked when it is made; and whether a caller is where its key may be used."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace

from tenon.core.identity.contracts import KeyScope
from tenon.kit.errors import ErrorCode, Forbidden, Invalid

# `Operation` of contracts/gateway.proto in lower case; a test compares.
OPERATIONS = (
    "chat", "completion", "embedding", "response", "message", "count_tokens", "rerank", "speech", "transcription", "image", "realtime", "infer",
)  # fmt: skip
NETWORKS_MAX = 64
SHA256_BYTES = 32
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def checked(scope: KeyScope) -> KeyScope:
    """The scope in its one normal form. Raises Invalid."""
    if unknown := set(scope.operations) - set(OPERATIONS):
        raise Invalid(
            ErrorCode.UNKNOWN_OPERATION,
            f"There is no operation {min(unknown)}. Operations: {', '.join(OPERATIONS)}.",
            path="allowed_operations",
        )
    if len(scope.networks) > NETWORKS_MAX:
        raise Invalid(ErrorCode.TOO_MANY_NETWORKS, f"A key has at most {NETWORKS_MAX} source networks.", path="source_networks")
    if scope.certificate_sha256 is not None and len(scope.certificate_sha256) != SHA256_BYTES:
        raise Invalid(ErrorCode.INVALID_CERTIFICATE_HASH, "A certificate's SHA-256 is 64 hexadecimal digits.", path="certificate_sha256")
    networks = sorted({str(_network(text)) for text in scope.networks})
    return replace(scope, operations=tuple(sorted(set(scope.operations))), networks=tuple(networks))


def check_source(networks: Sequence[str], certificate_sha256: bytes | None, address: str | None) -> None:
    """Refuse a caller that is not where the key may be used. `address` None: the caller is this process itself.

    This API takes no client certificates, so a key that is bound to one is of no use here.
    """
    if certificate_sha256 is not None:
        raise Forbidden(
            ErrorCode.CERTIFICATE_REQUIRED, "This credential can be used only with its client certificate, and this API takes none."
        )
    if networks and address is not None and not _is_within(address, networks):
        raise Forbidden(ErrorCode.NETWORK_NOT_ALLOWED, "This credential cannot be used from this network.")


def _is_within(address: str, networks: Sequence[str]) -> bool:
    try:
        caller = ipaddress.ip_address(address)
    except ValueError:
        return False  # a socket without an address
    if isinstance(caller, ipaddress.IPv6Address) and caller.ipv4_mapped:
        caller = caller.ipv4_mapped
    return any(caller in ipaddress.ip_network(network) for network in networks)


def _network(text: str) -> Network:
    """Raises Invalid. Set bits beyond the prefix are a mistake somewhere, so they are not just dropped."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise Invalid(
            ErrorCode.INVALID_NETWORK, f"{text[:60]} is no network: write 10.0.0.0/8, 2001:db8::/32 or one address.", path="source_networks"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.scope_id:
        raise Invalid(ErrorCode.INVALID_NETWORK, "A network has no zone.", path="source_networks")
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network
