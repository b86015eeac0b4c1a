"""`make check` and `make test`: all steps side by side, results counted, and a last line that says what was left out.

run_tests.py                 everything
run_tests.py --check         formats, lints, types and layers only
run_tests.py --only PATH     one test or folder, as `make test T=PATH`
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.testing import results, selection, steps
from tools.testing.scheduler import ROOT, Outcome, Scheduler, Step, children_cpu_seconds

ALLOWED_SKIPS = ROOT / "tests" / "allowed_skips.txt"
RUNS_KEPT = 5


def main() -> int:
    """The exit code: 0 when everything passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="formats, lints, types and layers only")
    parser.add_argument("--only", metavar="PATH", help="one test, file or folder")
    arguments = parser.parse_args()
    os.environ.update(steps.environment())
    if arguments.only:
        return selection.run(arguments.only)
    chosen = steps.check() if arguments.check else [*steps.tests(), *steps.check()]
    return run(chosen, is_whole=not arguments.check)


def run(chosen: list[Step], *, is_whole: bool) -> int:
    """Run the steps, print the summary, return the exit code."""
    logs = new_folder()
    began = time.monotonic()
    scheduler = Scheduler(chosen, logs, cores=max(2, os.cpu_count() or 2))
    outcomes = asyncio.run(scheduler.run())
    print(f"\n{'step':<24} {'result':<12} {'seconds':>8}")
    for outcome in outcomes:
        print(f"{outcome.step.name:<24} {outcome.status:<12} {outcome.seconds:>8.0f}")
    cpu = children_cpu_seconds()
    print(f"{time.monotonic() - began:.0f} seconds, {cpu:.0f} of them on a processor's core; logs: {logs}")
    return report(outcomes, is_whole=is_whole)


def report(outcomes: list[Outcome], *, is_whole: bool) -> int:
    """Print what failed and what was left out; the last line says what did not run."""
    total = results.Results()
    for outcome in outcomes:
        total.add(outcome.counted)
    broken = [outcome for outcome in outcomes if outcome.status in {"failed", "not run", "interrupted"}]
    for outcome in broken:
        print(f"{outcome.status}: {outcome.step.name} {outcome.note}".rstrip())
    for test in total.failures:
        print(f"failed: {test}   (again: make test T='{test}')")
    forbidden = results.unexpected(total.skips, results.allowed_skips(ALLOWED_SKIPS)) if os.environ.get("CI") == "true" else []
    for skip in forbidden:
        print(f"skipped, and not in {ALLOWED_SKIPS.relative_to(ROOT)}: {skip.test}: {skip.reason}")
    if is_whole:
        left_out = left_out_names(outcomes, total)
        print(f"tests: {total.passed} passed, {len(total.failures)} failed, {len(total.skips)} skipped")
        print(f"Left out: {'; '.join(left_out) or 'nothing'}.")
    return 1 if broken or total.failures or forbidden else 0


def left_out_names(outcomes: list[Outcome], total: results.Results) -> list[str]:
    """What did not run, and how to run it."""
    names = [outcome.step.optional for outcome in outcomes if outcome.status == "left out"]
    if not steps.can_count_instructions():
        names.append(steps.NEEDS_INSTRUCTIONS)
    reasons = dict.fromkeys(skip.reason for skip in total.skips)
    return names + [f"{sum(skip.reason == reason for skip in total.skips)} × {reason}" for reason in reasons]


def new_folder() -> Path:
    """A folder for the logs of this run; the oldest runs are removed."""
    runs = steps.OWN_CACHE / "test-logs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in sorted(runs.iterdir())[: 1 - RUNS_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=runs))


if __name__ == "__main__":
    sys.exit(main())
