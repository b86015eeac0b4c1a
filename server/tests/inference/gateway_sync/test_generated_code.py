"""The committed Python side of contracts/gateway.proto is what the contract generates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]


def test_generated_code_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "generate_grpc.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
