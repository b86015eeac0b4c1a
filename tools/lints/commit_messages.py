"""Commit messages: a subject that names its area, and a body that says the problem, the solution and how it was verified.

Judges the commits since the one that brought this lint; merges are exempt. CONTRIBUTING.md shows the form.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUBJECT_MAX = 100
LABELS = ("Problem:", "Solution:", "Verified:")
_SUBJECT = re.compile(r"[A-Z][^:]{1,40}: \S.*[^.]")


def main(root: Path = ROOT) -> int:
    """Print what is wrong with each commit since the lint came."""
    inside = subprocess.run(["git", "rev-parse", "--is-inside-work-tree"], cwd=root, capture_output=True, text=True, check=False)
    if inside.returncode != 0:
        print("This is no git checkout: commit messages are not checked.")
        return 0
    problems = [problem for commit in commits_since(root) for problem in check_message(commit)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def commits_since(root: Path) -> list[str]:
    """The messages of the commits after the one that added this file (a shallow clone judges what it has)."""
    added = _git(root, "log", "--diff-filter=A", "--format=%H", "--", "tools/lints/commit_messages.py").split()
    spread = [f"{added[-1]}..HEAD"] if added else ["-1", "HEAD"]
    return [text.strip("\n") for text in _git(root, "log", "--no-merges", "--format=%B%x00", *spread).split("\0") if text.strip()]


def check_message(message: str) -> list[str]:
    """What is wrong with one message."""
    subject, _, body = message.partition("\n")
    problems = []
    if len(subject) > SUBJECT_MAX:
        problems.append(f"“{subject[:40]}…”: a subject of {len(subject)} characters; at most {SUBJECT_MAX}.")
    if not _SUBJECT.fullmatch(subject):
        problems.append(f"“{subject[:60]}”: a subject reads “Area: what changed”, without a full stop.")
    if body and not body.startswith("\n"):
        problems.append(f"“{subject[:60]}”: an empty line stands between subject and body.")
    missing = [label for label in LABELS if not re.search(rf"^{label}\s+\S", body, re.MULTILINE)]
    if missing:
        problems.append(f"“{subject[:60]}”: the body lacks {' and '.join(missing)}")
    return problems


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
