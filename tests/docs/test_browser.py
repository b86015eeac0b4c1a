"""The API's own pages in a real browser, where one is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Stack

BROWSER = next((path for name in ("chromium", "google-chrome", "chromium-browser") if (path := shutil.which(name))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize(
    ("path", "rendered"),
    [
        ("/docs", ("opblock-summary-path", "/v1/proposals", "Authorize")),
        ("/v1/graphiql", ("graphiql-container", "CodeMirror", "departures")),
    ],
)
def test_a_page_renders(stack: Stack, tmp_path: Path, path: str, rendered: tuple[str, ...]) -> None:
    assert BROWSER is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-dev-shm-usage"]
    command = [BROWSER, *flags, f"--user-data-dir={tmp_path}", "--virtual-time-budget=15000", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [*command, f"http://{stack.settings.api_listen}{path}"],
        capture_output=True, text=True, timeout=180, check=False, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    for piece in rendered:
        assert piece in done.stdout, (piece, done.stdout[-1500:], done.stderr[-1500:])
    refused = [line for line in done.stderr.splitlines() if "Content Security Policy" in line or "Content-Security-Policy" in line]
    assert not refused, refused
