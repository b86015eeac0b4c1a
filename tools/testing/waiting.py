"""Finds the tests that wait for time: by sleeping, by a deadline, by a timeout. They are the ones that a busy machine may turn red.

Nobody keeps a list: a test waits when its own text does, or a function that it calls, however deep, in its own file or in code that tests
share. Functions are matched by name, so the answer may name a test too many.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.testing.scheduler import ROOT

_PYTHON_WORDS = {"sleep", "monotonic", "timeout", "wait_for"}
_RUST_WORDS = re.compile(r"\bsleep\(|\bInstant::now\(|\btimeout\(|\bwait_timeout|\brecv_timeout\(|\bset_read_timeout\(|\bstart_paused\b")
_RUST_FUNCTION = re.compile(r"^( *)(?:pub(?:\([a-z]+\))? )?(?:const )?(?:async )?(?:unsafe )?fn (\w+)")
_CALL = re.compile(r"\b(\w+)\(")
# So common that a match by name would say nothing.
_COMMON = {"new", "default", "get", "close", "drop", "run", "call", "post", "main", "clone", "from", "fmt", "next", "len", "push"}


@dataclass
class _Function:
    """What matters about a function of the test code."""

    file: Path
    name: str
    calls: set[str]
    waits: bool
    is_test: bool
    is_shared: bool  # may be called from other files


def python_tests() -> list[str]:
    """Node ids, without parameters."""
    functions = []
    for folder in ("server/tests", "tests"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            has_tests = file.name.startswith("test_")
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    calls = set(_calls(node))
                    is_test = has_tests and node.name.startswith("test_")
                    functions.append(_Function(file, node.name, calls, bool(calls & _PYTHON_WORDS), is_test, not has_tests))
    return [f"{one.file.relative_to(ROOT)}::{one.name}" for one in _waiting(functions) if one.is_test]


def rust_tests() -> dict[tuple[str, str], list[str]]:
    """Names of tests, by crate folder and test file; the file is empty for unit tests."""
    functions = []
    for file in sorted((ROOT / "gateway" / "crates").rglob("*.rs")):
        parts = file.relative_to(ROOT).parts
        is_shared = parts[2] == "testkit" or (parts[3] == "tests" and (len(parts) > 5 or file.name == "support.rs"))
        for name, body, is_test in _rust_functions(file.read_text()):
            if is_test or parts[3] == "tests" or is_shared:
                calls = set(_CALL.findall(body)) - {name}
                functions.append(_Function(file, name, calls, bool(_RUST_WORDS.search(body)), is_test, is_shared))
    grouped: dict[tuple[str, str], list[str]] = {}
    for one in _waiting(functions):
        if one.is_test:
            parts = one.file.relative_to(ROOT).parts
            binary = Path(parts[4]).stem if parts[3] == "tests" else ""
            grouped.setdefault((str(Path(*parts[:3])), binary), []).append(one.name)
    return grouped


def _waiting(functions: list[_Function]) -> list[_Function]:
    """Those that wait themselves or call one that does."""
    while True:
        shared = {one.name for one in functions if one.waits and one.is_shared} - _COMMON
        local = {(one.file, one.name) for one in functions if one.waits}
        more = [one for one in functions if not one.waits and (one.calls & shared or any((one.file, name) in local for name in one.calls))]
        if not more:
            return [one for one in functions if one.waits]
        for one in more:
            one.waits = True


def _calls(function: ast.AST) -> Iterable[str]:
    """Names of what a function calls."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.func.attr


def _rust_functions(text: str) -> Iterator[tuple[str, str, bool]]:
    """Name, body and whether it is a test, by indentation (rustfmt makes it reliable)."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        match = _RUST_FUNCTION.match(line)
        if match and not line.rstrip().endswith(";"):
            end = next((n for n in range(number, len(lines)) if lines[n].startswith(f"{match[1]}}}")), number)
            attributes = "".join(lines[max(0, number - 3) : number])
            yield match[2], "\n".join([attributes, *lines[number : end + 1]]), re.search(r"#\[(tokio::)?test", attributes) is not None
