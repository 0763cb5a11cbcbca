"""An inference server by its gRPC methods and by its REST form, without a mesh."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

import mesh
from mesh.application import BuildRules, build
from mesh.context import REQUEST, Request
from mesh.exceptions import BackPressureError, GrpcStatusError
from mesh.inference import InferenceRequest, InferenceResult, InferenceServer, ModelInfo, TensorInfo
from mesh.inference.inference_rest import InferenceRest
from mesh.inference.protocol.messages import ModelInferRequest, ModelMetadataRequest, ModelReadyRequest
from mesh.inference.protocol.wire_messages import StreamFailure, WireRequest, WireResponse, read_request
from mesh.settings import settings
from mesh.testing import grpc_context
from mesh.usercode.served_methods import typed_methods
from mesh.web.ingress import ingress_app_of, takes_web_requests

DOUBLE = ModelInfo(
    "double",
    [TensorInfo("x", "FP32", [-1]), TensorInfo("factor", "FP32", [1], is_optional=True)],
    [TensorInfo("y", "FP32", [-1])],
    versions=["1", "2"],
    platform="numpy",
    properties={"kind": "test"},
)
LOOSE = ModelInfo("loose")
X = {"name": "x", "datatype": "FP32", "shape": [3]}


class Models(InferenceServer):
    models = (DOUBLE, LOOSE)

    async def infer(self, inputs: dict[str, Any], request: InferenceRequest) -> Any:
        kind = request.parameters.get("kind")
        if kind == "wrong type":
            return {"y": inputs["x"].astype(np.float64)}
        if kind == "nothing":
            return {}
        if kind == "raises":
            raise ValueError("broken model")
        if kind == "busy":
            raise BackPressureError(num_queued_requests=1, max_queued_requests=1)
        if kind == "status":
            raise GrpcStatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "out of quota")
        if request.model_name == "loose":
            return InferenceResult(dict(inputs), {"id": mesh.get_multiplexed_model_id()})
        return {"y": inputs["x"] * inputs.get("factor", np.float32([2]))}


class Words(InferenceServer):
    models = (ModelInfo("words"),)

    async def stream(self, inputs: dict[str, Any], request: InferenceRequest) -> AsyncIterator[Any]:
        for word in inputs["text"].tolist():
            if word == b"bad":
                raise ValueError(word)
            yield {"word": np.array([word], object)}


class Chat(InferenceServer):
    models = (ModelInfo("chat", [TensorInfo("text_input", "BYTES", [1, -1])], [TensorInfo("text", "BYTES", [-1])]),)

    async def stream(self, inputs: dict[str, Any], request: InferenceRequest) -> AsyncIterator[Any]:
        (text,) = inputs["text_input"].reshape(-1).tolist()
        for word in text.split():
            if word == b"bad":
                raise ValueError("bad word")
            yield InferenceResult({"text": [word] * int(request.parameters.get("times", 1))}, {"n": len(word)})


class InThread(InferenceServer):
    models = (LOOSE,)

    def infer(self, inputs: dict[str, Any], request: InferenceRequest) -> Any:
        return {"thread": np.array([threading.current_thread().name])}


def wire_request(model: str = "double", version: str = "", **fields: Any) -> WireRequest:
    x = np.float32([1, 2, 3])
    given: dict[str, Any] = {
        "inputs": [X],
        "raw_input_contents": [x.tobytes()],
        **fields,
    }
    message = ModelInferRequest(model_name=model, model_version=version, id="r1", **given)
    return read_request(message.SerializeToString())


def run(call: Awaitable[Any]) -> Any:
    async def in_request() -> Any:
        REQUEST.set(Request())
        return await call

    return asyncio.run(in_request())


def infer(server: InferenceServer, request: WireRequest) -> WireResponse:
    found: WireResponse = run(server.ModelInfer(request))
    return found


def refusal(server: InferenceServer, request: WireRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(GrpcStatusError) as raised:
        infer(server, request)
    return raised.value.code, raised.value.details


# ---- gRPC ------------------------------------------------------------------------------------------------------------


def test_all_methods_of_the_protocol_are_served_and_web_requests_too() -> None:
    names = {name.rpartition("/")[2] for name in typed_methods(Models)}
    assert names == {
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelStreamInfer",
    }  # fmt: skip
    assert takes_web_requests(Models)


def test_a_model_answers() -> None:
    response = infer(Models(), wire_request())
    assert np.frombuffer(response.raw[0], np.float32).tolist() == [2, 4, 6]
    message = response.message
    assert (message.model_name, message.model_version, message.id) == ("double", "2", "r1")
    (output,) = message.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", "FP32", [3])


def test_typed_contents_are_answered_with_typed_contents() -> None:
    contents = {"fp32_contents": [1, 2]}
    inputs = [{"name": "x", "datatype": "FP32", "shape": [2], "contents": contents}]
    response = infer(Models(), wire_request(inputs=inputs, raw_input_contents=[]))
    assert not response.raw
    assert list(response.message.outputs[0].contents.fp32_contents) == [2, 4]


def test_an_output_that_has_no_typed_contents_makes_them_all_raw() -> None:
    inputs = [{"name": "x", "datatype": "FP16", "shape": [1]}, {"name": "z", "datatype": "INT8", "shape": [1]}]
    response = infer(Models(), wire_request("loose", inputs=inputs, raw_input_contents=[b"\0\x3c", b"\7"]))
    assert [bytes(each) for each in response.raw] == [b"\0\x3c", b"\7"]


def test_the_model_of_the_message_is_that_of_the_request() -> None:
    response = infer(Models(), wire_request("loose", "9"))
    assert response.message.parameters["id"].string_param == "loose:9"


def test_a_model_that_is_not_there_is_not_found() -> None:
    for request, name in ((wire_request("none"), "'none'"), (wire_request("double", "3"), "no version '3'")):
        code, details = refusal(Models(), request)
        assert code is grpc.StatusCode.NOT_FOUND
        assert name in details
    for call in (Models().ModelReady(ModelReadyRequest(name="none")), Models().ModelMetadata(ModelMetadataRequest())):
        with pytest.raises(GrpcStatusError, match="NOT_FOUND"):
            run(call)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"inputs": [], "raw_input_contents": []}, "Input 'x' of model 'double' is missing"),
        ({"raw_input_contents": [b"12345678"]}, "Input 'x' has 8 bytes"),
        ({"raw_input_contents": [b"", b""]}, "1 inputs and 2 raw_input_contents"),
        ({"inputs": [{"name": "x", "datatype": "INT32", "shape": [3]}]}, "Input 'x' of model 'double' is FP32, not I"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 1]}]}, "has the shape [-1], not [3, 1]"),
        ({"inputs": [{"name": "z", "datatype": "FP32", "shape": [3]}]}, "has no input 'z'"),
        ({"outputs": [{"name": "w"}]}, "has no output 'w'"),
        (
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "contents": {"fp32_contents": [1]}}]},
            "Input 'x' has typed contents beside raw_input_contents",
        ),
        ({"inputs": [{**X, "parameters": {"shared_memory_region": {"string_param": "r"}}}]}, "'x' is in shared memory"),
    ],
)  # fmt: skip
def test_mistakes_of_clients_are_invalid_and_name_the_tensor(fields: dict[str, Any], why: str) -> None:
    code, details = refusal(Models(), wire_request(**fields))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert why in details


def test_mistakes_of_models_are_internal_and_name_the_output() -> None:
    for kind, why in (
        ("wrong type", "'y' is FP64, and the model declares FP32"),
        ("nothing", "did not return output 'y'"),
    ):
        fields: dict[str, Any] = {"parameters": {"kind": {"string_param": kind}}, "outputs": [{"name": "y"}]}
        code, details = refusal(Models(), wire_request(**fields))
        assert code is grpc.StatusCode.INTERNAL
        assert why in details


def test_def_code_runs_in_a_thread() -> None:
    response = infer(InThread(), wire_request("loose"))
    assert threading.current_thread().name.encode() not in bytes(response.raw[0])


def test_metadata_says_what_was_declared() -> None:
    found = run(Models().ModelMetadata(ModelMetadataRequest(name="double")))
    assert (list(found.versions), found.platform, dict(found.properties)) == (["1", "2"], "numpy", {"kind": "test"})
    first = found.inputs[0]
    assert (first.name, first.datatype, list(first.shape)) == ("x", "FP32", [-1])


def test_wrong_declarations_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="datatype 'FLOAT'"):
        TensorInfo("x", "FLOAT", [1])
    with pytest.raises(ValueError, match="sizes are -1 or more"):
        TensorInfo("x", "FP32", [-2])


# ---- Streams ---------------------------------------------------------------------------------------------------------


def streamed(server: InferenceServer, *requests: WireRequest, metadata: Any = ()) -> list[WireResponse | StreamFailure]:
    async def sent() -> AsyncIterator[WireRequest]:
        for each in requests:
            yield each

    async def received() -> list[WireResponse | StreamFailure]:
        context = grpc_context(metadata)
        return [each async for each in server.ModelStreamInfer(sent(), context)]

    found: list[WireResponse | StreamFailure] = run(received())
    return found


def words(*given: bytes, **parameters: Any) -> WireRequest:
    raw = b"".join(len(each).to_bytes(4, "little") + each for each in given)
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [len(given)]}]
    return wire_request("words", inputs=inputs, raw_input_contents=[raw], parameters=parameters)


def said(responses: list[WireResponse | StreamFailure]) -> list[bytes | str]:
    return [each.text if isinstance(each, StreamFailure) else bytes(each.raw[0][4:]) for each in responses]


def test_a_stream_answers_each_request_with_any_number_of_responses() -> None:
    assert said(streamed(Words(), words(b"a", b"b"), words(), words(b"c"))) == [b"a", b"b", b"c"]
    assert [type(each) for each in streamed(Models(), wire_request(), wire_request())] == [WireResponse] * 2


def test_a_request_of_a_stream_that_fails_does_not_end_it() -> None:
    assert said(streamed(Words(), words(b"a", b"bad", b"b"), wire_request("none"), words(b"c"))) == [
        b"a", "ValueError: b'bad'", "There is no model 'none'.", b"c",
    ]  # fmt: skip


def test_a_client_may_want_the_status_instead() -> None:
    with pytest.raises(GrpcStatusError, match="NOT_FOUND"):
        streamed(Words(), wire_request("none"), metadata=[("triton_grpc_error", "true")])


def test_a_client_may_want_to_know_the_last_response() -> None:
    found = streamed(Words(), words(b"a", triton_enable_empty_final_response={"bool_param": True}))
    marks = [
        each.message.parameters["triton_final_response"].bool_param for each in found if isinstance(each, WireResponse)
    ]
    assert marks == [False, True]


def test_a_model_that_only_streams_says_so() -> None:
    code, details = refusal(Words(), words(b"a"))
    assert (code, details) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "Model 'words' answers in streams only: call ModelStreamInfer.",
    )


# ---- REST ------------------------------------------------------------------------------------------------------------


def rest(method: str, path: str, server: InferenceServer | None = None, **request: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        REQUEST.set(Request())
        app = httpx.ASGITransport(InferenceRest(server or Models()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=app, base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(ask())


def body(**fields: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}], **fields}


def test_the_server_says_that_it_lives_and_what_it_is() -> None:
    assert rest("GET", "/v2/health/live").json() == {"live": True}
    assert rest("GET", "/v2/health/ready").json() == {"ready": True}
    assert rest("GET", "/v2").json() == {
        "name": "Models",
        "version": "",
        "extensions": ["binary_tensor_data", "generate"],
    }


def test_a_model_says_what_it_takes() -> None:
    found = rest("GET", "/v2/models/double/versions/1").json()
    assert found["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1]}
    assert (found["versions"], found["platform"]) == (["1", "2"], "numpy")
    assert rest("GET", "/v2/models/loose").json() == {"name": "loose", "platform": "", "inputs": [], "outputs": []}
    assert rest("GET", "/v2/models/double/ready").json() == {"name": "double", "ready": True}


def test_a_model_answers_by_rest() -> None:
    response = rest("POST", "/v2/models/double/versions/1/infer", json=body(id="r1"))
    assert response.json() == {
        "model_name": "double", "model_version": "1", "id": "r1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [2.0, 4.0]}],
    }  # fmt: skip


def test_a_body_may_be_compressed() -> None:
    packed = gzip.compress(httpx.Request("POST", "http://test", json=body()).content)
    response = rest("POST", "/v2/models/double/infer", content=packed, headers={"content-encoding": "gzip"})
    assert response.json()["outputs"][0]["data"] == [2.0, 4.0]
    cut = rest("POST", "/v2/models/double/infer", content=packed[:-9], headers={"content-encoding": "gzip"})
    other = rest("POST", "/v2/models/double/infer", content=packed, headers={"content-encoding": "zstd"})
    assert (cut.status_code, other.status_code) == (400, 415)


@pytest.fixture
def small_bodies(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The limit on bodies, in bytes."""
    monkeypatch.setenv("MESH_REPLICA_INFERENCE_BODY_MAX_BYTES", "1000")
    settings.cache_clear()
    yield 1000
    settings.cache_clear()


