"""Load and what came of it: wrk for requests, our own streams."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stage import CHAT, binary, cpu_seconds


@dataclass(frozen=True)
class Sample:
    """One burst of requests. Times in microseconds."""

    rps: float
    p50_us: float
    p99_us: float
    cpu_us: float
    requests: int
    errors: int


@dataclass
class Rival:
    """Something under load: an address, the process whose CPU counts, what to send."""

    name: str
    url: str
    pid: int
    script: Path
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    memory_mb: float = 0

    def row(self, connections: int) -> dict[str, float]:
        """Medians and ranges."""
        samples = self.samples[connections]
        out: dict[str, float] = {"errors": sum(s.errors for s in samples)}
        for name in ("rps", "p50_us", "p99_us", "cpu_us"):
            values = [getattr(s, name) for s in samples]
            out |= {name: statistics.median(values), f"{name}_low": min(values), f"{name}_high": max(values)}
        return out


def chat_body(size_bytes: int) -> str:
    """A chat request of about so many bytes."""
    question = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": ""}]}
    filler = size_bytes - len(json.dumps(question, separators=(",", ":")))
    question["messages"] = [{"role": "user", "content": ("the quick brown fox jumps over the lazy dog " * (filler // 44 + 1))[:filler]}]
    return json.dumps(question, separators=(",", ":"))


def lua_script(path: Path, key: str, body: str) -> Path:
    """What wrk sends."""
    path.write_text(
        f"wrk.method = 'POST'\nwrk.body = [==[{body}]==]\n"
        f"wrk.headers['content-type'] = 'application/json'\nwrk.headers['authorization'] = 'Bearer {key}'\n"
    )
    return path


def microseconds(text: str) -> float:
    """wrk's way of writing times."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s)", text)
    assert match, text
    return float(match.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6}[match.group(2)]


def burst(rival: Rival, connections: int, seconds: float) -> Sample:
    """Load it with wrk, one thread, for a while."""
    how = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "--latency"]  # slow is not failed
    command = ["wrk", *how, "-s", str(rival.script), rival.url + CHAT]
    before = cpu_seconds(rival.pid)
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(rival.pid) - before

    def match_of(pattern: str) -> str:
        match = re.search(pattern, out, re.MULTILINE)
        assert match, out
        return match.group(1)

    requests = int(match_of(r"(\d+) requests in"))
    errors = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    errors += sum(int(n) for line in re.findall(r"Socket errors: (.*)", out) for n in re.findall(r"\d+", line))
    times = [microseconds(match_of(rf"^\s+{share}%\s+(\S+)")) for share in (50, 99)]
    return Sample(float(match_of(r"Requests/sec:\s+([\d.]+)")), *times, used / max(requests, 1) * 1e6, requests, errors)


def rounds(
    rivals: list[Rival],
    count: int,
    seconds: float,
    connections: tuple[int, ...] = (64, 1),
    settle: Callable[[Rival], None] | None = None,
) -> None:
    """Interleaved: the order turns every round, so that drift hits everybody alike. `settle` waits after each turn."""
    for rival in rivals:
        burst(rival, max(connections), 1)  # warm: connections, caches, the first segments
    for number in range(count):
        for at in connections:
            for rival in rivals if number % 2 == 0 else rivals[::-1]:
                sample = burst(rival, at, seconds)
                if settle:
                    settle(rival)
                rival.samples.setdefault(at, []).append(sample)
                print(
                    f"  {number + 1}/{count} c={at:<3} {rival.name:<34} {sample.rps:8.0f} rps  p50 {sample.p50_us:6.0f}  p99 {sample.p99_us:7.0f} us"
                    f"  cpu {sample.cpu_us:5.1f} us{f'  errors {sample.errors}' if sample.errors else ''}",
                    flush=True,
                )


def streams(url: str, key: str, count: int, frames: int, seconds: float, pid: int) -> dict[str, float]:
    """Streams at a time for a while; CPU of `pid` a frame in microseconds among what comes back."""
    command = [str(binary("tenon-bench")), "stream-load", url + CHAT, key, str(count), str(frames), str(seconds)]
    before = cpu_seconds(pid)
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    measured: dict[str, float] = json.loads(out)
    return measured | {"cpu_us_a_frame": (cpu_seconds(pid) - before) / max(measured["frames"], 1) * 1e6}
