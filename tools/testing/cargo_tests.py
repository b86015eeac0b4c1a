"""Runs the gateway's test binaries side by side; `cargo test` runs one after the other, and most of them wait for sockets.

    python -m tools.testing.cargo_tests [WORDS…]      WORDS go to cargo: `-p tenon-limits`, `--test crash`

Each binary runs in its crate's folder with the output of `cargo test`. Tests in the documentation follow at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CARGO = ("--manifest-path", "gateway/Cargo.toml", "--locked")
# They take longest, so they start first.
LONGEST = ("crash", "faults", "conformance", "handover", "interleavings")


@dataclass(frozen=True)
class Binary:
    """A compiled test binary."""

    name: str
    path: str
    folder: Path

    @property
    def order(self) -> tuple[int, str]:
        return LONGEST.index(self.name) if self.name in LONGEST else len(LONGEST), self.name


def binaries(words: list[str]) -> list[Binary]:
    """Compile, and list what came of it, longest first. Raises CalledProcessError when a crate does not compile."""
    command = ["cargo", "test", "--no-run", "--message-format=json-render-diagnostics", *CARGO, *(words or ["--workspace"])]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    tests = []
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            tests.append(Binary(message["target"]["name"], message["executable"], Path(message["manifest_path"]).parent))
    return sorted(tests, key=lambda binary: binary.order)


def run(binary: Binary) -> bool:
    """Run one; its output is printed in one piece."""
    environment = os.environ | {"CARGO_MANIFEST_DIR": str(binary.folder)}
    began = time.monotonic()
    done = subprocess.run(
        [binary.path], cwd=binary.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    where = f"{binary.folder.relative_to(ROOT)} {binary.name}"
    print(f"     Running {where} ({time.monotonic() - began:.1f} s, exit code {done.returncode})\n{done.stdout}", flush=True)
    return done.returncode == 0


def main() -> int:
    """0 when every binary and every documentation test passed."""
    words = sys.argv[1:]
    tests = binaries(words)
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        passed = list(pool.map(run, tests))
    failed = [binary.name for binary, good in zip(tests, passed, strict=True) if not good]
    if not words:
        documentation = subprocess.run(["cargo", "test", "--doc", *CARGO, "--workspace"], cwd=ROOT, stderr=subprocess.STDOUT, check=False)
        failed += ["documentation"] if documentation.returncode else []
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