def test_a_body_that_is_too_large_is_refused(small_bodies: int) -> None:
    plain = b" " * (small_bodies + 1)
    response = rest("POST", "/v2/models/double/infer", content=plain)
    bomb = rest("POST", "/v2/models/double/infer", content=gzip.compress(plain), headers={"content-encoding": "gzip"})
    assert (response.status_code, bomb.status_code) == (413, 413)
    assert "MESH_REPLICA_INFERENCE_BODY_MAX_BYTES" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "fields", "status", "why"),
    [
        ("GET", "/v2/models/none", None, 404, "There is no model 'none'"),
        ("GET", "/v2/models/double/versions/7/ready", None, 404, "no version '7'"),
        ("POST", "/v2/models/none/infer", {}, 404, "There is no model 'none'"),
        ("GET", "/v2/models/double/infer", None, 405, "Use POST here"),
        ("POST", "/v2/models/double", {}, 405, "Use GET here"),
        ("GET", "/v3", None, 404, "the paths of inference begin with /v2"),
        ("POST", "/v2/models/double/infer", {"inputs": []}, 400, "Input 'x' of model 'double' is missing"),
        ("POST", "/v2/models/double/infer", {"outputs": [{"name": "w"}]}, 400, "no output 'w'"),
        ("POST", "/v2/models/double/infer", {"parameters": {"kind": "status"}}, 429, "out of quota"),
        ("POST", "/v2/models/double/infer", {"parameters": {"kind": "raises"}}, 500, "ValueError: broken model"),
        ("POST", "/v2/models/double/infer", {"parameters": {"kind": "wrong type"}}, 500, "'y' is FP64"),
    ],
)  # fmt: skip
def test_errors_are_json(method: str, path: str, fields: dict[str, Any] | None, status: int, why: str) -> None:
    response = rest(method, path, json=None if fields is None else body(**fields))
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert why in response.json()["error"]


