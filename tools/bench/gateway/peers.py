#!/usr/bin/env python3
"""The gateway beside other AI gateways on the same machine, in interleaved rounds: what a call costs them.

LiteLLM comes from PyPI into a virtual environment in the cache folder. Another peer is given by its command, which must listen on `{port}`,
call `http://127.0.0.1:{upstream}/v1` for the model `m` and accept the key `sk-bench`:

    peers.py --peer busbar='/path/to/busbar --config {dir}/busbar.yaml' --peer-config busbar=busbar.yaml

Placeholders are filled in the command and in the configuration file. Needs `nginx`, `wrk`, and Python's venv for LiteLLM.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench import everything, gateway_rival, plain_rivals
from load import Rival, chat_body, lua_script, rounds
from stage import CHAT, Stage, free_port

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tenon"
LITELLM = "litellm[proxy]"
KEY = "sk-bench"
CONFIG = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
general_settings: {{master_key: sk-bench}}
litellm_settings: {{telemetry: false}}
"""


def litellm(stage: Stage, upstream: int) -> tuple[str, int]:
    """A LiteLLM proxy of one process: its address and process id."""
    environment = CACHE / "peers" / "litellm"
    if not (environment / "bin" / "litellm").exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(environment / "bin" / "pip"), "install", "--quiet", LITELLM], check=True)
    directory, port = stage.fresh("litellm"), free_port()
    (directory / "config.yaml").write_text(CONFIG.format(upstream=upstream))
    command = [str(environment / "bin" / "litellm"), "--config", str(directory / "config.yaml"), "--port", str(port), "--host", "127.0.0.1"]
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PATH": os.environ["PATH"], "HOME": str(directory)}
    log = (directory / "log").open("w")
    process = stage.start(command, env=quiet, stdout=log, stderr=log)
    return f"http://127.0.0.1:{port}", process.pid


def other(stage: Stage, upstream: int, name: str, command: str, config: Path | None) -> tuple[str, int]:
    """A peer by its command."""
    directory, port = stage.fresh(name), free_port()
    places = {"dir": str(directory), "port": port, "upstream": upstream}
    if config:
        text = config.read_text()
        for word, value in places.items():
            text = text.replace("{" + word + "}", str(value))
        (directory / config.name).write_text(text)
    process = stage.start(shlex.split(command.format(**places)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return f"http://127.0.0.1:{port}", process.pid


def wait_answering(url: str, body: str, patience: float = 90) -> None:
    """Until it completes a call."""
    request = urllib.request.Request(url + CHAT, body.encode(), {"authorization": f"Bearer {KEY}", "content-type": "application/json"})
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise SystemExit(f"{url} does not answer")


def main() -> None:
    """Everybody in one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--no-litellm", action="store_true")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--peer-config", action="append", default=[], metavar="NAME=FILE")
    options = parser.parse_args()
    configs = {name: Path(path) for name, path in (item.split("=", 1) for item in options.peer_config)}
    body = chat_body(1024)
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as directory:
        stage = Stage(Path(directory))
        try:
            upstream, collector = stage.engine(), stage.engine()
            script = lua_script(stage.fresh("lua") / "post.lua", KEY, body)
            peers = [] if options.no_litellm else [("LiteLLM, one process, master key only", *litellm(stage, upstream))]
            for name, command in (item.split("=", 1) for item in options.peer):
                peers.append((name, *other(stage, upstream, name, command, configs.get(name))))
            for _, url, _ in peers:
                wait_answering(url, body)
            ours = everything(collector)
            rivals = [*plain_rivals(stage, upstream, body)[:1], gateway_rival(stage, stage.gateway(upstream, ours), ours.name, body)]
            rivals += [Rival(name, url, pid, script) for name, url, pid in peers]
            rounds(rivals, options.rounds, options.seconds)
        finally:
            stage.end()
    print("\n| | c=64 CPU a request | c=64 rps | c=1 p50 |\n|---|---|---|---|")
    for rival in rivals:
        many, one = rival.row(64), rival.row(1)
        print(f"| {rival.name} | {many['cpu_us']:.0f} µs | {many['rps']:,.0f} | {one['p50_us']:,.0f} µs |")


if __name__ == "__main__":
    main()
