"""`InferenceServer`, which a deployment inherits to serve models over gRPC and REST."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, ClassVar

import grpc
import grpc.aio

from mesh.context import get_replica_context, in_replica
from mesh.exceptions import GrpcStatusError
from mesh.inference.grpc_tensors import read_inference, write_inference
from mesh.inference.inference_rest import InferenceRest
from mesh.inference.inference_servicer import SERVICE, GRPCInferenceServiceServicer
from mesh.inference.inference_stream import InferenceStream
from mesh.inference.model_run import call_infer, run_model, served_model
from mesh.inference.protocol.datatypes import OutputError, TensorError
from mesh.inference.protocol.inference_request import InferenceRequest, InferenceResult, Tensors
from mesh.inference.protocol.messages import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from mesh.inference.protocol.model_info import ModelInfo
from mesh.inference.protocol.wire_messages import StreamFailure, WireRequest, WireResponse
from mesh.usercode.model_id_sources import ModelIdSources
from mesh.web.ingress import IngressApp

Context = grpc.aio.ServicerContext[Any, Any]
Result = Tensors | InferenceResult

EXTENSIONS = ("binary_tensor_data", "generate")


class InferenceServer(GRPCInferenceServiceServicer):
    """Serves the Open Inference Protocol, version 2: `inference.GRPCInferenceService` over gRPC, and its REST form.

    A subclass writes `infer`, `async def` or `def` (which runs in a thread), and names its models:

        class Doubler(InferenceServer):
            models = (ModelInfo("doubler", [TensorInfo("x", "FP32", [-1])], [TensorInfo("y", "FP32", [-1])]),)

            async def infer(self, inputs, request):
                return {"y": inputs["x"] * 2}
    """

    models: ClassVar[Sequence[ModelInfo]] = ()
    """What is served; or write `find_model`."""

    __mesh_ingress__ = IngressApp(build_for=InferenceRest, is_optional=True)
    __mesh_model_ids__ = ModelIdSources(
        {f"/{SERVICE}/{name}": (1, 2) for name in ("ModelInfer", "ModelReady", "ModelMetadata")},
        ("v2/models/{}/versions/{}", "v2/models/{}"),
    )

    def find_model(self, name: str, version: str) -> ModelInfo | Awaitable[ModelInfo | None] | None:
        """The model that a client names, None if there is none; `version` is empty if the client names none.

        Asked for each request, so it should be fast; it may be `async def`. Whether the model has the version is
        checked afterwards. This one looks into `models`.
        """
        return next((each for each in self.models if each.name == name), None)

    def infer(self, inputs: dict[str, Any], request: InferenceRequest) -> Result | Awaitable[Result]:
        """One response: numpy arrays by the names of outputs, or an InferenceResult.

        Args:
            inputs: numpy arrays by the names of inputs, not to be written to. BYTES has objects of type bytes, and BF16
                is float32.
            request: What else the client said.

        A mistake of the client's is raised as `mesh.exceptions.GrpcStatusError`.
        """
        raise GrpcStatusError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"Model {request.model_name!r} answers in streams only: call ModelStreamInfer.",
        )

    async def stream(self, inputs: dict[str, Any], request: InferenceRequest) -> AsyncIterator[Result]:
        """Any number of responses to one request of `ModelStreamInfer`. This one makes one, with `infer`."""
        yield await call_infer(self, inputs, request)

    # ---- The protocol ------------------------------------------------------------------------------------------------

    async def ServerLive(self, request: ServerLiveRequest) -> ServerLiveResponse:
        return ServerLiveResponse(live=True)

    async def ServerReady(self, request: ServerReadyRequest) -> ServerReadyResponse:
        """A replica gets calls when it is ready."""
        return ServerReadyResponse(ready=True)

    async def ModelReady(self, request: ModelReadyRequest) -> ModelReadyResponse:
        """An unknown model is not ready, and no error: so says Triton, and clients ask for a bool."""
        try:
            await served_model(self, request.name, request.version)
        except GrpcStatusError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return ModelReadyResponse(ready=False)
            raise
        return ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: ServerMetadataRequest) -> ServerMetadataResponse:
        """The deployment and its version."""
        name, version = type(self).__name__, ""
        if in_replica():
            replica = get_replica_context()
            name, version = replica.deployment, replica.code_version
        return ServerMetadataResponse(name=name, version=version, extensions=EXTENSIONS)

    async def ModelMetadata(self, request: ModelMetadataRequest) -> ModelMetadataResponse:
        model = await served_model(self, request.name, request.version)
        found = ModelMetadataResponse(
            name=request.name, versions=model.versions, platform=model.platform, properties=model.properties
        )
        for tensors, target in ((model.inputs, found.inputs), (model.outputs, found.outputs)):
            for each in tensors:
                target.add(name=each.name, datatype=each.datatype, shape=each.shape)
        return found

    async def ModelInfer(self, request: WireRequest) -> WireResponse:
        model = await served_model(self, request.message.model_name, request.message.model_version)
        try:
            asked, arrays = read_inference(request, model)
            outputs = await run_model(self, model, asked, arrays)
            return write_inference(asked, outputs, is_raw=bool(request.raw))
        except TensorError as error:
            raise GrpcStatusError(grpc.StatusCode.INVALID_ARGUMENT, error) from error
        except OutputError as error:
            raise GrpcStatusError(grpc.StatusCode.INTERNAL, error) from error

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[WireRequest], context: Context
    ) -> AsyncIterator[WireResponse | StreamFailure]:
        stream = InferenceStream(self, context)
        async for request in request_iterator:
            async for response in stream.responses(request):
                yield response
