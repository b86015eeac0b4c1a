"""What `make check` and `make test` run, in the order of importance: the scheduler starts the first step that fits."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tools.testing.scheduler import ROOT, Step

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenon"
# Caches of this checkout's tools stay outside of it, and apart from those of other checkouts.
OWN_CACHE = CACHE / "checkouts" / hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]
BIN = str(ROOT / ".venv" / "bin") + "/"
PYTHON = BIN + "python"
CARGO = ("--manifest-path", "gateway/Cargo.toml", "--locked")
PYTEST = (PYTHON, "-m", "pytest", "--durations=25", "--durations-min=1")
END_TO_END = (*PYTEST, "-c", "server/pyproject.toml", "--rootdir", ".")
SOURCES = ("server", "tools", "tests", "examples")
LINTS = ("tidy", "rust_layers", "words", "prose", "sql_owners", "commit_messages", "cargo_bans")
GENERATORS = ("grpc", "openapi", "tokens", "error_codes", "docs")
NEEDS_INSTRUCTIONS = "instruction counting (install valgrind and nginx, then `make bench-instructions`)"


def environment() -> dict[str, str]:
    """For every step. Compiled Python goes to the cache: without it each process of a stack compiles 2,000 modules, five seconds of a processor."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return {
        "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(OWN_CACHE / "pycache"), "MYPY_CACHE_DIR": str(OWN_CACHE / "mypy"),
        "RUFF_CACHE_DIR": str(OWN_CACHE / "ruff"), "HYPOTHESIS_STORAGE_DIRECTORY": str(OWN_CACHE / "hypothesis"),
    }  # fmt: skip


def check() -> list[Step]:
    """Formats, lints, types, layers: what `make check` runs."""
    imports = [BIN + "lint-imports", "--cache-dir", str(OWN_CACHE / "imports")]
    steps = [
        Step("clippy", ["cargo", "clippy", *CARGO, "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"], low_priority=True,
             locks=frozenset({"cargo debug"})),
        Step("mypy", [BIN + "mypy"], folder="server"),
        Step("imports", imports, folder="server"),
        Step("ruff", [BIN + "ruff", "check", *SOURCES]),
        Step("ruff format", [BIN + "ruff", "format", "--check", *SOURCES]),
        Step("cargo fmt", ["cargo", "fmt", "--manifest-path", "gateway/Cargo.toml", "--all", "--check"]),
    ]  # fmt: skip
    steps += [Step(f"generate {name}", [PYTHON, f"tools/generate_{name}.py", "--check"]) for name in GENERATORS]
    return steps + [Step(f"lint {name.replace('_', ' ')}", [PYTHON, f"tools/lints/{name}.py"]) for name in LINTS]


def tests() -> list[Step]:
    """Builds and tests. Builds come first: what waits for them is longest; the server's tests use the other core meanwhile."""
    e2e = [*END_TO_END, "-n", "2", "--dist", "loadfile", "tests"]
    return [
        Step("build gateway", ["cargo", "build", "--release", *CARGO, "--bin", "tenon-gateway"], locks=frozenset({"cargo release"})),
        Step("engine dynamo", ["make", "engine-dynamo"], cores=0.5, optional="tests with NVIDIA Dynamo (`make engine-dynamo`)"),
        Step("server tests", [*PYTEST, "-n", "2"], folder="server", is_pytest=True),
        Step("build gateway tests", ["cargo", "test", "--no-run", *CARGO, "--workspace"], low_priority=True,
             locks=frozenset({"cargo debug"}), before_it=("build gateway",)),
        Step("end-to-end tests", e2e, is_pytest=True, after=("build gateway",), before_it=("engine dynamo",)),
        Step("gateway tests", [PYTHON, "-m", "tools.testing.cargo_tests"], after=("build gateway tests",), locks=frozenset({"cargo debug"})),
        *instructions(),
    ]  # fmt: skip


def instructions() -> list[Step]:
    """Instructions a request, where the tools to count them are installed."""
    if not can_count_instructions():
        return []
    build = ["cargo", "build", "--release", *CARGO, "--workspace"]
    return [
        Step(
            "build benchmarks",
            build,
            low_priority=True,
            locks=frozenset({"cargo release"}),
            before_it=("build gateway", "build gateway tests"),
        ),
        # Alone: beside other work threads wait differently, and the count grows by some percent.
        Step("instructions", [PYTHON, "tools/bench/gateway/instructions.py", "--check"], after=("build benchmarks",), cores=2.0),
    ]


def can_count_instructions() -> bool:
    """Valgrind and nginx are packages of the system; Debian keeps nginx out of users' PATH."""
    return bool(shutil.which("valgrind") and shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"))
