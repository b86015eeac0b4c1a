"""What the README tells a new user to type works as it stands there, and so does the demo."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.conftest import ROOT, Stack


def by_hand() -> str:
    """Every shell block of the README's section, in order."""
    section = (ROOT / "README.md").read_text().split("## The same by hand")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))


def test_the_same_by_hand(stack: Stack, tmp_path) -> None:
    settings, keys = stack.settings, stack.keys
    script = by_hand().replace("http://127.0.0.1:8080", f"http://{settings.api_listen}")
    script = script.replace("http://127.0.0.1:8090", f"http://{settings.gateway_listen}").replace(
        ".venv/bin/tenon", sys.executable.replace("python", "tenon")
    )
    script = script.replace(".tenon/checkpoints", str(settings.checkpoint_dir))
    for name in ("VIEWER", "EDITOR", "APPROVER", "OPERATOR", "AGENT"):
        script, found = re.subn(rf"{name}=tnn_\S+…", f"{name}={keys[name.lower()]}", script)
        assert found == 1, name
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=os.environ | stack.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("executed\n") == 2
    for piece in (
        '"departure_delay_minutes"',
        '"wind_speed_mph"',
        "tenon.proposal.executed.v1",
        "\nverified",
        "simulate_delay_flight",
        "smollm2",
    ):
        assert piece in done.stdout, (piece, done.stdout[-3000:])


def test_the_demo_ends_with_its_proofs(stack: Stack) -> None:
    demo = [sys.executable, str(ROOT / "examples" / "airline" / "demo.py")]
    done = subprocess.run(demo, env=os.environ | stack.environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "receipt verified" in done.stdout
    assert "rollback proven" in done.stdout
    assert "completed, request" in done.stdout
