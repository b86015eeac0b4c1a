"""Which addresses an endpoint may have: the guard against requests forged through the gateway (SSRF).

Tenants' operators choose upstreams, and gateways stand inside the operator's network: an address of the machine itself, of a link-local
metadata service, or one that is read differently by two parsers, is refused. Private networks are allowed, for most engines live there.
What a name resolves to is known only when the gateway connects; it must look again.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from tenon.inference.models.errors import unsafe_base_url

LENGTH_MAX = 500
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
# The cloud providers' metadata services by name; by address they are link-local.
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"})
_METADATA_ADDRESSES = frozenset(ipaddress.ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16"))


def safe_base_url(url: str, *, loopback_allowed: bool) -> str:
    """The base URL in its one normal form, without a slash at the end. Raises Invalid `unsafe_base_url`."""
    if len(url) > LENGTH_MAX or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise unsafe_base_url(f"A base URL is at most {LENGTH_MAX} printable ASCII characters without spaces or backslashes.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise unsafe_base_url("This is not a URL.") from None
    if parts.scheme not in {"http", "https"}:
        raise unsafe_base_url("A base URL begins with http:// or https://.")
    if "@" in parts.netloc:
        raise unsafe_base_url("A base URL holds no user name or password. Put the secret into `credential`, where it is sealed.")
    if "?" in url or "#" in url:
        raise unsafe_base_url("A base URL has no query and no fragment.")
    if not _PATH.fullmatch(parts.path) or any(part in {".", ".."} for part in parts.path.split("/")):
        raise unsafe_base_url("The path of a base URL is made of plain names, such as /v1.")
    if port == 0:
        raise unsafe_base_url("Port 0 cannot be connected to.")
    host = _safe_host((parts.hostname or "").lower(), loopback_allowed)
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def is_written_as_private(base_url: str) -> bool:
    """Whether an accepted URL itself says a private or loopback address, or localhost: then the gateway may connect to such a one."""
    host = (urlsplit(base_url).hostname or "").removesuffix(".")
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _safe_host(host: str, loopback_allowed: bool) -> str:
    name = host.removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _safe_name(name, loopback_allowed)
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise unsafe_base_url("An address with a zone cannot be an endpoint.")
        # What a v4 stack would connect to: ::ffff:127.0.0.1, 64:ff9b::7f00:1, 2002:7f00:1::.
        inner = address.ipv4_mapped or address.sixtofour or _nat64(address)
        if inner is not None:
            raise unsafe_base_url("Write an IPv4 address as such, not inside an IPv6 address.")
    if address.is_loopback and loopback_allowed:
        return f"[{address}]" if address.version == 6 else str(address)
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA_ADDRESSES:
        raise unsafe_base_url("This address belongs to the machine itself or to its metadata service.")
    if address.version == 4 and (address.is_reserved or int(address) >> 24 == 0):
        raise unsafe_base_url("This address is reserved.")
    return f"[{address}]" if address.version == 6 else str(address)


def _safe_name(name: str, loopback_allowed: bool) -> str:
    if not _HOST.fullmatch(name) or len(name) > 253:
        raise unsafe_base_url("The host of a base URL is a DNS name or an IP address.")
    # 127.1, 2130706433 and 0x7f.1 are names here and loopback to a C library (WHATWG URL: a host that ends in a number is an address).
    last = name.rsplit(".", 1)[-1]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        raise unsafe_base_url("Write an IPv4 address as four decimal numbers.")
    if name == "localhost" or name.endswith(".localhost"):
        if not loopback_allowed:
            raise unsafe_base_url("This address belongs to the machine itself or to its metadata service.")
    elif name in _METADATA_NAMES:
        raise unsafe_base_url("This address belongs to the machine itself or to its metadata service.")
    return name


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
