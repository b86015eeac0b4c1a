"""Runs every test that waits for time many times over, beside busy processes: what passes here passes on a stranger's machine.

run_waiting_tests.py --times 30
run_waiting_tests.py --times 30 --only server/tests/core
run_waiting_tests.py --list
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.testing import steps, waiting
from tools.testing.scheduler import ROOT
from tools.testing.selection import cargo_test

BUSY = "while True: pass"


def main() -> int:
    """0 when each passed each time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--only", metavar="START", default="", help="only tests whose path starts so")
    parser.add_argument("--busy", type=int, default=2, help="processes that keep a core busy meanwhile")
    parser.add_argument("--list", action="store_true", help="name the tests, run nothing")
    arguments = parser.parse_args()
    os.environ.update(steps.environment())
    python = [test for test in waiting.python_tests() if test.startswith(arguments.only)]
    rust = {key: names for key, names in waiting.rust_tests().items() if _path(*key).startswith(arguments.only)}
    if arguments.list:
        print("\n".join([*python, *(f"{_path(*key)}::{name}" for key, names in rust.items() for name in names)]))
        return 0
    red: list[str] = []
    with busy(arguments.busy):
        for folder in ("server/", ""):
            tests = [test.removeprefix(folder) for test in python if test.startswith("server/") == bool(folder)]
            if tests and not run_python(folder, tests, arguments.times):
                red.append(f"{folder}tests")
        red += [
            f"{_path(*key)} {bad} of {arguments.times}" for key, names in rust.items() if (bad := run_rust(*key, names, arguments.times))
        ]
    print(f"waiting tests: {arguments.times} rounds; red: {', '.join(red) or 'none'}")
    return 1 if red else 0


def run_python(folder: str, tests: list[str], times: int) -> bool:
    """All rounds in one run, so that a stack starts once."""
    print(f"── {len(tests)} Python tests of {folder or 'tests/'}, {times} times", flush=True)
    command = steps.PYTEST if folder else steps.END_TO_END
    options = ["-p", "tools.testing.rounds", "--rounds", str(times), "-n", "2", "--dist", "loadfile", "--maxfail", "20"]
    return subprocess.run([*command, *options, *tests], cwd=ROOT / folder, check=False).returncode == 0


def run_rust(crate: str, binary: str, names: list[str], times: int) -> int:
    """How many rounds were red."""
    path = _path(crate, binary)
    print(f"── {len(names)} tests of {path}, {times} times", flush=True)
    command = [*cargo_test(Path(path), ""), "--quiet", "--", *names]
    red = 0
    for number in range(times):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
        if done.returncode:
            red += 1
            print(f"round {number + 1} of {path}:\n{done.stdout[-6000:]}", flush=True)
    return red


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Other work on the machine, as a stranger has it."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _path(crate: str, binary: str) -> str:
    if not binary:
        return f"{crate}/src"
    folder = f"{crate}/tests/{binary}"
    return folder if (ROOT / folder).is_dir() else f"{folder}.rs"


if __name__ == "__main__":
    sys.exit(main())
