"""Requests and responses of `ModelInfer` as messages, and as what models take and return. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mesh.inference.model_run import NamedOutputs
from mesh.inference.protocol.datatypes import Array, TensorError, find_datatype, shown
from mesh.inference.protocol.inference_request import InferenceRequest, InputTensor, Parameter, model_id_of
from mesh.inference.protocol.messages import InferParameter, ModelInferResponse
from mesh.inference.protocol.model_info import ModelInfo
from mesh.inference.protocol.tensor_contents import read_raw, read_typed, write_raw, write_typed
from mesh.inference.protocol.wire_messages import WireRequest, WireResponse

if TYPE_CHECKING:
    from google.protobuf.internal.containers import MessageMap

_INT64_MAX = 2**63 - 1
_SHARED_MEMORY = "shared_memory_region"


def read_inference(wire: WireRequest, model: ModelInfo) -> tuple[InferenceRequest, dict[str, Array]]:
    """What the client asks, and its inputs. Raises TensorError."""
    message = wire.message
    if wire.raw and len(wire.raw) != len(message.inputs):
        raise TensorError(
            f"There are {len(message.inputs)} inputs and {len(wire.raw)} raw_input_contents: each input has one, and "
            "none has typed contents beside them."
        )
    inputs: dict[str, InputTensor] = {}
    arrays: dict[str, Array] = {}
    for position, each in enumerate(message.inputs):
        name, shape, parameters = each.name, tuple(each.shape), read_parameters(each.parameters)
        if name in inputs:
            raise TensorError(f"Input {shown(name)} is there twice.")
        check_parameters(name, parameters)
        datatype = find_datatype(name, each.datatype)
        if not wire.raw:
            arrays[name] = read_typed(name, datatype, shape, each.contents)
        elif each.HasField("contents"):
            raise TensorError(f"Input {shown(name)} has typed contents beside raw_input_contents; send one of them.")
        else:
            arrays[name] = read_raw(name, datatype, shape, wire.raw[position])
        inputs[name] = InputTensor(datatype.name, shape, parameters)
    for output in message.outputs:
        check_parameters(output.name, read_parameters(output.parameters))
    request = InferenceRequest(
        message.model_name,
        model.served_version(message.model_version),
        model_id_of(message.model_name, message.model_version),
        message.id,
        read_parameters(message.parameters),
        inputs,
        tuple(each.name for each in message.outputs),
    )
    return request, arrays


def write_inference(request: InferenceRequest, outputs: NamedOutputs, *, is_raw: bool) -> WireResponse:
    """The response, with raw contents if the request had such, or an output has no other form. Raises OutputError."""
    message = ModelInferResponse(model_name=request.model_name, model_version=request.model_version, id=request.id)
    write_parameters(outputs.parameters, message.parameters)
    is_raw = is_raw or any(not each.datatype.contents_field for each in outputs.tensors)
    raw = []
    for each in outputs.tensors:
        output = message.outputs.add(name=each.name, datatype=each.datatype.name, shape=each.array.shape)
        if is_raw:
            raw.append(write_raw(each.name, each.datatype, each.array))
        else:
            write_typed(each.name, each.datatype, each.array, output.contents)
    return WireResponse(message, raw)


def read_parameters(parameters: Mapping[str, InferParameter]) -> dict[str, Parameter]:
    """Those that have a value."""
    chosen = ((name, each, each.WhichOneof("parameter_choice")) for name, each in parameters.items())
    return {name: getattr(each, choice) for name, each, choice in chosen if choice is not None}


def write_parameters(parameters: Mapping[str, Parameter], target: MessageMap[str, InferParameter]) -> None:
    """Raises ValueError for an integer that is too large."""
    for name, value in parameters.items():
        match value:
            case bool():
                target[name].bool_param = value
            case int() if value > _INT64_MAX:
                target[name].uint64_param = value
            case int():
                target[name].int64_param = value
            case float():
                target[name].double_param = value
            case str():
                target[name].string_param = value


def check_parameters(tensor: str, parameters: Mapping[str, Parameter]) -> None:
    """Raises TensorError for what would change the meaning of a tensor, and is not supported."""
    if _SHARED_MEMORY in parameters:
        raise TensorError(
            f"Tensor {shown(tensor)} is in shared memory, which this server does not read: send it inline."
        )
    if parameters.get("classification"):
        raise TensorError(f"Output {shown(tensor)} is requested as classification, which this server does not make.")
