"""Large tensors reach the model as views of the message in which they came, by gRPC and by REST, over real sockets."""

from __future__ import annotations

import json
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

import mesh
from gateway.local_ports import local_apps
from mesh.inference import InferenceRequest, InferenceServer, ModelInfo
from mesh.inference.protocol.messages import ModelInferRequest, ModelInferResponse

SENT = np.arange(150_000.0).reshape(2, -1)
HEAD: dict[str, Any] = {"name": "x", "datatype": "FP64", "shape": list(SENT.shape)}


class Looks(InferenceServer):
    models = (ModelInfo("looks"),)

    async def infer(self, inputs: dict[str, Any], request: InferenceRequest) -> Any:
        x = inputs["x"]
        # A copy could be written to.
        return {"found": np.array([x.sum(), x.flags.writeable, x.ctypes.data % 64])}


@pytest.mark.parametrize("request_id", ["", "r", "a longer id"])
def test_a_large_tensor_is_not_copied(request_id: str) -> None:
    expected = [SENT.sum(), False, 0]
    with local_apps() as run:
        app = run(mesh.deployment(Looks).bind())
        assert by_grpc(app.grpc_address, request_id) == expected
        assert by_rest(app.http_url, request_id) == expected


def by_grpc(address: str, request_id: str) -> list[float]:
    message = ModelInferRequest(model_name="looks", id=request_id, inputs=[HEAD], raw_input_contents=[SENT.tobytes()])
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        found = ModelInferResponse.FromString(infer(message.SerializeToString(), timeout=10))
    return list(np.frombuffer(found.raw_output_contents[0]))


def by_rest(url: str, request_id: str) -> list[float]:
    parameters = {"binary_data_size": SENT.nbytes}
    text = json.dumps({"id": request_id, "inputs": [{**HEAD, "parameters": parameters}]}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    answer = httpx.post(f"{url}/v2/models/looks/infer", content=text + SENT.tobytes(), headers=headers, timeout=10)
    return list(answer.json()["outputs"][0]["data"])
