"""`make test T=…`: one test, one file or one folder, of Python or Rust, with its output as it comes."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from tools.testing import steps
from tools.testing.scheduler import ROOT

EXAMPLES = """T names what to run:
  server/tests/kit                                  a folder of Python tests
  tests/e2e/test_hard_budgets.py                         a file of end-to-end tests (builds the gateway first)
  server/tests/kit/test_cel.py::test_name           one Python test
  gateway/crates/limits                             a crate
  gateway/crates/gateway/tests/crash.rs             a file of Rust tests
  gateway/crates/limits/tests/charge.rs::test_name  one Rust test
  gateway/crates/limits/src/limit.rs                the unit tests of a Rust module
  test_name                                         a test's name, wherever it is"""


def run(target: str) -> int:
    """Run it; the exit code. Several commands run when a bare name is in several places."""
    commands = plan(target)
    if not commands:
        print(f"{target} names no test.\n{EXAMPLES}")
        return 2
    codes = []
    for folder, command in commands:
        print(f"── {' '.join(command)}", flush=True)
        codes.append(subprocess.run(command, cwd=ROOT / folder, check=False).returncode)
    return max(codes)


def plan(target: str) -> list[tuple[str, list[str]]]:
    """Folders and commands for what `target` names."""
    path, _, name = target.removeprefix("./").partition("::")
    path = path.rstrip("/")
    if not (ROOT / path).exists():
        return _by_name(target) if re.fullmatch(r"[\w:]+", target) else []
    if path.startswith("gateway"):
        return [(".", command) for command in [cargo_test(Path(path), name)] if command]
    if path == "server" or path.startswith("server/tests"):
        inside = str(Path(path).relative_to("server")) if path != "server" else "tests"
        return [("server", _pytest(steps.PYTEST, path, inside, name))]
    if path == "tests" or path.startswith("tests/"):
        return [*_gateway_first(), (".", _pytest(steps.END_TO_END, path, path, name))]
    return []


def _pytest(command: tuple[str, ...], path: str, inside: str, name: str) -> list[str]:
    workers = ["-n", "2", "--dist", "loadfile"] if (ROOT / path).is_dir() else []
    return [*command, *workers, f"{inside}::{name}" if name else inside]


def _gateway_first() -> list[tuple[str, list[str]]]:
    return [(".", ["make", "--no-print-directory", "gateway"])]


def cargo_test(path: Path, name: str) -> list[str]:
    """`cargo test` for a crate, a test file, or the unit tests of a module."""
    if len(path.parts) < 3 or path.parts[1] != "crates":
        whole = [steps.PYTHON, "-m", "tools.testing.cargo_tests"]
        return ["cargo", "test", *steps.CARGO, "--workspace", name] if name else whole
    manifest = tomllib.loads((ROOT / Path(*path.parts[:3]) / "Cargo.toml").read_text())
    command = ["cargo", "test", *steps.CARGO, "-p", manifest["package"]["name"]]
    inside = path.parts[3:]
    if inside[:1] == ("tests",) and len(inside) > 1:
        # A folder below tests/ is one binary, its main.rs; a bare file is one, too.
        return [*command, "--test", Path(inside[1]).stem, *([name] if name else [])]
    if inside[:1] == ("src",):
        module = [part.removesuffix(".rs") for part in inside[1:] if part not in {"mod.rs", "lib.rs", "main.rs"}]
        has_library = (ROOT / Path(*path.parts[:3]) / "src" / "lib.rs").exists()
        words = "::".join([*module, *([name] if name else [])])
        return [*command, "--lib" if has_library else "--bins", *([words] if words else [])]
    return [*command, *([name] if name else [])]


def _by_name(name: str) -> list[tuple[str, list[str]]]:
    """Wherever a test of this name is."""
    last = name.rsplit("::", 1)[-1]
    python = re.compile(rf"^\s*(?:async )?def {re.escape(last)}\(", re.MULTILINE)
    rust = re.compile(rf"^\s*(?:async )?fn {re.escape(last)}\(", re.MULTILINE)
    commands = []
    for folder in ("server/tests", "tests"):
        for file in sorted((ROOT / folder).rglob("test_*.py")):
            if python.search(file.read_text()):
                commands += plan(f"{file.relative_to(ROOT)}::{last}")
    files = [file for file in sorted((ROOT / "gateway" / "crates").rglob("*.rs")) if rust.search(file.read_text())]
    crates = dict.fromkeys(
        file.relative_to(ROOT).parts[2] for file in files if "#[test]" in file.read_text() or "test]" in file.read_text()
    )
    commands += [(".", cargo_test(Path("gateway", "crates", crate), name)) for crate in crates]
    return commands
