"""The shell blocks of a Markdown page, and what is said about them in the HTML comment on the line before.

```sh                                   runs, in one shell with the page's other blocks; must end with 0
<!-- test: skip REASON -->              before ```sh: not run; REASON is a key of REASONS
<!-- test: output -->                   before ```text: the shell block above prints these lines, in this order;
                                        `…` in a line stands for any text
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Why a documented command is not run. This list only shrinks.
REASONS = {
    "starts the installation": "the tests' own installation is up already",
    "another database": "it needs a PostgreSQL server of the reader's own",
    "runs for minutes": "a make target that is a test run of its own",
}
_COMMENT = re.compile(r"^\s*<!-- test: (.+?) -->\s*$")
_FENCE = re.compile(r"^(\s*)```(\w*)\s*$")


@dataclass
class Block:
    """One ```sh block."""

    line: int
    commands: str
    skip: str | None = None
    output: list[str] = field(default_factory=list)


def pages() -> list[Path]:
    """Every page a reader is sent to."""
    fixed = [
        ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "gateway/README.md")
    ]
    return [*fixed, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("README.md"))]


def blocks(text: str) -> list[Block]:
    """The page's shell blocks in order. Raises ValueError for a comment or a fence that says nothing we know."""
    collected: list[Block] = []
    comment: tuple[int, str] | None = None
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        if match := _COMMENT.match(line):
            comment = (number, match[1])
        elif (match := _FENCE.match(line)) and match[2]:
            end = next((at for at in range(number + 1, len(lines)) if lines[at].strip() == "```"), None)
            if end is None:
                raise ValueError(f"line {number + 1}: the block does not end")
            body = [inner.removeprefix(match[1]) for inner in lines[number + 1 : end]]
            about = comment[1] if comment and comment[0] == number - 1 else ""
            _take(collected, match[2], body, about, number + 1)
            comment, number = None, end
        elif match:
            raise ValueError(f"line {number + 1}: a block says what it is in: sh, text, yaml, json, …")
        elif comment and comment[0] < number:
            raise ValueError(f"line {comment[0] + 1}: the comment stands right before its block")
        number += 1
    return collected


def _take(collected: list[Block], language: str, body: list[str], about: str, line: int) -> None:
    if language in {"bash", "shell", "console"}:
        raise ValueError(f"line {line}: shell blocks are ```sh")
    if language == "sh":
        skip = about.removeprefix("skip ") if about.startswith("skip ") else None
        if about and skip not in REASONS:
            raise ValueError(f"line {line}: {about!r} is not `skip` with a reason of tests/docs/blocks.py")
        collected.append(Block(line, "\n".join(body), skip))
    elif about == "output":
        if not collected or collected[-1].skip:
            raise ValueError(f"line {line}: there is no block above that runs and prints this")
        collected[-1].output += [each.strip() for each in body if each.strip()]
    elif about:
        raise ValueError(f"line {line}: {about!r} says nothing about a ```{language} block")


def missing_line(printed: str, expected: list[str]) -> str | None:
    """The first expected line that is not in what was printed, after the ones before it; None = all are."""
    at = 0
    for line in expected:
        pattern = ".*?".join(re.escape(part) for part in line.split("…"))
        if (match := re.compile(pattern).search(printed, at)) is None:
            return line
        at = match.end()
    return None
