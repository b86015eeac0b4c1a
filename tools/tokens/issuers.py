"""The corpus's issuers: one for each algorithm, and some whose key sets are strange."""

from __future__ import annotations

from typing import Any

from tools.tokens.signing import public

NAME = "https://login.example.com/realms/acme"
AUDIENCE = "tenon:acme"
NOW = 1_900_000_000_000  # 2030-03-17, in milliseconds


def issuer(algorithm: str, *keys: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An issuer's record, as the control plane sends it."""
    issuer = {"issuer": NAME, "audiences": [AUDIENCE, "api://second"], "algorithm": algorithm, "jwks": {"keys": list(keys)}}
    return issuer | {"leeway_ms": 0, "lifetime_max_ms": 0} | changes


OFF_CURVE = public("p256", y=public("p256_other")["y"])
ISSUERS: dict[str, dict[str, Any]] = {
    **{algorithm.lower(): issuer(algorithm, public("rsa", alg=algorithm, use="sig"), public("rsa_other")) for algorithm in
       ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")},
    "es256": issuer("ES256", public("p256"), public("p256_other"), public("rsa"), public("p384")),
    "es384": issuer("ES384", public("p384"), public("p256")),
    "eddsa": issuer("EdDSA", public("ed")),
    "ed25519": issuer("Ed25519", public("ed", alg="Ed25519")),
    "one key": issuer("ES256", public("p256", kid=None)),
    "leeway": issuer("ES256", public("p256"), leeway_ms=30_000),
    "lifetime": issuer("ES256", public("p256"), lifetime_max_ms=600_000),
    "short rsa": issuer("RS256", public("rsa_short")),
    "small exponent": issuer("RS256", public("rsa", e="Aw")),
    "weak curve": issuer("ES256", public("k256")),
    "curve renamed": issuer("ES256", public("k256", crv="P-256")),
    "off the curve": issuer("ES256", OFF_CURVE),
    "for encryption": issuer("ES256", public("p256", use="enc")),
    "may not verify": issuer("ES256", public("p256", key_ops=["sign"])),
    "of another algorithm": issuer("RS256", public("rsa", alg="PS256")),
    "one id twice": issuer("ES256", public("p256"), public("p256_other", kid="ec-1")),
    "one id, two kinds": issuer("ES256", public("rsa", kid="ec-1"), public("p256")),
    "secret in the set": issuer("RS256", {"kty": "oct", "k": public("rsa")["n"], "kid": "rsa-1"}),
    "no keys": issuer("ES256"),
    "padded key": issuer("ES256", public("p256", x=public("p256")["x"] + "=")),
    "key of zeros": issuer("EdDSA", public("ed", x="A" * 43)),
}  # fmt: skip
