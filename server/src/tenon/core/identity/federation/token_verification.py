"""One token of a trusted issuer, in the order of the checks: size, form, header, key, signature, claims (RFC 7519, RFC 7515, RFC 9068).

The gateway's crate `jose` is the same in Rust; `contracts/tokens/corpus.json` holds hostile tokens on which both must say the same, reason
included. Only the signature itself is joserfc's: what a token may look like is decided here, strictly, because two parsers that read a
token differently are two verdicts.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import import_key
from joserfc.jws import JWSRegistry

TOKEN_BYTES_MAX = 8 << 10
SUBJECT_BYTES_MAX = 255
DEPTH_MAX = 16
SECONDS_MAX = 253_402_300_799  # the end of the year 9999
# What a key of each algorithm is: kty, crv, bytes of a coordinate. No MAC: who could verify could forge.
ALGORITHMS: dict[str, tuple[str, str | None, int]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None, 0)),
    "ES256": ("EC", "P-256", 32),
    "ES384": ("EC", "P-384", 48),
    "EdDSA": ("OKP", "Ed25519", 32),
    "Ed25519": ("OKP", "Ed25519", 32),
}
# Members of the header that would choose the key, or change how the rest is read.
_FORBIDDEN = ("jwk", "jku", "x5u", "x5c", "enc", "zip", "cty", "b64")
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_BASE64URL = re.compile(rb"[A-Za-z0-9_-]*")


class TokenRefused(Exception):
    """`reason` is one of the codes in the corpus: too_large, malformed, critical, …"""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. From `expires_unix_ms` on, the issuer's leeway included, it is refused."""

    subject: str
    expires_unix_ms: int


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str | None
    jwk: dict[str, str]

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EdDSA is deprecated as a name (RFC 9864); issuers still use it
            try:
                key = import_key(dict(self.jwk))
                return bool(JWSRegistry(algorithms=[algorithm]).get_alg(algorithm).verify(message, signature, key))
            except (JoseError, ValueError):
                return False


@dataclass(frozen=True, slots=True)
class Verifier:
    """An issuer as tokens are checked against it: its name, one algorithm, its keys, its audiences."""

    issuer: str
    audiences: tuple[str, ...]
    algorithm: str
    keys: tuple[_Key, ...]
    leeway_ms: int = 0
    lifetime_max_ms: int = 0

    def key(self, kid: str | None) -> _Key | None:
        """The key with this id, or the only one where none is named. Two with one id are none."""
        meant = [key for key in self.keys if kid is None or key.kid == kid]
        return meant[0] if len(meant) == 1 else None


def compile_verifier(
    issuer: str, audiences: Sequence[str], algorithm: str, jwks: bytes, leeway_ms: int = 0, lifetime_max_ms: int = 0
) -> Verifier:
    """Raises ValueError when no token could ever be checked. Keys that cannot be used (another kind, too weak) are left out."""
    if not issuer or not audiences or not all(audiences) or algorithm not in ALGORITHMS:
        raise ValueError("an issuer has a name, at least one audience and a known algorithm")
    try:
        document = strict_json(jwks)
    except TokenRefused as error:
        raise ValueError("the key set is not strict JSON") from error
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("the key set is no JWK set")
    keys = [key for jwk in document["keys"] if (key := _usable(jwk, algorithm)) is not None]
    return Verifier(issuer, tuple(audiences), algorithm, tuple(keys), leeway_ms, lifetime_max_ms)


def _usable(jwk: Any, algorithm: str) -> _Key | None:
    """The key, if it may sign for the algorithm; otherwise it is as if it were not in the set."""
    if not isinstance(jwk, dict):
        return None
    kind, curve, size = ALGORITHMS[algorithm]
    operations = jwk.get("key_ops", ["verify"])
    fits = (
        jwk.get("kty") == kind
        and (jwk.get("crv") if isinstance(jwk.get("crv"), str) else None) == curve
        and jwk.get("use", "sig") == "sig"
        and jwk.get("alg", algorithm) == algorithm
        and isinstance(operations, list)
        and "verify" in operations
        and isinstance(jwk.get("kid", ""), str)
    )
    if not fits:
        return None
    members = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}[kind]
    parts = {name: _decoded(jwk.get(name)) for name in members}
    if any(part is None for part in parts.values()):
        return None
    sound = _sound_rsa(parts["n"] or b"", parts["e"] or b"") if kind == "RSA" else all(len(part or b"") == size for part in parts.values())
    members_of_key = {"kty": kind} | ({"crv": curve} if curve else {}) | {name: jwk[name] for name in members}
    return _Key(jwk.get("kid"), members_of_key) if sound else None


def _sound_rsa(n: bytes, e: bytes) -> bool:
    """2048 to 8192 bits; an odd exponent from 65,537 on, of at most 33 bits; no leading zeros (RFC 7518 §6.3.1)."""
    modulus, exponent = int.from_bytes(n), int.from_bytes(e)
    return (
        n[:1] not in (b"", b"\0") and e[:1] not in (b"", b"\0") and modulus % 2 == 1 and 2048 <= modulus.bit_length() <= 8192
        and exponent % 2 == 1 and 65_537 <= exponent < 1 << 33
    )  # fmt: skip


