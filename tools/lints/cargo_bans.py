"""Crates that must not enter the gateway's lock file, each with its reason."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

BANNED = {
    "aws-lc-sys": "a second TLS provider beside ring: rustls then panics at start, and the C build costs half a minute",
    "openssl-sys": "TLS is rustls; a system library would have to be on every machine",
    "native-tls": "TLS is rustls",
    "simd-json": "parses security keys differently from engines; the scan in `dialects` refuses what they would read differently",
    "reqwest": "connections to endpoints are our own pool of hyper connections",
}


def main() -> int:
    """Print every banned crate that is locked."""
    lock = tomllib.loads((Path(__file__).parents[2] / "gateway" / "Cargo.lock").read_text())
    locked = sorted({package["name"] for package in lock["package"]} & BANNED.keys())
    for name in locked:
        print(f"gateway/Cargo.lock: {name} is banned: {BANNED[name]}.")
    return 1 if locked else 0


if __name__ == "__main__":
    sys.exit(main())
