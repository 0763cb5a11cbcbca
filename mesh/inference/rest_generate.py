"""Triton's `generate` and `generate_stream`: a flat JSON object for the inputs, and one for the outputs. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from mesh.inference.model_run import NamedOutputs
from mesh.inference.protocol.datatypes import DATATYPES, Array, TensorError, shown
from mesh.inference.protocol.inference_request import InferenceRequest, InputTensor, model_id_of
from mesh.inference.protocol.model_info import ModelInfo, TensorInfo
from mesh.inference.protocol.tensor_contents import Buffer
from mesh.inference.rest_tensors import json_values, read_json

_DECODER = msgspec.json.Decoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder()
_SCALARS = (bool, int, float, str)


def read_generate(name: str, version: str, body: Buffer, model: ModelInfo) -> tuple[InferenceRequest, dict[str, Array]]:
    """What the client asks: inputs are members of their names, other members are parameters. Raises TensorError."""
    try:
        members = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TensorError(f"The body is not a JSON object: {error}.") from None
    declared = {each.name: each for each in model.inputs}
    request_id = members.pop("id", "") if "id" not in declared else ""
    given = members.pop("parameters", {}) if "parameters" not in declared else {}
    if not isinstance(request_id, str) or not isinstance(given, dict):
        raise TensorError("The member id is a string, and parameters is an object.")
    inputs: dict[str, InputTensor] = {}
    arrays: dict[str, Array] = {}
    for member, value in members.items():
        if member in declared:
            arrays[member] = array = _input(declared[member], value)
            inputs[member] = InputTensor(declared[member].datatype, array.shape)
        else:
            given[member] = value
    for member, value in given.items():
        if not isinstance(value, _SCALARS):
            raise TensorError(
                f"Model {model.name!r} declares no input {shown(member)}, and a parameter is not an array or object."
            )
    request = InferenceRequest(
        name, model.served_version(version), model_id_of(name, version), request_id, given, inputs
    )
    return request, arrays


def write_generate(request: InferenceRequest, outputs: NamedOutputs) -> bytes:
    """One response; an output of one element is that element. Raises TensorError, OutputError."""
    found: dict[str, Any] = {"model_name": request.model_name}
    for key, value in (("model_version", request.model_version), ("id", request.id)):
        if value:
            found[key] = value
    found |= outputs.parameters
    for each in outputs.tensors:
        values = json_values(each)
        found[each.name] = values[0] if len(values) == 1 else values
    return _ENCODER.encode(found)


def _input(declared: TensorInfo, value: Any) -> Array:
    """A scalar or a flat array, in the last of the declared dimensions."""
    data = value if isinstance(value, list) else [value]
    dimensions = len(declared.shape)
    if not dimensions and len(data) != 1:
        raise TensorError(f"Input {declared.name!r} is a single value.")
    shape = [1] * (dimensions - 1) + [len(data)] if dimensions else []
    return read_json(declared.name, DATATYPES[declared.datatype], shape, data)
