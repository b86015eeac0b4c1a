"""Write contracts/error-codes.json and the control plane's part of docs/reference/error-codes.md from `ErrorCode`; --check compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tenon.kit.errors import ErrorCode, http_status, retry_after_seconds
from tenon.kit.errors.codes import COMMAND_LINE_ONLY
from tools.generated import ROOT, write_or_check

CONTRACT = ROOT / "contracts" / "error-codes.json"
PAGE = ROOT / "docs" / "reference" / "error-codes.md"
BEGIN, END = "<!-- control plane: generated -->", "<!-- control plane: end -->"


def contract() -> str:
    """Every code of the control plane, as JSON."""
    codes = [
        {
            "code": code.value,
            "kind": code.kind.value,
            "http_status": None if code in COMMAND_LINE_ONLY else http_status(code),
            "retry_after_seconds": None if code in COMMAND_LINE_ONLY else retry_after_seconds(code),
            "meaning": code.meaning,
            "remedy": code.remedy,
        }
        for code in sorted(ErrorCode)
    ]
    return json.dumps({"control_plane": codes}, indent=1) + "\n"


def section() -> str:
    """The control plane's codes as Markdown lists, by status."""
    by_status: dict[int, list[ErrorCode]] = {}
    for code in sorted(set(ErrorCode) - COMMAND_LINE_ONLY):
        by_status.setdefault(http_status(code), []).append(code)
    parts = [BEGIN]
    for status, codes in sorted(by_status.items()):
        parts += ["", f"### Status {status}", "", *_entries(codes)]
    parts += ["", "### At the command line and in logs", "", *_entries(sorted(COMMAND_LINE_ONLY)), "", END]
    return "\n".join(parts)


def _entries(codes: list[ErrorCode]) -> list[str]:
    # A list, because a table's rows cannot be wrapped.
    return [line for code in codes for line in (f"- `{code.value}`: {code.meaning}", f"  *What to do:* {code.remedy}")]


def page() -> str:
    """The whole page with its generated part renewed; what stands around it is written by hand."""
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + section() + tail


def main() -> int:
    """Write both files, or compare them and print what differs."""
    return max(write_or_check(CONTRACT, contract()), write_or_check(PAGE, page()))


if __name__ == "__main__":
    sys.exit(main())
