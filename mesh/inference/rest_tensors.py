"""Requests and responses of the REST form: JSON, with tensors as arrays in it or as bytes behind it. Pure.

Bytes behind the JSON are Triton's extension: a header has the length of the JSON, and each tensor that has bytes there
says how many, in its parameter `binary_data_size`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from mesh.inference.grpc_tensors import check_parameters
from mesh.inference.model_run import NamedOutputs, OutputTensor
from mesh.inference.protocol.datatypes import (
    BYTES,
    DIMENSIONS_MAX,
    Array,
    Datatype,
    TensorError,
    count_elements,
    find_datatype,
    shaped,
    shown,
)
from mesh.inference.protocol.inference_request import InferenceRequest, InputTensor, Parameter, model_id_of
from mesh.inference.protocol.model_info import ModelInfo
from mesh.inference.protocol.numpy_module import load_numpy
from mesh.inference.protocol.tensor_contents import Buffer, byte_array, narrowed, output_bytes, read_raw, write_raw

if TYPE_CHECKING:
    import numpy as np
else:
    np = load_numpy()

_LENGTH = re.compile("[0-9]{1,18}").fullmatch
_NUMBERS = {bool, int, float}
_SIZE = "binary_data_size"
_BINARY = "binary_data"
_ALL_BINARY = "binary_data_output"


class RestInput(msgspec.Struct):
    """$inference_request_input"""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Parameter] = {}
    data: Any = None


class RestOutput(msgspec.Struct):
    """$inference_request_output"""

    name: str
    parameters: dict[str, Parameter] = {}


class RestBody(msgspec.Struct):
    """$inference_request"""

    inputs: list[RestInput]
    id: str = ""
    parameters: dict[str, Parameter] = {}
    outputs: list[RestOutput] = []


_DECODER = msgspec.json.Decoder(RestBody)
_ENCODER = msgspec.json.Encoder()


def json_length(header: str | None) -> int | None:
    """What Inference-Header-Content-Length says; None for what is no number."""
    return int(header) if header is not None and _LENGTH(header) else None


def split_body(body: Buffer, json_bytes: str | None) -> tuple[RestBody, memoryview]:
    """The JSON of a request, and the bytes behind it. `json_bytes`: the header, if there is one. Raises TensorError."""
    view = memoryview(body)
    length = len(body)
    if json_bytes is not None:
        announced = json_length(json_bytes)
        if announced is None or announced > length:
            raise TensorError(
                f"Header Inference-Header-Content-Length is {shown(json_bytes)}, the body has {length} bytes."
            )
        length = announced
    try:
        return _DECODER.decode(view[:length]), view[length:]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TensorError(f"The body is not an inference request: {error}.") from None


def read_rest(name: str, version: str, body: RestBody, binary: memoryview, model: ModelInfo) -> RestInference:
    """What the client asks for this model. Raises TensorError."""
    inputs: dict[str, InputTensor] = {}
    arrays: dict[str, Array] = {}
    for each in body.inputs:
        if each.name in inputs:
            raise TensorError(f"Input {shown(each.name)} is there twice.")
        check_parameters(each.name, each.parameters)
        datatype = find_datatype(each.name, each.datatype)
        size = each.parameters.get(_SIZE)
        if size is None:
            arrays[each.name] = read_json(each.name, datatype, each.shape, each.data)
        else:
            data, binary = _cut(each, size, binary)
            arrays[each.name] = read_raw(each.name, datatype, each.shape, data)
        inputs[each.name] = InputTensor(datatype.name, tuple(each.shape), each.parameters)
    if binary:
        raise TensorError(f"There are {len(binary)} bytes behind those of the inputs.")
    for output in body.outputs:
        check_parameters(output.name, output.parameters)
    all_binary = body.parameters.get(_ALL_BINARY) is True
    request = InferenceRequest(
        name,
        model.served_version(version),
        model_id_of(name, version),
        body.id,
        body.parameters,
        inputs,
        tuple(each.name for each in body.outputs),
    )
    return RestInference(request, arrays, all_binary, {each.name: each.parameters for each in body.outputs})


class RestInference:
    """A request, its inputs, and the form of the outputs that it wants."""

    __slots__ = ("_all_binary", "_outputs", "arrays", "request")

    def __init__(
        self,
        request: InferenceRequest,
        arrays: dict[str, Array],
        all_binary: bool,
        outputs: dict[str, dict[str, Parameter]],
    ) -> None:
        self.request = request
        self.arrays = arrays
        self._all_binary = all_binary
        self._outputs = outputs

    def wants_binary(self, output: str) -> bool:
        return self._outputs.get(output, {}).get(_BINARY, self._all_binary) is True


def write_rest(asked: RestInference, outputs: NamedOutputs) -> tuple[bytes, list[Buffer]]:
    """The JSON of the response, and the tensors behind it. Raises TensorError, OutputError."""
    request = asked.request
    binary: list[Buffer] = []
    found: dict[str, Any] = {"model_name": request.model_name}
    for key, value in (("model_version", request.model_version), ("id", request.id)):
        if value:
            found[key] = value
    if outputs.parameters:
        found["parameters"] = outputs.parameters
    found["outputs"] = [_written(each, binary, is_binary=asked.wants_binary(each.name)) for each in outputs.tensors]
    return _ENCODER.encode(found), binary


def read_json(name: str, datatype: Datatype, shape: list[int], data: Any) -> Array:
    """An input from a JSON array, flat or nested as its shape is. Raises TensorError."""
    count = count_elements(name, shape)
    if not isinstance(data, list):
        raise TensorError(
            f"Input {shown(name)} has no data: an array, or the parameter {_SIZE} and bytes behind the JSON."
        )
    if not datatype.contents_field:
        raise TensorError(
            f"Input {shown(name)} is {datatype.name}, which JSON cannot carry: send it as bytes behind the JSON, with "
            f"the parameter {_SIZE}."
        )
    array = _texts(name, data) if datatype is BYTES else _numbers(name, datatype, data)
    if array.size != count or (count and array.ndim != 1 and array.shape != tuple(shape)):
        raise TensorError(
            f"Input {shown(name)} has data of shape {list(array.shape)}; its shape is {shape}, or flat [{count}]."
        )
    return shaped(name, array, shape)


def json_values(output: OutputTensor) -> list[Any]:
    """Its elements, flat. Raises TensorError, OutputError."""
    if output.datatype is BYTES:
        try:
            return [each.decode() for each in output_bytes(output.name, output.array)]
        except UnicodeDecodeError:
            raise TensorError(
                f"Output {output.name!r} is not text, which JSON cannot carry: ask for binary_data."
            ) from None
    if not output.datatype.contents_field:
        raise TensorError(
            f"Output {output.name!r} is {output.datatype.name}: JSON cannot carry it; ask for binary_data."
        )
    values: list[Any] = output.array.reshape(-1).tolist()
    return values


def _cut(tensor: RestInput, size: Parameter, binary: memoryview) -> tuple[memoryview, memoryview]:
    if tensor.data is not None:
        raise TensorError(f"Input {shown(tensor.name)} has both data and {_SIZE}; send one of them.")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary):
        raise TensorError(
            f"Input {shown(tensor.name)} has {_SIZE} {size!r}; behind the JSON and the inputs before it are "
            f"{len(binary)} bytes. The header Inference-Header-Content-Length has the length of the JSON."
        )
    return binary[:size], binary[size:]


def _texts(name: str, data: list[Any]) -> Array:
    """Strings as bytes, flat: numpy's own arrays of text lose zero bytes at the end."""
    found = list(_flat(name, data))
    if not all(isinstance(each, str) for each in found):
        raise TensorError(f"Input {shown(name)} is BYTES, and its data has other elements than strings.")
    return byte_array(each.encode() for each in found)