def test_errors_that_the_gateway_answers_are_left_to_it() -> None:
    async def ask() -> None:
        app = httpx.ASGITransport(InferenceRest(Models()))
        async with httpx.AsyncClient(transport=app, base_url="http://test") as client:
            await client.post("/v2/models/double/infer", json=body(parameters={"kind": "busy"}))

    with pytest.raises(BackPressureError):
        asyncio.run(ask())


def test_a_model_generates_one_answer_to_flat_json() -> None:
    asked = {"text_input": "hello", "times": 2, "id": "r1", "parameters": {"seed": 1}}
    found = rest("POST", "/v2/models/chat/generate", Chat(), json=asked)
    assert found.json() == {"model_name": "chat", "id": "r1", "n": 5, "text": ["hello", "hello"]}
    assert rest("POST", "/v2/models/chat/generate", Chat(), json={"text_input": ["hi"]}).json()["text"] == "hi"


def events(response: httpx.Response) -> list[Any]:
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return [json.loads(each.removeprefix("data: ")) for each in response.text.split("\n\n") if each]


def test_a_model_generates_a_stream_of_events() -> None:
    found = rest("POST", "/v2/models/chat/generate_stream", Chat(), json={"text_input": "a bc"})
    assert [(each["text"], each["n"]) for each in events(found)] == [("a", 1), ("bc", 2)]
    assert events(rest("POST", "/v2/models/chat/generate_stream", Chat(), json={"text_input": ""})) == []
    failed = events(rest("POST", "/v2/models/chat/generate_stream", Chat(), json={"text_input": "a bad b"}))
    assert [each.get("error", each.get("text")) for each in failed] == ["a", "ValueError: bad word"]


