"""Prose that is read once: no sentence over 30 words, no line of documentation over 120 characters.

Judges Markdown pages, the docstrings of the server and the doc comments of the gateway. Code blocks and drawings count for their width only.
A cell of a table is a sentence of its own, `code` is one word. A row of a table cannot be wrapped, so it may have 200 characters.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SENTENCE_WORDS_MAX = 30
LINE_MAX = 120
ROW_MAX = 200

# What stays, each with its reason; this list only shrinks.
ALLOWED: dict[str, str] = {}
ALLOWED_ROWS = {"docs/reference/conformance.md": "its header has a column for each route"}

_CODE = re.compile(r"`[^`]*`")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|<https?://[^>]*>|https?://\S+")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|No|v\d+|\d+)\.")
_END = re.compile(r"[.!?…](?=[\s\"”’)*]|$)")
_WORD = re.compile(r"[^\W_][\w'’./–-]*")
_ITEM = re.compile(r"^\s*([-*+]|\d+\.)\s+")


def main() -> int:
    """Print every sentence and line that is too long."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    problems: list[str] = []
    for name in sorted(listed.stdout.split()):
        path = ROOT / name
        judged = name.endswith(".md") or (name.startswith(("server/src/", "gateway/crates/")) and name.endswith((".py", ".rs")))
        if judged and "generated" not in path.parts and name not in ALLOWED and path.exists():
            problems += check_file(name, path.read_text())
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def check_file(name: str, text: str) -> list[str]:
    """What is wrong with one file."""
    if name.endswith(".md"):
        return [*_lines(name, text), *_sentences(name, _markdown(text))]
    return list(_sentences(name, _docstrings(text) if name.endswith(".py") else _doc_comments(text)))


def _lines(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        is_row = line.lstrip().startswith("|")
        limit = ROW_MAX if is_row else LINE_MAX
        if len(line) > limit and not (is_row and name in ALLOWED_ROWS):
            yield f"{name}:{number}: {len(line)} characters; a line has at most {limit}."


def _sentences(name: str, paragraphs: Iterator[tuple[int, str]]) -> Iterator[str]:
    for number, paragraph in paragraphs:
        plain = _LINK.sub(lambda match: match[1] or "link", _CODE.sub("code", paragraph))
        for sentence in _END.split(_ABBREVIATION.sub(r"\1", plain)):
            words = _WORD.findall(sentence)
            if len(words) > SENTENCE_WORDS_MAX:
                yield f"{name}:{number}: a sentence of {len(words)} words (at most {SENTENCE_WORDS_MAX}): “{' '.join(words[:8])} …”"


def _markdown(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, list items, headings and cells of tables, each with its first line's number."""
    start, gathered, fenced = 0, "", False
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
            line = ""
        elif fenced or line.startswith(("    ", "├", "└", "│")):
            continue  # what is drawn or set as code
        single = line.lstrip().startswith(("#", "|"))
        if gathered and (not line.strip() or single or _ITEM.match(line)):
            yield start, gathered
            gathered = ""
        if single:
            for cell in line.split("|"):
                yield number, cell
        elif line.strip():
            start = start if gathered else number
            gathered += " " + _ITEM.sub("", line).strip("> ")


def _docstrings(text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (document := ast.get_docstring(node)):
            yield from ((getattr(node, "lineno", 1), paragraph) for _, paragraph in _markdown(document))


def _doc_comments(text: str) -> Iterator[tuple[int, str]]:
    start, gathered = 0, []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        stripped = line.strip()
        if stripped.startswith(("//!", "///")):
            start = start if gathered else number
            gathered.append(stripped[3:].removeprefix(" "))
        elif gathered:
            yield from ((start, paragraph) for _, paragraph in _markdown("\n".join(gathered)))
            gathered = []


if __name__ == "__main__":
    sys.exit(main())