def _flat(name: str, data: list[Any], depth: int = DIMENSIONS_MAX) -> Iterator[Any]:
    if not depth:
        raise _nested_too_deep(name)
    for each in data:
        if isinstance(each, list):
            yield from _flat(name, each, depth - 1)
        else:
            yield each


def _numbers(name: str, datatype: Datatype, data: list[Any]) -> Array:
    if not _types(name, data) <= _NUMBERS:
        raise TensorError(f"Input {shown(name)} is {datatype.name}, and its data has elements of another type.")
    try:
        array = np.array(data)
        if datatype.name == "UINT64" and array.dtype.kind == "f" and _are_natural(_flat(name, data)):
            # Small and very large integers together: by itself numpy rounds them to float64.
            array = np.array(data, np.uint64)
    except (ValueError, OverflowError):
        raise TensorError(f"Input {shown(name)} has data that is not an array of equal rows of numbers.") from None
    kind, wanted = array.dtype.kind, datatype.dtype.kind
    if not array.size and kind == "f":
        return array.astype(datatype.dtype)
    if wanted == "b" and kind in "iu" and array.min() >= 0 and array.max() <= 1:
        return array.astype(datatype.dtype)
    if kind not in {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}[wanted]:
        raise TensorError(f"Input {shown(name)} is {datatype.name}, and its data has elements of another type.")
    if wanted in "iu":
        return narrowed(name, datatype, array)
    with np.errstate(over="ignore"):
        found = array.astype(datatype.dtype)
    if wanted == "f" and not np.isfinite(found).all():
        raise TensorError(f"Input {shown(name)} is {datatype.name}, and has elements that are outside of its range.")
    return found


def _types(name: str, data: list[Any], depth: int = DIMENSIONS_MAX) -> set[type]:
    """The types of the elements. numpy is not asked: of texts it would make an array as wide as the longest one."""
    if not depth:
        raise _nested_too_deep(name)
    found = set(map(type, data))
    if list in found:
        found.discard(list)
        for each in data:
            if type(each) is list:
                found |= _types(name, each, depth - 1)
    return found


def _nested_too_deep(name: str) -> TensorError:
    return TensorError(f"Input {shown(name)} has data that is nested deeper than {DIMENSIONS_MAX} levels.")


def _are_natural(values: Iterator[Any]) -> bool:
    return all(type(each) is int and each >= 0 for each in values)


def _written(output: OutputTensor, binary: list[Buffer], *, is_binary: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": output.name,
        "datatype": output.datatype.name,
        "shape": list(output.array.shape),
    }
    if is_binary:
        data = write_raw(output.name, output.datatype, output.array)
        binary.append(data)
        found["parameters"] = {_SIZE: len(data)}
    else:
        found["data"] = json_values(output)
    return found
