"""One stream of `ModelStreamInfer`: its requests one after another, each with any number of responses.

As Triton has it: a request that fails gets a response with an error, and the stream goes on. A client that sends the
metadata `triton_grpc_error: true` gets the status of gRPC instead, which ends the stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from mesh.exceptions import GrpcStatusError
from mesh.inference.grpc_tensors import read_inference, write_inference
from mesh.inference.inference_failures import failure_text, record_failure
from mesh.inference.model_run import ModelCode, NamedOutputs, served_model, stream_model
from mesh.inference.protocol.datatypes import OutputError, TensorError
from mesh.inference.protocol.messages import ModelInferResponse
from mesh.inference.protocol.wire_messages import StreamFailure, WireRequest, WireResponse

FINAL = "triton_final_response"
_WANTS_FINAL = "triton_enable_empty_final_response"
_WANTS_STATUS = "triton_grpc_error"


class InferenceStream:
    """The stream of one client."""

    def __init__(self, code: ModelCode, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._code = code
        metadata = dict(context.invocation_metadata() or ())
        self._wants_status = metadata.get(_WANTS_STATUS) == "true"

    async def responses(self, wire: WireRequest) -> AsyncIterator[WireResponse | StreamFailure]:
        """Those to one request. Raises only if the client wants a status, or has left."""
        message = wire.message
        try:
            model = await served_model(self._code, message.model_name, message.model_version)
            request, arrays = read_inference(wire, model)
            wants_final = request.parameters.get(_WANTS_FINAL) is True
            async with aclosing(stream_model(self._code, model, request, arrays)) as results:
                async for outputs in results:
                    marked = _marked(outputs, is_final=False) if wants_final else outputs
                    yield write_inference(request, marked, is_raw=bool(wire.raw))
            if wants_final:
                yield write_inference(request, _marked(NamedOutputs([]), is_final=True), is_raw=True)
        except Exception as error:  # user code's; the others of the stream go on
            if self._wants_status:
                raise _status(error) from error
            record_failure(f"ModelStreamInfer of {message.model_name}", error)
            named = ModelInferResponse(
                model_name=message.model_name, model_version=message.model_version, id=message.id
            )
            yield StreamFailure(failure_text(error), named)


def _marked(outputs: NamedOutputs, *, is_final: bool) -> NamedOutputs:
    return replace(outputs, parameters={**outputs.parameters, FINAL: is_final})


def _status(error: Exception) -> Exception:
    if isinstance(error, TensorError):
        return GrpcStatusError(grpc.StatusCode.INVALID_ARGUMENT, error)
    if isinstance(error, OutputError):
        return GrpcStatusError(grpc.StatusCode.INTERNAL, error)
    return error
