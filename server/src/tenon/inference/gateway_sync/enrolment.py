"""Who a gateway is: an enrolment token bound to one gateway id, also on loopback."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

AUTHORIZATION = "authorization"
GATEWAY_ID = "tenon-gateway-id"
_NOBODY = "0" * 64


class Enrolment:
    """The enrolled gateways: id -> SHA-256 of the token, in hex. Tokens are 256 random bits, so a plain hash is enough."""

    def __init__(self, token_hashes: Mapping[str, str]) -> None:
        self._token_hashes = {gateway: text.lower() for gateway, text in token_hashes.items()}

    def gateway(self, metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
        """The id of the gateway that this call's metadata proves, or None. Takes as long for an unknown id as for a wrong token."""
        sent = [(name.lower(), value) for name, value in metadata]
        authorization, gateway = _only(sent, AUTHORIZATION), _only(sent, GATEWAY_ID)
        scheme, _, token = authorization.partition(" ")
        expected = self._token_hashes.get(gateway, _NOBODY)
        matches = hmac.compare_digest(hashlib.sha256(token.encode()).hexdigest().encode(), expected.encode())
        return gateway if matches and gateway and scheme.lower() == "bearer" else None


def _only(sent: list[tuple[str, str | bytes]], name: str) -> str:
    """The one text value of a header; nothing when it is absent, repeated or binary."""
    values = [value for header, value in sent if header == name]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else ""
