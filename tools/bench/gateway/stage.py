"""The processes of a benchmark: nginx, engines, control planes, gateways. Standard library only."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CHAT = "/v1/chat/completions"
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
NGINX = """
daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log crit; worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; tcp_nodelay on; default_type application/json;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  client_body_buffer_size 1m; client_max_body_size 20m;
  {http}
}}
"""
ENGINE = "server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{answer}'; }} }}"
PROXY = """
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; {more} }} }}
"""
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Variant:
    """A gateway as it is configured for a row of a table."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    kit: tuple[str, ...] = ()


@dataclass
class Gateway:
    """A running gateway with its control plane."""

    url: str
    admin: int
    key: str
    process: subprocess.Popen[str]
    kit: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """Of the gateway itself."""
        return self.process.pid

    def metric(self, name: str) -> float:
        """One sample of its metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
            page = answer.read().decode()
        match = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        return float(match.group(1)) if match else 0.0

    def query_kit(self, word: str) -> str:
        """One line to the control plane, one line back."""
        assert self.kit.stdin and self.kit.stdout
        self.kit.stdin.write(f"{word}\n")
        self.kit.stdin.flush()
        return self.kit.stdout.readline().strip()


class Stage:
    """Everything that runs, ended in reverse order whatever happens."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[subprocess.Popen[str]] = []
        self.names = 0

    def fresh(self, name: str) -> Path:
        """A new directory."""
        self.names += 1
        path = self.directory / f"{self.names}-{name}"
        path.mkdir()
        return path

    def start(self, command: list[str], **more: object) -> subprocess.Popen[str]:
        """Start a process that ends with the stage."""
        process = subprocess.Popen(command, text=True, **more)  # type: ignore[call-overload]
        self.running.append(process)
        return process

    def nginx(self, http: str) -> subprocess.Popen[str]:
        """One worker, this configuration."""
        directory = self.fresh("nginx")
        conf = directory / "nginx.conf"
        conf.write_text(NGINX.format(dir=directory, http=http))
        return self.start([nginx_binary(), "-p", str(directory), "-c", str(conf)], stderr=subprocess.DEVNULL)

    def engine(self) -> int:
        """A canned upstream; its port."""
        port = free_port()
        self.nginx(ENGINE.format(port=port, answer=ANSWER))
        wait_listening(port)
        return port

    def proxy(self, upstream: int, more: str = "") -> tuple[str, int]:
        """nginx as a plain proxy: its address and process id."""
        port = free_port()
        process = self.nginx(PROXY.format(port=port, upstream=upstream, more=more))
        wait_listening(port)
        return f"http://127.0.0.1:{port}", process.pid

    def relay(self, upstream: int) -> tuple[str, int]:
        """Bare hyper on both sides: its address and process id."""
        port = free_port()
        process = self.start([str(binary("tenon-bench")), "relay", f"127.0.0.1:{port}", f"127.0.0.1:{upstream}"])
        wait_listening(port)
        return f"http://127.0.0.1:{port}", process.pid

    def gateway(self, upstream: int, variant: Variant, wrapper: tuple[str, ...] = (), start_seconds_max: float = 15) -> Gateway:
        """A gateway and the control plane it lives on. `wrapper` runs it inside another program."""
        directory = self.fresh("gateway")
        port, admin, control = free_port(), free_port(), free_port()
        command = [str(binary("tenon-testkit")), f"127.0.0.1:{control}", f"http://127.0.0.1:{upstream}/v1", *variant.kit]
        kit = self.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert kit.stdout
        key = kit.stdout.readline().strip()
        (directory / "token").write_text("enrolment-token-for-tests")
        (directory / "sealing").write_bytes(bytes([0x42]) * 32)
        environment = {
            "TENON_GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "TENON_GATEWAY_ADMIN_LISTEN": f"127.0.0.1:{admin}",
            "TENON_GATEWAY_CONTROL_URL": f"http://127.0.0.1:{control}",
            "TENON_GATEWAY_ID": "bench",
            "TENON_GATEWAY_TOKEN_FILE": str(directory / "token"),
            "TENON_GATEWAY_SEALING_KEY_FILE": str(directory / "sealing"),
            "TENON_GATEWAY_DATA_DIR": str(directory / "data"),
            "TENON_GATEWAY_THREADS": "1",
            "TENON_LOG": "warn",
            "PATH": os.environ.get("PATH", ""),
        }
        process = self.start([*wrapper, str(binary("tenon-gateway"))], env=environment | variant.environment)
        gateway = Gateway(f"http://127.0.0.1:{port}", admin, key, process, kit)
        wait_ready(gateway, start_seconds_max)
        return gateway

    def end_one(self, process: subprocess.Popen[str]) -> None:
        """End a process before the others."""
        self.running.remove(process)
        terminate(process)

    def end(self) -> None:
        """End what runs."""
        for process in reversed(self.running):
            terminate(process)


def terminate(process: subprocess.Popen[str]) -> None:
    """Ask, then make it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_listening(port: int) -> None:
    """Until something accepts there."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


def wait_ready(gateway: Gateway, start_seconds_max: float) -> None:
    """Until it serves what the control plane sent."""
    deadline = time.monotonic() + start_seconds_max
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin}/readyz", timeout=5) as answer:
                if answer.read() == b"ready\n":
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("the gateway did not become ready")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory by kind: the mapped log counts as file pages."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = {name: re.search(rf"{name}:\s+(\d+)", status) for name in ("VmRSS", "RssAnon", "RssFile")}
    return {name: int(match.group(1)) / 1024 for name, match in match.items() if match}


def nginx_binary() -> str:
    """Where Debian puts it is not on every PATH."""
    match = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if not match:
        raise SystemExit("nginx is not installed (Debian: nginx-light)")
    return match


def binary(name: str) -> Path:
    """A release binary of the workspace, built if it is missing."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "gateway" / "target"))
    path = target / "release" / name
    if not path.exists():
        subprocess.run(["cargo", "build", "--release", "-p", "tenon-gateway", "-p", "tenon-testkit"], cwd=ROOT / "gateway", check=True)
    return path


def machine() -> dict[str, object]:
    """What it ran on."""
    match = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    cpu = match.group(1) if match else platform.machine()
    return {"cores": os.cpu_count(), "cpu": cpu, "kernel": platform.release().split("-")[0], "load_average_before": os.getloadavg()[0]}
