"""An inference server with a few models, and requests of it by gRPC and REST, without a mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import httpx
import numpy as np

import mesh
from mesh.context import REQUEST, Request
from mesh.exceptions import BackPressureError, GrpcStatusError
from mesh.inference import InferenceRequest, InferenceResult, InferenceServer, ModelInfo, TensorInfo
from mesh.inference.inference_rest import InferenceRest
from mesh.inference.protocol.messages import ModelInferRequest
from mesh.inference.protocol.wire_messages import WireRequest, WireResponse, read_request

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
        if kind == "file":
            raise OSError("no file \udcff")
        if kind == "file status":
            raise GrpcStatusError(grpc.StatusCode.NOT_FOUND, "no file \udcff")
        if kind == "busy":
            raise BackPressureError(num_queued_requests=1, max_queued_requests=1)
        if kind == "status":
            raise GrpcStatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "out of quota")
        if kind in grpc.StatusCode.__members__:
            raise GrpcStatusError(grpc.StatusCode[kind], "as asked")
        if request.model_name == "loose":
            return InferenceResult(dict(inputs), {"id": mesh.get_multiplexed_model_id()})
        return {"y": inputs["x"] * inputs.get("factor", np.float32([2]))}


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


def rest(method: str, path: str, server: InferenceServer | None = None, **request: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        REQUEST.set(Request())
        app = httpx.ASGITransport(InferenceRest(server or Models()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=app, base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(ask())
