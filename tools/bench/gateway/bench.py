#!/usr/bin/env python3
"""Measures the gateway against nginx as a plain proxy, in one run, in interleaved rounds.

Both stand in front of the same canned nginx upstream and are loaded by the same `wrk`. nginx only passes bytes on. The gateway checks the key,
scans the body, admits, routes, writes two log records a call into its write-ahead log, syncs it each 50 ms, and ships every record to a control
plane (the testkit's, over gRPC), which acknowledges it. CPU is that of the whole process, control thread included, from /proc/PID/stat.

Standard library only. Needs `nginx`, `wrk` and a release build (`cargo build --release` is run if the binaries are missing).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Forty-two."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 210, "completion_tokens": 4, "total_tokens": 214},
    },
    separators=(",", ":"),
)
QUESTION = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": ""}]}
BODY_BYTES = 1024
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MARKS = ("<!-- bench-gateway:begin -->", "<!-- bench-gateway:end -->")

NGINX = """
daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; tcp_nodelay on; default_type application/json;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  client_body_buffer_size 64k;
  {http}
}}
"""
UPSTREAM = "server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{answer}'; }} }}"
PROXY = """
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
"""


@dataclass
class Sample:
    rps: float
    p50_us: float
    cpu_us: float
    requests: int
    errors: int


@dataclass
class Rival:
    name: str
    url: str
    pid: int
    samples: dict[int, list[Sample]] = field(default_factory=dict)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_listening(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_mb(pid: int) -> dict[str, float]:
    """Resident memory by kind: the mapped log counts as file pages."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {name: int(re.search(rf"{name}:\s+(\d+)", status).group(1)) / 1024 for name in ("VmRSS", "RssAnon", "RssFile", "RssShmem")}


def lua_script(directory: Path, key: str) -> Path:
    filler = BODY_BYTES - len(json.dumps(QUESTION, separators=(",", ":")))
    question = json.loads(json.dumps(QUESTION))
    question["messages"][0]["content"] = ("the quick brown fox jumps over the lazy dog " * 40)[:filler]
    body = json.dumps(question, separators=(",", ":"))
    script = directory / "post.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = [==[{body}]==]\n"
        f"wrk.headers['content-type'] = 'application/json'\nwrk.headers['authorization'] = 'Bearer {key}'\n"
    )
    return script


def microseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def load(rival: Rival, connections: int, seconds: float, script: Path) -> Sample:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script), rival.url]
    before = cpu_seconds(rival.pid)
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(rival.pid) - before
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    errors = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    errors += sum(int(n) for line in re.findall(r"Socket errors: (.*)", out) for n in re.findall(r"\d+", line))
    p50 = microseconds(re.search(r"^\s+50%\s+(\S+)", out, re.MULTILINE).group(1))
    rps = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    return Sample(rps, p50, used / max(requests, 1) * 1e6, requests, errors)


