"""A real NVIDIA Dynamo on loopback: its frontend, and its mocker as the engine (no GPU, no text, true token counts).

Installed by `make engine-dynamo` into the cache folder, in a Python environment of its own; `installed()` says whether it is there.

    with Dynamo(tmp_path, engine_type="vllm") as dynamo:
        dynamo.url            # http://127.0.0.1:PORT/v1, serves the model `mock`
        dynamo.metrics_url    # the engine's own metrics, in its own dialect
        dynamo.frontend_metrics_url
    with Dynamo(tmp_path, kserve=True) as dynamo:
        dynamo.kserve         # 127.0.0.1:PORT, Open Inference Protocol v2 over gRPC

Calls must carry `max_tokens`. Over KServe they cannot: Dynamo reads nothing but the text there, so every answer has `KSERVE_TOKENS`.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

import httpx2
import pytest

from tools.testing.ports import free_port

VERSION = "1.4.2"
MODEL = "mock"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenon"
HOME = CACHE / "engines" / f"dynamo-{VERSION}"
PYTHON = HOME / "bin" / "python"
START_SECONDS = 90.0

EngineType = Literal["vllm", "sglang", "trtllm"]

needed = pytest.mark.skipif(not (HOME / ".installed").exists(), reason="NVIDIA Dynamo is not installed: `make engine-dynamo`")

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 1000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32",
}  # fmt: skip
# Runs in Dynamo's environment: a byte-level BPE, trained on a little text, is a tokenizer as real as any.
TRAIN = """
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
tokenizer = Tokenizer(models.BPE(unk_token=None))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
text = ["the quick brown fox jumps over the lazy dog", "a tenon is the joint that holds two beams together", "user assistant system"] * 50
trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
tokenizer.train_from_iterator(text, trainer)
tokenizer.save(sys.argv[1])
"""


def model_folder(folder: Path) -> Path:
    """A model without weights, created in place: tokenizer, configuration, chat template."""
    if (folder / "tokenizer.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    subprocess.run([str(PYTHON), "-c", TRAIN, str(folder / "tokenizer.json")], check=True, timeout=120)
    return folder


# A KServe call says no length, and the mocker wants one. Dynamo has a request template for that; only its command line does not offer it.
KSERVE_TOKENS = 6
KSERVE_FRONTEND = """
import functools, sys
from dynamo.frontend import main as frontend
frontend.EntrypointArgs = functools.partial(frontend.EntrypointArgs, template_file=sys.argv.pop(1))
frontend.main()
"""


class Dynamo:
    """A frontend and its mockers; the address of each, started when entered and gone when left."""

    def __init__(
        self,
        folder: Path,
        *,
        engine_type: EngineType = "vllm",
        kserve: bool = False,
        speedup: float = 10,
        router: str = "kv",
        model: str = MODEL,
    ) -> None:
        self.folder = folder / f"dynamo-{engine_type}-{free_port()}"
        self.engine_type, self._kserve, self._speedup, self._router, self.model = engine_type, kserve, speedup, router, model
        self.port, self._grpc_metrics_port, self.system_port = free_port(), free_port(), free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []

    @property
    def url(self) -> str:
        """What an endpoint's `base_url` is."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def kserve(self) -> str:
        """Address of its KServe gRPC server."""
        return f"127.0.0.1:{self.port}"

    @property
    def metrics_url(self) -> str:
        """The engine's own metrics, in the dialect of its type."""
        return f"http://127.0.0.1:{self.system_port}/metrics"

    @property
    def frontend_metrics_url(self) -> str:
        """`dynamo_frontend_*` and `dynamo_router_*`."""
        return f"http://127.0.0.1:{self._grpc_metrics_port if self._kserve else self.port}/metrics"

    def __enter__(self) -> Dynamo:
        self.folder.mkdir(parents=True)
        path = str(model_folder(self.folder / "model"))
        frontend = ["-c", KSERVE_FRONTEND, self._template()] if self._kserve else ["-m", "dynamo.frontend"]
        frontend += ["--http-host", "127.0.0.1", "--http-port", str(self.port), "--router-mode", self._router]
        frontend += ["--model-name", self.model, "--model-path", path]
        if self._kserve:
            frontend += ["--kserve-grpc-server", "--grpc-metrics-port", str(self._grpc_metrics_port)]
        mocker = ["-m", "dynamo.mocker", "--model-path", path, "--model-name", self.model, "--engine-type", self.engine_type]
        mocker += ["--speedup-ratio", str(self._speedup)]
        try:
            self._start("frontend", frontend)
            # Without a system port the frontend asks a hub for the model's name and lists nothing.
            self._start("mocker", mocker, DYN_SYSTEM_PORT=str(self.system_port))
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def _template(self) -> str:
        file = self.folder / "template.json"
        file.write_text(json.dumps({"model": self.model, "temperature": 1.0, "max_completion_tokens": KSERVE_TOKENS}))
        return str(file)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self, name: str, arguments: list[str], **more: str) -> None:
        environment = {
            "DYN_DISCOVERY_BACKEND": "file", "DYN_FILE_KV": str(self.folder / "discovery"), "DYN_REQUEST_PLANE": "tcp", "DYN_EVENT_PLANE": "zmq",
            "HF_HUB_OFFLINE": "1", "PATH": f"{HOME / 'bin'}:/usr/bin:/bin", "HOME": str(self.folder), "DYN_LOG": "warn",
        }  # fmt: skip
        log = (self.folder / f"{name}.log").open("ab")
        self._logs.append(log)
        process = subprocess.Popen([str(PYTHON), *arguments], env=environment | more, cwd=self.folder, stdout=log, stderr=log)
        self._processes.append(process)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._serves():
            for process in self._processes:
                assert process.poll() is None, self.logs()
            assert time.monotonic() < deadline, f"Dynamo did not begin to serve\n{self.logs()}"
            time.sleep(0.1)

    def _serves(self) -> bool:
        try:
            if self._kserve:
                page = httpx2.get(self.frontend_metrics_url, timeout=2).text
                return self.model in page
            listed = httpx2.get(f"{self.url}/models", timeout=2).json()
            return any(entry["id"] == self.model for entry in listed["data"])
        except (httpx2.TransportError, ValueError, KeyError):
            return False

    def logs(self) -> str:
        """The end of each process's log."""
        return "".join(f"\n== {log.name}\n{Path(log.name).read_text(errors='replace')[-3000:]}" for log in self._logs)

    def close(self) -> None:
        """Ends its processes; nothing stays behind."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for log in self._logs:
            log.close()
        self._processes, self._logs = [], []
