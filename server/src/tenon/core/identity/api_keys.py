"""The text of an API key: `tnn_<env>_<kind>_<keyid>_<secret><crc>`.

The key id (10 base62 characters) is public and finds the record in one probe. The secret is 43 base62 characters (256 bits). The last six
are the CRC-32 of everything before them: a typo is refused, and a leaked key recognised, without a database. A 256-bit random secret
cannot be guessed, so SHA-256 with a domain prefix is enough, and there is no pepper to rotate. The gateway (Rust) implements the same.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass

from tenon.core.identity.contracts import KeyKind
from tenon.kit.ids import BASE62, base62

KEY_ID_LENGTH = 10
SECRET_LENGTH = 43
CRC_LENGTH = 6
HASH_DOMAIN = b"tenon-api-key-v1:"
_KEY_ID = re.compile(r"[0-9A-Za-z]{10}", re.ASCII)
_FORMAT = re.compile(r"tnn_(dev|test|live)_(usr|svc|agt|ses)_([0-9A-Za-z]{10})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """The public parts of a well-formed key, and the hash to compare."""

    key_id: str
    kind: KeyKind
    sha256: bytes


def generate(environment: str, kind: KeyKind) -> str:
    """A new key's text."""
    key_id, secret = (_random(length) for length in (KEY_ID_LENGTH, SECRET_LENGTH))
    head = f"tnn_{environment}_{kind.value}_{key_id}_{secret}"
    return head + _crc(head)


def parse(text: str) -> ParsedKey | None:
    """The parts of `text`, or None when it is not a key: wrong shape or wrong checksum."""
    match = _FORMAT.fullmatch(text)
    if match is None or _crc(text[:-CRC_LENGTH]) != text[-CRC_LENGTH:]:
        return None
    return ParsedKey(match[3], KeyKind(match[2]), sha256(text))


def is_key_id(text: str) -> bool:
    """Whether this could be a key's id, and so may be looked up."""
    return _KEY_ID.fullmatch(text) is not None


def sha256(text: str) -> bytes:
    """What is stored of a key: 32 bytes."""
    return hashlib.sha256(HASH_DOMAIN + text.encode()).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(BASE62) for _ in range(length))


def _crc(head: str) -> str:
    return base62(zlib.crc32(head.encode()), CRC_LENGTH)