class Stage:
    """Everything that runs, ended in reverse order whatever happens."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[subprocess.Popen[str]] = []

    def start(self, command: list[str], **more: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, text=True, **more)
        self.running.append(process)
        return process

    def nginx(self, name: str, http: str) -> subprocess.Popen[str]:
        directory = self.directory / name
        directory.mkdir()
        conf = directory / "nginx.conf"
        conf.write_text(NGINX.format(dir=directory, http=http))
        return self.start([nginx_binary(), "-p", str(directory), "-c", str(conf)], stderr=subprocess.DEVNULL)

    def gateway(self, binary: Path, port: int, admin: int, control: int) -> subprocess.Popen[str]:
        (self.directory / "token").write_text("enrolment-token-for-tests")
        (self.directory / "sealing").write_bytes(bytes([0x42]) * 32)
        # Records are written to a real directory beside the checkout's cache, not to a memory file system, if TMPDIR says so.
        environment = {
            "TENON_GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "TENON_GATEWAY_ADMIN_LISTEN": f"127.0.0.1:{admin}",
            "TENON_GATEWAY_CONTROL_URL": f"http://127.0.0.1:{control}",
            "TENON_GATEWAY_ID": "bench",
            "TENON_GATEWAY_TOKEN_FILE": str(self.directory / "token"),
            "TENON_GATEWAY_SEALING_KEY_FILE": str(self.directory / "sealing"),
            "TENON_GATEWAY_DATA_DIR": str(self.directory / "data"),
            "TENON_GATEWAY_THREADS": "1",
            "TENON_LOG": "warn",
        }
        return self.start([str(binary)], env=environment)

    def end(self) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def nginx_binary() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise SystemExit("nginx is not installed (Debian: nginx-light)")
    return found


def binaries() -> tuple[Path, Path]:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "gateway" / "target"))
    gateway, testkit = (target / "release" / name for name in ("tenon-gateway", "tenon-testkit"))
    if not (gateway.exists() and testkit.exists()):
        build = ["cargo", "build", "--release", "-p", "tenon-gateway", "-p", "tenon-testkit"]
        subprocess.run(build, cwd=ROOT / "gateway", check=True)
    return gateway, testkit


def wait_ready(admin: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=1) as answer:
                if answer.read() == b"ready\n":
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("the gateway did not become ready")


def metric(admin: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
        page = answer.read().decode()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE).group(1))


def measure(stage: Stage, options: argparse.Namespace) -> dict[str, object]:
    load_before = os.getloadavg()[0]
    gateway_binary, testkit_binary = binaries()
    upstream, proxy, gateway, admin, control = (free_port() for _ in range(5))
    engine = stage.nginx("upstream", UPSTREAM.format(port=upstream, answer=ANSWER))
    plain = stage.nginx("proxy", PROXY.format(port=proxy, upstream=upstream))
    kit = stage.start(
        [str(testkit_binary), f"127.0.0.1:{control}", f"http://127.0.0.1:{upstream}/v1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert kit.stdin and kit.stdout
    key = kit.stdout.readline().strip()
    ours = stage.gateway(gateway_binary, gateway, admin, control)
    for port in (upstream, proxy, gateway):
        wait_listening(port)
    wait_ready(admin)
    script = lua_script(stage.directory, key)
    path = "/v1/chat/completions"
    rivals = [
        Rival("upstream alone", f"http://127.0.0.1:{upstream}{path}", engine.pid),
        Rival("nginx plain proxy", f"http://127.0.0.1:{proxy}{path}", plain.pid),
        Rival("gateway", f"http://127.0.0.1:{gateway}{path}", ours.pid),
    ]
    for rival in rivals:
        load(rival, 64, 1, script)  # warm: connections, caches, the first segments
    for round_number in range(options.rounds):
        order = rivals if round_number % 2 == 0 else rivals[::-1]
        for connections in (64, 1):
            for rival in order:
                sample = load(rival, connections, options.seconds, script)
                rival.samples.setdefault(connections, []).append(sample)
                print(
                    f"round {round_number + 1} c={connections:<3} {rival.name:<18} {sample.rps:9.0f} rps  p50 {sample.p50_us:6.0f} us"
                    f"  cpu {sample.cpu_us:5.1f} us  errors {sample.errors}",
                    flush=True,
                )
    memory = resident_mb(ours.pid)
    deadline = time.monotonic() + 20
    while metric(admin, "tenon_gateway_wal_backlog_records") > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    # Calls that wrk left behind at the end of its time are settled too, as left by the caller.
    settled = int(
        sum(metric(admin, f'tenon_gateway_calls_total{{outcome="{name}"}}') for name in ("completed", "client_gone", "upstream_error"))
    )
    kit.stdin.write("count\n")
    kit.stdin.flush()
    shipped = int(kit.stdout.readline())
    return report(rivals, options, settled, shipped, memory) | {"load_average_before": load_before}


def report(rivals: list[Rival], options: argparse.Namespace, settled: int, shipped: int, memory: dict[str, float]) -> dict[str, object]:
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for rival in rivals:
        rows[rival.name] = {}
        for connections, samples in rival.samples.items():
            median = {name: statistics.median(getattr(s, name) for s in samples) for name in ("rps", "p50_us", "cpu_us")}
            spread = {
                f"{name}_range": [min(getattr(s, name) for s in samples), max(getattr(s, name) for s in samples)]
                for name in ("rps", "p50_us", "cpu_us")
            }
            rows[rival.name][f"c{connections}"] = median | spread | {"errors": sum(s.errors for s in samples)}
    nginx, ours = rows["nginx plain proxy"], rows["gateway"]
    ratios = {
        "cpu_c64": ours["c64"]["cpu_us"] / nginx["c64"]["cpu_us"],
        "rps_c64": ours["c64"]["rps"] / nginx["c64"]["rps"],
        "p50_c1": ours["c1"]["p50_us"] / nginx["c1"]["p50_us"],
    }
    return {
        "machine": {"cores": os.cpu_count(), "cpu": cpu_model(), "kernel": platform.release().split("-")[0]},
        "method": {"rounds": options.rounds, "seconds": options.seconds, "body_bytes": BODY_BYTES, "gateway_threads": 1},
        "rows": rows,
        "ratios_to_nginx": ratios,
        "usage_records": {"calls_settled": settled, "records_stored": shipped},
        "gateway_memory_mb": memory,
    }


def cpu_model() -> str:
    match = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return match.group(1) if match else platform.machine()


def markdown(result: dict) -> str:
    rows = result["rows"]
    lines = [
        f"{result['machine']['cores']} cores ({result['machine']['cpu']}), {result['method']['rounds']} interleaved rounds of {result['method']['seconds']:g} s, medians; ranges in brackets."  # noqa: E501
        f" Load average before it: {result['load_average_before']:.1f} (near 0 = nobody else used the machine).",
        "",
        "| | c=64 rps | c=64 CPU a request | c=1 p50 | c=1 CPU a request |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        many, one = row["c64"], row["c1"]
        low, high = many["cpu_us_range"]
        lines.append(
            f"| {name} | {many['rps'] / 1000:.1f}k | {many['cpu_us']:.1f} µs ({low:.1f}–{high:.1f}) | {one['p50_us']:.0f} µs | {one['cpu_us']:.1f} µs |"  # noqa: E501
        )
    ratios, usage, memory = result["ratios_to_nginx"], result["usage_records"], result["gateway_memory_mb"]
    lines += [
        "",
        f"Gateway ÷ nginx: **{ratios['cpu_c64']:.2f} × the CPU a request** at c=64, **{ratios['rps_c64']:.2f} × the rps** at c=64, {ratios['p50_c1']:.2f} × the p50 at c=1.",  # noqa: E501
        f"Calls settled {usage['calls_settled']:,}, usage records stored at the control plane {usage['records_stored']:,}."
        f" Memory after it: {memory['RssAnon']:.0f} MB anonymous, {memory['RssFile']:.0f} MB of mapped log and code.",
    ]
    return "\n".join(lines)


def update_page(page: Path, text: str) -> None:
    content = page.read_text()
    begin, end = (content.index(mark) for mark in MARKS)
    page.write_text(content[: begin + len(MARKS[0])] + "\n" + text + "\n" + content[end:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("latest.json"))
    parser.add_argument("--page", type=Path, help="write the figures into this page, between its marks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as directory:
        stage = Stage(Path(directory))
        try:
            result = measure(stage, options)
        finally:
            stage.end()
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(markdown(result))
    if options.page:
        update_page(options.page, markdown(result))
    usage = result["usage_records"]
    if usage["records_stored"] != usage["calls_settled"]:
        sys.exit(f"{usage['calls_settled']} calls were settled, {usage['records_stored']} records arrived")


if __name__ == "__main__":
    main()
