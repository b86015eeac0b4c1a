"""The tidy test: sizes of files, functions and packages, package contracts, names of modules. Prints what is wrong and exits 1.

A slice's module has a name of SLICE_MODULES: whoever knows one slice knows them all. Every other name is listed in module_names.txt, so
that a new one is a decision that a reviewer sees.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE_LINES_MAX = 600  # aim for 400
FUNCTION_LINES_MAX = 70  # aim for 40
PACKAGE_MODULES_MAX = 12
MODULES_BANNED = {"utils", "helpers", "common", "misc"}
# The same file holds the same thing in every slice.
SLICE_MODULES = {
    "rest": "HTTP routes",
    "graphql": "the GraphQL route",
    "tasks": "what the worker runs",
    "service": "the rules, and what other slices may call",
    "repository": "functions over named SQL",
    "models": "the slice's own state",
    "contracts": "frozen types that other slices see",
    "errors": "the slice's refusals",
    "metrics": "Prometheus metrics",
    "limits": "fixed limits",
    "queries": "reading use cases",
    "commands": "writing use cases",
}
PACKAGE = "server/src/tenon/"
MODULE_NAMES = Path(__file__).parent / "module_names.txt"
CONTRACT_PARTS = ("Owns:", "Promises:", "Needs:")
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
    problems += check_modules(listed.stdout.split(), MODULE_NAMES.read_text())
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


def check_modules(names: list[str], listed: str) -> list[str]:
    """Names of the control plane's modules, and how many a package holds."""
    modules = [Path(name) for name in names if name.startswith(PACKAGE) and name.endswith(".py") and (ROOT / name).exists()]
    modules = [path for path in modules if not path.stem.startswith("__") and "generated" not in path.parts]
    known = {line.strip() for line in listed.splitlines() if line.strip() and not line.startswith("#")}
    others = {path.stem: path for path in modules if path.stem not in SLICE_MODULES}
    problems = [
        f"{path}: `{stem}` is not listed. If it says what the module holds, add it to tools/lints/module_names.txt; else rename it."
        for stem, path in sorted(others.items())
        if stem not in known
    ]
    problems += [
        f"tools/lints/module_names.txt: no module is called `{stem}` any more; remove the line." for stem in sorted(known - others.keys())
    ]
    for package, count in sorted(Counter(path.parent for path in modules).items()):
        if count > PACKAGE_MODULES_MAX:
            problems.append(f"{package}: {count} modules; a package has at most {PACKAGE_MODULES_MAX}. Make sub-packages by subject.")
    return problems


def check_python(name: str, text: str) -> list[str]:
    """Package contracts and function sizes."""
    tree = ast.parse(text)
    problems = []
    if name.endswith("__init__.py") and "/src/" in name:
        docstring = ast.get_docstring(tree) or ""
        # A package without modules of its own only holds others.
        parts = CONTRACT_PARTS if any(path.name != "__init__.py" for path in (ROOT / name).parent.glob("*.py")) else ()
        if not docstring or any(part not in docstring for part in parts):
            problems.append(f"{name}: a package opens with its contract: one sentence, then {', '.join(CONTRACT_PARTS)}")
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
