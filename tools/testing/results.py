"""Counts what the tests said: pytest's report in JUnit's XML, cargo's closing lines; skips that are not on the checked-in list."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

_CARGO_TOTAL = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)
_CARGO_TEST = re.compile(r"^test (.+?) \.\.\. (FAILED|ignored)(?:, (.*))?$", re.MULTILINE)
_CLOSING = re.compile(r"^(test result: |=*\s*\d+ (passed|failed|skipped|errors?)\b.* in )")


@dataclass(frozen=True, slots=True)
class Skip:
    """A test that did not run, and why."""

    test: str
    reason: str


@dataclass
class Results:
    """Numbers of one step, or of all."""

    passed: int = 0
    skips: list[Skip] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Results) -> None:
        self.passed += other.passed
        self.skips += other.skips
        self.failures += other.failures


def of_pytest(report: Path, root: Path, folder: str = ".") -> Results:
    """Results of a JUnit XML file of a run in `root / folder`; none when pytest did not live to write it."""
    results = Results()
    if not report.exists():
        return results
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        test = _node_id(case.get("classname", ""), case.get("name", ""), root, folder)
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            results.failures.append(test)
        elif skipped is not None:
            results.skips.append(Skip(test, skipped.get("message") or ""))
        else:
            results.passed += 1
    return results


def _node_id(module: str, name: str, root: Path, folder: str) -> str:
    """`tests.kit.test_x.TestY` and `test_z` in `server`: `server/tests/kit/test_x.py::TestY::test_z`."""
    parts, classes = module.split("."), list[str]()
    while len(parts) > 1 and not (root / folder).joinpath(*parts).with_suffix(".py").exists():
        classes.insert(0, parts.pop())
    return "::".join([str(Path(folder, *parts).with_suffix(".py")), *classes, name])


def of_cargo(output: str) -> Results:
    """Results of the output of one or many Rust test binaries."""
    results = Results(passed=sum(int(passed) for passed, _, _ in _CARGO_TOTAL.findall(output)))
    for test, outcome, reason in _CARGO_TEST.findall(output):
        if outcome == "FAILED":
            results.failures.append(test)
        else:
            results.skips.append(Skip(test, reason))
    return results


def closing_lines(output: str) -> list[str]:
    """Pytest's and cargo's own last words, which machines count."""
    return [line for line in output.splitlines() if _CLOSING.match(line)]


def allowed_skips(file: Path) -> dict[str, str]:
    """`test or the start of its name: reason` a line; `#` opens a comment."""
    lines = [line.strip() for line in file.read_text().splitlines()]
    pairs = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {test: reason for test, _, reason in pairs}


def unexpected(skips: list[Skip], allowed: dict[str, str]) -> list[Skip]:
    """Skips that the list does not allow."""
    return [skip for skip in skips if not any(skip.test.startswith(start) for start in allowed)]
