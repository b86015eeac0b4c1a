"""Both ends of the Open Inference Protocol as they are: NVIDIA's Triton client through the gateway to NVIDIA Dynamo's KServe server."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Stack
from tests.engines.conftest import Operator
from tests.engines.dynamo import HOME, KSERVE_TOKENS, MODEL, PYTHON, Dynamo, needed

client_needed = pytest.mark.skipif(not (HOME / ".tritonclient").exists(), reason="NVIDIA's client is not installed: `make engine-dynamo`")
pytestmark = [needed, client_needed]

# Runs in Dynamo's environment, where the client is installed beside the server.
CLIENT = """
import json, os, queue, sys
import numpy
import tritonclient.grpc as triton

address, key, model = sys.argv[1:4]
headers = {"authorization": "Bearer " + key} if key else {}
client = triton.InferenceServerClient(address)

def inputs(streaming=False):
    made = [triton.InferInput("text_input", [1], "BYTES"), triton.InferInput("streaming", [1], "BOOL")]
    made[0].set_data_from_numpy(numpy.array([b"the quick brown fox"], dtype=object))
    made[1].set_data_from_numpy(numpy.array([streaming]))
    return made

def reason(answer):
    # `as_numpy` of this client fails with NumPy 2 where an answer is not raw.
    return [word.decode() for word in answer.get_output("finish_reason").contents.bytes_contents]

def about():
    metadata = client.get_model_metadata(model, headers=headers, as_json=True)
    return {
        "live": client.is_server_live(), "ready": client.is_server_ready(headers=headers),
        "model_ready": client.is_model_ready(model, headers=headers), "server": client.get_server_metadata(headers=headers).name,
        "inputs": [tensor["name"] for tensor in metadata["inputs"]], "outputs": [tensor["name"] for tensor in metadata["outputs"]],
    }

def infer():
    answer = client.infer(model, inputs(), request_id="mine-1", headers=headers)
    return {"finish_reason": reason(answer), "outputs": [output.name for output in answer.get_response().outputs]}

def stream(requests=2):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
    for _ in range(requests):
        try:
            client.async_stream_infer(model, inputs(streaming=True))
        except triton.InferenceServerException:
            break  # it is over already: the callback was given the reason
    reasons, pieces = [], 0
    while len(reasons) < requests:
        result, error = answers.get(timeout=20)
        if error:
            raise error
        pieces += 1
        reasons += [said for said in reason(result) if said]
    client.stop_stream()
    return {"finish_reason": reasons, "pieces": pieces}

try:
    output = {"about": about, "infer": infer, "stream": stream}[sys.argv[4]]()
except triton.InferenceServerException as error:
    output = {"status": error.status(), "message": error.message()}
print(json.dumps(output), flush=True)
os._exit(0)  # the thread that feeds a stream may wait without end for a request of a stream that was refused
"""


@pytest.fixture(scope="module")
def dynamo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dynamo]:
    with Dynamo(tmp_path_factory.mktemp("dynamo"), kserve=True) as running:
        yield running


@pytest.fixture
def model(operator: Operator, dynamo: Dynamo) -> str:
    """A model of its own for each test, so that its usage is the test's."""
    name = f"kserve-{uuid.uuid4().hex[:8]}"
    operator.offer(name, f"http://{dynamo.kserve}", upstream_model=MODEL, protocol="kserve_grpc")
    return name


def client_output(stack: Stack, model: str, what: str, *, key: str | None = None) -> Any:
    """What the official client makes of it, through the gateway."""
    address = stack.environment["TENON_GATEWAY_GRPC_LISTEN"]
    arguments = [str(PYTHON), "-c", CLIENT, address, stack.keys["editor"] if key is None else key, model, what]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def recorded(record: dict[str, Any]) -> tuple[str, str, bool, str]:
    return record["operation"], record["outcome"], record["streamed"], record["usage_source"]


def test_the_server_and_the_model_are_described(stack: Stack, operator: Operator, model: str) -> None:
    seen = client_output(stack, model, "about")
    assert (seen["live"], seen["ready"], seen["model_ready"], seen["server"]) == (True, True, True, "tenon-gateway")
    assert (seen["inputs"], seen["outputs"]) == (["text_input", "streaming"], ["text_output", "finish_reason"]), "Dynamo's own words"
    (record,) = operator.records(model, 1)
    assert recorded(record) == ("infer", "completed", False, "none"), "only what the endpoint was asked is recorded"


def test_an_inference_is_one_record(stack: Stack, operator: Operator, model: str) -> None:
    assert client_output(stack, model, "infer") == {"finish_reason": ["length"], "outputs": ["text_output", "finish_reason"]}
    (record,) = operator.records(model, 1)
    assert recorded(record) == ("infer", "completed", False, "none"), "Dynamo counts no tokens over KServe"


def test_a_stream_of_two_inferences_is_one_record(stack: Stack, operator: Operator, model: str) -> None:
    seen = client_output(stack, model, "stream")
    assert seen["finish_reason"] == ["length", "length"]
    assert seen["pieces"] >= 2 * KSERVE_TOKENS, "a message for each token"
    (record,) = operator.records(model, 1)
    assert recorded(record) == ("infer", "completed", True, "none")


@pytest.mark.parametrize("what", ["about", "infer", "stream"])
def test_a_key_that_nobody_knows_is_refused(stack: Stack, operator: Operator, model: str, what: str) -> None:
    known = stack.keys["editor"]
    for key in (known[:-4] + "AAAA", "nonsense", ""):
        assert client_output(stack, model, what, key=key)["status"] == "StatusCode.UNAUTHENTICATED"
    assert client_output(stack, model, "infer")["finish_reason"] == ["length"]
    assert len(operator.records(model, 1)) == 1, "refused calls leave none"


def test_a_model_that_nobody_knows_is_not_found(stack: Stack, model: str) -> None:
    seen = client_output(stack, f"{model}-not", "infer")
    assert seen["status"] == "StatusCode.NOT_FOUND"


def test_dynamos_refusal_reaches_the_caller(stack: Stack, operator: Operator, dynamo: Dynamo) -> None:
    name = f"kserve-{uuid.uuid4().hex[:8]}"
    operator.offer(name, f"http://{dynamo.kserve}", upstream_model="no-such-model", protocol="kserve_grpc")
    assert client_output(stack, name, "infer")["status"] == "StatusCode.NOT_FOUND"
    (record,) = operator.records(name, 1)
    assert (record["operation"], record["outcome"], record["input_tokens"], record["output_tokens"]) == ("infer", "upstream_error", 0, 0)
