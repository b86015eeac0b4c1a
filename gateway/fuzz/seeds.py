"""Seeds for the targets out of contracts/tokens: each case as a raw token, and as header and payload to be signed again."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = json.loads((HERE.parents[1] / "contracts" / "tokens" / "corpus.json").read_text())
GOOD = {"iss": "https://idp.example", "aud": "tenon", "sub": "robot", "iat": 1_899_999_940, "nbf": 1_899_999_940.5, "exp": 1_900_000_300}


def decoded(part: str) -> bytes:
    """As far as it can be."""
    try:
        return base64.urlsafe_b64decode(part + "==")
    except ValueError:
        return part.encode()


def main() -> None:
    """Write corpus/jwt and corpus/key_text."""
    header, payload = b'{"alg":"EdDSA","kid":"k","typ":"at+jwt"}', json.dumps(GOOD).encode()
    seeds = [b"\x01" + payload, b"\x02" + header + b"\0" + payload]
    for case in CORPUS["cases"]:
        token = case.get("token", "")
        parts = [decoded(part) for part in token.split(".")]
        seeds.append(b"\0" + token.encode())
        if len(parts) > 1:
            seeds += [b"\x01" + parts[1], b"\x02" + parts[0] + b"\0" + parts[1]]
    key = b"tnn_test_svc_abcdefghij_" + b"s" * 43
    for name, contents in (("jwt", seeds), ("key_text", [key, key + b"000000", key[:-1], b"tnn_live_usr_", b"_____"])):
        folder = HERE / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        for seed in contents:
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


if __name__ == "__main__":
    main()
