"""The fixed keys of the corpus, and tokens signed with them, byte by byte and the same each time."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

# Private keys that protect nothing: they exist so that the corpus can be made again.
KEYS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "keys.json").read_text())
PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi"})


def b64(value: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def number(text: str) -> int:
    """A member of a JWK as a number."""
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="))


def public(name: str, **changes: Any) -> dict[str, Any]:
    """The public half of a key; a change to None takes the member out."""
    members = {member: value for member, value in KEYS[name].items() if member not in PRIVATE} | changes
    return {member: value for member, value in members.items() if value is not None}


def compact(value: Any) -> bytes:
    """JSON as tokens carry it."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def signature(algorithm: str, name: str, message: bytes) -> bytes:
    """By the algorithm with the key, deterministic."""
    key, bits = KEYS[name], int(algorithm[2:] or 0) if algorithm[2:].isdigit() else 0
    if algorithm in ("EdDSA", "Ed25519"):
        return ed25519.Ed25519PrivateKey.from_private_bytes(number(key["d"]).to_bytes(32)).sign(message)
    hashing = {256: hashes.SHA256, 384: hashes.SHA384, 512: hashes.SHA512}[bits]()
    if algorithm.startswith("ES"):
        curve = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "secp256k1": ec.SECP256K1}[key["crv"]]()
        private = ec.derive_private_key(number(key["d"]), curve)
        r, s = decode_dss_signature(private.sign(message, ec.ECDSA(hashing, deterministic_signing=True)))
        size = (curve.key_size + 7) // 8
        return r.to_bytes(size) + s.to_bytes(size)
    if algorithm.startswith("PS"):
        return pss(key, message, bits, salt=bytes(range(bits // 8)))
    return _rsa(key).sign(message, padding.PKCS1v15(), hashing)


def pss(key: dict[str, Any], message: bytes, bits: int, salt: bytes) -> bytes:
    """EMSA-PSS (RFC 8017 §9.1.1) with a chosen salt: a library's is random."""
    n, d = number(key["n"]), number(key["d"])
    digest = lambda data: hashlib.new(f"sha{bits}", data).digest()  # noqa: E731
    length, inner = (n.bit_length() - 1 + 7) // 8, digest(bytes(8) + digest(message) + salt)
    block = bytes(length - len(salt) - len(inner) - 2) + b"\x01" + salt
    mask = b"".join(digest(inner + counter.to_bytes(4)) for counter in range(len(block) // len(inner) + 1))[: len(block)]
    masked = bytearray(a ^ b for a, b in zip(block, mask, strict=True))
    masked[0] &= 0xFF >> (8 * length - (n.bit_length() - 1))
    encoded = int.from_bytes(bytes(masked) + inner + b"\xbc")
    return pow(encoded, d, n).to_bytes((n.bit_length() + 7) // 8)


def _rsa(key: dict[str, Any]) -> rsa.RSAPrivateKey:
    numbers = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"]))
    return rsa.RSAPrivateNumbers(
        number(key["p"]), number(key["q"]), number(key["d"]), number(key["dp"]), number(key["dq"]), number(key["qi"]), numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)


def token(header: Any, payload: Any, *, key: str, algorithm: str) -> str:
    """A compact JWS of exactly these parts, given as objects or as raw bytes."""
    message = f"{b64(compact(header))}.{b64(compact(payload))}"
    return f"{message}.{b64(signature(algorithm, key, message.encode()))}"
