"""The lints of prose and of commit messages: what is too long or lacks its form is named, the rest passes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.lints import commit_messages, prose

LONG = " ".join(["word"] * 31)
SHORT = " ".join(["word"] * 30)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.md", LONG + ".\n"),
        ("x.md", f"Short. {LONG}.\n"),
        ("x.md", f"- one\n- {LONG}\n"),
        ("x.md", f"| a | {LONG} |\n"),
        ("x.md", "first\n" + "\n".join(["word"] * 30) + "\n"),
        ("x.py", f'"""{SHORT[:60]}\n{LONG}"""\n'),
        ("x.py", f'def f():\n    """{LONG}"""\n'),
        ("x.rs", f"/// {LONG}\nfn f() {{}}\n"),
        ("x.rs", "//! " + LONG.replace("word word", "word\n//! word") + "\n"),
    ],
)
def test_a_sentence_that_is_too_long_is_named(name: str, text: str) -> None:
    problems = [problem for problem in prose.check_file(name, text) if "characters" not in problem]
    assert len(problems) == 1
    assert "a sentence of" in problems[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.md", f"{SHORT}.\n".replace("word word word ", "word\nword word ")),
        ("x.md", "\n".join([SHORT[:100]] * 2).replace("word word word", "word. Word") + "\n"),
        ("x.md", f"```\n{LONG[:110]}\n{LONG[:110]}\n```\n"),
        ("x.md", f"`{LONG[:110]}`\n"),
        ("x.md", "- a b c\n- d e f\n" * 20),
        ("x.py", f"# {LONG}\n"),
        ("x.rs", f"// {LONG}\n"),
    ],
)
def test_what_is_short_passes(name: str, text: str) -> None:
    assert prose.check_file(name, text) == []


@pytest.mark.parametrize(("line", "limit"), [("x" * 121, 120), ("```\n" + "x" * 121 + "\n```", 120), ("| " + "x" * 200, 200)])
def test_a_line_that_is_too_long_is_named(line: str, limit: int) -> None:
    assert [f"at most {limit}" in problem for problem in prose.check_file("x.md", line + "\n")] == [True]


GOOD = "Area: what changed\n\nProblem: it broke.\nSolution: mended.\nVerified: its test."


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("wip", "reads “Area: what changed”"),
        (GOOD.replace("changed", "changed."), "full stop"),
        (GOOD.replace("changed", "x" * 100), "at most 100"),
        (GOOD.replace("\n\n", "\n"), "empty line"),
        (GOOD.replace("Verified: its test.", ""), "lacks Verified:"),
        (GOOD.replace("its test.", ""), "lacks Verified:"),
    ],
)
def test_a_message_without_its_form_is_named(message: str, said: str) -> None:
    assert any(said in problem for problem in commit_messages.check_message(message))


def test_a_good_message_passes() -> None:
    assert commit_messages.check_message(GOOD) == []


def test_only_commits_after_the_lints_own_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def commit(message: str, name: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        for command in (["add", "."], ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", message]):
            subprocess.run(["git", *command], cwd=tmp_path, check=True)

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    commit("before", "a")
    commit("the lint", "tools/lints/commit_messages.py")
    assert commit_messages.main(tmp_path) == 0
    commit(GOOD, "b")
    assert commit_messages.main(tmp_path) == 0
    commit("after", "c")
    assert commit_messages.main(tmp_path) == 1
    assert "“after”" in capsys.readouterr().out
