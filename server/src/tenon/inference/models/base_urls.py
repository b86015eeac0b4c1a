"""The base URLs that endpoints may have: the guard against requests forged through the gateway (SSRF).

Tenants' operators choose endpoints, and gateways stand inside the operator's network. Refused is an address of the machine itself or of a
metadata service, and whatever two parsers read differently. Private networks are allowed, for most engines are there.
What a name resolves to is known only when the gateway connects, so the gateway judges it then (contracts/address-corpus.json has both).
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from tenon.inference.models.errors import unsafe_base_url
from tenon.kit.ip_reach import Address, Reach, judge

LENGTH_MAX = 500
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_BRACKETED = re.compile(r"\[[0-9A-Fa-f:.]+(%[^\[\]]*)?\](:[0-9]*)?")  # `urlsplit` takes `[v1.x]` and `[::1]x` too
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
# The cloud providers' metadata services by name. By address they are judged as `never`.
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"})
_THIS_MACHINE = "This address belongs to the machine itself or to its metadata service."


def safe_base_url(url: str, *, loopback_allowed: bool) -> str:
    """The base URL in its one normal form, without a slash at the end. Raises Invalid `unsafe_base_url`."""
    if len(url) > LENGTH_MAX or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise unsafe_base_url(f"A base URL is at most {LENGTH_MAX} printable ASCII characters without spaces or backslashes.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise unsafe_base_url("This is not a URL.") from None
    if "[" in parts.netloc and not _BRACKETED.fullmatch(parts.netloc):
        raise unsafe_base_url("Brackets hold an IPv6 address and nothing else.")
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
        return judge(ipaddress.ip_address(host)).reach is not Reach.PUBLIC
    except ValueError:
        return _is_localhost(host)


def _safe_host(host: str, loopback_allowed: bool) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _safe_name(host.removesuffix("."), loopback_allowed)
    return _safe_address(address, loopback_allowed)


def _safe_address(address: Address, loopback_allowed: bool) -> str:
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        raise unsafe_base_url("An address with a zone cannot be an endpoint.")
    judgement = judge(address)
    if judgement.embedded_ipv4 is not None:
        raise unsafe_base_url("Write an IPv4 address as such, not inside an IPv6 address.")
    if judgement.reach is Reach.NEVER:
        raise unsafe_base_url("This address is link-local, reserved or a metadata service's.")
    if judgement.reach is Reach.LOOPBACK and not loopback_allowed:
        raise unsafe_base_url(_THIS_MACHINE)
    return f"[{address}]" if address.version == 6 else str(address)


def _safe_name(name: str, loopback_allowed: bool) -> str:
    if not _HOST.fullmatch(name) or len(name) > 253:
        raise unsafe_base_url("The host of a base URL is a DNS name or an IP address.")
    # 127.1, 2130706433 and 0x7f.1 are names here and loopback to a C library (WHATWG URL: a host that ends in a number is an address).
    last = name.rsplit(".", 1)[-1]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        raise unsafe_base_url("Write an IPv4 address as four decimal numbers.")
    if name in _METADATA_NAMES or (_is_localhost(name) and not loopback_allowed):
        raise unsafe_base_url(_THIS_MACHINE)
    return name


def _is_localhost(name: str) -> bool:
    """RFC 6761: every name below `localhost` is this machine too."""
    return name == "localhost" or name.endswith(".localhost")
