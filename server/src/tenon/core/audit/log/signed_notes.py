"""Signed notes and checkpoints as C2SP writes them (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), with Ed25519."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tenon.kit.errors import ErrorCode, Unavailable

_ED25519 = b"\x01"
ROOT_LOG = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Signer:
    """The log's key. `name` is the key's name in signature lines, the same for all logs of an installation."""

    name: str
    private_key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def load(cls, name: str, file: Path) -> Signer:
        """From a file with the raw 32 bytes; raises Unavailable with a sentence."""
        raw = file.read_bytes() if file.is_file() else b""
        if len(raw) != 32:
            raise Unavailable(ErrorCode.NO_SIGNING_KEY, "The audit log's signing key is missing or damaged: it must be a file of 32 bytes.")
        return cls(name, Ed25519PrivateKey.from_private_bytes(raw))

    @property
    def verifier_key(self) -> str:
        """`name+hash+key`: what a verifier is given out of band."""
        key = _ED25519 + self.private_key.public_key().public_bytes_raw()
        return f"{self.name}+{self._key_hash().hex()}+{base64.b64encode(key).decode()}"

    def sign(self, text: str) -> str:
        """The signed note over `text`, which must end with a newline."""
        signature = self._key_hash() + self.private_key.sign(text.encode())
        return f"{text}\n\u2014 {self.name} {base64.b64encode(signature).decode()}\n"

    def _key_hash(self) -> bytes:
        key = _ED25519 + self.private_key.public_key().public_bytes_raw()
        return hashlib.sha256(self.name.encode() + b"\n" + key).digest()[:4]


def key_name(installation: str) -> str:
    """The name of an installation's log key."""
    return f"tenon/{installation}"


def origin(installation: str, generation: int, tenant: UUID) -> str:
    """The unique name of one log: installation, generation and tenant; the root log is `…/root`."""
    return f"tenon/{installation}/audit/{generation}/{'root' if tenant == ROOT_LOG else tenant}"


def checkpoint_text(log_origin: str, size: int, root: bytes, continues: str | None) -> str:
    """A checkpoint's body. `continues` names the older log, its size and root, in an extension line."""
    lines = [log_origin, str(size), base64.b64encode(root).decode()]
    if continues:
        lines.append(f"continues {continues}")
    return "\n".join(lines) + "\n"


def continuation(log_origin: str, size: int, root: bytes) -> str:
    """How a newer log names this one."""
    return f"{log_origin} {size} {base64.b64encode(root).decode()}"
