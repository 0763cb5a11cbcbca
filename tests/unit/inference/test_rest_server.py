"""An inference server by its REST form, without a mesh."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import pytest

from mesh.exceptions import BackPressureError
from mesh.inference import InferenceRequest, InferenceResult, InferenceServer, ModelInfo, TensorInfo
from mesh.inference.inference_rest import InferenceRest
from mesh.rpc.status_codes import HTTP_STATUS
from mesh.settings import settings
from tests.unit.inference.models import Models, rest


class Chat(InferenceServer):
    models = (ModelInfo("chat", [TensorInfo("text_input", "BYTES", [1, -1])], [TensorInfo("text", "BYTES", [-1])]),)

    async def stream(self, inputs: dict[str, Any], request: InferenceRequest) -> AsyncIterator[Any]:
        (text,) = inputs["text_input"].reshape(-1).tolist()
        for word in text.split():
            if word == b"bad":
                raise ValueError("bad word")
            yield InferenceResult({"text": [word] * int(request.parameters.get("times", 1))}, {"n": len(word)})


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


def test_two_content_encodings_are_both_of_the_body() -> None:
    """As everywhere else in the gateway, two fields are one list, of which only lists of one coding are served."""
    packed = gzip.compress(httpx.Request("POST", "http://test", json=body()).content)
    for first, last in (("gzip", "identity"), ("identity", "gzip"), ("gzip", "gzip")):
        headers = [("content-encoding", first), ("content-encoding", last)]
        response = rest("POST", "/v2/models/double/infer", content=packed, headers=headers)
        assert (response.status_code, "Content-Encoding" in response.json()["error"]) == (415, True)


@pytest.mark.parametrize("lengths", [["71", "2"], ["9" * 5_000], ["-1"], ["\u0663"]])
def test_a_wrong_length_of_the_json_is_refused(lengths: list[str]) -> None:
    headers = [("inference-header-content-length", each.encode()) for each in lengths]
    response = rest("POST", "/v2/models/double/infer", json=body(), headers=headers)
    assert (response.status_code, "Inference-Header" in response.json()["error"]) == (400, True)


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
        ("GET", "/v3", None, 404, "The paths of inference are v2, v2/health/live, "),
        ("POST", "/v2/models/double/infer", {"inputs": []}, 400, "Input 'x' of model 'double' is missing"),
        ("POST", "/v2/models/double/infer", {"outputs": [{"name": "w"}]}, 400, "no output 'w'"),
        ("POST", "/v2/models/double/infer", {"parameters": {"kind": "status"}}, 429, "out of quota"),
        ("POST", "/v2/models/double/infer", {"parameters": {"kind": "raises"}}, 500, "ValueError: broken model"),
        ("POST", "/v2/models/double/infer", {"parameters": {"kind": "file"}}, 500, "OSError: no file \\udcff"),
        ("POST", "/v2/models/double/infer", {"parameters": {"kind": "file status"}}, 404, "no file \\udcff"),
        ("POST", "/v2/models/double/infer", {"parameters": {"kind": "wrong type"}}, 500, "'y' is FP64"),
    ],
)  # fmt: skip
def test_errors_are_json(method: str, path: str, fields: dict[str, Any] | None, status: int, why: str) -> None:
    response = rest(method, path, json=None if fields is None else body(**fields))
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert why in response.json()["error"]


@pytest.mark.parametrize("code", [each for each in grpc.StatusCode if each is not grpc.StatusCode.OK])
def test_a_status_of_a_model_is_the_one_that_a_gateway_answers_for_it(code: grpc.StatusCode) -> None:
    response = rest("POST", "/v2/models/double/infer", json=body(parameters={"kind": code.name}))
    assert (response.status_code, response.json()) == (HTTP_STATUS[code.value[0]], {"error": "as asked"})


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
        ([], 400, "The body is not a JSON object"),
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
