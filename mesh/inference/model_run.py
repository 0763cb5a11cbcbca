"""One run of a model's code: the model is found, inputs are checked, outputs selected and checked."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from mesh.context import name_model
from mesh.exceptions import GrpcStatusError
from mesh.inference.protocol.datatypes import Array, Datatype, OutputError, TensorError, output_datatype, shown
from mesh.inference.protocol.inference_request import InferenceRequest, InferenceResult, Parameter, Tensors, model_id_of
from mesh.inference.protocol.model_info import ModelInfo
from mesh.inference.protocol.numpy_module import load_numpy

if TYPE_CHECKING:
    import numpy as np
else:
    np = load_numpy()


class ModelCode(Protocol):
    """What the user writes; implemented by inference_server."""

    def find_model(self, name: str, version: str) -> Any: ...

    def infer(self, inputs: Any, request: InferenceRequest) -> Any: ...

    def stream(self, inputs: Any, request: InferenceRequest) -> AsyncIterator[Any]: ...


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output on its way to the client."""

    name: str
    datatype: Datatype
    array: Array


@dataclass(frozen=True, slots=True)
class NamedOutputs:
    """All outputs of one response."""

    tensors: list[OutputTensor]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


async def served_model(code: ModelCode, name: str, version: str) -> ModelInfo:
    """The model that a client names; from here on it is that of the request. Raises NOT_FOUND."""
    found = code.find_model(name, version)
    model = await found if inspect.isawaitable(found) else found
    if model is None:
        raise GrpcStatusError(grpc.StatusCode.NOT_FOUND, f"There is no model {shown(name)}.")
    if not isinstance(model, ModelInfo):
        raise TypeError(f"find_model returned {type(model).__name__}, not a ModelInfo, or None for a model it has not.")
    if not model.has_version(version):
        versions = ", ".join(model.versions)
        raise GrpcStatusError(
            grpc.StatusCode.NOT_FOUND, f"Model {shown(name)} has no version {shown(version)}. There are: {versions}."
        )
    name_model(model_id_of(name, version))
    return model


async def run_model(code: ModelCode, model: ModelInfo, request: InferenceRequest, arrays: Tensors) -> NamedOutputs:
    """One response. Raises TensorError, OutputError and what the user's code raises."""
    _check(model, request)
    return _outputs(model, request, await call_infer(code, arrays, request))


async def call_infer(code: ModelCode, arrays: Tensors, request: InferenceRequest) -> Any:
    """What `infer` returns; a `def` one runs in a thread."""
    if inspect.iscoroutinefunction(code.infer):
        return await code.infer(arrays, request)
    # Not at the top: only replicas with such code pay for it.
    import anyio.to_thread

    result = await anyio.to_thread.run_sync(code.infer, arrays, request)
    return await result if inspect.isawaitable(result) else result


async def stream_model(
    code: ModelCode, model: ModelInfo, request: InferenceRequest, arrays: Tensors
) -> AsyncGenerator[NamedOutputs, None]:
    """Responses as the user's code makes them. Raises like `run_model`."""
    _check(model, request)
    results = code.stream(arrays, request)
    try:
        async for result in results:
            yield _outputs(model, request, result)
    finally:
        if isinstance(results, AsyncGenerator):
            await results.aclose()


def _check(model: ModelInfo, request: InferenceRequest) -> None:
    model.check_inputs(request.inputs)
    model.check_requested(request.requested_outputs)


def _outputs(model: ModelInfo, request: InferenceRequest, result: object) -> NamedOutputs:
    outputs, parameters = (result.outputs, result.parameters) if isinstance(result, InferenceResult) else (result, {})
    if not isinstance(outputs, Mapping):
        raise OutputError(
            f"The code of model {model.name!r} returned {type(outputs).__name__}, not arrays by names of outputs."
        )
    for name in (*outputs, *parameters):
        if not isinstance(name, str):
            raise OutputError(f"The code of model {model.name!r} returned {name!r} as a name, which is no string.")
    names = request.requested_outputs or tuple(outputs)
    checked = {name: _parameter(model, name, value) for name, value in parameters.items()}
    return NamedOutputs([_output(model, name, outputs) for name in names], checked)


def _parameter(model: ModelInfo, name: str, value: Any) -> Parameter:
    """A parameter of a response; a number of numpy as Python has it."""
    found = value.item() if isinstance(value, np.generic) else value
    if not isinstance(found, Parameter):
        raise OutputError(
            f"The code of model {model.name!r} returned parameter {name!r} of type {type(value).__name__}: parameters "
            "are bool, int, float or str."
        )
    return found


def _output(model: ModelInfo, name: str, outputs: Tensors) -> OutputTensor:
    if name not in outputs:
        made = ", ".join(map(repr, outputs))
        if not model.outputs:
            raise TensorError(f"Model {model.name!r} has no output {shown(name)}. There are: {made}.")
        raise OutputError(f"The code of model {model.name!r} did not return output {name!r}, only {made}.")
    declared = model.declared_output(name)
    if declared is None and model.outputs:
        raise OutputError(f"The code of model {model.name!r} returned output {name!r}, which it does not declare.")
    try:
        array = np.asarray(outputs[name])
    except ValueError as error:  # rows of different lengths
        raise OutputError(f"Output {name!r} of model {model.name!r} is not an array: {error}") from error
    datatype = output_datatype(name, array, declared.datatype if declared is not None else "")
    if declared is not None and not declared.accepts_shape(array.shape):
        raise OutputError(
            f"Output {name!r} of model {model.name!r} has the shape {list(array.shape)}, and declares "
            f"{list(declared.shape)}."
        )
    return OutputTensor(name, datatype, array)
