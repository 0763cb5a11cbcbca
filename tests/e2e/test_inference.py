"""The Open Inference Protocol through a gateway, with Triton's client over gRPC and HTTP, and with plain ones."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

import mesh
from examples.inference.app import app as linear_models
from mesh.inference import InferenceRequest, InferenceServer, ModelInfo, TensorInfo
from mesh.inference.protocol.messages import ModelInferRequest, ModelInferResponse
from tests.documents import ROOT
from tests.e2e.conftest import Deploy, Gateway
from tests.e2e.gate import small
from tests.e2e.metrics import value
from tests.e2e.waiting import until

# Triton's HTTP client closes itself again when it is collected, which gevent allows only in the thread that made it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

APP = {"application": "inference"}
Client = Any
Library = Any


@small(max_ongoing_requests=20)
class Several(InferenceServer):
    """A few models of different kinds."""

    models = (
        ModelInfo(
            "double",
            [TensorInfo("x", "FP32", [-1, 2])],
            [TensorInfo("y", "FP32", [-1, 2])],
            versions=["1"],
            platform="numpy",
        ),
        ModelInfo("echo"),
        ModelInfo("count", [TensorInfo("until", "INT64", [1])], [TensorInfo("number", "INT64", [1])]),
        ModelInfo("broken"),
    )

    async def infer(self, inputs: dict[str, Any], request: InferenceRequest) -> dict[str, Any]:
        if request.model_name == "broken":
            raise ValueError("cannot")
        if request.model_name == "double":
            return {"y": inputs["x"] * 2}
        return inputs

    async def stream(self, inputs: dict[str, Any], request: InferenceRequest) -> Any:
        if request.model_name == "count":
            for number in range(int(inputs["until"][0])):
                yield {"number": [number]}
            return
        for each in inputs["x"].reshape(-1):
            yield {"y": np.array([each])}


@small(num_replicas=2, max_ongoing_requests=20)
class Zoo(InferenceServer):
    """Any model, loaded where it is first asked for."""

    def find_model(self, name: str, version: str) -> ModelInfo | None:
        return ModelInfo(name) if name.startswith("m") else None

    @mesh.multiplexed(max_num_models_per_replica=4)
    async def load(self, model_id: str) -> str:
        return f"{model_id} at {mesh.get_replica_context().replica_id}"

    async def infer(self, inputs: dict[str, Any], request: InferenceRequest) -> dict[str, Any]:
        assert mesh.get_multiplexed_model_id() == request.model_id
        return {"served": np.array([await self.load(request.model_id)])}


@pytest.fixture(scope="module")
def served(deploy: Deploy) -> None:
    deploy(Several.bind(), "inference")


@pytest.fixture(scope="module")
def zoo(deploy: Deploy) -> None:
    deploy(Zoo.bind(), "zoo")


@pytest.fixture(params=[tritonclient.grpc, tritonclient.http], ids=["grpc", "http"])
def library(request: pytest.FixtureRequest) -> Library:
    return request.param


@pytest.fixture
def client(library: Library, gateway: Gateway, served: None) -> Iterator[Client]:
    with connect(library, gateway, "inference") as client:
        yield client


def connect(library: Library, gateway: Gateway, prefix: str) -> Client:
    if library is tritonclient.grpc:
        return library.InferenceServerClient(gateway.grpc_address)
    return library.InferenceServerClient(f"{gateway.http_url.removeprefix('http://')}/{prefix}", concurrency=4)


def ask(library: Library, client: Client, model: str, version: str = "", **options: Any) -> Any:
    """Of an application that is named in metadata; HTTP clients name it in the path."""
    headers = {"application": options.pop("application", "inference")}
    inputs = options.pop("inputs", {"x": np.float32([[1, 2], [3, 4]])})
    sent = []
    for name, array in inputs.items():
        datatype = "BYTES" if array.dtype == object else DATATYPES[array.dtype.name]
        one = library.InferInput(name, list(array.shape), datatype)
        one.set_data_from_numpy(array, **options.pop("form", {}))
        sent.append(one)
    return client.infer(model, sent, version, headers=headers, **options)


DATATYPES = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip


# ---- Triton's client, both protocols ---------------------------------------------------------------------------------


def test_server_and_models_say_what_they_are(client: Client, library: Library) -> None:
    assert client.is_server_live(headers=APP)
    assert client.is_server_ready(headers=APP)
    assert client.is_model_ready("double", headers=APP)
    assert client.is_model_ready("double", "1", headers=APP)
    as_json = {"as_json": True} if library is tritonclient.grpc else {}
    server = client.get_server_metadata(headers=APP, **as_json)
    assert (server["name"], server["extensions"]) == ("Several", ["binary_tensor_data", "generate"])
    model = client.get_model_metadata("double", headers=APP, **as_json)
    shape = ["-1", "2"] if as_json else [-1, 2]
    assert model == {
        "name": "double", "versions": ["1"], "platform": "numpy",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": shape}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": shape}],
    }  # fmt: skip


def test_a_model_answers(client: Client, library: Library) -> None:
    outputs = [library.InferRequestedOutput("y")]
    found = ask(library, client, "double", "1", request_id="r7", outputs=outputs)
    assert found.as_numpy("y").tolist() == [[2, 4], [6, 8]]
    said = found.get_response() if library is tritonclient.http else found.get_response(as_json=True)
    assert (said["model_name"], said["model_version"], said["id"]) == ("double", "1", "r7")


def test_tensors_of_every_type_come_back_as_they_were_sent(client: Client, library: Library) -> None:
    rng = np.random.default_rng(7)
    inputs = {name: rng.integers(0, 2, (3, 5)).astype(name) for name in DATATYPES}
    inputs["bytes"] = np.array([[b"", b"\0a\xff"], ["ä".encode(), b"x" * 1000]], object)
    inputs["empty"] = np.empty((0, 3), np.float32)
    found = ask(library, client, "echo", inputs=inputs)
    for name, sent in inputs.items():
        assert found.as_numpy(name).tolist() == sent.tolist(), name


def test_a_large_tensor_passes(client: Client, library: Library) -> None:
    sent = np.arange(1_500_000, dtype=np.float32)
    found = ask(library, client, "echo", inputs={"x": sent})
    assert np.array_equal(found.as_numpy("x"), sent)


def test_errors_name_what_is_wrong(client: Client, library: Library) -> None:
    for model, options, why in (
        ("none", {}, "There is no model 'none'"),
        ("double", {"inputs": {"x": np.int32([[1, 2]])}}, "Input 'x' of model 'double' is FP32, not INT32"),
        ("double", {"inputs": {"z": np.float32([[1, 2]])}}, "has no input 'z'"),
        ("double", {"outputs": [library.InferRequestedOutput("w")]}, "has no output 'w'"),
        ("broken", {}, "ValueError: cannot"),
    ):
        with pytest.raises(InferenceServerException) as refusal:
            ask(library, client, model, **options)
        assert why in str(refusal.value)


def test_models_stay_where_they_are_loaded(library: Library, gateway: Gateway, zoo: None) -> None:
    """The id is read from the message, or from the path (items 124, 176)."""
    with connect(library, gateway, "zoo") as client:
        assert client.is_server_live(headers={"application": "zoo"})
        # A gateway that has only one of the links yet would load all models there.
        until(lambda: value(gateway, "mesh_links", application="zoo") == 2)

        def one_round() -> dict[str, list[bytes]]:
            return {
                f"{model}:{version}" if version else model: ask(library, client, model, version, application="zoo")
                .as_numpy("served")
                .tolist()
                for model in ("m1", "m2", "m3")
                for version in ("", "5")
            }

        placed = one_round()
        assert all(served[0].decode().startswith(f"{model_id} at ") for model_id, served in placed.items())
        assert len({served[0].decode().rpartition(" ")[2] for served in placed.values()}) == 2
        assert all(one_round() == placed for _ in range(5))
        with pytest.raises(InferenceServerException, match="There is no model 'x'"):
            ask(library, client, "x", application="zoo")


# ---- gRPC ------------------------------------------------------------------------------------------------------------


def test_a_stream_of_triton_has_several_responses_to_a_request(gateway: Gateway, served: None) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with connect(tritonclient.grpc, gateway, "") as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=APP)
        sent = tritonclient.grpc.InferInput("x", [3], "INT64")
        sent.set_data_from_numpy(np.int64([1, 2, 3]))
        client.async_stream_infer("echo", [sent], request_id="a")
        client.async_stream_infer("none", [sent], request_id="b")
        client.async_stream_infer("echo", [sent], request_id="c")
        found = [answers.get(timeout=10) for _ in range(7)]
        client.stop_stream()
    results = [(result.get_response().id, result.as_numpy("y").tolist()) for result, error in found if error is None]
    assert results == [(each, [number]) for each in "ac" for number in (1, 2, 3)]
    assert "There is no model 'none'" in str(found[3][1])


def test_typed_contents_are_answered_alike(channel: grpc.Channel, served: None) -> None:
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        ModelInferRequest.SerializeToString,
        ModelInferResponse.FromString,
    )
    one = ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[2])
    one.contents.bytes_contents.extend((b"a", b"b"))
    found: ModelInferResponse = call(ModelInferRequest(model_name="echo", inputs=[one]), metadata=[*APP.items()])
    assert list(found.outputs[0].contents.bytes_contents) == [b"a", b"b"]
    assert not found.raw_output_contents
    mixed = ModelInferRequest(model_name="echo", inputs=[one], raw_input_contents=[b""])
    with pytest.raises(grpc.RpcError) as refusal:
        call(mixed, metadata=[*APP.items()])
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Input 'x' has typed contents beside raw_input_contents" in refusal.value.details()


# ---- REST ------------------------------------------------------------------------------------------------------------


def test_json_alone_is_enough(gateway: Gateway, served: None) -> None:
    with httpx.Client(base_url=f"{gateway.http_url}/inference/v2", timeout=20) as http:
        assert http.get("/health/live").json() == {"live": True}
        assert http.get("/health/ready").json() == {"ready": True}
        assert http.get("").json()["name"] == "Several"
        for data in ([[1, 2]], [1, 2]):
            sent = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": data}]}
            found = http.post("/models/double/infer", json=sent)
            assert found.json()["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}]
        unknown = http.get("/models/none")
        broken = http.post("/models/broken/infer", json=sent)
    assert (unknown.status_code, unknown.json()) == (404, {"error": "There is no model 'none'."})
    assert (broken.status_code, broken.json()) == (500, {"error": "ValueError: cannot"})
    labels = {"application": "inference", "route": "/inference/v2/models/{model}/infer", "method": "POST"}
    assert value(gateway, "mesh_gateway_http_requests_total", **labels, status="500") >= 1


def test_methods_are_served_as_json_too(gateway: Gateway, served: None) -> None:
    """As of every gRPC service: the descriptors are there."""
    path = "/inference/inference.GRPCInferenceService/ModelMetadata"
    found = httpx.post(f"{gateway.http_url}{path}", json={"name": "double"}, timeout=20)
    assert found.json()["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "2"]}]


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_triton_compresses_what_it_sends(packing: str, gateway: Gateway, served: None) -> None:
    library: Library = tritonclient.http
    with connect(library, gateway, "inference") as client:
        found = ask(library, client, "double", request_compression_algorithm=packing)
    assert found.as_numpy("y").tolist() == [[2, 4], [6, 8]]


def test_triton_may_send_and_want_json(gateway: Gateway, served: None) -> None:
    library: Library = tritonclient.http
    with connect(library, gateway, "inference") as client:
        outputs = [library.InferRequestedOutput("y", binary_data=False)]
        found = ask(library, client, "double", outputs=outputs, form={"binary_data": False})
    assert found.get_response()["outputs"][0]["data"] == [2, 4, 6, 8]


def test_responses_come_as_events_one_by_one(gateway: Gateway, served: None) -> None:
    path = f"{gateway.http_url}/inference/v2/models/count/generate_stream"
    with httpx.Client(timeout=20) as http, http.stream("POST", path, json={"until": 3}) as answer:
        found = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
    assert [each["number"] for each in found] == [0, 1, 2]


# ---- The example -----------------------------------------------------------------------------------------------------


def test_the_example_answers_the_same_over_grpc_and_http(deploy: Deploy, gateway: Gateway) -> None:
    """Its own process, as its docs say. It is the only application with the service then."""
    for name in ("inference", "zoo"):
        mesh.delete(name)
    deploy(linear_models, "linear")
    http_address = f"{gateway.http_url.removeprefix('http://')}/linear"
    command = [sys.executable, "-m", "examples.inference.client", gateway.grpc_address, http_address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["tritonclient.grpc", "tritonclient.http"]
