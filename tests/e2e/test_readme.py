"""The demo walks the whole path. The commands of pages are run by tests/docs."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import ROOT, Stack


def test_the_demo_ends_with_its_proofs(stack: Stack) -> None:
    demo = [sys.executable, str(ROOT / "examples" / "airline" / "demo.py")]
    done = subprocess.run(demo, env=os.environ | stack.environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "receipt verified" in done.stdout
    assert "rollback proven" in done.stdout
    assert "completed, request" in done.stdout
