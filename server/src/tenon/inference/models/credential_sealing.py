"""Upstream credentials, sealed for the gateways (contracts/gateway.proto).

AES-256-GCM: 12-byte nonce || ciphertext || tag; the endpoint's id is the associated data.
"""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tenon.kit.errors import ErrorCode, Unavailable

KEY_BYTES = 32
NONCE_BYTES = 12


class SealingKey:
    """The key in the operator's file: 32 bytes, raw or as 64 hexadecimal digits."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def read(cls, path: Path) -> SealingKey:
        """The key at `path`. Raises Unavailable `sealing_key_unusable`."""
        try:
            content = path.read_bytes()
            key = content if len(content) == KEY_BYTES else bytes.fromhex(content.decode("ascii").strip())
        except (OSError, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise Unavailable(ErrorCode.SEALING_KEY_UNUSABLE, "The sealing key's file must hold 32 bytes, raw or as 64 hexadecimal digits.")
        return cls(key)

    def seal(self, credential: str, endpoint: UUID) -> bytes:
        """The credential as it is stored, bound to its endpoint: moved to another one it does not open."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, credential.encode(), str(endpoint).encode())
