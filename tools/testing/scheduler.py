"""Runs steps side by side within the machine's cores; a red step never hides the others.

Each step writes a log of its own. What it says is printed when it ends: closing lines when it passed, the end of its log when it failed.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tools.testing import results
from tools.testing.cleaner import GRACE_SECONDS, Cleaner

PROGRESS_SECONDS = 30.0
FAILURE_LINES = 200
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Step:
    """One command, and what it needs."""

    name: str
    command: Sequence[str]
    folder: str = "."
    after: tuple[str, ...] = ()  # names of steps that must have passed
    before_it: tuple[str, ...] = ()  # names of steps that must have ended, whichever way
    cores: float = 1.0  # how much of the machine it takes
    locks: frozenset[str] = frozenset()  # what only one step may use at a time
    environment: dict[str, str] = field(default_factory=dict)
    is_pytest: bool = False
    optional: str = ""  # how to do it later; without it other steps still run and the run can pass
    low_priority: bool = False  # builds let tests go first


@dataclass
class Outcome:
    """How a step ended."""

    step: Step
    status: str  # passed, failed, left out, not run, interrupted
    seconds: float = 0.0
    counted: results.Results = field(default_factory=results.Results)
    note: str = ""


class Scheduler:
    """Runs all steps once."""

    def __init__(self, steps: Sequence[Step], logs: Path, cores: float) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._waiting = list(steps)
        self._names = {step.name for step in steps}
        self._running: dict[str, tuple[Step, float]] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._logs, self._cores = logs, cores
        # A name of this run in the environment of everything it starts: a killed run leaves no process behind.
        self._mark = f"TENON_TEST_RUN={logs}"
        self._cleaner = Cleaner()
        self._cleaner.remember("mark", self._mark)
        self._interrupted = asyncio.Event()

    async def run(self) -> list[Outcome]:
        """Outcomes in the order of the steps."""
        order = [step.name for step in self._waiting]
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._interrupted.set)
        interrupted = asyncio.create_task(self._interrupted.wait())
        progress = asyncio.create_task(self._progress())
        tasks: set[asyncio.Task[None]] = set()
        while self._waiting or tasks:
            tasks |= {asyncio.create_task(self._run(step)) for step in self._ready()}
            if not tasks:
                continue  # every step left was refused by one that failed
            await asyncio.wait({*tasks, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            tasks = {task for task in tasks if not task.done()}
            if self._interrupted.is_set():
                await self._stop(tasks)
                break
        progress.cancel()
        interrupted.cancel()
        self._cleaner.close()
        return [self.outcomes[name] for name in order]

    @property
    def interrupted(self) -> bool:
        return self._interrupted.is_set()

    def _ready(self) -> list[Step]:
        """Steps that may start now; those that never can are ended."""
        started = []
        for step in list(self._waiting):
            state = [self.outcomes[name].status if name in self.outcomes else "" for name in step.after if name in self._names]
            if refused := [name for name in step.after if name in self.outcomes and self.outcomes[name].status not in {"passed", ""}]:
                self._waiting.remove(step)
                self._end(Outcome(step, "not run", note=f"needs: {', '.join(refused)}"))
            elif all(state) and all(name in self.outcomes for name in step.before_it if name in self._names) and self._fits(step):
                self._waiting.remove(step)
                self._running[step.name] = (step, time.monotonic())
                started.append(step)
        return started

    def _fits(self, step: Step) -> bool:
        used = sum(one.cores for one, _ in self._running.values())
        locked = {lock for one, _ in self._running.values() for lock in one.locks}
        return not self._running or (used + step.cores <= self._cores and not locked & step.locks)

    async def _run(self, step: Step) -> None:
        log = self._logs / f"{step.name.replace(' ', '-')}.log"
        report = self._logs / f"{step.name.replace(' ', '-')}.xml"
        command = [*step.command, f"--junitxml={report}"] if step.is_pytest else list(step.command)
        environment = os.environ | step.environment | {"TENON_TEST_RUN": str(self._logs)}
        began = time.monotonic()
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT / step.folder, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True, preexec_fn=_let_others_go_first if step.low_priority else None,
            )  # fmt: skip
        self._processes[step.name] = process
        code = await process.wait()
        text = log.read_text(errors="replace")
        counted = results.of_pytest(report, ROOT, step.folder) if step.is_pytest else results.of_cargo(text)
        status = "interrupted" if self.interrupted else "passed" if code == 0 else "left out" if step.optional else "failed"
        del self._running[step.name], self._processes[step.name]
        self._end(Outcome(step, status, time.monotonic() - began, counted), text, log)

    def _end(self, outcome: Outcome, text: str = "", log: Path | None = None) -> None:
        self.outcomes[outcome.step.name] = outcome
        print(f"── {outcome.step.name}: {outcome.status}, {outcome.seconds:.0f} s {outcome.note}".rstrip(), flush=True)
        if outcome.status in {"failed", "left out"}:
            lines = text.splitlines()
            print("\n".join(lines[-FAILURE_LINES:]))
            print(f"── the whole log of {outcome.step.name}: {log}", flush=True)
        else:
            for line in results.closing_lines(text):
                print(f"   {line}" if not line.startswith("test result") else line, flush=True)

    async def _stop(self, tasks: set[asyncio.Task[None]]) -> None:
        """Interrupt what runs as a terminal would, insist after the grace period."""
        print("── interrupted: stopping what runs", flush=True)
        for step in self._waiting:
            self.outcomes[step.name] = Outcome(step, "not run", note="interrupted")
        self._waiting = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for process in list(self._processes.values()):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=GRACE_SECONDS * 2)

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            now = time.monotonic()
            running = ", ".join(f"{name} {now - began:.0f} s" for name, (_, began) in self._running.items())
            print(f"   running: {running}; {len(self._waiting)} steps wait", flush=True)


def _let_others_go_first() -> None:
    os.nice(10)


def children_cpu_seconds() -> float:
    """Processor time of everything that ran, to judge a run on a busy machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
