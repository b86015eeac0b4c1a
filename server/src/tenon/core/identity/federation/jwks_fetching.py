"""An issuer's public keys over HTTPS: bounded in size and time, never from an address inside, only what can be used of them.

The address was written by a tenant, so fetching it must not become a way into the operator's network (SSRF). The name is resolved here.
Every address must be public, or in a network that the operator allows. The connection goes to exactly that address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tenon.core.identity.federation.token_verification import ALGORITHMS, TokenRefused, compile_verifier, strict_json
from tenon.kit.ip_reach import Address, Reach, judge

SECONDS_MAX = 5.0
BYTES_MAX = 256 << 10
KEYS_MAX = 64
_MEMBERS = ("kty", "crv", "n", "e", "x", "y", "kid", "use", "alg", "key_ops")


class FetchFailed(Exception):
    """A sentence for the operator who set the issuer up."""


@dataclass(frozen=True, slots=True)
class Networks:
    """Where keys may be fetched from besides public addresses."""

    allowed: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    loopback_allowed: bool = False  # development only, and there by http too

    def may_reach(self, address: Address) -> bool:
        """Public, or allowed by the operator. An IPv4 address inside an IPv6 one is refused: no resolver gives one without being asked to."""
        judgement = judge(address)
        if judgement.embedded_ipv4 is not None:
            return False
        match judgement.reach:
            case Reach.PUBLIC:
                return True
            case Reach.LOOPBACK:
                return self.loopback_allowed
            case Reach.PRIVATE:
                return any(address in network for network in self.allowed)
            case Reach.NEVER:
                return False


async def fetch_jwks(uri: str, issuer: str, algorithm: str, networks: Networks) -> str:
    """The issuer's usable keys as a JWK set in one normal form. Raises FetchFailed."""
    if algorithm not in ALGORITHMS:
        raise FetchFailed("The issuer's algorithm is not known.")
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return usable_set(await _get(uri or await _discover(issuer, networks), networks), algorithm)
    except TimeoutError:
        raise FetchFailed(f"No whole answer within {SECONDS_MAX:.0f} seconds.") from None


async def _discover(issuer: str, networks: Networks) -> str:
    """OpenID Connect Discovery 1.0 §4: the document must name the issuer itself, or it is somebody else's."""
    document = _object(await _get(issuer.rstrip("/") + "/.well-known/openid-configuration", networks))
    if document.get("issuer") != issuer or not isinstance(document.get("jwks_uri"), str):
        raise FetchFailed("The discovery document is of another issuer, or names no jwks_uri.")
    return str(document["jwks_uri"])


def usable_set(text: bytes, algorithm: str) -> str:
    """Only public members of keys that may sign for the algorithm: a set that says the same twice is the same text."""
    document = _object(text)
    try:
        verifier = compile_verifier("i", ["a"], algorithm, text)
    except ValueError as error:
        raise FetchFailed(f"What came is no JWK set: {error}.") from None
    if not verifier.keys:
        raise FetchFailed(f"The set holds no key that can be used for {algorithm}.")
    keys = [jwk for jwk in document["keys"] if compile_verifier("i", ["a"], algorithm, json.dumps({"keys": [jwk]}).encode()).keys]
    if len(keys) > KEYS_MAX:
        raise FetchFailed(f"The set holds more than {KEYS_MAX} keys.")
    public = [{member: jwk[member] for member in _MEMBERS if member in jwk} for jwk in keys]
    return json.dumps({"keys": sorted(public, key=json.dumps)}, separators=(",", ":"), sort_keys=True)


def _object(text: bytes) -> dict[str, Any]:
    try:
        document = strict_json(text)
    except TokenRefused:
        raise FetchFailed("What came is not strict JSON.") from None
    if not isinstance(document, dict):
        raise FetchFailed("What came is no JSON object.")
    return document


async def _get(uri: str, networks: Networks) -> bytes:
    """The body of a 200, fetched from an address that was looked at. Redirects are not followed, no proxy of the environment is used."""
    parts = urlsplit(uri)
    host, secure = parts.hostname or "", parts.scheme == "https"
    if not host or not (secure or (parts.scheme == "http" and networks.loopback_allowed)):
        raise FetchFailed("The address is not https.")
    address = await _reachable(host, parts.port or (443 if secure else 80), networks)
    if not secure and not address.is_loopback:
        raise FetchFailed("Keys may be fetched without TLS from this machine only.")
    pinned = parts._replace(
        netloc=f"{f'[{address}]' if address.version == 6 else address}{f':{parts.port}' if parts.port else ''}"
    ).geturl()
    headers = {"host": parts.netloc, "accept": "application/json", "user-agent": "tenon"}
    try:
        async with (
            httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=SECONDS_MAX) as client,
            client.stream("GET", pinned, headers=headers, extensions={"sni_hostname": host}) as response,
        ):
            if response.status_code != 200:
                raise FetchFailed(f"The answer was {response.status_code}.")
            return await _read(response)
    except (httpx2.HTTPError, OSError) as error:
        raise FetchFailed(f"It could not be fetched: {type(error).__name__}.") from None


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > BYTES_MAX:
            raise FetchFailed(f"The answer is larger than {BYTES_MAX >> 10} KiB.")
    return bytes(body)


async def _reachable(host: str, port: int, networks: Networks) -> Address:
    """The first address of the name. One that may not be reached refuses them all: a name with two faces is an attack."""
    try:
        resolved = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise FetchFailed("The name of its host does not resolve.") from None
    addresses: Sequence[Address] = [ipaddress.ip_address(entry[4][0]) for entry in resolved]
    if not addresses or not all(networks.may_reach(address) for address in addresses):
        raise FetchFailed("The name of its host leads to an address that may not be reached from here.")
    return addresses[0]