def _decoded(text: Any) -> bytes | None:
    return base64url(text.encode()) if isinstance(text, str) and text.isascii() else None


def base64url(text: bytes) -> bytes | None:
    """The bytes of strict base64url: no padding, no other characters, and one text only for each value. None for anything else."""
    if len(text) % 4 == 1 or not _BASE64URL.fullmatch(text):
        return None
    try:
        value = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return value if base64.urlsafe_b64encode(value).rstrip(b"=") == text else None


def strict_json(text: bytes) -> Any:
    """JSON in which a name stands once in an object, nothing is nested deeper than DEPTH_MAX, and every text is Unicode."""
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_finite_int
        )
        _check(value, DEPTH_MAX)
    except (ValueError, RecursionError) as error:
        raise TokenRefused("malformed") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("too large a number")
    return value


def _finite_int(text: str) -> int | float:
    value = _finite(text)
    return int(text) if abs(value) < 1e18 else value


def _check(value: Any, depth: int) -> None:
    """Lone surrogates are no text: `encode` raises for them."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        if depth == 0:
            raise ValueError("nested too deep")
        for name in value if isinstance(value, dict) else ():
            name.encode()
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, depth - 1)


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token taken apart; nothing of it is believed yet."""

    message: bytes
    header: dict[str, Any]
    payload: dict[str, Any]
    signature: bytes

    @classmethod
    def parse(cls, token: bytes) -> Unverified:
        """Raises TokenRefused too_large or malformed."""
        if len(token) > TOKEN_BYTES_MAX:
            raise TokenRefused("too_large")
        parts = token.split(b".")
        decoded = [base64url(part) for part in parts]
        if len(parts) != 3 or not all(decoded):
            raise TokenRefused("malformed")
        header, payload = (strict_json(part or b"") for part in decoded[:2])
        if not isinstance(header, dict) or not isinstance(payload, dict):
            raise TokenRefused("malformed")
        return cls(b".".join(parts[:2]), header, payload, decoded[2] or b"")

    @property
    def claimed_issuer(self) -> str | None:
        """`iss` as it is claimed: to find the issuer whose keys decide."""
        issuer = self.payload.get("iss")
        return issuer if isinstance(issuer, str) else None

    def names_audience_of(self, verifier: Verifier) -> bool:
        """Whether its `aud`, not yet believed, names one of the issuer's audiences."""
        try:
            return self._is_for(verifier)
        except TokenRefused:
            return False

    def verify(self, verifier: Verifier, now_unix_ms: int) -> Claims:
        """Raises TokenRefused by the first check that fails."""
        self._check_header(verifier)
        kid = self.header.get("kid")
        if "kid" in self.header and not isinstance(kid, str):
            raise TokenRefused("malformed")
        key = verifier.key(kid)
        if key is None:
            raise TokenRefused("key")
        if not key.verifies(verifier.algorithm, self.message, self.signature):
            raise TokenRefused("signature")
        return self._claims(verifier, now_unix_ms)

    def _check_header(self, verifier: Verifier) -> None:
        header = self.header
        if "crit" in header:
            raise TokenRefused("critical")
        if any(name in header for name in _FORBIDDEN):
            raise TokenRefused("embedded")
        kind = header.get("typ", "jwt")
        if not isinstance(kind, str) or not kind.isascii() or kind.lower() not in _TYPES:
            raise TokenRefused("type")
        if header.get("alg") != verifier.algorithm:
            raise TokenRefused("algorithm")

    def _claims(self, verifier: Verifier, now: int) -> Claims:
        expires, not_before, issued = (self._instant(name) for name in ("exp", "nbf", "iat"))
        if expires is None:
            raise TokenRefused("claims")
        if self.claimed_issuer != verifier.issuer:
            raise TokenRefused("issuer")
        if not self._is_for(verifier):
            raise TokenRefused("audience")
        if now >= expires + verifier.leeway_ms:
            raise TokenRefused("expired")
        if any(instant is not None and instant > now + verifier.leeway_ms for instant in (not_before, issued)):
            raise TokenRefused("not_yet")
        if verifier.lifetime_max_ms and (issued is None or expires - issued > verifier.lifetime_max_ms):
            raise TokenRefused("lifetime")
        return Claims(self._subject(), expires + verifier.leeway_ms)

    def _instant(self, name: str) -> int | None:
        """A NumericDate (RFC 7519 §2) in milliseconds."""
        value = self.payload.get(name)
        if name not in self.payload:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= SECONDS_MAX:
            raise TokenRefused("claims")
        return math.floor(float(value) * 1000.0)

    def _is_for(self, verifier: Verifier) -> bool:
        audience = self.payload.get("aud", [])
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
            raise TokenRefused("claims")
        return any(each in verifier.audiences for each in audiences)

    def _subject(self) -> str:
        """`sub`; where there is none, the client that asked for the token (client credentials)."""
        claim = next((name for name in ("sub", "client_id", "azp") if name in self.payload), None)
        if claim is None:
            raise TokenRefused("subject")
        subject = self.payload[claim]
        if not isinstance(subject, str):
            raise TokenRefused("claims")
        if not 0 < len(subject.encode()) <= SUBJECT_BYTES_MAX:
            raise TokenRefused("subject")
        return subject
