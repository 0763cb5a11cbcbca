"""One meaning of an inference: equal tensors and outcomes by gRPC, typed and raw, and by REST, as JSON and as bytes."""

from __future__ import annotations

import json
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from mesh.exceptions import GrpcStatusError
from mesh.inference import InferenceRequest, InferenceServer, ModelInfo
from mesh.inference.protocol.datatypes import DATATYPES
from tests.unit.inference.models import infer, rest, wire_request

KINDS = [each for each in DATATYPES.values() if each.contents_field and each.name not in ("BF16", "BYTES")]
ARRAYS = st.sampled_from(KINDS).flatmap(
    lambda kind: arrays_of.arrays(
        kind.dtype,
        arrays_of.array_shapes(min_dims=1, max_dims=3, max_side=4),
        elements=arrays_of.from_dtype(np.dtype(kind.dtype), allow_nan=False, allow_infinity=False),
    )
)
NAMES = {np.dtype(kind.dtype): kind.name for kind in KINDS}
NAMES_TO_TYPES = {name: dtype for dtype, name in NAMES.items()}
TEXT = {"text": {"string_param": "ü"}}


class Echo(InferenceServer):
    models = (ModelInfo("echo"),)

    async def infer(self, inputs: dict[str, Any], request: InferenceRequest) -> Any:
        if request.parameters.get("fails"):
            raise GrpcStatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "out of quota")
        assert (request.id, request.parameters["text"]) == ("r1", "ü")
        return dict(inputs)


def head(array: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": NAMES[array.dtype], "shape": list(array.shape)}


def by_raw(array: Any, **parameters: Any) -> Any:
    response = infer(
        Echo(), wire_request("echo", inputs=[head(array)], raw_input_contents=[array.tobytes()], **parameters)
    )
    (output,) = response.message.outputs
    return np.frombuffer(response.raw[0], NAMES_TO_TYPES[output.datatype]).reshape(list(output.shape))


def by_typed(array: Any, **parameters: Any) -> Any:
    field = DATATYPES[NAMES[array.dtype]].contents_field
    inputs = [{**head(array), "contents": {field: array.reshape(-1).tolist()}}]
    response = infer(Echo(), wire_request("echo", inputs=inputs, raw_input_contents=[], **parameters))
    (output,) = response.message.outputs
    values = list(getattr(output.contents, field))
    return np.array(values, NAMES_TO_TYPES[output.datatype]).reshape(list(output.shape))


def by_json(array: Any) -> Any:
    body = {"id": "r1", "parameters": {"text": "ü"}, "inputs": [{**head(array), "data": array.tolist()}]}
    (output,) = rest("POST", "/v2/models/echo/infer", Echo(), json=body).json()["outputs"]
    return np.array(output["data"], NAMES_TO_TYPES[output["datatype"]]).reshape(output["shape"])


def by_bytes(array: Any) -> Any:
    """Triton's extension: the tensors stand behind the JSON."""
    data = array.tobytes()
    given_input = {**head(array), "parameters": {"binary_data_size": len(data)}}
    parameters = {"text": "ü", "binary_data_output": True}
    text = json.dumps({"id": "r1", "parameters": parameters, "inputs": [given_input]}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    answer = rest("POST", "/v2/models/echo/infer", Echo(), content=text + data, headers=headers)
    end = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:end])["outputs"]
    return np.frombuffer(answer.content[end:], NAMES_TO_TYPES[output["datatype"]]).reshape(output["shape"])


@given(ARRAYS)
def test_a_tensor_is_the_same_in_every_form(array: Any) -> None:
    for found in (by_raw(array, parameters=TEXT), by_typed(array, parameters=TEXT), by_json(array), by_bytes(array)):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.array_equal(found, array)


def test_an_outcome_is_the_same_in_every_form() -> None:
    array = np.float32([1])
    with pytest.raises(GrpcStatusError) as raised:
        by_raw(array, parameters={"fails": {"bool_param": True}})
    body = {"parameters": {"fails": True}, "inputs": [{**head(array), "data": [1]}]}
    answer = rest("POST", "/v2/models/echo/infer", Echo(), json=body)
    assert (raised.value.code, raised.value.details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "out of quota")
    assert (answer.status_code, answer.json()) == (429, {"error": "out of quota"})