@pytest.mark.parametrize("path", ["generate", "generate_stream"])
@pytest.mark.parametrize(
    ("sent", "status", "why"),
    [
        ({}, 400, "Input 'text_input' of model 'chat' is missing"),
        ({"text_input": 1}, 400, "'text_input' is BYTES"),
        ({"text_input": "a", "other": [1]}, 400, "declares no input 'other'"),
        ({"text_input": "a", "id": 1}, 400, "id is a string"),
        ([], 400, "The body is no JSON object"),
        ({"text_input": "bad"}, 500, "ValueError: bad word"),
    ],
)
def test_mistakes_have_a_status_before_the_first_answer(path: str, sent: Any, status: int, why: str) -> None:
    found = rest("POST", f"/v2/models/chat/{path}", Chat(), json=sent)
    assert (found.status_code, found.headers["content-type"]) == (status, "application/json")
    assert why in found.json()["error"]


def test_generate_wants_exactly_one_answer() -> None:
    for text in ("", "a b"):
        found = rest("POST", "/v2/models/chat/generate", Chat(), json={"text_input": text})
        assert found.status_code == 400
        assert "use generate_stream" in found.json()["error"]


# ---- Deployment ------------------------------------------------------------------------------------------------------


def test_a_server_may_call_servers_behind_it() -> None:
    """Only `@mesh.ingress` is limited to one deployment of an application (item 110)."""

    class Front(InferenceServer):
        def __init__(self, behind: object) -> None:
            self.behind = behind

    rules = BuildRules(make_handle=lambda name, app: name, version_of=lambda code, packed: "1")
    made = build(mesh.deployment(Front).bind(mesh.deployment(Models).bind()), name="a", route_prefix="/", rules=rules)
    by_name = {each.name: each for each in made.deployments}
    front, behind = by_name["Front"], by_name["Models"]
    assert (front.serves_web, behind.serves_web) == (True, False)
    assert list(front.model_id_paths) == ["v2/models/{}/versions/{}", "v2/models/{}"]
    fields = {each.full_name.rpartition("/")[2]: list(each.model_id_fields) for each in front.grpc_methods}
    assert (fields["ModelInfer"], fields["ServerLive"], fields["ModelStreamInfer"]) == ([1, 2], [], [])


def test_an_application_of_its_own_takes_the_place_of_the_rest_form() -> None:
    async def own(scope: Any, receive: Any, send: Any) -> None: ...

    found = ingress_app_of(mesh.ingress(own)(Models))
    assert found is not None
    assert found.build_for is None
