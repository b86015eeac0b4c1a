"""The test runner itself: red steps hide nothing, no process and no folder outlives a run, and what is counted is right."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.testing import cargo_tests, ports, results, selection, steps, waiting
from tools.testing.cleaner import Cleaner

RUN = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tools import run_tests
from tools.testing.scheduler import Step
run_tests.new_folder = lambda: Path({logs!r})
sys.exit(run_tests.run([{steps}], is_whole=True))
"""


def runner(logs: Path, *steps: str) -> subprocess.Popen[str]:
    """A run of these steps, each the text of a `Step`."""
    script = RUN.format(root=str(ROOT), logs=str(logs), steps=", ".join(steps))
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def shell(name: str, command: str, more: str = "") -> str:
    return f"Step({name!r}, ['sh', '-c', {command!r}], {more})"


def has_ended(pid: int, seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].startswith("Z"):
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_red_step_hides_no_other(tmp_path: Path) -> None:
    run = runner(
        tmp_path,
        shell("red", "echo 'what is wrong'; exit 3"),
        shell("needs red", "echo never", "after=('red',)"),
        shell("after red", "echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured'", "before_it=('red',)"),
        shell("rest", "exit 1", "optional='the rest (`make rest`)'"),
    )
    output, _ = run.communicate(timeout=600)
    lines = output.splitlines()
    assert run.returncode == 1
    assert "what is wrong" in lines
    assert "never" not in output
    assert "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured" in lines
    assert "failed: red" in lines
    assert "not run: needs red needs: red" in lines
    assert lines[-2] == "tests: 2 passed, 0 failed, 0 skipped"
    assert lines[-1].startswith("Left out: the rest (`make rest`)")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_and_a_killed_run_leave_no_process(tmp_path: Path, number: signal.Signals) -> None:
    pid_file = tmp_path / "pid"
    run = runner(tmp_path, shell("sleeper", f"sleep 600 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait"))
    while not pid_file.exists():
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(number)
    output, _ = run.communicate(timeout=600)
    assert run.returncode != 0
    assert has_ended(int(pid_file.read_text()))
    if number == signal.SIGINT:
        assert "interrupted: sleeper" in output


def test_the_cleaner_removes_folders_and_their_processes(tmp_path: Path) -> None:
    kept, removed = tmp_path / "kept", tmp_path / "removed"
    for folder in (kept, removed):
        folder.mkdir()
    process = subprocess.Popen(["sleep", "600"], env=os.environ | {"TENON_STATE_DIR": str(removed)})
    cleaner = Cleaner()
    cleaner.remember("folder", str(removed))
    cleaner.remember("folder", str(kept))
    cleaner.forget(str(kept))
    cleaner.close()
    assert process.wait(10) == -signal.SIGTERM
    assert (kept.exists(), removed.exists()) == (True, False)


def test_ports_are_drawn_once() -> None:
    drawn = [ports.free_port() for _ in range(50)]
    assert len(set(drawn)) == 50
    script = f"from tools.testing import ports; ports.FIRST, ports.LAST = {drawn[0]}, {drawn[0] + 1}; ports.free_port()"
    other = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "no free port" in other.stderr


def test_results_are_counted() -> None:
    cargo = results.of_cargo(
        "test a::b ... ok\ntest c ... FAILED\ntest d ... ignored, by hand\ntest result: FAILED. 1 passed; 1 failed; 1 ignored;"
    )
    assert (cargo.passed, cargo.failures, cargo.skips) == (1, ["c"], [results.Skip("d", "by hand")])


def test_a_skip_must_be_on_the_list(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# why\ntests/engines/test_vllm.py: large\n")
    allowed = results.allowed_skips(tmp_path / "list")
    good, bad = results.Skip("tests/engines/test_vllm.py::test_a", "large"), results.Skip("tests/e2e/test_x.py::test_b", "no engine")
    assert results.unexpected([good, bad], allowed) == [bad]


def test_pytests_report_names_what_can_be_run_again(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(
        "import pytest\ndef test_good(): pass\ndef test_bad(): assert 0\n@pytest.mark.skip(reason='later')\ndef test_later(): pass\n"
        "class TestOf:\n    def test_inner(self): assert 0\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml", "test_sample.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    counted = results.of_pytest(tmp_path / "report.xml", tmp_path)
    assert counted.passed == 1
    assert counted.failures == ["test_sample.py::test_bad", "test_sample.py::TestOf::test_inner"]
    assert counted.skips == [results.Skip("test_sample.py::test_later", "later")]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("server/tests/kit", ["-n", "tests/kit"]),
        ("server/tests/kit/test_cel.py::test_a", ["tests/kit/test_cel.py::test_a"]),
        ("tests/conformance", ["tests/conformance", "--rootdir"]),
        ("gateway/crates/limits/", ["cargo", "test", "-p", "tenon-limits"]),
        ("gateway/crates/gateway/tests/crash.rs", ["-p", "tenon-gateway", "--test", "crash"]),
        ("gateway/crates/gateway/tests/faults", ["--test", "faults"]),
        ("gateway/crates/gateway/tests/faults/main.rs::a_name", ["--test", "faults", "a_name"]),
        ("gateway/crates/limits/src", ["--lib"]),
        ("test_ports_are_drawn_once", ["tests/conformance/test_test_runner.py::test_ports_are_drawn_once"]),
    ],
)
def test_a_selection_names_its_command(target: str, words: list[str]) -> None:
    (*_, (_, command)) = selection.plan(target)
    assert set(words) <= set(command)


@pytest.mark.parametrize("target", ["server/tests/no_such_folder", "README.md", "no_such_test_anywhere" + "_x", "-rf"])
def test_a_selection_of_nothing_is_refused(target: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert selection.run(target) == 2
    assert f"{target} names no test." in capfd.readouterr().out


def test_waiting_tests_are_found() -> None:
    assert "tests/e2e/test_control_plane_down.py::test_it_serves_on_and_ships_later" in waiting.python_tests()
    assert waiting.rust_tests()[("gateway/crates/gateway", "crash")]


def test_every_step_can_start() -> None:
    """Names in `after` and `before_it` exist: a wrong one would hold a step back or let it run too early."""
    every = [*steps.tests(), *steps.check()]
    names = {step.name for step in every} | {"build gateway"}
    assert len(names) == len(every)
    assert {name for step in every for name in (*step.after, *step.before_it)} <= names


def test_every_lint_and_every_generator_is_a_step() -> None:
    runnable = {file.stem for file in (ROOT / "tools" / "lints").glob("*.py") if "__main__" in file.read_text()}
    assert set(steps.LINTS) == runnable
    assert set(steps.GENERATORS) == {file.stem.removeprefix("generate_") for file in (ROOT / "tools").glob("generate_*.py")}
    makefile = (ROOT / "Makefile").read_text()
    assert [name for name in steps.GENERATORS if f"tools/generate_{name}.py" not in makefile] == []


def test_every_target_is_documented() -> None:
    """`make help` shows all of them."""
    makefile = (ROOT / "Makefile").read_text()
    phony = {name for line in re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE) for name in line.split()}
    assert phony == set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))


def test_test_binaries_that_take_longest_start_first() -> None:
    some = [cargo_tests.Binary(name, "", Path()) for name in ("abort", "faults", "crash")]
    assert [one.name for one in sorted(some, key=lambda one: one.order)] == ["crash", "faults", "abort"]
