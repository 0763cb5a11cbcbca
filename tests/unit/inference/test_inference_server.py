"""An inference server by its gRPC methods, and in a deployment, without a mesh."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import numpy as np
import pytest

import mesh
from mesh.application import BuildRules, build
from mesh.exceptions import GrpcStatusError
from mesh.inference import InferenceRequest, InferenceResult, InferenceServer, ModelInfo, TensorInfo
from mesh.inference.protocol.messages import ModelMetadataRequest, ModelReadyRequest
from mesh.inference.protocol.wire_messages import StreamFailure, WireRequest, WireResponse, write_stream_response
from mesh.testing import grpc_context
from mesh.usercode.served_methods import typed_methods
from mesh.web.ingress import ingress_app_of, takes_web_requests
from tests.unit.inference.models import LOOSE, Models, X, infer, rest, run, wire_request


class Words(InferenceServer):
    models = (ModelInfo("words"),)

    async def stream(self, inputs: dict[str, Any], request: InferenceRequest) -> AsyncIterator[Any]:
        for word in inputs["text"].tolist():
            if word == b"bad":
                raise ValueError(word)
            yield {"word": np.array([word], object)}


class InThread(InferenceServer):
    models = (LOOSE,)

    def infer(self, inputs: dict[str, Any], request: InferenceRequest) -> Any:
        return {"thread": np.array([threading.current_thread().name])}


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
    with pytest.raises(GrpcStatusError, match="NOT_FOUND"):
        run(Models().ModelMetadata(ModelMetadataRequest()))


def test_a_model_that_is_not_there_is_not_ready_as_in_triton() -> None:
    asked = [("double", ""), ("none", ""), ("double", "3")]
    answers = [run(Models().ModelReady(ModelReadyRequest(name=name, version=version))) for name, version in asked]
    assert [answer.ready for answer in answers] == [True, False, False]


def test_another_failure_to_find_a_model_is_not_taken_for_one_that_is_not_ready() -> None:
    class Closed(Models):
        def find_model(self, name: str, version: str) -> ModelInfo:
            raise GrpcStatusError(grpc.StatusCode.UNAVAILABLE, "the registry is away")

    with pytest.raises(GrpcStatusError, match="UNAVAILABLE"):
        run(Closed().ModelReady(ModelReadyRequest(name="double")))


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


class Returns(InferenceServer):
    """Answers with anything."""

    models = (LOOSE,)

    def __init__(self, result: Any) -> None:
        self._result = result

    async def infer(self, inputs: dict[str, Any], request: InferenceRequest) -> Any:
        return self._result


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (InferenceResult({}, {"score": cast("Any", [1])}), "parameter 'score' of type list: parameters are bool, int"),
        (InferenceResult({}, {"score": cast("Any", None)}), "parameter 'score' of type NoneType"),
        (InferenceResult({}, {cast("Any", 1): 2}), "returned 1 as a name, which is no string"),
        ({7: [1.0]}, "returned 7 as a name, which is no string"),
        (InferenceResult(cast("Any", None)), "returned NoneType, not arrays by names of outputs"),
        ({"y": [[1], [1, 2]]}, "Output 'y' of model 'loose' is not an array"),
    ],
)
def test_what_no_client_can_get_is_internal_and_says_what_it_is(result: Any, why: str) -> None:
    code, details = refusal(Returns(result), wire_request("loose"))
    assert code is grpc.StatusCode.INTERNAL
    assert why in details
    response = rest("POST", "/v2/models/loose/infer", Returns(result), json={"inputs": []})
    assert response.status_code == 500
    assert why in response.json()["error"]


def test_what_is_found_is_a_model() -> None:
    class Finds(Models):
        def find_model(self, name: str, version: str) -> Any:
            return name

    with pytest.raises(TypeError, match="find_model returned str, not a ModelInfo"):
        infer(Finds(), wire_request())


def test_numbers_of_numpy_are_parameters_as_those_of_python() -> None:
    """They were left out of the response of gRPC, and failed that of REST."""
    result = InferenceResult({}, {"score": np.float32(0.5), "rank": np.int64(2), "is_best": np.bool_(True)})
    found = infer(Returns(result), wire_request("loose")).message.parameters
    assert (found["score"].double_param, found["rank"].int64_param, found["is_best"].bool_param) == (0.5, 2, True)
    response = rest("POST", "/v2/models/loose/infer", Returns(result), json={"inputs": []})
    assert response.json()["parameters"] == {"score": 0.5, "rank": 2, "is_best": True}


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


def test_a_request_of_a_stream_may_fail_with_a_text_that_is_no_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a file whose name is not in UTF-8."""
    # Reports of tests, with their logs, travel between processes that cannot carry it either.
    monkeypatch.setattr("mesh.inference.inference_stream.record_failure", lambda *_: None)
    failing = [wire_request(parameters={"kind": {"string_param": kind}}) for kind in ("file", "file status")]
    found = streamed(Models(), *failing, wire_request())
    texts = [each.text for each in found if isinstance(each, StreamFailure)]
    assert texts == ["OSError: no file \\udcff", "no file \\udcff"]
    assert all(write_stream_response(each) for each in found)


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
