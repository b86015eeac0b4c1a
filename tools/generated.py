"""What every generator of a checked-in file does at its end: write the text, or with `--check` show how the file differs."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIFF_LINES_MAX = 200


def write_or_check(file: Path, text: str) -> int:
    """The exit code: 1 when `--check` is asked for and the checked-in file is not this text."""
    if "--check" not in sys.argv:
        file.write_text(text)
        return 0
    difference = diff(file, text)
    if difference:
        print(f"{difference}\n{file.relative_to(ROOT)} is not what the code generates. Run `make generate` and read the diff.")
    return 1 if difference else 0


def diff(file: Path, text: str) -> str:
    """How the checked-in file would change; empty when it would not."""
    kept = file.read_text() if file.exists() else ""
    lines = list(
        difflib.unified_diff(kept.splitlines(), text.splitlines(), f"checked in: {file.name}", f"generated: {file.name}", lineterm="")
    )
    more = [f"… and {len(lines) - DIFF_LINES_MAX} more lines"] if len(lines) > DIFF_LINES_MAX else []
    return "\n".join(lines[:DIFF_LINES_MAX] + more) or ("" if kept == text else "only the ends of lines differ")
