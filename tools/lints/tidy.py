"""The tidy test: sizes of files and functions, package contracts, words we do not use for modules. Prints what is wrong and exits 1."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE_LINES_MAX = 600  # aim for 400
FUNCTION_LINES_MAX = 70  # aim for 40
MODULES_BANNED = {"utils", "helpers", "common", "misc"}
# Longer than the limit, each with its reason; this list only shrinks.
ALLOWED: dict[str, str] = {}
_RUST_FUNCTION = re.compile(r"^(\s*)(pub(\([a-z]+\))? )?(const )?(async )?(unsafe )?fn (\w+)")


def main() -> int:
    """Check every tracked source file."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    problems: list[str] = []
    for name in sorted(listed.stdout.split()):
        path = ROOT / name
        if path.suffix in {".py", ".rs"} and "generated" not in path.parts and path.exists():
            problems += check_file(name, path.read_text())
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def check_file(name: str, text: str) -> list[str]:
    """What is wrong with one file."""
    problems = []
    lines = text.count("\n")
    if lines > FILE_LINES_MAX and name not in ALLOWED:
        problems.append(f"{name}: {lines} lines; a file has at most {FILE_LINES_MAX}. Split it by what its parts are for.")
    if Path(name).stem in MODULES_BANNED:
        problems.append(f"{name}: name it after what it holds; `{Path(name).stem}` says nothing.")
    return problems + (check_python(name, text) if name.endswith(".py") else check_rust(name, text))


def check_python(name: str, text: str) -> list[str]:
    """Package contracts and function sizes."""
    tree = ast.parse(text)
    problems = []
    if name.endswith("__init__.py") and "/src/" in name and not ast.get_docstring(tree):
        problems.append(f"{name}: a package opens with its contract: what it owns, promises and needs.")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            # A migration is a text of SQL in the shape of a function.
            if length > FUNCTION_LINES_MAX and "/migrations/" not in name and f"{name}:{node.name}" not in ALLOWED:
                problems.append(f"{name}:{node.lineno}: {node.name} has {length} lines; a function has at most {FUNCTION_LINES_MAX}.")
    return problems


def check_rust(name: str, text: str) -> list[str]:
    """Contracts of crates and function sizes, by indentation (rustfmt makes it reliable)."""
    problems = []
    if name.endswith("src/lib.rs") and not text.lstrip().startswith("//!"):
        problems.append(f"{name}: a crate opens with its contract: what it owns, promises and needs.")
    opened: tuple[str, str, int] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if opened is None and (match := _RUST_FUNCTION.match(line)) and not line.rstrip().endswith((";", "}")):
            opened = (match[1], match[7], number)
        elif opened and line.startswith(f"{opened[0]}}}"):
            if number - opened[2] + 1 > FUNCTION_LINES_MAX and f"{name}:{opened[1]}" not in ALLOWED:
                problems.append(f"{name}:{opened[2]}: {opened[1]} has {number - opened[2] + 1} lines; at most {FUNCTION_LINES_MAX}.")
            opened = None
    return problems


if __name__ == "__main__":
    sys.exit(main())
